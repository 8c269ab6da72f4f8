//! `model.ps` says where a loaded model's memory goes.

use hearth_protocol::{Event, Generate};
use hearth_tests::{TestDaemon, eventually, eventually_is, generate};

#[test]
fn a_loaded_model_says_what_it_holds() {
    let daemon = TestDaemon::start();
    // A prompt of 1,000 tokens takes four seconds, in which the engine says several times what it holds.
    daemon.model("plain", &[("eos_one_in", 0.into()), ("slow_us_per_token", 4000.into())]);
    let mut client = daemon.client();
    let mut params = generate("plain", &"x".repeat(1000));
    params.options.max_tokens = Some(10);
    let mut stream = client.stream::<Generate>(&params).unwrap();
    let memory = || daemon.loaded()[0].memory;
    let while_reading = eventually("room for the prompt", || {
        daemon.loaded().first().map(|model| model.memory).filter(|memory| memory.kv_reserved > 0)
    });
    assert!(while_reading.kv_tokens + while_reading.kv_reserved >= 1000, "{while_reading:?}");
    let mut usage = None;
    while let Some(event) = stream.next_event().unwrap() {
        if let Event::Done { reply } = event {
            usage = Some(reply.usage);
        }
    }
    let usage = usage.unwrap();
    // The last token of an answer is not read again.
    let n_kept = usage.prompt_tokens + usage.completion_tokens - 1;
    eventually_is("all of it in memory, and nothing promised", || {
        let memory = memory();
        memory.kv_tokens == n_kept && memory.kv_reserved == 0
    });
    // While nobody asks for anything, it is saved.
    eventually_is("a copy", || memory().saved_bytes > 0);
    let model = &daemon.loaded()[0];
    assert!(model.memory.context_bytes > 0 && model.memory.mapped_bytes > 0);
    assert!(model.memory.private_bytes > model.memory.saved_bytes, "{model:?}");
    assert_eq!(model.rss_bytes, model.memory.mapped_bytes + model.memory.private_bytes);
}
