//! Errors about files say what to do next.

use crate::create::blob;
use hearth_protocol::{CreateFile, CreateParams, ErrorKind, ModelCreate, UploadedFile};
use hearth_tests::{TestDaemon, digest, refused};

#[test]
fn a_file_that_is_not_there_has_a_hint() {
    let daemon = TestDaemon::start();
    let path = daemon.dir().join("none.gguf").display().to_string();
    let ran = daemon.ctl(["import", &path, "m"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(&format!("error: the daemon cannot open `{path}`")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("hint: check with `ls -l {path}`")), "{ran:?}");
}

#[test]
fn uploaded_files_that_cannot_lie_in_one_folder_have_a_hint() {
    let daemon = TestDaemon::start();
    let digest = digest(b"x");
    assert_eq!(blob(&daemon, "POST", &digest, 1, b"x"), Some(201));
    // A file cannot be a folder as well.
    let files = ["a.safetensors", "a.safetensors/config.json"].map(|name| {
        CreateFile::Blob(UploadedFile { name: name.to_owned(), digest: digest.clone() })
    });
    let params = CreateParams { model: "m".into(), files: files.into(), ..CreateParams::default() };
    let error = refused(daemon.client().call::<ModelCreate>(&params), ErrorKind::Io);
    assert!(error.message.contains("a.safetensors/config.json"), "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}
