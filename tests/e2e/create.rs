//! `ctl create` and what is behind it: Modelfiles, bases, converted folders, uploads, and mistakes in all of them.

use super::pull::{blob_path, noise};
use hearth_protocol::{
    CreateFile, CreateParams, Empty, ErrorKind, ImportMode, ModelCreate, ModelDetails,
    ModelListMethod, ModelParams, ModelShow, ProgressEvent, UploadedFile,
};
use hearth_reference::{Settings, vocab, write_adapter};
use hearth_tests::{
    Ran, Registry, Terminal, TestDaemon, ctl_path, digest, reference_model, refused, run,
};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

#[allow(dead_code, reason = "the converter's own tests use the rest")]
#[path = "../../daemon/convert/tests/convert/models.rs"]
mod models;
#[path = "../../daemon/convert/tests/convert/tokenizers.rs"]
mod tokenizers;

const RICH: &str = "# All of it.
from ./base.gguf
PARAMETER stop \"<|end|>\"
PARAMETER stop <|user|>
parameter temperature 0.0
PARAMETER num_ctx 512
SYSTEM \"\"\"Be brief.
\"And\" polite.\"\"\"
TEMPLATE \"{{ range .Messages }}<|user|>{{ .Role }}: {{ .Content }}<|end|>{{ end }}<|assistant|>\"
MESSAGE user a
MESSAGE assistant b & c
LICENSE first
LICENSE \"
second
\"
REQUIRES v0.14.0
";

/// With a reference model in `base.gguf`, in the folder where `ctl` runs.
fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    reference_model(daemon.dir(), "base", &[("seed", 7.into())]);
    daemon
}

#[track_caller]
fn create(daemon: &TestDaemon, name: &str, modelfile: &str) -> Ran {
    daemon.ctl_with_stdin(["create", name, "-f", "-"], modelfile)
}

#[track_caller]
fn show(daemon: &TestDaemon, name: &str) -> ModelDetails {
    daemon.client().call::<ModelShow>(&ModelParams { model: name.into() }).unwrap()
}

fn manifest(daemon: &TestDaemon, name: &str) -> Value {
    let library = daemon.dir().join("models/manifests/registry.ollama.ai/library");
    serde_json::from_slice(&fs::read(library.join(name).join("latest")).unwrap()).unwrap()
}

fn n_models(daemon: &TestDaemon) -> usize {
    daemon.client().call::<ModelListMethod>(&Empty {}).unwrap().models.len()
}

fn n_blobs(daemon: &TestDaemon) -> usize {
    fs::read_dir(daemon.dir().join("models/blobs")).map_or(0, Iterator::count)
}

#[test]
fn a_modelfile_makes_a_model_and_the_one_that_is_shown_makes_it_again() {
    let daemon = start();
    fs::create_dir(daemon.dir().join("made")).unwrap();
    fs::write(daemon.dir().join("made/Modelfile"), RICH.replace("./base", "../base")).unwrap();
    let said = daemon.ctl(["create", "mine", "--file", "made/Modelfile"]).ok();
    assert!(said.contains("`mine:latest` created"), "{said}");
    let shown = show(&daemon, "mine");
    assert_eq!(shown.system.as_deref(), Some("Be brief.\n\"And\" polite."));
    assert_eq!(shown.licenses, ["first", "\nsecond\n"]);
    let options = [("num_ctx", "512"), ("stop", r#"["<|end|>","<|user|>"]"#), ("temperature", "0")];
    assert_eq!(shown.options, options.map(|(name, value)| (name.into(), value.into())));
    let kinds: Vec<Value> = manifest(&daemon, "mine")["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].clone())
        .collect();
    let expected = ["model", "template", "system", "license", "license", "params", "messages"];
    assert_eq!(kinds, expected.map(|kind| format!("application/vnd.ollama.image.{kind}")));

    // What it says and how its chats begin.
    let settings = Settings::from_pairs(&[("seed", 7.into())]).unwrap();
    let prompt = "<|user|>system: Be brief.\n\"And\" polite.<|end|><|user|>user: a<|end|>\
                  <|user|>assistant: b & c<|end|><|user|>user: hello<|end|><|assistant|>";
    let prompt: Vec<_> =
        [vocab::BOS].into_iter().chain(vocab::tokenize(prompt.as_bytes(), true)).collect();
    let answer = hearth_reference::expected(&settings, &prompt, 512);
    let answer: String =
        answer.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect();
    let said = daemon.ctl(["run", "mine", "hello"]).ok();
    assert!(!said.trim().is_empty() && answer.starts_with(said.trim_end()), "{said:?} {answer:?}");

    let text = daemon.ctl(["show", "--modelfile", "mine"]).ok();
    create(&daemon, "again", &text).ok();
    assert_eq!(show(&daemon, "again").summary.id, shown.summary.id);
    let without: String = text
        .lines()
        .filter(|line| !line.starts_with("PARAMETER"))
        .fold(String::new(), |text, line| text + line + "\n");
    create(&daemon, "without", &without).ok();
    assert!(show(&daemon, "without").options.is_empty());
    daemon.ctl(["verify"]).ok();
}

#[test]
fn a_linked_model_stays_linked_in_what_is_made_of_it() {
    let daemon = start();
    daemon.import(&daemon.dir().join("base.gguf"), "base", ImportMode::Link);
    let text = daemon.ctl(["show", "--modelfile", "base"]).ok();
    create(&daemon, "again", &text).ok();
    assert_eq!(show(&daemon, "again").summary.id, show(&daemon, "base").summary.id);
    assert!(Path::new(&show(&daemon, "base").path).is_symlink());
    daemon.ctl_with_stdin(["create", "third", "-f", "-", "--link"], "FROM ./base.gguf").ok();
    assert_eq!(show(&daemon, "third").path, show(&daemon, "base").path);
}

#[test]
fn a_model_is_made_of_another_one_and_shares_its_weights() {
    let daemon = start();
    create(&daemon, "mine", RICH).ok();
    let modelfile =
        "FROM mine\nPARAMETER seed 3\nPARAMETER temperature 1\nSYSTEM Be long.\nLICENSE first";
    create(&daemon, "other", modelfile).ok();
    let (mine, other) = (show(&daemon, "mine"), show(&daemon, "other"));
    assert_eq!(other.path, mine.path);
    assert_eq!(other.template, mine.template);
    assert_eq!((other.system.as_deref(), &other.licenses), (Some("Be long."), &mine.licenses));
    assert_eq!(other.options.len(), 4, "{:?}", other.options);
    // A folder or a file that is there is meant before a model of that name.
    fs::write(daemon.dir().join("mine"), "no GGUF").unwrap();
    assert_eq!(create(&daemon, "third", "FROM mine").code, Some(1));
    fs::remove_file(daemon.dir().join("mine")).unwrap();
    create(&daemon, "third", "FROM MINE").ok();
    assert_eq!(show(&daemon, "third").summary.id, mine.summary.id);
}

#[test]
fn a_base_that_is_not_here_is_pulled() {
    let daemon = start();
    let registry = Registry::start();
    let weights = fs::read(daemon.dir().join("base.gguf")).unwrap();
    registry.push("library/m", &[("model", &weights)]);
    create(&daemon, "mine", &format!("FROM http://{}/library/m\nSYSTEM Hi.", registry.host())).ok();
    assert_eq!(show(&daemon, "mine").system.as_deref(), Some("Hi."));
    assert!(blob_path(&daemon, &weights).exists());
    assert_eq!(n_models(&daemon), 2);

    let from = format!("FROM http://{}/library/none", registry.host());
    let ran = create(&daemon, "other", &from);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("there is no model") && ran.stderr.contains("hint: "), "{ran:?}");
    assert_eq!(n_models(&daemon), 2);
}

#[test]
fn a_folder_of_safetensors_is_converted_and_so_is_an_adapter() {
    let daemon = start();
    let folder = |name: &str| daemon.dir().join(name);
    let llama = models::all().into_iter().find(|model| model.name == "llama").unwrap();
    llama.write(&folder("tiny"));
    models::write_adapter(&folder("lora"));
    create(&daemon, "tiny", "FROM ./tiny").ok();
    let shown = show(&daemon, "tiny");
    assert_eq!((shown.architecture.as_str(), shown.block_count), ("llama", 2));
    assert!(["F16", "BF16"].contains(&shown.summary.quantization.as_str()), "{shown:?}");

    let ran = create(&daemon, "both", "FROM ./tiny\nADAPTER lora\nPARAMETER seed 1").ok();
    assert!(ran.contains("`both:latest` created"), "{ran}");
    create(&daemon, "upon", "FROM tiny:latest\nADAPTER ./lora\nPARAMETER seed 1").ok();
    let adapter = |name: &str| manifest(&daemon, name)["layers"][1].clone();
    assert_eq!(adapter("both")["mediaType"], "application/vnd.ollama.image.adapter");
    // The base's shape is read from its folder's files or from its header, to the same end; its name is not in it.
    assert_eq!(adapter("both")["size"], adapter("upon")["size"]);
    let text = daemon.ctl(["show", "--modelfile", "upon"]).ok();
    create(&daemon, "again", &text).ok();
    assert_eq!(show(&daemon, "again").summary.id, show(&daemon, "upon").summary.id);

    fs::write(folder("tiny/config.json"), r#"{"architectures": ["Unheard"]}"#).unwrap();
    let ran = create(&daemon, "broken", "FROM ./tiny");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("the architecture `Unheard` is not supported"), "{ran:?}");
    daemon.ctl(["verify"]).ok();
}

#[test]
fn an_adapter_changes_what_a_model_says() {
    let daemon = start();
    write_adapter(&daemon.dir().join("lora.gguf"), 3).unwrap();
    create(&daemon, "plain", "FROM ./base.gguf").ok();
    create(&daemon, "tuned", "FROM plain\nADAPTER ./lora.gguf").ok();
    let text = daemon.ctl(["show", "--modelfile", "tuned"]).ok();
    create(&daemon, "again", &text).ok();
    let says = |model: &str| daemon.ctl(["run", model, "hello", "--temperature", "0"]).ok();
    let tuned = says("tuned");
    assert_ne!(says("plain"), tuned);
    assert_eq!(says("again"), tuned);
}

#[test]
fn what_the_daemon_cannot_open_is_sent_to_it() {
    let daemon = start();
    let llama = models::all().into_iter().find(|model| model.name == "llama").unwrap();
    llama.write(&daemon.dir().join("tiny"));
    models::write_adapter(&daemon.dir().join("lora"));
    // To the daemon this is another folder.
    let here = "/proc/self/cwd";
    create(&daemon, "sent", &format!("FROM {here}/base.gguf")).ok();
    daemon.ctl(["run", "sent", "hello"]).ok();
    create(&daemon, "folder", &format!("FROM {here}/tiny\nADAPTER {here}/lora")).ok();
    create(&daemon, "local", "FROM ./tiny\nADAPTER ./lora").ok();
    let weights = |name: &str| manifest(&daemon, name)["layers"][0]["size"].clone();
    assert_eq!(weights("folder"), weights("local"));
    let base = format!("{here}/base.gguf");
    let reply = daemon.ctl(["import", &base, "imported", "--json"]).json();
    assert_eq!((&reply["name"], &reply["how"]), (&"imported:latest".into(), &"sent".into()));
    assert_eq!(weights("imported"), weights("sent"));
    let ran = daemon.ctl(["import", &base, "linked", "--link"]);
    assert!(ran.stderr.starts_with(&format!("error: the daemon cannot open `{base}`")), "{ran:?}");

    let ran = create(&daemon, "none", &format!("FROM {here}/none.gguf"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("none.gguf"), "{ran:?}");
}

/// A request for a blob, whose body may end too soon; and the status, if there is an answer.
pub(crate) fn blob(
    daemon: &TestDaemon,
    method: &str,
    digest: &str,
    len: usize,
    body: &[u8],
) -> Option<u16> {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let head = format!(
        "{method} /blobs/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    if body.len() < len {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_blob_is_there_only_if_it_is_whole_and_what_it_was_said_to_be() {
    let daemon = start();
    let bytes = noise(3 << 20);
    let (digest, len) = (digest(&bytes), bytes.len());
    let post = |digest: &str, len, body: &[u8]| blob(&daemon, "POST", digest, len, body);
    let head = || blob(&daemon, "HEAD", &digest, 0, b"");
    assert_eq!(head(), Some(404));
    assert_eq!(post("sha256:12", 2, b"ab"), Some(400));
    assert_eq!(post(&digest, len - 1, &bytes[1..]), Some(400));
    assert_ne!(post(&digest, len, &bytes[1..]), Some(201));
    assert_eq!(blob(&daemon, "PUT", &digest, len, &bytes), Some(405));
    assert_eq!(head(), Some(404));
    hearth_tests::eventually_is("no file to be left", || n_blobs(&daemon) == 0);
    assert_eq!(post(&digest, len, &bytes), Some(201));
    assert_eq!(post(&digest, len, &bytes), Some(200));
    assert_eq!(head(), Some(200));
    assert_eq!(fs::read(blob_path(&daemon, &bytes)).unwrap(), bytes);
    daemon.status();
}

#[test]
fn only_admins_create_and_upload() {
    let daemon = TestDaemon::builder().config("socket_mode = \"0666\"").start();
    run(daemon.command("chmod").arg("0755").arg(daemon.dir()), "").ok();
    let socket = daemon.socket().display().to_string();
    let digest = digest(b"secret");
    let as_nobody = |args: &[&str]| {
        let mut command = daemon.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-s"]);
        run(command.args(["--unix-socket", &socket]).args(args), "")
    };
    let url = format!("http://x/blobs/{digest}");
    let said = as_nobody(&["-d", "secret", &url]).ok();
    assert!(said.contains("uid 65534 may not call `model.create`"), "{said}");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"model.create","params":{"model":"x","files":[{"path":"/etc/shadow"}]}}"#;
    let said =
        as_nobody(&["-H", "content-type: application/json", "-d", body, "http://x/rpc"]).ok();
    assert!(said.contains("uid 65534 may not call `model.create`"), "{said}");
    assert_eq!(n_blobs(&daemon), 0);
}

#[test]
fn mistakes_say_what_is_wrong_and_leave_nothing() {
    let daemon = start();
    reference_model(daemon.dir(), "other", &[]);
    fs::create_dir(daemon.dir().join("empty")).unwrap();
    for (modelfile, code, words) in [
        ("SYSTEM x", 2, "no FROM line"),
        ("FROM ./base.gguf\nFORM x", 2, "line 2: command must be one of"),
        ("FROM a\nFROM b", 2, "name two models"),
        ("FROM ./base.gguf\nPARAMETER temprature 1", 1, "hint: did you mean `temperature`?"),
        ("FROM ./base.gguf\nPARAMETER num_ctx 4k", 1, "`num_ctx` must be a whole number"),
        ("FROM ./base.gguf\nTEMPLATE {{ .Prompt", 1, "the template cannot be used"),
        ("FROM ./base.gguf\nREQUIRES latest", 1, "is no version"),
        ("FROM ./base.gguf\nFROM ./other.gguf", 1, "it has two files of weights"),
        ("FROM ./empty", 1, "holds neither safetensors nor GGUF files"),
        ("FROM ./none.gguf", 1, "none.gguf"),
        ("FROM ./log", 1, "log"),
        ("FROM ./base.gguf\nADAPTER ./other.gguf", 1, "it has two files of weights"),
        ("FROM no/such/name/at/all", 1, "no/such/name/at/all"),
    ] {
        let ran = create(&daemon, "made", modelfile);
        assert_eq!(ran.code, Some(code), "{modelfile}: {ran:?}");
        assert!(ran.stderr.contains(words), "{modelfile}: {ran:?}");
    }
    let ran = daemon.ctl(["create", "made"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("cannot read `Modelfile`"), "{ran:?}");

    let ask = |params: Value| {
        let params: CreateParams = serde_json::from_value(params).unwrap();
        daemon.client().call::<ModelCreate>(&params)
    };
    let nothing = digest(b"nothing");
    for params in [
        json!({ "model": "x" }),
        json!({ "model": "x", "files": [{ "path": "base.gguf" }] }),
        json!({ "model": "x", "files": [{ "blob": { "name": "base.gguf", "digest": nothing } }] }),
        json!({ "model": "x", "files": [{ "blob": { "name": "../x.safetensors", "digest": nothing } }] }),
        json!({ "model": "x", "from": "y", "messages": [{ "role": "tool", "content": "" }] }),
        json!({ "model": ":", "from": "y" }),
    ] {
        let error = refused(ask(params), ErrorKind::InvalidParams);
        assert!(!error.message.is_empty());
    }
    let path = daemon.dir().join("base.gguf");
    let quantized = json!({ "model": "x", "files": [{ "path": path }], "quantize": "Q4_K_M" });
    refused(ask(quantized), ErrorKind::InvalidParams);
    assert_eq!(n_models(&daemon), 0);
}

#[test]
fn uploaded_files_have_their_places_in_a_folder() {
    let daemon = start();
    let bert = models::all().into_iter().find(|model| model.name == "bert").unwrap();
    let folder = daemon.dir().join("bert");
    bert.write(&folder);
    let mut files = Vec::new();
    let mut folders = vec![(folder, String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                folders.push((path, format!("{name}/")));
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let digest = digest(&bytes);
            assert_eq!(blob(&daemon, "POST", &digest, bytes.len(), &bytes), Some(201), "{name}");
            files.push(CreateFile::Blob(UploadedFile { name, digest }));
        }
    }
    let params = CreateParams { model: "bert".into(), files, ..CreateParams::default() };
    let created = daemon.client().call::<ModelCreate>(&params).unwrap();
    create(&daemon, "bert-again", "FROM ./bert").ok();
    assert_eq!(created.name, "bert:latest");
    let shown = show(&daemon, "bert");
    assert_eq!(shown.capabilities, ["embedding"]);
    assert_eq!(shown.parameters, show(&daemon, "bert-again").parameters);
}

#[test]
fn how_far_it_is_never_goes_down_and_a_cancel_leaves_nothing() {
    let daemon = start();
    // Copying it takes longer than the cancel, on any disk.
    let big = daemon.dir().join("big.gguf");
    fs::copy(daemon.dir().join("base.gguf"), &big).unwrap();
    File::options().write(true).open(&big).unwrap().set_len(256 << 20).unwrap();
    let params = CreateParams {
        model: "big".into(),
        files: vec![CreateFile::Path(big.to_str().unwrap().into())],
        mode: ImportMode::Copy,
        request: Some("mine".into()),
        ..CreateParams::default()
    };
    let mut client = daemon.client();
    let canceller = client.canceller().unwrap();
    let mut stream = client.stream::<ModelCreate>(&params).unwrap();
    let mut last = (String::new(), 0.0);
    let error = loop {
        match stream.next_event().unwrap().unwrap() {
            ProgressEvent::Accepted { request } => assert_eq!(request, "mine"),
            ProgressEvent::Progress { stage, fraction } => {
                assert!(stage != last.0 || fraction >= last.1, "{stage} {fraction} after {last:?}");
                if stage == "copying big.gguf" && fraction > 0.0 {
                    canceller.cancel("mine").unwrap();
                }
                last = (stage, fraction);
            }
            ProgressEvent::Done { reply } => panic!("it was made: {reply:?}"),
            ProgressEvent::Error { error } => break error,
        }
    };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    daemon.await_idle();
    hearth_tests::eventually_is("no file to be left", || n_blobs(&daemon) == 0);
    assert_eq!(n_models(&daemon), 0);
}

#[test]
fn a_models_options_hold_from_its_load_on() {
    let daemon = TestDaemon::builder().config("[engine]\ncontext = 128").start();
    reference_model(daemon.dir(), "base", &[("eos_one_in", 0.into())]);
    create(&daemon, "small", "FROM ./base.gguf\nPARAMETER num_ctx 64\nPARAMETER seed 5").ok();
    create(&daemon, "large", "FROM ./base.gguf\nPARAMETER num_ctx 1000").ok();
    let ran = |model: &str| -> Value {
        let params = json!({ "model": model, "prompt": "once" }).to_string();
        daemon.ctl(["rpc", "generate", &params]).json()
    };
    let tokens = |reply: &Value| {
        let count = |name: &str| reply["usage"][name].as_u64().unwrap();
        count("prompt_tokens") + count("completion_tokens")
    };
    let first = ran("small");
    assert_eq!(tokens(&first), 64, "{first}");
    assert_eq!(ran("small")["text"], first["text"]);
    let large = ran("large");
    assert!(tokens(&large) > 900, "{large}");
}

#[test]
fn on_a_terminal_it_ends_with_what_to_do_next() {
    let daemon = start();
    fs::write(daemon.dir().join("Modelfile"), RICH).unwrap();
    let mut command = daemon.command(ctl_path());
    command.args(["create", "mine"]).env("TERM", "xterm-256color");
    let mut terminal = Terminal::start(&mut command, 100);
    assert_eq!(terminal.await_end().code(), Some(0));
    terminal.await_text("`mine:latest` created, ");
    assert_eq!(terminal.rows().len(), 1, "{:?}", terminal.rows());
    let ran = daemon.ctl(["create", "mine", "--json"]);
    assert_eq!(ran.json()["name"], "mine:latest");
}
