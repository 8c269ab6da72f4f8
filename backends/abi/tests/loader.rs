//! What the loader refuses, each time with the reason, and what it takes.

mod compiler;

use compiler::{abi_dir, compile_plugin};
use hearth_abi::check::{self, Verdict};
use hearth_abi::host::{LoadError, Plugin};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn load(path: &Path) -> Result<Arc<Plugin>, LoadError> {
    Plugin::load(path, Box::new(|_, _| {}))
}

/// A plugin of `tests/broken.c`, in a folder that goes with the first value.
fn broken(what: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libhearth_broken.so");
    compile_plugin(&abi_dir().join("tests/broken.c"), &path, &[&format!("-D{what}")]);
    (dir, path)
}

#[test]
fn a_good_plugin_loads() {
    let (_dir, path) = broken("BREAK_NOTHING");
    let plugin = load(&path).unwrap();
    assert_eq!(
        (plugin.name().as_str(), plugin.version().as_str(), plugin.path()),
        ("minimal", "1.0.0", path.as_path())
    );
    assert_eq!(plugin.devices().unwrap()[0].id, "CPU");
}

#[test]
fn a_newer_minor_version_loads() {
    let (_dir, path) = broken("BREAK_MINOR_VERSION");
    load(&path).unwrap();
}

#[test]
fn another_major_version_is_refused() {
    let (_dir, path) = broken("BREAK_VERSION");
    let error = load(&path).unwrap_err();
    assert!(matches!(error, LoadError::WrongVersion { found: 0x2_0001, .. }), "{error}");
    assert!(
        error.to_string().ends_with("is built for ABI version 2.1, and this hearthd speaks 1.1"),
        "{error}"
    );
}

#[test]
fn a_short_entry_is_refused() {
    let (_dir, path) = broken("BREAK_SIZE");
    assert!(matches!(load(&path), Err(LoadError::ShortEntry { .. })));
}

#[test]
fn a_null_pointer_is_refused() {
    let (_dir, path) = broken("BREAK_NULL");
    assert!(matches!(load(&path), Err(LoadError::NullInEntry { .. })));
}

#[test]
fn a_library_without_the_symbol_is_refused() {
    let (_dir, path) = broken("BREAK_NO_ENTRY");
    let error = load(&path).unwrap_err();
    assert!(error.to_string().contains("exports no `hearth_plugin_entry`"), "{error}");
}

#[test]
fn a_failed_init_tells_why() {
    let (_dir, path) = broken("BREAK_INIT");
    let error = load(&path).unwrap_err();
    assert!(error.to_string().ends_with("cannot start: the driver is too old"), "{error}");
}

#[test]
fn files_that_are_no_library_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.so");
    assert!(matches!(load(&missing), Err(LoadError::Unreadable { .. })));
    for (name, content) in [
        ("empty.so", b"".as_slice()),
        ("text.so", b"not a library"),
        ("elf.so", b"\x7fELF\x02\x01\x01"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, LoadError::NotLoadable { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let (_dir, path) = broken("BREAK_NOTHING");
    for mode in [0o775, 0o757, 0o777] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = load(&path).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("can be written by others (mode {mode:o})")),
            "{error}"
        );
    }
}

#[test]
fn a_file_of_a_third_user_is_refused() {
    let (_dir, path) = broken("BREAK_NOTHING");
    // Only root can give a file away. Anyone else's file stays theirs, and loads.
    match std::os::unix::fs::chown(&path, Some(54_321), None) {
        Ok(()) => {
            assert!(matches!(load(&path), Err(LoadError::ForeignOwner { owner: 54_321, .. })))
        }
        Err(_) => assert!(load(&path).is_ok()),
    }
}

#[test]
fn the_check_reports_a_plugin_that_does_not_load() {
    let (_dir, path) = broken("BREAK_NULL");
    let mut outcomes = Vec::new();
    check::run(&path, None, None, &mut |outcome| outcomes.push(outcome));
    let [outcome] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(matches!(&outcome.verdict, Verdict::Failed(reason) if reason.contains("null pointer")));
}

#[test]
fn scenario_names_are_unique_and_rules_are_one_line() {
    let mut names: Vec<_> = check::SCENARIOS.iter().map(|scenario| scenario.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), check::SCENARIOS.len());
    for scenario in check::SCENARIOS {
        assert!(
            scenario.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{}",
            scenario.name
        );
        assert!(
            !scenario.rule.contains('\n') && !scenario.rule.ends_with('.'),
            "{}",
            scenario.rule
        );
    }
}
