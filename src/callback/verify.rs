//! Verifying.

use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::keys::CallbackKey;
use crate::names::{Digest, Nonce, SubmissionId};

use super::body::ResultBody;
use super::signature::mac;

/// Most bytes of a result's body.
pub const BODY_CAP: usize = 1 << 20;

/// A result whose signature holds.
#[derive(Clone, Debug)]
pub struct VerifiedResult {
    /// The attempt that it answers.
    pub nonce: Nonce,
    /// The id of the key that signed it.
    pub key_id: String,
    /// What it says.
    pub body: ResultBody,
    /// SHA-256 over header and body, by which a byte-identical repeat is known.
    pub fingerprint: Digest,
}

/// Why a result is refused. What it displays may be told to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The body is over the cap.
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// There is no signature that holds.
    #[error("signature missing or not valid")]
    Unauthorized {
        /// For the log only.
        reason: &'static str,
    },
    /// The signature holds, and the body isn't a result.
    #[error("the result is not of the schema: {0}")]
    Schema(String),
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "result_too_large",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Schema(_) => "result_invalid",
        }
    }
}

/// Verifies a result: its size, then header and signature, then its schema.
///
/// `headers` are all values of the header as received, `keys` the accepted keys, `nonces` those of the live
/// attempts. Every pair of them is computed, whatever matches.
///
/// # Errors
/// A [`Refusal`], in that order.
pub fn verify(
    keys: &[&CallbackKey],
    id: &SubmissionId,
    nonces: &[Nonce],
    headers: &[&[u8]],
    body: &[u8],
) -> Result<VerifiedResult, Refusal> {
    if body.len() > BODY_CAP {
        return Err(Refusal::TooLarge);
    }
    let header = match headers {
        [] => return Err(Refusal::Unauthorized { reason: "header_missing" }),
        [header] => header,
        _ => return Err(Refusal::Unauthorized { reason: "header_repeated" }),
    };
    let claimed = decode(header).ok_or(Refusal::Unauthorized { reason: "header_malformed" })?;
    let (key, nonce) =
        matching(keys, id, nonces, &claimed, body).ok_or(Refusal::Unauthorized { reason: "no_match" })?;
    let parsed: ResultBody = parse(body)?;
    Ok(VerifiedResult {
        nonce: nonce.clone(),
        key_id: key.id().to_owned(),
        body: parsed,
        fingerprint: Digest::of(&[*header, body].concat()),
    })
}

/// The pair that made the signature. All pairs are computed and compared in constant time.
fn matching<'a>(
    keys: &[&'a CallbackKey],
    id: &SubmissionId,
    nonces: &'a [Nonce],
    claimed: &[u8; 32],
    body: &[u8],
) -> Option<(&'a CallbackKey, &'a Nonce)> {
    let pairs: Vec<(&CallbackKey, &Nonce)> =
        keys.iter().flat_map(|key| nonces.iter().map(move |nonce| (*key, nonce))).collect();
    if pairs.is_empty() {
        // A submission that awaits nothing takes as long to refuse as one with an attempt.
        let nobody = Nonce::parse("none").expect("invariant: a word is a nonce");
        let spent = mac(&[0; 32], id, &nobody, body);
        std::hint::black_box(spent.ct_eq(claimed));
        return None;
    }
    let mut found = Choice::from(0);
    let mut place = 0_u64;
    for (index, (key, nonce)) in (0_u64..).zip(&pairs) {
        let equal = mac(key.bytes(), id, nonce, body).ct_eq(claimed);
        place.conditional_assign(&index, equal);
        found |= equal;
    }
    if !bool::from(found) {
        return None;
    }
    usize::try_from(place).ok().and_then(|place| pairs.get(place).copied())
}

/// The 32 bytes of exactly 64 lowercase hexadecimal digits.
fn decode(header: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = header.try_into().ok()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0_u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The body as a result. The parser refuses more than 128 levels before it recurses into them.
fn parse(body: &[u8]) -> Result<ResultBody, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Schema(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
