//! The signed-result contract: bytes, header, keys and attempts become a [`VerifiedResult`] or a [`Refusal`]; and
//! the signer.
//!
//! Pure: this part must never touch the disk, the network or the clock, read a body before its signature holds, or
//! re-serialise what was signed.
//!
//! Invariants:
//! - the signature is over the bytes as received: HMAC-SHA256(key, `{id}|{nonce}|` + body); ids and nonces can hold
//!   no `|`, so two different triples never sign the same bytes;
//! - all pairs of keys and nonces are tried, whatever matches, so that the time says nothing about which did;
//! - who can't sign learns nothing but that.

mod body;
mod signature;
mod verify;

pub use body::ResultBody;
pub use signature::{HEADER, Signer, sign};
pub use verify::{BODY_CAP, Refusal, VerifiedResult, verify};
