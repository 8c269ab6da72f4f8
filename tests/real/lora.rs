//! Low-rank adapters on real weights. They are random, so what they make the model say is nonsense, but arithmetic tells what
//! they must do: nothing when one factor is zero, and twice as much at twice the scale.

use super::{MODEL, start};
use hearth_abi::host::{Adapter, Batch, Context, Model, Plugin};
use hearth_abi::{BatchEntry, ContextConfig, OpenParams};
use hearth_protocol::{Embed, EmbedInput, ErrorKind};
use hearth_tests::{
    GgufText, Tensor, TestDaemon, embed, env_path, follow_generate, generate, is_alive, refused,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RANK: usize = 4;

/// Weights of SmolLM2-135M: name, inputs, outputs.
const WEIGHTS: [(&str, usize, usize); 3] =
    [("attn_q", 576, 576), ("attn_v", 576, 192), ("ffn_down", 1536, 576)];

/// The same numbers between -1 and 1 for the same seed.
fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f32::from(u16::try_from(mixed >> 48).unwrap()) / 32768.0 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Both factors for some weights of all layers, `b` times a number.
fn factors(b: f32) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for layer in 0..30 {
        for (at, (weight, n_in, n_out)) in (0_u64..).zip(WEIGHTS) {
            let name = format!("blk.{layer}.{weight}.weight");
            let seed = (layer * 10 + at) * 2;
            let scaled = |seed, n, by: f32| random(seed, n).into_iter().map(|x| x * by).collect();
            tensors.push(Tensor {
                name: format!("{name}.lora_a"),
                columns: n_in,
                values: scaled(seed, RANK * n_in, 0.1),
            });
            tensors.push(Tensor {
                name: format!("{name}.lora_b"),
                columns: RANK,
                values: scaled(seed + 1, RANK * n_out, b),
            });
        }
    }
    tensors
}

fn adapter_file(architecture: &str, alpha: f32, tensors: &[Tensor]) -> Vec<u8> {
    GgufText::header(tensors.len() as u64, 4)
        .text_pair("general.type", "adapter")
        .text_pair("general.architecture", architecture)
        .text_pair("adapter.type", "lora")
        .f32_pair("adapter.lora.alpha", alpha)
        .tensors(tensors)
        .0
}

/// What a file's alpha is for it to be applied as it is.
fn alpha() -> f32 {
    f32::from(u16::try_from(RANK).unwrap())
}

/// A second model of the daemon's, which is the first with adapters: their blobs, and a manifest that names them.
fn adapt(daemon: &TestDaemon, name: &str, adapters: &[&[u8]]) -> String {
    let models = daemon.dir().join("models");
    let library = models.join("manifests/registry.ollama.ai/library");
    let base = fs::read(library.join(MODEL.replace(':', "/"))).unwrap();
    let mut manifest: Value = serde_json::from_slice(&base).unwrap();
    for adapter in adapters {
        let digest: String =
            Sha256::digest(adapter).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(models.join("blobs").join(format!("sha256-{digest}")), adapter).unwrap();
        manifest["layers"].as_array_mut().unwrap().push(json!({
            "mediaType": "application/vnd.ollama.image.adapter",
            "digest": format!("sha256:{digest}"),
            "size": adapter.len(),
        }));
    }
    fs::create_dir(library.join(name)).unwrap();
    fs::write(library.join(name).join("latest"), manifest.to_string()).unwrap();
    name.into()
}

fn says(daemon: &TestDaemon, model: &str) -> String {
    let mut params = generate(model, "The three largest cities of France are");
    params.options.max_tokens = Some(16);
    follow_generate(&mut daemon.client(), &params).reply().text
}

fn embedding(daemon: &TestDaemon, model: &str) -> Vec<f32> {
    let params = embed(model, EmbedInput::One("the sea".into()));
    daemon.client().call::<Embed>(&params).unwrap().embeddings.remove(0)
}

#[test]
fn an_adapter_of_zeros_changes_nothing_and_another_one_changes_answers_and_embeddings() {
    let daemon = start();
    let zeros = adapt(&daemon, "zeros", &[&adapter_file("llama", alpha(), &factors(0.0))]);
    let other = adapt(&daemon, "other", &[&adapter_file("llama", alpha(), &factors(1.0))]);
    let plain = says(&daemon, MODEL);
    assert!(!plain.is_empty());
    assert_eq!(says(&daemon, &zeros), plain);
    assert_ne!(says(&daemon, &other), plain);
    let plain = embedding(&daemon, MODEL);
    assert!(apart(&embedding(&daemon, &zeros), &plain) < 1e-6);
    assert!(apart(&embedding(&daemon, &other), &plain) > 1e-2);
}

#[test]
fn adapters_that_do_not_fit_the_model_are_refused_and_say_why() {
    let daemon = start();
    let mut narrow = factors(0.1);
    narrow[0].columns /= 2;
    let mut stranger = factors(0.1);
    for tensor in &mut stranger[..2] {
        tensor.name = tensor.name.replace("attn_q", "attn_x");
    }
    let whole = adapter_file("llama", alpha(), &factors(0.1));
    let files = [
        (
            "narrow",
            adapter_file("llama", alpha(), &narrow),
            "blk.0.attn_q.weight' has incorrect shape",
        ),
        ("stranger", adapter_file("llama", alpha(), &stranger), "does not exist in base model"),
        ("single", adapter_file("llama", alpha(), &factors(0.1)[1..]), "missing one component"),
        ("foreign", adapter_file("qwen2", alpha(), &factors(0.1)), "arch"),
        ("short", whole[..whole.len() / 2].to_vec(), "not within the file bounds"),
    ];
    for (name, file, wanted) in files {
        let name = adapt(&daemon, name, &[&file]);
        let result = daemon.client().call::<hearth_protocol::Generate>(&generate(&name, "Hello"));
        let error = refused(result, ErrorKind::BadModel);
        assert!(error.message.contains(wanted), "{name}: {error:?}");
    }
    assert!(is_alive(daemon.pid()) && !says(&daemon, MODEL).is_empty());
}

/// The same numbers as the PEFT library writes them.
fn published(folder: &Path, tensors: &[Tensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for Tensor { name, columns, values } in tensors {
        let name = name
            .replace("blk.", "base_model.model.model.layers.")
            .replace("attn_v.weight", "self_attn.v_proj")
            .replace("ffn_down.weight", "mlp.down_proj")
            .replace("lora_a", "lora_A.weight")
            .replace("lora_b", "lora_B.weight");
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let shape = [values.len() / columns, *columns];
        header.insert(
            name,
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] }),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data.as_slice()].concat();
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), file).unwrap();
    let config = json!({ "peft_type": "LORA", "lora_alpha": RANK, "r": RANK }).to_string();
    fs::write(folder.join("adapter_config.json"), config).unwrap();
}

#[test]
fn an_adapter_as_it_is_published_does_what_a_gguf_file_of_it_does() {
    let daemon = start();
    let tensors: Vec<Tensor> =
        factors(1.0).into_iter().filter(|tensor| !tensor.name.contains("attn_q")).collect();
    let file = daemon.dir().join("adapter.gguf");
    fs::write(&file, adapter_file("llama", alpha(), &tensors)).unwrap();
    published(&daemon.dir().join("lora"), &tensors);
    for (name, adapter) in [("converted", "lora"), ("file", "adapter.gguf")] {
        let modelfile = format!("FROM {MODEL}\nADAPTER ./{adapter}");
        daemon.ctl_with_stdin(["create", name, "-f", "-"], &modelfile).ok();
    }
    let said = says(&daemon, "converted");
    assert_eq!(said, says(&daemon, "file"));
    assert_ne!(said, says(&daemon, MODEL));
}

/// One context of the model, without a daemon: the contract has scales, and no manifest does.
struct Bench {
    model: Arc<Model>,
    context: Context,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let library = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
        let plugin = Plugin::load(&library, Box::new(|_, _| {})).unwrap();
        let params = OpenParams::new(env_path("HEARTH_TEST_SMOLLM2"));
        let model = Model::open(&plugin, &params, &mut |_| true).unwrap();
        let config =
            ContextConfig { n_threads: 2, n_threads_batch: 2, ..ContextConfig::single(64) };
        let context = model.context(&config).unwrap();
        Self { model, context, folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self, alpha: f32, tensors: &[Tensor]) -> Arc<Adapter> {
        let path: PathBuf = self.folder.path().join("adapter.gguf");
        fs::write(&path, adapter_file("llama", alpha, tensors)).unwrap();
        self.model.adapter(Path::new(&path)).unwrap()
    }

    /// After the same few tokens, with these adapters.
    fn logits(&mut self, adapters: &[(Arc<Adapter>, f32)]) -> Vec<f32> {
        self.context.attach(adapters).unwrap();
        let mut batch = Batch::default();
        for (position, token) in (0..).zip([504, 1456, 4073, 281, 4649]) {
            batch.push(BatchEntry { token, position, sequence: 0, output: position == 4 });
        }
        self.context.decode(&batch).unwrap();
        let logits = self.context.logits(4).unwrap().to_vec();
        self.context.seq_remove(0, 0, None).unwrap();
        logits
    }
}

/// The root of the mean square of the differences.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (squares / a.len() as f32).sqrt()
}

#[test]
fn scales_and_several_adapters_add_up_and_detaching_undoes_them() {
    let mut bench = Bench::new();
    let once = bench.open(alpha(), &factors(0.1));
    let twice = bench.open(alpha(), &factors(0.2));
    let twice_by_alpha = bench.open(2.0 * alpha(), &factors(0.1));
    let again = bench.open(alpha(), &factors(0.1));

    let plain = bench.logits(&[]);
    let changed = bench.logits(&[(Arc::clone(&once), 1.0)]);
    let doubled = bench.logits(&[(Arc::clone(&once), 2.0)]);
    assert!(apart(&plain, &changed) > 0.02, "{}", apart(&plain, &changed));
    assert!(apart(&changed, &doubled) > 0.02, "{}", apart(&changed, &doubled));
    for same in [vec![(twice, 1.0)], vec![(twice_by_alpha, 1.0)]] {
        let same = bench.logits(&same);
        assert!(apart(&same, &doubled) < 1e-3, "{}", apart(&same, &doubled));
    }
    // Added in another order, which the rounding of tokens to eight bits makes more of.
    let both = bench.logits(&[(Arc::clone(&once), 1.0), (again, 1.0)]);
    let (noise, change) = (apart(&both, &doubled), apart(&plain, &doubled));
    assert!(noise < change / 2.0, "{noise} of {change}");
    assert!(bench.logits(&[(once, 0.0)]) == plain);
    assert!(bench.logits(&[]) == plain);
}
