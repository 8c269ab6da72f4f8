//! `ctl load MODEL`: bring a model into memory, or keep a loaded one longer.

use super::{Context, progress};
use crate::error::CtlError;
use crate::format::{bytes, seconds, span_f64};
use hearth_protocol::{KeepAlive, LoadParams, Loaded, ModelLoad};

pub(super) fn run(
    context: &Context,
    model: String,
    draft: Option<String>,
    keep_alive: Option<KeepAlive>,
) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let params = LoadParams { model, draft, keep_alive, request: None };
    let reply = progress::watch::<ModelLoad>(context, &mut session, &params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Loaded { model, load_us } = session.read(reply)?;
    let how = match load_us {
        0 => "was loaded already".into(),
        us => format!("loaded in {}", seconds(us)),
    };
    let stays = match model.expires_s {
        Some(seconds) => format!("stays for {}", span_f64(seconds)),
        None if model.active_requests > 0 => "stays while it works".into(),
        None => "stays until it is stopped".into(),
    };
    context.out.line(&format!(
        "`{}` {how} on {}, takes {}, {stays}",
        model.name,
        model.backend,
        bytes(model.rss_bytes)
    ))
}
