//! Masks are made on a thread of their own, while the plugin computes the step that they are for.
//!
//! What the thread needs is a place in a rule, which is away meanwhile. It makes the mask for the next token, and then those
//! behind the tokens that were guessed, for as long as that takes little: they are wanted only where the guess is right
//! and what is chosen behind it is forbidden. If one is missing there, the guess counts for one token less, and the next step
//! computes that one again, and has the mask.

use super::ConstraintError;
use hearth_abi::raw::Token;
use llguidance::toktrie::SimpleVob;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SendError, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No mask behind a guess is begun after this. A step takes longer.
const BEHIND_GUESSES: Duration = Duration::from_millis(1);

/// A bit for each token that may come.
pub(super) type Mask = Result<SimpleVob, ConstraintError>;

/// A place in a rule.
pub(super) trait Place: Send + 'static {
    fn mask(&mut self) -> Mask;

    /// Goes on by a guessed token. Answers false where it cannot, or could not come back.
    fn go(&mut self, token: Token) -> bool;

    /// Comes back by so many tokens.
    fn come_back(&mut self, n: usize) -> Result<(), ConstraintError>;
}

/// A place and its masks: the next token's, then those behind the guessed ones.
struct Made<P> {
    place: Box<P>,
    masks: VecDeque<Mask>,
}

impl<P: Place> Made<P> {
    fn make(mut place: Box<P>, guess: &[Token], mut masks: VecDeque<Mask>) -> Self {
        let start = Instant::now();
        if masks.is_empty() {
            masks.push_back(place.mask());
        }
        let mut n_gone = 0;
        for token in guess {
            if start.elapsed() > BEHIND_GUESSES || !place.go(*token) {
                break;
            }
            n_gone += 1;
            masks.push_back(place.mask());
        }
        if let Err(error) = place.come_back(n_gone) {
            masks = [Err(error)].into();
        }
        Self { place, masks }
    }
}

/// A place that is away while its masks are made.
pub(super) struct Followed<P> {
    place: Option<Box<P>>,
    masks: VecDeque<Mask>,
    /// The tokens behind which they are, from the second on.
    guess: VecDeque<Token>,
    /// Where the place comes back from, if it was away.
    done: Option<Receiver<Made<P>>>,
}

impl<P: Place> Followed<P> {
    pub(super) fn new(place: P) -> Self {
        let (masks, guess) = (VecDeque::new(), VecDeque::new());
        Self { place: Some(Box::new(place)), masks, guess, done: None }
    }

    /// The place is known, and so is its mask.
    pub(super) fn with_mask(place: P, mask: SimpleVob) -> Self {
        Self { masks: [Ok(mask)].into(), ..Self::new(place) }
    }

    /// Has the masks made for the next token, and behind these.
    pub(super) fn begin(&mut self, thread: &mut MaskThread, guess: &[Token]) {
        if !self.masks.is_empty() && guess.is_empty() {
            return;
        }
        let Some(place) = self.place.take() else { return };
        let mut masks = std::mem::take(&mut self.masks);
        masks.truncate(1);
        self.guess.clear();
        self.guess.extend(guess);
        // Each time another one, whose other end is gone where the place will never come back.
        let (back, done) = sync_channel(1);
        self.done = Some(done);
        let guess = guess.to_vec();
        thread.run(Box::new(move || {
            // Nobody waits for it when the request has been cancelled.
            let _ = back.send(Made::make(place, &guess, masks));
        }));
    }

    /// The place, once it is back.
    pub(super) fn place(&mut self) -> Result<&mut P, ConstraintError> {
        let place = match self.place.take() {
            Some(place) => place,
            None => {
                let made = self.done.as_ref().and_then(|done| done.recv().ok()).ok_or_else(gone)?;
                self.masks = made.masks;
                made.place
            }
        };
        Ok(self.place.insert(place))
    }

    /// The mask for the next token, if one was made.
    pub(super) fn known(&mut self) -> Result<Option<&SimpleVob>, ConstraintError> {
        self.place()?;
        self.masks.front().map(|mask| mask.as_ref().map_err(Clone::clone)).transpose()
    }

    /// The mask for the next token.
    pub(super) fn mask(&mut self) -> Result<&SimpleVob, ConstraintError> {
        if self.known()?.is_none() {
            let mask = self.place()?.mask();
            self.masks.push_back(mask);
        }
        self.known()?.ok_or_else(gone)
    }

    /// The place has gone on by this token.
    pub(super) fn took(&mut self, token: Token) {
        self.masks.pop_front();
        if self.guess.pop_front() != Some(token) {
            self.forget();
        }
    }

    /// The place has gone elsewhere.
    pub(super) fn forget(&mut self) {
        self.masks.clear();
        self.guess.clear();
    }
}

/// Sets the logits of all tokens that may not come to minus infinity.
pub(super) fn apply(mask: &SimpleVob, logits: &mut [f32]) {
    let mask = mask.as_slice();
    let covered = logits.len().min(mask.len() * 32);
    logits[covered..].fill(f32::NEG_INFINITY);
    for (group, bits) in logits[..covered].chunks_mut(32).zip(mask) {
        if *bits == 0 {
            group.fill(f32::NEG_INFINITY);
        } else if *bits != u32::MAX {
            for (bit, logit) in group.iter_mut().enumerate() {
                *logit = if bits >> bit & 1 == 0 { f32::NEG_INFINITY } else { *logit };
            }
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// The thread that makes masks, from the first one on.
#[derive(Debug, Default)]
pub(crate) struct MaskThread {
    /// The thread ends with it.
    queue: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// Grammars hold the model, which is not to be closed on that thread.
impl Drop for MaskThread {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl MaskThread {
    fn run(&mut self, work: Work) {
        if self.queue.is_none() {
            let (queue, works) = channel::<Work>();
            let spawned = thread::Builder::new()
                .name("masks".into())
                .spawn(move || works.iter().for_each(|work| work()));
            self.thread = spawned.ok();
            self.queue = self.thread.is_some().then_some(queue);
        }
        match &self.queue {
            Some(queue) => {
                if let Err(SendError(work)) = queue.send(work) {
                    work();
                }
            }
            None => work(),
        }
    }
}

fn gone() -> ConstraintError {
    ConstraintError("the thread that follows constraints is gone".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;

    impl Place for Broken {
        fn mask(&mut self) -> Mask {
            panic!("a grammar of the tests that cannot make masks")
        }

        fn go(&mut self, _: Token) -> bool {
            false
        }

        fn come_back(&mut self, _: usize) -> Result<(), ConstraintError> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_does_not_come_back_is_an_error_and_is_not_waited_for() {
        let mut thread = MaskThread::default();
        let mut followed = Followed::new(Broken);
        followed.begin(&mut thread, &[]);
        for _ in 0..2 {
            assert_eq!(followed.known().err(), Some(gone()));
        }
    }
}
