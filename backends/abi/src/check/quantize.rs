//! Scenarios about `hearth.quantize/1`.

use super::bench::{Bench, Scratch, Step, ensure, must, must_fail, not_applicable};
use crate::host::{Model, Plugin};
use crate::types::{OpenParams, QuantizeParams, Status};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

fn power(bench: &Bench) -> Step<(Arc<Plugin>, Vec<String>)> {
    let types = bench.plugin.quantize_types();
    if types.is_empty() {
        return not_applicable("this plugin does not quantize");
    }
    Ok((Arc::clone(&bench.plugin), types))
}

fn params(input: &Path, output: &Path, type_name: &str) -> QuantizeParams {
    QuantizeParams {
        input: input.into(),
        output: output.into(),
        type_name: type_name.into(),
        imatrix: None,
        n_threads: 1,
        // The model may be quantized already.
        requantize: true,
    }
}

pub(super) fn quantize(bench: &mut Bench) -> Step {
    let (plugin, types) = power(bench)?;
    let mut known = HashSet::new();
    for name in &types {
        ensure!(!name.trim().is_empty(), "a type has no name");
        ensure!(known.insert(name), "two types have the name `{name}`");
    }
    let scratch = Scratch::new()?;
    let output = scratch.0.join("output.gguf");
    let refuse = |what: &str, params: &QuantizeParams, statuses: &[Status]| {
        must_fail(&format!("quantize {what}"), plugin.quantize(params, &mut |_| true), statuses)
    };
    let missing = params(&scratch.0.join("missing.gguf"), &output, &types[0]);
    refuse("of a missing file", &missing, &[Status::NotFound])?;
    let noise = params(&scratch.file("noise.gguf", &[0x5a; 4096])?, &output, &types[0]);
    refuse("of noise", &noise, &[Status::BadModel])?;

    let input = bench.model_path()?.to_owned();
    let unknown = params(&input, &output, "hearth-check-no-such-type");
    refuse("to an unknown type", &unknown, &[Status::InvalidArgument])?;
    let imatrix = Some(scratch.file("noise.imatrix", &[0x5a; 4096])?);
    let matrix = QuantizeParams { imatrix, ..params(&input, &output, &types[0]) };
    refuse("with noise for a matrix", &matrix, &[Status::InvalidArgument])?;

    let mut fractions = Vec::new();
    let answer = plugin.quantize(&params(&input, &output, &types[0]), &mut |fraction| {
        fractions.push(fraction);
        true
    });
    must(&format!("quantize to {}", types[0]), answer)?;
    ensure!(
        fractions.is_sorted() && fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)),
        "progress is not from 0.0 to 1.0, or goes down: {fractions:?}"
    );
    ensure!(fractions.last() == Some(&1.0), "progress does not end with 1.0");
    let opened = Model::open(&plugin, &OpenParams::new(&output), &mut |_| true);
    let opened = must("model_open of what quantize wrote", opened)?;
    let (found, wanted) = (opened.info().n_params, bench.model()?.info().n_params);
    ensure!(found == wanted, "what quantize wrote has {found} weights, and the input {wanted}");
    Ok(())
}

pub(super) fn cancel(bench: &mut Bench) -> Step {
    let (plugin, types) = power(bench)?;
    let scratch = Scratch::new()?;
    let params = params(bench.model_path()?, &scratch.0.join("output.gguf"), &types[0]);
    let answer = plugin.quantize(&params, &mut |_| false);
    must_fail("quantize that is cancelled", answer, &[Status::Cancelled])
}
