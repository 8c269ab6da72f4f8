//! Decoding: checks a batch to the letter, appends it to the memory, and computes what was asked for.

use crate::images::is_seen;
use crate::memory::Memory;
use crate::model::{ReferenceModel, error};
use crate::rank;
use crate::text::{Entry, View, embed, mix};
use hearth_abi::author::{BatchRef, Context, PartsContext};
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{ContextConfig, ContextInfo, PluginError, Pooling, Result, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAVE_MAGIC: &[u8; 8] = b"hearthR1";
const PART_MAGIC: &[u8; 8] = b"hearthRp";
/// Position, token and salt.
const SAVED_ENTRY_LEN: usize = 4 + 4 + 8;

#[derive(Debug)]
pub(crate) struct ReferenceContext {
    model: Arc<ReferenceModel>,
    config: ContextConfig,
    pooling: Option<Pooling>,
    memory: Memory,
    abort: Arc<AtomicBool>,
    salt: u64,
    n_decodes: u64,
    failed: bool,
    /// It guesses ahead.
    guesses: bool,
    /// Of the last decode: by entry, or by sequence when embeddings are pooled.
    rows: BTreeMap<u32, Vec<f32>>,
}

impl ReferenceContext {
    pub(crate) fn new(model: &Arc<ReferenceModel>, config: &ContextConfig) -> Self {
        let pooling = config.embeddings.map(|pooling| match pooling {
            Pooling::Model => model.settings.pooling,
            pooling => pooling,
        });
        let mut config = config.clone();
        config.n_threads = config.n_threads.max(1);
        config.n_threads_batch = config.n_threads_batch.max(1);
        Self {
            model: Arc::clone(model),
            memory: Memory::new(config.n_ctx as usize, config.n_seq_max as usize),
            config,
            pooling,
            abort: Arc::new(AtomicBool::new(false)),
            salt: 0,
            n_decodes: 0,
            failed: false,
            guesses: false,
            rows: BTreeMap::new(),
        }
    }

    pub(crate) fn attach(&mut self, adapters: &[(&u64, f32)]) {
        self.salt = adapters
            .iter()
            .filter(|(_, scale)| *scale != 0.0)
            .fold(0, |salt, (seed, scale)| salt ^ mix(**seed ^ (u64::from(scale.to_bits()) << 24)));
    }

    /// May be told once, before there is anything in memory; answers for how many tokens in a row.
    pub(crate) fn begin_guessing(&mut self) -> Result<u32> {
        let n_most = self.model.settings.mtp;
        if n_most == 0 || !self.model.with_mtp {
            return Err(error(Status::Unsupported, "the model has nothing to guess ahead with"));
        }
        if self.pooling.is_some() || self.guesses || self.n_decodes > 0 {
            return Err(self.misbehaving("guessing begins once, before the first decode".into()));
        }
        self.guesses = true;
        Ok(n_most)
    }

    /// What greedy decoding would choose behind `next`, but for guesses that are to be wrong.
    pub(crate) fn guess(&self, seq: Seq, next: Token, guesses: &mut [Token]) -> Result<()> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        if !self.guesses {
            return Err(self.misbehaving("guessing was not begun".into()));
        }
        let settings = &self.model.settings;
        let mut pos = self.memory.next_pos(seq);
        let mut entries: Vec<Entry> = self.memory.entries(seq).collect();
        let mut token = next;
        for guess in guesses.iter_mut().take(settings.mtp as usize) {
            if !self.model.is_token(token) {
                return Err(self.misbehaving(format!("`{token}` is no token")));
            }
            entries.push(Entry { pos, token, salt: self.salt });
            pos += 1;
            let view = View::new(settings.seed ^ self.memory.ghost(seq), entries.iter().copied());
            let is_wrong = u64::from(pos.cast_unsigned()).is_multiple_of(settings.mtp_wrong_one_in);
            token = if is_wrong { next } else { view.favourite(settings) };
            *guess = token;
        }
        Ok(())
    }

    /// Adds what was seen in an image, by the positions that it takes.
    pub(crate) fn append_seen(&mut self, seq: Seq, seen: &[Entry], pos: Pos) -> Result<()> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        let next = self.memory.next_pos(seq);
        if pos != next || self.memory.has_gap(seq) || self.pooling.is_some() {
            return Err(self.misbehaving(format!(
                "an image at position {pos} of sequence `{seq}`, where {next} is next"
            )));
        }
        let (n, n_free) = (seen.len(), self.memory.n_free());
        if n > n_free {
            return Err(error(
                Status::NoKvSpace,
                format!("{n} embeddings need room, and {n_free} cells are free"),
            ));
        }
        self.rows.clear();
        for entry in seen {
            self.memory.append(seq, Entry { pos: pos + entry.pos, salt: self.salt, ..*entry });
        }
        Ok(())
    }

    fn misbehaving(&self, message: String) -> PluginError {
        self.model.misbehaving(message)
    }

    fn check_seq(&self, seq: Seq) -> Result<()> {
        if self.memory.exists(seq) {
            return Ok(());
        }
        Err(self.misbehaving(format!(
            "sequence `{seq}` does not exist; there are {}",
            self.config.n_seq_max
        )))
    }

    fn check_defined(&self, seq: Seq) -> Result<()> {
        if self.memory.is_undefined(seq) {
            return Err(self.misbehaving(format!(
                "sequence `{seq}` was not removed after a cancelled decode"
            )));
        }
        Ok(())
    }

    /// Everything that the header asks of a batch. Changes nothing.
    fn check_batch(&self, batch: BatchRef<'_>) -> Result<()> {
        if batch.tokens.len() > self.config.n_batch as usize {
            let (n, most) = (batch.tokens.len(), self.config.n_batch);
            return Err(
                self.misbehaving(format!("the batch has {n} tokens, and {most} is the most"))
            );
        }
        let mut next: BTreeMap<Seq, Pos> = BTreeMap::new();
        for (index, seq) in batch.sequences.iter().copied().enumerate() {
            self.check_seq(seq)?;
            self.check_defined(seq)?;
            if self.memory.has_gap(seq) {
                return Err(self
                    .misbehaving(format!("sequence `{seq}` has a gap, so nothing can follow it")));
            }
            let wanted = next.entry(seq).or_insert_with(|| self.memory.next_pos(seq));
            let found = batch.positions[index];
            if found != *wanted {
                return Err(self.misbehaving(format!(
                    "entry {index} puts position {found} into sequence `{seq}`, where {wanted} is next"
                )));
            }
            *wanted += 1;
            if !self.model.is_token(batch.tokens[index]) {
                return Err(self.misbehaving(format!(
                    "entry {index} is no token; there are {}",
                    self.model.n_vocab()
                )));
            }
            if batch.outputs[index] > 1 {
                return Err(self
                    .misbehaving(format!("entry {index} has an output mark that is not 0 or 1")));
            }
        }
        let (n, n_free) = (batch.tokens.len(), self.memory.n_free());
        if n > n_free {
            return Err(error(
                Status::NoKvSpace,
                format!("{n} tokens need room, and {n_free} cells are free"),
            ));
        }
        Ok(())
    }

    /// Computes for one entry, which is the last of its sequence so far.
    fn compute(&mut self, index: usize, seq: Seq, output: bool) {
        let settings = &self.model.settings;
        let n_embd = settings.embedding_length as usize;
        match self.pooling {
            None if output => {
                let view =
                    View::new(settings.seed ^ self.memory.ghost(seq), self.memory.entries(seq));
                let mut row = vec![0.0; self.model.n_vocab() as usize];
                view.write_logits(settings, &mut row);
                self.rows.insert(u32::try_from(index).unwrap_or(u32::MAX), row);
            }
            Some(Pooling::None) if output => {
                let mut row = vec![0.0; n_embd];
                let mut back = self.memory.entries(seq).rev();
                if let Some(entry) = back.next() {
                    embed(settings.seed, back.next(), entry, &mut row);
                }
                self.rows.insert(u32::try_from(index).unwrap_or(u32::MAX), row);
            }
            _ => {}
        }
    }

    fn pool(&mut self, seq: Seq) {
        let settings = &self.model.settings;
        let entries: Vec<Entry> = self.memory.entries(seq).collect();
        let range = match self.pooling {
            None | Some(Pooling::None) => return,
            Some(Pooling::Cls) => 0..1,
            Some(Pooling::Last) => entries.len() - 1..entries.len(),
            Some(Pooling::Mean | Pooling::Model) => 0..entries.len(),
        };
        if settings.ranks {
            self.rows.insert(seq.cast_unsigned(), vec![rank::score(&entries)]);
            return;
        }
        let mut row = vec![0.0; settings.embedding_length as usize];
        for index in range.clone() {
            let before = index.checked_sub(1).map(|before| entries[before]);
            embed(settings.seed ^ self.memory.ghost(seq), before, entries[index], &mut row);
        }
        #[allow(clippy::cast_precision_loss)]
        // A mean over millions of tokens may be off by a rounding.
        row.iter_mut().for_each(|value| *value /= range.len() as f32);
        self.rows.insert(seq.cast_unsigned(), row);
    }

    fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// Waits, and looks every millisecond whether it was aborted.
    fn wait(&self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) =
            end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            if self.is_aborted() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
    }

    fn misfortune(&mut self) -> Result<()> {
        let settings = &self.model.settings;
        let is_due = |after: Option<u64>| after.is_some_and(|after| self.n_decodes >= after);
        if is_due(settings.crash_after) {
            std::process::abort();
        }
        if is_due(settings.fail_decode_after) {
            self.failed = true;
            return Err(error(Status::Failed, "the model asks for this decode to fail"));
        }
        if settings.no_memory_at == Some(self.n_decodes) {
            self.n_decodes += 1;
            return Err(error(Status::OutOfMemory, "the model asks for memory to be short once"));
        }
        if is_due(settings.hang_after) {
            while settings.hang_hard || !self.is_aborted() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

impl Context for ReferenceContext {
    fn info(&self) -> ContextInfo {
        let settings = &self.model.settings;
        ContextInfo {
            can_roll_back: settings.roll_back,
            can_shift: settings.can_shift,
            can_copy_part: settings.copy_part,
            can_save: settings.can_save,
            can_save_part: settings.can_save && settings.copy_part,
            n_ctx: self.config.n_ctx,
            n_ctx_seq: self.config.n_ctx,
            n_batch: self.config.n_batch,
            n_ubatch: self.config.n_ubatch.min(self.config.n_batch),
            n_seq_max: self.config.n_seq_max,
            n_threads: self.config.n_threads,
            memory_bytes: u64::from(self.config.n_ctx) * 32,
        }
    }

    fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    fn set_threads(&mut self, n_threads: u32, n_threads_batch: u32) -> Result<()> {
        self.config.n_threads = n_threads;
        self.config.n_threads_batch = n_threads_batch;
        Ok(())
    }

    fn decode(&mut self, batch: BatchRef<'_>) -> Result<()> {
        if self.failed {
            return Err(
                self.misbehaving("this context failed before and must be destroyed".to_owned())
            );
        }
        self.check_batch(batch)?;
        self.abort.store(false, Ordering::Relaxed);
        self.misfortune()?;
        self.n_decodes += 1;
        self.rows.clear();
        self.wait(Duration::from_micros(self.model.settings.slow_us_per_decode));
        for index in 0..batch.tokens.len() {
            let (pos, token, seq) =
                (batch.positions[index], batch.tokens[index], batch.sequences[index]);
            self.memory.append(seq, Entry { pos, token, salt: self.salt });
            self.wait(Duration::from_micros(self.model.settings.slow_us_per_token));
            if self.is_aborted() {
                for (seq, pos) in batch.sequences.iter().zip(batch.positions) {
                    self.memory.set_undefined(*seq, *pos);
                }
                self.rows.clear();
                return Err(error(Status::Cancelled, "the decode was aborted"));
            }
            self.compute(index, seq, batch.outputs[index] == 1);
        }
        let mut sequences = batch.sequences.to_vec();
        sequences.sort_unstable();
        sequences.dedup();
        for seq in sequences {
            self.pool(seq);
        }
        Ok(())
    }

    fn logits(&mut self, index: u32) -> Result<&mut [f32]> {
        if self.pooling.is_some() || !self.rows.contains_key(&index) {
            return Err(
                self.misbehaving(format!("the last decode made no logits for entry {index}"))
            );
        }
        Ok(self.rows.get_mut(&index).map(Vec::as_mut_slice).unwrap_or_default())
    }

    fn embedding(&mut self, index: u32) -> Result<&[f32]> {
        if self.pooling.is_none() || !self.rows.contains_key(&index) {
            return Err(self.misbehaving(format!("the last decode made no embedding `{index}`")));
        }
        Ok(self.rows.get(&index).map(Vec::as_slice).unwrap_or_default())
    }

    fn seq_remove(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<()> {
        self.check_seq(seq)?;
        if p0 < 0 || (p1 != -1 && p1 < p0) {
            return Err(self.misbehaving(format!("positions {p0} up to {p1} are no range")));
        }
        let p1 = if p1 == -1 { Pos::MAX } else { p1 };
        let settings = &self.model.settings;
        let n_removed = self.memory.n_between(seq, p0, p1);
        let is_all = n_removed == self.memory.len(seq);
        if n_removed > 0 && !is_all && !settings.roll_back {
            return Err(error(
                Status::Unsupported,
                format!("this memory cannot be cut at position {p0}"),
            ));
        }
        self.memory.remove(seq, p0, p1, settings.kv_lie);
        Ok(())
    }

    fn seq_copy(&mut self, from: Seq, to: Seq, p0: Pos, p1: Pos) -> Result<()> {
        self.check_seq(from)?;
        self.check_seq(to)?;
        self.check_defined(from)?;
        self.check_defined(to)?;
        let next_pos = self.memory.next_pos(from);
        if p0 != 0 || p1 < -1 || p1 > next_pos {
            return Err(
                self.misbehaving(format!("cannot copy positions {p0} up to {p1} of {next_pos}"))
            );
        }
        if self.memory.len(to) > 0 {
            return Err(self.misbehaving(format!(
                "sequence `{to}` is not empty, so it cannot begin with another"
            )));
        }
        let p1 = if p1 == -1 { next_pos } else { p1 };
        if p1 > 0 && p1 < next_pos && !self.model.settings.copy_part {
            return Err(error(Status::Unsupported, "this memory can only copy whole sequences"));
        }
        self.memory.share(from, to, p1);
        Ok(())
    }

    fn seq_shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) -> Result<()> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        if !self.model.settings.can_shift {
            return Err(error(Status::Unsupported, "this memory cannot be shifted"));
        }
        let lands = p0.checked_add(delta).zip(p1.checked_add(delta));
        let Some((low, high)) = lands.filter(|(low, _)| p0 >= 0 && p1 >= p0 && *low >= 0) else {
            return Err(
                self.misbehaving(format!("cannot shift positions {p0} up to {p1} by {delta}"))
            );
        };
        // What stands where the moved entries land or would jump over.
        let hit = if delta < 0 { low..p0 } else { p1..high.max(p1) };
        if self.memory.n_between(seq, hit.start, hit.end) > 0 {
            return Err(
                self.misbehaving(format!("shifting by {delta} collides in sequence `{seq}`"))
            );
        }
        if self.memory.n_shared_between(seq, p0, p1) > 0 {
            return Err(error(
                Status::Unsupported,
                "cells shared with another sequence cannot be shifted",
            ));
        }
        self.memory.shift(seq, p0, p1, delta);
        Ok(())
    }

    fn seq_save_len(&mut self, seq: Seq) -> Result<usize> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        if !self.model.settings.can_save {
            return Err(error(Status::Unsupported, "this memory cannot be saved"));
        }
        Ok(SAVE_MAGIC.len() + self.memory.len(seq) * SAVED_ENTRY_LEN + 8)
    }

    fn seq_save(&mut self, seq: Seq, buffer: &mut [u8]) -> Result<usize> {
        Ok(write_saved(SAVE_MAGIC, self.memory.entries(seq), buffer))
    }

    fn seq_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        self.check_seq(seq)?;
        if !self.model.settings.can_save {
            return Err(error(Status::Unsupported, "this memory cannot be saved"));
        }
        let Some(entries) = read_saved(SAVE_MAGIC, data).filter(|entries| self.are_valid(entries))
        else {
            self.memory.remove(seq, 0, Pos::MAX, false);
            return Err(error(Status::InvalidArgument, "the saved state is damaged"));
        };
        if entries.len() > self.memory.n_free() + self.memory.n_own(seq) {
            return Err(error(
                Status::NoKvSpace,
                format!("the saved state has {} tokens", entries.len()),
            ));
        }
        self.memory.remove(seq, 0, Pos::MAX, false);
        for entry in entries {
            self.memory.append(seq, entry);
        }
        Ok(())
    }
}

impl PartsContext for ReferenceContext {
    fn part_save_len(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<usize> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        self.check_parts()?;
        if p0 < 0 || p0 >= p1 || p1 > self.memory.next_pos(seq) {
            return Err(self.misbehaving(format!(
                "positions {p0} up to {p1} are no part of sequence `{seq}`"
            )));
        }
        let n = self.memory.n_between(seq, p0, p1);
        Ok(PART_MAGIC.len() + n * SAVED_ENTRY_LEN + 8)
    }

    fn part_save(&mut self, seq: Seq, p0: Pos, p1: Pos, buffer: &mut [u8]) -> Result<usize> {
        let part = self.memory.entries(seq).filter(|entry| (p0..p1).contains(&entry.pos));
        Ok(write_saved(PART_MAGIC, part, buffer))
    }

    fn part_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        self.check_seq(seq)?;
        self.check_defined(seq)?;
        self.check_parts()?;
        let next_pos = self.memory.next_pos(seq);
        let fits = |entries: &Vec<Entry>| {
            self.are_valid(entries) && entries.first().is_some_and(|first| first.pos == next_pos)
        };
        let Some(entries) = read_saved(PART_MAGIC, data).filter(fits) else {
            let message = format!("this is no saved part that begins at position {next_pos}");
            return Err(error(Status::InvalidArgument, message));
        };
        let (n, n_free) = (entries.len(), self.memory.n_free());
        if n > n_free {
            let message = format!("{n} tokens need room, and {n_free} cells are free");
            return Err(error(Status::NoKvSpace, message));
        }
        entries.into_iter().for_each(|entry| self.memory.append(seq, entry));
        Ok(())
    }
}

impl ReferenceContext {
    fn check_parts(&self) -> Result<()> {
        match self.info().can_save_part {
            true => Ok(()),
            false => Err(error(Status::Unsupported, "this memory cannot be saved in parts")),
        }
    }

    fn are_valid(&self, entries: &[Entry]) -> bool {
        let is_known = |token| self.model.is_token(token) || is_seen(token);
        entries.iter().all(|entry| entry.pos >= 0 && is_known(entry.token))
            && entries.is_sorted_by(|before, after| {
                before.pos < after.pos || is_seen(after.token) && before.pos == after.pos
            })
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| mix(sum ^ u64::from(*byte)))
}

fn write_saved(magic: &[u8; 8], entries: impl Iterator<Item = Entry>, buffer: &mut [u8]) -> usize {
    let mut saved = magic.to_vec();
    for entry in entries {
        saved.extend(entry.pos.to_le_bytes());
        saved.extend(entry.token.to_le_bytes());
        saved.extend(entry.salt.to_le_bytes());
    }
    saved.extend(checksum(&saved).to_le_bytes());
    buffer.copy_from_slice(&saved);
    saved.len()
}

fn read_saved(magic: &[u8; 8], data: &[u8]) -> Option<Vec<Entry>> {
    let (body, sum) = data.split_last_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (entries, rest) = body.strip_prefix(magic)?.as_chunks::<SAVED_ENTRY_LEN>();
    if !rest.is_empty() {
        return None;
    }
    let entry = |bytes: &[u8; SAVED_ENTRY_LEN]| {
        let (pos, rest) = bytes.split_first_chunk::<4>()?;
        let (token, salt) = rest.split_first_chunk::<4>()?;
        Some(Entry {
            pos: Pos::from_le_bytes(*pos),
            token: i32::from_le_bytes(*token),
            salt: u64::from_le_bytes(salt.try_into().ok()?),
        })
    };
    entries.iter().map(entry).collect()
}
