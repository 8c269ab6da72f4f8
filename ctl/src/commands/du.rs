//! `ctl du`: what takes space in the store.

use super::Context;
use super::ls::warn;
use crate::error::CtlError;
use crate::format::bytes;
use hearth_protocol::{Amount, Empty, FolderUsage, StoreUsage, StoreUsageMethod};

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<StoreUsageMethod>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let StoreUsage { stores } = session.read(reply)?;
    for (idx, store) in stores.iter().enumerate() {
        if idx > 0 {
            context.out.line("")?;
        }
        warn(context, &store.problems);
        show(context, store)?;
    }
    Ok(())
}

fn show(context: &Context, store: &FolderUsage) -> Result<(), CtlError> {
    let rows: Vec<[String; 5]> = store
        .models
        .iter()
        .map(|model| {
            let [size, own, shared, linked] =
                [model.size_bytes, model.own_bytes, model.shared_bytes, model.linked_bytes]
                    .map(bytes);
            [model.name.clone(), size, own, shared, linked]
        })
        .collect();
    if !rows.is_empty() {
        context.out.table(["NAME", "SIZE", "OWN", "SHARED", "LINKED"], &rows)?;
        context.out.line("")?;
    }
    context.out.facts(&[
        ("store", format!("{}{}", store.path, if store.read_only { ", only read" } else { "" })),
        ("total", amount(store.total)),
        ("of no model", amount(store.unreferenced)),
        ("unfinished", amount(store.unfinished)),
    ])
}

/// Such as `98.4 MB in 3 files`.
pub(super) fn amount(amount: Amount) -> String {
    let s = if amount.files == 1 { "" } else { "s" };
    format!("{} in {} file{s}", bytes(amount.bytes), amount.files)
}
