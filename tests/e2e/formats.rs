//! The format of a model's KV memory and its attention, as the configuration has them.

use hearth_protocol::{ErrorKind, FlashAttention, KvType, LoadParams, Loaded, ModelLoad};
use hearth_tests::{TestDaemon, refused};

fn load(
    daemon: &TestDaemon,
    model: &str,
) -> Result<(KvType, Option<FlashAttention>), hearth_protocol::ClientError> {
    let params = LoadParams { model: model.into(), draft: None, keep_alive: None, request: None };
    let Loaded { model, .. } = daemon.client().call::<ModelLoad>(&params)?;
    Ok((model.kv_type, model.flash_attention))
}

#[test]
fn a_model_has_the_formats_of_its_own_or_those_of_all() {
    let daemon = TestDaemon::builder()
        .config("[engine]\nflash_attention = \"on\"\n[model.small]\nkv_type = \"q8_0\"\n")
        .start();
    daemon.model("small", &[]);
    daemon.model("other", &[("seed", 7.into())]);
    let on = Some(FlashAttention::On);
    assert_eq!(load(&daemon, "small").unwrap(), (KvType::Q8_0, on));
    assert_eq!(load(&daemon, "other").unwrap(), (KvType::F16, on));
}

#[test]
fn formats_that_the_backend_cannot_have_are_an_error_that_says_so() {
    let daemon = TestDaemon::builder()
        .config("[model.small]\nkv_type = \"q8_0\"\nflash_attention = \"off\"\n")
        .start();
    daemon.model("small", &[]);
    let error = refused(load(&daemon, "small"), ErrorKind::LoadFailed);
    assert!(error.message.contains("needs flash attention"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("`flash_attention`")));
}
