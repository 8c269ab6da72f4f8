//! Grammars over a real vocabulary, without a daemon.

use hearth_abi::OpenParams;
use hearth_abi::host::{Grammar, Model, Plugin};
use hearth_abi::raw::Token;
use hearth_tests::env_path;

/// Which of the tokens may come, asked for so many at once.
fn mask(grammar: &mut Grammar, tokens: &[Token], at_once: usize) -> Vec<bool> {
    let mut logits = vec![0.0; tokens.len()];
    for (tokens, logits) in tokens.chunks(at_once).zip(logits.chunks_mut(at_once)) {
        grammar.mask(tokens, logits).unwrap();
    }
    logits.iter().map(|logit| *logit == 0.0).collect()
}

#[test]
fn a_mask_of_all_tokens_is_that_of_each() {
    let library = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
    let plugin = Plugin::load(&library, Box::new(|_, _| {})).unwrap();
    let params = OpenParams::new(env_path("HEARTH_TEST_SMOLLM2"));
    let model = Model::open(&plugin, &params, &mut |_| true).unwrap();
    let text = r#"root ::= "{\"name\": " string ", \"year\": " [0-9]{4} "}"
        string ::= "\"" ([^"\\] | "\\" ["n])* "\"""#;
    let mut grammar = model.grammar(text, "root").unwrap();
    let all: Vec<Token> = (0..).take(model.info().n_vocab as usize).collect();
    // It comes back to the same place, leaves it, and once stands inside a character.
    let answer = r#"{"name": "Ada and \"Bob\" 🦕é", "year": 1815}"#;
    for token in model.tokenize(answer, false, false).unwrap() {
        let whole = mask(&mut grammar, &all, all.len());
        assert_eq!(whole, mask(&mut grammar, &all, 500));
        assert_eq!(whole, mask(&mut grammar, &all, all.len()));
        assert!(whole[usize::try_from(token).unwrap()]);
        grammar.accept(token).unwrap();
    }
    grammar = model.grammar(text, "root").unwrap();
    grammar.accept_text(br#"{"name": "A"#).unwrap();
    let whole = mask(&mut grammar, &all, all.len());
    grammar.accept_text(br#"", "#).unwrap();
    assert_ne!(whole, mask(&mut grammar, &all, all.len()));
    assert_eq!(mask(&mut grammar, &all, 500), mask(&mut grammar, &all, all.len()));
}
