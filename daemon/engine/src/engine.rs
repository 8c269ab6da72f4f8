//! The loop's body and the list of requests.
//!
//! `waiting` is first come, first served; `running` is oldest first. When memory runs out, kept slots go first, then the
//! youngest running sequence goes back to the head of the queue with its tokens, and is computed again later: nothing that
//! was emitted is lost or repeated. A sequence that runs alone and finds no cell ends with `ContextFull`.

use crate::cache::Cache;
use crate::config::EngineConfig;
use crate::constraint::ConstraintError;
use crate::runner::Runner;
use crate::scheduler::{Pending, Share, plan};
use crate::sequence::{Event, Failure, FinishReason, Request, Sequence, to_u32};
use hearth_abi::host::{Adapter, Context, Model};
use hearth_abi::raw::Token;
use hearth_abi::{ContextConfig, KvType, PluginError, Status};
use std::collections::VecDeque;
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

/// What a token could not be chosen or taken for.
#[derive(Debug)]
enum Trouble {
    Engine(PluginError),
    Request(Failure),
}

impl From<PluginError> for Trouble {
    fn from(error: PluginError) -> Self {
        Self::Engine(error)
    }
}

impl From<ConstraintError> for Trouble {
    fn from(error: ConstraintError) -> Self {
        Self::Request(Failure::Constraint(error.0))
    }
}

/// One model's serving loop.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    model: Arc<Model>,
    runner: Runner,
    cache: Cache,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    pending: Vec<Pending>,
    shares: Vec<Share>,
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
            kv_type: KvType::F16,
        })?;
        let info = context.info();
        config.n_batch = info.n_batch;
        let cache = Cache::new(
            info.n_seq_max as usize,
            info.n_ctx as usize,
            info.can_roll_back,
            info.can_copy_part,
        );
        Ok(Self {
            config,
            model: Arc::clone(model),
            runner: Runner::new(context),
            cache,
            waiting: VecDeque::new(),
            running: Vec::new(),
            pending: Vec::new(),
            shares: Vec::new(),
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

    /// Nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Takes a request, or refuses it with a `Failed` event.
    pub fn submit(&mut self, request: Request, sink: &mut dyn Sink) {
        let n_ctx = self.runner.context.info().n_ctx_seq;
        let n_prompt = to_u32(request.prompt.len());
        let refusal = if n_prompt == 0 {
            Some(Failure::EmptyPrompt)
        } else if n_prompt >= n_ctx {
            Some(Failure::ContextOverflow { n_prompt, n_ctx })
        } else if self.waiting.len() >= self.config.max_waiting {
            Some(Failure::Overloaded { n_waiting: to_u32(self.waiting.len()) })
        } else {
            None
        };
        match refusal {
            Some(failure) => sink.event(request.id, Event::Failed(failure)),
            None => self.waiting.push_back(Sequence::new(request)),
        }
    }

    /// Ends a request with `Failed(Cancelled)`. One that ended already is left alone.
    pub fn cancel(&mut self, id: u64, sink: &mut dyn Sink) {
        if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(at);
        } else if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            if let Some(slot) = sequence.slot {
                self.cache.keep(slot);
            }
        } else {
            return;
        }
        sink.event(id, Event::Failed(Failure::Cancelled));
    }

    /// Schedule, run, sample, emit. Does nothing when idle.
    pub fn step(&mut self, sink: &mut dyn Sink) -> Result<(), Fatal> {
        self.admit(sink).map_err(Fatal)?;
        self.find_cells(sink).map_err(Fatal)?;
        self.schedule();
        if self.shares.is_empty() {
            return Ok(());
        }
        match self.run() {
            Ok(outputs) => {
                self.tell_prefill(sink);
                self.sample(&outputs, sink)
            }
            Err(error) if error.status == Status::NoKvSpace => self.retreat(sink),
            Err(error) => Err(error),
        }
        .map_err(Fatal)
    }

    /// Gives waiting requests a place, in order; the first that does not fit holds back the others.
    fn admit(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        while self.running.len() < self.config.n_parallel as usize
            && let Some(sequence) = self.waiting.front()
        {
            // Room for what is known, and one token of the answer.
            let n_cells = sequence.tokens.len() + 1;
            let Some(placement) = self.cache.find_place(sequence.owner, &sequence.tokens, n_cells)
            else {
                break;
            };
            let (slot, held) =
                self.cache.place(&mut self.runner.context, placement, sequence.owner, n_cells)?;
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            sequence.slot = Some(slot);
            if sequence.admitted.is_none() {
                sequence.admitted = Some(Instant::now());
                sequence.n_cached = held;
            }
            self.running.push(sequence);
        }
        for (place, sequence) in self.waiting.iter_mut().enumerate() {
            let place = to_u32(place + 1);
            if sequence.told_place != Some(place) {
                sequence.told_place = Some(place);
                sink.event(sequence.id, Event::Queued { place });
            }
        }
        Ok(())
    }

    /// Makes sure that every running answer has a cell for its next token.
    fn find_cells(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let mut idx = 0;
        while idx < self.running.len() {
            let Some(slot) = self.running[idx].slot else { break };
            // The tokens it knows are reserved since it was admitted; only answers outgrow that.
            if self.running[idx].tokens.len() - self.cache.len_of(slot) != 1
                || !self.cache.must_grow(slot)
            {
                idx += 1;
            } else if self.cache.make_room(&mut self.runner.context, 1)? {
                self.cache.grow(slot);
                idx += 1;
            } else if !self.preempt()? {
                let sequence = self.running.remove(idx);
                self.finish(sequence, FinishReason::ContextFull, sink);
            }
        }
        Ok(())
    }

    /// Sends the youngest running sequence back to the queue. False if only one runs.
    fn preempt(&mut self) -> Result<bool, PluginError> {
        if self.running.len() < 2 {
            return Ok(false);
        }
        if let Some(mut sequence) = self.running.pop() {
            if let Some(slot) = sequence.slot.take() {
                self.cache.clear(&mut self.runner.context, slot)?;
            }
            self.waiting.push_front(sequence);
        }
        Ok(true)
    }

    fn schedule(&mut self) {
        self.pending.clear();
        for (idx, sequence) in self.running.iter().enumerate() {
            if let Some(slot) = sequence.slot {
                self.pending.push(Pending {
                    idx,
                    n_pending: sequence.tokens.len() - self.cache.len_of(slot),
                });
            }
        }
        plan(&self.config, &self.pending, &mut self.shares);
    }

    /// Computes the shares. Answers where the logits of each completed one are.
    fn run(&mut self) -> Result<Vec<(u64, usize)>, PluginError> {
        self.runner.begin();
        let mut outputs = Vec::with_capacity(self.shares.len());
        for share in &self.shares {
            let sequence = &self.running[share.idx];
            let Some(slot) = sequence.slot else { continue };
            let from = self.cache.len_of(slot);
            let tokens = &sequence.tokens[from..from + share.n_tokens];
            let last = self.runner.add(slot, from, tokens, share.completes);
            if share.completes {
                outputs.push((sequence.id, last));
            }
        }
        self.runner.run()?;
        for share in &self.shares {
            let sequence = &self.running[share.idx];
            let Some(slot) = sequence.slot else { continue };
            let from = self.cache.len_of(slot);
            self.cache.append(slot, &sequence.tokens[from..from + share.n_tokens]);
        }
        Ok(outputs)
    }

    fn tell_prefill(&self, sink: &mut dyn Sink) {
        for share in self.shares.iter().filter(|share| share.n_tokens > 1 || !share.completes) {
            let sequence = &self.running[share.idx];
            if let (Some(slot), 0) = (sequence.slot, sequence.n_generated()) {
                let done = to_u32(self.cache.len_of(slot));
                sink.event(sequence.id, Event::Prefill { done, total: to_u32(sequence.n_prompt) });
            }
        }
    }

    /// The plugin found less room than was counted: first all kept memory goes, then the youngest sequence.
    fn retreat(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let whole = self.cache.give_up_kept(&mut self.runner.context)?;
        if !whole && !self.preempt()? && !self.running.is_empty() {
            let sequence = self.running.remove(0);
            self.finish(sequence, FinishReason::ContextFull, sink);
        }
        Ok(())
    }

    fn sample(&mut self, outputs: &[(u64, usize)], sink: &mut dyn Sink) -> Result<(), PluginError> {
        for (id, output) in outputs {
            let Some(at) = self.running.iter().position(|sequence| sequence.id == *id) else {
                continue;
            };
            let end = match self.pick(at, *output) {
                Ok(Some(token)) => self.emit(at, token, sink),
                // The logits are no numbers.
                Ok(None) => Ok(Some(FinishReason::End)),
                Err(error) => Err(error),
            };
            match end {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    let sequence = self.running.remove(at);
                    self.finish(sequence, reason, sink);
                }
                Err(Trouble::Request(failure)) => {
                    let mut sequence = self.running.remove(at);
                    sink.event(sequence.id, Event::Failed(failure));
                    if let Some(slot) = sequence.slot.take() {
                        self.cache.keep(slot);
                    }
                }
                Err(Trouble::Engine(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn pick(&mut self, at: usize, output: usize) -> Result<Option<Token>, Trouble> {
        let sequence = &mut self.running[at];
        let logits = self.runner.context.logits(output)?;
        sequence.sampler.prepare(logits);
        let picked = sequence.sampler.pick(logits);
        let (Some(constraint), Some(token)) = (&mut sequence.constraint, picked) else {
            return Ok(picked);
        };
        // Most of the time the free choice is allowed, and asking about one token is cheap.
        if constraint.allows(token)? {
            return Ok(picked);
        }
        constraint.mask(logits)?;
        let picked = sequence.sampler.pick(logits);
        picked.map(Some).ok_or_else(|| {
            ConstraintError("no token that may come has a probability".into()).into()
        })
    }

    /// Takes a chosen token. Answers why the sequence ends, if it does.
    fn emit(
        &mut self,
        at: usize,
        token: Token,
        sink: &mut dyn Sink,
    ) -> Result<Option<FinishReason>, Trouble> {
        let sequence = &mut self.running[at];
        sequence.first_token.get_or_insert_with(Instant::now);
        sequence.tokens.push(token);
        sequence.sampler.accept(token);
        if self.model.token_is_end(token) {
            return Ok(Some(FinishReason::End));
        }
        if let Some(constraint) = &mut sequence.constraint {
            constraint.accept(token)?;
        }
        if let Some(logprobs) = sequence.sampler.logprobs(token) {
            sink.event(sequence.id, Event::Logprobs(logprobs));
        }
        let piece = self.model.token_piece(token, sequence.spelled.contains(&token))?;
        let (text, stopped) = sequence.text.push(&piece);
        if !text.is_empty() {
            sink.event(sequence.id, Event::Text(text));
        }
        if stopped {
            return Ok(Some(FinishReason::Stop));
        }
        if sequence.n_generated() >= sequence.max_tokens {
            return Ok(Some(FinishReason::MaxTokens));
        }
        let n_ctx = self.runner.context.info().n_ctx_seq as usize;
        Ok((sequence.tokens.len() >= n_ctx).then_some(FinishReason::ContextFull))
    }

    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason, sink: &mut dyn Sink) {
        if reason != FinishReason::Stop {
            let rest = sequence.text.finish();
            if !rest.is_empty() {
                sink.event(sequence.id, Event::Text(rest));
            }
        }
        sink.event(sequence.id, Event::Done(sequence.finish(reason)));
        if let Some(slot) = sequence.slot.take() {
            self.cache.keep(slot);
        }
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
        assert!(
            self.waiting.len() <= self.config.max_waiting + self.config.n_parallel as usize,
            "the queue is too long"
        );
        self.cache.verify_invariants(&running);
    }
}
