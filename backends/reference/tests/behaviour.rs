//! What tests of the engine and the daemon rely on: `expected` tells the truth, the settings do what they say, and the
//! host's mistakes are noticed.

use hearth_abi::host::{Batch, Context, Model, Plugin};
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{BatchEntry, ContextConfig, LogLevel, OpenParams, Pooling, Status};
use hearth_reference::{Settings, Value, expected, vocab, write_adapter, write_model};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tempfile::TempPath;

fn write(pairs: &[(&str, Value)]) -> TempPath {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    write_model(&path, pairs).unwrap();
    path
}

fn try_open(pairs: &[(&str, Value)]) -> hearth_abi::Result<Arc<Model>> {
    let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(|_, _| {})).unwrap();
    let path = write(pairs);
    Model::open(&plugin, &OpenParams::new(path.to_path_buf()), &mut |_| true)
}

fn open(pairs: &[(&str, Value)]) -> Arc<Model> {
    try_open(pairs).unwrap()
}

fn config() -> ContextConfig {
    ContextConfig {
        n_batch: 64,
        n_ubatch: 64,
        n_seq_max: 4,
        n_threads: 1,
        n_threads_batch: 1,
        ..ContextConfig::single(128)
    }
}

fn batch(seq: Seq, from: Pos, tokens: &[Token]) -> Batch {
    let mut batch = Batch::default();
    for (position, token) in (from..).zip(tokens) {
        let output = position + 1 == from + Pos::try_from(tokens.len()).unwrap();
        batch.push(BatchEntry { token: *token, position, sequence: seq, output });
    }
    batch
}

fn best(logits: &[f32]) -> Token {
    let best = (0..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0
}

/// Decodes tokens into a sequence of known length and answers the greedy choice.
fn feed(context: &mut Context, seq: Seq, from: usize, tokens: &[Token]) -> Token {
    context.decode(&batch(seq, Pos::try_from(from).unwrap(), tokens)).unwrap();
    best(context.logits(tokens.len() - 1).unwrap())
}

fn generate(context: &mut Context, seq: Seq, prompt: &[Token], n: usize) -> Vec<Token> {
    let mut tokens = prompt.to_vec();
    let mut next = feed(context, seq, 0, prompt);
    while tokens.len() < prompt.len() + n {
        tokens.push(next);
        if vocab::is_end(next) {
            break;
        }
        next = feed(context, seq, tokens.len() - 1, &[next]);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn greedy_text_is_what_expected_says() {
    let model = open(&[]);
    let prompt = model.tokenize("Once upon a time", true, false).unwrap();
    let mut context = model.context(&config()).unwrap();
    let generated = generate(&mut context, 2, &prompt, 60);
    assert_eq!(generated, expected(&Settings::default(), &prompt, 60));
    let text = String::from_utf8(model.detokenize(&generated, true).unwrap()).unwrap();
    assert_eq!(text, "kotesezokenu ga tu nodopifa fi ta ne movebadudenanupo na fer");
}

#[test]
fn texts_end_unless_told_not_to() {
    let lengths = |pairs: &[(&str, Value)]| -> Vec<usize> {
        let settings = Settings::from_pairs(pairs).unwrap();
        (0..20).map(|first| expected(&settings, &[vocab::BOS, first], 500).len()).collect()
    };
    assert!(lengths(&[]).iter().all(|length| *length < 500));
    assert!(lengths(&[("eos_one_in", 0_u64.into())]).iter().all(|length| *length == 500));
}

#[test]
fn a_script_is_recited_in_chats() {
    let pairs = [("script", Value::from("Grüße"))];
    let model = open(&pairs);
    let prompt = model.tokenize("<|user|>hi<|end|><|assistant|>", true, true).unwrap();
    let mut context = model.context(&config()).unwrap();
    let generated = generate(&mut context, 0, &prompt, 60);
    assert_eq!(model.detokenize(&generated, true).unwrap(), "Grüße<|end|>".as_bytes());
    assert_eq!(generated, expected(&Settings::from_pairs(&pairs).unwrap(), &prompt, 60));
}

#[test]
fn settings_are_read_back_and_misspelt_ones_refused() {
    let model = open(&[
        ("context_length", 77_u64.into()),
        ("extra_tokens", 1000_u64.into()),
        ("add_bos", false.into()),
    ]);
    let info = model.info();
    assert_eq!((info.n_ctx_train, info.n_vocab, info.add_bos), (77, 1263, false));
    assert_eq!(model.token_piece(1262, true).unwrap().as_slice(), b"<|extra1262|>");
    let meta = model.meta().unwrap();
    assert!(
        meta.contains(&("hearth-reference.context_length".to_owned(), "77".to_owned())),
        "{meta:?}"
    );
    let error = try_open(&[("contxt_length", 77_u64.into())]).unwrap_err();
    assert_eq!(error.status, Status::BadModel);
    assert_eq!(error.message, "`hearth-reference.contxt_length` is not a setting of this plugin");
}

#[test]
fn every_truncation_of_a_model_is_a_bad_model() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    write_model(&whole, &[]).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(|_, _| {})).unwrap();
    for n in 0..bytes.len() {
        std::fs::write(&cut, &bytes[..n]).unwrap();
        let error = Model::open(&plugin, &OpenParams::new(&cut), &mut |_| true).unwrap_err();
        assert_eq!(error.status, Status::BadModel, "{n} bytes: {error}");
    }
}

#[test]
fn a_slow_open_reports_progress_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write_model(&path, &[("open_ms", 60_000_u64.into())]).unwrap();
    let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(|_, _| {})).unwrap();
    let mut fractions = Vec::new();
    let answer = Model::open(&plugin, &OpenParams::new(&path), &mut |fraction| {
        fractions.push(fraction);
        fractions.len() < 4
    });
    assert_eq!(answer.unwrap_err().status, Status::Cancelled);
    assert!(fractions.is_sorted() && fractions[0] < fractions[3], "{fractions:?}");
    assert_eq!(try_open(&[("fail_open", true.into())]).unwrap_err().status, Status::Failed);
}

#[test]
fn copies_share_cells() {
    let model = open(&[]);
    let mut context = model.context(&config()).unwrap();
    let prompt: Vec<Token> = (0..60).collect();
    feed(&mut context, 0, 0, &prompt);
    for to in 1..4 {
        context.seq_copy(0, to, None).unwrap();
    }
    // 60 cells are shared by four sequences; 68 are left, and not one more.
    feed(&mut context, 1, 60, &[7; 40]);
    let answer = context.decode(&batch(2, 60, &[7; 29]));
    assert_eq!(answer.unwrap_err().status, Status::NoKvSpace);
    feed(&mut context, 2, 60, &[7; 28]);
    context.seq_remove(0, 0, None).unwrap();
    let answer = context.decode(&batch(3, 60, &[7]));
    assert_eq!(answer.unwrap_err().status, Status::NoKvSpace, "the cells are still in use");
    context.seq_remove(2, 60, None).unwrap();
    feed(&mut context, 3, 60, &[7; 28]);
}

#[test]
fn the_hosts_mistakes_are_refused_and_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write_model(&path, &[]).unwrap();
    let accusations = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&accusations);
    let note = move |level: LogLevel, text: &str| {
        assert_eq!(level, LogLevel::HostMisbehaving);
        sink.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    };
    let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(note)).unwrap();
    let model = Model::open(&plugin, &OpenParams::new(path), &mut |_| true).unwrap();
    let mut context = model.context(&config()).unwrap();
    feed(&mut context, 0, 0, &[1, 2, 3, 4, 5, 6]);
    feed(&mut context, 1, 0, &[1, 2]);
    let mistakes = [
        context.decode(&batch(0, 5, &[9])),
        context.decode(&batch(4, 0, &[9])),
        context.seq_remove(0, -1, None),
        context.seq_remove(0, 3, Some(2)),
        context.seq_remove(9, 0, None),
        context.seq_copy(0, 1, None),
        context.seq_copy(0, 0, None),
        context.seq_copy(0, 2, Some(7)),
        context.seq_shift(0, 2, 6, -1),
        context.seq_shift(0, 0, 6, -1),
        context.logits(0).map(|_| ()),
    ];
    assert!(
        mistakes
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|e| e.status == Status::InvalidArgument))
    );
    assert_eq!(accusations.lock().unwrap().len(), mistakes.len());
    // A gap may be made, but nothing may follow until it is closed.
    context.seq_remove(0, 2, Some(4)).unwrap();
    assert_eq!(context.decode(&batch(0, 6, &[9])).unwrap_err().status, Status::InvalidArgument);
    context.seq_shift(0, 4, 6, -2).unwrap();
    let closed = feed(&mut context, 0, 4, &[9]);
    assert_eq!(closed, expected(&Settings::default(), &[1, 2, 5, 6, 9], 1)[0]);
}

#[test]
fn shared_cells_are_not_shifted() {
    let model = open(&[]);
    let mut context = model.context(&config()).unwrap();
    feed(&mut context, 0, 0, &[1, 2, 3, 4]);
    context.seq_copy(0, 1, None).unwrap();
    context.seq_remove(0, 0, Some(1)).unwrap();
    assert_eq!(context.seq_shift(0, 1, 4, -1).unwrap_err().status, Status::Unsupported);
    context.seq_remove(1, 0, None).unwrap();
    context.seq_shift(0, 1, 4, -1).unwrap();
}

#[test]
fn a_hanging_decode_is_aborted_and_its_sequences_must_go() {
    let model = open(&[("hang_after", 1_u64.into())]);
    let mut context = model.context(&config()).unwrap();
    feed(&mut context, 0, 0, &[1, 2, 3]);
    let aborter = context.aborter();
    let (done, is_done) = mpsc::channel();
    let answer = std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.try_recv().is_err() {
                aborter.abort();
                std::thread::yield_now();
            }
        });
        let answer = context.decode(&batch(0, 3, &[4, 5]));
        done.send(()).unwrap();
        answer
    });
    assert_eq!(answer.unwrap_err().status, Status::Cancelled);
    assert_eq!(context.seq_copy(0, 1, None).unwrap_err().status, Status::InvalidArgument);
    assert_eq!(context.seq_save(0).unwrap_err().status, Status::InvalidArgument);
    context.seq_remove(0, 4, None).unwrap();
    assert_eq!(
        context.seq_save(0).unwrap_err().status,
        Status::InvalidArgument,
        "position 3 is undefined too"
    );
    context.seq_remove(0, 3, None).unwrap();
    context.seq_copy(0, 1, None).unwrap();
}

#[test]
fn a_failed_context_stays_failed() {
    let model = open(&[("fail_decode_after", 2_u64.into())]);
    let mut context = model.context(&config()).unwrap();
    feed(&mut context, 0, 0, &[1]);
    feed(&mut context, 0, 1, &[2]);
    assert_eq!(context.decode(&batch(0, 2, &[3])).unwrap_err().status, Status::Failed);
    assert!(context.decode(&batch(0, 2, &[3])).is_err());
    feed(&mut model.context(&config()).unwrap(), 0, 0, &[1]);
}

/// Runs itself in a child process, which is the one that crashes.
#[test]
fn a_crash_ends_the_process() {
    const CHILD: &str = "HEARTH_TEST_CRASH";
    if std::env::var_os(CHILD).is_some() {
        let model = open(&[("crash_after", 1_u64.into())]);
        let mut context = model.context(&config()).unwrap();
        feed(&mut context, 0, 0, &[1]);
        std::fs::write(std::env::var_os(CHILD).unwrap(), "decoded once").unwrap();
        let answer = context.decode(&batch(0, 1, &[2]));
        panic!("still alive: {answer:?}");
    }
    let note = tempfile::NamedTempFile::new().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child
        .args(["--exact", "a_crash_ends_the_process"])
        .env(CHILD, note.path())
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(6), "{child:?}");
    assert_eq!(std::fs::read_to_string(note.path()).unwrap(), "decoded once");
}

#[test]
fn memory_without_roll_back_only_forgets_whole_sequences() {
    let model = open(&[("roll_back", false.into())]);
    let mut context = model.context(&config()).unwrap();
    assert!(!context.info().can_roll_back && !context.info().can_copy_part);
    feed(&mut context, 0, 0, &[1, 2, 3]);
    context.seq_remove(0, 3, None).unwrap();
    assert_eq!(context.seq_remove(0, 2, None).unwrap_err().status, Status::Unsupported);
    assert_eq!(context.seq_copy(0, 1, Some(2)).unwrap_err().status, Status::Unsupported);
    context.seq_copy(0, 1, Some(3)).unwrap();
    context.seq_remove(0, 0, None).unwrap();
    feed(&mut context, 0, 0, &[5]);
}

#[test]
fn adapters_change_what_is_computed_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.gguf");
    write_adapter(&path, 5).unwrap();
    let model = open(&[]);
    let adapter = model.adapter(&path).unwrap();
    let mut context = model.context(&config()).unwrap();
    let prompt: Vec<Token> = (b'a'..=b'z').map(Token::from).collect();
    let plain = generate(&mut context, 0, &prompt, 10);
    context.attach(&[(Arc::clone(&adapter), 1.0)]).unwrap();
    let adapted = generate(&mut context, 1, &prompt, 10);
    context.attach(&[(adapter, 0.5)]).unwrap();
    let half = generate(&mut context, 2, &prompt, 10);
    assert!(plain != adapted && adapted != half && plain != half);
    context.attach(&[]).unwrap();
    context.seq_remove(1, 0, None).unwrap();
    assert_eq!(generate(&mut context, 1, &prompt, 10), plain);
    let error = model.adapter(&write(&[])).unwrap_err();
    assert_eq!(error.status, Status::BadModel);
}

#[test]
fn like_texts_have_like_embeddings() {
    let model = open(&[]);
    let mut context =
        model.context(&ContextConfig { embeddings: Some(Pooling::Mean), ..config() }).unwrap();
    let mut embed = |text: &str| {
        let tokens = model.tokenize(text, true, false).unwrap();
        context.seq_remove(0, 0, None).unwrap();
        context.decode(&batch(0, 0, &tokens)).unwrap();
        context.embedding(0).unwrap().to_vec()
    };
    let (cat, cats, sum) = (embed("the cat sat"), embed("the cats sat"), embed("17 + 25 = 42"));
    let distance =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    assert!(distance(&cat, &cats) * 3.0 < distance(&cat, &sum));
}

#[test]
fn chats_are_rendered_and_parsed() {
    let model = open(&[]);
    let request = r#"{"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"}
    ], "tools": [{"type": "function", "function": {"name": "f"}}]}"#;
    let answer: serde_json::Value =
        serde_json::from_str(&model.chat_render(request).unwrap()).unwrap();
    let prompt = answer["prompt"].as_str().unwrap();
    let end = "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|><tool>{\"name\": \"f\", \"arguments\": {}}</tool>\
               <|end|><|tool|>42<|end|><|assistant|>";
    assert!(prompt.ends_with(end), "{prompt}");
    let parser = answer["parser"].as_str().unwrap();
    let parse = |text: &str, partial: bool| model.chat_parse(parser, text, partial).unwrap();
    let call = "<think>hm</think>Let me see. <tool>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool> Done";
    let message = |content: &str, reasoning: &str, calls: &str| {
        format!(r#"{{"content":"{content}","reasoning":"{reasoning}","tool_calls":[{calls}]}}"#)
    };
    let parsed = r#"{"id":"","name":"f","arguments":"{\"x\": 1}"}"#;
    assert_eq!(parse(call, false), message("Let me see.  Done", "hm", parsed));
    assert_eq!(parse("<think>hm</th", true), message("", "hm", ""));
    assert_eq!(parse("<thi", true), message("", "", ""));
    assert_eq!(parse("<thi", false), message("<thi", "", ""));
    assert_eq!(parse("a <to", true), message("a ", "", ""));
    assert_eq!(parse("a <tool>{", true), message("a ", "", ""));
    assert_eq!(parse("a <tool>{", false), message("a <tool>{", "", ""));
    let begun = r#"a <tool>{"name": "f", "arguments": {"x": "#;
    let call = r#"{"id":"","name":"f","arguments":"{\"x\": "}"#;
    assert_eq!(parse(begun, true), message("a ", "", call));
    assert_eq!(parse(begun, false), message(&begun.replace('"', "\\\""), "", ""));
    assert_eq!(parse("<tool>no call</tool>", false), message("<tool>no call</tool>", "", ""));
}

#[test]
fn calls_are_held_to_the_tools_that_were_given() {
    let model = open(&[]);
    let request = r#"{"messages": [], "tools": [{"function": {"name": "f"}}, {"function": {"name": "g"}}], "tool_choice": "required"}"#;
    let answer: serde_json::Value =
        serde_json::from_str(&model.chat_render(request).unwrap()).unwrap();
    let takes = |text: &str| {
        let mut grammar = model.grammar(answer["grammar"].as_str().unwrap(), "root").unwrap();
        grammar.accept_text(text.as_bytes()).is_ok() && grammar.accept(vocab::EOS).is_ok()
    };
    assert!(takes(r#"<tool>{"name": "f", "arguments": {}}</tool>"#));
    assert!(takes(r#"<tool>{"name": "g", "arguments": {"a": "b c", "d": {"e": 1}}}</tool>"#));
    assert!(!takes(r#"<tool>{"name": "h", "arguments": {}}</tool>"#));
    assert!(!takes(r#"<tool>{"name": "f", "arguments": {}"#));
}

#[test]
fn grammars_hold() {
    let model = open(&[]);
    let accepts = |grammar: &str, text: &str| {
        let mut grammar = model.grammar(grammar, "root").unwrap();
        let is_prefix = text.bytes().all(|byte| grammar.accept(Token::from(byte)).is_ok());
        is_prefix && grammar.accept(vocab::EOS).is_ok()
    };
    let json = r#"
        root   ::= object # a comment
        object ::= "{" ws (pair ("," ws pair)*)? "}" ws
        pair   ::= string ":" ws value
        value  ::= object | string | number | "true"
          | "[" ws (value ("," ws value)*)? "]" ws
        string ::= "\"" ([^"\\] | "\\" ["\\n])* "\"" ws
        number ::= "-"? [0-9]{1,3} ("." [0-9]+)? ws
        ws     ::= [ \t\n]*
    "#;
    for good in ["{}", "{\"a\": [1, -2.5, {\"b\": \"Grüße\"}], \"c\": true}", "{\"a\":\"\\\"\"}"]
    {
        assert!(accepts(json, good), "{good}");
    }
    for bad in ["", "{", "{\"a\"}", "{\"a\": 1234}", "{\"a\": [1,]}", "{}x"] {
        assert!(!accepts(json, bad), "{bad}");
    }
    assert!(accepts(r#"root ::= "ab"{2,3} [^x]*"#, &format!("abab{}", "long ".repeat(300))));
    assert!(!accepts(r#"root ::= "ab"{2,3}"#, "abababab"));
    assert!(accepts(r#"root ::= ("a"* )* "b""#, "aab"));
    assert_eq!(
        model.grammar("root ::= root \"a\" | \"b\"", "root").unwrap_err().status,
        Status::InvalidArgument
    );
    assert_eq!(model.grammar("root ::= [ä]", "root").unwrap_err().status, Status::Unsupported);
}
