//! Picking the next token from logits.
//!
//! The order is llama.cpp's: logit bias, repeat / presence / frequency penalties, DRY, top-n-sigma, top-k, typical, top-p,
//! min-p, XTC, temperature (fixed or by entropy), then the draw. Mirostat stands in place of all from top-n-sigma to XTC.
//! What is not llama.cpp's: with Mirostat the penalties stay; temperature 0 takes the likeliest whatever else is asked; and
//! top-n-sigma drops tokens at once, so that later rules do not count them.
//!
//! Exact: no rule is approximated and no vocabulary sorted. Probabilities are those of `vector::exp`, which calls no
//! library, so a seed gives the same choices on every machine that computes the same logits. Nothing is allocated
//! once the lists have grown.

mod dry;
mod logprobs;
mod mirostat;
mod penalties;
#[cfg(test)]
mod tests;
mod truncate;
mod vector;

use dry::Repetitions;
pub use dry::{Breakers, Dry};
use hearth_abi::raw::Token;
pub use logprobs::Logprobs;
use logprobs::Raw;
pub use mirostat::{Mirostat, MirostatVersion};
use penalties::Penalties;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use truncate::Candidate;

/// How tokens are chosen.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// 0 always takes the likeliest token, unless `dynatemp_range` is more.
    pub temperature: f32,
    /// The temperature moves by so much to either side: down where the model is sure, up where it is not.
    pub dynatemp_range: f32,
    /// How the entropy, as a part of the most there can be, becomes the temperature's place in its range: by this power.
    pub dynatemp_exponent: f32,
    /// Only those whose logit is at most so many standard deviations below the largest; 0 means all.
    pub top_n_sigma: f32,
    /// Only the likeliest; 0 means all.
    pub top_k: u32,
    /// Only those whose surprise is nearest to the expected one and that together hold this; 1 means all.
    pub typical_p: f32,
    /// Only the likeliest that together reach this; 1 means all.
    pub top_p: f32,
    /// Only those at least this likely, relative to the likeliest; 0 means all.
    pub min_p: f32,
    /// How often XTC takes away all but the least likely of the tokens that reach `xtc_threshold`.
    pub xtc_probability: f32,
    /// Above 0.5 XTC does nothing.
    pub xtc_threshold: f32,
    /// Typical, top-p, min-p and XTC leave at least so many.
    pub min_keep: u32,
    /// In place of the rules above.
    pub mirostat: Option<Mirostat>,
    /// Divides, or below zero multiplies, the logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalties look at.
    pub repeat_last_n: u32,
    /// Taken off the logit of every recent token.
    pub presence_penalty: f32,
    /// Taken off the logit of a recent token for each time it occurred.
    pub frequency_penalty: f32,
    /// Punishes repetitions.
    pub dry: Option<Dry>,
    /// Added to logits. Minus infinity forbids.
    pub logit_bias: Vec<(Token, f32)>,
    /// Log probabilities of each chosen token and so many of the likeliest.
    pub logprobs: Option<u32>,
    /// Same seed, same choices. Candidates of one prompt take seeds one after another.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_n_sigma: 0.0,
            top_k: 40,
            typical_p: 1.0,
            top_p: 0.9,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            min_keep: 0,
            mirostat: None,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry: None,
            logit_bias: Vec::new(),
            logprobs: None,
            seed: 0,
        }
    }
}

/// The likeliest token and its probability, as the model says; `None` if the logits are no numbers.
pub(crate) fn likeliest(logits: &[f32]) -> Option<(Token, f64)> {
    let at = vector::argmax(logits)?;
    let mass = vector::mass(logits, logits[at], 1.0, f32::NEG_INFINITY);
    Some((token_of(at), 1.0 / mass))
}

/// The state of one sequence's choices.
///
/// For each new set of logits [`prepare`](Self::prepare), then [`pick`](Self::pick), again if a constraint forbids the
/// pick and has masked the logits, then [`accept`](Self::accept) of what was chosen.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Xoshiro256PlusPlus,
    penalties: Option<Penalties>,
    repetitions: Option<Repetitions>,
    mirostat: Option<mirostat::State>,
    raw: Option<Raw>,
    list: Vec<Candidate>,
    block_masses: Vec<f32>,
}

/// What the next choice depends on beside the logits.
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    rng: Xoshiro256PlusPlus,
    mirostat: Option<mirostat::State>,
}

/// What is left to draw from.
#[derive(Debug, Clone, Copy)]
enum Left {
    One(Token),
    /// The whole vocabulary, with this largest logit.
    All {
        best: f32,
        scale: f32,
    },
    /// The list.
    Listed {
        best: f32,
        scale: f32,
    },
}

impl Sampler {
    /// For a sequence that begins with this prompt.
    pub fn new(sampling: Sampling, prompt: &[Token]) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(sampling.seed),
            penalties: Penalties::new(&sampling, prompt),
            repetitions: Repetitions::new(sampling.dry.as_ref(), prompt),
            mirostat: sampling.mirostat.map(mirostat::State::new),
            raw: sampling.logprobs.map(Raw::new),
            list: Vec::new(),
            block_masses: Vec::new(),
            sampling,
        }
    }

    /// Changes the logits as biases and penalties say. Called once for each new set of logits.
    pub fn prepare(&mut self, logits: &mut [f32]) {
        if let Some(raw) = &mut self.raw {
            raw.keep(logits);
        }
        for (token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logit_of(logits, *token) {
                *logit += bias;
            }
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        if let Some(repetitions) = &mut self.repetitions {
            repetitions.apply(logits);
        }
    }

    /// The next token; `None` if every logit is minus infinity or not a number.
    pub fn pick(&mut self, logits: &[f32]) -> Option<Token> {
        let (token, probability) = match self.truncate(logits)? {
            Left::One(token) => return Some(token),
            Left::All { best, scale } => (self.draw_from_all(logits, best, scale)?, 0.0),
            Left::Listed { best, scale } => self.draw_from_list(best, scale)?,
        };
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.drew(token, probability);
        }
        Some(token)
    }

    /// For a choice that may have to be made again.
    pub(crate) fn chance(&self) -> Chance {
        Chance { rng: self.rng.clone(), mirostat: self.mirostat.clone() }
    }

    /// Forgets the choices since then.
    pub(crate) fn take_back(&mut self, chance: Chance) {
        let Chance { rng, mirostat } = chance;
        (self.rng, self.mirostat) = (rng, mirostat);
    }

    /// Takes a chosen token.
    pub fn accept(&mut self, token: Token) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
        if let Some(repetitions) = &mut self.repetitions {
            repetitions.accept(token);
        }
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.accept(token);
        }
    }

    /// Log probabilities at the place of the last `prepare`, if the sampling asks for them.
    pub fn logprobs(&mut self, token: Token) -> Option<Logprobs> {
        self.raw.as_mut().map(|raw| raw.of(token))
    }

    fn truncate(&mut self, logits: &[f32]) -> Option<Left> {
        let Sampling { temperature, dynatemp_range, .. } = self.sampling;
        let first = vector::argmax(logits)?;
        let best = logits[first];
        let greedy = temperature <= 0.0 && (dynatemp_range <= 0.0 || self.mirostat.is_some());
        // Beside an infinite logit no other has a weight.
        if greedy || best == f32::INFINITY {
            return Some(Left::One(token_of(first)));
        }
        if let Some(mirostat) = &self.mirostat {
            let scale = scale(temperature);
            mirostat.truncate(logits, best, scale, &mut self.list);
            return Some(Left::Listed { best, scale });
        }
        let Sampling { xtc_probability, xtc_threshold, .. } = self.sampling;
        let xtc = xtc_probability > 0.0
            && xtc_threshold <= 0.5
            && self.uniform() < f64::from(xtc_probability);
        if !truncate::truncate(&self.sampling, logits, best, xtc, &mut self.list) {
            let temperature = if dynatemp_range > 0.0 {
                let (_, entropy) = vector::mass_and_entropy(logits, best, f32::NEG_INFINITY);
                let (count, _, _) = vector::spread(logits);
                self.dynamic_temperature(entropy, count)
            } else {
                temperature
            };
            return Some(Left::All { best, scale: scale(temperature) });
        }
        let best = truncate::largest(&self.list);
        let temperature = if dynatemp_range > 0.0 {
            let (entropy, count) = entropy(&self.list, best);
            self.dynamic_temperature(entropy, count)
        } else {
            temperature
        };
        Some(Left::Listed { best, scale: scale(temperature) })
    }

    fn dynamic_temperature(&self, entropy: f64, count: f64) -> f32 {
        let Sampling { temperature, dynatemp_range: range, dynatemp_exponent, .. } = self.sampling;
        if count <= 1.0 {
            return temperature;
        }
        let (low, high) = ((temperature - range).max(0.0), temperature + range);
        #[allow(clippy::cast_possible_truncation)] // From 0 to 1.
        let place =
            (entropy / count.ln()).clamp(0.0, 1.0).powf(f64::from(dynatemp_exponent)) as f32;
        low + (high - low) * place
    }

    /// Answers the token's probability too.
    fn draw_from_list(&mut self, best: f32, scale: f32) -> Option<(Token, f64)> {
        let weight =
            |candidate: &Candidate| f64::from(vector::exp((candidate.logit - best) * scale));
        let total: f64 = self.list.iter().map(weight).sum();
        let mut left = self.uniform() * total;
        let drawn = self.list.iter().find(|candidate| {
            left -= weight(candidate);
            left < 0.0
        });
        // Rounding may leave a last crumb.
        let drawn = drawn.or_else(|| self.list.iter().min_by(|a, b| a.before(b)))?;
        Some((drawn.token, weight(drawn) / total))
    }

    fn draw_from_all(&mut self, logits: &[f32], best: f32, scale: f32) -> Option<Token> {
        self.block_masses.clear();
        let blocks = logits.chunks(vector::BLOCK);
        self.block_masses
            .extend(blocks.map(|block| vector::block_mass(block, best, scale, f32::NEG_INFINITY)));
        let total: f64 = self.block_masses.iter().map(|mass| f64::from(*mass)).sum();
        let mut left = self.uniform() * total;
        let drawn = self.block_masses.iter().position(|mass| {
            left -= f64::from(*mass);
            left < 0.0
        });
        let Some(block) = drawn else { return vector::argmax(logits).map(token_of) };
        left += f64::from(self.block_masses[block]);
        let start = block * vector::BLOCK;
        let mut last = None;
        for (idx, logit) in logits.iter().enumerate().skip(start).take(vector::BLOCK) {
            let weight = f64::from(vector::exp((logit - best) * scale));
            if weight > 0.0 {
                last = Some(token_of(idx));
                left -= weight;
            }
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// In `[0, 1)`, from 53 random bits.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit an f64 exactly.
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One by the temperature. Bounded, so that the likeliest keeps the weight 1 also at temperature 0.
fn scale(temperature: f32) -> f32 {
    (1.0 / temperature.max(0.0)).min(1e30)
}

/// Of the probabilities of a list, in nats, and its length.
fn entropy(list: &[Candidate], best: f32) -> (f64, f64) {
    let (mut total, mut weighted) = (0.0, 0.0);
    for candidate in list {
        let x = candidate.logit - best;
        let weight = f64::from(vector::exp(x));
        total += weight;
        weighted += weight * f64::from(x);
    }
    #[allow(clippy::cast_precision_loss)] // A vocabulary is far below 2^53.
    let count = list.len() as f64;
    (f64::ln(total) - weighted / total, count)
}

fn logit_of(logits: &mut [f32], token: Token) -> Option<&mut f32> {
    usize::try_from(token).ok().and_then(|token| logits.get_mut(token))
}

fn token_of(idx: usize) -> Token {
    Token::try_from(idx).unwrap_or(Token::MAX)
}
