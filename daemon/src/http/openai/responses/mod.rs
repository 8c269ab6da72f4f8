//! `/v1/responses`: answers that the daemon keeps, so that others can follow them.
//!
//! A response that is stored is the end of a conversation in the tree that sessions are kept in, and one that names it as
//! `previous_response_id` goes on from there; `conversation` names a session, and adds to it. Instructions are not handed on,
//! as OpenAI has it. What is stored is its caller's, and forgotten after 30 days.

mod answering;
mod background;
mod growing;
mod items;
mod request;

use super::answer::EVENTS;
use super::{Answer, error_body, model_of, read};
use crate::http::body::Named;
use crate::http::{Core, Routes, Says, invalid, json_response};
use answering::{Answering, prepare, stored};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::Response;
use background::Background;
use futures_util::Stream;
use futures_util::stream::{once, unfold};
use growing::{last_event, written};
use hearth_protocol::{ChatCount, ErrorKind, RpcError};
use request::Request;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    let response = |says| Says::new(says).answers::<Value>().sends(EVENTS);
    Routes::<Arc<Background>>::default()
        .post(
            "/v1/responses",
            create,
            response("Answers a conversation, and keeps the answer.").takes::<Request>(),
        )
        .post(
            "/v1/responses/input_tokens",
            input_tokens,
            Says::new("Counts the tokens of a conversation.").takes::<Request>().answers::<Value>(),
        )
        .get("/v1/responses/{id}", retrieve, response("A response that is kept."))
        .delete("/v1/responses/{id}", delete, Says::new("Forgets a response.").answers::<Value>())
        .post(
            "/v1/responses/{id}/cancel",
            cancel,
            Says::new("Ends a response in the background.").answers::<Value>(),
        )
        .get(
            "/v1/responses/{id}/input_items",
            input_items,
            Says::new("What a response was asked with.").answers::<Value>(),
        )
        .with_state(Arc::<Background>::default())
}

async fn create(State(background): State<Arc<Background>>, core: Core, body: Body) -> Answer {
    let asked = read::<Request>(&core, body).await?;
    let request = asked.value;
    let (streams, is_background) = (request.stream, request.background);
    let follows = request.previous_response_id.is_some();
    let prepared = match prepare(&core, request).await {
        Err(error) if follows && error.kind() == Some(ErrorKind::SessionNotFound) => {
            return Ok(unknown_previous(&error));
        }
        prepared => prepared?,
    };
    model_of(&prepared.params.model)?;
    let mut answering = Answering::start(core.clone(), prepared, asked.held);
    if is_background {
        let begun = answering.growing.response();
        let tape = background.start(&core, answering).await?;
        return Ok(match streams {
            true => events(tape.listen(0)),
            false => json_response(StatusCode::OK, &begun),
        });
    }
    answering.begin().await?;
    if !streams {
        return Ok(json_response(StatusCode::OK, &answering.whole().await?));
    }
    let mut told = Vec::new();
    answering.growing.begin(&mut told);
    Ok(events(unfold((answering, told), |(mut answering, mut told)| async move {
        while told.is_empty() {
            let event = answering.next().await?;
            answering.take(event, &mut told).await;
        }
        Some((Ok(Bytes::from(told.concat())), (answering, Vec::new())))
    })))
}

fn events(stream: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    response
}

/// In OpenAI's words, for clients that then send the whole conversation again.
fn unknown_previous(error: &RpcError) -> Response {
    let mut body = error_body(StatusCode::BAD_REQUEST, error);
    body.error.param = Some("previous_response_id".into());
    body.error.code = Some("previous_response_not_found".into());
    json_response(StatusCode::BAD_REQUEST, &body)
}

async fn input_tokens(core: Core, body: Body) -> Answer {
    let asked = read::<Request>(&core, body).await?;
    let prepared = prepare(&core, asked.value).await?;
    model_of(&prepared.params.model)?;
    let counted = core.run::<ChatCount>(prepared.params).await?;
    let body = json!({ "object": "response.input_tokens", "input_tokens": counted.prompt_tokens });
    Ok(json_response(StatusCode::OK, &body))
}

async fn retrieve(
    State(background): State<Arc<Background>>,
    core: Core,
    Named(id): Named,
    uri: Uri,
) -> Answer {
    let after = query(&uri, "starting_after").map(|number| {
        number.parse::<usize>().map_err(|_| invalid("`starting_after` is no number of an event"))
    });
    let from = after.transpose()?.map_or(0, |number| number.saturating_add(1));
    let streams = query(&uri, "stream") == Some("true");
    // Looked for first: it leaves the table when it is kept as it ended.
    let tape = background.find(&core, &id);
    if let (Some(tape), true) = (&tape, streams) {
        return Ok(events(tape.listen(from)));
    }
    let response = as_it_is(stored(&core, &id).await?.0, tape.is_some());
    if !streams {
        return Ok(json_response(StatusCode::OK, &response));
    }
    // The pieces are gone; the end has them all.
    let kind = last_event(&response["status"]);
    let last = json!({ "type": kind, "sequence_number": from, "response": response });
    Ok(events(once(ready(Ok(written(&last))))))
}

/// What was kept as running does so, or has ended with the daemon that ran it.
fn as_it_is(mut response: Value, runs: bool) -> Value {
    if response["status"] == "queued" {
        response["status"] = if runs { "in_progress" } else { "failed" }.into();
        if !runs {
            let message = "the daemon ended before this was done (hint: ask again)";
            response["error"] = json!({ "code": "server_error", "message": message });
        }
    }
    response
}

async fn delete(State(background): State<Arc<Background>>, core: Core, Named(id): Named) -> Answer {
    if background.find(&core, &id).is_some() {
        let error = RpcError::new(ErrorKind::InUse, format!("the response `{id}` runs"));
        return Err(error.with_hint("cancel it first").into());
    }
    let deleted = id.clone();
    core.kept(move |sessions, uid| sessions.delete_response(uid, &deleted)).await?;
    Ok(json_response(StatusCode::OK, &json!({ "id": id, "object": "response", "deleted": true })))
}

async fn cancel(State(background): State<Arc<Background>>, core: Core, Named(id): Named) -> Answer {
    if let Some(tape) = background.find(&core, &id) {
        // It may have ended just now.
        let _ = core.cancel(&id);
        tape.ended().await;
    }
    let response = as_it_is(stored(&core, &id).await?.0, false);
    if response["background"] != true {
        let error = "only a response with `background` can be cancelled";
        return Err(RpcError::new(ErrorKind::InvalidParams, error)
            .with_hint("closing its connection ends any other")
            .into());
    }
    Ok(json_response(StatusCode::OK, &response))
}

/// What is new in a response's own request.
async fn input_items(core: Core, Named(id): Named, uri: Uri) -> Answer {
    let (_, mut items) = stored(&core, &id).await?;
    if query(&uri, "order") != Some("asc") {
        items.reverse();
    }
    if let Some(after) = query(&uri, "after") {
        let at = items.iter().position(|item| item["id"] == after);
        items.drain(..at.map_or(items.len(), |at| at + 1));
    }
    let limit = match query(&uri, "limit").map(str::parse) {
        None => 20,
        Some(Ok(limit @ 1..=100)) => limit,
        Some(_) => return Err(invalid("`limit` must be from 1 to 100").into()),
    };
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id_of = |item: Option<&Value>| item.map(|item| item["id"].clone());
    let (first, last) = (id_of(items.first()), id_of(items.last()));
    let list = json!({
        "object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more,
    });
    Ok(json_response(StatusCode::OK, &list))
}

/// Of the names and values that are asked for here, none needs to be escaped.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}
