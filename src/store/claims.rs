//! Names and versions are claimed by unique rows, in the transaction of the submission, and released by a rejection,
//! so that two passes can't race.

use crate::names::{PackageName, PublisherName, SubmissionId, Version};
use crate::state::{Read, Scan, StateError, Tx};

use super::codes::ReasonCode;
use super::finding::Finding;
use super::record::{CLAIMS, ClaimRecord, NAMES, NameRecord, VERSIONS};

/// Claims name and version for a submission; may be repeated. `Err` = somebody else has them.
///
/// A version that is published already can be claimed: whether it is the same pack is known only once it is built.
pub(crate) fn claim(
    tx: &mut Tx<'_>,
    submission: &SubmissionId,
    publisher: &PublisherName,
    name: &PackageName,
    version: &Version,
) -> Result<Result<(), Finding>, StateError> {
    let canonical = name.canonical();
    if let Some(owner) = tx.get(&NAMES, &canonical)? {
        if owner.publisher != *publisher {
            let message = format!("the name `{name}` belongs to another publisher");
            return Ok(Err(Finding::new(ReasonCode::NameTaken, message).value(name.as_str())));
        }
        if owner.name != *name {
            let message = format!("the name is taken by `{}`: `-` and `_` count as the same", owner.name);
            return Ok(Err(Finding::new(ReasonCode::NameTaken, message).value(name.as_str())));
        }
    } else {
        let owner = NameRecord {
            publisher: publisher.clone(),
            name: name.clone(),
            description: String::new(),
            published: false,
        };
        tx.put(&NAMES, &canonical, &owner)?;
    }
    let key = (canonical, version.clone());
    match tx.get(&CLAIMS, &key)? {
        Some(holder) if holder.submission != *submission => {
            let message = format!("`{name}` {version} is being submitted already ({})", holder.submission);
            Ok(Err(Finding::new(ReasonCode::VersionExists, message).value(version.to_string())))
        }
        Some(_) => Ok(Ok(())),
        None => {
            tx.put(&CLAIMS, &key, &ClaimRecord { submission: submission.clone() })?;
            Ok(Ok(()))
        }
    }
}

/// Releases what the submission holds; a name without any version, published or claimed, is free again.
pub(crate) fn release(
    tx: &mut Tx<'_>,
    submission: &SubmissionId,
    name: &PackageName,
    version: &Version,
) -> Result<(), StateError> {
    let canonical = name.canonical();
    let key = (canonical.clone(), version.clone());
    match tx.get(&CLAIMS, &key)? {
        Some(holder) if holder.submission == *submission => tx.delete(&CLAIMS, &key)?,
        _ => return Ok(()),
    }
    let published = tx.get(&NAMES, &canonical)?.is_none_or(|owner| owner.published);
    let scan = Scan::prefix(&canonical);
    if !published && tx.scan(&CLAIMS, &scan, 1)?.is_empty() && tx.scan(&VERSIONS, &scan, 1)?.is_empty() {
        tx.delete(&NAMES, &canonical)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::Faults;
    use crate::state::State;

    fn names(text: &str) -> PackageName {
        PackageName::parse(text).unwrap()
    }

    fn attempt(state: &State, id: &str, publisher: &str, name: &str, version: &str) -> Option<String> {
        let (id, publisher) = (SubmissionId::parse(id).unwrap(), PublisherName::parse(publisher).unwrap());
        let (name, version) = (names(name), Version::parse(version).unwrap());
        let claimed = state.write_blocking(move |tx| claim(tx, &id, &publisher, &name, &version)).unwrap();
        claimed.err().map(|finding| finding.reason_code)
    }

    fn let_go(state: &State, id: &str, name: &str, version: &str) {
        let (id, name, version) =
            (SubmissionId::parse(id).unwrap(), names(name), Version::parse(version).unwrap());
        state.write_blocking(move |tx| release(tx, &id, &name, &version)).unwrap();
    }

    #[test]
    fn a_name_belongs_to_one_publisher_and_a_version_to_one_submission() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state.redb"), Faults::none()).unwrap();
        assert_eq!(attempt(&state, "a", "local", "my-pack", "1.0.0"), None);
        assert_eq!(attempt(&state, "a", "local", "my-pack", "1.0.0"), None, "a task may run twice");
        assert_eq!(attempt(&state, "b", "local", "my-pack", "1.0.0").as_deref(), Some("version_exists"));
        assert_eq!(attempt(&state, "b", "local", "my-pack", "1.1.0"), None);
        assert_eq!(attempt(&state, "c", "acme", "my-pack", "2.0.0").as_deref(), Some("name_taken"));
        assert_eq!(attempt(&state, "c", "local", "my_pack", "2.0.0").as_deref(), Some("name_taken"));
        // Another submission's release takes nothing.
        let_go(&state, "b", "my-pack", "1.0.0");
        assert_eq!(attempt(&state, "b", "local", "my-pack", "1.0.0").as_deref(), Some("version_exists"));
        // The name stays while a claim on it is left.
        let_go(&state, "a", "my-pack", "1.0.0");
        assert_eq!(attempt(&state, "c", "acme", "my-pack", "2.0.0").as_deref(), Some("name_taken"));
        let_go(&state, "b", "my-pack", "1.1.0");
        assert_eq!(attempt(&state, "c", "acme", "my-pack", "2.0.0"), None);
    }
}
