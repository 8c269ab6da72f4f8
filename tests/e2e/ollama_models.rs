//! Ollama's own API: the models in the store and in memory, embeddings, and who may ask.

use crate::ollama::{TCP, ask, done, failed, lines, post, start};
use crate::pull::noise;
use hearth_tests::{
    Registry, TestDaemon, WebMessage, WebReply, WebRequest, digest, reference_model, web_ask,
};
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, SystemTime};

#[track_caller]
fn get(daemon: &TestDaemon, path: &str) -> Value {
    let reply = ask(daemon, "GET", path, "");
    assert_eq!(reply.status, 200);
    serde_json::from_slice(&reply.message.body).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    let models = list["models"].as_array().unwrap();
    assert!(models.iter().all(|model| model["name"] == model["model"]));
    models.iter().map(|model| model["name"].as_str().unwrap()).collect()
}

#[test]
fn whether_it_runs_is_a_text_and_head_works_where_get_does() {
    let daemon = start();
    let reply = ask(&daemon, "GET", "/", "");
    assert_eq!((reply.status, &*reply.message.body), (200, &b"Ollama is running"[..]));
    for path in ["/", "/api/version", "/api/tags", "/api/ps"] {
        let reply = ask(&daemon, "HEAD", path, "");
        assert_eq!((reply.status, reply.message.body.len()), (200, 0), "{path}");
    }
    let version = get(&daemon, "/api/version");
    assert_eq!(version["version"].as_str().unwrap().split('.').count(), 3, "{version}");
    assert_eq!(get(&daemon, "/api/status")["cloud"]["disabled"], true);
    assert_eq!(get(&daemon, "/api/tags"), json!({ "models": [] }));
    assert_eq!(get(&daemon, "/api/ps"), json!({ "models": [] }));
}

#[test]
fn tags_are_newest_first_with_their_details() {
    let daemon = start();
    for (name, hours) in [("b", 2), ("c", 3), ("a", 1)] {
        daemon.model(name, &[]);
        let manifests = daemon.dir().join("models/manifests/registry.ollama.ai/library");
        let manifest = File::open(manifests.join(name).join("latest")).unwrap();
        let before = Duration::from_secs(hours * 3600);
        manifest.set_modified(SystemTime::now() - before).unwrap();
    }
    let list = get(&daemon, "/api/tags");
    assert_eq!(names(&list), ["a:latest", "b:latest", "c:latest"]);
    let model = &list["models"][0];
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    assert!(model["size"].as_u64().unwrap() > 0 && model["modified_at"].is_string());
    assert_eq!(model["details"]["format"], "gguf");
    assert!(model["details"]["families"].is_array());
}

#[test]
fn what_is_loaded_is_listed_with_the_longest_time_left_first() {
    let daemon = start();
    for (name, seed, keep_alive) in
        [("a", 1, json!("1m")), ("b", 2, json!(-1)), ("c", 3, json!(3600))]
    {
        daemon.model(name, &[("seed", seed.into())]);
        post(&daemon, "/api/generate", &json!({ "model": name, "keep_alive": keep_alive }));
    }
    let list = get(&daemon, "/api/ps");
    assert_eq!(names(&list), ["b:latest", "c:latest", "a:latest"]);
    for model in list["models"].as_array().unwrap() {
        assert!(model["context_length"].as_u64().unwrap() > 0 && model["size_vram"].is_u64());
    }
    // For ever is a time so far away that clients say so.
    assert!(list["models"][0]["expires_at"].as_str().unwrap() > "2300");
}

#[test]
fn a_model_is_shown_with_its_modelfile_its_parameters_and_typed_metadata() {
    let daemon = start();
    daemon.model("m", &[]);
    daemon.add_layers(
        "m",
        &[
            ("template", "{{ .Tools }}{{ .Suffix }}{{ .Prompt }}"),
            ("system", "Be brief."),
            ("license", "as you like"),
            ("params", r#"{"stop": ["<a>", "<b>"], "num_ctx": 512}"#),
        ],
    );
    for body in [json!({ "model": "m" }), json!({ "name": "m", "verbose": true })] {
        let shown = done(&daemon, "/api/show", body);
        assert!(shown["modelfile"].as_str().unwrap().contains("SYSTEM"), "{shown}");
        let parameters: Vec<_> = shown["parameters"]
            .as_str()
            .unwrap()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(parameters, ["stop \"<a>\"", "stop \"<b>\"", "num_ctx 512"]);
        assert_eq!(shown["system"], "Be brief.");
        assert_eq!(shown["license"], "as you like");
        assert_eq!(shown["template"], "{{ .Tools }}{{ .Suffix }}{{ .Prompt }}");
        assert_eq!(shown["capabilities"], json!(["completion", "tools", "insert"]));
        let info = &shown["model_info"];
        assert_eq!(info["general.architecture"], "hearth-reference");
        assert!(info["hearth-reference.context_length"].is_u64(), "{info}");
        assert!(info["general.parameter_count"].is_u64(), "{info}");
        assert_eq!(shown["details"]["parent_model"], "");
        assert_eq!(shown["details"]["context_length"], info["hearth-reference.context_length"]);
    }
    // What is shown can be that of the request.
    let shown = done(
        &daemon,
        "/api/show",
        json!({ "model": "m", "system": "Be long.", "template": "{{ .Prompt }}" }),
    );
    assert_eq!(
        (&shown["system"], &shown["template"]),
        (&json!("Be long."), &json!("{{ .Prompt }}"))
    );
}

#[test]
fn a_text_that_looks_like_a_number_is_shown_as_the_text_it_is() {
    let daemon = start();
    daemon.model("m", &[("script", "42".into()), ("seed", 7.into()), ("can_embed", false.into())]);
    for verbose in [false, true] {
        let shown = done(&daemon, "/api/show", json!({ "model": "m", "verbose": verbose }));
        let info = &shown["model_info"];
        assert_eq!(info["hearth-reference.script"], "42");
        assert_eq!(info["hearth-reference.seed"], 7);
        assert_eq!(info["hearth-reference.can_embed"], false);
        assert_eq!(shown["tensors"].is_array(), verbose);
    }
}

#[test]
fn models_are_copied_and_deleted() {
    let daemon = start();
    daemon.model("m", &[]);
    let copy = |source: &str, destination: &str| {
        let body = json!({ "source": source, "destination": destination }).to_string();
        let reply = ask(&daemon, "POST", "/api/copy", &body);
        (reply.status, String::from_utf8(reply.message.body).unwrap())
    };
    assert_eq!(copy("m", "me/other:1"), (200, String::new()));
    assert_eq!(copy("none", "x").0, 404);
    assert!(copy("none", "x").1.contains("model 'none' not found"));
    assert_eq!(copy("m", "a b").0, 400);
    let delete = |body: Value| {
        let reply = ask(&daemon, "DELETE", "/api/delete", &body.to_string());
        (reply.status, String::from_utf8(reply.message.body).unwrap())
    };
    assert_eq!(names(&get(&daemon, "/api/tags")).len(), 2);
    assert_eq!(delete(json!({ "model": "me/other:1" })), (200, String::new()));
    assert_eq!(delete(json!({ "name": "m" })), (200, String::new()));
    let (status, text) = delete(json!({ "model": "m" }));
    assert!(status == 404 && text.contains("model 'm' not found"), "{text}");
    assert_eq!(delete(json!({})).0, 400);
    assert_eq!(get(&daemon, "/api/tags"), json!({ "models": [] }));
}

fn blob(daemon: &TestDaemon, method: &str, digest: &str, bytes: &[u8]) -> WebReply {
    let message = WebMessage { body: bytes.into(), ..WebMessage::default() };
    let path = format!("/api/blobs/{digest}");
    web_ask(&daemon.http(), &WebRequest { method: method.into(), path, message })
}

#[test]
fn an_uploaded_file_becomes_a_model_and_a_model_another() {
    let daemon = start();
    let path = reference_model(daemon.dir(), "m", &[("script", "Ahoy.".into())]);
    let bytes = std::fs::read(path).unwrap();
    let digest = digest(&bytes);
    assert_eq!(blob(&daemon, "HEAD", &digest, b"").status, 404);
    assert_eq!(blob(&daemon, "HEAD", "sha256:12", b"").status, 400);
    let reply = blob(&daemon, "POST", &digest, b"something else");
    assert_eq!(reply.status, 400);
    let error: Value = serde_json::from_slice(&reply.message.body).unwrap();
    assert!(error["error"].is_string(), "{error}");
    assert_eq!(blob(&daemon, "POST", &digest, &bytes).status, 201);
    assert_eq!(blob(&daemon, "POST", &digest, &bytes).status, 200);
    assert_eq!(blob(&daemon, "HEAD", &digest, b"").status, 200);

    let said =
        lines(&daemon, "/api/create", &json!({ "model": "m", "files": { "m.gguf": digest } }));
    assert!(said.iter().all(|line| line["status"].is_string()), "{said:?}");
    assert_eq!(*said.last().unwrap(), json!({ "status": "success" }));
    let from = json!({
        "model": "pirate", "from": "m", "system": "Be a pirate.", "license": ["a", "b"],
        "template": "{{ .System }} {{ .Prompt }}<|assistant|>", "parameters": { "num_predict": 3, "temperature": 0 },
        "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "ho" }],
    });
    assert_eq!(done(&daemon, "/api/create", from), json!({ "status": "success" }));
    let shown = done(&daemon, "/api/show", json!({ "model": "pirate" }));
    assert_eq!(shown["system"], "Be a pirate.");
    assert!(shown["modelfile"].as_str().unwrap().contains("MESSAGE assistant"), "{shown}");
    let said = done(&daemon, "/api/generate", json!({ "model": "pirate", "prompt": "hi" }));
    assert_eq!(said["response"], "Aho");

    for (body, status) in [
        (json!({ "model": "x" }), 400),
        (json!({ "model": "x", "from": "m", "parameters": { "temprature": 1 } }), 400),
        (json!({ "model": "x", "files": { "m.gguf": digest.replace('a', "b") } }), 400),
    ] {
        failed(&daemon, "/api/create", &body, status);
    }
}

#[test]
fn pulls_and_pushes_say_how_far_they_are() {
    let (registry, other) = (Registry::start(), Registry::start());
    let weights = noise(1 << 20);
    registry.push("library/m", &[("model", &weights), ("license", b"as you like")]);
    let daemon = start();
    let name = format!("{}/library/m", registry.host());
    // Old clients' fields are ignored.
    let pull = json!({ "model": name, "insecure": true, "username": "u", "password": "p" });
    let said = lines(&daemon, "/api/pull", &pull);
    let statuses: Vec<_> = said.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses[0], "pulling manifest");
    let ends = ["verifying sha256 digest", "writing manifest", "success"];
    assert_eq!(statuses[statuses.len() - 3..], ends);
    let digest = digest(&weights);
    let of_weights: Vec<_> = said.iter().filter(|line| line["digest"] == digest).collect();
    let last = of_weights.last().unwrap();
    assert_eq!(last["status"], format!("pulling {}", &digest[7..19]));
    assert_eq!((&last["total"], &last["completed"]), (&json!(1 << 20), &json!(1 << 20)));
    assert_eq!(done(&daemon, "/api/pull", pull), json!({ "status": "success" }));

    let copied = format!("{}/library/m", other.host());
    done_copy(&daemon, &name, &copied);
    let said = lines(&daemon, "/api/push", &json!({ "model": copied, "insecure": true }));
    assert_eq!(said[0]["status"], "retrieving manifest");
    assert_eq!(*said.last().unwrap(), json!({ "status": "success" }));
    assert!(other.blob_path(&weights).exists());

    let none = json!({ "model": format!("{}/library/none", registry.host()), "insecure": true });
    assert!(failed(&daemon, "/api/pull", &none, 404).contains("not found"));
    assert!(failed(&daemon, "/api/push", &json!({ "model": "none" }), 404).contains("not found"));
}

fn done_copy(daemon: &TestDaemon, source: &str, destination: &str) {
    let body = json!({ "source": source, "destination": destination }).to_string();
    assert_eq!(ask(daemon, "POST", "/api/copy", &body).status, 200);
}

#[test]
fn embeddings_have_length_1_and_the_old_ones_have_not() {
    let daemon = start();
    daemon.model("m", &[("embedding_length", 8.into()), ("can_embed", true.into())]);
    let embed = |input: Value| done(&daemon, "/api/embed", json!({ "model": "m", "input": input }));
    let numbers = |list: &Value| -> Vec<f64> {
        list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let length = |list: &[f64]| list.iter().map(|x| x * x).sum::<f64>().sqrt();
    let two = embed(json!(["one", "two"]));
    assert_eq!(two["embeddings"].as_array().unwrap().len(), 2);
    assert_eq!(two["embeddings"][0], embed(json!("one"))["embeddings"][0]);
    assert!((length(&numbers(&two["embeddings"][0])) - 1.0).abs() < 1e-5);
    assert!(two["prompt_eval_count"].as_u64().unwrap() >= 6 && two["total_duration"].is_u64());
    let body = json!({ "model": "m", "input": "one", "dimensions": 3 });
    let short = numbers(&done(&daemon, "/api/embed", body)["embeddings"][0]);
    assert!(short.len() == 3 && (length(&short) - 1.0).abs() < 1e-5, "{short:?}");
    for nothing in [json!(""), json!([]), Value::Null] {
        assert_eq!(embed(nothing)["embeddings"], json!([]));
    }
    for wrong in [json!(5), json!({}), json!(["a", 5])] {
        let body = json!({ "model": "m", "input": wrong });
        assert_eq!(failed(&daemon, "/api/embed", &body, 400), "invalid input type");
    }
    let old = done(&daemon, "/api/embeddings", json!({ "model": "m", "prompt": "one" }));
    let old = numbers(&old["embedding"]);
    let (unit, old_length) = (numbers(&two["embeddings"][0]), length(&old));
    assert!(unit.iter().zip(&old).all(|(unit, old)| (unit * old_length - old).abs() < 1e-4));
    let nothing = done(&daemon, "/api/embeddings", json!({ "model": "m" }));
    assert_eq!(nothing, json!({ "embedding": [] }));
}

#[track_caller]
fn with(daemon: &TestDaemon, method: &str, headers: &[(&str, &str)]) -> WebReply {
    let pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let message = WebMessage { headers: pairs.collect(), body: Vec::new() };
    web_ask(
        &daemon.http(),
        &WebRequest { method: method.into(), path: "/api/tags".into(), message },
    )
}

#[test]
fn pages_of_this_machine_may_ask_and_others_may_not() {
    let daemon = start();
    let local = "http://localhost:3000";
    let reply = with(&daemon, "GET", &[("origin", local)]);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.message.headers["access-control-allow-origin"], local);
    assert_eq!(reply.message.headers["vary"], "Origin");
    let wanted = "authorization, content-type";
    let preflight = [
        ("origin", local),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", wanted),
    ];
    let reply = with(&daemon, "OPTIONS", &preflight);
    assert_eq!(reply.status, 204);
    let headers = &reply.message.headers;
    assert_eq!(headers["access-control-allow-origin"], local);
    assert_eq!(headers["access-control-allow-headers"], wanted);
    assert!(headers["access-control-allow-methods"].contains("DELETE"));

    for method in ["GET", "POST", "OPTIONS"] {
        let reply = with(&daemon, method, &[("origin", "https://evil.example")]);
        assert_eq!(reply.status, 403);
        assert!(!reply.message.headers.contains_key("access-control-allow-origin"));
        let error: Value = serde_json::from_slice(&reply.message.body).unwrap();
        assert!(error["error"].as_str().unwrap().contains("OLLAMA_ORIGINS"), "{error}");
    }
    let known =
        TestDaemon::builder().config(TCP).env("OLLAMA_ORIGINS", "https://chat.example").start();
    assert_eq!(with(&known, "GET", &[("origin", "https://chat.example")]).status, 200);
    assert_eq!(with(&known, "GET", &[("origin", "https://evil.example")]).status, 403);
}

#[test]
fn a_host_that_is_no_name_of_this_machine_is_refused() {
    let daemon = start();
    let status = |host: &str| {
        let request =
            format!("GET /api/tags HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(daemon.http()).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for host in ["localhost:11434", "127.0.0.1", "box.local", "host.docker.internal:11434"] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example"] {
        assert_eq!(status(host), 403, "{host}");
    }
}

#[test]
fn other_machines_are_let_in_by_keys_or_not_at_all() {
    let ran = TestDaemon::builder().config("[http]\nlisten = [\"0.0.0.0:0\"]").run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("can be reached from other machines"), "{ran:?}");
    assert!(ran.stderr.contains("hint: name a file with keys in `http.keys`"), "{ran:?}");
}

#[test]
fn a_status_tells_where_http_is_spoken() {
    let daemon = start();
    assert!(daemon.ctl(["status"]).ok().contains(&daemon.http()));
    let silent = TestDaemon::start();
    assert!(silent.status().http.is_empty());
}
