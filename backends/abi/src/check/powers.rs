//! Scenarios about optional powers: embeddings, chats, grammars, adapters.

use super::bench::{
    Bench, Scratch, Step, batch, call, config, ensure, failed, feed, must, must_fail,
    not_applicable, push,
};
use crate::host::{Batch, Context, Grammar, Model};
use crate::raw::Token;
use crate::types::{ContextConfig, Pooling, Status};
use serde_json::{Value, json};
use std::sync::Arc;

const ALL_POOLINGS: [Pooling; 5] =
    [Pooling::Model, Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::None];

/// Encoders compute a whole text at once, so a ubatch is as long as a batch.
fn embedding_config(pooling: Pooling) -> ContextConfig {
    ContextConfig { n_ubatch: config().n_batch, embeddings: Some(pooling), ..config() }
}

fn embed(context: &mut Context, tokens: &[Token], pooling: Pooling) -> Step<Vec<f32>> {
    must("seq_remove", context.seq_remove(0, 0, None))?;
    let mut batch = Batch::default();
    push(&mut batch, 0, 0, tokens, 0..tokens.len());
    must("decode", context.decode(&batch))?;
    let index = if pooling == Pooling::None { tokens.len() - 1 } else { 0 };
    Ok(must("embedding", context.embedding(index))?.to_vec())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// A model that ranks texts has one number for a question and a text, the same each time.
fn ranks(model: &Arc<Model>, pair: &[Token]) -> Step {
    ensure!(model.info().n_embd == 1, "it ranks texts, and `n_embd` is not 1");
    let mut context = must("context_create", model.context(&embedding_config(Pooling::Model)))?;
    let first = embed(&mut context, pair, Pooling::Model)?;
    let again = embed(&mut context, pair, Pooling::Model)?;
    ensure!(first[0].is_finite(), "a score is not finite");
    ensure!((first[0] - again[0]).abs() < 1e-3, "a score of the same pair is another one");
    Ok(())
}

pub(super) fn embeddings(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    if let Ok(pair) = model.tokenize_pair("Which animal is it?", "A small dog walks.") {
        return ranks(&model, &pair);
    }
    if !model.info().can_embed {
        let answer = model.context(&embedding_config(Pooling::Model));
        must_fail("context_create for embeddings", answer, &[Status::Unsupported])?;
        return not_applicable("this model makes no embeddings, and says so");
    }
    let tokens = |text| must("tokenize", model.tokenize(text, true, false));
    let a = tokens("A small dog walks across the stage.")?;
    let b = tokens("Two and three are prime numbers")?;
    for pooling in ALL_POOLINGS {
        let mut context = match model.context(&embedding_config(pooling)) {
            Err(error) if error.status == Status::Unsupported && pooling != Pooling::Model => {
                continue;
            }
            made => must(&format!("context_create with pooling {}", pooling as i32), made)?,
        };
        let first = embed(&mut context, &a, pooling)?;
        let label = format!("the embedding with pooling {}", pooling as i32);
        ensure!(
            first.iter().all(|value| value.is_finite()),
            "{label} has a number that is not finite"
        );
        ensure!(first.iter().any(|value| *value != 0.0), "{label} is nothing but zeros");
        let other = embed(&mut context, &b, pooling)?;
        let again = embed(&mut context, &a, pooling)?;
        let (same, different) = (cosine(&first, &again), cosine(&first, &other));
        ensure!(same > 0.999, "{label} of the same text is another one (cosine {same})");
        // The first token may be the same for all texts.
        ensure!(
            pooling == Pooling::Cls || different < 0.9999,
            "{label} is the same for different texts"
        );
    }
    Ok(())
}

pub(super) fn either(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let entry = bench.plugin.entry();
    let tokens = must("tokenize", model.tokenize("one two three", true, false))?;
    if model.info().can_generate {
        let mut context = must("context_create", model.context(&config()))?;
        feed(&mut context, 0, 0, &tokens)?;
        let mut out = std::ptr::null();
        // SAFETY: the context lives, on this thread; the out-parameter is ours.
        let answer =
            call(|error| unsafe { (entry.embedding)(context.raw(), 0, &raw mut out, error) });
        must_fail("embedding of a context for logits", answer, &[Status::InvalidArgument])?;
    }
    if model.info().can_embed {
        let mut context = must("context_create", model.context(&embedding_config(Pooling::Model)))?;
        embed(&mut context, &tokens, Pooling::Model)?;
        let mut out = std::ptr::null_mut();
        // SAFETY: as above.
        let answer = call(|error| unsafe { (entry.logits)(context.raw(), 0, &raw mut out, error) });
        must_fail("logits of a context for embeddings", answer, &[Status::InvalidArgument])?;
    }
    Ok(())
}

const QUESTION: &str = "What is the capital of Norway? Grüße 👍";

fn render(model: &Model, request: &Value) -> Step<Option<Value>> {
    match model.chat_render(&request.to_string()) {
        Err(error) if error.status == Status::Unsupported => not_applicable(error.message),
        Err(error) if error.status == Status::InvalidArgument && request.get("tools").is_some() => {
            Ok(None)
        }
        answer => {
            let text = must("render", answer)?;
            let Ok(answer) = serde_json::from_str(&text) else {
                return failed("render's answer is not JSON");
            };
            Ok(Some(answer))
        }
    }
}

fn plain_request() -> Value {
    json!({ "messages": [{ "role": "user", "content": QUESTION }] })
}

fn tools_request() -> Value {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let function = json!({ "name": "get_weather", "description": "Current weather", "parameters": parameters });
    json!({
        "messages": [{ "role": "user", "content": QUESTION }],
        "tools": [{ "type": "function", "function": function }],
    })
}

pub(super) fn chat_render(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    for request in [plain_request(), tools_request()] {
        let Some(answer) = render(&model, &request)? else { continue };
        for key in ["prompt", "parser", "grammar", "grammar_prefix", "think_start"] {
            ensure!(answer[key].is_string(), "`{key}` of render's answer is not a string");
        }
        for key in ["stops", "triggers", "preserved", "think_ends"] {
            ensure!(answer[key].is_array(), "`{key}` of render's answer is not an array");
        }
        for key in ["plain", "grammar_lazy", "grammar_thinks", "thinks"] {
            ensure!(answer[key].is_boolean(), "`{key}` of render's answer is not a truth value");
        }
        let prompt = answer["prompt"].as_str().unwrap_or_default();
        ensure!(prompt.contains(QUESTION), "the prompt does not contain what the user said");
        must("tokenize of the prompt", model.tokenize(prompt, false, true))?;
    }
    Ok(())
}

pub(super) fn chat_refuse(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    render(&model, &plain_request())?;
    for request in ["", "{", "[]", "{\"messages\": 3}"] {
        must_fail(
            &format!("render of `{request}`"),
            model.chat_render(request),
            &[Status::InvalidArgument],
        )?;
    }
    Ok(())
}

/// The message with its texts put together.
fn parse(model: &Model, parser: &str, text: &str, partial: bool) -> Step<String> {
    let answer = must(&format!("parse of {text:?}"), model.chat_parse(parser, text, partial))?;
    let Ok(message) = serde_json::from_str::<Value>(&answer) else {
        return failed("parse's answer is not JSON");
    };
    let (Some(content), Some(reasoning), Some(calls)) = (
        message["content"].as_str(),
        message["reasoning"].as_str(),
        message["tool_calls"].as_array(),
    ) else {
        return failed(
            "parse's answer has no `content`, `reasoning` and `tool_calls` of the right types",
        );
    };
    for call in calls {
        let arguments = call["arguments"].as_str().unwrap_or_default();
        ensure!(
            call["id"].is_string() && call["name"].is_string(),
            "a call has no `id` and `name`"
        );
        ensure!(
            partial || serde_json::from_str::<Value>(arguments).is_ok(),
            "a call's `arguments` are not JSON text"
        );
    }
    let calls =
        if calls.is_empty() { String::new() } else { Value::Array(calls.clone()).to_string() };
    Ok(format!("{reasoning}{content}{calls}"))
}

pub(super) fn chat_parse(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let plain = "Oslo, naturally. Grüße 👍 1 < 2";
    for request in [plain_request(), tools_request()] {
        let Some(answer) = render(&model, &request)? else { continue };
        let parser = answer["parser"].as_str().unwrap_or_default();
        let found = parse(&model, parser, plain, false)?;
        ensure!(found.trim() == plain, "parse made {found:?} of {plain:?}");
        for (index, _) in plain.char_indices() {
            let found = parse(&model, parser, &plain[..index], true)?;
            ensure!(
                plain.starts_with(found.trim()),
                "parse made {found:?} of the first {index} bytes of {plain:?}"
            );
        }
        for broken in [
            "Before <tool_call>{\"name\": unfinished",
            "Before <tool>unfinished",
            "Before </think> unfinished",
        ] {
            let found = parse(&model, parser, broken, false)?;
            let is_whole = found.contains("Before") && found.contains("unfinished");
            ensure!(is_whole, "parse lost text: it made {found:?} of {broken:?}");
        }
    }
    Ok(())
}

/// The tokens that a grammar allows next, with their text.
fn allowed(model: &Model, grammar: &mut Grammar, all: &[Token]) -> Step<Vec<(Token, String)>> {
    let mut logits = vec![0.0; all.len()];
    must("mask", grammar.mask(all, &mut logits))?;
    ensure!(
        logits.iter().all(|logit| *logit == 0.0 || *logit == f32::NEG_INFINITY),
        "mask changed an allowed logit"
    );
    let tokens = all.iter().zip(&logits).filter(|(_, logit)| **logit == 0.0);
    let with_text = |token: Token| {
        Some((token, String::from_utf8(model.token_piece(token, false).ok()?.into_vec()).ok()?))
    };
    Ok(tokens.filter_map(|(token, _)| with_text(*token)).collect())
}

pub(super) fn grammar(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let compile = |text: &str| model.grammar(text, "root");
    let mut grammar = match compile("root ::= \"yes\" | \"no\"") {
        Err(error) if error.status == Status::Unsupported => return not_applicable(error.message),
        made => must("create", made)?,
    };
    for wrong in ["root ::= (", "other ::= \"a\"", "root ::= missing", ""] {
        must_fail(&format!("create of `{wrong}`"), compile(wrong), &[Status::InvalidArgument])?;
    }
    let n_vocab = Token::try_from(model.info().n_vocab).unwrap_or(Token::MAX);
    // Backwards, as the tokens need not be sorted.
    let all: Vec<Token> = (0..n_vocab).rev().collect();
    let mut written = String::new();
    while written != "yes" && written != "no" {
        let next = allowed(&model, &mut grammar, &all)?;
        let fits = |text: &str| {
            ["yes", "no"].iter().any(|whole| whole.starts_with(&format!("{written}{text}")))
        };
        if let Some((token, text)) = next.iter().find(|(_, text)| text.is_empty() || !fits(text)) {
            return failed(format!(
                "mask allows token {token} ({text:?}) after {written:?} in a grammar of yes and no"
            ));
        }
        let Some((token, text)) = next.first() else {
            return failed(format!("mask allows nothing after {written:?}"));
        };
        let refused = all.iter().find(|token| next.iter().all(|(allowed, _)| allowed != *token));
        if let Some(refused) = refused {
            must_fail(
                "accept of a masked token",
                grammar.accept(*refused),
                &[Status::InvalidArgument],
            )?;
        }
        must("accept", grammar.accept(*token))?;
        written += text;
    }
    let next = allowed(&model, &mut grammar, &all)?;
    ensure!(!next.is_empty(), "mask allows nothing after a whole answer, not even its end");
    let others = next.iter().find(|(token, _)| !model.token_is_end(*token));
    ensure!(others.is_none(), "mask allows {others:?} after a whole answer");
    must("accept of the end", grammar.accept(next[0].0))?;
    let mut grammar = must("create", compile("root ::= \"yes, \" [a-z]+"))?;
    must("accept_text", grammar.accept_text(b"ye"))?;
    must_fail(
        "accept_text of what does not fit",
        grammar.accept_text(b"s, NO"),
        &[Status::InvalidArgument],
    )?;
    let next = allowed(&model, &mut grammar, &all)?;
    let fits =
        |text: &str| text.starts_with('s') && "s, ".starts_with(text.get(..3).unwrap_or(text));
    let other = next.iter().find(|(_, text)| !fits(text));
    ensure!(other.is_none(), "mask allows {other:?} after \"ye\" and a text that was refused");
    must("accept_text", grammar.accept_text(b"s, a"))
}

pub(super) fn adapters(bench: &mut Bench) -> Step {
    let model: Arc<Model> = bench.model()?;
    let scratch = Scratch::new()?;
    let missing = model.adapter(&scratch.0.join("missing.gguf"));
    if missing.as_ref().is_err_and(|error| error.status == Status::Unsupported) {
        return not_applicable("this plugin applies no adapters");
    }
    must_fail("open of a missing adapter", missing, &[Status::NotFound, Status::BadModel])?;
    let noise = scratch.file("noise.gguf", &[0x5a; 4096])?;
    must_fail("open of noise as an adapter", model.adapter(&noise), &[Status::BadModel])?;
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    must("attach of nothing", context.attach(&[]))?;
    must("decode", context.decode(&batch(0, 0, &writer.a)))?;
    let logits = must("logits", context.logits(writer.a.len() - 1))?.to_vec();
    writer.same("a prompt with no adapter", &logits, &writer.logits_after(&[&writer.a])?)
}
