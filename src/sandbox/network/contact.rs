//! Whom a run asked for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::host::Host;

/// Most entries that are kept of one run.
const MOST: usize = 100;

/// A host that a run asked a proxy for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The name or address, as it was asked for, in lower case; at most 253 characters.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What came of it.
    pub verdict: ContactVerdict,
    /// Why it was refused or failed; empty when it was reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How often.
    pub times: u64,
    /// Bytes that were sent there.
    pub sent_bytes: u64,
    /// Bytes that came from there.
    pub received_bytes: u64,
}

/// What came of asking for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactVerdict {
    /// It was connected to.
    Reached,
    /// The policy forbids it.
    Refused,
    /// The policy allows it, and it did not answer, or its name leads nowhere.
    Failed,
}

/// The contacts of a run while it goes on.
#[derive(Debug, Default)]
pub(super) struct Contacts(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_host: BTreeMap<(Host, u16, ContactVerdict), Contact>,
    left_out: u64,
}

impl Contacts {
    /// Counts an attempt.
    pub(super) fn note(&self, host: &Host, port: u16, verdict: ContactVerdict, why: &str) {
        self.change(host, port, verdict, |contact| {
            contact.times += 1;
            if contact.why.is_empty() {
                why.clone_into(&mut contact.why);
            }
        });
    }

    /// Counts the bytes of a connection that was noted as reached.
    pub(super) fn count(&self, host: &Host, port: u16, sent: u64, received: u64) {
        self.change(host, port, ContactVerdict::Reached, |contact| {
            contact.sent_bytes = contact.sent_bytes.saturating_add(sent);
            contact.received_bytes = contact.received_bytes.saturating_add(received);
        });
    }

    fn change(&self, host: &Host, port: u16, verdict: ContactVerdict, change: impl FnOnce(&mut Contact)) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.clone(), port, verdict);
        let full = kept.by_host.len() >= MOST;
        match kept.by_host.get_mut(&key) {
            Some(contact) => change(contact),
            None if full => kept.left_out += 1,
            None => {
                let mut contact = Contact {
                    host: host.to_string(),
                    port,
                    verdict,
                    why: String::new(),
                    times: 0,
                    sent_bytes: 0,
                    received_bytes: 0,
                };
                change(&mut contact);
                kept.by_host.insert(key, contact);
            }
        }
    }

    /// All of them, and how many attempts at further hosts are not among them.
    pub(super) fn take(&self) -> (Vec<Contact>, u64) {
        let kept = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (kept.by_host.into_values().collect(), kept.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_counted_and_bounded() {
        let contacts = Contacts::default();
        let host = |text: &str| Host::parse(text).expect("a host");
        contacts.note(&host("a.example"), 443, ContactVerdict::Reached, "");
        contacts.note(&host("a.example"), 443, ContactVerdict::Reached, "");
        contacts.count(&host("a.example"), 443, 3, 5);
        contacts.note(&host("a.example"), 80, ContactVerdict::Refused, "no");
        for number in 0..1000 {
            contacts.note(&host(&format!("b{number}.example")), 1, ContactVerdict::Refused, "no");
        }
        let (list, left_out) = contacts.take();
        assert_eq!((list.len(), left_out), (MOST, 902));
        let reached = list.iter().find(|contact| contact.port == 443).expect("the first");
        assert_eq!((reached.times, reached.sent_bytes, reached.received_bytes), (2, 3, 5));
        assert!(list.iter().any(|contact| contact.port == 80 && contact.why == "no"));
    }
}
