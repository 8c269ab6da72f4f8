//! How far each two sequences of a context share their beginnings, since llama.cpp does not tell.
//!
//! **Invariant.** Two sequences share no cell at or after the position noted for them.

use hearth_abi::raw::Pos;

/// For each two sequences, the position up to which they may share cells.
#[derive(Debug)]
pub(super) struct Sharing {
    ends: Vec<Vec<Pos>>,
}

impl Sharing {
    pub(super) fn new(n_seq_max: usize) -> Self {
        Self { ends: vec![vec![0; n_seq_max]; n_seq_max] }
    }

    /// The empty sequence `to` begins with `len` positions of `from`, and so with what others share of them.
    pub(super) fn copied(&mut self, from: usize, to: usize, len: Pos) {
        for other in 0..self.ends.len() {
            self.note(to, other, self.ends[from][other].min(len));
        }
        self.note(to, from, len);
    }

    /// Positions p0 <= p < p1 of a sequence are gone.
    pub(super) fn removed(&mut self, seq: usize, p0: Pos, p1: Pos) {
        for other in 0..self.ends.len() {
            if (p0..=p1).contains(&self.ends[seq][other]) {
                self.note(seq, other, p0);
            }
        }
    }

    /// A sequence has what stands from `p0` on to itself.
    pub(super) fn is_own_from(&self, seq: usize, p0: Pos) -> bool {
        self.ends[seq].iter().all(|end| *end <= p0)
    }

    fn note(&mut self, one: usize, other: usize, end: Pos) {
        self.ends[one][other] = end;
        self.ends[other][one] = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_copies_share_what_is_left() {
        let mut sharing = Sharing::new(3);
        sharing.copied(0, 1, 10);
        sharing.copied(1, 2, 6);
        assert!(!sharing.is_own_from(0, 9) && sharing.is_own_from(0, 10));
        assert!(!sharing.is_own_from(2, 5) && sharing.is_own_from(2, 6));
        sharing.removed(1, 0, Pos::MAX);
        assert!(sharing.is_own_from(1, 0));
        // What the first and the last took from the one in the middle is still one thing.
        assert!(!sharing.is_own_from(0, 5) && sharing.is_own_from(0, 6));
    }

    #[test]
    fn a_middle_that_is_gone_parts_only_what_ended_in_it() {
        let mut sharing = Sharing::new(3);
        sharing.copied(0, 1, 10);
        sharing.copied(0, 2, 4);
        sharing.removed(0, 2, 6);
        assert!(!sharing.is_own_from(0, 9) && sharing.is_own_from(0, 10));
        // The third has what ended in it in common with the second still.
        assert!(!sharing.is_own_from(2, 3) && sharing.is_own_from(2, 4));
        sharing.removed(1, 0, Pos::MAX);
        assert!(sharing.is_own_from(2, 2));
    }
}
