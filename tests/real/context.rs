//! Contexts that are full, and requests that are computed by themselves.

use crate::{MODEL, start};
use hearth_protocol::{Event, FinishReason, Generate, GenerateParams};
use hearth_tests::{follow_generate, generate};

/// Goes on until it has its tokens, whatever the model would rather do.
fn endless(prompt: &str, max_tokens: u32) -> GenerateParams {
    let mut params = generate(MODEL, prompt);
    params.options.max_tokens = Some(max_tokens);
    params.options.logit_bias = [0, 1, 2].map(|end| (end, -100.0)).into();
    params
}

#[test]
fn an_answer_goes_on_where_its_context_is_full_also_beside_another_with_its_prompt() {
    let daemon = start();
    let mut params = endless("The ship left the harbour, and the crew began to sing.", 250);
    params.options.context = Some(128);
    params.options.candidates = Some(2);
    params.options.shift = Some(true);
    let reply = follow_generate(&mut daemon.client(), &params).reply();
    assert_eq!((reply.finish, reply.usage.completion_tokens), (FinishReason::MaxTokens, 500));
    // Each of them several times, half of what stands behind the first four.
    assert_eq!(reply.usage.shifted_tokens % 62, 0);
    assert!(reply.usage.shifted_tokens >= 2 * 2 * 62, "{:?}", reply.usage);
    assert!(reply.text.split(' ').count() > 50, "{}", reply.text);
}

#[test]
fn an_answer_by_itself_is_the_same_to_the_last_bit_whatever_runs_beside_it() {
    let daemon = start();
    // Long enough for the kernels whose work depends on how many cells are in use.
    let mut params = endless(&"The sea was calm, and then it was not. ".repeat(60), 40);
    params.options.temperature = Some(0.8);
    params.options.seed = Some(3);
    params.options.top_logprobs = Some(5);
    params.options.deterministic = Some(true);
    let quiet = follow_generate(&mut daemon.client(), &params).reply();
    assert!(quiet.usage.prompt_tokens > 600, "{:?}", quiet.usage);

    // Another one leaves other things in its memory.
    let mut other = endless(&"A tale of two cities. ".repeat(30), 20);
    other.options.deterministic = Some(true);
    follow_generate(&mut daemon.client(), &other).reply();
    // And others go on beside it.
    let mut clients: Vec<_> = (0..3).map(|_| daemon.client()).collect();
    for client in &mut clients {
        let mut stream = client.stream::<Generate>(&endless("Once upon a time", 4000)).unwrap();
        while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    }
    let busy = follow_generate(&mut daemon.client(), &params).reply();
    assert_eq!(daemon.status().active_requests, 3, "the others ended before");
    assert_eq!(busy.text, quiet.text);
    assert_eq!(busy.logprobs, quiet.logprobs);
}
