//! `hearth.quantize/1` of a model whose weights are nobody's: its one type is the file as it is.

use crate::gguf;
use crate::model::{Reference, error, pass, settings_of};
use hearth_abi::author::QuantizeBackend;
use hearth_abi::{QuantizeParams, Result, Status};
use std::ffi::CStr;

impl QuantizeBackend for Reference {
    const TYPES: &'static [&'static CStr] = &[c"COPY"];

    fn quantize(params: &QuantizeParams, progress: &mut dyn FnMut(f32) -> bool) -> Result<()> {
        if params.type_name != "COPY" {
            let name = &params.type_name;
            return Err(error(Status::InvalidArgument, format!("there is no type `{name}`")));
        }
        if params.imatrix.is_some() {
            return Err(error(Status::InvalidArgument, "a copy takes no importance matrix"));
        }
        let settings = settings_of(&gguf::read(&params.input)?)?;
        let (input, output) = (params.input.display(), params.output.display());
        let failed = |why| error(Status::Failed, format!("cannot write `{output}`: {why}"));
        let bytes = std::fs::read(&params.input)
            .map_err(|why| error(Status::Failed, format!("cannot read `{input}`: {why}")))?;
        std::fs::write(&params.output, &bytes[..bytes.len() / 2]).map_err(failed)?;
        pass(settings.quantize_ms, progress)?;
        if settings.crash_quantize {
            std::process::abort();
        }
        std::fs::write(&params.output, &bytes).map_err(failed)
    }
}
