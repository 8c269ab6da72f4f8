//! `/v1/completions`

use super::answer::{EVENTS, Frame, finish_reason, write_error};
use super::options::Sampling;
use super::texts::Texts;
use super::{Answer, model_of, read};
use crate::http::body;
use crate::http::{Core, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    Event, Generate, GenerateParams, GenerateReply, Logprob, Score, ScoreParams, ScoreReply, Usage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    prompt: Option<Texts>,
    suffix: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    echo: bool,
    logprobs: Option<u32>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// A choice of an answer, and of a chunk of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Choice {
    text: String,
    index: usize,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize, JsonSchema)]
struct Logprobs {
    tokens: Vec<String>,
    /// Null for the first token of a text that is told too.
    token_logprobs: Vec<Option<f32>>,
    /// By token, and the chosen one is always among them.
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// In characters.
    text_offset: Vec<usize>,
}

impl Logprobs {
    fn add(&mut self, Logprob { chosen, top_logprobs }: Logprob, offset: &mut usize) {
        let of_all = top_logprobs.into_iter().map(|top| (top.token, top.logprob));
        let chosen_one = (chosen.token.clone(), chosen.logprob);
        self.top_logprobs.push(Some(of_all.chain([chosen_one]).collect()));
        self.token_logprobs.push(Some(chosen.logprob));
        self.place(chosen.token, offset);
    }

    fn place(&mut self, token: String, offset: &mut usize) {
        self.text_offset.push(*offset);
        *offset += token.chars().count();
        self.tokens.push(token);
    }
}

/// Of a prompt that is told, and of what is behind it, which begins after so many characters.
fn chances(
    prompt: Option<ScoreReply>,
    logprobs: Vec<Logprob>,
    mut offset: usize,
) -> Option<Logprobs> {
    let mut told = Logprobs::default();
    if let Some(ScoreReply { first, logprobs, .. }) = prompt {
        if !first.is_empty() {
            told.top_logprobs.push(None);
            told.token_logprobs.push(None);
            told.place(first, &mut offset);
        }
        logprobs.into_iter().for_each(|logprob| told.add(logprob, &mut offset));
    }
    logprobs.into_iter().for_each(|logprob| told.add(logprob, &mut offset));
    Some(told).filter(|told| !told.tokens.is_empty())
}

pub(super) async fn completions(core: Core, body: Body) -> Answer {
    let body::Asked { value: request, held } = read::<Request>(&core, body).await?;
    let model = request.model;
    model_of(&model)?;
    let (streams, counts) = (request.sampling.stream, request.sampling.counts());
    let mut options = request.sampling.options()?;
    options.logprobs = request.logprobs.map(|_| true);
    options.top_logprobs = request.logprobs.filter(|top| *top > 0);
    let n_each = options.candidates.unwrap_or(1) as usize;
    let prompt = request.prompt.unwrap_or(Texts::One(String::new()));
    let suffix = request.suffix.filter(|suffix| !suffix.is_empty());
    // Tokens have in them what belongs around a text.
    let raw = prompt.are_tokens() && suffix.is_none();
    let prompts = prompt.read(&core, &model, raw).await?;
    let mut echoed = Vec::new();
    for text in prompts.iter().filter(|_| request.echo) {
        let params = ScoreParams {
            model: model.clone(),
            text: text.clone(),
            raw,
            top_logprobs: options.top_logprobs,
            keep_alive: None,
        };
        let scored =
            if request.logprobs.is_some() { Some(core.run::<Score>(params).await?) } else { None };
        echoed.push((text.clone(), scored));
    }
    let asked = prompts.iter().map(|prompt| GenerateParams {
        model: model.clone(),
        prompt: prompt.clone(),
        images: Vec::new(),
        suffix: suffix.clone(),
        raw,
        format: None,
        options: options.clone(),
        keep_alive: None,
        request: None,
        timeout_ms: None,
    });
    let running = asked.map(|params| core.start::<Generate>(params)).collect();
    let answering = body::begin_all(running, held).await?;
    let frame = Frame::new("cmpl-", "text_completion", model, counts);
    let prompts = Prompts { n: prompts.len(), n_each, echoed };
    if streams {
        return Ok(stream(answering, prompts, frame));
    }
    let mut usage = Usage::default();
    let mut choices = Vec::new();
    for (at, reply) in answering.replies().await?.into_iter().enumerate() {
        add(&mut usage, &reply.usage);
        let others = reply.others.into_iter().map(|it| (it.text, it.finish, it.logprobs));
        let all = [(reply.text, reply.finish, reply.logprobs)].into_iter().chain(others);
        for (candidate, (text, finish, logprobs)) in all.enumerate() {
            let (prompt, scored) = prompts.echoed(at);
            let logprobs = chances(scored, logprobs, 0);
            let text = prompt + &text;
            let index = prompts.index(at, candidate);
            choices.push(Choice {
                text,
                index,
                logprobs,
                finish_reason: Some(finish_reason(finish)),
            });
        }
    }
    Ok(json_response(StatusCode::OK, &frame.whole(&choices, &usage)))
}

/// They are answered one after another, each by some candidates.
struct Prompts {
    n: usize,
    n_each: usize,
    /// Those that are told before the answers to them.
    echoed: Vec<(String, Option<ScoreReply>)>,
}

impl Prompts {
    fn index(&self, at: usize, candidate: usize) -> usize {
        at * self.n_each + candidate
    }

    fn echoed(&self, at: usize) -> (String, Option<ScoreReply>) {
        self.echoed.get(at).cloned().unwrap_or_default()
    }
}

fn add(sum: &mut Usage, usage: &Usage) {
    sum.prompt_tokens += usage.prompt_tokens;
    sum.cached_tokens += usage.cached_tokens;
    sum.completion_tokens += usage.completion_tokens;
}

fn stream(
    answering: body::Answering<Event<GenerateReply>>,
    prompts: Prompts,
    frame: Frame,
) -> Response {
    let (mut at, mut usage) = (0, Usage::default());
    // How many characters of each choice were sent.
    let mut lengths = HashMap::new();
    answering.stream(EVENTS, move |event, out| {
        let mut piece =
            |candidate: usize, text: String, logprobs, finish_reason, out: &mut Vec<u8>| {
                let index = prompts.index(at, candidate);
                let (mut told, mut scored) = (String::new(), None);
                let length = lengths.entry(index).or_insert_with(|| {
                    (told, scored) = prompts.echoed(at);
                    0
                });
                told.push_str(&text);
                let logprobs = chances(scored, logprobs, *length);
                *length += told.chars().count();
                frame.chunk(Choice { text: told, index, logprobs, finish_reason }, out);
            };
        match event {
            Event::Delta { candidate, text, logprobs } => {
                piece(candidate as usize, text, logprobs, None, out);
            }
            Event::Done { reply } => {
                add(&mut usage, &reply.usage);
                let others = reply.others.iter().map(|other| other.finish);
                for (candidate, finish) in [reply.finish].into_iter().chain(others).enumerate() {
                    piece(candidate, String::new(), Vec::new(), Some(finish_reason(finish)), out);
                }
                at += 1;
                if at == prompts.n {
                    frame.end(&usage, out);
                }
            }
            Event::Error { error } => write_error(&error, out),
            _ => {}
        }
    })
}
