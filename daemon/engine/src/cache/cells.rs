//! Whose KV cells are whose: the prefix tree of all sequences in memory.
//!
//! A copied prefix takes no cells of its own, so cells are counted by segments: runs of tokens that are in memory once and
//! belong to one or more sequences. Where two sequences part, the segment is split. The segments of a sequence, one after
//! the other, are its tokens; all segments together are the tree.
//!
//! **Invariant.** Each segment is non-empty, and its users are exactly the sequences that list it.

use std::ops::Range;

/// Index into [`Cells::segments`].
type SegmentId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    len: usize,
    /// Sequences that hold it; 0: a hole in the list, free for a new segment.
    n_users: usize,
}

/// The segments of every sequence.
#[derive(Debug)]
pub(super) struct Cells {
    segments: Vec<Segment>,
    free: Vec<SegmentId>,
    /// Per sequence number.
    paths: Vec<Vec<SegmentId>>,
    n_used: usize,
}

impl Cells {
    pub(super) fn new(n_sequences: usize) -> Self {
        let paths = (0..n_sequences).map(|_| Vec::new()).collect();
        Self { segments: Vec::new(), free: Vec::new(), paths, n_used: 0 }
    }

    /// Cells in use, shared ones counted once.
    pub(super) fn n_used(&self) -> usize {
        self.n_used
    }

    /// Cells that at least one of the sequences holds.
    pub(super) fn n_used_by(&self, is_one: impl Fn(usize) -> bool) -> usize {
        let held = |id: &SegmentId| {
            (0..self.paths.len())
                .any(|sequence| is_one(sequence) && self.paths[sequence].contains(id))
        };
        (0..self.segments.len())
            .filter(|id| self.segments[*id].n_users > 0 && held(id))
            .map(|id| self.segments[id].len)
            .sum()
    }

    pub(super) fn append(&mut self, sequence: usize, n_tokens: usize) {
        if n_tokens == 0 {
            return;
        }
        self.n_used += n_tokens;
        if let Some(last) = self.paths[sequence].last()
            && self.segments[*last].n_users == 1
        {
            self.segments[*last].len += n_tokens;
            return;
        }
        let id = self.add(Segment { len: n_tokens, n_users: 1 });
        self.paths[sequence].push(id);
    }

    /// Lets the empty sequence `to` begin with `len` tokens of `from`.
    pub(super) fn share(&mut self, from: usize, to: usize, len: usize) {
        let n_segments = self.split_at(from, len);
        let path = self.paths[from][..n_segments].to_vec();
        for id in &path {
            self.segments[*id].n_users += 1;
        }
        self.paths[to] = path;
    }

    /// Cuts a sequence back to `len` tokens.
    pub(super) fn cut(&mut self, sequence: usize, len: usize) {
        self.take_out(sequence, len..usize::MAX);
    }

    /// Takes tokens out of a sequence.
    pub(super) fn take_out(&mut self, sequence: usize, range: Range<usize>) {
        let start = self.split_at(sequence, range.start);
        let end = self.split_at(sequence, range.end);
        let out: Vec<_> = self.paths[sequence].drain(start..end).collect();
        for id in out {
            let segment = &mut self.segments[id];
            segment.n_users -= 1;
            if segment.n_users == 0 {
                self.n_used -= segment.len;
                self.free.push(id);
            }
        }
    }

    /// The other sequences that hold cells of this one from its token `from` on.
    pub(super) fn sharers(&mut self, sequence: usize, from: usize) -> Vec<usize> {
        let n_before = self.split_at(sequence, from);
        let own = &self.paths[sequence][n_before..];
        let shares = |path: &Vec<SegmentId>| path.iter().any(|id| own.contains(id));
        let others = (0..self.paths.len()).filter(|other| *other != sequence);
        others.filter(|other| shares(&self.paths[*other])).collect()
    }

    /// Makes a border at `len` tokens of a sequence. Answers how many of its segments lie before.
    fn split_at(&mut self, sequence: usize, len: usize) -> usize {
        let mut left = len;
        for at in 0..self.paths[sequence].len() {
            let id = self.paths[sequence][at];
            let segment = self.segments[id];
            if left == 0 {
                return at;
            }
            if left < segment.len {
                let tail = self.add(Segment { len: segment.len - left, n_users: segment.n_users });
                self.segments[id].len = left;
                for path in &mut self.paths {
                    if let Some(place) = path.iter().position(|other| *other == id) {
                        path.insert(place + 1, tail);
                    }
                }
                return at + 1;
            }
            left -= segment.len;
        }
        self.paths[sequence].len()
    }

    fn add(&mut self, segment: Segment) -> SegmentId {
        match self.free.pop() {
            Some(id) => {
                self.segments[id] = segment;
                id
            }
            None => {
                self.segments.push(segment);
                self.segments.len() - 1
            }
        }
    }

    /// Panics unless the invariant holds and every sequence has as many tokens as told.
    pub(super) fn verify_invariants(&self, len_of: impl Fn(usize) -> usize) {
        let mut n_users = vec![0; self.segments.len()];
        for (sequence, path) in self.paths.iter().enumerate() {
            let len: usize = path.iter().map(|id| self.segments[*id].len).sum();
            assert_eq!(len, len_of(sequence), "sequence {sequence} is counted wrongly");
            path.iter().for_each(|id| n_users[*id] += 1);
        }
        let mut n_used = 0;
        for (id, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.n_users, n_users[id], "segment {id} has other users");
            if segment.n_users > 0 {
                assert!(segment.len > 0, "segment {id} is empty");
                n_used += segment.len;
            } else {
                assert!(self.free.contains(&id), "segment {id} is lost");
            }
        }
        assert_eq!(n_used, self.n_used, "the cells in use are counted wrongly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[derive(Debug, Clone)]
    enum Operation {
        Append(usize, usize),
        Share(usize, usize, usize),
        Cut(usize, usize),
        TakeOut(usize, usize, usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            3 => (0_usize..5, 0_usize..9).prop_map(|(s, n)| Operation::Append(s, n)),
            2 => (0_usize..5, 0_usize..5, 0_usize..20).prop_map(|(a, b, n)| Operation::Share(a, b, n)),
            2 => (0_usize..5, 0_usize..20).prop_map(|(s, n)| Operation::Cut(s, n)),
            1 => (0_usize..5, 0_usize..20, 0_usize..9).prop_map(|(s, from, n)| Operation::TakeOut(s, from, n)),
        ]
    }

    proptest! {
        #[test]
        fn cells_are_counted_as_if_each_had_a_number(operations in prop::collection::vec(operation(), 0..60)) {
            let mut cells = Cells::new(5);
            // The plain way: every cell is a number of its own, and a sequence is a list of them.
            let mut plain: Vec<Vec<usize>> = vec![Vec::new(); 5];
            let mut next = 0;
            for operation in operations {
                match operation {
                    Operation::Append(sequence, n) => {
                        cells.append(sequence, n);
                        plain[sequence].extend(next..next + n);
                        next += n;
                    }
                    Operation::Share(from, to, len) if from != to && plain[to].is_empty() => {
                        let len = len.min(plain[from].len());
                        cells.share(from, to, len);
                        plain[to] = plain[from][..len].to_vec();
                    }
                    Operation::Share(..) => {}
                    Operation::Cut(sequence, len) => {
                        let len = len.min(plain[sequence].len());
                        cells.cut(sequence, len);
                        plain[sequence].truncate(len);
                    }
                    Operation::TakeOut(sequence, from, n) => {
                        let from = from.min(plain[sequence].len());
                        let to = (from + n).min(plain[sequence].len());
                        cells.take_out(sequence, from..to);
                        plain[sequence].drain(from..to);
                    }
                }
                let from = plain[0].len() / 2;
                let held = |other: &usize| plain[*other].iter().any(|cell| plain[0][from..].contains(cell));
                prop_assert_eq!(cells.sharers(0, from), (1..5).filter(held).collect::<Vec<_>>());
                cells.verify_invariants(|sequence| plain[sequence].len());
                let all: HashSet<usize> = plain.iter().flatten().copied().collect();
                prop_assert_eq!(cells.n_used(), all.len());
                let some: HashSet<usize> = plain[1].iter().chain(&plain[3]).copied().collect();
                prop_assert_eq!(cells.n_used_by(|sequence| sequence == 1 || sequence == 3), some.len());
            }
        }
    }
}
