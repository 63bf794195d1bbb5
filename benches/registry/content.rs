//! Unique content that cannot be compressed, whose digest costs nothing to know.
//!
//! A blob is a shared block of random bytes followed by 64 bytes of its own. The hash of the block is computed once
//! and goes on from there, so neither hashing nor generating takes cores from the server. No registry looks for
//! equal parts of blobs; each of them is whole new content to it.

use sha2::{Digest as _, Sha256};

const TAIL: usize = 64;

/// The block that many blobs begin with.
pub struct Block {
    bytes: Vec<u8>,
    hash: Sha256,
}

/// One blob: pieces to send, and its digest.
pub struct Blob<'block> {
    pub block: &'block [u8],
    pub tail: [u8; TAIL],
    pub digest: String,
}

impl Block {
    /// Random bytes, so that every blob on it has `size` in all.
    pub fn new(size: usize) -> anyhow::Result<Self> {
        let mut bytes = vec![0; size - TAIL];
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        let hash = Sha256::new_with_prefix(&bytes);
        Ok(Self { bytes, hash })
    }

    /// A blob that has never been.
    pub fn blob(&self) -> anyhow::Result<Blob<'_>> {
        let mut tail = [0; TAIL];
        getrandom::fill(&mut tail).map_err(std::io::Error::from)?;
        let digest = text(self.hash.clone().chain_update(tail));
        Ok(Blob { block: &self.bytes, tail, digest })
    }
}

impl Blob<'_> {
    /// Its bytes in order.
    pub fn pieces(&self) -> [&[u8]; 2] {
        [self.block, &self.tail]
    }

    /// The bytes from `first` to before `end`, in order.
    pub fn part(&self, first: usize, end: usize) -> [&[u8]; 2] {
        let block = self.block.len();
        let tail = first.saturating_sub(block)..end.saturating_sub(block);
        [&self.block[first.min(block)..end.min(block)], &self.tail[tail]]
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.block.len() + TAIL
    }
}

/// A finished hash as registries write it.
pub fn text(hash: Sha256) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]));
    format!("sha256:{}", hash.finalize().iter().flat_map(digits).collect::<String>())
}
