//! The engine on the reference plugin, whose text depends on every token of its memory.

mod caching;
mod constrained;
mod drafting;
mod fairness;
mod guessing;
mod heads;
mod randomized;
mod scheduling;
mod shifting;
mod support;
mod thinking;
