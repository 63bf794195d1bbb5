//! Randomness as it is passed in.

use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

/// Where random bytes come from.
pub trait Random: Send + Sync {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// The kernel's generator.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("invariant: the kernel's generator answers on every supported kernel");
    }
}

/// A generator for tests: the same seed gives the same bytes.
#[derive(Debug)]
pub struct SeededRandom(Mutex<(u64, u64)>);

impl SeededRandom {
    /// A generator that starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new((seed, 0)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for piece in buffer.chunks_mut(32) {
            let mut block = Sha256::new();
            block.update(state.0.to_be_bytes());
            block.update(state.1.to_be_bytes());
            state.1 += 1;
            piece.copy_from_slice(&block.finalize()[..piece.len()]);
        }
    }
}
