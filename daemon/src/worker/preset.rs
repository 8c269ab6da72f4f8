//! What a model's manifest says beside its weights: its template, how its chats begin, and options of its own.

use hearth_protocol::{Message, Options, Role};
use hearth_store::ResolvedModel;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Preset {
    /// In Go's language. Without one the weights' own is used.
    pub(crate) template: Option<String>,
    system: Option<String>,
    pub(crate) messages: Vec<Message>,
    /// An object that is valid as [`Options`].
    options: Map<String, Value>,
}

/// Ollama's names of options where ours are others.
const RENAMED: [(&str, &str); 3] =
    [("num_ctx", "context"), ("num_keep", "keep"), ("num_predict", "max_tokens")];
/// Where they are the same, or only ours.
const SAME: [&str; 24] = [
    "temperature",
    "dynatemp_range",
    "dynatemp_exponent",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "min_keep",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "seed",
    "stop",
];

impl Preset {
    pub(crate) fn of(model: &ResolvedModel) -> Self {
        // Beside a renderer that is built into Ollama stands a template that nothing renders.
        let template = model.template.as_ref().filter(|_| model.config.renderer.is_none());
        let messages = model.messages.iter().filter_map(|message| {
            let role = match message.role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                _ => return None,
            };
            Some(Message::text(role, message.content.as_str()))
        });
        Self {
            template: template.filter(|template| !template.trim().is_empty()).cloned(),
            system: model.system.clone().filter(|system| !system.is_empty()),
            messages: messages.collect(),
            options: options(&model.params),
        }
    }

    /// Tokens of context that a request has unless it wants fewer.
    pub(super) fn context(&self) -> Option<u32> {
        self.options.get("context")?.as_u64()?.try_into().ok()
    }

    /// A chat with what all chats with the model begin with. A system message of the caller's goes before the model's.
    pub(super) fn begin(&self, messages: &[Message]) -> Vec<Message> {
        let brings_system = messages.first().is_some_and(|first| first.role == Role::System);
        let system = self.system.iter().filter(|_| !brings_system);
        let system = system.map(|system| Message::text(Role::System, system.as_str()));
        system.chain(self.messages.iter().cloned()).chain(messages.iter().cloned()).collect()
    }

    /// The caller's options, and the model's where the caller has none.
    pub(super) fn options(&self, asked: &Options) -> Options {
        let Ok(Value::Object(asked_for)) = serde_json::to_value(asked) else {
            return asked.clone();
        };
        let mut options = self.options.clone();
        options.extend(asked_for);
        serde_json::from_value(Value::Object(options)).unwrap_or_else(|_| asked.clone())
    }
}

/// What Hearth has by another name, or not at all, or in another range (such as -1 for no limit), is left out.
fn options(params: &Map<String, Value>) -> Map<String, Value> {
    let valid = |name: &str, value: &Value| {
        let one = Map::from_iter([(name.to_string(), value.clone())]);
        serde_json::from_value::<Options>(Value::Object(one)).is_ok()
    };
    let same = SAME.iter().map(|name| (*name, *name));
    // To Ollama 0 is as good as nothing there.
    let renamed = RENAMED.into_iter().filter(|(theirs, _)| params.get(*theirs) != Some(&0.into()));
    same.chain(renamed)
        .filter_map(|(theirs, ours)| Some((ours, params.get(theirs)?)))
        .filter(|(name, value)| valid(name, value))
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn preset(params: Value) -> Preset {
        let Value::Object(params) = params else { panic!("no object") };
        Preset {
            template: None,
            system: Some("Be brief.".into()),
            messages: vec![Message::text(Role::User, "a"), Message::text(Role::Assistant, "b")],
            options: options(&params),
        }
    }

    #[test]
    fn the_callers_options_go_before_the_models() {
        let preset = preset(json!({
            "temperature": 0.3, "top_k": 7, "num_predict": -1, "seed": -1, "num_ctx": 4096, "mirostat": 1, "num_gpu": 99, "num_keep": 24,
            "stop": ["<|a|>", "<|b|>"], "top_p": "high", "repeat_last_n": -1
        }));
        let unlimited = json!({ "num_predict": 0, "num_ctx": 0, "num_keep": 0, "top_k": 0 });
        let unlimited = self::preset(unlimited).options(&Options::default());
        assert_eq!(unlimited, Options { top_k: Some(0), ..Options::default() });
        let models = Options {
            temperature: Some(0.3),
            top_k: Some(7),
            context: Some(4096),
            keep: Some(24),
            mirostat: Some(1),
            stop: vec!["<|a|>".into(), "<|b|>".into()],
            ..Options::default()
        };
        assert_eq!(preset.context(), Some(4096));
        assert_eq!(preset.options(&Options::default()), models);
        let asked = Options {
            temperature: Some(0.7),
            stop: vec!["x".into()],
            max_tokens: Some(3),
            context: Some(64),
            ..Options::default()
        };
        let expected =
            Options { top_k: Some(7), keep: Some(24), mirostat: Some(1), ..asked.clone() };
        assert_eq!(preset.options(&asked), expected);
    }

    #[test]
    fn a_chat_begins_with_the_models_messages() {
        let preset = preset(json!({}));
        let contents = |messages: &[Message]| -> Vec<String> {
            preset.begin(messages).into_iter().map(|message| message.content).collect()
        };
        let hi = Message::text(Role::User, "hi");
        assert_eq!(contents(std::slice::from_ref(&hi)), ["Be brief.", "a", "b", "hi"]);
        assert_eq!(contents(&[Message::text(Role::System, "s"), hi]), ["a", "b", "s", "hi"]);
    }
}
