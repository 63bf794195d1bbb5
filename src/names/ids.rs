//! Identifiers that Pantry gives out itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::text::textual;
use super::{Clock, Random};

fn check_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("it must have 1 to 64 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err("it may hold letters, digits, `-` and `_` only");
    }
    Ok(())
}

/// A version 7 UUID from the clock and the random source that are passed in.
fn uuid_v7(clock: &dyn Clock, random: &dyn Random) -> String {
    let mut bytes = [0_u8; 10];
    random.fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(clock.now().0, &bytes).into_uuid().to_string()
}

macro_rules! identifier {
    ($name:ident, $kind:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        textual!($name, $kind);

        impl $name {
            fn check(text: &str) -> Result<(), &'static str> {
                check_id(text)
            }

            /// A new one: time-ordered, and not to be guessed from another.
            #[must_use]
            pub fn new(clock: &dyn Clock, random: &dyn Random) -> Self {
                Self(uuid_v7(clock, random))
            }
        }
    };
}

identifier!(
    SubmissionId,
    "submission id",
    "Names a submission; can hold no `|`, which the callback's signature relies on."
);
identifier!(ChangeId, "change id", "Names a change; also the name of its work folder.");
identifier!(UploadId, "upload id", "Names an unfinished write of a blob; also the name of its file.");

/// The single-use value that binds a result to one dispatch; can hold no `|`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(String);
textual!(Nonce, "nonce");

impl Nonce {
    fn check(text: &str) -> Result<(), &'static str> {
        check_id(text)
    }

    /// 32 random bytes as 43 characters of base64url.
    #[must_use]
    pub fn new(random: &dyn Random) -> Self {
        let mut bytes = [0_u8; 32];
        random.fill(&mut bytes);
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{ManualClock, Millis, SeededRandom};
    use super::*;

    #[test]
    fn a_nonce_has_43_characters_and_ids_grow_with_time() {
        let random = SeededRandom::new(1);
        assert_eq!(Nonce::new(&random).as_str().len(), 43);
        let clock = ManualClock::at(Millis(1_000));
        let first = SubmissionId::new(&clock, &random);
        clock.advance(std::time::Duration::from_millis(1));
        assert!(first < SubmissionId::new(&clock, &random));
    }

    #[test]
    fn no_id_holds_the_separator_of_the_signature() {
        assert!(SubmissionId::parse("a|b").is_err());
        assert!(Nonce::parse("a|b").is_err());
        assert!(SubmissionId::parse("../x").is_err());
        assert_eq!(SubmissionId::parse("42").unwrap().as_str(), "42");
    }
}
