//! The configuration: one TOML file, with every key documented in `packaging/hearth.toml`.
//!
//! Two types, as in two steps: [`FileConfig`] is what a person wrote, all optional; [`Config`] is what the daemon runs
//! with, made from the command line, the environment, the file and the defaults, in that order. Unknown keys are refused
//! with the nearest name there is.

mod change;
mod http;
mod places;
mod read;

use crate::cli::RunArgs;
use crate::sandbox::Sandbox;
use anyhow::{Context as _, bail};
use hearth_protocol::{FlashAttention, KvType};
use hearth_registry::Url;
use hearth_store::ModelName;
pub(crate) use http::{Address, HttpConfig, ImageUrls, TlsFiles};
use http::{FileHttp, http};
use places::{backend_dirs, config_file, default_socket, env, key_file, models_dir, state_dir};
use read::{read, unusable};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Where Ollama's own service keeps models on Linux.
pub(crate) const OLLAMAS_MODELS: &str = "/usr/share/ollama/.ollama/models";

const KEEP_ALIVE: Duration = Duration::from_mins(5);

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileConfig {
    socket: Option<PathBuf>,
    socket_mode: Option<String>,
    models: Option<PathBuf>,
    more_models: Option<Vec<PathBuf>>,
    backends: Option<Vec<PathBuf>>,
    backend: Option<String>,
    keep_alive: Option<String>,
    max_loaded_models: Option<usize>,
    max_request_bytes: Option<usize>,
    max_connections: Option<usize>,
    drain_seconds: Option<u64>,
    probe_seconds: Option<u64>,
    admin_group: Option<String>,
    log: Option<String>,
    engine: FileEngine,
    /// By name, as a person writes it.
    model: BTreeMap<String, FileModel>,
    pull: FilePull,
    http: FileHttp,
    sandbox: FileSandbox,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileSandbox {
    on: Option<bool>,
    devices: Option<Vec<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileModel {
    draft: Option<String>,
    mtp: Option<bool>,
    kv_type: Option<String>,
    flash_attention: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileEngine {
    context: Option<u32>,
    parallel: Option<u32>,
    kept: Option<u32>,
    batch: Option<u32>,
    queue: Option<usize>,
    threads: Option<u32>,
    step_ms: Option<u64>,
    archive_mib: Option<usize>,
    speculate: Option<bool>,
    kv_type: Option<String>,
    flash_attention: Option<String>,
    stall_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilePull {
    streams: Option<usize>,
    bytes_per_second: Option<u64>,
    stall_seconds: Option<u64>,
    mirrors: Option<HashMap<String, Vec<String>>>,
    credentials: Option<HashMap<String, PathBuf>>,
}

/// What the daemon runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) socket_mode: u32,
    pub(crate) models: PathBuf,
    /// Folders with models that are only read.
    pub(crate) more_models: Vec<PathBuf>,
    /// Where what was learned is kept; `None`: nowhere.
    pub(crate) state: Option<PathBuf>,
    pub(crate) backend_dirs: Vec<PathBuf>,
    pub(crate) backend: String,
    /// `None`: for ever.
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) max_loaded_models: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
    /// How long one backend may take to say what it can do.
    pub(crate) probe: Duration,
    pub(crate) admin_group: String,
    pub(crate) log: String,
    pub(crate) engine: EngineSizes,
    pub(crate) of_model: BTreeMap<ModelName, ModelConfig>,
    pub(crate) pull: PullConfig,
    pub(crate) http: HttpConfig,
    /// `None`: what runs a plugin may do what the daemon may.
    pub(crate) sandbox: Option<Sandbox>,
}

/// What is said of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModelConfig {
    /// The model that guesses ahead for it.
    pub(crate) draft: Option<ModelName>,
    /// Layers of its own guess ahead.
    pub(crate) mtp: bool,
    /// `None`: as for all.
    pub(crate) attention: Attention,
}

/// How the KV memory is kept and read; what is `None` is as tuned, or as the backend has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attention {
    pub(crate) kv_type: Option<KvType>,
    pub(crate) flash: Option<FlashAttention>,
}

/// How models are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullConfig {
    pub(crate) streams: usize,
    /// `None`: as fast as it goes.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    pub(crate) stall: Duration,
    pub(crate) mirrors: HashMap<String, Vec<Url>>,
    /// Files with secrets, by host.
    pub(crate) credentials: HashMap<String, PathBuf>,
    /// The key for Ollama's registry.
    pub(crate) key: Option<PathBuf>,
    /// Where it is noted how far uploads are.
    pub(crate) uploads: Option<PathBuf>,
}

/// Sizes of each worker's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineSizes {
    pub(crate) context: u32,
    pub(crate) parallel: u32,
    pub(crate) kept: u32,
    /// 0: as tuned, or the default.
    pub(crate) batch: u32,
    pub(crate) queue: usize,
    /// 0: as tuned, or as the backend chooses.
    pub(crate) threads: u32,
    pub(crate) step_ms: u64,
    pub(crate) archive_mib: usize,
    pub(crate) speculate: bool,
    pub(crate) attention: Attention,
    /// How long one step may take; `None`: for ever.
    pub(crate) stall: Option<Duration>,
}

/// What the command line and the environment may say instead of the file.
struct Found {
    socket: PathBuf,
    models: PathBuf,
    /// If the file says nothing.
    keep_alive: Option<Duration>,
}

impl Found {
    fn new(args: &RunArgs, file: &FileConfig) -> anyhow::Result<Self> {
        Ok(Self {
            socket: args.socket.clone().or(file.socket.clone()).map_or_else(default_socket, Ok)?,
            models: models_dir(args, file.models.clone())?,
            keep_alive: match (&file.keep_alive, env("OLLAMA_KEEP_ALIVE")) {
                (None, Some(text)) => parse_keep_alive("OLLAMA_KEEP_ALIVE", &text)?,
                _ => Some(KEEP_ALIVE),
            },
        })
    }
}

impl Config {
    /// Reads the file, if there is one, and settles everything.
    pub fn load(args: &RunArgs) -> anyhow::Result<Self> {
        let path = config_file(args);
        let file = path.as_deref().map(read).transpose()?.unwrap_or_default();
        // What is wrong with the environment is no fault of the file.
        let found = Found::new(args, &file)?;
        let settled = Self::settle(args, file, found);
        match path {
            Some(path) => settled.with_context(|| unusable(&path)),
            None => settled,
        }
    }

    /// How a model's KV memory is kept and read.
    pub(crate) fn attention(&self, model: &ModelName) -> Attention {
        let all = self.engine.attention;
        let own = self.of_model.get(model).map(|model| model.attention).unwrap_or_default();
        Attention { kv_type: own.kv_type.or(all.kv_type), flash: own.flash.or(all.flash) }
    }

    fn settle(args: &RunArgs, file: FileConfig, found: Found) -> anyhow::Result<Self> {
        let engine = &file.engine;
        let engine = EngineSizes {
            context: at_least("engine.context", engine.context.unwrap_or(32_768), 64)?,
            parallel: at_least("engine.parallel", engine.parallel.unwrap_or(8), 1)?,
            kept: engine.kept.unwrap_or(8),
            batch: match engine.batch.unwrap_or(0) {
                0 => 0,
                batch => at_least("engine.batch", batch, 32)?,
            },
            queue: engine.queue.unwrap_or(256),
            threads: engine.threads.unwrap_or(0),
            step_ms: engine.step_ms.unwrap_or(100),
            archive_mib: engine.archive_mib.unwrap_or(512),
            speculate: engine.speculate.unwrap_or(true),
            attention: attention(
                "engine",
                engine.kv_type.as_deref(),
                engine.flash_attention.as_deref(),
            )?,
            stall: match engine.stall_seconds.unwrap_or(300) {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
        };
        let keep_alive = match file.keep_alive {
            Some(text) => parse_keep_alive("keep_alive", &text)?,
            None => found.keep_alive,
        };
        Ok(Self {
            socket: found.socket,
            socket_mode: parse_mode(file.socket_mode.as_deref().unwrap_or("0660"))?,
            models: found.models,
            more_models: file.more_models.unwrap_or_else(|| vec![OLLAMAS_MODELS.into()]),
            state: state_dir(args),
            backend_dirs: backend_dirs(args, file.backends),
            backend: args.backend.clone().or(file.backend).unwrap_or_else(|| "auto".into()),
            keep_alive,
            max_loaded_models: at_least(
                "max_loaded_models",
                file.max_loaded_models.unwrap_or(3),
                1,
            )?,
            max_request_bytes: at_least(
                "max_request_bytes",
                file.max_request_bytes.unwrap_or(32 << 20),
                1 << 10,
            )?,
            max_connections: at_least("max_connections", file.max_connections.unwrap_or(4096), 1)?,
            drain: Duration::from_secs(file.drain_seconds.unwrap_or(30)),
            probe: Duration::from_secs(at_least(
                "probe_seconds",
                file.probe_seconds.unwrap_or(15),
                1,
            )?),
            admin_group: file.admin_group.unwrap_or_else(|| "hearth-admin".into()),
            log: file.log.unwrap_or_else(|| "info".into()),
            engine,
            of_model: models(file.model)?,
            pull: PullConfig {
                streams: at_least("pull.streams", file.pull.streams.unwrap_or(8), 1)?,
                bytes_per_second: NonZeroU64::new(file.pull.bytes_per_second.unwrap_or(0)),
                stall: Duration::from_secs(at_least(
                    "pull.stall_seconds",
                    file.pull.stall_seconds.unwrap_or(30),
                    1,
                )?),
                mirrors: mirrors(file.pull.mirrors.unwrap_or_default())?,
                credentials: file.pull.credentials.unwrap_or_default(),
                key: key_file(args),
                uploads: state_dir(args).map(|dir| dir.join("uploads")),
            },
            http: http(file.http)?,
            sandbox: file
                .sandbox
                .on
                .unwrap_or(cfg!(target_os = "linux"))
                .then(|| Sandbox { devices: file.sandbox.devices.unwrap_or_default() }),
        })
    }
}

fn mirrors(texts: HashMap<String, Vec<String>>) -> anyhow::Result<HashMap<String, Vec<Url>>> {
    let url = |text: &String| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(url),
        _ => bail!("`pull.mirrors` names `{text}`, which is no URL with `https` or `http`"),
    };
    let of_host = |(host, texts): (String, Vec<String>)| {
        Ok((host, texts.iter().map(url).collect::<anyhow::Result<_>>()?))
    };
    texts.into_iter().map(of_host).collect()
}

fn at_least<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T) -> anyhow::Result<T> {
    if value < least {
        bail!("`{key}` is {value}, and must be at least {least}");
    }
    Ok(value)
}

fn models(models: BTreeMap<String, FileModel>) -> anyhow::Result<BTreeMap<ModelName, ModelConfig>> {
    models
        .into_iter()
        .map(|(name, FileModel { draft, mtp, kv_type, flash_attention })| {
            let key = format!("model.\"{name}\"");
            let name = name.parse().with_context(|| format!("`{key}` names no model"))?;
            let draft = draft.map(|draft| draft.parse()).transpose();
            let draft = draft.with_context(|| format!("`{key}.draft` names no model"))?;
            let attention = attention(&key, kv_type.as_deref(), flash_attention.as_deref())?;
            Ok((name, ModelConfig { draft, mtp: mtp.unwrap_or(false), attention }))
        })
        .collect()
}

fn attention(key: &str, kv_type: Option<&str>, flash: Option<&str>) -> anyhow::Result<Attention> {
    Ok(Attention {
        kv_type: choice(key, "kv_type", kv_type)?,
        flash: choice(key, "flash_attention", flash)?,
    })
}

/// One of the wire's words; `None` for "auto".
fn choice<T: DeserializeOwned>(
    table: &str,
    key: &str,
    text: Option<&str>,
) -> anyhow::Result<Option<T>> {
    let word = text.filter(|text| *text != "auto").map(IntoDeserializer::into_deserializer);
    let chosen = word.map(T::deserialize).transpose();
    chosen.map_err(|error: serde::de::value::Error| {
        anyhow::anyhow!("`{table}.{key}`: {error}, or `auto`")
    })
}

fn parse_mode(text: &str) -> anyhow::Result<u32> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => bail!("`socket_mode` is `{text}`, and must be an octal mode such as \"0660\""),
    }
}

/// As Ollama reads it: a number is seconds, a negative one for ever, or Go's `1h30m`.
fn parse_keep_alive(key: &str, text: &str) -> anyhow::Result<Option<Duration>> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(keep_alive(seconds));
    }
    let (sign, rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    match duration_seconds(rest) {
        Some(seconds) => Ok(keep_alive(sign * seconds)),
        None => bail!(
            "`{key}` is `{text}`, and must be seconds or a duration such as \"10m\" or \"1h30m\"; \"-1\" is for ever"
        ),
    }
}

/// Seconds as on the wire; `None` is for ever.
pub(crate) fn keep_alive(seconds: f64) -> Option<Duration> {
    // Longer than a hundred years is for ever, and so is what is no number.
    if (0.0..3.2e9).contains(&seconds) { Some(Duration::from_secs_f64(seconds)) } else { None }
}

pub(crate) fn duration_seconds(text: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit_len] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_len..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::read::parse;
    use super::*;

    pub(super) fn settle(args: &RunArgs, text: &str) -> anyhow::Result<Config> {
        let file = parse(text)?;
        let found = Found::new(args, &file)?;
        Config::settle(args, file, found)
    }

    #[test]
    fn the_packaged_file_documents_every_key_with_its_default() {
        let text = include_str!("../../packaging/hearth.toml");
        // With every `#key = value` made real, it parses, and settles to the same as an empty file.
        let real: String = text
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let args = RunArgs {
            socket: Some("/s".into()),
            models: Some("/m".into()),
            backends: vec!["/b".into()],
            ..RunArgs::default()
        };
        assert_eq!(settle(&args, &real).unwrap(), settle(&args, "").unwrap());
        let keys =
            real.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        let known = format!("{:?}", FileConfig::default()).matches(": None").count();
        assert_eq!(keys, known, "packaging/hearth.toml misses a key, or names one twice");
    }

    #[test]
    fn a_model_is_given_a_draft_by_any_form_of_its_name() {
        let file = parse("[model.\"big:8b\"]\ndraft = \"small\"\n[model.other]\n").unwrap();
        let models = models(file.model).unwrap();
        let name = |text: &str| text.parse::<ModelName>().unwrap();
        assert_eq!(models[&name("library/big:8b")].draft, Some(name("small:latest")));
        assert_eq!(models[&name("other")], ModelConfig::default());
        assert!(parse("[model.big]\ndrat = \"small\"\n").is_err());
        let bad = parse("[model.big]\ndraft = \"no name\"\n").unwrap();
        let error = super::models(bad.model).unwrap_err().to_string();
        assert!(error.contains("`model.\"big\".draft`"), "{error}");
    }

    #[test]
    fn what_is_said_of_a_model_goes_before_what_is_said_of_all() {
        let settle = |text| settle(&RunArgs::default(), text);
        let config = settle(
            "[engine]\nkv_type = \"q8_0\"\nflash_attention = \"auto\"\n[model.a]\nkv_type = \"f32\"\nflash_attention = \"off\"\n",
        );
        let config = config.unwrap();
        let of = |name: &str| config.attention(&name.parse().unwrap());
        let (kv_type, flash) = (Some(KvType::F32), Some(FlashAttention::Off));
        assert_eq!(of("a"), Attention { kv_type, flash });
        assert_eq!(of("b"), Attention { kv_type: Some(KvType::Q8_0), flash: None });
        let error = settle("[model.a]\nkv_type = \"q3\"\n").unwrap_err().to_string();
        assert!(error.starts_with("`model.\"a\".kv_type`: unknown variant `q3`"), "{error}");
    }

    #[test]
    fn keep_alive_is_read_as_ollama_reads_it() {
        let read = |text| parse_keep_alive("keep_alive", text);
        assert_eq!(read("90").unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(read("1h30m").unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(read("1.5s").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(read("-1").unwrap(), None);
        assert_eq!(read("-1m").unwrap(), None);
        assert!(read("soon").is_err());
        assert!(read("").is_err());
    }
}
