//! `ctl import FILE [NAME]`: bring a GGUF file, a folder of a model's files, or a model of an OCI layout into the store.
//!
//! The daemon reads the files itself, so it gets an absolute path; links in it are left for the daemon to follow. A file that it
//! cannot open, such as one in a person's home, is sent to it. What a folder of files has beside the weights, such as a
//! projector, becomes part of the model, as by `FROM` in a Modelfile.

use super::{Context, create, progress};
use crate::args::ImportModeArgs;
use crate::error::CtlError;
use crate::session::Session;
use hearth_protocol::{
    CreateFile, CreateParams, Created, ErrorKind, ImportMode, ImportParams, Imported, ModelImport,
};
use serde_json::{Value, json};
use std::path::Path;

/// How a file came into the store that the daemon cannot open.
const SENT: &str = "sent";

pub(super) fn run(
    context: &Context,
    file: &Path,
    name: Option<String>,
    mode: &ImportModeArgs,
) -> Result<(), CtlError> {
    let path = absolute(file)?;
    let is_layout = file.join("index.json").exists();
    // A layout says itself what its model is called.
    let name = if is_layout { name } else { name.or_else(|| name_from_file(Path::new(&path))) };
    if name.is_none() && !is_layout {
        return Err(CtlError::usage(
            format!("no name for the model can be made from `{}`", file.display()),
            "give one after the file: `ctl import FILE NAME`",
        ));
    }
    if let (Some(model), true) = (&name, file.is_dir() && !is_layout) {
        let files = vec![CreateFile::Path(path)];
        let (model, mode) = (model.clone(), mode.mode());
        let params = CreateParams { model, files, mode, ..CreateParams::default() };
        return create::create(context, params);
    }
    let mut session = context.connect()?;
    let params = ImportParams { path: path.clone(), name, mode: mode.mode(), request: None };
    let imported = progress::watch::<ModelImport>(context, &mut session, &params);
    let may_send = file.is_file() && matches!(params.mode, ImportMode::Auto | ImportMode::Copy);
    let reply = match (imported, params.name) {
        (Err(CtlError::Rpc { error, .. }), Some(model))
            if may_send && error.kind() == Some(ErrorKind::FileUnreadable) =>
        {
            send(context, &mut session, model, path.clone())?
        }
        (imported, _) => imported?,
    };
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let imported: Imported = session.read(reply)?;
    let how = match imported.how.as_str() {
        "copy" => "copied into the store".into(),
        "reflink" => "in the store, sharing the file's blocks".into(),
        "link" => format!("linked; it breaks if `{path}` is moved or changed"),
        SENT => "sent to the daemon, which cannot open it".into(),
        "present" => "the store had its bytes already".into(),
        other => format!("done by `{other}`"),
    };
    context.out.line(&format!("`{}` imported: {how}", imported.name))
}

/// The reply is as an import's.
fn send(
    context: &Context,
    session: &mut Session,
    model: String,
    path: String,
) -> Result<Value, CtlError> {
    let files = vec![CreateFile::Path(path)];
    let params = CreateParams { model, files, ..CreateParams::default() };
    let reply = create::made(context, session, params)?;
    let Created { name, id, .. } = session.read(reply)?;
    Ok(json!({ "name": name, "id": id, "how": SENT }))
}

/// A path that the daemon, which has another working directory, can open.
pub(super) fn absolute(file: &Path) -> Result<String, CtlError> {
    let absolute = std::path::absolute(file).map_err(|error| {
        CtlError::usage(
            format!("`{}` cannot be made an absolute path: {error}", file.display()),
            "give the path of a file",
        )
    })?;
    absolute.into_os_string().into_string().map_err(|_| {
        CtlError::usage(
            format!("the path `{}` is not UTF-8, and the wire carries only that", file.display()),
            "rename the file, or name it through a link with a plain name",
        )
    })
}

/// The file's name in lower case without `.gguf`; whatever no model's name may hold becomes `-`.
pub fn name_from_file(path: &Path) -> Option<String> {
    let file_name = path.file_name()?.to_str()?.to_lowercase();
    let stem = file_name.strip_suffix(".gguf").unwrap_or(&file_name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '-', '_']);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files() {
        let name = |path: &str| name_from_file(Path::new(path));
        assert_eq!(
            name("/m/SmolLM2-135M-Instruct.Q4_1.gguf").as_deref(),
            Some("smollm2-135m-instruct.q4_1")
        );
        assert_eq!(name("/m/My model (1).GGUF").as_deref(), Some("my-model--1-"));
        assert_eq!(name("/m/.hidden.gguf").as_deref(), Some("hidden"));
        assert_eq!(name("/m/.gguf"), None);
        assert_eq!(name("/"), None);
    }
}
