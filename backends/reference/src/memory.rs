//! KV memory: cells that sequences share, as llama.cpp's unified cache.
//!
//! A cell holds one token at one position and counts the sequences that use it; a sequence is its cells in rising
//! position. Copying a sequence takes no cells. Every question about a sequence is answered from its cells, never
//! from something remembered beside them, so that wrong bookkeeping by the host shows in the output.

use crate::text::{Entry, mix};
use hearth_abi::raw::{Pos, Seq};

#[derive(Debug, Clone, Copy)]
struct Cell {
    entry: Entry,
    n_users: u32,
}

#[derive(Debug, Clone, Default)]
struct Sequence {
    cells: Vec<usize>,
    /// A cancelled decode left nothing meaningful from here on.
    undefined_from: Option<Pos>,
    /// What a lying memory does not forget.
    ghost: u64,
}

#[derive(Debug)]
pub(crate) struct Memory {
    cells: Vec<Cell>,
    free: Vec<usize>,
    sequences: Vec<Sequence>,
}

/// The index of a sequence that was checked to exist.
fn at(seq: Seq) -> usize {
    usize::try_from(seq).unwrap_or(usize::MAX)
}

impl Memory {
    pub(crate) fn new(n_cells: usize, n_sequences: usize) -> Self {
        let empty = Cell { entry: Entry { pos: 0, token: 0, salt: 0 }, n_users: 0 };
        Self {
            cells: vec![empty; n_cells],
            free: (0..n_cells).rev().collect(),
            sequences: vec![Sequence::default(); n_sequences],
        }
    }

    pub(crate) fn exists(&self, seq: Seq) -> bool {
        at(seq) < self.sequences.len()
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Cells that removing the sequence would free.
    pub(crate) fn n_own(&self, seq: Seq) -> usize {
        self.sequences[at(seq)].cells.iter().filter(|cell| self.cells[**cell].n_users == 1).count()
    }

    pub(crate) fn len(&self, seq: Seq) -> usize {
        self.sequences[at(seq)].cells.len()
    }

    /// The position after the last.
    pub(crate) fn next_pos(&self, seq: Seq) -> Pos {
        self.entries(seq).last().map_or(0, |entry| entry.pos + 1)
    }

    /// Positions are missing before the last.
    pub(crate) fn has_gap(&self, seq: Seq) -> bool {
        let mut next = 0;
        !self.entries(seq).all(|entry| entry.pos <= std::mem::replace(&mut next, entry.pos + 1))
    }

    pub(crate) fn entries(&self, seq: Seq) -> impl DoubleEndedIterator<Item = Entry> {
        self.sequences[at(seq)].cells.iter().map(|cell| self.cells[*cell].entry)
    }

    pub(crate) fn ghost(&self, seq: Seq) -> u64 {
        self.sequences[at(seq)].ghost
    }

    pub(crate) fn is_undefined(&self, seq: Seq) -> bool {
        self.sequences[at(seq)].undefined_from.is_some()
    }

    pub(crate) fn set_undefined(&mut self, seq: Seq, from: Pos) {
        let undefined_from = &mut self.sequences[at(seq)].undefined_from;
        *undefined_from = Some(undefined_from.map_or(from, |before| before.min(from)));
    }

    /// Adds an entry at the end. The caller has made sure that a cell is free.
    pub(crate) fn append(&mut self, seq: Seq, entry: Entry) {
        if let Some(cell) = self.free.pop() {
            self.cells[cell] = Cell { entry, n_users: 1 };
            self.sequences[at(seq)].cells.push(cell);
        }
    }

    /// Entries with a position from `p0` up to `p1`.
    pub(crate) fn n_between(&self, seq: Seq, p0: Pos, p1: Pos) -> usize {
        self.entries(seq).filter(|entry| (p0..p1).contains(&entry.pos)).count()
    }

    /// Removes them; with `lie` they go on to count.
    pub(crate) fn remove(&mut self, seq: Seq, p0: Pos, p1: Pos, lie: bool) {
        let next_pos = self.next_pos(seq);
        let Self { cells, free, sequences } = self;
        let sequence = &mut sequences[at(seq)];
        sequence.cells.retain(|index| {
            let cell = &mut cells[*index];
            let keep = !(p0..p1).contains(&cell.entry.pos);
            if !keep {
                sequence.ghost ^=
                    if lie { mix(u64::from(cell.entry.token.cast_unsigned())) } else { 0 };
                cell.n_users -= 1;
                if cell.n_users == 0 {
                    free.push(*index);
                }
            }
            keep
        });
        if sequence.undefined_from.is_some_and(|from| p0 <= from && p1 >= next_pos) {
            sequence.undefined_from = None;
        }
        if sequence.cells.is_empty() {
            sequence.ghost = 0;
        }
    }

    /// Makes the empty sequence `to` share the entries of `from` below `p1`.
    pub(crate) fn share(&mut self, from: Seq, to: Seq, p1: Pos) {
        let shared: Vec<usize> = self.sequences[at(from)]
            .cells
            .iter()
            .copied()
            .filter(|cell| self.cells[*cell].entry.pos < p1)
            .collect();
        for cell in &shared {
            self.cells[*cell].n_users += 1;
        }
        self.sequences[at(to)].cells = shared;
    }

    /// Entries between two positions that another sequence uses too.
    pub(crate) fn n_shared_between(&self, seq: Seq, p0: Pos, p1: Pos) -> usize {
        let cells = self.sequences[at(seq)].cells.iter().map(|cell| &self.cells[*cell]);
        cells.filter(|cell| (p0..p1).contains(&cell.entry.pos) && cell.n_users > 1).count()
    }

    /// Moves entries that no other sequence uses. The caller has made sure that the order stays.
    pub(crate) fn shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) {
        for cell in &self.sequences[at(seq)].cells {
            let pos = &mut self.cells[*cell].entry.pos;
            if (p0..p1).contains(pos) {
                *pos += delta;
            }
        }
    }
}
