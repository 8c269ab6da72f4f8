//! `ctl rpc METHOD [PARAMS]`: any method, for scripts. The result is printed as it came, whether or not `--json` is given.

use super::Context;
use crate::error::CtlError;
use serde_json::Value;

pub(super) fn run(context: &Context, method: &str, mut params: String) -> Result<(), CtlError> {
    if let Some(plain) = method.strip_suffix(".stream") {
        return Err(CtlError::usage(
            format!("`{method}` is a subscription, and `ctl rpc` makes one call"),
            format!("`ctl rpc {plain}` answers once at the end; `ctl run --json` prints events"),
        ));
    }
    if params == "-" {
        params = std::io::read_to_string(std::io::stdin()).map_err(|error| {
            CtlError::usage(format!("cannot read stdin: {error}"), "give it JSON in UTF-8")
        })?;
    }
    let params: Value = serde_json::from_str(&params).map_err(|error| {
        CtlError::usage(
            format!("the params are not JSON: {error}"),
            r#"quote them for the shell, as in `ctl rpc model.show '{"model": "smollm2"}'`"#,
        )
    })?;
    let reply = context.connect()?.call_named(method, &params)?;
    context.out.json(&reply)
}
