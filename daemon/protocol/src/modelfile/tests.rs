//! The grammar with its quirks, and that what is written reads back.

use super::*;
use proptest::prelude::*;

#[track_caller]
fn parsed(text: &str) -> Vec<Instruction> {
    Modelfile::parse(text.as_bytes()).unwrap().commands
}

fn from(model: &str) -> Instruction {
    Instruction::From(model.into())
}

#[test]
fn every_command_is_read() {
    let text = "# a comment
from  llama3.2:1b \t
  Adapter ./lora.gguf
DRAFT draft.gguf
PARAMETER temperature 0.7
parameter stop \"<|im_end|> \"
PARAMETER   stop a \"b\" c
TEMPLATE \"\"\"{{ .System }}
\"quoted\" # no comment
\"\"\"
SYSTEM You are # brief.
LICENSE \"
MIT
\"
MESSAGE user Hi: there
message assistant \"\"
RENDERER qwen3
PARSER qwen3
REQUIRES 0.14.0";
    let parameter =
        |name: &str, value: &str| Instruction::Parameter { name: name.into(), value: value.into() };
    let message = |role: &str, content: &str| Instruction::Message {
        role: role.into(),
        content: content.into(),
    };
    assert_eq!(
        parsed(text),
        [
            from("llama3.2:1b"),
            Instruction::Adapter("./lora.gguf".into()),
            Instruction::Draft("draft.gguf".into()),
            parameter("temperature", "0.7"),
            parameter("stop", "<|im_end|> "),
            parameter("stop", "a \"b\" c"),
            Instruction::Template("{{ .System }}\n\"quoted\" # no comment\n".into()),
            Instruction::System("You are # brief.".into()),
            Instruction::License("\nMIT\n".into()),
            message("user", "Hi: there"),
            message("assistant", ""),
            Instruction::Renderer("qwen3".into()),
            Instruction::Parser("qwen3".into()),
            Instruction::Requires("0.14.0".into()),
        ]
    );
}

#[test]
fn quotes_end_only_at_the_end_of_a_line() {
    let system = |text: &str| match parsed(&format!("FROM x\nSYSTEM {text}\n")).remove(1) {
        Instruction::System(value) => value,
        other => panic!("{other:?}"),
    };
    for (text, value) in [
        ("\"a\" b\nc\"", "a\" b\nc"),
        ("\"\"\"a\"\" b\nc\"\"\"", "a\"\" b\nc"),
        ("'single'", "'single'"),
        ("\"no \\\"escapes\\n\"", "no \\\"escapes\\n"),
        ("\"  kept  \"  ", "  kept  "),
        ("a\tb", "a\tb"),
        ("a\u{0}b\u{200b}c\u{e9}\u{301}", "abc\u{e9}\u{301}"),
        ("", ""),
    ] {
        assert_eq!(system(text), value, "{text:?}");
    }
}

#[test]
fn marks_of_byte_order_are_understood() {
    let text = "FROM größe\nSYSTEM 世界 🎉";
    let expected = parsed(text);
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
    };
    let utf8 = ["\u{feff}", text].concat().into_bytes();
    for bytes in [utf8, utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        assert_eq!(Modelfile::parse(&bytes).unwrap().commands, expected);
    }
}

#[test]
fn what_is_wrong_has_its_line() {
    for (text, line, message) in [
        ("", 1, "no FROM line"),
        ("# nothing\n\n", 3, "no FROM line"),
        ("FROM x\nSISTEM y", 2, "command must be one of \"from\", \"license\""),
        ("FROM x\n\nSYSTEM\n", 3, "command must be one of"),
        ("FROM", 1, "unexpected end"),
        ("FROM x\nSYSTEM \"open\nmore", 3, "a quote is open"),
        ("FROM x\nMESSAGE bot hi", 2, "message role must be one of"),
        ("FROM x\nMESSAGE User hi", 2, "message role must be one of"),
        ("FROM x\nPARAMETER a-b 1", 2, "a parameter has no name"),
    ] {
        let error = Modelfile::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.message.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn values_are_written_as_plainly_as_they_can_be() {
    let written = |value: &str| Instruction::System(value.into()).line().unwrap();
    assert_eq!(written("plain \"quoted\" text"), "SYSTEM plain \"quoted\" text");
    assert_eq!(written("two\nlines"), "SYSTEM \"two\nlines\"");
    assert_eq!(written(" \"a\"\nb "), "SYSTEM \"\"\" \"a\"\nb \"\"\"");
    assert_eq!(written("\"whole\""), "SYSTEM \"\"whole\"\"");
    for value in ["bell\u{7}", "\"\"\"\n\"", "x\"\n\"\"\"\ny"] {
        assert!(Instruction::System(value.into()).line().is_err(), "{value:?}");
    }
    let bad = Instruction::Message { role: "tool".into(), content: String::new() };
    assert!(bad.line().unwrap_err().to_string().contains("role"));
}

/// Texts with everything that the grammar makes something of.
fn value() -> impl Strategy<Value = String> {
    let pieces = [
        "a", "Ü", " ", "\t", "\n", "\r", "\"", "\"\"\"", "#", "FROM", "\\", "{{", "'", "\u{7}", ":",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|pieces| pieces.concat())
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let role = proptest::sample::select(ROLES.to_vec());
    prop_oneof![
        value().prop_map(Instruction::From),
        value().prop_map(Instruction::Adapter),
        value().prop_map(Instruction::Draft),
        value().prop_map(Instruction::Template),
        value().prop_map(Instruction::System),
        value().prop_map(Instruction::License),
        value().prop_map(Instruction::Renderer),
        value().prop_map(Instruction::Parser),
        value().prop_map(Instruction::Requires),
        ("[a-z_0-9]{1,8}", value())
            .prop_map(|(name, value)| Instruction::Parameter { name, value }),
        (role, value())
            .prop_map(|(role, content)| Instruction::Message { role: role.into(), content }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(commands in proptest::collection::vec(instruction(), 0..6)) {
        let mut commands: Vec<_> = commands.into_iter().filter(|one| one.line().is_ok()).collect();
        commands.insert(0, from("x"));
        let modelfile = Modelfile { commands };
        let text = modelfile.write().unwrap();
        prop_assert_eq!(Modelfile::parse(text.as_bytes()).unwrap(), modelfile);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_reading_again_changes_nothing(bytes: Vec<u8>, text in value()) {
        for bytes in [bytes, ["FROM x\nSYSTEM ".as_bytes(), text.as_bytes()].concat()] {
            if let Ok(read) = Modelfile::parse(&bytes)
                && let Ok(written) = read.write()
            {
                prop_assert_eq!(Modelfile::parse(written.as_bytes()).unwrap(), read);
            }
        }
    }
}
