//! The second tier: sequences that are kept in main memory as saved bytes, bounded.
//!
//! An entry is one sequence as it stood when it was saved. Entries are given back by the longest use first of what nobody
//! asked for longest. Who may use an entry is decided by the cache, as for sequences in the KV memory.
//!
//! **Invariant.** The bytes counted are the bytes held, and they never exceed the bound.

use super::Entitled;
use hearth_abi::raw::Token;

/// One saved sequence.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tokens: Vec<Token>,
    pub(super) owner: u32,
    pub(super) data: Vec<u8>,
    last_used: u64,
}

#[derive(Debug)]
pub(super) struct Archive {
    entries: Vec<Entry>,
    n_bytes: usize,
    max_bytes: usize,
    clock: u64,
}

impl Archive {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { entries: Vec::new(), n_bytes: 0, max_bytes, clock: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.max_bytes == 0
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(super) fn len_of(&self, at: usize) -> usize {
        self.entries[at].tokens.len()
    }

    /// This owner has an entry that begins with all of these tokens, and has no others if it is to be `whole`.
    pub(super) fn has(&self, owner: u32, tokens: &[Token], whole: bool) -> bool {
        self.entries.iter().any(|entry| {
            entry.owner == owner
                && entry.tokens.starts_with(tokens)
                && (!whole || entry.tokens.len() == tokens.len())
        })
    }

    /// Takes a sequence. With `supersedes`, entries that are only its beginning go.
    pub(super) fn put(&mut self, owner: u32, tokens: Vec<Token>, data: Vec<u8>, supersedes: bool) {
        if data.len() > self.max_bytes {
            return;
        }
        self.retain(|entry| {
            entry.owner != owner
                || !(entry.tokens == tokens || (supersedes && tokens.starts_with(&entry.tokens)))
        });
        while self.n_bytes + data.len() > self.max_bytes {
            let Some(oldest) = (0..self.entries.len()).min_by_key(|at| self.entries[*at].last_used)
            else {
                return;
            };
            self.n_bytes -= self.entries.swap_remove(oldest).data.len();
        }
        self.clock += 1;
        self.n_bytes += data.len();
        self.entries.push(Entry { tokens, owner, data, last_used: self.clock });
    }

    /// The entry of which most tokens help a prompt, and how many. `whole`: an entry can only be used with all its tokens.
    pub(super) fn best(&self, entitled: &Entitled<'_>, whole: bool) -> Option<(usize, usize)> {
        let usable = self.entries.iter().enumerate().filter_map(|(at, entry)| {
            let len = entitled.prefix_of(entry.owner, &entry.tokens);
            (len > 0 && (!whole || len == entry.tokens.len())).then_some((len, at))
        });
        usable.max().map(|(len, at)| (at, len))
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, at: usize) -> Entry {
        let entry = self.entries.swap_remove(at);
        self.n_bytes -= entry.data.len();
        entry
    }

    /// Puts back what was taken out, and was of use.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.put(entry.owner, entry.tokens, entry.data, false);
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let n_bytes = &mut self.n_bytes;
        self.entries.retain(|entry| {
            let kept = keep(entry);
            if !kept {
                *n_bytes -= entry.data.len();
            }
            kept
        });
    }

    pub(super) fn verify_invariants(&self) {
        let n_bytes: usize = self.entries.iter().map(|entry| entry.data.len()).sum();
        assert_eq!(n_bytes, self.n_bytes, "the archive's bytes are counted wrongly");
        assert!(n_bytes <= self.max_bytes, "the archive holds more than it may");
    }
}
