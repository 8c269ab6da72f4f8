//! The command line. What is written here is what `--help` says.

use crate::format::{parse_keep_alive, parse_number};
use clap::{Parser, Subcommand};
use hearth_protocol::{ImportMode, KeepAlive, Options};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Sockets tried: --socket, else $HEARTH_SOCKET, else $XDG_RUNTIME_DIR/hearth/hearth.sock and then
/run/hearth/hearth.sock. NO_COLOR turns colours off, HEARTH_NO_HISTORY=1 the chat's history file.

Exit codes: 0 done, 1 the daemon or the model said no, 2 the command line is wrong,
3 no daemon answers, 130 interrupted.";

/// Talk to the Hearth daemon
#[derive(Debug, Parser)]
#[command(name = "ctl", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub(crate) socket: Option<PathBuf>,
    /// Print the daemon's reply as JSON; `run`, `pull` and `push` print one event a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Chat with a model
    ///
    /// Without a terminal on stdin, all of stdin is one prompt.
    Chat {
        /// Taken for granted where only one model is loaded, or only one is in the store
        model: Option<String>,
        /// Go on with this session of yours, which the daemon keeps; made if there is none of that name
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
        #[command(flatten)]
        answer: AnswerArgs,
    },
    /// Answer one prompt on stdout
    ///
    /// Where stdin is not a terminal its text follows the prompt after an empty line, as in
    /// `ctl run smollm2 summarise this < report.txt`. Without a prompt, at a terminal, it is `ctl chat`.
    #[command(verbatim_doc_comment)]
    Run {
        /// A model in the store
        model: String,
        /// Several words are joined by spaces
        prompt: Vec<String>,
        #[command(flatten)]
        answer: AnswerArgs,
        /// An image that the prompt is about; may be given several times
        #[arg(long = "image", value_name = "FILE")]
        images: Vec<PathBuf>,
        /// Print so many answers, with a line `---` before each but the first
        #[arg(long, value_name = "NUMBER")]
        candidates: Option<u32>,
    },
    /// List the models in the store
    Ls,
    /// Show facts about a model
    Show {
        /// A model in the store
        model: String,
        #[command(flatten)]
        part: ShowPart,
    },
    /// Write a model to a GGUF file or to an OCI layout
    ///
    /// A GGUF file holds the weights alone. An OCI layout is a folder with everything that makes the model, which other
    /// tools can push to a registry: `skopeo copy oci:FOLDER docker://HOST/NAME`.
    Export {
        /// A model in the store
        model: String,
        /// `FILE.gguf`, `-` for a GGUF file on stdout, or `FOLDER/` for an OCI layout, which may have other models already
        to: String,
        /// Taken from how the destination ends if absent
        #[arg(long)]
        format: Option<ExportFormat>,
    },
    /// Bring a GGUF file into the store, a folder of a model's files, or a model of an OCI layout
    Import {
        /// A GGUF file, a folder with all files of a model, or one as `ctl export` writes it; the daemon must be able to read it
        file: PathBuf,
        /// Made from the file's or folder's name if absent, or that in the layout; a model of that name is replaced
        name: Option<String>,
        #[command(flatten)]
        mode: ImportModeArgs,
    },
    /// Make a model of what a Modelfile says
    ///
    /// FROM names another model, which is pulled if it is not here, a GGUF file, or a folder of safetensors, which is converted.
    /// Paths begin at the Modelfile's folder. What the daemon cannot open is sent to it.
    Create {
        /// The name it gets; a model of that name is replaced
        name: String,
        /// The Modelfile; `-` reads it from stdin
        #[arg(long, short, value_name = "PATH", default_value = "Modelfile")]
        file: PathBuf,
        /// Quantize the weights to this type
        #[arg(long, short, value_name = "TYPE")]
        quantize: Option<String>,
        #[command(flatten)]
        mode: ImportModeArgs,
    },
    /// Make a new model with smaller weights of one in F16, BF16 or F32
    ///
    /// `ctl quantize smollm2:f16 q4_k_m` makes `smollm2:q4_k_m`. A type that there is not lists those there are.
    #[command(verbatim_doc_comment)]
    Quantize {
        /// A model in the store
        model: String,
        /// Such as Q4_K_M, Q8_0 or IQ2_XS
        #[arg(value_name = "TYPE")]
        type_name: String,
        /// That of MODEL with the type in its tag if absent; a model of that name is replaced
        name: Option<String>,
        /// An importance matrix for the model, which the smallest types need; the daemon must be able to read it
        #[arg(long, value_name = "FILE")]
        imatrix: Option<PathBuf>,
        /// Take weights that are quantized already, which loses more
        #[arg(long)]
        requantize: bool,
    },
    /// Give a model one more name
    Cp {
        /// A model in the store
        from: String,
        /// The name it gets too; a model of that name is replaced
        to: String,
    },
    /// Remove models from the store
    ///
    /// What other models have too stays. A model that is loaded is not removed: `ctl stop` it first.
    Rm {
        /// Models in the store
        #[arg(required = true, value_name = "MODEL")]
        models: Vec<String>,
    },
    /// Show what takes space in the store
    Du,
    /// Remove what no model has and what was never finished
    ///
    /// Spares what is in use, what lost its model within the hour, and downloads of the last day.
    Prune {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Read models again, every byte, to find what is missing or damaged
    ///
    /// Ends with 1 if anything is wrong.
    Verify {
        /// Models in the store; all of them if none is given
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
        /// Fetch again what is wrong, from where its model was pulled
        #[arg(long)]
        repair: bool,
    },
    /// Fetch a model from a registry, from Hugging Face or from a URL
    ///
    /// SOURCE is `[http://][host/][namespace/]model[:tag]`, such as `smollm2:135m`, `hf.co/user/repo:Q4_K_M` or
    /// `docker.io/ai/smollm2`; the URL of a GGUF file; or the path of one here, which is imported.
    ///
    /// Ctrl-C keeps what was fetched, and the next pull goes on from there. Pulling again repairs what is damaged.
    #[command(verbatim_doc_comment)]
    Pull {
        /// Where from
        source: String,
        /// Made from the source if absent; a model of that name is replaced
        name: Option<String>,
    },
    /// Send a model to a registry
    ///
    /// Blobs that are there already are not sent. Ollama's registry is to know the daemon's key: the refusal shows it.
    Push {
        /// A model in the store
        model: String,
        /// `[http://][host/][namespace/]model[:tag]`; the model's own name if absent
        target: Option<String>,
        /// Speak without TLS to a registry for which no scheme is written
        #[arg(long)]
        insecure: bool,
    },
    /// List the models in memory
    Ps {
        /// Say where the memory of each goes
        #[arg(long)]
        memory: bool,
    },
    /// Load a model into memory, or keep a loaded one longer
    Load {
        /// A model in the store
        model: String,
        /// A smaller one with the same vocabulary, which guesses ahead where that is faster
        #[arg(long, value_name = "MODEL")]
        draft: Option<String>,
        #[command(flatten)]
        keep_alive: KeepAliveArg,
    },
    /// Take a model out of memory
    Stop {
        /// A loaded model
        model: String,
    },
    /// Measure how fast a model is on this machine
    Bench {
        /// Taken for granted where only one model is loaded, or only one is in the store
        model: Option<String>,
        /// Try other settings, and keep what is faster for later loads; running requests of the model end
        #[arg(long)]
        tune: bool,
    },
    /// Show the backends and why each can or cannot be used
    Backend {
        #[command(subcommand)]
        command: Option<BackendCommand>,
    },
    /// Let the daemon read its configuration again
    ///
    /// Models that are loaded stay as they are. What needs a restart is named.
    Reload,
    /// List, show and remove conversations that the daemon keeps
    #[command(visible_alias = "sessions")]
    Session {
        #[command(subcommand)]
        command: Option<SessionCommand>,
    },
    /// Show facts about the daemon
    Status,
    /// Call any method and print its result
    ///
    /// `ctl rpc rpc.discover` lists them all.
    Rpc {
        /// Such as `daemon.status`
        method: String,
        /// A JSON object; `-` reads it from stdin
        #[arg(default_value = "{}")]
        params: String,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages to a folder
    #[command(hide = true)]
    Man { folder: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    Gguf,
    Oci,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// The same as `ctl backend`
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List your sessions, the one used last first; the same as `ctl session`
    Ls,
    /// Show a session and what was said in it
    Show {
        /// Its name or its id
        session: String,
    },
    /// Give a session another name
    Rename {
        /// Its name or its id
        session: String,
        /// The name it gets
        name: String,
    },
    /// Remove sessions, with what was said in them
    Rm {
        /// Their names or ids
        #[arg(required = true, value_name = "SESSION")]
        sessions: Vec<String>,
    },
}

/// How an answer is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AnswerArgs {
    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "NUMBER", value_parser = parse_number, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// The same seed, prompt and options choose the same tokens
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Most tokens in an answer
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_tokens: Option<u32>,
    /// Leave out the oldest turns where they do not fit the context
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Go on where the context is full, without what is oldest in it
    #[arg(long)]
    pub(crate) shift: bool,
    /// Compute each answer by itself, so that the same seed gives the same one
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Let a reasoning model think first
    #[arg(long, overrides_with = "no_think")]
    pub(crate) think: bool,
    /// Ask a reasoning model not to think
    #[arg(long, overrides_with = "think")]
    pub(crate) no_think: bool,
    #[command(flatten)]
    pub(crate) keep_alive: KeepAliveArg,
    /// Say after each answer how long it took
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl AnswerArgs {
    pub(crate) fn options(&self) -> Options {
        Options {
            temperature: self.temperature,
            seed: self.seed,
            max_tokens: self.max_tokens,
            truncate: self.truncate.then_some(true),
            shift: self.shift.then_some(true),
            deterministic: self.deterministic.then_some(true),
            ..Options::default()
        }
    }

    pub(crate) fn think(&self) -> Option<bool> {
        (self.think || self.no_think).then_some(self.think)
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeepAliveArg {
    /// How long the model stays in memory after its last request: `10m`, `1h30m`, `0`, `forever`
    #[arg(long, value_name = "TIME", value_parser = parse_keep_alive, allow_hyphen_values = true)]
    pub(crate) keep_alive: Option<KeepAlive>,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ImportModeArgs {
    /// Copy the file
    #[arg(long)]
    pub(crate) copy: bool,
    /// Share the file's blocks, or fail where the file system cannot
    #[arg(long)]
    pub(crate) reflink: bool,
    /// Leave the file where it is; moving or changing it later breaks the model
    #[arg(long)]
    pub(crate) link: bool,
}

impl ImportModeArgs {
    pub(crate) fn mode(&self) -> ImportMode {
        match (self.copy, self.reflink, self.link) {
            (true, ..) => ImportMode::Copy,
            (_, true, _) => ImportMode::Reflink,
            (.., true) => ImportMode::Link,
            _ => ImportMode::Auto,
        }
    }
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ShowPart {
    /// Only the chat template
    #[arg(long)]
    pub(crate) template: bool,
    /// Only a Modelfile that makes the same model
    #[arg(long)]
    pub(crate) modelfile: bool,
    /// Only the licence texts
    #[arg(long)]
    pub(crate) license: bool,
    /// Only the file's own metadata
    #[arg(long)]
    pub(crate) metadata: bool,
}

/// The command line's definition.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}
