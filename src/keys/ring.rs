//! The ring: the key that signs, and those that are accepted.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::Secret;
use crate::names::{Millis, Random};

use super::{CallbackKey, KeyError};

/// Where a generated key is kept, below the keys folder.
const FILE: &str = "callback-signing-key";

/// The keys of the callback.
#[derive(Clone, Debug)]
pub struct CallbackRing {
    current: CallbackKey,
    previous: Option<Previous>,
}

#[derive(Clone, Debug)]
struct Previous {
    key: CallbackKey,
    until: Option<Millis>,
}

impl CallbackRing {
    /// Takes the configured keys, or the one that is kept below `keys_dir` and made there at the first start.
    ///
    /// # Errors
    /// When a key is too short, or the file can't be made or is open to others.
    pub fn open(
        keys_dir: &Path,
        configured: Option<&str>,
        previous: Option<(&str, Option<Millis>)>,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        let current = match configured {
            Some(text) => CallbackKey::from_text(text)?,
            None => {
                CallbackKey::from_text(Secret::load_or_create(keys_dir, FILE, || fresh(random))?.expose())?
            }
        };
        let previous = previous
            .map(|(text, until)| CallbackKey::from_text(text).map(|key| Previous { key, until }))
            .transpose()?;
        Ok(Self { current, previous })
    }

    /// The key that signs.
    #[must_use]
    pub fn current(&self) -> &CallbackKey {
        &self.current
    }

    /// The current key, and the previous one while its overlap lasts.
    #[must_use]
    pub fn accepted(&self, now: Millis) -> Vec<&CallbackKey> {
        let previous =
            self.previous.as_ref().filter(|previous| previous.until.is_none_or(|until| now < until));
        std::iter::once(&self.current).chain(previous.map(|previous| &previous.key)).collect()
    }
}

pub(super) fn fresh(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 32];
    random.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::names::SeededRandom;

    use super::*;

    #[test]
    fn a_key_is_made_at_the_first_start_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let random = SeededRandom::new(7);
        let first = CallbackRing::open(&keys, None, None, &random).unwrap();
        let again = CallbackRing::open(&keys, None, None, &random).unwrap();
        assert_eq!(first.current().bytes(), again.current().bytes());
        assert_eq!(first.current().bytes().len(), 43);
        let file = keys.join(FILE);
        assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = CallbackRing::open(&keys, None, None, &random).unwrap_err();
        assert_eq!(refused.code(), "key_file_unusable");
        assert!(refused.hint().unwrap().contains("chmod"));
    }

    #[test]
    fn a_cut_key_file_is_refused_instead_of_signing_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        CallbackRing::open(&keys, None, None, &SeededRandom::new(7)).unwrap();
        fs_err::write(keys.join(FILE), "short\n").unwrap();
        let refused = CallbackRing::open(&keys, None, None, &SeededRandom::new(7)).unwrap_err();
        assert_eq!(refused.code(), "callback_key_too_short");
    }

    #[test]
    fn a_configured_key_needs_no_folder_and_the_previous_one_ends() {
        let (new, old) = ("n".repeat(32), "o".repeat(32));
        let nowhere = Path::new("/nonexistent/keys");
        let random = SeededRandom::new(1);
        let until = Some((old.as_str(), Some(Millis(100))));
        let ring = CallbackRing::open(nowhere, Some(&new), until, &random).unwrap();
        assert_eq!(ring.current().bytes(), new.as_bytes());
        assert_eq!((ring.accepted(Millis(99)).len(), ring.accepted(Millis(100)).len()), (2, 1));
        let without_end = CallbackRing::open(nowhere, Some(&new), Some((&old, None)), &random).unwrap();
        assert_eq!(without_end.accepted(Millis(u64::MAX)).len(), 2);
        assert!(CallbackRing::open(nowhere, Some("short"), None, &random).is_err());
        assert!(CallbackRing::open(nowhere, Some(&new), Some(("short", None)), &random).is_err());
    }
}
