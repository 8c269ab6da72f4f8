//! `model.bench`: how fast a model is here, and with `tune` which settings make it faster.
//!
//! Settings are tried one change at a time, each in turn with the best before it: load, measure, load the other, measure.
//! What seems better is measured as often again before it is believed, and what is believed is kept for later loads.

mod measure;
mod tune;

use super::blocking;
use super::work::{Events, Request, Work};
use crate::supervisor::{Lease, Trial, WorkerState, machine, n_processors, parse_name};
use hearth_protocol::{
    BenchParams, BenchReply, BenchTrial, ErrorKind, ModelBench, ProgressEvent, RpcError, Tuning,
};
use hearth_store::ResolvedModel;
use measure::{N_STREAMS, Sample, Subject, medians};
use std::sync::Arc;
use tune::Verdict;

/// Measurements of each of two settings, and of a model by itself. What seems better is measured as often again.
const ROUNDS: u32 = 3;

impl Work for ModelBench {
    type Event = ProgressEvent<BenchReply>;

    fn name(params: &mut BenchParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: BenchParams,
        events: Events<Self::Event>,
    ) -> Result<BenchReply, RpcError> {
        let daemon = Arc::clone(&request.daemon);
        let name = parse_name(&params.model)?;
        let stores = Arc::clone(&daemon.stores);
        let model = blocking(move || stores.resolve(&name)).await?;
        if params.tune && daemon.config().state.is_none() {
            return Err(RpcError::new(
                ErrorKind::Io,
                "there is no state folder, so what is found could not be kept",
            )
            .with_hint("start `hearthd` with `--state-dir DIR`"));
        }
        tell(&events, "waiting for another measurement", 0, 1).await;
        let _alone = daemon.measuring.lock().await;
        let bench =
            Bench { subject: Subject { request: &request, model: &model }, events: &events };
        let (worker, n_threads) = bench.load().await?;
        let mut reply = BenchReply {
            model: model.name.to_string(),
            backend: worker.worker().backend.clone(),
            threads: n_threads,
            prompt_tokens: 0,
            streams: N_STREAMS,
            settings: worker.worker().tuning,
            machine: daemon.supervisor.backends().await.chosen().map(machine).unwrap_or_default(),
            figures: Default::default(),
            trials: Vec::new(),
            gain: 1.0,
        };
        drop(worker);
        if params.tune {
            bench.tune(&mut reply).await?;
        } else {
            bench.measure(&mut reply).await?;
        }
        Ok(reply)
    }
}

async fn tell(
    events: &Events<ProgressEvent<BenchReply>>,
    stage: impl Into<String>,
    done: u32,
    of: u32,
) {
    // Both are small.
    #[expect(clippy::cast_precision_loss, reason = "both are small")]
    let fraction = done as f32 / of as f32;
    events.tell(ProgressEvent::Progress { stage: stage.into(), fraction }).await;
}

struct Bench<'a> {
    subject: Subject<'a>,
    events: &'a Events<ProgressEvent<BenchReply>>,
}

impl Bench<'_> {
    fn model(&self) -> &ResolvedModel {
        self.subject.model
    }

    /// The loaded model, and the threads it computes with.
    async fn load(&self) -> Result<(Lease, u32), RpcError> {
        let lease =
            self.subject.request.daemon.supervisor.worker(self.model(), Ok(None), None).await?;
        let mut state = lease.worker().state();
        while let Some(fraction) = super::jobs::loading(&mut state).await? {
            let progress = ProgressEvent::Progress { stage: "loading".into(), fraction };
            self.events.tell(progress).await;
        }
        let n_threads = match &*state.borrow() {
            WorkerState::Ready(info) => info.n_threads,
            _ => 0,
        };
        Ok((lease, n_threads))
    }

    async fn measure(&self, reply: &mut BenchReply) -> Result<(), RpcError> {
        tell(self.events, "warming up", 0, 1).await;
        self.subject.warm_up().await?;
        let mut samples = Vec::new();
        for round in 0..ROUNDS {
            tell(self.events, "measuring", round, ROUNDS).await;
            samples.push(self.subject.measure(round).await?);
        }
        fill(reply, &samples);
        Ok(())
    }

    async fn tune(&self, reply: &mut BenchReply) -> Result<(), RpcError> {
        let daemon = &self.subject.request.daemon;
        let restore = Restore { subject: &self.subject };
        // What was kept before may compute with other threads than the defaults.
        let trial = self.load_with(Tuning::default()).await;
        let n_threads = self.load().await?.1;
        drop(trial);
        let config = daemon.config();
        let settled = tune::Settled {
            engine: &config.engine,
            attention: config.attention(&self.model().name),
            spin: std::env::var_os("GOMP_SPINCOUNT").is_some(),
        };
        let changes = tune::changes(n_threads, n_processors(), &settled);
        let mut best = Tuning::default();
        let mut samples = Vec::new();
        for change in changes {
            let settings = tune::changed(best, change);
            let rounds = match self.contest(best, settings, &tune::describe(change)).await {
                // Not every model can have every setting.
                Err(error) if error.kind() == Some(ErrorKind::LoadFailed) => continue,
                rounds => rounds?,
            };
            let verdict = Verdict::of(&rounds);
            let (of_best, of_tried): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
            let Verdict { ratio, lowest, highest } = verdict;
            let (figures, better) = (medians(&of_tried), verdict.is_better());
            reply.trials.push(BenchTrial { settings, figures, ratio, lowest, highest, better });
            if better {
                (best, samples) = (settings, of_tried);
                reply.gain *= ratio;
            } else {
                samples.extend(of_best);
            }
        }
        let weights = self.model().model_digest.hex();
        daemon.supervisor.tuned().keep(&weights, &reply.machine, best).map_err(|error| {
            RpcError::new(ErrorKind::Io, format!("cannot keep what was found: {error}"))
                .with_hint("`hearthd --state-dir DIR` names a folder that the daemon may write")
        })?;
        drop(restore);
        reply.settings = best;
        reply.threads = best.threads.unwrap_or(n_threads);
        if samples.is_empty() {
            return self.measure(reply).await;
        }
        fill(reply, &samples);
        Ok(())
    }

    /// Measures two settings in turn, and again if the new ones seem to be better.
    async fn contest(
        &self,
        best: Tuning,
        tried: Tuning,
        what: &str,
    ) -> Result<Vec<(Sample, Sample)>, RpcError> {
        let mut rounds = Vec::new();
        for stage in ["trying", "confirming"] {
            for round in 0..ROUNDS {
                tell(self.events, format!("{stage} {what}"), round, ROUNDS).await;
                rounds.push(self.round(best, tried, round).await?);
            }
            if !Verdict::of(&rounds).is_better() {
                break;
            }
        }
        Ok(rounds)
    }

    /// Measures two settings, one after the other, in an order that changes with the round.
    async fn round(
        &self,
        best: Tuning,
        tried: Tuning,
        n: u32,
    ) -> Result<(Sample, Sample), RpcError> {
        if n.is_multiple_of(2) {
            let of_best = self.sample(best, n).await?;
            Ok((of_best, self.sample(tried, n).await?))
        } else {
            let of_tried = self.sample(tried, n).await?;
            Ok((self.sample(best, n).await?, of_tried))
        }
    }

    async fn sample(&self, settings: Tuning, n: u32) -> Result<Sample, RpcError> {
        let _trial = self.load_with(settings).await;
        self.subject.warm_up().await?;
        self.subject.measure(n).await
    }

    /// Makes the next load one with these settings.
    async fn load_with(&self, settings: Tuning) -> Trial<'_> {
        let supervisor = &self.subject.request.daemon.supervisor;
        let trial = supervisor.tuned().try_out(&self.model().model_digest.hex(), settings);
        supervisor.unload(&self.model().id.hex()).await;
        trial
    }
}

/// However trying ends, what was tried last is unloaded, so that the next request finds what is kept.
struct Restore<'a> {
    subject: &'a Subject<'a>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let Subject { request, model } = self.subject;
        request.daemon.supervisor.discard(&model.id.hex());
    }
}

fn fill(reply: &mut BenchReply, samples: &[Sample]) {
    reply.figures = medians(samples);
    reply.prompt_tokens = samples.first().map_or(0, |sample| sample.prompt_tokens);
}
