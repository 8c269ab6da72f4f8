//! `ctl bench`: how fast a model is here, and with `--tune` which settings were tried and what was kept.

use super::chat::only_model;
use super::{Context, progress};
use crate::error::CtlError;
use hearth_protocol::{BenchFigures, BenchParams, BenchReply, BenchTrial, ModelBench, Tuning};

pub(super) fn run(context: &Context, model: Option<String>, tune: bool) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let model = match model {
        Some(model) => model,
        None => only_model(&mut session)?,
    };
    let params = BenchParams { model, tune, request: None };
    let reply = progress::watch::<ModelBench>(context, &mut session, &params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let reply: BenchReply = session.read(reply)?;
    let BenchFigures { prompt_per_s, first_token_ms, stream_per_s, streams_per_s } = reply.figures;
    context.out.facts(&[
        ("model", format!("{} on {}", reply.model, reply.backend)),
        ("prompt", format!("{prompt_per_s:.0} tokens/s, {} tokens", reply.prompt_tokens)),
        ("first token", format!("{first_token_ms:.0} ms")),
        ("one answer", format!("{stream_per_s:.1} tokens/s")),
        (&format!("{} at once", reply.streams), format!("{streams_per_s:.1} tokens/s together")),
        ("settings", settings(&reply)),
        ("machine", reply.machine.clone()),
    ])?;
    if !tune {
        return Ok(());
    }
    let rows: Vec<[String; 6]> = reply.trials.iter().map(row).collect();
    context.out.line("")?;
    context
        .out
        .table(["TRIED", "PROMPT/S", "ONE/S", "SEVERAL/S", "BESIDE THE BEST", "VERDICT"], &rows)?;
    context.out.line("")?;
    context.out.line(&kept(&reply))
}

fn settings(reply: &BenchReply) -> String {
    let threads = match reply.threads {
        1 => "1 thread".into(),
        n => format!("up to {n} threads"),
    };
    match describe(reply.settings) {
        tuned if tuned.is_empty() => format!("{threads}, the defaults"),
        tuned => format!("{threads}; tuned: {tuned}"),
    }
}

fn describe(settings: Tuning) -> String {
    let Tuning { threads, spin, batch, kv_type, flash_attention } = settings;
    let numbers = [("threads", threads), ("spin", spin), ("batch", batch)];
    let numbers =
        numbers.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?)));
    let kv_type = kv_type.map(|kv_type| format!("KV {kv_type}"));
    let flash = flash_attention.map(|flash| format!("flash attention {flash}"));
    numbers.chain(kv_type).chain(flash).collect::<Vec<_>>().join(", ")
}

fn row(trial: &BenchTrial) -> [String; 6] {
    let BenchFigures { prompt_per_s, stream_per_s, streams_per_s, .. } = trial.figures;
    let verdict = if trial.better {
        "faster"
    } else if trial.highest < 1.0 {
        "slower"
    } else {
        "no clear difference"
    };
    [
        describe(trial.settings),
        format!("{prompt_per_s:.0}"),
        format!("{stream_per_s:.1}"),
        format!("{streams_per_s:.1}"),
        format!("{:.2} ({:.2} to {:.2})", trial.ratio, trial.lowest, trial.highest),
        verdict.into(),
    ]
}

fn kept(reply: &BenchReply) -> String {
    match describe(reply.settings) {
        none if none.is_empty() => {
            "Kept the defaults: nothing was faster by more than noise.".into()
        }
        tuned => format!(
            "Kept {tuned} for later loads: {:.2} times as fast as the defaults, all rates together.",
            reply.gain
        ),
    }
}
