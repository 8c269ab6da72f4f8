//! The loop's body and the list of requests.
//!
//! Each step is schedule → run → sample → emit. When memory runs out, kept slots go first, then the youngest running
//! sequence goes back to the queue with its tokens, and goes on later: nothing that was emitted is lost or repeated. A
//! sequence that runs alone and finds no cell ends with `ContextFull`.

mod admission;
mod answers;
mod looking;
mod scheduling;
mod shifting;

use crate::cache::{Bounds, Cache};
use crate::config::{EngineConfig, within_training};
use crate::constraint::MaskThread;
use crate::guess::{DraftError, Drafter, Guesser, Heads, Lookups, Rules};
use crate::images::{is_cut, is_text, n_positions};
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::runner::Runner;
use crate::scheduler::{Pending, Share};
use crate::sequence::{Event, Failure, FinishReason, Request, Sequence, to_u32};
use crate::threads::Threads;
use hearth_abi::host::{Adapter, Context, Model};
use hearth_abi::{ContextConfig, PluginError, Status};
use std::sync::Arc;
use std::time::Instant;

/// Takes what happens. Called from inside [`Engine::step`], [`Engine::submit`] and [`Engine::cancel`].
pub trait Sink {
    /// Something happened to the request `id`.
    fn event(&mut self, id: u64, event: Event<'_>);
}

/// The context is lost; the engine can do nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the backend failed: {0}")]
pub struct Fatal(pub PluginError);

/// What an engine holds in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Tokens in the KV memory, those that several sequences share counted once.
    pub n_tokens: u32,
    /// Cells that running requests will fill.
    pub n_promised: u32,
    /// Bytes of KV memory and computing buffers; 0 when unknown. What is not used of them may take no memory.
    pub context_bytes: u64,
    /// Bytes of sequences that were saved to main memory.
    pub saved_bytes: u64,
}

/// One model's serving loop.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    model: Arc<Model>,
    runner: Runner,
    cache: Cache,
    pace: Pace,
    threads: Threads,
    ledger: Ledger,
    masks: MaskThread,
    /// In the order in which they are asked.
    guessers: Vec<Box<dyn Guesser>>,
    /// In order of arrival.
    waiting: Vec<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    /// Sequences that may run now. Less than `n_parallel` while the plugin has less room than it said.
    n_places: usize,
    pending: Vec<Pending>,
    /// Owners of answers, and how many each has.
    answering: Vec<(u32, usize)>,
    shares: Vec<Share>,
    outputs: Vec<Output>,
}

/// Where a sequence's logits are: after its last token, then after each drafted one.
#[derive(Debug, Clone, Copy)]
struct Output {
    id: u64,
    index: usize,
    n_drafted: usize,
}

impl Engine {
    /// Creates the KV memory.
    pub fn new(model: &Arc<Model>, mut config: EngineConfig) -> Result<Self, PluginError> {
        config.n_batch = config.n_batch.clamp(1, config.n_ctx);
        config.n_parallel = config.n_parallel.clamp(1, config.n_batch);
        let context = model.context(&ContextConfig {
            n_ctx: config.n_ctx,
            n_batch: config.n_batch,
            n_ubatch: config.n_batch,
            n_seq_max: config.n_parallel + config.n_kept,
            n_threads: config.n_threads,
            n_threads_batch: config.n_threads_batch,
            embeddings: None,
            kv_type: config.kv_type,
            flash_attention: config.flash_attention,
        })?;
        let info = context.info();
        config.n_batch = info.n_batch;
        let bounds = Bounds {
            archive_bytes: config.archive_bytes,
            save_time: config.step_target / 4,
            reuse: config.adapts,
        };
        Ok(Self {
            cache: Cache::new(info, bounds),
            pace: Pace::new(config.step_target),
            threads: Threads::new(info.n_threads),
            ledger: Ledger::default(),
            masks: MaskThread::default(),
            guessers: match config.speculate {
                true => vec![Box::new(Rules::new(model)), Box::<Lookups>::default()],
                false => Vec::new(),
            },
            n_places: config.n_parallel as usize,
            config,
            model: Arc::clone(model),
            runner: Runner::new(context),
            waiting: Vec::new(),
            running: Vec::new(),
            pending: Vec::new(),
            answering: Vec::new(),
            shares: Vec::new(),
            outputs: Vec::new(),
        })
    }

    /// The context's facts.
    pub fn context(&self) -> &Context {
        &self.runner.context
    }

    /// Applies adapters from now on. Called before the first request.
    pub fn attach(&mut self, adapters: &[(Arc<Adapter>, f32)]) -> Result<(), PluginError> {
        self.runner.context.attach(adapters)
    }

    /// Lets another model guess what this one says, wherever that pays. Called before the first request.
    pub fn draft_with(&mut self, draft: &Arc<Model>) -> Result<(), DraftError> {
        let (model, n_threads) = (&self.model, self.threads.in_use());
        if !self.cache.can_roll_back() {
            return Err(DraftError::Memory("the model's"));
        }
        self.guessers.push(Box::new(Drafter::new(model, draft, &self.config, n_threads)?));
        Ok(())
    }

    /// Lets layers of the model's own guess, wherever that pays. Called before the first request, for a model that was opened
    /// with them.
    pub fn draft_with_own_layers(&mut self) -> Result<(), DraftError> {
        if !self.cache.can_roll_back() {
            return Err(DraftError::Memory("the model's"));
        }
        let n_most = self.runner.context.begin_mtp()?;
        self.guessers.push(Box::new(Heads::new(n_most)));
        Ok(())
    }

    /// Nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// What it holds in memory.
    pub fn held(&self) -> Held {
        let (n_used, n_promised) = self.cache.n_cells_held();
        Held {
            n_tokens: to_u32(n_used),
            n_promised: to_u32(n_promised),
            context_bytes: self.runner.context.info().memory_bytes,
            saved_bytes: self.cache.n_archived_bytes() as u64,
        }
    }

    /// Most tokens that one sequence may have, prompt and answer together.
    pub fn max_tokens(&self) -> u32 {
        within_training(&self.model, self.runner.context.info().n_ctx_seq)
    }

    /// Answers can go on where the context is full.
    pub fn can_shift(&self) -> bool {
        self.cache.can_shift()
    }

    /// Takes a request, or refuses it with a `Failed` event.
    pub fn submit(&mut self, request: Request, sink: &mut dyn Sink) {
        let n_ctx = self.max_tokens().min(request.max_context.unwrap_or(u32::MAX));
        let n_prompt = to_u32(request.prompt.len());
        let n_waiting = self.waiting.iter().filter(|other| other.owner == request.owner).count();
        let refusal = if n_prompt == 0 {
            Some(Failure::EmptyPrompt)
        } else if request.prompt.last().is_some_and(|last| !is_text(*last)) {
            Some(Failure::EndsWithImage)
        } else if n_prompt >= n_ctx {
            Some(Failure::ContextOverflow { n_prompt, n_ctx })
        } else if n_waiting >= self.config.max_waiting
            || self.waiting.len() >= self.config.max_waiting * OWNERS_WAITING
        {
            Some(Failure::Overloaded { n_waiting: to_u32(n_waiting) })
        } else {
            None
        };
        match refusal {
            Some(failure) => sink.event(request.id, Event::Failed(failure)),
            None => {
                if self.is_idle() {
                    self.threads.look_anew();
                }
                self.ledger.enter(request.owner);
                let shift = request.shift.filter(|_| self.can_shift());
                self.waiting.push(Sequence::new(Request { shift, ..request }, n_ctx as usize));
            }
        }
    }

    /// Ends a request with `Failed(Cancelled)`. One that ended already is left alone.
    pub fn cancel(&mut self, id: u64, sink: &mut dyn Sink) {
        let sequence = if let Some(at) = self.waiting.iter().position(|other| other.id == id) {
            self.waiting.remove(at)
        } else if let Some(at) = self.running.iter().position(|other| other.id == id) {
            self.running.remove(at)
        } else {
            return;
        };
        self.abandon(sequence, Failure::Cancelled, sink);
    }

    /// Lets a request think no more, but answer.
    pub fn end_thinking(&mut self, id: u64) {
        let mut living = self.waiting.iter_mut().chain(&mut self.running);
        let sequence = living.find(|sequence| sequence.id == id);
        if let Some(thoughts) = sequence.and_then(|sequence| sequence.thoughts.as_mut()) {
            thoughts.close();
        }
    }

    /// Ends a request without an answer. What is in memory of it stays for reuse.
    fn abandon(&mut self, sequence: Sequence, failure: Failure, sink: &mut dyn Sink) {
        sink.event(sequence.id, Event::Failed(failure));
        self.leave(&sequence);
    }

    /// Gives back what a sequence had that has ended.
    fn leave(&mut self, sequence: &Sequence) {
        self.ledger.leave(sequence.owner);
        self.guessers.iter_mut().for_each(|guesser| guesser.forget(sequence.id));
        if let Some(slot) = sequence.slot {
            self.cache.keep(slot);
        }
        self.n_places = self.config.n_parallel as usize;
    }

    /// Schedule, run, sample, emit. Does nothing when idle.
    pub fn step(&mut self, sink: &mut dyn Sink) -> Result<(), Fatal> {
        self.admit(sink).map_err(Fatal)?;
        self.find_cells(sink).map_err(Fatal)?;
        self.restore().map_err(Fatal)?;
        let looked = self.look(sink).and_then(|()| self.schedule());
        if looked.is_ok() && self.shares.is_empty() {
            self.cache.tick();
            return Ok(());
        }
        match looked.and_then(|()| self.run()) {
            Ok(()) => {
                self.tell_prefills(sink);
                self.make_checkpoints().and_then(|()| self.answer(sink))
            }
            Err(error) if error.status == Status::NoKvSpace => self.retreat(sink),
            // Nothing was changed: the step is tried again with the memory that only guesses need.
            Err(error) if error.status == Status::OutOfMemory && self.shed() => Ok(()),
            Err(error) => Err(error),
        }
        .and_then(|()| {
            self.cache.tick();
            self.cache.retire(&mut self.runner.context)
        })
        .map_err(Fatal)
    }

    /// Work for a time without requests: saves one finished sequence. False when there is nothing left to do.
    pub fn tidy(&mut self) -> Result<bool, Fatal> {
        self.cache.save_one(&mut self.runner.context).map_err(Fatal)
    }

    /// Makes sure that every running answer has a cell for its next token.
    fn find_cells(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let mut idx = 0;
        while idx < self.running.len() {
            let Some(slot) = self.running[idx].slot else { break };
            // The tokens it knows are reserved since it was admitted; only answers outgrow that.
            let lacks = self.cache.lacks(slot, 1);
            if self.running[idx].tokens.len() - self.cache.len_of(slot) != 1 || lacks == 0 {
                idx += 1;
            } else if self.cache.make_room(&mut self.runner.context, lacks)? {
                self.cache.reserve(slot, 1);
                idx += 1;
            } else if self.running.len() > 1 {
                self.preempt(self.running.len() - 1);
            } else {
                let sequence = self.running.remove(idx);
                self.finish(sequence, FinishReason::ContextFull, sink);
            }
        }
        Ok(())
    }

    /// Drops what holds memory only to guess. False if nothing does.
    fn shed(&mut self) -> bool {
        let n_guessers = self.guessers.len();
        self.guessers.retain(|guesser| !guesser.holds_memory());
        self.guessers.len() < n_guessers
    }

    /// Computes the shares and notes where their logits are.
    fn run(&mut self) -> Result<(), PluginError> {
        self.runner.begin();
        self.outputs.clear();
        for share in &self.shares {
            let sequence = &mut self.running[share.idx];
            let Some(slot) = sequence.slot else { continue };
            let from = self.cache.len_of(slot);
            let tokens = &sequence.tokens[from..from + share.n_tokens];
            let position = n_positions(&sequence.tokens[..from]);
            let index = self.runner.add(slot, position, tokens, share.completes);
            if share.completes {
                let draft = &sequence.guess[..share.n_drafted];
                if let Some(constraint) = &mut sequence.constraint {
                    constraint.begin(&mut self.masks, draft);
                }
                self.runner.add_draft(slot, position + tokens.len(), draft);
                self.outputs.push(Output { id: sequence.id, index, n_drafted: draft.len() });
            }
        }
        if self.config.adapts
            && let Some(n_threads) = self.threads.adapt()
        {
            self.runner.context.set_threads(n_threads, n_threads)?;
        }
        let start = Instant::now();
        self.runner.run()?;
        let (n_tokens, took) = (self.runner.len(), start.elapsed());
        self.pace.observe(n_tokens, took);
        for share in &self.shares {
            let sequence = &mut self.running[share.idx];
            let Some(slot) = sequence.slot else { continue };
            let from = self.cache.len_of(slot);
            self.cache.append(slot, &sequence.tokens[from..from + share.n_tokens]);
            let draft = &sequence.guess[..share.n_drafted];
            self.cache.append(slot, draft);
            sequence.n_drafted += share.n_drafted;
            self.ledger.charge(sequence.owner, share.n_tokens + share.n_drafted);
        }
        Ok(())
    }

    fn tell_prefills(&self, sink: &mut dyn Sink) {
        self.shares.iter().for_each(|share| self.tell_prefill(share.idx, sink));
    }

    fn tell_prefill(&self, at: usize, sink: &mut dyn Sink) {
        let sequence = &self.running[at];
        if let (Some(slot), 0) = (sequence.slot, sequence.n_generated()) {
            let (done, cached) = (self.cache.len_of(slot), sequence.n_cached);
            let [done, cached, total] = [done, cached, sequence.n_prompt].map(to_u32);
            sink.event(sequence.id, Event::Prefill { done, cached, total });
        }
    }

    fn make_checkpoints(&mut self) -> Result<(), PluginError> {
        if !self.cache.needs_checkpoints() {
            return Ok(());
        }
        for share in self.shares.iter().filter(|share| !share.completes) {
            let sequence = &self.running[share.idx];
            if let Some(slot) = sequence.slot
                && self.cache.len_of(slot) + 1 == sequence.n_prompt
            {
                self.cache.checkpoint(&mut self.runner.context, slot)?;
            }
        }
        Ok(())
    }

    /// The plugin found less room than was counted: first all kept memory goes, then the youngest sequence, and until one
    /// has ended no other takes its place.
    fn retreat(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        if self.cache.give_up_kept(&mut self.runner.context)? {
            return Ok(());
        }
        if self.running.len() > 1 {
            self.preempt(self.running.len() - 1);
            self.n_places = self.running.len();
            self.cache.give_up_kept(&mut self.runner.context)?;
        } else if let Some(sequence) = self.running.pop() {
            self.finish(sequence, FinishReason::ContextFull, sink);
        }
        Ok(())
    }

    /// Panics if the engine's books do not agree with each other.
    pub fn verify_invariants(&self) {
        assert!(
            self.running.len() <= self.config.n_parallel as usize,
            "more sequences run than may"
        );
        let running: Vec<usize> =
            self.running.iter().filter_map(|sequence| sequence.slot).collect();
        assert_eq!(running.len(), self.running.len(), "a running sequence has no slot");
        for sequence in &self.running {
            let Some(slot) = sequence.slot else { continue };
            let held = &self.cache.slot(slot).tokens;
            assert!(
                sequence.tokens.starts_with(held),
                "slot {slot} holds other tokens than its sequence"
            );
            assert!(
                held.len() < sequence.tokens.len(),
                "a running sequence has nothing to compute"
            );
            assert!(sequence.n_sat_out < self.config.n_parallel, "an answer never goes on");
            assert!(
                is_text(sequence.tokens[held.len()]) || sequence.span_at(held.len()).is_some(),
                "a running sequence lacks the image that comes next"
            );
            assert!(!is_cut(&sequence.tokens), "a sequence ends in an image");
            assert_eq!(
                running.iter().filter(|other| **other == slot).count(),
                1,
                "two sequences share slot {slot}"
            );
        }
        assert!(
            self.waiting.iter().all(|sequence| sequence.slot.is_none()),
            "a waiting sequence has a slot"
        );
        let living = self.waiting.iter().chain(&self.running);
        self.ledger.verify_invariants(living.map(|sequence| sequence.owner));
        self.cache.verify_invariants(&running);
        self.guessers.iter().for_each(|guesser| guesser.verify_invariants());
    }
}

/// Requests of all owners together that may wait, as a multiple of what one owner may have.
const OWNERS_WAITING: usize = 4;
