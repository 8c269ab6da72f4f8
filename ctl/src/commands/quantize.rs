//! `ctl quantize MODEL TYPE [NAME]`: a new model with smaller weights.

use super::{Context, import, progress};
use crate::error::CtlError;
use crate::format::bytes;
use hearth_protocol::{ModelQuantize, QuantizeParams, Quantized};
use std::path::Path;

pub(super) fn run(
    context: &Context,
    model: String,
    type_name: String,
    to: Option<String>,
    imatrix: Option<&Path>,
    requantize: bool,
) -> Result<(), CtlError> {
    let imatrix = imatrix.map(import::absolute).transpose()?;
    let mut session = context.connect()?;
    let params = QuantizeParams { model, type_name, to, imatrix, requantize, request: None };
    let reply = progress::watch::<ModelQuantize>(context, &mut session, &params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Quantized { name, quantization, size_bytes, from_size_bytes, .. } = session.read(reply)?;
    let (from, to) = (bytes(from_size_bytes), bytes(size_bytes));
    context.out.line(&format!("`{name}` is here in {quantization}: {to} in place of {from}"))
}
