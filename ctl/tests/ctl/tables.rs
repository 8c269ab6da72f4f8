//! What the commands that call once print, word for word.

use crate::support::FakeDaemon;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn days_ago(days: u64) -> u64 {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // A minute more, so that a slow test does not fall into the next day's words.
    now_s - days * 86_400 - 60
}

fn smollm2() -> Value {
    json!({
        "name": "smollm2:latest",
        "id": "1f2e3d4c5b6a79880000000000000000000000000000000000000000000000ff",
        "size_bytes": 98_362_432, "modified_s": days_ago(3),
        "family": "llama", "parameter_size": "134.52M", "quantization": "Q4_1"
    })
}

fn running(expires_s: Value, active_requests: u32) -> Value {
    json!({
        "name": "smollm2:latest", "id": "1f2e3d4c5b6a7988", "state": "ready", "backend": "cpu", "pid": 4711,
        "description": "llama 135M Q4_1", "context": 8192, "active_requests": active_requests,
        "rss_bytes": 120_000_000, "expires_s": expires_s,
        "memory": {
            "mapped_bytes": 90_000_000, "private_bytes": 30_000_000, "context_bytes": 200_000_000,
            "kv_tokens": 1234, "kv_reserved": 17, "saved_bytes": 4_000_000
        }
    })
}

#[test]
fn ls() {
    let odd = json!({
        "name": "odd", "id": "ab", "size_bytes": 12, "modified_s": days_ago(40),
        "family": "", "parameter_size": "", "quantization": ""
    });
    let reply = json!({
        "models": [smollm2(), odd],
        "problems": [{ "path": "/m/manifests/x", "message": "it ends in the middle" }]
    });
    let daemon = FakeDaemon::replying("model.list", reply.clone());
    daemon.ctl(&["ls"]).is(
        0,
        "\
NAME            ID            SIZE     FAMILY  PARAMETERS  QUANTIZATION  MODIFIED
smollm2:latest  1f2e3d4c5b6a  98.4 MB  llama   134.52M     Q4_1          3 days ago
odd             ab            12 B                                       5 weeks ago
",
        "warning: `/m/manifests/x`: it ends in the middle\n",
    );
    daemon.ctl(&["ls", "--json"]).is(0, &format!("{reply}\n"), "");
}

#[test]
fn ls_of_an_empty_store() {
    let daemon = FakeDaemon::replying("model.list", json!({ "models": [], "problems": [] }));
    daemon.ctl(&["ls"]).is(
        0,
        "",
        "no models in the store\nhint: `ctl pull smollm2:135m` fetches a small one, `ctl import FILE.gguf NAME` brings in a file\n",
    );
}

#[test]
fn ps() {
    let models = [running(json!(240.2), 0), running(Value::Null, 2), running(Value::Null, 0)];
    let daemon = FakeDaemon::replying("model.ps", json!({ "models": models }));
    daemon.ctl(&["ps"]).is(
        0,
        "\
NAME            ID            STATE  BACKEND  MEMORY    CONTEXT  REQUESTS  STAYS           PID
smollm2:latest  1f2e3d4c5b6a  ready  cpu      120.0 MB  8192     0         4 minutes       4711
smollm2:latest  1f2e3d4c5b6a  ready  cpu      120.0 MB  8192     2         while it works  4711
smollm2:latest  1f2e3d4c5b6a  ready  cpu      120.0 MB  8192     0         forever         4711
",
        "",
    );
    daemon.ctl(&["ps", "--memory"]).is(
        0,
        "\
NAME            MEMORY    MAPPED   PRIVATE  CONTEXT   KV TOKENS     RESERVED  SAVED
smollm2:latest  120.0 MB  90.0 MB  30.0 MB  200.0 MB  1234 of 8192  17        4.0 MB
smollm2:latest  120.0 MB  90.0 MB  30.0 MB  200.0 MB  1234 of 8192  17        4.0 MB
smollm2:latest  120.0 MB  90.0 MB  30.0 MB  200.0 MB  1234 of 8192  17        4.0 MB
",
        "",
    );
    FakeDaemon::replying("model.ps", json!({ "models": [] })).ctl(&["ps"]).is(
        0,
        "",
        "no model is loaded\n",
    );
}

#[test]
fn show() {
    let reply = json!({
        "summary": smollm2(), "path": "/m/blobs/sha256-b179", "architecture": "llama",
        "parameters": 134_515_008, "context_length": 2048, "embedding_length": 576, "block_count": 30,
        "chat_template": "{{ messages }}", "system": "You are\nhelpful.",
        "licenses": ["\n  Apache License\n  Version 2.0"],
        "metadata": [["general.architecture", "llama"], ["general.name", "bell\u{7}"]]
    });
    let daemon = FakeDaemon::replying("model.show", reply.clone());
    daemon.ctl(&["show", "smollm2"]).is(
        0,
        "\
name          smollm2:latest
id            1f2e3d4c5b6a79880000000000000000000000000000000000000000000000ff
architecture  llama
parameters    134,515,008
quantization  Q4_1
context       2,048 tokens
embedding     576 numbers
layers        30
size          98.4 MB
modified      3 days ago
file          /m/blobs/sha256-b179
template      14 characters, in the file, `--template` shows it
system        You are
              helpful.
licence       Apache License
              Version 2.0
",
        "",
    );
    assert_eq!(daemon.calls()[0].1, json!({ "model": "smollm2" }));
    daemon.ctl(&["show", "smollm2", "--template"]).is(0, "{{ messages }}", "");
    daemon.ctl(&["show", "smollm2", "--license"]).is(0, "\n  Apache License\n  Version 2.0", "");
    daemon.ctl(&["show", "smollm2", "--metadata"]).is(
        0,
        "general.architecture  llama\ngeneral.name          bell␇\n",
        "",
    );
    daemon.ctl(&["show", "smollm2", "--json"]).is(0, &format!("{reply}\n"), "");
}

#[test]
fn show_what_the_manifest_says() {
    let reply = json!({
        "summary": smollm2(), "path": "/m/b", "architecture": "llama",
        "parameters": 0, "context_length": 0, "embedding_length": 0, "block_count": 0,
        "chat_template": "{{ messages }}", "template": "{{ .Prompt }}", "system": null,
        "capabilities": ["completion", "tools"],
        "options": [["stop", "[\"<|end|>\"]"], ["temperature", "0.2"]],
        "licenses": [], "metadata": []
    });
    let daemon = FakeDaemon::replying("model.show", reply);
    daemon.ctl(&["show", "smollm2"]).is(
        0,
        "\
name          smollm2:latest
id            1f2e3d4c5b6a79880000000000000000000000000000000000000000000000ff
architecture  llama
quantization  Q4_1
size          98.4 MB
modified      3 days ago
file          /m/b
template      13 characters, of the store's own, `--template` shows it
capabilities  completion, tools
options       stop [\"<|end|>\"]
              temperature 0.2
",
        "",
    );
    daemon.ctl(&["show", "smollm2", "--template"]).is(0, "{{ .Prompt }}", "");
    let words = "\
error: `smollm2:latest` has no licence text
hint: `ctl show smollm2:latest` says what it has
";
    daemon.ctl(&["show", "smollm2", "--license"]).is(1, "", words);
}

#[test]
fn stop() {
    let daemon = FakeDaemon::replying("model.unload", json!({ "unloaded": true }));
    daemon.ctl(&["stop", "smollm2"]).is(0, "`smollm2` is unloaded\n", "");
    let daemon = FakeDaemon::replying("model.unload", json!({ "unloaded": false }));
    daemon.ctl(&["stop", "smollm2"]).is(0, "`smollm2` was not loaded\n", "");
}

#[test]
fn reload() {
    let said = "the configuration was read again\n";
    let daemon = FakeDaemon::replying("daemon.reload", json!({ "needs_restart": [] }));
    daemon.ctl(&["reload"]).is(0, said, "");
    let daemon =
        FakeDaemon::replying("daemon.reload", json!({ "needs_restart": ["socket", "models"] }));
    let restart = "[`socket` and `models` changed, and the daemon must be restarted for that]\n";
    daemon.ctl(&["reload"]).is(0, said, restart);
}

#[test]
fn status() {
    let reply = json!({
        "version": "0.1.0", "pid": 42, "uptime_s": 7300, "socket": "/run/hearth/hearth.sock",
        "models_dir": "/var/lib/hearth/models", "probed": true, "backend": "cpu", "loaded_models": 1,
        "active_requests": 0, "rss_bytes": 9_800_000, "something_new": [1.5]
    });
    let daemon = FakeDaemon::replying("daemon.status", reply.clone());
    daemon.ctl(&["status"]).is(
        0,
        "\
version   0.1.0
process   42
up for    2 hours
socket    /run/hearth/hearth.sock
http      off
models    /var/lib/hearth/models
backend   cpu
loaded    1
requests  0
memory    9.8 MB (without the models)
",
        "",
    );
    daemon.ctl(&["status", "--json"]).is(0, &format!("{reply}\n"), "");
    daemon.ctl(&["rpc", "daemon.status"]).is(0, &format!("{reply}\n"), "");
}

#[test]
fn backend() {
    let reply = json!({ "backends": [
        {
            "name": "cpu", "state": "chosen", "reason": "the only one that runs here", "version": "b11434",
            "description": "llama.cpp", "path": "/usr/lib/hearth/backends/libhearth_cpu.so",
            "devices": [{
                "id": "cpu0", "name": "AMD EPYC 7B13", "kind": "cpu", "detail": "variant haswell, for AVX2",
                "memory_total": 16_000_000_000_u64, "memory_free": 12_500_000_000_u64
            }]
        },
        {
            "name": "cuda", "state": "absent", "reason": "`libcuda.so.1` is not installed", "version": "",
            "description": "", "path": "", "devices": []
        }
    ]});
    let daemon = FakeDaemon::replying("backend.list", reply);
    let text = "\
cpu   chosen: the only one that runs here
      llama.cpp, b11434
      cpu `cpu0`: AMD EPYC 7B13, variant haswell, for AVX2, 12.5 GB of 16.0 GB free
      /usr/lib/hearth/backends/libhearth_cpu.so
cuda  absent: `libcuda.so.1` is not installed
";
    daemon.ctl(&["backend"]).is(0, text, "");
    daemon.ctl(&["backend", "list"]).is(0, text, "");
}

#[test]
fn load() {
    let daemon = FakeDaemon::start(|call| {
        assert_eq!(call.method, "model.load.stream");
        let reply = json!({ "model": running(json!(600.0), 0), "load_us": 210_000 });
        call.stream(&[
            json!({ "type": "progress", "stage": "loading", "fraction": 0.5 }),
            json!({ "type": "weather", "sun": true }),
            json!({ "type": "done", "reply": reply }),
        ]);
    });
    daemon.ctl(&["load", "smollm2", "--keep-alive", "10m"]).is(
        0,
        "`smollm2:latest` loaded in 0.21 s on cpu, takes 120.0 MB, stays for 10 minutes\n",
        "",
    );
    assert_eq!(daemon.calls()[0].1, json!({ "model": "smollm2", "keep_alive": 600.0 }));
    daemon.ctl(&["load", "m", "--json", "--keep-alive", "forever"]).is(
        0,
        &format!("{}\n", json!({ "model": running(json!(600.0), 0), "load_us": 210_000 })),
        "",
    );
    assert_eq!(daemon.calls()[1].1, json!({ "model": "m", "keep_alive": -1.0 }));
}

#[test]
fn load_says_how_long_a_model_stays_as_far_as_that_is_known() {
    for (active_requests, stays) in [(0, "stays until it is stopped"), (2, "stays while it works")]
    {
        let daemon = FakeDaemon::start(move |call| {
            let reply = json!({ "model": running(Value::Null, active_requests), "load_us": 0 });
            call.stream(&[json!({ "type": "done", "reply": reply })]);
        });
        let text = format!("`smollm2:latest` was loaded already on cpu, takes 120.0 MB, {stays}\n");
        daemon.ctl(&["load", "smollm2"]).is(0, &text, "");
    }
}

fn measured() -> Value {
    json!({
        "model": "smollm2:latest", "backend": "cpu", "threads": 2, "prompt_tokens": 300, "streams": 4,
        "settings": {}, "machine": "2 processors", "trials": [], "gain": 1.0,
        "figures": { "prompt_per_s": 1540.4, "first_token_ms": 195.2, "stream_per_s": 180.26, "streams_per_s": 312.0 },
    })
}

#[test]
fn bench() {
    let daemon = FakeDaemon::start(|call| {
        assert_eq!(call.method, "model.bench.stream");
        call.stream(&[
            json!({ "type": "progress", "stage": "measuring", "fraction": 0.5 }),
            json!({ "type": "done", "reply": measured() }),
        ]);
    });
    let text = "\
model        smollm2:latest on cpu
prompt       1540 tokens/s, 300 tokens
first token  195 ms
one answer   180.3 tokens/s
4 at once    312.0 tokens/s together
settings     up to 2 threads, the defaults
machine      2 processors
";
    daemon.ctl(&["bench", "smollm2"]).is(0, text, "");
    assert_eq!(daemon.calls()[0].1, json!({ "model": "smollm2", "tune": false }));
    daemon.ctl(&["bench", "m", "--json"]).is(0, &format!("{}\n", measured()), "");
}

#[test]
fn bench_tune_says_what_was_tried_and_what_was_kept() {
    let trial = |settings: Value, ratios: [f64; 3], better: bool| {
        let figures = measured()["figures"].take();
        let [lowest, ratio, highest] = ratios;
        json!({ "settings": settings, "figures": figures, "ratio": ratio, "lowest": lowest,
            "highest": highest, "better": better })
    };
    let daemon = FakeDaemon::start(move |call| {
        let mut reply = measured();
        reply["trials"] = json!([
            trial(json!({ "threads": 1 }), [0.5, 0.6, 0.7], false),
            trial(json!({ "spin": 2000 }), [1.1, 1.2, 1.3], call.params["model"] == "a"),
            trial(json!({ "spin": 2000, "batch": 256 }), [0.98, 1.0, 1.02], false),
        ]);
        if call.params["model"] == "a" {
            (reply["settings"], reply["gain"]) = (json!({ "spin": 2000 }), json!(1.2));
        }
        call.stream(&[json!({ "type": "done", "reply": reply })]);
    });
    let text = "\
model        smollm2:latest on cpu
prompt       1540 tokens/s, 300 tokens
first token  195 ms
one answer   180.3 tokens/s
4 at once    312.0 tokens/s together
settings     up to 2 threads; tuned: spin 2000
machine      2 processors

TRIED                 PROMPT/S  ONE/S  SEVERAL/S  BESIDE THE BEST      VERDICT
threads 1             1540      180.3  312.0      0.60 (0.50 to 0.70)  slower
spin 2000             1540      180.3  312.0      1.20 (1.10 to 1.30)  faster
spin 2000, batch 256  1540      180.3  312.0      1.00 (0.98 to 1.02)  no clear difference

Kept spin 2000 for later loads: 1.20 times as fast as the defaults, all rates together.
";
    daemon.ctl(&["bench", "a", "--tune"]).is(0, text, "");
    assert_eq!(daemon.calls()[0].1, json!({ "model": "a", "tune": true }));
    let ran = daemon.ctl(&["bench", "b", "--tune"]);
    assert!(
        ran.stdout.ends_with("\n\nKept the defaults: nothing was faster by more than noise.\n")
    );
}

#[test]
fn import() {
    let daemon = FakeDaemon::start(|call| {
        assert_eq!(call.method, "model.import.stream");
        let reply = json!({ "name": "tiny:latest", "id": "ab", "how": "link" });
        call.stream(&[json!({ "type": "done", "reply": reply })]);
    });
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().canonicalize().unwrap();
    let mut command = daemon.command(&["import", "Tiny.Q4.GGUF", "--link"]);
    command.current_dir(&here);
    let path = here.join("Tiny.Q4.GGUF");
    crate::support::run(command, "").is(
        0,
        &format!(
            "`tiny:latest` imported: linked; it breaks if `{}` is moved or changed\n",
            path.display()
        ),
        "",
    );
    assert_eq!(daemon.calls()[0].1, json!({ "path": path, "name": "tiny.q4", "mode": "link" }));
    assert_eq!(daemon.ctl(&["import", "/x.gguf", "a:b"]).code, Some(0));
    assert_eq!(daemon.calls()[1].1, json!({ "path": "/x.gguf", "name": "a:b", "mode": "auto" }));
}

#[test]
fn rpc_takes_params_as_an_argument_or_from_stdin() {
    let daemon = FakeDaemon::start(|call| call.reply(&call.params));
    daemon.ctl(&["rpc", "x.y", r#"{"b": 1, "a": [2.50]}"#]).is(0, "{\"b\":1,\"a\":[2.5]}\n", "");
    daemon.ctl_with_stdin(&["rpc", "x.y", "-"], "{}\n").is(0, "{}\n", "");
}

#[test]
fn completions_name_every_command() {
    let daemon = FakeDaemon::start(|_| {});
    let ran = daemon.ctl(&["completions", "bash"]);
    assert_eq!(ran.code, Some(0));
    for name in ["chat", "run", "import", "backend", "--socket"] {
        assert!(ran.stdout.contains(name), "{name}");
    }
}

#[test]
fn du() {
    let amount = |files: u64, bytes: u64| json!({ "files": files, "bytes": bytes });
    let model = json!({
        "name": "smollm2:latest", "size_bytes": 98_362_432, "own_bytes": 0,
        "shared_bytes": 98_362_432, "linked_bytes": 0
    });
    let reply = json!({ "stores": [{
        "path": "/m", "models": [model], "total": amount(3, 98_400_000), "unreferenced": amount(1, 12),
        "unfinished": amount(0, 0), "problems": [{ "path": "/m/x", "message": "it is torn" }]
    }]});
    let daemon = FakeDaemon::replying("store.usage", reply.clone());
    daemon.ctl(&["du"]).is(
        0,
        "\
NAME            SIZE     OWN  SHARED   LINKED
smollm2:latest  98.4 MB  0 B  98.4 MB  0 B

store        /m
total        98.4 MB in 3 files
of no model  12 B in 1 file
unfinished   0 B in 0 files
",
        "warning: `/m/x`: it is torn\n",
    );
    daemon.ctl(&["du", "--json"]).is(0, &format!("{reply}\n"), "");
}

#[test]
fn what_stays_because_a_manifest_cannot_be_read_is_said() {
    let problem = json!({ "path": "/m/x", "message": "it is torn" });
    let reply = json!({ "name": "a:latest", "freed_bytes": 0, "problem": problem });
    FakeDaemon::replying("model.delete", reply).ctl(&["rm", "a"]).is(
        0,
        "`a:latest` is removed, which frees 0 B\n",
        "warning: `/m/x`: it is torn\nhint: files that may be needed stay; `ctl prune` looks again\n",
    );
    let file = json!({ "path": "/m/p", "size_bytes": 12, "unfinished": true });
    let reply = json!({
        "removed": [file], "freed_bytes": 12, "spared": { "files": 1, "bytes": 7 }, "problem": problem
    });
    let daemon = FakeDaemon::replying("store.prune", reply);
    daemon.ctl(&["prune", "--dry-run"]).is(
        0,
        "     12 B  unfinished   /m/p\n12 B in 1 file would be removed\n",
        "warning: `/m/x`: it is torn\nhint: repair or remove it; until then files of no model stay\n\
         7 B in 1 file of no model: too new, or in use\n",
    );
    assert_eq!(daemon.calls()[0].1, json!({ "dry_run": true }));
}

#[test]
fn verify_fails_where_something_is_wrong() {
    let fault =
        json!({ "model": "a:latest", "path": "/m/b", "message": "it is gone", "hint": "find it" });
    let reply = json!({ "models": 1, "files": 2, "bytes": 12, "faults": [fault] });
    let done = json!({ "type": "done", "reply": reply });
    let daemon = FakeDaemon::start(move |call| {
        assert_eq!(call.method, "store.verify.stream");
        call.stream(std::slice::from_ref(&done));
    });
    daemon.ctl(&["verify", "a"]).is(
        1,
        "`a:latest`: it is gone\n  find it\n12 B in 2 files of 1 model read\n",
        "error: 1 fault\nhint: `ctl verify --repair` fetches again what was pulled\n",
    );
    assert_eq!(daemon.calls()[0].1, json!({ "models": ["a"], "repair": false }));
    daemon.ctl(&["verify", "--json", "--repair"]).is(
        1,
        &format!("{reply}\n"),
        "error: 1 fault\nhint: pull or import again what is named here\n",
    );
}
