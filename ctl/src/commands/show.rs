//! `ctl show MODEL`: facts about one model, or one of its longer parts alone.

use super::Context;
use crate::args::ShowPart;
use crate::error::CtlError;
use crate::format::{ago, bytes, count};
use crate::output::printable;
use hearth_protocol::{MemoryEstimate, ModelDetails, ModelParams, ModelShow, WeightGroup};
use serde_json::Value;

pub(super) fn run(context: &Context, model: String, part: &ShowPart) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<ModelShow>(&ModelParams { model })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let details: ModelDetails = session.read(reply)?;
    let name = &details.summary.name;
    if part.template {
        let template = details.template.as_deref().or(details.chat_template.as_deref());
        let missing = || lacks(name, "chat template");
        return text(context, template.ok_or_else(missing)?);
    }
    if part.modelfile {
        return text(context, &details.modelfile);
    }
    if part.license {
        if details.licenses.is_empty() {
            return Err(lacks(name, "licence text"));
        }
        return text(context, &details.licenses.join("\n\n"));
    }
    if part.metadata {
        let facts: Vec<(&str, String)> =
            details.metadata.iter().map(|(key, value)| (key.as_str(), fact(value))).collect();
        return context.out.facts(&facts);
    }
    context.out.facts(&facts(&details))
}

/// A value of a file's metadata, in one line.
fn fact(value: &Value) -> String {
    match (value, value["length"].as_u64(), value["bytes"].as_u64()) {
        (_, Some(length), _) => format!("({length} values)"),
        (_, _, Some(n_bytes)) => format!("(text of {n_bytes} bytes)"),
        (Value::String(text), ..) => text.clone(),
        (value, ..) => value.to_string(),
    }
}

fn facts(details: &ModelDetails) -> Vec<(&'static str, String)> {
    let summary = &details.summary;
    let known =
        |n: u64, unit: &str| if n == 0 { String::new() } else { format!("{}{unit}", count(n)) };
    let template = details.template.as_ref().or(details.chat_template.as_ref()).map(|template| {
        let n = count(template.chars().count() as u64);
        let whose = if details.template.is_some() { "of the store's own" } else { "in the file" };
        format!("{n} characters, {whose}, `--template` shows it")
    });
    let options = details.options.iter().map(|(name, value)| {
        let ignored = details.options_without_effect.iter().find(|(ignored, _)| ignored == name);
        let why = ignored.map(|(_, why)| format!(", without effect: {why}")).unwrap_or_default();
        format!("{name} {value}{why}")
    });
    let licenses: Vec<&str> =
        details.licenses.iter().flat_map(|text| first_lines(text, LICENSE_LINES)).collect();
    let mut facts = vec![
        ("name", summary.name.clone()),
        ("id", summary.id.clone()),
        ("architecture", details.architecture.clone()),
        ("parameters", known(details.parameters, "")),
        ("quantization", quantization(details)),
        ("context", known(details.context_length, " tokens")),
        ("embedding", known(details.embedding_length, " numbers")),
        ("layers", known(details.block_count, "")),
        ("size", bytes(summary.size_bytes)),
        ("memory", memory(&details.memory)),
        ("modified", ago(summary.modified_s)),
        ("store", summary.store.clone()),
        ("file", details.path.clone()),
        ("template", template.unwrap_or_else(|| "none; this model was not made for chats".into())),
        ("capabilities", details.capabilities.join(", ")),
        ("options", options.collect::<Vec<_>>().join("\n")),
        ("system", details.system.clone().unwrap_or_default()),
        ("licence", licenses.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// How many lines of each licence are shown.
const LICENSE_LINES: usize = 2;

fn first_lines(text: &str, n: usize) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty()).take(n)
}

/// The file's own word, and the types of each kind of weights where there are several.
fn quantization(details: &ModelDetails) -> String {
    let mut lines = vec![details.summary.quantization.clone()];
    let mut types: Vec<(&str, Vec<&str>)> = Vec::new();
    for WeightGroup { class, type_name, .. } in &details.weights {
        match types.last_mut().filter(|(last, _)| last == class) {
            Some((_, names)) => names.push(type_name),
            None => types.push((class, vec![type_name])),
        }
    }
    let width = types.iter().map(|(class, _)| class.len()).max().unwrap_or(0);
    lines
        .extend(types.iter().map(|(class, names)| format!("{class:width$}  {}", names.join(", "))));
    lines.join("\n")
}

fn memory(estimates: &[MemoryEstimate]) -> String {
    let tokens = |estimate: &MemoryEstimate| count(estimate.context);
    let width = estimates.iter().map(|estimate| tokens(estimate).len()).max().unwrap_or(0);
    let line = |estimate: &MemoryEstimate| {
        let (total, kv) = (bytes(estimate.total_bytes), bytes(estimate.kv_bytes));
        format!(
            "about {total} with {:>width$} tokens of context, which take {kv}",
            tokens(estimate)
        )
    };
    estimates.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Byte for byte in a pipe; harmless on a terminal.
fn text(context: &Context, text: &str) -> Result<(), CtlError> {
    if context.out.stdout_is_terminal() {
        return context.out.line(&printable(text));
    }
    context.out.write(text)
}

fn lacks(name: &str, what: &str) -> CtlError {
    CtlError::failed(
        format!("`{name}` has no {what}"),
        format!("`ctl show {name}` says what it has"),
    )
}
