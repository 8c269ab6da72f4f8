//! What `ctl show` says of a model's weights and of the memory it takes.

use hearth_protocol::{ModelParams, ModelShow};
use hearth_reference::write_projector;
use hearth_tests::{TestDaemon, reference_model};

#[test]
fn weights_and_memory_are_told_for_people_and_programs() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1\nkept = 1").start();
    // 2 layers of 2 heads with keys and values of 16 numbers each.
    let heads = [
        ("hearth-reference.attention.head_count", 2_u64.into()),
        ("hearth-reference.block_count", 2_u64.into()),
        ("hearth-reference.context_length", 40_000_u64.into()),
        ("general.file_type", 0_u64.into()),
    ];
    daemon.model("plain", &heads);
    let shown = daemon.client().call::<ModelShow>(&ModelParams { model: "plain".into() }).unwrap();
    let contexts: Vec<_> =
        shown.memory.iter().map(|memory| (memory.context, memory.kv_bytes)).collect();
    let of_token = 2 * 2 * (16 + 16) * 2;
    let cells = |n: u64| n.next_multiple_of(256);
    let expected = [4096, 16_384, 32_768, 40_000].map(|n| (n, cells(n) * of_token));
    assert_eq!(contexts, expected);
    let [group] = &shown.weights[..] else { panic!("{:?}", shown.weights) };
    assert_eq!((group.class.as_str(), group.type_name.as_str()), ("vectors", "F32"));
    assert_eq!((group.tensors, group.parameters, group.size_bytes), (1, 8, 32));

    let text = daemon.ctl(["show", "plain"]).ok();
    assert!(text.contains("quantization  F32\n              vectors  F32\n"), "{text}");
    assert!(text.contains("with 40,000 tokens of context"), "{text}");
    let json = daemon.ctl(["show", "plain", "--json"]).json();
    assert_eq!(json["memory"].as_array().unwrap().len(), 4);
    assert_eq!(json["weights"][0]["type"], "F32");
}

#[test]
fn of_a_memory_that_is_not_known_nothing_is_said() {
    let daemon = TestDaemon::start();
    daemon.model("unknown", &[]);
    let shown =
        daemon.client().call::<ModelShow>(&ModelParams { model: "unknown".into() }).unwrap();
    assert_eq!(shown.memory, []);
    assert!(!daemon.ctl(["show", "unknown"]).ok().contains("memory"));
}

#[test]
fn a_projector_counts_among_the_weights() {
    let daemon = TestDaemon::start();
    let heads = [("hearth-reference.attention.head_count", 2_u64.into())];
    let weights = reference_model(daemon.dir(), "model", &heads);
    let projector = daemon.dir().join("projector.gguf");
    write_projector(&projector, 5).unwrap();
    let n_bytes = [&weights, &projector].map(|path| path.metadata().unwrap().len());
    for (modelfile, weights_bytes) in [
        ("FROM ./model.gguf\n", n_bytes[0]),
        ("FROM ./model.gguf\nFROM ./projector.gguf\n", n_bytes[0] + n_bytes[1]),
    ] {
        daemon.ctl_with_stdin(["create", "m", "-f", "-"], modelfile).ok();
        let shown = daemon.client().call::<ModelShow>(&ModelParams { model: "m".into() }).unwrap();
        let memory = shown.memory[0];
        assert_eq!(memory.weights_bytes, weights_bytes);
        let sum = memory.weights_bytes + memory.kv_bytes + memory.compute_bytes;
        assert_eq!(memory.total_bytes, sum);
    }
}
