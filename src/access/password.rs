//! Hashing and checking passwords, off the async threads and few at a time.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::sync::Semaphore;

use super::AccessError;
use crate::names::Random;

/// Memory of one computation in KiB, rounds, lanes. *Source*: OWASP Password Storage Cheat Sheet (19 MiB, 2, 1).
const MEMORY_KIB: u32 = 19 * 1024;
const ROUNDS: u32 = 2;
/// So many at once at most: each holds [`MEMORY_KIB`].
const AT_ONCE: usize = 2;
/// So many wait for their turn at most; more are told to come again.
const WAITING: usize = 32;

/// A password has so many characters at least, and bytes at most.
const SHORTEST: usize = 8;
const LONGEST: usize = 1024;

/// What a password is checked against.
#[derive(Clone)]
pub(super) enum Stored {
    /// A PHC string of argon2id.
    Argon2(Arc<str>),
    /// A hash of bcrypt, as `htpasswd -B` makes it.
    Bcrypt(Arc<str>),
    /// No password fits: an unknown user, or one without a password.
    Nothing,
}

/// Hashes and checks.
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// What an unknown user's password is checked against, so that it takes as long as a known one's.
    dummy: Arc<str>,
}

/// Everybody's turn is taken for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Passwords {
    pub(super) fn new(random: &dyn Random) -> Self {
        // Made up instead of computed, which start-up does not wait for: nothing hashes to it.
        let (mut salt, mut output) = ([0_u8; 16], [0_u8; 32]);
        random.fill(&mut salt);
        random.fill(&mut output);
        let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            dummy: format!("$argon2id$v=19$m={MEMORY_KIB},t={ROUNDS},p=1${salt}${output}").into(),
        }
    }

    /// The PHC string of a new password.
    pub(super) async fn hash(&self, password: &str, random: &Arc<dyn Random>) -> Result<String, AccessError> {
        check_shape(password)?;
        let turn = self.turns.clone().acquire_owned().await.expect("invariant: nobody closes the semaphore");
        let (password, random) = (password.to_owned(), random.clone());
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            hash(password.as_bytes(), random.as_ref())
        });
        hashed.await.map_err(|error| AccessError::Hashing { why: error.to_string() })?
    }

    /// Whether the password fits; takes about as long when there is nothing that it could fit.
    pub(super) async fn fits(&self, stored: Stored, password: &str) -> Result<bool, Busy> {
        let waiting = self.queue.clone().try_acquire_owned().map_err(|_| Busy)?;
        let turn = self.turns.clone().acquire_owned().await.expect("invariant: nobody closes the semaphore");
        let (password, dummy) = (password.to_owned(), self.dummy.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let _places = (waiting, turn);
            match &stored {
                Stored::Argon2(phc) => verify(phc, password.as_bytes()),
                Stored::Nothing => {
                    verify(&dummy, password.as_bytes());
                    false
                }
                Stored::Bcrypt(hash) => {
                    verify(&dummy, password.as_bytes());
                    bcrypt::verify(password.as_bytes(), hash).unwrap_or(false)
                }
            }
        });
        // A panic in there is no proof of a password.
        Ok(checked.await.unwrap_or(false))
    }
}

/// What no password may be.
pub(super) fn check_shape(password: &str) -> Result<(), AccessError> {
    let why = if password.chars().count() < SHORTEST {
        "it has fewer than 8 characters"
    } else if password.len() > LONGEST {
        "it has more than 1024 bytes"
    } else if password.chars().any(char::is_control) {
        "it has control characters in it"
    } else if password.starts_with(super::token::PREFIX) {
        "it begins as an API token does"
    } else {
        return Ok(());
    };
    Err(AccessError::PasswordInvalid { why })
}

fn argon2() -> Result<Argon2<'static>, AccessError> {
    let params = Params::new(MEMORY_KIB, ROUNDS, 1, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn failed(error: impl std::fmt::Display) -> AccessError {
    AccessError::Hashing { why: error.to_string() }
}

fn hash(password: &[u8], random: &dyn Random) -> Result<String, AccessError> {
    let mut salt = [0_u8; 16];
    random.fill(&mut salt);
    let hash: PasswordHash = argon2()?.hash_password_with_salt(password, &salt).map_err(failed)?;
    Ok(hash.to_string())
}

fn verify(phc: &str, password: &[u8]) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|hash| argon2().is_ok_and(|argon2| argon2.verify_password(password, &hash).is_ok()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::{SeededRandom, SystemRandom};

    #[tokio::test]
    async fn a_password_fits_its_own_hash_alone() {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let passwords = Passwords::new(random.as_ref());
        assert!(PasswordHash::new(&passwords.dummy).is_ok());
        let phc = passwords.hash("correct horse", &random).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_ne!(
            phc,
            passwords.hash("correct horse", &random).await.unwrap(),
            "each has a salt of its own"
        );
        let stored = Stored::Argon2(phc.into());
        assert_eq!(passwords.fits(stored.clone(), "correct horse").await, Ok(true));
        assert_eq!(passwords.fits(stored, "correct horsf").await, Ok(false));
        let bcrypt = "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e";
        let bcrypt = Stored::Bcrypt(bcrypt.into());
        assert_eq!(passwords.fits(bcrypt, "nothing that fits").await, Ok(false));
        assert_eq!(passwords.fits(Stored::Bcrypt("nonsense".into()), "x").await, Ok(false));
        assert_eq!(passwords.fits(Stored::Argon2("nonsense".into()), "x").await, Ok(false));
        assert_eq!(passwords.fits(Stored::Nothing, "x").await, Ok(false));
    }

    #[tokio::test]
    async fn more_than_may_wait_are_told_to_come_again() {
        let passwords = Arc::new(Passwords::new(&SeededRandom::new(1)));
        let _all = passwords.turns.clone().acquire_many_owned(2).await.unwrap();
        let waiting: Vec<_> = (0..AT_ONCE + WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.fits(Stored::Nothing, "x").await })
            })
            .collect();
        while passwords.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.fits(Stored::Nothing, "x").await, Err(Busy));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn the_shape_of_a_password() {
        for bad in ["", "1234567", "pty_aaaaaaaa", "with\na line", &"x".repeat(1025)] {
            assert_eq!(check_shape(bad).unwrap_err().code(), "password_invalid", "{bad:?}");
        }
        for good in ["12345678", "pässwört", "a:b c\u{1f600}dddd"] {
            assert!(check_shape(good).is_ok(), "{good}");
        }
    }
}
