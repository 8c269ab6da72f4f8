//! The second tier: sequences that are kept in main memory as saved bytes, bounded.
//!
//! A sequence lies there in pieces, one behind the other. Sequences of one owner that begin alike share the pieces that they
//! have in common, so that of a talk that goes on only the news are saved. When room is needed, pieces that nobody asked for
//! longest go first, of those that none stands behind. Who may use a piece is decided by the cache, as for sequences in the
//! KV memory. Where memory is only saved whole, every piece is a first one.
//!
//! **Invariant.** A piece is listed once: by the one before it, which has the same owner, or among the first ones. The bytes
//! counted are the bytes held, and they never exceed the bound.

use super::Entitled;
use crate::images::whole;
use hearth_abi::raw::Token;
use slab::Slab;

pub(super) type PieceId = usize;

#[derive(Debug)]
struct Piece {
    before: Option<PieceId>,
    behind: Vec<PieceId>,
    owner: u32,
    tokens: Vec<Token>,
    data: Vec<u8>,
    last_used: u64,
    /// Slots that are being filled with it, and with what stands before it.
    n_readers: usize,
}

/// Pieces up to this one hold so many tokens that were looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(super) piece: PieceId,
    pub(super) len: usize,
}

#[derive(Debug)]
pub(super) struct Archive {
    pieces: Slab<Piece>,
    first: Vec<PieceId>,
    n_bytes: usize,
    max_bytes: usize,
    clock: u64,
}

impl Archive {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { pieces: Slab::new(), first: Vec::new(), n_bytes: 0, max_bytes, clock: 0 }
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(super) fn piece(&self, piece: PieceId) -> (&[Token], &[u8]) {
        let Piece { tokens, data, .. } = &self.pieces[piece];
        (tokens, data)
    }

    /// All pieces up to this one, the last one first.
    pub(super) fn up_to(&self, piece: PieceId) -> impl Iterator<Item = PieceId> {
        std::iter::successors(Some(piece), |piece| self.pieces[*piece].before)
    }

    /// Tokens of all pieces up to this one.
    pub(super) fn len_up_to(&self, piece: PieceId) -> usize {
        self.up_to(piece).map(|piece| self.pieces[piece].tokens.len()).sum()
    }

    /// What of an owner's holds most of these tokens. `whole`: and nothing else.
    pub(super) fn find(&self, owner: u32, tokens: &[Token], whole: bool) -> Option<Found> {
        let own = self.first.iter().filter(|first| self.pieces[**first].owner == owner);
        own.filter_map(|first| self.follow(*first, tokens, whole)).max_by_key(|found| found.len)
    }

    /// What helps a prompt most. `whole`: a piece can only be used with all its tokens.
    pub(super) fn best(&self, entitled: &Entitled<'_>, only_whole: bool) -> Option<Found> {
        let of = |first: &PieceId| {
            let may_have = entitled.of_owner(self.pieces[*first].owner);
            let Found { piece, len } = self.follow(*first, may_have, only_whole)?;
            Some(Found { piece, len: whole(entitled.prompt, len) })
        };
        self.first.iter().filter_map(of).filter(|found| found.len > 0).max_by_key(|found| found.len)
    }

    fn follow(&self, first: PieceId, tokens: &[Token], whole: bool) -> Option<Found> {
        let mut best: Option<Found> = None;
        let mut open = vec![(first, 0)];
        while let Some((piece, at)) = open.pop() {
            let Piece { tokens: held, behind, .. } = &self.pieces[piece];
            let pairs = held.iter().zip(&tokens[at..]);
            let n_same = pairs.take_while(|(a, b)| a == b).count();
            let len = at + n_same;
            if n_same == held.len() {
                open.extend(behind.iter().map(|next| (*next, len)));
            } else if whole || n_same == 0 {
                continue;
            }
            if best.is_none_or(|best| best.len < len) {
                best = Some(Found { piece, len });
            }
        }
        best
    }

    /// Takes a piece that stands behind another one, or first. False if there is no room for it.
    pub(super) fn add(
        &mut self,
        before: Option<PieceId>,
        owner: u32,
        tokens: Vec<Token>,
        data: Vec<u8>,
    ) -> bool {
        // It is in use while room is made behind it.
        if let Some(before) = before {
            self.hold(before);
        }
        let fits = self.make_room(data.len());
        if let Some(before) = before {
            self.release(before);
        }
        if !fits {
            return false;
        }
        self.clock += 1;
        self.n_bytes += data.len();
        let last_used = self.clock;
        let behind = Vec::new();
        let piece = self.pieces.insert(Piece {
            before,
            behind,
            owner,
            tokens,
            data,
            last_used,
            n_readers: 0,
        });
        self.siblings(before).push(piece);
        true
    }

    fn make_room(&mut self, n_more: usize) -> bool {
        while self.n_bytes + n_more > self.max_bytes {
            let ends = self.pieces.iter();
            let ends = ends.filter(|(_, piece)| piece.behind.is_empty() && piece.n_readers == 0);
            let Some((oldest, _)) = ends.min_by_key(|(_, piece)| piece.last_used) else {
                return false;
            };
            let gone = self.pieces.remove(oldest);
            self.n_bytes -= gone.data.len();
            self.siblings(gone.before).retain(|piece| *piece != oldest);
        }
        true
    }

    fn siblings(&mut self, before: Option<PieceId>) -> &mut Vec<PieceId> {
        match before {
            Some(before) => &mut self.pieces[before].behind,
            None => &mut self.first,
        }
    }

    /// Keeps all pieces up to this one until they are released. They have been asked for.
    pub(super) fn hold(&mut self, piece: PieceId) {
        self.clock += 1;
        self.pieces[piece].n_readers += 1;
        let mut up_to = Some(piece);
        while let Some(piece) = up_to {
            self.pieces[piece].last_used = self.clock;
            up_to = self.pieces[piece].before;
        }
    }

    pub(super) fn release(&mut self, piece: PieceId) {
        self.pieces[piece].n_readers -= 1;
    }

    /// Panics if the invariant does not hold. `readers` are the pieces that are held, as often as they are.
    pub(super) fn verify_invariants(&self, readers: &[PieceId]) {
        let n_bytes: usize = self.pieces.iter().map(|(_, piece)| piece.data.len()).sum();
        assert_eq!(n_bytes, self.n_bytes, "the archive's bytes are counted wrongly");
        assert!(n_bytes <= self.max_bytes, "the archive holds more than it may");
        let mut n_listed = 0;
        let listed = self.pieces.iter().map(|(id, piece)| (Some(id), &piece.behind));
        for (before, list) in listed.chain([(None, &self.first)]) {
            n_listed += list.len();
            for piece in list.iter().map(|piece| &self.pieces[*piece]) {
                assert_eq!(piece.before, before, "a piece stands in a wrong place");
                let owner = before.map_or(piece.owner, |before| self.pieces[before].owner);
                assert_eq!(piece.owner, owner, "a piece stands behind another owner's");
                assert!(!piece.tokens.is_empty(), "a piece is empty");
            }
        }
        assert_eq!(n_listed, self.pieces.len(), "a piece is lost");
        for (id, piece) in &self.pieces {
            let n_readers = readers.iter().filter(|reader| **reader == id).count();
            assert_eq!(piece.n_readers, n_readers, "piece {id} has other readers");
        }
    }
}
