//! Opening a model, and what an open one answers.

use crate::context::ReferenceContext;
use crate::gguf::{self, Value};
use crate::grammar::ByteGrammar;
use crate::settings::Settings;
use crate::{text, vocab};
use hearth_abi::author::{
    Backend, GrammarModel, HostLog, LoraModel, Model, chat_table, grammar_table, images_table,
    lora_table, mtp_table, parts_table, quantize_table, rank_table,
};
use hearth_abi::raw::{self, Token};
use hearth_abi::{
    ContextConfig, DeviceInfo, DeviceKind, FlashAttention, KvType, LogLevel, ModelInfo, OpenParams,
    Piece, PluginError, Result, Status,
};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The host that initialised last.
static LOG: Mutex<Option<HostLog>> = Mutex::new(None);

thread_local! {
    /// The host that this thread initialised for. Tests initialise once per thread, and each wants its own lines.
    static OWN_LOG: Cell<Option<HostLog>> = const { Cell::new(None) };
}

pub(crate) fn error(status: Status, message: impl Into<String>) -> PluginError {
    PluginError::new(status, message)
}

#[derive(Debug)]
pub(crate) struct Reference;

impl Backend for Reference {
    const NAME: &'static CStr = c"reference";
    const VERSION: &'static CStr = c"0.1.0";
    const DESCRIPTION: &'static CStr = c"deterministic nonsense for tests, no model";

    type Model = ReferenceModel;

    const CHAT: Option<raw::Chat> = Some(chat_table::<ReferenceModel>());
    const GRAMMAR: Option<raw::GrammarExt> = Some(grammar_table::<ReferenceModel>());
    const IMAGES: Option<raw::Images> = Some(images_table::<ReferenceModel>());
    const MTP: Option<raw::Mtp> = Some(mtp_table::<ReferenceContext>());
    const PARTS: Option<raw::Parts> = Some(parts_table::<ReferenceContext>());
    const RANK: Option<raw::Rank> = Some(rank_table::<ReferenceModel>());
    const LORA: Option<raw::Lora> = Some(lora_table::<ReferenceModel>());
    const QUANTIZE: Option<raw::Quantize> = Some(quantize_table::<Self>());

    fn init(log: HostLog) -> Result<()> {
        OWN_LOG.set(Some(log));
        *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
        Ok(())
    }

    fn deinit() {
        OWN_LOG.set(None);
        *LOG.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn devices() -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            kind: DeviceKind::Cpu,
            memory_total: 0,
            memory_free: 0,
            id: "reference".to_owned(),
            name: "reference".to_owned(),
            detail: "computes hashes, on any machine".to_owned(),
        }])
    }

    fn open(params: &OpenParams, progress: &mut dyn FnMut(f32) -> bool) -> Result<ReferenceModel> {
        let pairs = gguf::read(&params.path)?;
        let settings = settings_of(&pairs)?;
        if settings.lora_seed.or(settings.projector_seed).is_some() {
            return Err(error(
                Status::BadModel,
                format!("`{}` is made for a model, and is none", params.path.display()),
            ));
        }
        if settings.crash_open {
            std::process::abort();
        }
        pass(settings.open_ms, progress)?;
        if settings.fail_open {
            return Err(error(Status::Failed, "the model asks for opening to fail"));
        }
        let log = OWN_LOG.get().or_else(|| *LOG.lock().unwrap_or_else(PoisonError::into_inner));
        let meta =
            pairs.iter().map(|(key, value)| (c_text(key), c_text(&value.to_string()))).collect();
        let has_chat_template = pairs.iter().any(|(key, _)| key == "tokenizer.chat_template");
        Ok(ReferenceModel {
            settings,
            meta,
            has_chat_template,
            vocab_only: params.vocab_only,
            with_mtp: params.with_mtp,
            log,
        })
    }
}

pub(crate) fn settings_of(pairs: &[(String, Value)]) -> Result<Settings> {
    let pairs: Vec<(&str, Value)> =
        pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    Settings::from_pairs(&pairs)
}

/// Takes so long, and answers an error if it is cancelled.
pub(crate) fn pass(ms: u64, progress: &mut dyn FnMut(f32) -> bool) -> Result<()> {
    let whole = Duration::from_millis(ms);
    let begun = Instant::now();
    loop {
        let passed = begun.elapsed();
        let fraction =
            if passed >= whole { 1.0 } else { passed.as_secs_f32() / whole.as_secs_f32() };
        if !progress(fraction) {
            return Err(error(Status::Cancelled, "the work was cancelled"));
        }
        if passed >= whole {
            return Ok(());
        }
        std::thread::sleep((whole - passed).min(Duration::from_millis(5)));
    }
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}

#[derive(Debug)]
pub(crate) struct ReferenceModel {
    pub(crate) settings: Settings,
    meta: Vec<(CString, CString)>,
    has_chat_template: bool,
    vocab_only: bool,
    pub(crate) with_mtp: bool,
    log: Option<HostLog>,
}

impl ReferenceModel {
    pub(crate) fn n_vocab(&self) -> u32 {
        text::n_vocab(&self.settings)
    }

    pub(crate) fn is_token(&self, token: Token) -> bool {
        u32::try_from(token).is_ok_and(|token| token < self.n_vocab())
    }

    fn check_token(&self, token: Token) -> Result<()> {
        if self.is_token(token) {
            return Ok(());
        }
        Err(self.misbehaving(format!("`{token}` is no token; there are {}", self.n_vocab())))
    }

    /// The error for a call that breaks the contract, logged as the host's fault.
    pub(crate) fn misbehaving(&self, message: String) -> PluginError {
        if let Some(log) = self.log {
            log.log(LogLevel::HostMisbehaving, &message);
        }
        error(Status::InvalidArgument, message)
    }
}

impl Model for ReferenceModel {
    type Context = ReferenceContext;

    fn info(&self) -> ModelInfo {
        ModelInfo {
            can_generate: self.settings.can_generate,
            can_embed: self.settings.can_embed,
            has_chat_template: self.has_chat_template,
            n_vocab: self.n_vocab(),
            n_ctx_train: self.settings.context_length,
            n_embd: if self.settings.ranks { 1 } else { self.settings.embedding_length },
            n_layer: self.settings.block_count,
            n_params: 8,
            size_bytes: self.settings.size_bytes,
            bos_token: Some(vocab::BOS),
            eos_token: Some(vocab::EOS),
            add_bos: self.settings.add_bos,
            architecture: crate::settings::ARCHITECTURE.to_owned(),
            description: "reference, no weights".to_owned(),
        }
    }

    fn meta(&self) -> &[(CString, CString)] {
        &self.meta
    }

    fn tokenize(&self, text: &[u8], add_special: bool, parse_special: bool) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if add_special && self.settings.add_bos {
            tokens.push(vocab::BOS);
        }
        tokens.extend(vocab::tokenize(text, parse_special));
        Ok(tokens)
    }

    fn token_piece(&self, token: Token, special: bool) -> Result<Piece> {
        self.check_token(token)?;
        Ok(vocab::piece(token, special))
    }

    fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>> {
        tokens.iter().try_for_each(|token| self.check_token(*token))?;
        Ok(tokens.iter().flat_map(|token| vocab::piece(*token, special)).collect())
    }

    fn token_is_end(&self, token: Token) -> bool {
        vocab::is_end(token)
    }

    fn context(self: &Arc<Self>, config: &ContextConfig) -> Result<ReferenceContext> {
        let unsupported = |what: &str| Err(error(Status::Unsupported, what));
        if self.vocab_only {
            return unsupported("the model was opened for its vocabulary alone");
        }
        match config.embeddings {
            None if !self.settings.can_generate => {
                return unsupported("the model only makes embeddings");
            }
            Some(_) if !self.settings.can_embed => {
                return unsupported("the model makes no embeddings");
            }
            _ => {}
        }
        let is_rounded = matches!(config.kv_type, KvType::Q8_0 | KvType::Q4_0);
        if is_rounded && config.flash_attention == FlashAttention::Off {
            return unsupported("this `kv_type` needs flash attention");
        }
        if config.n_ctx > 1 << 24 || config.n_seq_max > 1 << 16 {
            return Err(error(Status::OutOfMemory, format!("no room for {} cells", config.n_ctx)));
        }
        Ok(ReferenceContext::new(self, config))
    }
}

impl GrammarModel for ReferenceModel {
    type Grammar = ByteGrammar;

    fn grammar(self: &Arc<Self>, text: &str, root: &str) -> Result<ByteGrammar> {
        ByteGrammar::new(text, root)
    }
}

impl LoraModel for ReferenceModel {
    type Adapter = u64;

    fn adapter(self: &Arc<Self>, path: &Path) -> Result<u64> {
        let settings = settings_of(&gguf::read(path)?)?;
        settings
            .lora_seed
            .ok_or_else(|| error(Status::BadModel, format!("`{}` is no adapter", path.display())))
    }

    fn attach(context: &mut ReferenceContext, adapters: &[(&u64, f32)]) -> Result<()> {
        context.attach(adapters);
        Ok(())
    }
}
