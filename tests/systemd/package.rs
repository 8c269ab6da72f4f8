//! The package, from its installation in a fresh Debian to its purge.

use super::{QUICK, assert_private, boot, entry, furnish_reference, journal, slow_answer};
use hearth_tests::{env_path, repository, run};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of those that were made of the programs under test.
fn package(end: &str) -> PathBuf {
    let made = fs::read_dir(env_path("HEARTH_TEST_PACKAGES")).unwrap();
    let mut paths = made.map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_str().is_some_and(|path| path.ends_with(end))).unwrap()
}

fn copy_package(folder: &Path, end: &str, name: &str) {
    fs::copy(package(end), folder.join(name)).unwrap();
}

fn copy_script(folder: &Path, name: &str) {
    fs::copy(repository().join("tests/systemd").join(name), folder.join(name)).unwrap();
}

#[test]
fn the_package_is_installed_used_upgraded_under_load_and_purged() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let folder = folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    copy_package(folder, ".deb", "hearth.deb");
    fs::copy(env_path("HEARTH_TEST_SMOLLM2"), folder.join("smollm2.gguf")).unwrap();
    copy_script(folder, "package.sh");
    furnish_reference(folder);
    boot(folder, "package.sh", &env_path("HEARTH_TEST_DEBIAN"));

    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let kept = repository().join("target/systemd");
    fs::create_dir_all(&kept).unwrap();
    for name in ["output", "figures", "security"] {
        fs::copy(folder.join(name), kept.join(name)).unwrap();
    }
    assert!(read("smollm2.answer").to_lowercase().contains("red"), "{}", read("smollm2.answer"));
    for answer in ["quick.answer", "gpu.answer", "dynamic-user.answer"] {
        assert_eq!(read(answer).trim_end(), QUICK, "{answer}");
    }
    for answer in ["slow.answer", "upgraded.answer"] {
        assert_eq!(read(answer).trim_end(), slow_answer(), "{answer}");
    }
    assert!(read("figures").contains("of these failed: 0\n"), "{}", read("figures"));

    let entries = journal(folder, "hearth");
    assert_eq!(entry(&entries, "Listening")["F_SOCKET"], "/run/hearth/hearth.sock");
    assert_eq!(entry(&entries, "Model loaded")["F_MODEL"], "smollm2:latest");
    assert_private(&entries);
}

#[test]
fn the_rpm_and_the_tarball_are_installed_used_upgraded_and_removed() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let folder = folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    copy_package(folder, ".rpm", "hearth.rpm");
    copy_package(folder, ".tar.gz", "hearth.tar.gz");
    copy_script(folder, "others.sh");
    boot(folder, "others.sh", &env_path("HEARTH_TEST_DEBIAN"));
}

/// Without a second build: nothing in them tells when or by whom they were made.
#[test]
fn all_in_the_packages_is_roots_and_of_one_time() {
    let list = "tar --list --verbose --numeric-owner --full-time --utc";
    let (deb, tarball) = (package(".deb"), package(".tar.gz"));
    let mut times = HashSet::new();
    for (file, command) in [
        (&deb, format!("dpkg-deb --fsys-tarfile \"$0\" | {list}")),
        (&deb, format!("dpkg-deb --ctrl-tarfile \"$0\" | {list}")),
        (&tarball, format!("{list} --gzip --file \"$0\"")),
    ] {
        let listed = run(Command::new("sh").args(["-c", &command]).arg(file), "").ok();
        for line in listed.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[1], "0/0", "{line}");
            times.insert(format!("{} {}", words[3], words[4]));
        }
        assert_eq!(times.len(), 1, "{times:?}");
    }
}
