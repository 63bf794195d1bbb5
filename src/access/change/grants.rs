//! Grants: rights on repositories.

use super::{administers, event};
use crate::access::name::Subject;
use crate::access::principal::Principal;
use crate::access::right::{Pattern, Rights};
use crate::access::tables::{GRANTS, GrantRecord};
use crate::access::view::GrantView;
use crate::access::{Access, AccessError};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Tx};

/// So many are kept at most: all are in memory.
const GRANTS_CAP: usize = 100_000;

impl Access {
    /// All grants, ordered by subject and pattern.
    #[must_use]
    pub fn grants(&self) -> Vec<GrantView> {
        self.directory().grants.iter().map(GrantView::of).collect()
    }

    /// Grants rights on a pattern in place of what the subject was granted on it.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`] for a user who is not there,
    /// [`AccessError::GrantInvalid`].
    pub async fn grant(
        &self,
        by: &Principal,
        subject: &Subject,
        pattern: &Pattern,
        rights: Rights,
    ) -> Result<GrantView, AccessError> {
        administers(by)?;
        if rights.is_empty() {
            return Err(AccessError::GrantInvalid { why: "it names no right" });
        }
        if self.directory().grants.len() >= GRANTS_CAP {
            return Err(AccessError::TooMany { what: "grants", cap: GRANTS_CAP });
        }
        if let Subject::User(name) = subject
            && self.user(name.as_str()).is_none()
        {
            return Err(AccessError::UserUnknown { name: name.to_string() });
        }
        let record = GrantRecord {
            subject: subject.clone(),
            pattern: pattern.clone(),
            rights,
            created_at: self.now(),
        };
        let view = GrantView::of(&record);
        let event = event(by, "access.grant", &subject.to_string(), &format!("{rights} on {pattern}"));
        let key = (subject.to_string(), pattern.to_string());
        self.change(event, move |tx| {
            tx.put(&GRANTS, &key, &record)?;
            Ok(Ok(()))
        })
        .await?;
        Ok(view)
    }

    /// Takes back all that a subject was granted on a pattern.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::GrantUnknown`].
    pub async fn revoke_grant(
        &self,
        by: &Principal,
        subject: &Subject,
        pattern: &Pattern,
    ) -> Result<(), AccessError> {
        administers(by)?;
        let event = event(by, "access.grant.revoke", &subject.to_string(), &format!("on {pattern}"));
        let key = (subject.to_string(), pattern.to_string());
        self.change(event, move |tx| {
            if tx.get(&GRANTS, &key)?.is_none() {
                return Ok(Err(AccessError::GrantUnknown { subject: key.0.clone(), pattern: key.1.clone() }));
            }
            tx.delete(&GRANTS, &key)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Shows what another part wrote in its own transaction ([`revoke_below`]).
    ///
    /// # Errors
    /// [`AccessError::State`].
    pub async fn reload(&self) -> Result<(), AccessError> {
        let _one_at_a_time = self.0.changing.lock().await;
        self.refresh().await?;
        Ok(())
    }
}

/// How many grants are on a repository or on what lies below it.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn grants_below(view: &impl Read, root: &str) -> Result<u64, StateError> {
    Ok(below(view, root)?.len() as u64)
}

/// Takes back every grant on a repository and on what lies below it, in the transaction that removes it, so that one of
/// the same name that is made later begins without; gives how many. [`Access::reload`] is to follow.
///
/// # Errors
/// [`StateError`] when the records fail.
pub fn revoke_below(tx: &mut Tx<'_>, root: &str) -> Result<u64, StateError> {
    let keys = below(tx, root)?;
    for key in &keys {
        tx.delete(&GRANTS, key)?;
    }
    Ok(keys.len() as u64)
}

fn below(view: &impl Read, root: &str) -> Result<Vec<(String, String)>, StateError> {
    let (mut found, mut scan) = (Vec::new(), Scan::all());
    loop {
        let rows = view.scan(&GRANTS, &scan, MAX_SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(found) };
        scan = scan.after(last);
        let of = |pattern: &Pattern| matches!(pattern, Pattern::Below(name) if name.root() == root);
        found.extend(rows.into_iter().filter(|(_, grant)| of(&grant.pattern)).map(|(key, _)| key));
    }
}
