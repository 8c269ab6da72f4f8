//! `ctl create NAME [-f Modelfile]`: make a model of what a Modelfile says.
//!
//! Paths are understood here: from the Modelfile's folder, with `~` for a home. The daemon opens them; what it cannot open
//! is uploaded.

use super::{Context, progress};
use crate::args::ImportModeArgs;
use crate::error::CtlError;
use crate::format::bytes;
use crate::session::Session;
use crate::status_line::StatusLine;
use crate::upload::upload;
use hearth_protocol::{
    CreateFile, CreateParams, Created, ErrorKind, Instruction, Message, ModelCreate, Modelfile,
    Role,
};
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DELAY: Duration = Duration::from_millis(200);

pub(super) fn run(
    context: &Context,
    model: String,
    file: &Path,
    quantize: Option<String>,
    mode: &ImportModeArgs,
) -> Result<(), CtlError> {
    let (text, folder) = read(file)?;
    let modelfile = Modelfile::parse(&text).map_err(|error| {
        CtlError::usage(
            format!("`{}` cannot be used: {error}", file.display()),
            "`ctl show --modelfile MODEL` prints one",
        )
    })?;
    let mut params = params(modelfile, &folder)?;
    (params.model, params.quantize, params.mode) = (model, quantize, mode.mode());
    create(context, params)
}

pub(super) fn create(context: &Context, params: CreateParams) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = made(context, &mut session, params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let created: Created = session.read(reply)?;
    context.out.line(&format!(
        "`{}` created, {}; `ctl run {0}` runs it",
        created.name,
        bytes(created.size_bytes)
    ))
}

/// What the daemon cannot open is sent to it.
pub(super) fn made(
    context: &Context,
    session: &mut Session,
    mut params: CreateParams,
) -> Result<Value, CtlError> {
    let reply = progress::watch::<ModelCreate>(context, session, &params);
    match reply {
        Err(CtlError::Rpc { error, .. }) if error.kind() == Some(ErrorKind::FileUnreadable) => {
            upload_all(context, session, &mut params)?;
            progress::watch::<ModelCreate>(context, session, &params)
        }
        reply => reply,
    }
}

/// A Modelfile's bytes, and where its paths begin.
fn read(file: &Path) -> Result<(Vec<u8>, PathBuf), CtlError> {
    let cannot = |error: std::io::Error| {
        CtlError::usage(
            format!("cannot read `{}`: {error}", file.display()),
            "name the Modelfile with `--file`, or `-` for standard input",
        )
    };
    let here = std::env::current_dir().map_err(cannot)?;
    if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).map_err(cannot)?;
        return Ok((text, here));
    }
    let text = std::fs::read(file).map_err(cannot)?;
    Ok((text, here.join(file.parent().unwrap_or(Path::new("")))))
}

fn params(modelfile: Modelfile, folder: &Path) -> Result<CreateParams, CtlError> {
    let mut params = CreateParams::default();
    for command in modelfile.commands {
        match command {
            Instruction::From(from) => match local(&from, folder) {
                Some(path) => params.files.push(named(&path)?),
                None => {
                    if let Some(first) = params.from.replace(from.clone()) {
                        return Err(CtlError::usage(
                            format!("`FROM {first}` and `FROM {from}` name two models"),
                            "a model is made of one other, or of files; a path may begin with `./`",
                        ));
                    }
                }
            },
            Instruction::Adapter(path) => params.adapters.push(named(&expanded(&path, folder))?),
            Instruction::Draft(path) => params.draft = Some(named(&expanded(&path, folder))?),
            Instruction::Parameter { name, value } => {
                let value = Value::String(value);
                match params.parameters.get_mut(&name) {
                    Some(Value::Array(values)) => values.push(value),
                    _ if name == "stop" => {
                        params.parameters.insert(name, Value::Array(vec![value]));
                    }
                    _ => drop(params.parameters.insert(name, value)),
                }
            }
            Instruction::Template(text) => params.template = Some(text),
            Instruction::System(text) => params.system = Some(text),
            Instruction::License(text) => params.licenses.push(text),
            Instruction::Message { role, content } => {
                let role = match role.as_str() {
                    "system" => Role::System,
                    "user" => Role::User,
                    _ => Role::Assistant,
                };
                params.messages.push(Message::text(role, content));
            }
            Instruction::Renderer(name) => params.renderer = Some(name),
            Instruction::Parser(name) => params.parser = Some(name),
            Instruction::Requires(version) => params.requires = Some(version),
        }
    }
    Ok(params)
}

/// The path that `FROM` names, unless it names a model. As in Ollama what is there is meant, whatever else it may be.
fn local(from: &str, folder: &Path) -> Option<PathBuf> {
    let path = expanded(from, folder);
    let is_path = ["/", "./", "../", "~"].iter().any(|start| from.starts_with(start))
        || [".", ".."].contains(&from);
    (is_path || path.exists()).then_some(path)
}

fn expanded(text: &str, folder: &Path) -> PathBuf {
    if let Some(rest) = text.strip_prefix('~') {
        let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(home) = home(user) {
            return home.join(rest);
        }
    }
    folder.join(text)
}

fn home(user: &str) -> Option<PathBuf> {
    if user.is_empty() {
        return std::env::home_dir();
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let found = users.lines().map(fields).find(|fields| fields[0] == user)?;
    found.get(5).map(PathBuf::from)
}

/// Without `.` and `..` at its start, for the daemon and for people.
fn named(path: &Path) -> Result<CreateFile, CtlError> {
    let absolute = std::path::absolute(path).ok();
    match absolute.as_deref().and_then(Path::to_str) {
        Some(path) => Ok(CreateFile::Path(path.to_owned())),
        None => Err(CtlError::usage(
            format!("the path `{}` is not UTF-8, and the wire carries only that", path.display()),
            "rename the file, or name it by a link with a plain name",
        )),
    }
}

fn upload_all(
    context: &Context,
    session: &Session,
    params: &mut CreateParams,
) -> Result<(), CtlError> {
    let mut status = StatusLine::start(&context.out, DELAY, "sending what the daemon cannot open");
    let sent = |files: &[CreateFile]| -> Result<Vec<CreateFile>, CtlError> {
        let mut blobs = Vec::new();
        for file in files {
            match file {
                CreateFile::Path(path) => {
                    blobs.extend(upload(session, &status, Path::new(path))?);
                }
                blob @ CreateFile::Blob(_) => blobs.push(blob.clone()),
            }
        }
        Ok(blobs)
    };
    params.files = sent(&params.files)?;
    params.adapters = sent(&params.adapters)?;
    if let Some(draft) = params.draft.take() {
        params.draft = sent(&[draft])?.pop();
    }
    status.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str, folder: &Path) -> Result<CreateParams, CtlError> {
        params(Modelfile::parse(text.as_bytes()).unwrap(), folder)
    }

    #[test]
    fn a_modelfile_becomes_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::write(dir.join("here"), "").unwrap();
        let text = "FROM llama3:8b
FROM here
FROM ./not-here.gguf
ADAPTER lora
DRAFT ../draft.gguf
PARAMETER stop a
PARAMETER temperature 1
PARAMETER stop b
PARAMETER temperature 0.5
LICENSE one
LICENSE two
MESSAGE user hi
SYSTEM first
SYSTEM last";
        let params = read(text, dir).unwrap();
        assert_eq!(params.from.as_deref(), Some("llama3:8b"));
        let path = |name: &str| CreateFile::Path(dir.join(name).to_str().unwrap().to_owned());
        assert_eq!(params.files, [path("here"), path("not-here.gguf")]);
        assert_eq!(params.adapters, [path("lora")]);
        assert_eq!(params.draft, Some(path("../draft.gguf")));
        let parameters = json!({ "stop": ["a", "b"], "temperature": "0.5" });
        assert_eq!(Value::Object(params.parameters), parameters);
        assert_eq!(params.licenses, ["one", "two"]);
        assert_eq!(params.messages, [Message::text(Role::User, "hi")]);
        assert_eq!(params.system.as_deref(), Some("last"));
    }

    #[test]
    fn two_models_are_one_too_many() {
        assert!(read("FROM a\nFROM b", Path::new("/")).is_err());
    }

    #[test]
    fn a_home_is_found() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(expanded("~/m/x.gguf", Path::new("/f")), home.join("m/x.gguf"));
        assert_eq!(expanded("~root/x.gguf", Path::new("/f")), Path::new("/root/x.gguf"));
        assert_eq!(expanded("~nobody-here/x", Path::new("/f")), Path::new("/f/~nobody-here/x"));
        assert_eq!(local("~/m", Path::new("/f")), Some(home.join("m")));
        assert_eq!(local("m", Path::new("/f")), None);
    }
}
