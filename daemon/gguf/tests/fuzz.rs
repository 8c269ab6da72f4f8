//! Headers with anything wrong in them: no panic, no more read than there is, and no more memory taken than the bytes deserve.
//!
//! A test of its own, because it counts what the process allocates. A case follows from its number, so that a failure names the
//! one to run again: `HEARTH_FUZZ_FIRST=N HEARTH_FUZZ_CASES=1`. With many cases it is the long run.

use hearth_gguf::{Gguf, TensorInfo, TensorType, Value, Writer};
use std::io::{Read, Seek, SeekFrom};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Of the small seed; of each real one a hundredth of that.
const N_CASES: u64 = 20_000;
const MAX_CHANGES: u64 = 6;

/// What a header of so many bytes may take in all, freed or not. A tensor of 24 bytes has a name, four dimensions, and a place in
/// tables that grow by doubling.
fn allowance(n_bytes: u64) -> u64 {
    (1 << 20) + 64 * n_bytes
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn place(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }
}

/// A header, and nothing but zeros behind it.
struct File {
    header: Vec<u8>,
    len: u64,
    at: u64,
    n_read: u64,
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.header.len());
        let of_header = n.min(self.header.len() - start);
        buffer[..of_header].copy_from_slice(&self.header[start..start + of_header]);
        buffer[of_header..n].fill(0);
        self.at += n as u64;
        self.n_read += n as u64;
        Ok(n)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

/// A header and the length of its file.
type Seed = (Vec<u8>, u64);

/// Something of everything that a header holds.
fn small() -> Seed {
    let texts = |words: &[&str]| Value::Texts(words.iter().map(|word| (*word).into()).collect());
    let metadata = [
        ("general.architecture", Value::Text("llama".into())),
        ("general.alignment", Value::U32(32)),
        ("general.file_type", Value::U32(15)),
        ("llama.block_count", Value::U32(2)),
        ("llama.context_length", Value::U32(4096)),
        ("llama.embedding_length", Value::U32(64)),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.sliding_window", Value::U32(512)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("some.number", Value::I32(-1)),
        ("some.truth", Value::Bool(true)),
        ("tokenizer.chat_template", Value::Text("{{ messages }}".repeat(8))),
        ("tokenizer.ggml.tokens", texts(&["a", "b", "<s>", "\u{2581}the"])),
        ("tokenizer.ggml.scores", Value::F32s(vec![0.0, -1.0, -2.0, -3.0])),
        ("tokenizer.ggml.token_type", Value::I32s(vec![1, 1, 3, 1])),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let tensor = |name: &str, dims: &[u64], tensor_type| {
        TensorInfo::new(name.into(), dims.to_vec(), tensor_type).unwrap()
    };
    let tensors = [
        tensor("token_embd.weight", &[64, 4], TensorType::Q8_0),
        tensor("blk.0.attn_norm.weight", &[64], TensorType::F32),
        tensor("blk.0.attn_k.weight", &[64, 16], TensorType::F16),
        tensor("blk.0.attn_v.weight", &[64, 16], TensorType::BF16),
        tensor("blk.1.ffn_up_exps.weight", &[64, 8, 2], TensorType::Q8_0),
    ];
    let mut header = Vec::new();
    Writer::new(&mut header, &metadata, &tensors).unwrap();
    let len = header.len() as u64 + (1 << 16);
    (header, len)
}

/// The header of a model that the tests of llama.cpp use.
fn real(variable: &str) -> Seed {
    let path = std::env::var_os(variable).expect("run the tests by ./dev");
    let mut file = std::fs::File::open(path).unwrap();
    let gguf = Gguf::read(&mut file).unwrap();
    let mut header = vec![0; usize::try_from(gguf.data_offset).unwrap()];
    file.rewind().unwrap();
    file.read_exact(&mut header).unwrap();
    (header, gguf.file_len)
}

/// Anywhere, or as often among the first keys or the tensors, which have a vocabulary between them.
fn place(random: &mut Random, len: usize) -> usize {
    match random.below(4) {
        0 => random.place(len.min(2048)),
        1 => len.saturating_sub(1 + random.place(len.min(8192))),
        _ => random.place(len),
    }
}

fn change(random: &mut Random, header: &mut Vec<u8>, len: &mut u64) {
    const NUMBERS: [u64; 13] =
        [0, 1, 8, 9, 31, 32, 255, 1 << 16, 1 << 31, u64::MAX >> 32, 1 << 33, 1 << 40, 1 << 62];
    if header.is_empty() {
        return;
    }
    let at = place(random, header.len());
    match random.below(10) {
        0 | 1 => header[at] = u8::try_from(random.below(256)).unwrap(),
        2 => header[at] ^= 1 << random.below(8),
        3..=5 => {
            let number = match random.below(4) {
                0 => header.len() as u64,
                1 => u64::MAX - random.below(64),
                _ => NUMBERS[random.place(NUMBERS.len())],
            };
            let width = if random.below(2) == 0 { 4 } else { 8 };
            let end = header.len().min(at + width);
            header[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        6 => header.truncate(at),
        7 => drop(header.drain(at..header.len().min(at + 1 + random.place(64)))),
        8 => {
            let piece = header[at..header.len().min(at + 1 + random.place(256))].to_vec();
            let to = place(random, header.len());
            header.splice(to..to, piece);
        }
        _ => *len = random.next() >> random.below(64),
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// How many cases were good headers all the same.
fn run(name: &str, seed: &Seed, n_cases: u64) -> u64 {
    let first = number_from("HEARTH_FUZZ_FIRST").unwrap_or(0);
    let mut n_good = 0;
    for case in first..first + n_cases {
        let mut random = Random(case);
        let (mut header, mut len) = seed.clone();
        for _ in 0..=random.below(MAX_CHANGES) {
            change(&mut random, &mut header, &mut len);
        }
        let n_bytes = header.len() as u64;
        let mut file = File { header, len, at: 0, n_read: 0 };
        let before = dhat::HeapStats::get().total_bytes;
        let read = Gguf::read(&mut file).and_then(|gguf| gguf.summary());
        let taken = dhat::HeapStats::get().total_bytes - before;
        let what = format!("case {case} of {name}");
        // What is read behind the header is a header of zeros.
        let held = n_bytes.max(file.n_read);
        assert!(taken <= allowance(held), "{what}: {taken} bytes taken for {held}");
        assert!(file.n_read <= 257 << 20, "{what}: {} bytes read", file.n_read);
        if let Ok(summary) = read {
            n_good += 1;
            if let Some(kv) = summary.kv {
                kv.numbers(u64::MAX, u64::MAX, u64::MAX);
            }
        }
    }
    n_good
}

#[test]
fn whatever_is_wrong_in_a_header_costs_little_and_breaks_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let n_cases = number_from("HEARTH_FUZZ_CASES").unwrap_or(N_CASES);
    let small = ("small", small(), n_cases);
    let real = ["HEARTH_TEST_MINILM", "HEARTH_TEST_SMOLLM2"]
        .map(|name| (name, real(name), n_cases.div_ceil(100)));
    for (name, seed, n_cases) in [small].into_iter().chain(real) {
        let n_good = run(name, &seed, n_cases);
        // Neither all nor none, or the changes are not what they should be.
        assert!(n_cases < 100 || (1..n_cases).contains(&n_good), "{n_good} of {n_cases} of {name}");
    }
}
