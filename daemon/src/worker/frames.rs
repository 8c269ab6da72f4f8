//! What the daemon and a worker say to each other: length-prefixed JSON over a socket pair.
//!
//! Four bytes of length, little endian, then one [`ToWorker`] or [`FromWorker`]. Both ends are the same build, so nothing
//! here is a promise to anybody. JSON, because requests carry JSON of their own (schemas, tools) and a token's frame
//! costs a microsecond.

use super::preset::Preset;
use crate::sandbox::Sandbox;
use hearth_protocol::{
    ChatParams, ChatReply, Counted, DetokenizeParams, DetokenizeReply, EmbedParams, EmbedReply,
    FlashAttention, GenerateParams, GenerateReply, KvType, Logprob, Rendered, RerankParams,
    RerankReply, RpcError, ScoreParams, ScoreReply, TokenizeParams, TokenizeReply, ToolCall,
    ToolCallDelta, Tuning,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::PathBuf;

/// No frame is longer; a longer one means that the stream is out of step.
pub(crate) const MAX_FRAME: usize = 256 << 20;

/// What to load, and how large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadSpec {
    pub(crate) plugin: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) projector: Option<PathBuf>,
    pub(crate) adapters: Vec<PathBuf>,
    pub(crate) preset: Preset,
    pub(crate) n_ctx: u32,
    pub(crate) n_batch: u32,
    pub(crate) n_parallel: u32,
    pub(crate) n_kept: u32,
    pub(crate) max_waiting: usize,
    pub(crate) n_threads: u32,
    /// `None`: as many as fit.
    pub(crate) n_gpu_layers: Option<u32>,
    pub(crate) use_mmap: bool,
    pub(crate) step_ms: u64,
    pub(crate) archive_bytes: usize,
    pub(crate) speculate: bool,
    pub(crate) kv_type: KvType,
    pub(crate) flash_attention: Option<FlashAttention>,
    /// Layers of the model's own guess ahead.
    pub(crate) mtp: bool,
    pub(crate) draft: Option<DraftSpec>,
    pub(crate) sandbox: Option<Sandbox>,
    /// What of the above was measured; the spin is the process's own.
    pub(crate) tuning: Tuning,
}

/// The model that guesses ahead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DraftSpec {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// A part of the model, which works without it. Anything else was asked for.
    pub(crate) is_own: bool,
}

/// One request's work. Texts of people pass here, so it is never printed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Job {
    Chat(Box<ChatParams>),
    Count(Box<ChatParams>),
    Render(Box<ChatParams>),
    Generate(Box<GenerateParams>),
    Embed(EmbedParams),
    Rerank(RerankParams),
    Score(ScoreParams),
    Tokenize(TokenizeParams),
    Detokenize(DetokenizeParams),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chat(_) => "Chat",
            Self::Count(_) => "Count",
            Self::Render(_) => "Render",
            Self::Generate(_) => "Generate",
            Self::Embed(_) => "Embed",
            Self::Rerank(_) => "Rerank",
            Self::Score(_) => "Score",
            Self::Tokenize(_) => "Tokenize",
            Self::Detokenize(_) => "Detokenize",
        })
    }
}

/// From the daemon. The first is `Load`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    Load(Box<LoadSpec>),
    /// `seed` is used where the caller gave none.
    Submit {
        id: u64,
        owner: u32,
        seed: u64,
        job: Job,
    },
    Cancel {
        id: u64,
    },
    EndThinking {
        id: u64,
    },
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    Loading {
        fraction: f32,
    },
    Loaded(LoadedInfo),
    LoadFailed(RpcError),
    /// The engine has begun a step, and is alive. Said at the first step and now and then after that.
    Working,
    /// The engine has nothing to do.
    Resting,
    /// What the engine holds in memory, when that changed since it was said last: at most as often as `Working`.
    Holds(Holdings),
    Event {
        id: u64,
        event: WorkerEvent,
    },
    Log {
        level: LogLevel,
        text: String,
    },
    /// The engine can do nothing more; the worker ends.
    Fatal {
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Of all engines of a worker together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holdings {
    pub(crate) n_tokens: u32,
    pub(crate) n_promised: u32,
    pub(crate) context_bytes: u64,
    pub(crate) saved_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadedInfo {
    pub(crate) description: String,
    pub(crate) n_ctx: u32,
    /// Most that compute; 0 for a model that writes no text.
    pub(crate) n_threads: u32,
    pub(crate) has_draft: bool,
}

/// Something that happened to a request; `Done` and `Failed` are its last.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum WorkerEvent {
    Queued { place: u32, wait_ms: Option<u64> },
    Prefill { done: u32, cached: u32, total: u32 },
    Reasoning(Piece),
    Delta(Piece),
    ToolCallDelta { candidate: u32, delta: ToolCallDelta },
    ToolCall { candidate: u32, call: ToolCall },
    Done(Box<Reply>),
    Failed(RpcError),
}

/// Text of one answer, and what was asked about its tokens.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) candidate: u32,
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) logprobs: Vec<Logprob>,
}

impl Piece {
    pub(crate) fn new(candidate: u32, text: impl Into<String>) -> Self {
        Self { candidate, text: text.into(), logprobs: Vec::new() }
    }
}

impl WorkerEvent {
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed(_))
    }

    /// The answer that it is a part of.
    pub(crate) fn candidate(&self) -> Option<u32> {
        match self {
            Self::Reasoning(piece) | Self::Delta(piece) => Some(piece.candidate),
            Self::ToolCallDelta { candidate, .. } | Self::ToolCall { candidate, .. } => {
                Some(*candidate)
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for WorkerEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued { .. } => "Queued",
            Self::Prefill { .. } => "Prefill",
            Self::Reasoning(_) => "Reasoning",
            Self::Delta(_) => "Delta",
            Self::ToolCallDelta { .. } => "ToolCallDelta",
            Self::ToolCall { .. } => "ToolCall",
            Self::Done(_) => "Done",
            Self::Failed(_) => "Failed",
        })
    }
}

/// A job's result. `request` and `load_us` of the replies are filled in by the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Chat(ChatReply),
    Count(Counted),
    Render(Rendered),
    Generate(GenerateReply),
    Embed(EmbedReply),
    Rerank(RerankReply),
    Score(ScoreReply),
    Tokenize(TokenizeReply),
    Detokenize(DetokenizeReply),
}

/// Appends a frame to a buffer.
pub(crate) fn encode(frame: &impl Serialize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *buffer, frame)?;
    let len = buffer.len() - start - 4;
    match u32::try_from(len) {
        Ok(prefix) if len <= MAX_FRAME => {
            buffer[start..start + 4].copy_from_slice(&prefix.to_le_bytes());
            Ok(())
        }
        _ => {
            buffer.truncate(start);
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the frame is too long"))
        }
    }
}

/// The length that a prefix announces.
pub(crate) fn frame_len(prefix: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    Ok(len)
}

/// Reads one frame; `None` at the end of the stream.
pub(crate) fn read<T: DeserializeOwned>(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    buffer.resize(frame_len(prefix)?, 0);
    stream.read_exact(buffer)?;
    decode(buffer).map(Some)
}

/// Reads a frame's content. What a client sent may be nested as deeply as the daemon reads, and stands deeper in a frame.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    json.disable_recursion_limit();
    let frame = T::deserialize(&mut json)?;
    json.end()?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let frames = [ToWorker::Cancel { id: 7 }, ToWorker::Cancel { id: 8 }];
        let mut bytes = Vec::new();
        for frame in &frames {
            encode(frame, &mut bytes).unwrap();
        }
        let (mut stream, mut buffer) = (bytes.as_slice(), Vec::new());
        for frame in frames {
            assert_eq!(read::<ToWorker>(&mut stream, &mut buffer).unwrap(), Some(frame));
        }
        assert_eq!(read::<ToWorker>(&mut stream, &mut buffer).unwrap(), None);
    }

    #[test]
    fn a_prefix_out_of_step_is_an_error_before_anything_is_allocated() {
        let mut buffer = Vec::new();
        assert!(read::<ToWorker>(&mut [0xff_u8; 8].as_slice(), &mut buffer).is_err());
        assert_eq!(buffer.capacity(), 0);
    }
}
