//! Prompts: plain English of an exact number of tokens, another one for each seed.

use crate::Result;
use crate::server::Server;

const WHO: [&str; 16] = [
    "Old sailors",
    "Young teachers",
    "Many farmers",
    "Few doctors",
    "Small children",
    "Quiet neighbours",
    "Good friends",
    "Most travellers",
    "Other people",
    "Local musicians",
    "Careful painters",
    "Two brothers",
    "Several students",
    "Local bakers",
    "Three sisters",
    "Happy dogs",
];
const DO: [&str; 16] = [
    "walk",
    "talk about music",
    "read long books",
    "look for water",
    "build small houses",
    "wait for the train",
    "sell bread",
    "plant trees",
    "write letters",
    "cook dinner",
    "paint pictures of birds",
    "tell stories",
    "learn a new language",
    "carry heavy stones",
    "play games",
    "drink tea",
];
const WHERE: [&str; 16] = [
    "by the river",
    "near the harbour",
    "in the mountains",
    "at the market",
    "behind the church",
    "under the bridge",
    "in a quiet village",
    "on the beach",
    "at home",
    "in the garden",
    "beside the road",
    "at the old station",
    "in the forest",
    "across the street",
    "on a small island",
    "in the city",
];
const WHEN: [&str; 16] = [
    "every morning",
    "in the summer",
    "after the rain",
    "before sunrise",
    "on Sundays",
    "when the wind is strong",
    "late at night",
    "during the winter",
    "after school",
    "when nobody is looking",
    "at noon",
    "once a year",
    "in the evening",
    "before the holidays",
    "as long as it is warm",
    "whenever they can",
];

/// SplitMix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Sentences of at least `n_bytes`, always the same ones for a seed.
fn sentences(n_bytes: usize, mut seed: u64) -> String {
    // Two texts part in their first tokens, so that no cache has more of them.
    let mut text = format!("{:04}. ", random(&mut seed) % 10_000);
    while text.len() < n_bytes {
        let bits = random(&mut seed);
        #[allow(clippy::cast_possible_truncation)] // The low bits are asked for.
        let word =
            |words: &[&'static str; 16], shift: u32| words[usize::from((bits >> shift) as u8 & 15)];
        for (words, shift, end) in
            [(&WHO, 0, " "), (&DO, 8, " "), (&WHERE, 16, " "), (&WHEN, 24, ". ")]
        {
            text.push_str(word(words, shift));
            text.push_str(end);
        }
    }
    text
}

/// A text that the server's model reads as exactly `n_tokens` tokens.
pub(crate) fn exact(server: &dyn Server, n_tokens: usize, seed: u64) -> Result<String> {
    // Words of more than one token need fewer bytes.
    let mut tokens = server.tokenize(&sentences(n_tokens * 10, seed))?;
    tokens.truncate(n_tokens);
    // Where the cut splits a word, its half may be read as other tokens.
    while !tokens.is_empty() {
        let text = server.detokenize(&tokens)?;
        let n_missing = n_tokens - tokens.len();
        let text = text + &" so".repeat(n_missing);
        if server.tokenize(&text)?.len() == n_tokens {
            return Ok(text);
        }
        tokens.pop();
    }
    Err(format!("no text has exactly {n_tokens} tokens").into())
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn a_seed_has_one_text_and_neighbouring_seeds_part_at_once() {
        assert_eq!(sentences(500, 7), sentences(500, 7));
        let texts: Vec<_> = (0..100).map(|seed| sentences(500, seed)).collect();
        for pair in texts.windows(2) {
            assert_ne!(pair[0][..4], pair[1][..4]);
        }
    }
}
