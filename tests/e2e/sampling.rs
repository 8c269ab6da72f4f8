//! How tokens are chosen, and what is told of the choices.

use hearth_protocol::{ErrorKind, Event, FinishReason, Generate, Logprob, Options};
use hearth_tests::{TestDaemon, chat, follow, follow_generate, generate, refused};
use serde_json::{Value, json};

/// Never ends by itself.
fn endless(daemon: &TestDaemon) {
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
}

fn text(daemon: &TestDaemon, options: Value) -> String {
    let mut params = generate("tiny", "once upon a time, ");
    let mut all = json!({ "max_tokens": 60, "seed": 11, "temperature": 1.2 });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    params.options = serde_json::from_value::<Options>(all).unwrap();
    let reply = daemon.client().call::<Generate>(&params).unwrap();
    assert_eq!(reply.finish, FinishReason::MaxTokens);
    reply.text
}

#[test]
fn every_rule_changes_what_is_chosen_and_the_same_way_each_time() {
    let daemon = TestDaemon::start();
    endless(&daemon);
    let plain = text(&daemon, json!({ "top_k": 0, "top_p": 1.0 }));
    for rule in [
        json!({ "top_k": 2 }),
        json!({ "top_p": 0.4 }),
        json!({ "min_p": 0.5 }),
        json!({ "typical_p": 0.2 }),
        json!({ "top_n_sigma": 0.3 }),
        json!({ "xtc_probability": 1.0, "xtc_threshold": 0.01 }),
        json!({ "mirostat": 1, "mirostat_tau": 1.0 }),
        json!({ "mirostat": 2, "mirostat_tau": 1.0, "mirostat_eta": 0.3 }),
        json!({ "dynatemp_range": 1.2, "dynatemp_exponent": 0.5 }),
        json!({ "repeat_penalty": 1.8 }),
        json!({ "presence_penalty": 5.0 }),
        json!({ "frequency_penalty": 5.0 }),
        json!({ "dry_multiplier": 20.0, "dry_allowed_length": 1, "dry_sequence_breakers": [] }),
        json!({ "logit_bias": { "97": -100, "101": 4.5 } }),
    ] {
        let mut options = json!({ "top_k": 0, "top_p": 1.0 });
        options.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let once = text(&daemon, options.clone());
        assert_ne!(once, plain, "{rule} changes nothing");
        assert_eq!(once, text(&daemon, options), "{rule}");
    }
}

#[test]
fn a_bias_of_minus_100_forbids_and_dry_ends_a_loop() {
    let daemon = TestDaemon::start();
    endless(&daemon);
    let vowels = json!({ "logit_bias": { "97": -100, "101": -100 }, "temperature": 0 });
    assert!(!text(&daemon, vowels).contains(['a', 'e']));

    // Only three letters are left, so that without DRY the loops are long.
    let only: serde_json::Map<String, Value> = [("120", 40), ("121", 40), ("122", 40)]
        .map(|(token, bias)| (token.to_owned(), json!(bias)))
        .into_iter()
        .collect();
    let longest = |text: &str| {
        (1..text.len())
            .rev()
            .find(|n| (0..text.len() - n).any(|at| text[at + 1..].contains(&text[at..at + n])))
    };
    let free = text(&daemon, json!({ "logit_bias": only.clone() }));
    let dry = json!({ "logit_bias": only, "dry_multiplier": 100, "dry_allowed_length": 4 });
    let dry = text(&daemon, dry);
    assert!(dry.bytes().all(|byte| b"xyz".contains(&byte)), "{dry}");
    assert!(longest(&dry) <= Some(4) && longest(&free) > Some(4), "{free} and {dry}");
}

#[test]
fn log_probabilities_come_with_the_text_and_in_the_reply() {
    let daemon = TestDaemon::start();
    endless(&daemon);
    let mut params = generate("tiny", "once");
    params.options.max_tokens = Some(12);
    assert!(follow_generate(&mut daemon.client(), &params).reply().logprobs.is_empty());

    params.options.top_logprobs = Some(3);
    let told = follow_generate(&mut daemon.client(), &params);
    let reply = told.reply();
    let with_deltas: Vec<Logprob> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Delta { logprobs, .. } => Some(logprobs.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(with_deltas, reply.logprobs);
    assert_eq!(reply.logprobs.len(), 12);
    let spelled: String = reply.logprobs.iter().map(|entry| entry.chosen.token.as_str()).collect();
    assert_eq!(spelled, reply.text);
    for entry in &reply.logprobs {
        assert_eq!(entry.top_logprobs.len(), 3);
        // Greedy: the chosen one is the likeliest.
        assert_eq!(entry.top_logprobs[0], entry.chosen);
        assert_eq!(entry.chosen.bytes, entry.chosen.token.as_bytes());
        assert!(entry.top_logprobs.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        let sum: f32 = entry.top_logprobs.iter().map(|top| top.logprob.exp()).sum();
        assert!((0.5..=1.0001).contains(&sum), "{sum}");
    }

    // What the model thought, not what it was let to say.
    params.options.logit_bias = [(reply.logprobs[0].chosen.id, -100.0)].into();
    let other = follow_generate(&mut daemon.client(), &params).reply();
    assert_eq!(other.logprobs[0].top_logprobs, reply.logprobs[0].top_logprobs);
    assert_ne!(other.logprobs[0].chosen, reply.logprobs[0].chosen);
    assert!(other.logprobs[0].chosen.logprob < reply.logprobs[0].chosen.logprob);

    params.options.logprobs = Some(false);
    assert!(follow_generate(&mut daemon.client(), &params).reply().logprobs.is_empty());
}

#[test]
fn log_probabilities_of_a_chat_leave_out_its_end() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Grüße!".into())]);
    let mut params = chat("tiny", "hi");
    params.options.logprobs = Some(true);
    let reply = follow(&mut daemon.client(), &params).reply();
    assert_eq!(reply.message.content, "Grüße!");
    let bytes: Vec<u8> =
        reply.logprobs.iter().flat_map(|entry| entry.chosen.bytes.clone()).collect();
    assert_eq!(bytes, "Grüße!".as_bytes());
    assert!(reply.logprobs.iter().all(|entry| entry.top_logprobs.is_empty()));
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    for (option, value) in [
        ("dynatemp_range", json!(-1)),
        ("dynatemp_exponent", json!(-0.5)),
        ("typical_p", json!(1.5)),
        ("top_n_sigma", json!(-2)),
        ("xtc_probability", json!(2)),
        ("xtc_threshold", json!(-1)),
        ("mirostat", json!(3)),
        ("mirostat_tau", json!(-1)),
        ("mirostat_eta", json!(1.5)),
        ("dry_multiplier", json!(-1)),
        ("dry_base", json!(0.5)),
        ("dry_allowed_length", json!(0)),
        ("dry_sequence_breakers", json!([""])),
        ("dry_sequence_breakers", json!(vec!["a"; 65])),
        ("logit_bias", json!({ "100000": 1 })),
        ("logit_bias", json!({ "-1": 1 })),
        ("logit_bias", json!({ "1": 101 })),
        ("top_logprobs", json!(21)),
    ] {
        let mut params = generate("tiny", "a");
        params.options = serde_json::from_value(json!({ option: value })).unwrap();
        let error = refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
        assert!(error.message.contains(option), "{option}: {error:?}");
    }
}
