//! The documents and the sources themselves: examples run, paths exist, files have a head and a bearable size.

mod launchd;

use hearth_tests::{TestDaemon, ctl_path, env_path, repository, run};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/benchmarks.md",
    "docs/operations.md",
    "docs/protocol.md",
];

/// Longer than this a file has more than one job.
const MAX_LINES: usize = 600;

/// Lines that begin with `$ ` in blocks marked `console`.
fn examples(document: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in document.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ => commands.extend(line.strip_prefix("$ ").filter(|_| inside).map(String::from)),
        }
    }
    commands
}

#[test]
fn the_examples_of_the_readme_run() {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS")).start();
    let file = env_path("HEARTH_TEST_SMOLLM2").display().to_string();
    daemon.ctl(["import", &file, "smollm2:135m", "--link"]).ok();
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() >= 7, "{examples:?}");
    let ctl_folder = ctl_path().parent().unwrap().display().to_string();
    let path = format!("{ctl_folder}:{}", std::env::var("PATH").unwrap());
    for example in examples {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &example])
            .env("PATH", &path)
            .env("HEARTH_SOCKET", daemon.socket());
        let said = run(&mut command, "");
        assert_eq!(said.code, Some(0), "`{example}`: {said:?}");
        assert!(!said.stdout.is_empty(), "`{example}` said nothing");
        assert!(!said.stdout.contains("\"error\""), "`{example}`: {}", said.stdout);
    }
}

#[test]
fn every_path_that_a_document_names_exists() {
    let root = repository();
    let files = tracked("*.rs");
    let sources: Vec<_> = files.iter().filter_map(|path| path.file_name()).collect();
    let mut gone = String::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            // Built, and so not in a fresh clone.
            let made = word.starts_with("target/");
            let first = word.split('/').next().unwrap_or_default();
            let ours = word.contains('/') && root.join(first).is_dir() && !first.is_empty();
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
            // One of a folder that was named before.
            let is_source = word.ends_with(".rs") && !word.contains('/');
            let no_source = is_source && !sources.contains(&OsStr::new(word));
            if no_source || (ours && plain && !made && !root.join(word).exists()) {
                let _ = writeln!(gone, "{document}: `{word}`");
            }
        }
    }
    assert!(gone.is_empty(), "these do not exist:\n{gone}");
}

#[test]
fn the_messages_to_look_up_are_those_that_are_said() {
    let sources: String = ["daemon/*.rs", "ctl/*.rs"]
        .iter()
        .flat_map(|pattern| tracked(pattern))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let text = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ``"));
    let messages: Vec<&str> =
        rows.flat_map(|row| row.split("``").skip(1).step_by(2)).map(str::trim).collect();
    assert!(messages.len() > 10, "{messages:?}");
    for message in messages {
        // What stands in backticks is somebody's.
        for words in message.split('`').step_by(2).map(str::trim).filter(|words| !words.is_empty())
        {
            assert!(sources.contains(words), "nobody says `{words}`");
        }
    }
}

/// Files that git tracks.
fn tracked(pattern: &str) -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
        pattern,
    ]);
    let listed = run(&mut command, "").ok();
    let files = listed.split('\0').filter(|name| !name.is_empty());
    files.map(|name| repository().join(name)).filter(|path| path.exists()).collect()
}

#[test]
fn every_source_file_says_what_lives_there_and_stays_readable() {
    let files = tracked("*.rs");
    assert!(files.len() > 100, "git lists only {} files", files.len());
    let mut faults = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(repository()).unwrap_or(Path::new("")).display();
        if !text.starts_with("//!") {
            let _ = writeln!(faults, "{shown} has no head comment");
        }
        let n_lines = text.lines().count();
        if n_lines > MAX_LINES {
            let _ = writeln!(faults, "{shown} has {n_lines} lines, more than {MAX_LINES}");
        }
        for forbidden in
            [concat!("#[", "ignore"), concat!("todo", "!("), concat!("unimplemented", "!(")]
        {
            if text.contains(forbidden) {
                let _ = writeln!(faults, "{shown} has `{forbidden}`");
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn unsafe_code_is_only_in_the_backends() {
    let mut faults = String::new();
    for path in tracked("*.rs") {
        let shown = path.strip_prefix(repository()).unwrap_or(Path::new("")).to_path_buf();
        let text = std::fs::read_to_string(&path).unwrap();
        let found = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            [concat!("unsafe", " {"), concat!("unsafe", " fn"), concat!("unsafe", " impl")]
                .iter()
                .any(|word| code.contains(word))
        });
        if found && !shown.starts_with("backends") {
            let _ = writeln!(faults, "{}", shown.display());
        }
    }
    assert!(faults.is_empty(), "unsafe code outside backends/:\n{faults}");
}
