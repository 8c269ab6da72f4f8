//! llama.cpp and real models, through the whole chain. What a model says is not compared with anything but itself and
//! the form that was asked for.

mod clients;
mod context;
mod embedding;
mod grammar;
mod images;
mod kernels;
mod lora;
mod mtp;
mod quantize;
mod rank;
mod show;
mod thinking;
mod tiny;
mod tools;

use hearth_protocol::{
    ChatParams, Detokenize, DetokenizeParams, Embed, EmbedInput, ErrorKind, Event, FinishReason,
    Format, Message, Role, Tokenize, TokenizeParams,
};
use hearth_tests::{
    Ran, TestDaemon, chat, ctl_path, embed, env_path, follow, follow_generate, generate,
    hearthd_path, message, refused, run, signal_process,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const MODEL: &str = "smollm2:135m";

fn start_with(variable: &str, name: &str) -> TestDaemon {
    start_with_config(variable, name, "")
}

fn start_with_config(variable: &str, name: &str, config: &str) -> TestDaemon {
    let builder = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"));
    let daemon = builder.config(config).start();
    let file = env_path(variable);
    daemon.ctl(["import", &file.display().to_string(), name, "--link"]).ok();
    daemon
}

fn start() -> TestDaemon {
    start_with("HEARTH_TEST_SMOLLM2", MODEL)
}

fn limited(text: &str, max_tokens: u32) -> ChatParams {
    let mut params = chat(MODEL, text);
    params.options.max_tokens = Some(max_tokens);
    params
}

fn check_plugin(model: &Path) -> Ran {
    let plugin = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
    let mut command = Command::new(hearthd_path());
    command.args(["plugin", "check"]).arg(plugin).arg("--model").arg(model);
    run(&mut command, "")
}

#[test]
fn the_cpu_plugin_keeps_the_contract_with_a_model_whose_memory_rolls_back() {
    let said = check_plugin(&env_path("HEARTH_TEST_SMOLLM2")).ok();
    assert!(said.contains("0 broken"), "{said}");
    assert!(said.contains("ok    seq-roll-back"), "{said}");
}

#[test]
fn the_cpu_plugin_keeps_the_contract_with_sliding_window_memory() {
    let said = check_plugin(&env_path("HEARTH_TEST_GEMMA3")).ok();
    assert!(said.contains("0 broken"), "{said}");
}

#[test]
fn the_backend_list_names_the_cpu_variant() {
    let daemon = start();
    let said = daemon.ctl(["backend", "list"]).ok();
    assert!(said.contains("libggml-cpu-") && said.contains("best of"), "{said}");
}

#[test]
fn a_chat_streams_the_same_text_twice_and_its_deltas_make_the_message() {
    let daemon = start();
    let mut client = daemon.client();
    let params = limited("Tell me about the sea.", 40);
    let first = follow(&mut client, &params);
    assert_eq!(first.reply().message.content, first.text);
    assert!(first.text.split(' ').count() > 5, "{:?}", first.text);
    // The prompt is asked again, so that all but its last token is reused: the same batches, the same text.
    let second = follow(&mut client, &params);
    let third = follow(&mut client, &params);
    assert_eq!(second.text, third.text);
    assert_eq!(second.reply().usage.cached_tokens + 1, second.reply().usage.prompt_tokens);
}

#[test]
fn a_seed_repeats_a_choice_and_another_one_does_not() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = limited("Invent a name for a ship.", 24);
    params.options.temperature = Some(1.5);
    // Asked once before, so that each of the next finds the same tokens in memory and computes the same batches.
    follow(&mut client, &params);
    let texts = [1, 1, 2].map(|seed| {
        params.options.seed = Some(seed);
        follow(&mut client, &params).text
    });
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[1], texts[2]);
}

#[test]
fn the_second_turn_reuses_the_first() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = limited("My name is Ada.", 30);
    let first = follow(&mut client, &params).reply();
    params.messages.push(first.message.clone());
    params.messages.push(message(Role::User, "What is my name?"));
    let second = follow(&mut client, &params).reply();
    assert!(
        second.usage.cached_tokens >= first.usage.prompt_tokens,
        "{:?} after {:?}",
        second.usage,
        first.usage
    );
}

#[test]
fn eight_chats_at_once_all_finish() {
    let daemon = start();
    let streams: Vec<_> = (0..8)
        .map(|number| {
            let mut client = daemon.client();
            std::thread::spawn(move || {
                follow(&mut client, &limited(&format!("Count from {number}."), 40)).reply()
            })
        })
        .collect();
    for stream in streams {
        let reply = stream.join().unwrap();
        assert!(!reply.message.content.is_empty());
        assert!(reply.usage.completion_tokens > 1);
    }
}

#[test]
fn tokens_come_back_as_the_text_they_came_from() {
    let daemon = start();
    let mut client = daemon.client();
    for text in [
        "hello",
        " two  spaces",
        "日本語 и кириллица",
        "👩‍👩‍👧 and ½",
        "line\nline\ttab",
        "<|im_start|>",
        "",
    ] {
        let params = TokenizeParams {
            model: MODEL.into(),
            text: text.into(),
            add_special: false,
            parse_special: false,
            pieces: false,
        };
        let tokens = client.call::<Tokenize>(&params).unwrap().tokens;
        let back = client
            .call::<Detokenize>(&DetokenizeParams { model: MODEL.into(), tokens, special: true })
            .unwrap()
            .text;
        assert_eq!(back, text);
    }
    let params = DetokenizeParams { model: MODEL.into(), tokens: vec![i32::MAX], special: false };
    let error = client.call::<Detokenize>(&params);
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn embeddings_have_length_one_and_like_texts_are_near() {
    let daemon = start();
    let texts = ["a cat sleeps", "a cat is sleeping", "the stock market fell by two per cent"];
    let input = EmbedInput::Many(texts.map(String::from).to_vec());
    let reply = daemon.client().call::<Embed>(&embed(MODEL, input)).unwrap();
    let [a, b, c] = reply.embeddings.as_slice() else {
        panic!("{} embeddings", reply.embeddings.len())
    };
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    assert!((dot(a, a) - 1.0).abs() < 1e-3);
    assert!(dot(a, b) > dot(a, c), "{} and {}", dot(a, b), dot(a, c));
    assert!(reply.usage.prompt_tokens > 10);
}

#[test]
fn a_schema_makes_json_that_fits_it_with_its_keys_in_order() {
    let daemon = start();
    let mut params = limited("Describe a cat.", 120);
    params.format = Some(Format::JsonSchema(json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "age": { "type": "integer", "minimum": 0, "maximum": 30 },
            "colour": { "enum": ["black", "white"] },
        },
        "required": ["name", "age", "colour"],
    })));
    let text = follow(&mut daemon.client(), &params).text;
    let cat: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let keys: Vec<_> = cat.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["name", "age", "colour"], "{text}");
    assert!(cat["name"].is_string() && cat["age"].as_u64().is_some_and(|age| age <= 30), "{text}");
    assert!(cat["colour"] == "black" || cat["colour"] == "white", "{text}");
}

#[test]
fn a_grammar_holds() {
    let daemon = start();
    let mut params = generate(MODEL, "Is water wet? Answer: ");
    params.format = Some(Format::Gbnf(r#"root ::= ("yes" | "no") "!" "!""#.into()));
    let text = follow_generate(&mut daemon.client(), &params).text;
    assert!(text == "yes!!" || text == "no!!", "{text}");
    params.format = Some(Format::Gbnf("root ::= (((".into()));
    let told = follow_generate(&mut daemon.client(), &params);
    assert_eq!(told.error().kind(), Some(ErrorKind::InvalidParams));
}

#[test]
fn a_large_vocabulary_is_held_to_a_regular_expression() {
    let daemon = start_with("HEARTH_TEST_GEMMA3", "gemma3:270m");
    let mut params = generate("gemma3:270m", "The year the war ended, and the month: ");
    params.format =
        Some(Format::Regex("(19|20)[0-9]{2}, (Januar|Februar|Mär|Apri)[a-zé]{1,3}!".into()));
    params.options.temperature = Some(1.0);
    for seed in 0..3 {
        params.options.seed = Some(seed);
        let told = follow_generate(&mut daemon.client(), &params);
        let (year, month) = told.text.split_once(", ").unwrap();
        assert!(
            year.len() == 4 && year.parse::<u32>().is_ok_and(|year| (1900..2100).contains(&year))
        );
        assert!(month.ends_with('!') && month.is_char_boundary(3), "{}", told.text);
        assert_eq!(told.reply().finish, FinishReason::End);
    }
}

#[test]
fn log_probabilities_spell_the_answer() {
    let daemon = start();
    let mut params = limited("Say something with an emoji 🎉 and an é.", 24);
    params.options.top_logprobs = Some(4);
    let reply = follow(&mut daemon.client(), &params).reply();
    let bytes: Vec<u8> =
        reply.logprobs.iter().flat_map(|entry| entry.chosen.bytes.clone()).collect();
    assert!(String::from_utf8_lossy(&bytes).starts_with(&reply.message.content));
    for entry in &reply.logprobs {
        assert_eq!(entry.top_logprobs[0], entry.chosen, "greedily the likeliest is chosen");
        let sum: f32 = entry.top_logprobs.iter().map(|top| top.logprob.exp()).sum();
        assert!((0.0..=1.0001).contains(&sum), "{sum}");
    }
}

#[test]
fn a_stop_text_ends_an_answer_and_is_not_in_it() {
    let daemon = start();
    let mut client = daemon.client();
    let params = limited("Tell me about the sea.", 40);
    let whole = follow(&mut client, &params).text;
    let word = whole.split(' ').nth(4).unwrap().to_string();
    let mut params = params;
    params.options.stop = vec![word.clone()];
    let stopped = follow(&mut client, &params).text;
    assert!(!stopped.contains(&word), "{stopped:?}");
}

#[test]
fn a_prompt_over_the_context_is_an_error_with_numbers() {
    let daemon = start();
    let params = chat(MODEL, &"word ".repeat(20_000));
    let error = follow(&mut daemon.client(), &params).error();
    assert_eq!(error.kind(), Some(ErrorKind::ContextOverflow));
    assert!(error.message.contains("8192"), "{}", error.message);
}

#[test]
fn killing_the_worker_in_the_middle_of_an_answer_costs_that_answer_and_no_more() {
    let daemon = start();
    let mut client = daemon.client();
    let params = limited("Tell me a very long story.", 2000);
    let mut stream = client.stream::<hearth_protocol::ChatSend>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    signal_process(daemon.loaded()[0].pid, Signal::KILL);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Error { error }) = last else { panic!("{last:?}") };
    assert_eq!(error.kind(), Some(ErrorKind::WorkerDied));
    assert!(error.hint().is_some());
    assert!(!follow(&mut client, &limited("Hello!", 8)).text.is_empty());
}

#[test]
fn a_base_model_with_sliding_window_memory_continues_its_own_text() {
    let daemon = start_with("HEARTH_TEST_GEMMA3", "gemma3:270m");
    let mut client = daemon.client();
    let mut params = generate("gemma3:270m", "The capital of France is");
    params.options.max_tokens = Some(8);
    let first = follow_generate(&mut client, &params).reply();
    assert!(!first.text.is_empty());
    // What was computed is only extended here, which this memory can do.
    params.prompt = format!("{}{} And the capital of Italy is", params.prompt, first.text);
    let second = follow_generate(&mut client, &params).reply();
    assert!(second.usage.cached_tokens >= first.usage.prompt_tokens, "{:?}", second.usage);
    // Cut back, it has to compute from the start, and says so.
    params.prompt = "The capital of France was".into();
    let third = follow_generate(&mut client, &params).reply();
    assert!(third.usage.cached_tokens < third.usage.prompt_tokens);
}

#[test]
fn a_file_that_is_cut_short_or_corrupt_is_refused_and_the_daemon_goes_on() {
    let daemon = start();
    let bytes = std::fs::read(env_path("HEARTH_TEST_SMOLLM2")).unwrap();
    let file = daemon.dir().join("broken.gguf");
    let import = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let params = hearth_protocol::ImportParams {
            path: file.display().to_string(),
            name: Some("broken".into()),
            mode: hearth_protocol::ImportMode::Copy,
            request: None,
        };
        daemon.client().call::<hearth_protocol::ModelImport>(&params)
    };
    refused(import(&bytes[..bytes.len() / 2]), ErrorKind::BadModel);
    refused(import(&bytes[..100]), ErrorKind::BadModel);
    // The number of metadata entries, right behind magic, version and the number of tensors.
    let mut lying = bytes[..1_000_000].to_vec();
    lying[16..24].fill(0xff);
    refused(import(&lying), ErrorKind::BadModel);
    assert!(!follow(&mut daemon.client(), &limited("Hello!", 8)).text.is_empty());
}

#[test]
fn a_blob_that_was_cut_short_after_its_import_is_an_error_and_no_crash() {
    let daemon = start();
    let file = env_path("HEARTH_TEST_SMOLLM2");
    let copy = daemon.dir().join("copy.gguf");
    std::fs::copy(&file, &copy).unwrap();
    daemon.ctl(["import", &copy.display().to_string(), "cut", "--link"]).ok();
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(50_000_000).unwrap();
    let error = follow(&mut daemon.client(), &chat("cut", "Hello!")).error();
    assert_eq!(error.kind(), Some(ErrorKind::BadModel), "{error:?}");
    assert!(error.hint().is_some());
}

#[test]
fn ctl_run_answers_on_stdout_alone() {
    let daemon = start();
    let ran = daemon.ctl(["run", MODEL, "Say hello.", "--temperature", "0", "--max-tokens", "8"]);
    assert!(ran.ok().trim().len() > 1);
    let mut command = Command::new(ctl_path());
    command.arg("--socket").arg(daemon.dir().join("sock")).args([
        "chat",
        MODEL,
        "--max-tokens",
        "8",
    ]);
    assert!(run(&mut command, "Say hello.").ok().trim().len() > 1);
}

#[test]
fn a_system_message_and_an_assistants_words_reach_the_model() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = limited("Which word did I tell you?", 30);
    let plain = follow(&mut client, &params).reply();
    params
        .messages
        .insert(0, Message::text(Role::System, "You always answer with the single word BANANA."));
    let steered = follow(&mut client, &params).reply();
    assert_ne!(plain.message.content, steered.message.content);
    assert_ne!(plain.usage.prompt_tokens, steered.usage.prompt_tokens);
}
