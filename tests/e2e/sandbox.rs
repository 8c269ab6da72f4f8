//! What runs a plugin is shut in.

use hearth_protocol::{ErrorKind, Generate};
use hearth_tests::{TestDaemon, generate, refused, repository, run};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What a hostile plugin says it could do.
fn done(config: &str) -> String {
    let config = format!("backend = \"hostile\"\n{config}");
    let builder = TestDaemon::builder().config(&config);
    let (plugins, folder) = (builder.dir().join("plugins"), builder.dir().join("elsewhere"));
    fs::create_dir(&plugins).unwrap();
    fs::create_dir(&folder).unwrap();
    let canary = folder.join("canary");
    fs::write(&canary, "a secret").unwrap();
    fs::write(folder.join("canary.remove"), "").unwrap();
    let plugin = plugins.join("libhearth_hostile.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-w", "-shared", "-fPIC", "-fvisibility=hidden"]);
    for place in ["include", "examples"] {
        cc.arg("-I").arg(repository().join("backends/abi").join(place));
    }
    cc.arg(format!("-DCANARY={canary:?}")).arg(format!("-DFOLDER={folder:?}"));
    cc.arg("-o").arg(&plugin).arg(repository().join("tests/e2e/hostile_plugin.c"));
    run(&mut cc, "").ok();
    fs::set_permissions(&plugin, Permissions::from_mode(0o755)).unwrap();
    let daemon = builder.backends(plugins).start();
    daemon.model("tiny", &[]);
    let error =
        refused(daemon.client().call::<Generate>(&generate("tiny", "once")), ErrorKind::BadModel);
    let (_, done) = error.message.split_once("done:").unwrap_or_else(|| panic!("{error:?}"));
    if config.contains("sandbox.on") {
        assert_eq!(fs::read(&canary).unwrap(), b"");
    } else {
        assert_eq!(fs::read(&canary).unwrap(), b"a secret");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }
    done.trim_end_matches('.').trim().to_owned()
}

#[test]
fn a_hostile_plugin_reads_its_model_and_can_do_nothing_else() {
    assert_eq!(done(""), "model");
}

/// The same plugin, so that the test above is known to try what works.
#[test]
fn without_the_sandbox_it_can_do_what_the_daemon_can() {
    let done = done("sandbox.on = false");
    for what in [
        "read", "list", "empty", "truncate", "write", "create", "folder", "remove", "mode", "inet",
        "udp", "unix", "netlink", "signal", "fork", "exec",
    ] {
        assert!(done.split(' ').any(|word| word == what), "{what}: {done}");
    }
}
