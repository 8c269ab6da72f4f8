//! The chat's own commands, and the settings they change. Nothing here prints or talks to the daemon.

use super::editor::unquote;
use crate::error::{CtlError, listed};
use hearth_protocol::Options;
use serde::Deserialize as _;
use serde_json::Value;

pub(super) const HELP: &str = "\
/help                this list
/bye                 leave, as Ctrl-D does
/clear               forget the conversation; system text and settings stay
/retry               ask the last question again
/history             show the conversation
/model [NAME]        show the model, or go on with another
/system [TEXT]       show or set the instructions for the whole conversation; `none` removes them
/set                 show the settings
/set NAME VALUE      change one, such as `/set temperature 0.2`; `default` as VALUE undoes it

\"\"\" before and after a text lets it have several lines, and so does Alt-Enter.
Ctrl-C stops an answer and keeps what came of it; a model that thinks is first told to answer.
Ctrl-R searches the history.";

/// For Tab, sorted.
pub(super) const NAMES: [&str; 9] =
    ["/bye", "/clear", "/help", "/history", "/model", "/retry", "/set", "/set system", "/system"];

#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Help,
    Bye,
    Clear,
    Retry,
    History,
    Model(Option<String>),
    ShowSystem,
    System(Option<String>),
    ShowSettings,
    Set(Change),
}

#[derive(Debug, PartialEq)]
pub(super) struct Change {
    name: String,
    value: String,
}

/// A command, or nothing if the text is for the model.
pub(super) fn parse(text: &str) -> Result<Option<Command>, CtlError> {
    // A text with a space before its slash is for the model.
    if !text.starts_with('/') {
        return Ok(None);
    }
    let (name, rest) = split(text);
    let none = |command| {
        if rest.is_empty() {
            Ok(Some(command))
        } else {
            Err(CtlError::usage(
                format!("`{name}` takes nothing after it"),
                "/help lists the commands",
            ))
        }
    };
    let optional = (!rest.is_empty()).then(|| rest.to_owned());
    match name {
        "/help" | "/?" => none(Command::Help),
        "/bye" | "/exit" | "/quit" => none(Command::Bye),
        "/clear" => none(Command::Clear),
        "/retry" => none(Command::Retry),
        "/history" => none(Command::History),
        "/model" => Ok(Some(Command::Model(optional))),
        "/system" => Ok(Some(system(rest))),
        "/set" => match (rest, split(rest)) {
            ("", _) => Ok(Some(Command::ShowSettings)),
            (_, ("system", text)) => Ok(Some(system(text))),
            (_, (name, "")) => Err(CtlError::usage(
                format!("`{name}` needs a value"),
                format!("`/set {name} VALUE`; `/set` alone shows the settings"),
            )),
            (_, (name, value)) => Ok(Some(Command::Set(Change {
                name: name.replace('-', "_"),
                value: unquote(value).to_owned(),
            }))),
        },
        _ => Err(CtlError::usage(
            format!("there is no command `{name}`"),
            "/help lists them; a text that begins with `/` needs a space before it",
        )),
    }
}

fn system(text: &str) -> Command {
    match text {
        "" => Command::ShowSystem,
        "none" => Command::System(None),
        text => Command::System(Some(unquote(text).to_owned())),
    }
}

/// The first word and what follows it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// What a chat can change about its answers.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) think: Option<bool>,
    pub(super) verbose: bool,
}

const SWITCH: &str = "`on` or `off`";

/// Options as the wire names them, and what each takes. Those that only programs can use are not here.
const OPTIONS: [(&str, &str); 31] = [
    ("context", "a whole number"),
    ("deterministic", SWITCH),
    ("dry_allowed_length", "a whole number"),
    ("dry_base", "a number"),
    ("dry_multiplier", "a number"),
    ("dry_penalty_last_n", "a whole number"),
    ("dry_sequence_breakers", "a text, or a JSON list of texts"),
    ("dynatemp_exponent", "a number"),
    ("dynatemp_range", "a number"),
    ("frequency_penalty", "a number"),
    ("keep", "a whole number"),
    ("max_tokens", "a whole number"),
    ("min_keep", "a whole number"),
    ("min_p", "a number"),
    ("mirostat", "0, 1 or 2"),
    ("mirostat_eta", "a number"),
    ("mirostat_tau", "a number"),
    ("presence_penalty", "a number"),
    ("repeat_last_n", "a whole number"),
    ("repeat_penalty", "a number"),
    ("seed", "a whole number"),
    ("shift", SWITCH),
    ("stop", "a text, or a JSON list of texts"),
    ("temperature", "a number"),
    ("top_k", "a whole number"),
    ("top_n_sigma", "a number"),
    ("top_p", "a number"),
    ("truncate", SWITCH),
    ("typical_p", "a number"),
    ("xtc_probability", "a number"),
    ("xtc_threshold", "a number"),
];

impl Settings {
    pub(super) fn change(&mut self, change: &Change) -> Result<(), CtlError> {
        let Change { name, value } = change;
        match (name.as_str(), value.as_str(), switched(value)) {
            ("think", "default", _) => self.think = None,
            ("think", _, Some(on)) => self.think = Some(on),
            ("verbose", "default", _) => self.verbose = false,
            ("verbose", _, Some(on)) => self.verbose = on,
            ("think" | "verbose", ..) => return Err(wrong(name, SWITCH, value)),
            _ => self.options = self.with_option(name, value)?,
        }
        Ok(())
    }

    fn with_option(&self, name: &str, value: &str) -> Result<Options, CtlError> {
        let Some((_, takes)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
            let names: Vec<&str> = OPTIONS
                .iter()
                .map(|(name, _)| *name)
                .chain(["system", "think", "verbose"])
                .collect();
            return Err(CtlError::usage(
                format!("there is no setting `{name}`"),
                format!("there are {}", listed(&names)),
            ));
        };
        let mut options = serde_json::to_value(&self.options).unwrap_or_default();
        let parsed = serde_json::from_str(value).ok();
        match (name, value, parsed) {
            (_, "default", _) => {
                options.as_object_mut().map(|options| options.remove(name));
            }
            ("stop" | "dry_sequence_breakers", _, list) => {
                let list = list.filter(Value::is_array);
                options[name] = list.unwrap_or_else(|| Value::from(vec![value]));
            }
            (_, _, Some(parsed @ Value::Number(_))) if *takes != SWITCH => options[name] = parsed,
            _ if *takes == SWITCH && switched(value).is_some() => {
                options[name] = switched(value).into();
            }
            _ => return Err(wrong(name, takes, value)),
        }
        Options::deserialize(options).map_err(|_| wrong(name, takes, value))
    }

    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let options = serde_json::to_value(&self.options).unwrap_or_default();
        let switch = |on| if on { "on" } else { "off" };
        let mut facts: Vec<(&str, String)> = OPTIONS
            .iter()
            .map(|(name, _)| match &options[*name] {
                Value::Null => (*name, "default".into()),
                Value::Bool(on) => (*name, switch(*on).into()),
                value => (*name, short_number(value)),
            })
            .collect();
        facts.push(("think", self.think.map_or("default", switch).into()));
        facts.push(("verbose", switch(self.verbose).into()));
        facts
    }
}

fn switched(value: &str) -> Option<bool> {
    match value {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

/// Without the digits that come of widening: 0.2 as `f32` is 0.20000000298 as `f64`.
fn short_number(value: &Value) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the value was an `f32` before")]
    match value.as_f64() {
        Some(number) if value.is_f64() => (number as f32).to_string(),
        _ => value.to_string(),
    }
}

fn wrong(name: &str, takes: &str, value: &str) -> CtlError {
    CtlError::usage(
        format!("`{name}` takes {takes}, not `{value}`"),
        format!("`/set {name} default` undoes an earlier value"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Command {
        parse(text).unwrap().unwrap()
    }

    fn set(settings: &mut Settings, text: &str) -> Result<(), String> {
        let Command::Set(change) = command(text) else { panic!("`{text}` sets nothing") };
        settings.change(&change).map_err(|error| error.to_string())
    }

    #[test]
    fn commands() {
        assert_eq!(parse("hello").unwrap(), None);
        assert_eq!(parse(" /help").unwrap(), None);
        assert_eq!(command("/? "), Command::Help);
        assert_eq!(command("/exit"), Command::Bye);
        assert_eq!(command("/model"), Command::Model(None));
        assert_eq!(command("/model  a:b "), Command::Model(Some("a:b".into())));
        assert_eq!(command("/system"), Command::ShowSystem);
        assert_eq!(command("/system none"), Command::System(None));
        assert_eq!(command("/set system be  brief"), Command::System(Some("be  brief".into())));
        assert_eq!(command("/system \"\"\"a\nb\"\"\""), Command::System(Some("a\nb".into())));
        assert_eq!(command("/set"), Command::ShowSettings);
        for (text, message) in [
            ("/nonsense", "there is no command `/nonsense`"),
            ("/usr/bin/env is what?", "there is no command `/usr/bin/env`"),
            ("/clear all", "`/clear` takes nothing after it"),
            ("/set seed", "`seed` needs a value"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn every_option_of_the_wire_can_be_set() {
        let mut settings = Settings::default();
        for (name, takes) in OPTIONS {
            let value = if takes == SWITCH { "on" } else { "1" };
            set(&mut settings, &format!("/set {name} {value}")).unwrap();
        }
        let set_options = serde_json::to_value(&settings.options).unwrap();
        assert_eq!(set_options.as_object().unwrap().len(), OPTIONS.len());
        let Options {
            temperature: Some(_),
            dynatemp_range: Some(_),
            dynatemp_exponent: Some(_),
            top_k: Some(_),
            top_p: Some(_),
            min_p: Some(_),
            typical_p: Some(_),
            top_n_sigma: Some(_),
            xtc_probability: Some(_),
            xtc_threshold: Some(_),
            min_keep: Some(_),
            mirostat: Some(_),
            mirostat_tau: Some(_),
            mirostat_eta: Some(_),
            repeat_penalty: Some(_),
            repeat_last_n: Some(_),
            presence_penalty: Some(_),
            frequency_penalty: Some(_),
            dry_multiplier: Some(_),
            dry_base: Some(_),
            dry_allowed_length: Some(_),
            dry_penalty_last_n: Some(_),
            dry_sequence_breakers: Some(_),
            logit_bias: _,
            logprobs: None,
            top_logprobs: None,
            seed: Some(_),
            stop: _,
            max_tokens: Some(_),
            context: Some(_),
            truncate: Some(true),
            shift: Some(true),
            keep: Some(_),
            candidates: None,
            deterministic: Some(true),
        } = settings.options
        else {
            panic!("an option of the wire is missing in OPTIONS")
        };
    }

    #[test]
    fn settings() {
        let mut settings = Settings::default();
        set(&mut settings, "/set temperature 0.2").unwrap();
        set(&mut settings, "/set max-tokens 7").unwrap();
        set(&mut settings, "/set stop END OF IT").unwrap();
        set(&mut settings, "/set think off").unwrap();
        let facts = settings.facts();
        for (name, value) in [
            ("temperature", "0.2"),
            ("max_tokens", "7"),
            ("stop", r#"["END OF IT"]"#),
            ("think", "off"),
            ("seed", "default"),
            ("verbose", "off"),
        ] {
            assert!(facts.contains(&(name, value.into())), "{name} in {facts:?}");
        }
        set(&mut settings, "/set stop [\"a\", \"b\"]").unwrap();
        assert_eq!(settings.options.stop, ["a", "b"]);
        set(&mut settings, "/set stop default").unwrap();
        set(&mut settings, "/set temperature default").unwrap();
        set(&mut settings, "/set max_tokens default").unwrap();
        set(&mut settings, "/set think default").unwrap();
        assert_eq!(settings.options, Options::default());
        assert_eq!(settings.think, None);

        for (text, message) in [
            ("/set temperature hot", "`temperature` takes a number, not `hot`"),
            ("/set seed -1", "`seed` takes a whole number, not `-1`"),
            ("/set top_k 1.5", "`top_k` takes a whole number, not `1.5`"),
            ("/set shift far", "`shift` takes `on` or `off`, not `far`"),
            ("/set verbose very", "`verbose` takes `on` or `off`, not `very`"),
            ("/set heat 1", "there is no setting `heat`"),
        ] {
            assert_eq!(set(&mut settings, text), Err(message.to_owned()));
        }
        assert_eq!(settings.options, Options::default());
    }
}
