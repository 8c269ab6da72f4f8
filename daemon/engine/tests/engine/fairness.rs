//! Who comes when.

use crate::support::{Collected, model, request, run, text};
use hearth_engine::{Engine, EngineConfig, Event, Failure, Sink};
use std::collections::HashMap;

fn engine(config: EngineConfig) -> Engine {
    Engine::new(&model(&[("eos_one_in", 0_u64.into())]), config).unwrap()
}

#[test]
fn fifty_requests_of_one_do_not_starve_the_one_of_another() {
    let mut engine = engine(EngineConfig { n_parallel: 4, ..EngineConfig::default() });
    let mut sink = Collected::default();
    for id in 0..50 {
        engine.submit(request(id, 1, text(usize::try_from(id).unwrap(), 30), 1000), &mut sink);
    }
    (0..10).for_each(|_| engine.step(&mut sink).unwrap());
    engine.submit(request(99, 2, text(99, 30), 20), &mut sink);
    let mut n_steps = 0;
    while !sink.ended.contains_key(&99) {
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        n_steps += 1;
    }
    assert!(sink.ended.len() == 1, "somebody else ended before");
    assert!(n_steps <= 20 + 3, "it took {n_steps} steps");
    // Whoever had to make way goes on where it was, and all have what they asked for.
    run(&mut engine, &mut sink);
    assert!((0..50).all(|id| sink.finish(id).n_generated == 1000));
}

#[test]
fn prompts_of_one_owner_are_served_oldest_first_and_of_two_in_turns() {
    let mut engine = engine(EngineConfig { n_batch: 32, ..EngineConfig::default() });
    let mut sink = Collected::default();
    for (id, owner) in [(0, 1), (1, 1), (2, 2)] {
        engine.submit(request(id, owner, text(usize::try_from(id).unwrap(), 640), 1), &mut sink);
    }
    let mut order = Vec::new();
    while !engine.is_idle() {
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        order.extend(
            sink.ended.keys().filter(|id| !order.contains(*id)).copied().collect::<Vec<_>>(),
        );
        if !sink.ended.contains_key(&0) && !sink.ended.contains_key(&2) {
            let (first, second) = (sink.prefilled.get(&0), sink.prefilled.get(&2));
            let (first, second) = (first.map_or(0, |n| *n), second.map_or(0, |n| *n));
            assert!(first.abs_diff(second) <= 64, "{first} and {second}");
            assert!(!sink.prefilled.contains_key(&1), "the younger went before the older");
        }
    }
    assert_eq!(order.last(), Some(&1), "{order:?}");
}

#[test]
fn a_full_queue_refuses_its_own_owner_and_nobody_else() {
    let config = EngineConfig { n_parallel: 1, max_waiting: 2, ..EngineConfig::default() };
    let mut engine = engine(config);
    let mut sink = Collected::default();
    for id in 0..4 {
        engine.submit(request(id, 1, text(0, 5), 5), &mut sink);
    }
    assert_eq!(sink.ended[&2], Err(Failure::Overloaded { n_waiting: 2 }));
    assert_eq!(sink.ended[&3], Err(Failure::Overloaded { n_waiting: 2 }));
    engine.submit(request(4, 2, text(0, 5), 5), &mut sink);
    assert!(!sink.ended.contains_key(&4));
    run(&mut engine, &mut sink);
    assert!(sink.ended[&4].is_ok());
}

#[derive(Default)]
struct Places(HashMap<u64, Vec<(u32, bool)>>);

impl Sink for Places {
    fn event(&mut self, id: u64, event: Event<'_>) {
        if let Event::Queued { place, wait } = event {
            self.0.entry(id).or_default().push((place, wait.is_some()));
        }
    }
}

#[test]
fn who_waits_is_told_its_place_and_soon_how_long() {
    let mut engine = engine(EngineConfig { n_parallel: 1, ..EngineConfig::default() });
    let mut sink = Places::default();
    for id in 0..4 {
        engine.submit(request(id, 1, text(0, 5), 5), &mut sink);
    }
    while !engine.is_idle() {
        engine.step(&mut sink).unwrap();
    }
    assert!(!sink.0.contains_key(&0));
    assert_eq!(sink.0[&1], [(1, false)]);
    assert_eq!(sink.0[&2], [(2, false), (1, true)]);
    assert_eq!(sink.0[&3], [(3, false), (2, true), (1, true)]);
}
