//! Constraints over a small vocabulary of bytes and a few longer tokens.

use super::*;
use serde_json::{Value, json};

const END: Token = 256;

fn words() -> Vec<Vec<u8>> {
    let bytes = (0..=255_u8).map(|byte| vec![byte]);
    let longer = ["\u{ff}", "{\"", "\": ", "true", "ab", "abc", "  ", "}}", "é", "世"];
    let mut words: Vec<Vec<u8>> =
        bytes.chain(longer.iter().map(|text| text.as_bytes().to_vec())).collect();
    words[256] = b"\xff<|end|>".to_vec();
    words
}

fn guide() -> Guide {
    Guide::of(&words(), &[END]).unwrap()
}

/// A walk through a rule that takes some allowed token each time, by a number that changes with the step.
fn walk(guide: &Guide, rule: Rule<'_>, seed: u64, most: usize) -> Result<Vec<u8>, ConstraintError> {
    let (words, mut constraint, mut other) = (words(), guide.compile(rule)?, guide.compile(rule)?);
    let (mut text, mut state) = (Vec::new(), seed);
    for _ in 0..most {
        let mut logits = vec![0.0_f32; words.len()];
        constraint.mask(&mut logits)?;
        let allowed: Vec<Token> = (0..)
            .zip(&logits)
            .filter(|(_, logit)| **logit == 0.0)
            .map(|(token, _)| token)
            .collect();
        for token in 0..Token::try_from(words.len()).unwrap() {
            assert_eq!(constraint.allows(token)?, allowed.contains(&token));
        }
        // To look ahead changes nothing.
        let mut same = vec![0.0_f32; words.len()];
        other.mask(&mut same)?;
        assert_eq!(same, logits);
        let is_over = constraint.end().is_some();
        assert!(!is_over || allowed == [END]);
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let Some(token) = allowed.get((state >> 33) as usize % allowed.len().max(1)) else { break };
        let piece = &words[usize::try_from(*token).unwrap()];
        constraint.accept(*token, piece)?;
        other.accept(*token, piece)?;
        if *token == END {
            return Ok(text);
        }
        constraint.expect();
        text.extend(piece);
    }
    Err(ConstraintError("the walk is not over".into()))
}

#[test]
fn a_walk_by_allowed_tokens_ends_in_what_the_rule_says() {
    let guide = guide();
    let schema = json!({
        "type": "object",
        "properties": {
            "b": { "type": "string", "maxLength": 6 },
            "a": { "enum": ["x", "yé", null] },
            "c": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 },
        },
        "required": ["b", "a", "c"],
        "additionalProperties": false,
    });
    for seed in 0..40 {
        let text = walk(&guide, Rule::JsonSchema(&schema), seed, 500).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(value["b"].as_str().unwrap().chars().count() <= 6);
        assert!([json!("x"), json!("yé"), Value::Null].contains(&value["a"]));
        assert!(
            value["c"].as_array().is_some_and(|c| c.len() <= 3 && c.iter().all(Value::is_boolean))
        );

        let text = walk(&guide, Rule::Regex("(ab)+[0-9]{2,3}|世é?"), seed, 500).unwrap();
        let text = String::from_utf8(text).unwrap();
        let digits = text.trim_start_matches("ab");
        let numbered = digits.len() < text.len() && (2..=3).contains(&digits.len());
        assert!(["世", "世é"].contains(&text.as_str()) || numbered, "{text}");

        let lark = "start: pair+\npair: \"(\" /[xy]/ \")\" | \"<\" pair \">\"";
        let text = walk(&guide, Rule::Lark(lark), seed, 20_000).unwrap();
        let (mut open, mut seen) = (0, 0);
        for byte in text {
            match byte {
                b'<' => open += 1,
                b'>' => open -= 1,
                b'x' | b'y' => seen += 1,
                other => assert!(b"()".contains(&other)),
            }
            assert!(open >= 0);
        }
        assert!(open == 0 && seen > 0);
    }
}

#[test]
fn a_rule_that_is_none_says_why() {
    let guide = guide();
    for (rule, why) in [
        (Rule::JsonSchema(&json!({ "type": "nonsense" })), "nonsense"),
        (Rule::JsonSchema(&json!({ "type": "string", "format": "poem" })), "poem"),
        (Rule::JsonSchema(&json!({ "not": {} })), "not"),
        (Rule::JsonSchema(&json!({ "$ref": "#/$defs/gone" })), "gone"),
        (Rule::JsonSchema(&json!({ "$ref": "https://example.com/schema.json" })), "example.com"),
        (Rule::Regex("a("), "regex"),
        (Rule::Lark(""), ""),
        (Rule::Lark("start: missing"), "missing"),
        (Rule::Lark("other: \"a\""), "start"),
        (Rule::Lark("start: start"), "no token can follow"),
    ] {
        let error = guide.compile(rule).unwrap_err().0;
        assert!(error.to_lowercase().contains(why), "{rule:?}: {error}");
        assert!(!error.contains("backtrace") && !error.contains("non-verbose"), "{error}");
    }
}

#[test]
fn a_dropped_constraint_leaves_the_thread_to_others() {
    let (guide, mut thread) = (guide(), MaskThread::default());
    for _ in 0..50 {
        let mut dropped = guide.compile(Rule::Json).unwrap();
        dropped.accept(Token::from(b'{'), b"{").unwrap();
        dropped.begin(&mut thread, &[]);
    }
    let mut kept = guide.compile(Rule::Regex("[ab]{2,5}")).unwrap();
    kept.accept(Token::from(b'a'), b"a").unwrap();
    kept.begin(&mut thread, &[]);
    assert!(kept.allows(Token::from(b'b')).unwrap());
}

#[test]
fn what_is_not_allowed_ends_the_constraint_and_not_the_thread() {
    let guide = guide();
    let mut constraint = guide.compile(Rule::Regex("ab")).unwrap();
    assert!(constraint.accept(Token::from(b'z'), b"z").is_err());
    let mut thread = MaskThread::default();
    constraint.begin(&mut thread, &[Token::from(b'a')]);
    assert!(constraint.allows(Token::from(b'a')).is_err());
    let mut other = guide.compile(Rule::Regex("ab")).unwrap();
    other.accept(Token::from(b'a'), b"a").unwrap();
    other.begin(&mut thread, &[]);
    assert!(other.allows(Token::from(b'b')).unwrap());
}

fn nested(depth: usize) -> Value {
    let mut schema = json!({ "type": "null" });
    for _ in 0..depth {
        // Moved, not copied.
        let mut outer = json!({ "type": "array" });
        outer["items"] = schema;
        schema = outer;
    }
    schema
}

fn chain(keyword: &str, n: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for at in 0..n {
        let next = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
        defs.insert(format!("d{at}"), json!({ keyword: [next, { "title": "t" }] }));
    }
    defs.insert(format!("d{n}"), json!({ "type": "boolean" }));
    json!({ "$defs": defs, "$ref": "#/$defs/d0" })
}

/// Whatever the answer is, there is one, and the process lives.
#[test]
fn hostile_rules_are_refused_or_followed() {
    let guide = guide();
    let names: Vec<String> = (0..20_000).map(|n| format!("value number {n}")).collect();
    let fields: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({ "type": "integer" }))).collect();
    let schemas = [
        ("deep", nested(60)),
        ("too deep", nested(5000)),
        (
            "deep pattern",
            json!({ "type": "string", "pattern": "(".repeat(3000) + &")".repeat(3000) }),
        ),
        ("many values", json!({ "enum": names })),
        ("many fields", json!({ "type": "object", "properties": fields })),
        ("itself", json!({ "$ref": "#" })),
        ("itself in all", json!({ "allOf": [{ "$ref": "#" }] })),
        ("itself in any", json!({ "anyOf": [{ "$ref": "#" }, { "type": "null" }] })),
        (
            "a tree",
            json!({
                "type": "object",
                "properties": { "next": { "$ref": "#" } },
                "required": ["next"],
            }),
        ),
        (
            "two that need each other",
            json!({
                "$defs": {
                    "a": { "type": "array", "items": { "$ref": "#/$defs/b" }, "minItems": 2 },
                    "b": { "type": "array", "items": { "$ref": "#/$defs/a" }, "minItems": 2 },
                },
                "$ref": "#/$defs/a",
            }),
        ),
        ("a short chain of all", chain("allOf", 900)),
        ("a chain of all", chain("allOf", 3000)),
        ("a chain of any", chain("anyOf", 3000)),
        ("a chain of one", chain("oneOf", 3000)),
        ("long", json!({ "type": "string", "minLength": 1_000_000_000 })),
        ("long at most", json!({ "type": "string", "maxLength": 1_000_000_000 })),
        (
            "many",
            json!({ "type": "array", "items": { "type": "null" }, "minItems": 1_000_000_000 }),
        ),
        ("steps", json!({ "type": "number", "multipleOf": 1e-300 })),
        ("large", json!({ "type": "integer", "minimum": -1e300, "maximum": 1e300 })),
        ("powers", json!({ "type": "string", "pattern": "((((a{9}){9}){9}){9}){9}" })),
        ("overlap", json!({ "type": "string", "pattern": "^(.*a.*b.*c.*d.*e.*f.*g.*h.*)+$" })),
        ("bad options", json!({ "x-guidance": { "whitespace_pattern": "((((" } })),
        ("nothing", json!(false)),
        ("anything", json!(true)),
        ("no schema", json!(7)),
    ];
    for (name, schema) in &schemas {
        let result = walk(&guide, Rule::JsonSchema(schema), 1, 60);
        let is_refused = matches!(&result, Err(error) if error.0.contains("nests deeper"));
        assert_eq!(is_refused, ["too deep", "deep pattern"].contains(name), "{name}: {result:?}");
    }
    let doubled: String =
        (0..40).map(|n| format!("r{n}: r{} r{}\n", n + 1, n + 1)).collect::<String>()
            + "r40: \"a\"?\n";
    let regexes = [
        "(".repeat(100_000),
        "(a*)*".repeat(200),
        "(x+x+)+y".into(),
        "a{100000}".into(),
        "[^a]{1,5000}b[^a]{1,5000}".into(),
        "\\".into(),
        "/\n start: \"x\"".into(),
    ];
    let larks = [
        format!("start: r0\n{doubled}"),
        "start: start start | \"a\" | ".into(),
        "start: start".into(),
        "start: ".to_owned() + &"(".repeat(100_000),
        "start: a\na: b\nb: a".into(),
        "start: /a/ | ".repeat(5000),
        "start: %json { \"type\": \"object\" }".into(),
        "start: %json {".into(),
        "start: @other".into(),
        "%llguidance {\"no_forcing\": 7}\nstart: \"a\"".into(),
        "start: \"a\"{1000000000}".into(),
        "start: <|end|> <[999999]>".into(),
    ];
    for regex in &regexes {
        let _ = walk(&guide, Rule::Regex(regex), 1, 60);
    }
    for lark in &larks {
        let _ = walk(&guide, Rule::Lark(lark), 1, 60);
    }
    // And after all that the guide still works.
    assert!(walk(&guide, Rule::Regex("[ab]{1,5}"), 1, 50).is_ok());
}

/// What is expected at the beginning, and wherever that has come or something else came.
fn expectations(constraint: &mut Constraint, text: &str) -> Vec<String> {
    let (mut all, mut ahead) = (Vec::new(), Vec::new());
    for byte in text.bytes() {
        if ahead.pop() != Some(byte) {
            let expected = constraint.expect();
            ahead = expected.iter().rev().copied().collect();
            if ahead.pop() != Some(byte) {
                ahead.clear();
            }
            all.push(String::from_utf8(expected).unwrap());
        }
        assert!(constraint.allows(Token::from(byte)).unwrap());
        constraint.accept(Token::from(byte), &[byte]).unwrap();
    }
    all.retain(|text| !text.is_empty());
    all.dedup();
    all
}

#[test]
fn keys_are_expected_with_the_blanks_that_this_answer_has() {
    let schema = json!({
        "type": "object",
        "properties": {
            "first_name": { "type": "string", "maxLength": 5 },
            "years": { "type": "integer" },
            "known": { "const": [1, "x"] },
        },
        "required": ["first_name", "years", "known"],
    });
    let mut constraint = guide().compile(Rule::JsonSchema(&schema)).unwrap();
    let text = r#"{"first_name": "A, b", "years": 7, "known": [1, "x"]}"#;
    let expected = ["{\"first_name\": \"", ", \"years\":", " \"known\": [", " \"x\"]}"];
    assert_eq!(expectations(&mut constraint, text), expected);
    assert_eq!(constraint.end(), Some(END));

    let mut constraint = guide().compile(Rule::JsonSchema(&schema)).unwrap();
    let text = "{\n\t\"first_name\":\"A\",\n\t\"years\":7,\n\t\"known\":[1,\"x\"]\n}";
    let expected = [
        "{\"first_name\": \"",
        "\"first_name\": \"",
        " \"",
        ", \"years\":",
        " \"years\":",
        "\"years\":",
        "\n\t\"known\": [",
        " [",
        "\n\t\"x\"]}",
        "x\"]}",
        "}",
    ];
    assert_eq!(expectations(&mut constraint, text), expected);

    let mut constraint = guide().compile(Rule::Regex("to be[,;] or not [a-z]+")).unwrap();
    let expected = ["to be", " or not "];
    assert_eq!(expectations(&mut constraint, "to be; or not a"), expected);
}

#[test]
fn masks_made_ahead_are_those_of_their_places() {
    let (guide, mut thread) = (guide(), MaskThread::default());
    let schema =
        json!({ "type": "array", "items": { "enum": ["x", 17, { "a": null }] }, "maxItems": 9 });
    for rule in [Rule::JsonSchema(&schema), Rule::Regex("(ab)*[0-9]{2,9}|世é?")] {
        for seed in 0..30_u8 {
            let text = walk(&guide, rule, seed.into(), 500).unwrap();
            let tokens: Vec<Token> = text.iter().map(|byte| (*byte).into()).chain([END]).collect();
            let (mut ahead, mut plain) =
                (guide.compile(rule).unwrap(), guide.compile(rule).unwrap());
            let mut n_left = 0;
            for (at, token) in tokens.iter().enumerate() {
                if n_left == 0 {
                    n_left = (usize::from(seed) + at) % 6;
                    let mut guess = tokens[at..].to_vec();
                    guess.truncate(n_left);
                    // Every other one goes wrong, and may be one that the rule forbids.
                    if let (Some(last), true) = (guess.last_mut(), at % 2 == 0) {
                        *last = Token::from(b'a');
                    }
                    ahead.begin(&mut thread, &guess);
                } else {
                    n_left -= 1;
                }
                let (mut one, mut other) = (vec![0.0_f32; 266], vec![0.0_f32; 266]);
                ahead.mask(&mut one).unwrap();
                plain.mask(&mut other).unwrap();
                assert_eq!(one, other, "{at} of {text:?}");
                let piece = [u8::try_from(*token).unwrap_or(0)];
                ahead.accept(*token, &piece).unwrap();
                plain.accept(*token, &piece).unwrap();
            }
        }
    }
}
