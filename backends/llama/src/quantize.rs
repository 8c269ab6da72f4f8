//! `hearth.quantize/1`: llama.cpp's own quantizer.

use crate::model::check_file;
use crate::shim::{c_string, captured, error, invalid};
use crate::{Engine, LlamaBackend};
use hearth_abi::author::QuantizeBackend;
use hearth_abi::{PluginError, QuantizeParams, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// The names of llama.cpp's own tool for what it can make, the one for those who do not mind first.
const TYPES: [(&CStr, sys::llama_ftype); 35] = [
    (c"Q4_K_M", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    (c"Q4_K_S", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
    (c"Q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
    (c"Q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1),
    (c"Q5_K_M", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    (c"Q5_K_S", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S),
    (c"Q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
    (c"Q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1),
    (c"Q6_K", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
    (c"Q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    (c"Q3_K_L", sys::LLAMA_FTYPE_MOSTLY_Q3_K_L),
    (c"Q3_K_M", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    (c"Q3_K_S", sys::LLAMA_FTYPE_MOSTLY_Q3_K_S),
    (c"Q2_K", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
    (c"Q2_K_S", sys::LLAMA_FTYPE_MOSTLY_Q2_K_S),
    (c"Q2_0", sys::LLAMA_FTYPE_MOSTLY_Q2_0),
    (c"Q1_0", sys::LLAMA_FTYPE_MOSTLY_Q1_0),
    (c"IQ4_NL", sys::LLAMA_FTYPE_MOSTLY_IQ4_NL),
    (c"IQ4_XS", sys::LLAMA_FTYPE_MOSTLY_IQ4_XS),
    (c"IQ3_M", sys::LLAMA_FTYPE_MOSTLY_IQ3_M),
    (c"IQ3_S", sys::LLAMA_FTYPE_MOSTLY_IQ3_S),
    (c"IQ3_XS", sys::LLAMA_FTYPE_MOSTLY_IQ3_XS),
    (c"IQ3_XXS", sys::LLAMA_FTYPE_MOSTLY_IQ3_XXS),
    (c"IQ2_M", sys::LLAMA_FTYPE_MOSTLY_IQ2_M),
    (c"IQ2_S", sys::LLAMA_FTYPE_MOSTLY_IQ2_S),
    (c"IQ2_XS", sys::LLAMA_FTYPE_MOSTLY_IQ2_XS),
    (c"IQ2_XXS", sys::LLAMA_FTYPE_MOSTLY_IQ2_XXS),
    (c"IQ1_M", sys::LLAMA_FTYPE_MOSTLY_IQ1_M),
    (c"IQ1_S", sys::LLAMA_FTYPE_MOSTLY_IQ1_S),
    (c"TQ2_0", sys::LLAMA_FTYPE_MOSTLY_TQ2_0),
    (c"TQ1_0", sys::LLAMA_FTYPE_MOSTLY_TQ1_0),
    (c"MXFP4_MOE", sys::LLAMA_FTYPE_MOSTLY_MXFP4_MOE),
    (c"BF16", sys::LLAMA_FTYPE_MOSTLY_BF16),
    (c"F16", sys::LLAMA_FTYPE_MOSTLY_F16),
    (c"F32", sys::LLAMA_FTYPE_ALL_F32),
];

const NAMES: [&CStr; TYPES.len()] = {
    let mut names = [c""; TYPES.len()];
    let mut index = 0;
    while index < TYPES.len() {
        names[index] = TYPES[index].0;
        index += 1;
    }
    names
};

/// `hearth_shim_quantize_job`
#[repr(C)]
struct Job {
    input: *const c_char,
    output: *const c_char,
    imatrix: *const c_char,
    ftype: i32,
    n_threads: i32,
    requantize: bool,
    progress: unsafe extern "C" fn(data: *mut c_void, fraction: f32) -> bool,
    data: *mut c_void,
}

// `hearth_shim_quantize_end`
const QUANTIZED: i32 = 0;
const CANCELLED: i32 = 1;
const BAD_MATRIX: i32 = 2;
const NOT_WRITTEN: i32 = 3;
const FAILED: i32 = 4;

unsafe extern "C" {
    fn hearth_shim_quantize(job: *const Job, end: *mut i32, message: *mut c_char) -> bool;
}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
}

unsafe extern "C" fn take_progress(data: *mut c_void, fraction: f32) -> bool {
    // SAFETY: data is the Progress that `quantize` keeps on its stack while the shim runs.
    (unsafe { &mut *data.cast::<Progress<'_>>() }.report)(fraction)
}

impl<E: Engine> QuantizeBackend for LlamaBackend<E> {
    const TYPES: &'static [&'static CStr] = &NAMES;

    fn quantize(params: &QuantizeParams, report: &mut dyn FnMut(f32) -> bool) -> Result<()> {
        let wanted = params.type_name.as_bytes();
        let Some((_, ftype)) = TYPES.iter().find(|(name, _)| name.to_bytes() == wanted) else {
            return Err(invalid(format!("there is no type `{}`", params.type_name)));
        };
        check_file(&params.input)?;
        let path = |path: &Path| c_string(path.as_os_str().as_bytes(), "a path");
        let (input, output) = (path(&params.input)?, path(&params.output)?);
        let imatrix =
            params.imatrix.as_deref().map(|matrix| check_matrix(matrix).and(path(matrix)));
        let imatrix = imatrix.transpose()?;
        let mut progress = Progress { report };
        let job = Job {
            input: input.as_ptr(),
            output: output.as_ptr(),
            imatrix: imatrix.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            ftype: i32::try_from(*ftype).unwrap_or(-1),
            n_threads: i32::try_from(params.n_threads).unwrap_or(0),
            requantize: params.requantize,
            progress: take_progress,
            data: (&raw mut progress).cast(),
        };
        let (mut end, mut message) = (FAILED, String::new());
        // SAFETY: the job and what it points to outlive the call; the other two are ours.
        let ran = captured(|text| unsafe {
            let answered = hearth_shim_quantize(&raw const job, &raw mut end, text);
            if matches!(end, BAD_MATRIX | NOT_WRITTEN) {
                message = CStr::from_ptr(text).to_string_lossy().into_owned();
            }
            answered
        });
        let (input, output) = (params.input.display(), params.output.display());
        let matrix = params.imatrix.as_deref().unwrap_or(&params.input);
        Err(match end {
            QUANTIZED => return Ok(()),
            CANCELLED => error(Status::Cancelled, "quantizing was cancelled"),
            BAD_MATRIX => bad_matrix(matrix, &message),
            NOT_WRITTEN => error(Status::Failed, format!("cannot write `{output}`: {message}")),
            _ if ran.mentions("requires an imatrix")
                || ran.mentions("Missing importance matrix") =>
            {
                let name = &params.type_name;
                invalid(format!("`{name}` needs an importance matrix, which there is none of"))
            }
            _ if ran.mentions("requantizing from type") => error(
                Status::Unsupported,
                format!("the weights in `{input}` are quantized already"),
            ),
            _ => error(
                Status::BadModel,
                format!("llama.cpp cannot quantize `{input}`: {}", ran.why()),
            ),
        })
    }
}

/// llama.cpp reads the old format, which has no magic, by whatever length stands in the file, and would take gigabytes for
/// some other file.
fn check_matrix(path: &Path) -> Result<()> {
    let mut start = [0_u8; 8];
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.read_exact(&mut start)?;
        Ok(file.metadata()?.len())
    });
    let len = read.map_err(|why| bad_matrix(path, &why.to_string()))?;
    // The number of entries, each with a name, two numbers and a value; and the first name's length.
    let [n_entries, name_len] = [0, 4].map(|at| {
        let number = [start[at], start[at + 1], start[at + 2], start[at + 3]];
        u64::from(u32::from_le_bytes(number))
    });
    if start.starts_with(b"GGUF") || (n_entries * 16 <= len && name_len <= len) {
        return Ok(());
    }
    Err(bad_matrix(path, "it is no importance matrix"))
}

fn bad_matrix(path: &Path, why: &str) -> PluginError {
    invalid(format!("`{}` cannot be the importance matrix: {why}", path.display()))
}
