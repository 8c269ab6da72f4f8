//! The hot loop allocates nothing per token. A test of its own, because it counts what the process allocates. The reference
//! plugin, which does allocate, is loaded as a library here: a library has an allocator of its own, which is not counted.

use hearth_abi::OpenParams;
use hearth_abi::host::{Model, Plugin};
use hearth_engine::{Engine, EngineConfig, Event, Request, Sampling, Sink};
use std::path::PathBuf;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const N_ANSWERS: i32 = 4;
/// Of all answers together, half of what they have.
const N_TOKENS: usize = 800;

/// Counts tokens, and keeps nothing.
#[derive(Default)]
struct Counter {
    texts: usize,
}

impl Sink for Counter {
    fn event(&mut self, _: u64, event: Event<'_>) {
        self.texts += usize::from(matches!(event, Event::Text(_)));
    }
}

fn model() -> Arc<Model> {
    let folder = std::env::var_os("HEARTH_TEST_REFERENCE").expect("run the tests by ./dev");
    let library = PathBuf::from(folder).join("libhearth_reference.so");
    let plugin =
        Plugin::load(&library, Box::new(|level, text| panic!("{level:?}: {text}"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    hearth_reference::write_model(&path, &[("eos_one_in", 0_u64.into())]).unwrap();
    Model::open(&plugin, &OpenParams::new(path), &mut |_| true).unwrap()
}

fn request(id: i32) -> Request {
    Request {
        id: id.unsigned_abs().into(),
        owner: 1,
        prompt: (0..40).map(|at| 97 + (at * 7 + id) % 26).collect(),
        spans: Vec::new(),
        n_public: 0,
        max_context: None,
        shift: None,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stops: vec!["unheard of".into()],
        max_tokens: Some(400),
        constraint: None,
        thinking: None,
        spelled: Vec::new(),
    }
}

#[test]
fn a_token_costs_no_allocation() {
    let mut engine = Engine::new(&model(), EngineConfig::default()).unwrap();
    let mut sink = Counter::default();
    let _profiler = dhat::Profiler::builder().testing().build();
    for id in 0..N_ANSWERS {
        engine.submit(request(id), &mut sink);
    }
    // Prompts, and buffers that grow to the size of a step.
    while sink.texts < N_TOKENS / 2 && !engine.is_idle() {
        engine.step(&mut sink).unwrap();
    }
    let (before, texts) = (dhat::HeapStats::get().total_blocks, sink.texts);
    while sink.texts < texts + N_TOKENS && !engine.is_idle() {
        engine.step(&mut sink).unwrap();
    }
    assert!(sink.texts >= texts + N_TOKENS, "the answers ended after {} tokens", sink.texts);
    let n = dhat::HeapStats::get().total_blocks - before;
    // Each answer's list of tokens and its index of guesses double now and then, and ten times a second the engine asks
    // what other processes take. One allocation per token would be twice the limit.
    assert!(n < N_TOKENS as u64 / 2, "{n} allocations in {N_TOKENS} tokens");
}
