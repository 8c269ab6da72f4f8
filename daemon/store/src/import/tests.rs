//! Imports as a person meets them: what is on disk afterwards, and after a cancel.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use hearth_gguf::testing::Writer;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("deep/models"));
        Self { dir, store }
    }

    fn source(&self, file_name: &str, writer: &Writer) -> PathBuf {
        let path = self.dir.path().join(file_name);
        fs::write(&path, writer.bytes()).unwrap();
        path
    }

    fn import(&self, source: &Path, name: &str, how: ImportMode) -> Result<Imported, StoreError> {
        import(&self.store, source, &name.parse().unwrap(), how, &mut |_| ControlFlow::Continue(()))
    }

    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect_files(self.store.dir(), &mut files);
        files.sort();
        files
    }
}

fn collect_files(dir: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().unwrap().is_dir() {
            collect_files(&entry.path(), files);
        } else {
            files.push(entry.file_name().into_string().unwrap());
        }
    }
}

#[test]
fn a_copied_model_lists_resolves_and_shows() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    let imported = fixture.import(&source, "tiny", ImportMode::Copy).unwrap();
    assert_eq!(imported.placed, Placed::Copied);
    assert_eq!(imported.model_digest, Digest::of(&Writer::model().bytes()));

    let list = fixture.store.list();
    assert!(list.problems.is_empty(), "{:?}", list.problems);
    let [entry] = &list.models[..] else { panic!("{list:?}") };
    assert_eq!(entry.name.to_string(), "tiny:latest");
    assert_eq!((entry.id, entry.size), (imported.id, imported.size));
    assert_eq!(entry.config.family, "llama");
    assert_eq!(entry.config.parameter_size, "261");
    assert_eq!(entry.config.quantization, "Q4_1");

    fs::remove_file(&source).unwrap();
    let resolved = fixture.store.resolve(&imported.name).unwrap();
    assert_eq!(fs::read(&resolved.model_path).unwrap(), Writer::model().bytes());
    assert_eq!(resolved.id, imported.id);
    let shown = fixture.store.show(&imported.name).unwrap();
    assert_eq!(shown.gguf, imported.summary);

    let manifest_path = fixture.store.catalog().path(&imported.name);
    assert!(manifest_path.ends_with("manifests/registry.ollama.ai/library/tiny/latest"));
    assert_eq!(Digest::of(&fs::read(manifest_path).unwrap()), imported.id);
    // Weights, config, manifest, and the store's lock.
    assert_eq!(fixture.files().len(), 4);
}

#[test]
fn modes_allow_all_to_read_as_ollamas_do() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    // The umask of whoever runs the tests can only take bits away.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
    let imported = fixture.import(&source, "tiny", ImportMode::Auto).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let blob = fixture.store.blobs().path(&imported.model_digest);
    assert_eq!(mode(&blob) | 0o044, 0o644);
    assert_eq!(mode(fixture.store.blobs().dir()) | 0o055, 0o755);
}

#[test]
fn auto_falls_back_to_a_copy_and_reflink_says_so() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    match fixture.import(&source, "tiny", ImportMode::Reflink) {
        Ok(imported) => assert_eq!(imported.placed, Placed::Reflinked),
        Err(error) => {
            assert_eq!(error.kind(), "no_reflink");
            assert!(fixture.files().is_empty());
            let imported = fixture.import(&source, "tiny", ImportMode::Auto).unwrap();
            assert_eq!(imported.placed, Placed::Copied);
        }
    }
    let tiny = fixture.store.resolve(&"tiny".parse().unwrap()).unwrap();
    assert_eq!(fs::read(tiny.model_path).unwrap(), Writer::model().bytes());
}

#[test]
fn a_linked_model_stays_where_it_is() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    let via = fixture.dir.path().join("via");
    std::os::unix::fs::symlink(&source, &via).unwrap();
    let imported = fixture.import(&via, "tiny", ImportMode::Link).unwrap();
    assert_eq!(imported.placed, Placed::Linked);
    let resolved = fixture.store.resolve(&imported.name).unwrap();
    assert_eq!(fs::read_link(&resolved.model_path).unwrap(), fs::canonicalize(&source).unwrap());

    let again = fixture.import(&source, "other", ImportMode::Link).unwrap();
    assert_eq!((again.placed, again.id), (Placed::Reused, imported.id));
    // Importing the link's own name does not make a link to itself.
    let again = fixture.import(&resolved.model_path, "third", ImportMode::Link).unwrap();
    assert_eq!(again.placed, Placed::Reused);
    assert!(fixture.store.resolve(&again.name).is_ok());
}

#[test]
fn a_file_that_is_not_read_is_named_by_what_can_be_seen_of_it() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    let unread = fixture.import(&source, "tiny", ImportMode::LinkUnread).unwrap();
    let read = fixture.import(&source, "read", ImportMode::Link).unwrap();
    assert_eq!((unread.placed, unread.size), (Placed::Linked, read.size));
    assert_ne!(unread.model_digest, read.model_digest);
    assert!(fixture.store.resolve(&unread.name).is_ok());
    let again = fixture.import(&source, "again", ImportMode::LinkUnread).unwrap();
    assert_eq!(again.model_digest, unread.model_digest);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    fs::File::open(&source).unwrap().set_modified(later).unwrap();
    let written = fixture.import(&source, "written", ImportMode::LinkUnread).unwrap();
    assert_ne!(written.model_digest, unread.model_digest);
}

#[test]
fn a_link_whose_target_changed_or_went_is_reported_by_resolve_alone() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    let imported = fixture.import(&source, "tiny", ImportMode::Link).unwrap();

    fs::OpenOptions::new().append(true).open(&source).unwrap().write_all(b"x").unwrap();
    let error = fixture.store.resolve(&imported.name).unwrap_err();
    assert_eq!(error.kind(), "blob_changed");
    assert!(error.hint().unwrap().contains("import"), "{error}");

    fs::remove_file(&source).unwrap();
    let error = fixture.store.resolve(&imported.name).unwrap_err();
    assert_eq!(error.kind(), "blob_missing");
    assert!(error.to_string().contains("tiny.gguf"), "{error}");
    assert!(error.hint().unwrap().contains("put the file back"));
    let list = fixture.store.list();
    assert_eq!((list.models.len(), list.problems.len()), (1, 0));

    let source = fixture.source("moved.gguf", &Writer::model());
    let imported = fixture.import(&source, "tiny", ImportMode::Link).unwrap();
    assert_eq!(imported.placed, Placed::Linked);
    assert!(fixture.store.resolve(&imported.name).is_ok());
}

#[test]
fn a_copy_replaces_a_link_and_a_link_keeps_a_copy() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    fixture.import(&source, "tiny", ImportMode::Link).unwrap();
    assert_eq!(fixture.import(&source, "tiny", ImportMode::Copy).unwrap().placed, Placed::Copied);
    assert_eq!(fixture.import(&source, "tiny", ImportMode::Link).unwrap().placed, Placed::Reused);
    assert_eq!(fixture.import(&source, "tiny", ImportMode::Copy).unwrap().placed, Placed::Reused);
    fs::remove_file(&source).unwrap();
    assert!(fixture.store.resolve(&"tiny".parse().unwrap()).is_ok());
}

#[test]
fn a_blob_cut_short_is_replaced() {
    let fixture = Fixture::new();
    let source = fixture.source("tiny.gguf", &Writer::model());
    let imported = fixture.import(&source, "tiny", ImportMode::Copy).unwrap();
    let blob = fixture.store.blobs().path(&imported.model_digest);
    fs::write(&blob, "cut").unwrap();
    assert_eq!(fixture.store.resolve(&imported.name).unwrap_err().kind(), "blob_changed");
    assert_eq!(fixture.import(&source, "tiny", ImportMode::Copy).unwrap().placed, Placed::Copied);
    assert!(fixture.store.resolve(&imported.name).is_ok());
}

#[test]
fn a_name_is_replaced_in_its_old_spelling() {
    let fixture = Fixture::new();
    let source = fixture.source("one.gguf", &Writer::model());
    let one = fixture.import(&source, "Me/Tiny:A", ImportMode::Copy).unwrap();
    let source = fixture.source("two.gguf", &Writer::model().u32("extra", 1));
    let two = fixture.import(&source, "me/tiny:a", ImportMode::Copy).unwrap();
    assert_eq!(two.name.full(), "registry.ollama.ai/Me/Tiny:A");
    assert_ne!(one.id, two.id);
    let list = fixture.store.list();
    assert_eq!(list.models.len(), 1);
    assert_eq!(list.models[0].id, two.id);
}

#[test]
fn a_cancel_at_any_report_leaves_no_trace() {
    for how in [ImportMode::Auto, ImportMode::Copy, ImportMode::Link] {
        let fixture = Fixture::new();
        let source = fixture.source("tiny.gguf", &Writer::model());
        let name: ModelName = "tiny".parse().unwrap();
        let mut n_reports = 0;
        let count = &mut |_| {
            n_reports += 1;
            ControlFlow::Continue(())
        };
        import(&Fixture::new().store, &source, &name, how, count).unwrap();
        assert!(n_reports >= 3);
        for last in 0..n_reports {
            let mut n_seen = 0;
            let cancel = &mut |_| {
                n_seen += 1;
                if n_seen > last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let error = import(&fixture.store, &source, &name, how, cancel).unwrap_err();
            assert_eq!(error.kind(), "cancelled");
            assert_eq!(fixture.files(), [""; 0], "{how:?} cancelled at report {last}");
        }
    }
}

#[test]
fn progress_goes_forward_to_the_end() {
    let fixture = Fixture::new();
    let n_bytes = 3 << 20;
    let large =
        Writer::new().text("general.architecture", "llama").tensor("t", &[n_bytes / 4], 0, n_bytes);
    let source = fixture.source("large.gguf", &large);
    let mut reports = Vec::new();
    import(&fixture.store, &source, &"m".parse().unwrap(), ImportMode::Copy, &mut |progress| {
        reports.push(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    let total = fs::metadata(&source).unwrap().len();
    assert!(reports.iter().all(|report| report.bytes_total == total));
    assert!(reports.is_sorted_by_key(|report| report.bytes_done));
    assert_eq!(reports.first().unwrap().stage, ImportStage::Checking);
    assert_eq!(reports.last().unwrap().stage, ImportStage::Finishing);
    assert_eq!(reports.last().unwrap().bytes_done, total);
    let copying = reports.iter().filter(|report| report.stage == ImportStage::Copying);
    assert!(copying.count() >= 4);
}

#[test]
fn a_source_that_changes_meanwhile_is_refused() {
    for how in [ImportMode::Copy, ImportMode::Link] {
        let fixture = Fixture::new();
        let source = fixture.source("tiny.gguf", &Writer::model());
        let grow = &mut |progress: ImportProgress| {
            if progress.stage != ImportStage::Checking && progress.bytes_done == 0 {
                let mut file = fs::OpenOptions::new().append(true).open(&source).unwrap();
                file.write_all(b"more").unwrap();
            }
            ControlFlow::Continue(())
        };
        let error = import(&fixture.store, &source, &"m".parse().unwrap(), how, grow).unwrap_err();
        assert_eq!(error.kind(), "source_changed");
        assert!(fixture.files().is_empty());
    }
}

#[test]
fn files_that_are_no_models_are_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let architecture = |name| Writer::new().text("general.architecture", name);
    let cases = [
        (Writer::new().version(9), "bad_gguf", "version 9"),
        (Writer::new().tensor("t", &[1], 0, 4), "bad_gguf", "names no `general.architecture`"),
        (architecture("llama"), "unsupported_model", "holds no weights"),
        (architecture("clip").tensor("t", &[1], 0, 4), "unsupported_model", "a projector"),
        (
            architecture("llama").text("general.type", "adapter"),
            "unsupported_model",
            "a LoRA adapter",
        ),
        (
            architecture("llama").value("split.count", 2, &[3, 0]),
            "unsupported_model",
            "one part of a split model",
        ),
        (Writer::model().tensor_at("more", &[1 << 20], 0, 192), "bad_gguf", "cut short"),
    ];
    for (writer, kind, message) in cases {
        let source = fixture.source("bad.gguf", &writer);
        let error = fixture.import(&source, "bad", ImportMode::Auto).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().contains("bad.gguf`"), "{error}");
    }
    let error = fixture.import(fixture.dir.path(), "bad", ImportMode::Auto).unwrap_err();
    assert_eq!(error.kind(), "not_a_file");
    let error = fixture.import(Path::new("/no/such"), "bad", ImportMode::Auto).unwrap_err();
    assert!(error.to_string().starts_with("cannot open `/no/such`: "), "{error}");
    assert!(!fixture.store.dir().exists());
}

#[test]
fn leftovers_of_a_crashed_import_go_with_the_next() {
    let fixture = Fixture::new();
    let leftover = fixture.store.blobs().dir().join("sha256-0123456789abcdef-import");
    fs::create_dir_all(fixture.store.blobs().dir()).unwrap();
    let file = File::create(&leftover).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    drop(file);
    let source = fixture.source("tiny.gguf", &Writer::model());
    fixture.import(&source, "tiny", ImportMode::Copy).unwrap();
    assert!(!leftover.exists());
}
