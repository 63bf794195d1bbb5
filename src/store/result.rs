//! The result of a test, as it arrives from anywhere: verified, then accepted by compare-and-set.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::audit;
use crate::callback::{self, Refusal, VerifiedResult};
use crate::changes;
use crate::names::{Digest, Millis, SubmissionId};
use crate::state::{Read, StateError, Tx};

use super::record::{
    self, AcceptedRow, AttemptState, BlobRow, SUBMISSIONS, SubmissionRecord, SubmissionState,
};
use super::refusal::{RefusalKind, StoreRefusal};
use super::service::Store;
use super::submit::unknown;
use super::tasks::result_event;

/// What the compare-and-set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Repeated,
    NotAwaited,
    OtherDigest,
    Superseded,
    Gone,
}

impl Store {
    /// Takes a result: `headers` are all values of the signature header, `body` the bytes, both as received.
    ///
    /// # Errors
    /// In this order: too large → unknown submission → signature → schema → no longer awaited, or another digest.
    pub async fn container_result(
        &self,
        id: &str,
        headers: Vec<Vec<u8>>,
        body: Bytes,
    ) -> Result<Value, StoreRefusal> {
        if body.len() > callback::BODY_CAP {
            return Err(StoreRefusal::new(
                RefusalKind::TooLarge,
                Refusal::TooLarge.code(),
                Refusal::TooLarge.to_string(),
            ));
        }
        let parts = &self.0.parts;
        let parsed = SubmissionId::parse(id).map_err(|_| unknown(id))?;
        let key = parsed.clone();
        let row =
            parts.state.read(move |view| view.get(&SUBMISSIONS, &key)).await?.ok_or_else(|| unknown(id))?;
        let verified = self.verify(&parsed, &row, &headers, &body)?;
        let stored = parts.blobs.put(body).await?;
        let (now, target, result) = (self.0.now(), parsed.clone(), verified.clone());
        parts.faults.pass("store.result");
        let verdict = parts
            .state
            .write(move |tx| {
                let Some(mut row) = tx.get(&SUBMISSIONS, &target)? else { return Ok(Verdict::Gone) };
                let verdict = accept(&mut row, &result, &BlobRow::from(&stored), now);
                if verdict == Verdict::Accepted {
                    write(tx, &target, &row, &result, &stored, now)?;
                }
                Ok(verdict)
            })
            .await?;
        parts.faults.pass("store.result_accepted");
        let outcome = format!("{verdict:?}");
        tracing::info!(submission = %parsed, key_id = verified.key_id, outcome, "a signed result");
        match verdict {
            Verdict::Accepted | Verdict::Repeated => {
                parts.changes.wake();
                Ok(json!({ "status": "accepted", "submission_id": parsed }))
            }
            Verdict::Gone => Err(unknown(id)),
            Verdict::Superseded => Err(unauthorized()),
            Verdict::NotAwaited => {
                let message = "the submission awaits no result, or has another one";
                Err(StoreRefusal::new(RefusalKind::Conflict, "result_not_awaited", message))
            }
            Verdict::OtherDigest => {
                let message = "the result is about another pack than the one that was dispatched";
                Err(StoreRefusal::new(RefusalKind::Conflict, "digest_mismatch", message))
            }
        }
    }

    fn verify(
        &self,
        id: &SubmissionId,
        row: &SubmissionRecord,
        headers: &[Vec<u8>],
        body: &[u8],
    ) -> Result<VerifiedResult, StoreRefusal> {
        let keys = self.0.parts.keys.accepted(self.0.now());
        let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
        callback::verify(&keys, id, &row.nonces(), &headers, body).map_err(|refusal| match &refusal {
            Refusal::TooLarge => {
                StoreRefusal::new(RefusalKind::TooLarge, refusal.code(), refusal.to_string())
            }
            Refusal::Schema(_) => {
                StoreRefusal::new(RefusalKind::Invalid, refusal.code(), refusal.to_string())
            }
            Refusal::Unauthorized { reason } => {
                tracing::warn!(submission = %id, reason, "a result was refused");
                unauthorized()
            }
        })
    }
}

/// One message for everybody who can't sign: it tells nothing about the submission.
fn unauthorized() -> StoreRefusal {
    StoreRefusal::new(RefusalKind::Unauthorized, "unauthorized", "signature missing or not valid")
}

/// Compares and sets in the row: accepted only by a submission that awaits a result and has none.
fn accept(row: &mut SubmissionRecord, result: &VerifiedResult, blob: &BlobRow, now: Millis) -> Verdict {
    if let Some(accepted) = &row.accepted {
        let same = accepted.fingerprint == result.fingerprint;
        return if same { Verdict::Repeated } else { Verdict::NotAwaited };
    }
    if !row.nonces().contains(&result.nonce) {
        return Verdict::Superseded;
    }
    if row.state != SubmissionState::AwaitingResult {
        return Verdict::NotAwaited;
    }
    let other = |digest: &Digest| row.pack_digest.as_ref().is_some_and(|dispatched| dispatched != digest);
    if result.body.passed && result.body.pack_digest.as_ref().is_some_and(other) {
        return Verdict::OtherDigest;
    }
    for attempt in &mut row.attempts {
        if attempt.callback_nonce == result.nonce.as_str() {
            attempt.state = AttemptState::Accepted;
        }
    }
    row.accepted = Some(AcceptedRow {
        fingerprint: result.fingerprint.clone(),
        key_id: result.key_id.clone(),
        at: now,
        passed: result.body.passed,
    });
    row.result = Some(blob.clone());
    row.updated_at = row.updated_at.max(now);
    Verdict::Accepted
}

fn write(
    tx: &mut Tx<'_>,
    id: &SubmissionId,
    row: &SubmissionRecord,
    result: &VerifiedResult,
    stored: &crate::blobs::Stored,
    now: Millis,
) -> Result<(), StateError> {
    record::link(tx, id, stored)?;
    tx.put(&SUBMISSIONS, id, row)?;
    changes::signal(tx, &result_event(id))?;
    let event = audit::Event {
        who: format!("key:{}", result.key_id),
        action: "result".to_owned(),
        subject: format!("submission/{id}"),
        outcome: if result.body.passed { "passed" } else { "failed" }.to_owned(),
        why: super::finding::printable(&result.body.summary, 200),
    };
    audit::append(tx, now, &event)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::Nonce;

    fn awaiting(nonces: &[&str]) -> SubmissionRecord {
        let mut row = SubmissionRecord {
            state: SubmissionState::AwaitingResult,
            pack_digest: Some(Digest::of(b"pack")),
            ..SubmissionRecord::default()
        };
        for nonce in nonces {
            let nonce = Nonce::parse(nonce).unwrap();
            row.begin_attempt(&nonce, Millis(1));
            row.dispatched(&nonce, Millis(1));
        }
        row
    }

    fn result(nonce: &str, passed: bool, pack: Option<&[u8]>) -> VerifiedResult {
        let body = json!({"passed": passed, "summary": "s", "test_count": 1, "pass_count": 1,
            "pack_digest": pack.map(Digest::of)});
        VerifiedResult {
            nonce: Nonce::parse(nonce).unwrap(),
            key_id: "01234567".to_owned(),
            fingerprint: Digest::of(body.to_string().as_bytes()),
            body: serde_json::from_value(body).unwrap(),
        }
    }

    fn blob() -> BlobRow {
        BlobRow { digest: Digest::of(b"body"), size: 4 }
    }

    fn say(row: &mut SubmissionRecord, result: &VerifiedResult) -> Verdict {
        accept(row, result, &blob(), Millis(9))
    }

    #[test]
    fn of_two_results_one_wins_and_its_repetition_is_welcome() {
        let mut row = awaiting(&["n1"]);
        assert_eq!(say(&mut row, &result("n1", true, Some(b"pack"))), Verdict::Accepted);
        assert_eq!(say(&mut row, &result("n1", true, Some(b"pack"))), Verdict::Repeated);
        assert_eq!(say(&mut row, &result("n1", false, None)), Verdict::NotAwaited);
        assert!(row.accepted.as_ref().unwrap().passed);
        row.state = SubmissionState::Published;
        assert_eq!(say(&mut row, &result("n1", true, Some(b"pack"))), Verdict::Repeated);
        assert_eq!(row.nonces().len(), 1, "the accepted attempt's signature still verifies");
    }

    #[test]
    fn a_pass_must_be_about_the_dispatched_pack() {
        let mut row = awaiting(&["n1"]);
        assert_eq!(say(&mut row, &result("n1", true, Some(b"other"))), Verdict::OtherDigest);
        assert!(row.accepted.is_none());
        assert_eq!(say(&mut row, &result("n1", true, None)), Verdict::Accepted);
        let mut row = awaiting(&["n1"]);
        assert_eq!(say(&mut row, &result("n1", false, Some(b"other"))), Verdict::Accepted);
    }

    #[test]
    fn a_superseded_attempt_and_an_ended_submission_take_nothing() {
        let mut row = awaiting(&["n1", "n2"]);
        assert_eq!(say(&mut row, &result("n1", true, None)), Verdict::Superseded);
        row.state = SubmissionState::TimedOut;
        assert_eq!(say(&mut row, &result("n2", true, None)), Verdict::NotAwaited);
        row.state = SubmissionState::Building;
        assert_eq!(say(&mut row, &result("n2", true, None)), Verdict::NotAwaited);
    }
}
