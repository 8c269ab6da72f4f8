//! Every case of `tests/go/cases.txt` against what Go made of it.

use hearth_gotemplate::{Field, Functions, Map, Methods, Struct, Template, Value, to_json};
use proptest::prelude::*;
use serde_json::Value as Json;

/// The same data that `tests/go/main.go` uses.
fn data() -> Value {
    let inner = |name: &str, count: i64| {
        let fields =
            vec![field("Name", "Name", name.into()), field("Count", "Count", count.into())];
        Value::from(Struct { type_name: "main.inner", fields })
    };
    let marked = Struct {
        type_name: "main.marked",
        fields: vec![
            field("Name", "name", "m".into()),
            Field { omit_empty: true, ..field("Note", "note", "".into()) },
            field("Ratio", "ratio", 0.5.into()),
            Field { omit_empty: true, ..field("List", "list", list([])) },
            field("Inner", "inner", inner("i", 0)),
        ],
    };
    map([
        ("Text", "hello <world> & \"you\"".into()),
        ("Empty", "".into()),
        ("Wide", "grüße 世界".into()),
        ("Zero", 0.into()),
        ("One", 1.into()),
        ("Big", 1_234_567.into()),
        ("Minus", (-7).into()),
        ("Float", 2.5.into()),
        ("Large", 1e6.into()),
        ("Tiny", 0.000_012_34.into()),
        ("Yes", true.into()),
        ("No", false.into()),
        ("Nil", Value::Nil),
        ("List", list(["a".into(), "b".into(), "c".into()])),
        (
            "Mixed",
            list([
                1.into(),
                "two".into(),
                3.5.into(),
                true.into(),
                Value::Nil,
                list([1.into(), 2.into()]),
                map([("k", "v".into())]),
            ]),
        ),
        ("None", list([])),
        (
            "Map",
            map([("b", 2.into()), ("a", 1.into()), ("c", "three".into()), ("nil", Value::Nil)]),
        ),
        ("Deep", map([("x", map([("y", map([("z", "found".into())]))]))])),
        ("Struct", inner("n", 3)),
        ("Marked", marked.into()),
        ("Shouts", Value::from("hey").typed(&SHOUTS)),
        ("Words", list(["x".into(), "y".into()]).typed(&WORDS)),
        ("Rows", list([inner("r1", 1), inner("r2", 2)])),
    ])
}

static SHOUTS: Methods = Methods {
    type_name: "main.shouts",
    string: Some(|value| match value {
        Value::Text(text) => text.to_uppercase() + "!",
        _ => String::new(),
    }),
    json: None,
    others: &[],
};

static WORDS: Methods = Methods {
    type_name: "main.words",
    string: Some(|value| texts(value).join("+")),
    json: None,
    others: &[("First", |value| texts(value)[0].as_str().into())],
};

fn texts(value: &Value) -> Vec<String> {
    let Value::List(list) = value else { return Vec::new() };
    let text =
        |item: &Value| if let Value::Text(text) = item { text.to_string() } else { String::new() };
    list.items().iter().map(text).collect()
}

fn field(name: &str, json: &str, value: Value) -> Field {
    Field { name: name.into(), json: json.into(), omit_empty: false, value }
}

fn list<const N: usize>(items: [Value; N]) -> Value {
    items.into_iter().collect()
}

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    pairs.into_iter().map(|(key, value)| (key.into(), value)).collect::<Map>().into()
}

fn functions() -> Functions {
    Functions::default().with("json", (1, 1), |args| Ok(to_json(&args[0]).into()))
}

/// Errors here that Go has none of, with a part of their message.
const STRICTER: &[(&str, &str)] = &[
    (r#"{{ define "" }}x{{ end }}"#, "name of a template is empty"),
    (r#"{{ "\xff" }}"#, "not UTF-8"),
    ("{{ slice .Wide 0 3 }}", "cut a character"),
    ("{{ 0x1p4 }}", "hexadecimal floats"),
    ("{{ 1+2i }}", "complex"),
    ("{{ 3i }}", "complex"),
    (r#"{{ printf "%[1]d" 1 }}"#, "not supported"),
    (r#"{{ printf "%*d" 5 1 }}"#, "not supported"),
    (r##"{{ printf "%#v" .One }}"##, "not supported"),
];

#[test]
fn every_case_renders_as_in_go() {
    let expected: Json = serde_json::from_str(include_str!("go/expected.json")).unwrap();
    let (data, functions) = (data(), functions());
    let mut wrong = Vec::new();
    for case in expected.as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let rendered =
            Template::parse(source, &functions).and_then(|template| template.render(&data));
        let fits = match (&rendered, case["output"].as_str()) {
            (Ok(output), Some(expected)) => output == expected,
            (Err(error), None) => case["line"].as_u64() == Some(error.line as u64),
            (Err(error), Some(_)) => STRICTER
                .iter()
                .any(|(stricter, message)| *stricter == source && error.message.contains(message)),
            (Ok(_), None) => false,
        };
        if !fits {
            wrong.push(format!(
                "{source}\n  here: {rendered:?}\n  Go:   {} {}",
                case["output"], case["error"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        expected.as_array().unwrap().len(),
        wrong.join("\n")
    );
}

#[track_caller]
fn error_of(source: &str) -> String {
    let rendered =
        Template::parse(source, &functions()).and_then(|template| template.render(&data()));
    rendered.unwrap_err().to_string()
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("{{if 1}}", "{{end}}"), ("{{if 0}}{{else if 1}}", "{{end}}")] {
        let nested = |n: usize| open.repeat(n) + &close.repeat(n);
        Template::parse(&nested(99), &functions()).unwrap().render(&data()).unwrap();
        assert!(error_of(&nested(10_000)).contains("blocks inside each other"));
    }
    let parens = |n: usize| format!("{{{{{}1{}}}}}", "(".repeat(n), ")".repeat(n));
    assert_eq!(Template::parse(&parens(199), &functions()).unwrap().render(&data()).unwrap(), "1");
    assert!(error_of(&parens(100_000)).contains("blocks inside each other"));
    assert!(
        error_of("{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}")
            .contains("inside each other")
    );
}

#[test]
fn output_time_variables_and_source_are_bounded() {
    let doubling = "{{$x := \"0123456789\"}}{{range 40}}{{$x = printf \"%s%s\" $x $x}}{{end}}";
    let nines = "999999999";
    for (source, message) in [
        (doubling, "writes more than"),
        (&format!("{{{{range {nines}}}}}{{{{end}}}}"), "steps"),
        (&format!("{{{{range {nines}}}}}text{{{{end}}}}"), "than"),
        (&format!("{{{{range {nines}}}}}{{{{$x := print $.List}}}}{{{{end}}}}"), "than"),
        (
            &format!("{{{{printf \"{}\" {}}}}}", "%999999d".repeat(100), "1 ".repeat(100)),
            "writes more than",
        ),
        (&"{{$x := 1}}".repeat(1000), "variables"),
        (&" ".repeat(2 << 20), "longer than"),
    ] {
        assert!(error_of(source).contains(message), "{}: {}", &source[..30], error_of(source));
    }
}

/// Pieces of templates, and of nothing.
fn fragments() -> impl Strategy<Value = String> {
    let pieces = [
        "{{",
        "}}",
        "{{- ",
        " -}}",
        "{{if ",
        "{{else}}",
        "{{else if ",
        "{{with ",
        "{{range ",
        "{{end}}",
        "{{define \"t\"}}",
        "{{template \"t\" .}}",
        "{{block \"b\" .}}",
        "{{break}}",
        "{{continue}}",
        "{{/*",
        "*/}}",
        ".Text",
        ".List",
        ".Map",
        ".Struct",
        ".Words",
        ".Missing",
        ".Nil",
        ".",
        "$",
        "$x",
        "$x := ",
        "$y, $x := ",
        "$x = ",
        " | ",
        "(",
        ")",
        "print ",
        "printf ",
        "\"%v %d %s\"",
        "len ",
        "index ",
        "slice ",
        "eq ",
        "lt ",
        "and ",
        "or ",
        "not ",
        "html ",
        "json ",
        "call ",
        "1",
        "-1",
        "0x",
        "1.5e3",
        "'a'",
        "\"",
        "`",
        "\\",
        "é",
        "\n",
        " ",
        "nil",
        "true",
        ",",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_panics(source in fragments()) {
        let template = Template::parse(&source, &functions());
        if let Ok(template) = template {
            let _ = template.identifiers();
            let _ = template.up_to_field("Text").render(&data());
            let _ = template.render(&data());
        }
    }

    #[test]
    fn any_text_without_actions_is_itself(source in "[^{]*") {
        let template = Template::parse(&source, &functions()).unwrap();
        prop_assert_eq!(template.render(&data()).unwrap(), source);
    }

    #[test]
    fn quoted_text_comes_back(text in ".*") {
        let source = Template::parse("{{ printf \"%q\" . }}", &functions()).unwrap();
        let quoted = source.render(&text.as_str().into()).unwrap();
        let again = Template::parse(&format!("{{{{ {quoted} }}}}"), &functions()).unwrap();
        prop_assert_eq!(again.render(&data()).unwrap(), text);
    }
}
