//! `hearthd quantize`: one order from standard input, and what becomes of it on standard output, a line of JSON each.

use crate::nearest::nearest;
use crate::plugin;
use crate::rpc::store_error;
use crate::sandbox::Sandbox;
use hearth_abi::{LogLevel, PluginError, QuantizeParams, Status};
use hearth_protocol::{ErrorKind, RpcError};
use hearth_store::{gguf_summary, quote};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Answers of models that run are not to wait for this.
const NICE: i32 = 10;

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) plugin: PathBuf,
    pub(super) source: PathBuf,
    pub(super) type_name: String,
    pub(super) destination: PathBuf,
    pub(super) imatrix: Option<PathBuf>,
    pub(super) requantize: bool,
    pub(super) n_threads: u32,
    pub(super) sandbox: Option<Sandbox>,
}

/// To the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Of a hundred.
    Progress(u8),
    /// With the type's own name; always last.
    Ended(Result<String, RpcError>),
}

/// Runs until the order is carried out, or until the daemon's end of standard input closes.
pub fn run() -> anyhow::Result<()> {
    // As in a worker, see there.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    #[cfg(target_os = "linux")]
    {
        rustix::thread::set_no_new_privs(true)?;
        rustix::thread::set_name(c"hearthd-quant")?;
    }
    rustix::process::nice(NICE)?;
    let mut stdin = BufReader::new(io::stdin());
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)
        .map_err(|_| anyhow::anyhow!("`hearthd quantize` is started by hearthd itself"))?;
    // Before there is another thread, as in a worker.
    let shut_in = shut_in(&order);
    std::thread::Builder::new().name("daemon".into()).spawn(move || {
        let _ = stdin.read_to_end(&mut Vec::new());
        #[allow(clippy::exit)]
        // Waiting for the plugin would keep a process without a daemon alive.
        std::process::exit(1)
    })?;
    tell(&Said::Ended(shut_in.and_then(|()| carry_out(order))));
    Ok(())
}

fn shut_in(order: &Order) -> Result<(), RpcError> {
    let Some(sandbox) = &order.sandbox else { return Ok(()) };
    let read: Vec<_> = order.imatrix.iter().chain([&order.source]).cloned().collect();
    sandbox.enter(&order.plugin, &read, Some(&order.destination))
}

fn tell(said: &Said) {
    let mut stdout = io::stdout().lock();
    // Without a daemon to read it, the thread above ends the process.
    let _ = serde_json::to_writer(&mut stdout, said).map(|()| stdout.write_all(b"\n"));
    let _ = stdout.flush();
}

fn carry_out(order: Order) -> Result<String, RpcError> {
    let sink = |level, text: &str| {
        if matches!(level, LogLevel::Warn | LogLevel::Error | LogLevel::HostMisbehaving) {
            let _ = writeln!(io::stderr(), "hearthd quantize: {text}");
        }
    };
    let plugin = plugin::load(&order.plugin, Box::new(sink)).map_err(|error| {
        RpcError::new(ErrorKind::NoBackend, error.to_string())
            .with_hint("`ctl backend list` shows what each backend says of itself")
    })?;
    let type_name = find_type(&plugin.name(), &plugin.quantize_types(), &order.type_name)?;
    check_source(&order)?;
    let params = QuantizeParams {
        input: order.source,
        output: order.destination,
        type_name: type_name.clone(),
        imatrix: order.imatrix,
        n_threads: order.n_threads,
        requantize: order.requantize,
    };
    let mut told = None;
    let done = plugin.quantize(&params, &mut |fraction| {
        // From 0 to 100, since the fraction is clamped.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let percent = (fraction.clamp(0.0, 1.0) * 100.0) as u8;
        if told != Some(percent) {
            told = Some(percent);
            tell(&Said::Progress(percent));
        }
        true
    });
    done.map_err(|error| wire(error, &params))?;
    Ok(type_name)
}

/// llama.cpp finds it out too, at the first tensor that it would quantize again, and after hours with a large model.
fn check_source(order: &Order) -> Result<(), RpcError> {
    let summary = gguf_summary(&order.source).map_err(|error| store_error(&error))?;
    match summary.quantized_type().filter(|_| !order.requantize) {
        None => Ok(()),
        Some(found) => {
            let message = format!("the weights are quantized already, most of them to {found}");
            Err(RpcError::new(ErrorKind::InvalidParams, message).with_hint(REQUANTIZE))
        }
    }
}

fn wire(error: PluginError, params: &QuantizeParams) -> RpcError {
    let (kind, hint) = match error.status {
        Status::Unsupported => (ErrorKind::InvalidParams, Some(REQUANTIZE)),
        Status::InvalidArgument if params.imatrix.is_none() => (
            ErrorKind::InvalidParams,
            Some(
                "give one that was made for this model: `ctl quantize --imatrix FILE`; llama.cpp's `llama-imatrix` makes them",
            ),
        ),
        Status::InvalidArgument => (
            ErrorKind::InvalidParams,
            Some("an importance matrix is made for one model; most types do without one"),
        ),
        Status::BadModel => {
            (ErrorKind::BadModel, Some("`ctl verify` says whether the file is damaged"))
        }
        Status::NotFound => (ErrorKind::Io, Some("`ctl verify` says what of the model is missing")),
        Status::OutOfMemory => (ErrorKind::Internal, Some("free some memory and try again")),
        _ => (ErrorKind::Io, Some("free some space where the models are, and try again")),
    };
    let wire = RpcError::new(kind, error.message);
    match hint {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}

const REQUANTIZE: &str = "quantize the original in F16, BF16 or F32, which loses less; `--requantize` takes these weights all the same";

/// The plugin's spelling of a type's name. `Q4_K` is `Q4_K_M`, as for llama.cpp's tool and for Ollama.
fn find_type(plugin: &str, types: &[String], wanted: &str) -> Result<String, RpcError> {
    if types.is_empty() {
        let message = format!("the backend `{plugin}` cannot quantize");
        return Err(RpcError::new(ErrorKind::Unsupported, message)
            .with_hint("`ctl backend list` shows the backends; the configuration chooses one"));
    }
    let mut wanted = wanted.trim().to_ascii_uppercase();
    let known = |wanted: &str| types.iter().find(|name| name.eq_ignore_ascii_case(wanted));
    if known(&wanted).is_none() && wanted.ends_with("_K") {
        wanted.push_str("_M");
    }
    if let Some(name) = known(&wanted) {
        return Ok(name.clone());
    }
    let all = format!("the types are {}", types.join(", "));
    let hint = match nearest(&wanted, types.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`? {all}"),
        None => all,
    };
    let message = format!("there is no quantization type `{}`", quote(&wanted));
    Err(RpcError::new(ErrorKind::InvalidParams, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_as_people_write_them() {
        let types = ["Q4_K_M", "Q4_K_S", "Q8_0", "F16"].map(String::from);
        let find = |wanted: &str| find_type("cpu", &types, wanted);
        for (wanted, found) in
            [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), (" q8_0", "Q8_0"), ("f16", "F16")]
        {
            assert_eq!(find(wanted).unwrap(), found);
        }
        let hint = |wanted: &str| find(wanted).unwrap_err().hint().unwrap().to_owned();
        assert!(hint("q4km").starts_with("did you mean `Q4_K_M`? the types are Q4_K_M, "));
        assert!(hint("Q8").starts_with("did you mean `Q8_0`?"));
        assert!(hint("small").starts_with("the types are"));
        assert_eq!(find_type("x", &[], "q8_0").unwrap_err().kind(), Some(ErrorKind::Unsupported));
    }
}
