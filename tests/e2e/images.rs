//! Images in chats and completions, by every dialect: what they change, what they cost, and those that cannot be read.

use hearth_protocol::Role;
use hearth_protocol::{ChatSend, ErrorKind, Generate, Image, ModelParams, ModelShow};
use hearth_reference::write_projector;
use hearth_tests::{
    HttpReply, TestDaemon, WebReply, WebServer, chat, follow, follow_generate, generate, http,
    message, reference_model, refused,
};
use serde_json::{Value, json};
use std::io::Write;

/// Four red pixels.
const RED: &str = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR42mM4wSUCRAwQCgAcBgOZOoSIlgAAAABJRU5ErkJggg==";
/// Ten blue ones, five in a row.
const BLUE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAACCAIAAAAfCIEKAAAAEElEQVR42mPgEjmBjBjQ+ACIdAj96E5F0AAAAABJRU5ErkJggg==";
/// A few bytes that say they are 900 million pixels.
const BOMB: &str =
    "iVBORw0KGgoAAAANSUhEUgAAdTAAAHUwCAIAAADpRW/tAAAADElEQVR42mNgYGAAAAAEAAHI6uv5AAAAAElFTkSuQmCC";

const MISSING: &str = "this model is missing data required for image input";

/// With a model `sees`, which has a projector, and one, `blind`, which has none.
fn start_with(config: &str) -> TestDaemon {
    let daemon = TestDaemon::builder().config(config).start();
    let settings = [("eos_one_in", 0.into()), ("context_length", 1024.into())];
    reference_model(daemon.dir(), "model", &settings);
    write_projector(&daemon.dir().join("projector.gguf"), 5).unwrap();
    let modelfile = "FROM ./model.gguf\nFROM ./projector.gguf\n";
    daemon.ctl_with_stdin(["create", "sees", "-f", "-"], modelfile).ok();
    daemon.model("blind", &settings);
    daemon
}

fn start() -> TestDaemon {
    start_with("")
}

fn image(data: &str) -> Image {
    Image(data.into())
}

#[test]
fn an_answer_depends_on_the_image_and_the_next_turn_computes_none_again() {
    let daemon = start();
    let mut client = daemon.client();
    let mut asking = |data: Option<&str>| {
        let mut params = chat("sees", "What is it?");
        params.options.max_tokens = Some(12);
        params.messages[0].images.extend(data.map(image));
        let told = follow(&mut client, &params);
        (params, told.reply())
    };
    let (_, nothing) = asking(None);
    let (mut params, red) = asking(Some(RED));
    let (_, again) = asking(Some(RED));
    assert_eq!(again.message, red.message);
    assert_eq!(again.usage.cached_tokens, red.usage.prompt_tokens - 1);
    let (_, blue) = asking(Some(BLUE));
    assert_ne!(red.message.content, blue.message.content);
    assert_ne!(red.message.content, nothing.message.content);
    // `[`, at least five cells, `]`; a wide one has two spans.
    assert!(red.usage.prompt_tokens >= nothing.usage.prompt_tokens + 7, "{:?}", red.usage);
    assert!(blue.usage.prompt_tokens >= nothing.usage.prompt_tokens + 13, "{:?}", blue.usage);
    let (_, red) = asking(Some(RED));
    params.messages.extend([red.message, message(Role::User, "Sure?")]);
    let next = follow(&mut client, &params).reply();
    assert!(next.usage.cached_tokens > red.usage.prompt_tokens, "{:?}", next.usage);
}

#[test]
fn ctl_run_takes_images() {
    use base64::Engine as _;
    let daemon = start();
    let red = base64::prelude::BASE64_STANDARD.decode(RED).unwrap();
    std::fs::write(daemon.dir().join("red.png"), red).unwrap();
    let mut params = chat("sees", "What is it?");
    params.options.max_tokens = Some(9);
    params.messages[0].images.push(image(RED));
    let text = follow(&mut daemon.client(), &params).text;
    let options = ["--temperature", "0", "--max-tokens", "9", "--no-think"];
    let run = ["run", "sees", "What is it?", "--image", "red.png"];
    let said = daemon.ctl(run.into_iter().chain(options)).ok();
    assert_eq!(said.trim_end_matches('\n'), text);
    assert!(daemon.ctl(["run", "sees", "a", "--image", "none.png"]).stderr.contains("none.png"));
}

#[test]
fn an_image_stands_where_the_text_says() {
    let daemon = start();
    let mut client = daemon.client();
    let mut answers = Vec::new();
    for text in ["[img]ab", "ab", "a[img]b", "ab[img]"] {
        let mut params = chat("sees", text);
        params.options.max_tokens = Some(20);
        params.messages[0].images.push(image(RED));
        answers.push(follow(&mut client, &params).text);
    }
    assert_eq!(answers[0], answers[1], "unless it says something, before the text");
    assert!(answers[1] != answers[2] && answers[2] != answers[3] && answers[1] != answers[3]);
}

#[test]
fn a_plain_prompt_has_images_too_but_not_at_its_end() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = generate("sees", "It shows");
    params.options.max_tokens = Some(12);
    let nothing = follow_generate(&mut client, &params).reply();
    params.images.push(image(RED));
    let red = follow_generate(&mut client, &params).reply();
    assert_ne!(red.text, nothing.text);
    assert!(red.usage.prompt_tokens > nothing.usage.prompt_tokens);
    // The reference's images end with a token of their own, so the prompt's end is not an image's.
    params.prompt.clear();
    follow_generate(&mut client, &params).reply();
}

#[test]
fn a_model_that_was_not_made_to_see_says_so_and_still_writes() {
    let daemon = start();
    let shown = |model: &str| {
        let params = ModelParams { model: model.into() };
        daemon.client().call::<ModelShow>(&params).unwrap().capabilities
    };
    assert!(shown("sees").contains(&"vision".into()) && !shown("blind").contains(&"vision".into()));
    let mut params = chat("blind", "What is it?");
    params.messages[0].images.push(image(RED));
    let error = refused(daemon.client().call::<ChatSend>(&params), ErrorKind::Unsupported);
    assert_eq!(error.message, MISSING);
    params.messages[0].images.clear();
    follow(&mut daemon.client(), &params).reply();
    // A projector that is none is no reason not to load the weights.
    daemon.add_layers("blind", &[("projector", "GGUF, or not")]);
    daemon.ctl(["stop", "blind"]).ok();
    follow(&mut daemon.client(), &params).reply();
    params.messages[0].images.push(image(RED));
    let error = refused(daemon.client().call::<ChatSend>(&params), ErrorKind::Unsupported);
    assert!(error.hint().unwrap().contains("its projector cannot be used"), "{error:?}");
    assert!(daemon.log().contains("the model cannot see"));
}

#[test]
fn what_is_no_image_or_too_much_of_one_is_refused_and_harms_nobody() {
    let daemon = start();
    let whole = RED;
    let cut = &RED[..RED.len() / 2];
    for (data, kind) in [
        ("not base64!", ErrorKind::InvalidParams),
        ("aGVsbG8=", ErrorKind::InvalidParams),
        ("", ErrorKind::InvalidParams),
        (cut, ErrorKind::InvalidParams),
        (BOMB, ErrorKind::TooLarge),
    ] {
        let mut params = generate("sees", "a");
        params.options.max_tokens = Some(2);
        params.images.push(image(data));
        refused(daemon.client().call::<Generate>(&params), kind);
    }
    let mut params = generate("sees", "a");
    params.options.max_tokens = Some(2);
    params.images = vec![image(whole); 33];
    refused(daemon.client().call::<Generate>(&params), ErrorKind::TooLarge);
    params.images.pop();
    follow_generate(&mut daemon.client(), &params).reply();
    assert!(!daemon.log().contains(&RED[40..80]), "the log has an image");
}

#[track_caller]
fn post(daemon: &TestDaemon, path: &str, body: &Value) -> HttpReply {
    http(&daemon.socket(), "POST", path, &body.to_string())
}

/// What each dialect answers, or the error's text, to an image that it is given as a value of its own.
fn ask_all(daemon: &TestDaemon, openai: Value, anthropic: Value) -> [Result<String, String>; 2] {
    let said = |parts: Value| json!([{ "role": "user", "content": parts }]);
    let text = json!({ "type": "text", "text": "What is it?" });
    let openai = said(json!([{ "type": "image_url", "image_url": openai }, text]));
    let openai = json!({ "model": "sees", "messages": openai, "temperature": 0, "max_tokens": 9 });
    let anthropic = said(json!([{ "type": "image", "source": anthropic }, text]));
    let anthropic =
        json!({ "model": "sees", "messages": anthropic, "temperature": 0, "max_tokens": 9 });
    let asked = [
        ("/v1/chat/completions", openai, "/choices/0/message/content"),
        ("/v1/messages", anthropic, "/content/0/text"),
    ];
    asked.map(|(path, body, field)| {
        let reply = post(daemon, path, &body);
        let text = |field| reply.body.pointer(field).and_then(Value::as_str).map(String::from);
        match reply.status {
            200 => Ok(text(field).unwrap()),
            _ => Err(text("/error/message").unwrap()),
        }
    })
}

#[test]
fn every_dialect_says_the_same_of_the_same_image() {
    let daemon = start();
    let mut params = chat("sees", "What is it?");
    params.options.max_tokens = Some(9);
    // As Anthropic's dialect does, unless it is asked to.
    params.messages[0].images.push(image(RED));
    let text = follow(&mut daemon.client(), &params).text;
    let source = json!({ "type": "base64", "media_type": "image/png", "data": RED });
    let url = format!("data:image/png;base64,{RED}");
    let answers = ask_all(&daemon, json!({ "url": url }), source);
    assert_eq!(answers, [Ok(text.clone()), Ok(text.clone())]);
    let seen = json!({ "type": "image_url", "image_url": { "url": url } });
    let content = json!([seen, { "type": "text", "text": "What is it?" }]);
    let messages = json!([{ "role": "user", "content": content }]);
    let asked = json!({ "model": "sees", "messages": messages, "_debug_render_only": true });
    let shown = post(&daemon, "/v1/chat/completions", &asked).body;
    let Some(prompt) = shown["_debug_info"]["rendered_template"].as_str() else {
        panic!("{shown}")
    };
    assert!(prompt.contains("[img]What is it?"), "{prompt}");
    assert_eq!(post(&daemon, "/apply-template", &asked).body, json!({ "prompt": prompt }));
    let options = json!({ "temperature": 0, "num_predict": 9 });
    let said = json!([{ "role": "user", "content": "What is it?", "images": [RED] }]);
    let chat = json!({ "model": "sees", "messages": said, "options": options, "stream": false });
    assert_eq!(post(&daemon, "/api/chat", &chat).body["message"]["content"], text);
    let generate = json!({
        "model": "sees", "prompt": "What is it?", "images": [RED], "options": options, "stream": false,
    });
    let reply = post(&daemon, "/api/generate", &generate).body;
    assert_eq!(reply["response"], text);
    // What goes back to the daemon has the words alone.
    assert!(reply["context"].as_array().unwrap().len() < 1000);
    let shown = post(&daemon, "/api/show", &json!({ "model": "sees" })).body;
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("vision")), "{shown}");
    let mut blind = chat;
    blind["model"] = "blind".into();
    let reply = post(&daemon, "/api/chat", &blind);
    assert_eq!(reply.status, 400);
    assert!(reply.body["error"].as_str().unwrap().starts_with(MISSING), "{}", reply.body);
}

/// Serves four red pixels, or more bytes than anybody wants.
fn server() -> WebServer {
    use base64::Engine as _;
    let red = base64::prelude::BASE64_STANDARD.decode(RED).unwrap();
    WebServer::start(move |request, stream| match request.path.as_str() {
        "/red.png" => {
            let reply = WebReply::new(200, red.clone());
            let _ = stream.write_all(reply.head(red.len()).as_bytes());
            let _ = stream.write_all(&red);
        }
        "/endless" => {
            let _ = stream.write_all(WebReply::new(200, "").head(1 << 40).as_bytes());
            while stream.write_all(&[0; 1 << 16]).is_ok() {}
        }
        _ => drop(stream.write_all(WebReply::new(404, "").head(0).as_bytes())),
    })
}

#[test]
fn images_by_url_are_fetched_where_the_configuration_lets_them() {
    let server = server();
    let ask = |daemon: &TestDaemon, path: &str| {
        let url = format!("http://{}{path}", server.host());
        ask_all(daemon, json!({ "url": url }), json!({ "type": "url", "url": url }))
    };
    let refuses = |daemon: &TestDaemon, path: &str, why: &str| {
        for answer in ask(daemon, path) {
            let error = answer.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    };
    refuses(&start(), "/red.png", "images by URL are not fetched here");
    let public = start_with("[http]\nimage_urls = \"public\"");
    refuses(&public, "/red.png", "is no URL with `https`");
    for url in ["https://127.0.0.1/red.png", "https://localhost/red.png"] {
        let [answer, _] = ask_all(&public, url.into(), json!({ "type": "url", "url": url }));
        assert!(answer.unwrap_err().contains("is not at a public address"));
    }
    let all = start_with("[http]\nimage_urls = \"all\"");
    let data = json!({ "type": "base64", "media_type": "image/png", "data": RED });
    let url = format!("data:image/png;base64,{RED}");
    assert_eq!(ask(&all, "/red.png"), ask_all(&all, json!({ "url": url }), data));
    refuses(&all, "/none.png", "404");
    refuses(&all, "/endless", "has more than");
}
