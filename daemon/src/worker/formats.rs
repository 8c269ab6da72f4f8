//! From a request's `format` to a constraint.
//!
//! What rules are compiled with reads the whole vocabulary, which takes a second with a large one and 100 MB. So it is
//! made when the first rule comes, on a thread of its own: requests with rules wait for it, and no others do.

use super::frames::{Job, ToWorker};
use super::prepare::{Todo, refused};
use hearth_abi::PluginError;
use hearth_abi::host::Model;
use hearth_engine::{Constraint, Guide, Rule};
use hearth_protocol::{ErrorKind, Format, RpcError};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Makes constraints for one model.
pub(super) struct Formats<'a> {
    model: &'a Arc<Model>,
    guide: Option<Result<Guide, PluginError>>,
    /// Requests whose rules wait for the guide, oldest first.
    waiting: Vec<ToWorker>,
}

impl<'a> Formats<'a> {
    pub(super) fn new(model: &'a Arc<Model>) -> Self {
        Self { model, guide: None, waiting: Vec::new() }
    }

    /// Keeps a request that has to wait for the guide, and has that made. Answers any other.
    pub(super) fn hold_back(&mut self, frame: ToWorker, done: &Sender<Todo>) -> Option<ToWorker> {
        let ToWorker::Submit { job, .. } = &frame else { return Some(frame) };
        let format = match job {
            Job::Chat(params) => &params.format,
            Job::Generate(params) => &params.format,
            _ => &None,
        };
        if self.guide.is_some() || matches!(format, None | Some(Format::Gbnf(_))) {
            return Some(frame);
        }
        self.waiting.push(frame);
        if self.waiting.len() == 1 {
            let (model, done) = (Arc::clone(self.model), done.clone());
            let made = super::spawn("guide", move || {
                let _ = done.send(Todo::Guide(Box::new(Guide::new(&model))));
            });
            if let Err(error) = made {
                let failed = PluginError::new(hearth_abi::Status::Failed, error.to_string());
                self.guide = Some(Err(failed));
                return self.waiting.pop();
            }
        }
        None
    }

    /// True if a request was waiting, and now is not.
    pub(super) fn forget(&mut self, request: u64) -> bool {
        let before = self.waiting.len();
        self.waiting
            .retain(|frame| !matches!(frame, ToWorker::Submit { id, .. } if *id == request));
        self.waiting.len() < before
    }

    /// Lets a waiting request think nothing. False if none of this name waits.
    pub(super) fn end_thinking(&mut self, request: u64) -> bool {
        let params = self.waiting.iter_mut().find_map(|frame| match frame {
            ToWorker::Submit { id, job: Job::Chat(params), .. } if *id == request => Some(params),
            _ => None,
        });
        params.map(|params| params.think_tokens = Some(0)).is_some()
    }

    /// Takes the guide, and answers the requests that waited for it.
    pub(super) fn take_guide(&mut self, guide: Result<Guide, PluginError>) -> Vec<ToWorker> {
        self.guide = Some(guide);
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn constraint(&self, format: &Format) -> Result<Constraint, RpcError> {
        let (name, rule) = match format {
            Format::Json => ("json", Rule::Json),
            Format::JsonSchema(schema) => ("json_schema", Rule::JsonSchema(schema)),
            Format::Regex(regex) => ("regex", Rule::Regex(regex)),
            Format::Lark(grammar) => ("lark", Rule::Lark(grammar)),
            // GBNF is the plugin's to read.
            Format::Gbnf(grammar) => {
                let grammar = self.model.grammar(grammar, "root").map_err(refused)?;
                return Ok(Constraint::of_plugin(grammar, None));
            }
        };
        let guide = match &self.guide {
            Some(Ok(guide)) => guide,
            Some(Err(error)) => return Err(refused(error.clone())),
            None => return Err(RpcError::new(ErrorKind::Internal, "no guide was made")),
        };
        guide.compile(rule).map_err(|error| {
            RpcError::new(ErrorKind::InvalidParams, format!("`{name}` cannot be held to: {error}"))
                .with_hint("change or leave out the part it names")
        })
    }
}
