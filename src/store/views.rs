//! Submissions as the API answers them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::callback::ResultBody;
use crate::names::{Digest, PackId, SubmissionId};
use crate::sandbox::ContactVerdict;
use crate::state::{Read as _, Scan, Value as _};

use super::finding::{VerdictView, printable};
use super::reach::ContactRow;
use super::record::{SUBMISSION_BYTES, SUBMISSIONS, SubmissionRecord, SubmissionState, VerdictRow};
use super::refusal::StoreRefusal;
use super::service::Store;

/// Most submissions of one page.
const PAGE_CAP: usize = 100;

/// A submission as the API answers it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SubmissionView {
    /// Its id.
    pub id: String,
    /// Where it is; a client must be able to meet a state it doesn't know.
    pub state: String,
    /// The account that submits.
    pub publisher: String,
    /// The package, once its manifest was read.
    #[serde(default)]
    pub name: Option<String>,
    /// The version, once its manifest was read.
    #[serde(default)]
    pub version: Option<String>,
    /// When it came.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// The digest that is tested and published, once it is built.
    #[serde(default)]
    pub pack_digest: Option<String>,
    /// Where it can be pulled from, once it is published.
    #[serde(default)]
    pub reference: Option<String>,
    /// The lockfile's text; in lists its digest.
    #[serde(default)]
    pub lockfile: Option<String>,
    /// What the checks said; until the submission has ended.
    #[serde(default)]
    pub checks: Option<VerdictView>,
    /// What was decided; once it was published, rejected, or timed out.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// The accepted result; its texts are the package's own words.
    #[serde(default)]
    pub test: Option<serde_json::Value>,
    /// Whom its resolution and its download asked for; in lists empty. What was refused is a reason to look twice.
    #[serde(default)]
    pub network: Vec<ContactView>,
    /// Where more is to be had.
    pub links: BTreeMap<String, String>,
    /// The change that works on it.
    pub change: String,
}

/// A host that a step of a submission asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContactView {
    /// `resolve` or `download`.
    pub during: String,
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `reached`, `refused` or `failed`.
    pub verdict: String,
    /// Why it was refused or failed.
    #[serde(default)]
    pub why: String,
    /// How often.
    pub times: u64,
    /// Bytes sent there.
    pub sent_bytes: u64,
    /// Bytes that came from there.
    pub received_bytes: u64,
}

impl From<&ContactRow> for ContactView {
    fn from(row: &ContactRow) -> Self {
        let contact = &row.contact;
        let verdict = match contact.verdict {
            ContactVerdict::Reached => "reached",
            ContactVerdict::Refused => "refused",
            ContactVerdict::Failed => "failed",
        };
        Self {
            during: row.during.clone(),
            host: printable(&contact.host, 253),
            port: contact.port,
            verdict: verdict.to_owned(),
            why: printable(&contact.why, 300),
            times: contact.times,
            sent_bytes: contact.sent_bytes,
            received_bytes: contact.received_bytes,
        }
    }
}

impl Store {
    /// The submission, with lockfile, verdict and result.
    ///
    /// # Errors
    /// [`StoreRefusal`] when the records can't be read.
    pub async fn get(&self, id: &SubmissionId) -> Result<Option<SubmissionView>, StoreRefusal> {
        self.0.settle(id).await?;
        let key = id.clone();
        let Some(row) = self.0.parts.state.read(move |view| view.get(&SUBMISSIONS, &key)).await? else {
            return Ok(None);
        };
        let mut view = view_of(id, &row);
        let blobs = &self.0.parts.blobs;
        if let Some(lockfile) = &row.lockfile {
            let bytes = blobs.read_small(&lockfile.digest, 1 << 20).await?;
            view.lockfile = Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        view.network = row.network.iter().map(ContactView::from).collect();
        let (checks, verdict) = said(&row);
        if let Some(checks) = checks {
            view.checks = self.read_json(&checks.whole.digest).await?.or(view.checks);
        }
        if let Some(verdict) = verdict {
            view.verdict = self.read_json(&verdict.whole.digest).await?.or(view.verdict);
        }
        if let Some(result) = &row.result {
            view.test = self.read_json::<ResultBody>(&result.digest).await?.map(shown_result);
        }
        Ok(Some(view))
    }

    /// Submissions in the order in which they came, after `after`.
    ///
    /// # Errors
    /// [`StoreRefusal`] when the records can't be read.
    pub async fn list(
        &self,
        after: Option<SubmissionId>,
        limit: usize,
    ) -> Result<Vec<SubmissionView>, StoreRefusal> {
        let scan = after.map_or_else(Scan::all, |after| Scan::all().after(&after));
        let limit = limit.clamp(1, PAGE_CAP);
        let rows = self.0.parts.state.read(move |view| view.scan(&SUBMISSION_BYTES, &scan, limit)).await?;
        let read = |id: &SubmissionId, bytes: &[u8]| {
            SubmissionRecord::from_bytes(bytes).unwrap_or_else(|error| {
                tracing::warn!(submission = %id, %error, "a submission's row can't be read");
                SubmissionRecord { state: SubmissionState::Unknown, ..SubmissionRecord::default() }
            })
        };
        Ok(rows.iter().map(|(id, bytes)| view_of(id, &read(id, &bytes.0))).collect())
    }

    async fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        digest: &Digest,
    ) -> Result<Option<T>, StoreRefusal> {
        let bytes = self.0.parts.blobs.read_small(digest, 4 << 20).await?;
        Ok(serde_json::from_slice(&bytes).ok())
    }
}

/// The result for people: control characters escaped, long texts cut.
fn shown_result(body: ResultBody) -> serde_json::Value {
    let mut shown = serde_json::json!({
        "passed": body.passed,
        "summary": printable(&body.summary, 500),
        "test_count": body.test_count,
        "pass_count": body.pass_count,
        "fail_count": body.fail_count,
        "errors": body.errors.iter().take(100).map(|error| printable(error, 2_000)).collect::<Vec<_>>(),
        "raw_output": printable(&body.raw_output, 64_000),
    });
    if let Some(receipt) = body.receipt {
        shown["receipt"] = receipt;
    }
    if let Some(tests) = body.extra.get("tests") {
        shown["tests"] = tests.clone();
    }
    shown
}

/// What of a submission is shown: the outcome of its checks until it has ended, then its verdict.
fn said(row: &SubmissionRecord) -> (Option<&VerdictRow>, Option<&VerdictRow>) {
    match row.state {
        SubmissionState::Published | SubmissionState::Rejected | SubmissionState::TimedOut => {
            (None, row.verdict.as_ref())
        }
        SubmissionState::Cancelled => (None, None),
        _ => (row.checks.as_ref(), None),
    }
}

fn in_short(verdict: &VerdictRow) -> VerdictView {
    VerdictView {
        result: verdict.result.clone(),
        message: verdict.message.clone(),
        reason_codes: verdict.reason_codes.clone(),
        findings: Vec::new(),
        warnings: Vec::new(),
    }
}

fn view_of(id: &SubmissionId, row: &SubmissionRecord) -> SubmissionView {
    let change = row.change.clone().unwrap_or_default();
    let mut links = BTreeMap::from([("self".to_owned(), format!("/v1/submissions/{id}"))]);
    if !change.is_empty() {
        links.insert("change".to_owned(), format!("/v1/changes/{change}"));
    }
    let published = row.state == SubmissionState::Published;
    let package =
        row.publisher.clone().zip(row.name.clone()).map(|(publisher, name)| PackId { publisher, name });
    let reference = package
        .zip(row.version.as_ref())
        .filter(|_| published)
        .map(|(package, version)| format!("{}:{version}", package.repository()));
    if let (true, Some(name)) = (published, &row.name) {
        links.insert("package".to_owned(), format!("/v1/packages/{name}"));
    }
    let (checks, verdict) = said(row);
    SubmissionView {
        id: id.to_string(),
        state: row.state.as_str().to_owned(),
        publisher: row.publisher.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: row.name.as_ref().map(ToString::to_string),
        version: row.version.as_ref().map(ToString::to_string),
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
        pack_digest: row.pack_digest.as_ref().map(ToString::to_string),
        reference,
        lockfile: row.lockfile.as_ref().map(|lockfile| lockfile.digest.to_string()),
        checks: checks.map(in_short),
        verdict: verdict.map(in_short),
        test: None,
        network: Vec::new(),
        links,
        change,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::store::record::BlobRow;

    fn said_of(result: &str) -> VerdictRow {
        let whole = BlobRow { digest: Digest::of(result.as_bytes()), size: 1 };
        VerdictRow { result: result.to_owned(), message: String::new(), reason_codes: vec![], whole }
    }

    #[rstest]
    #[case(SubmissionState::Building, Some("passed"), None)]
    #[case(SubmissionState::AwaitingResult, Some("passed"), None)]
    #[case(SubmissionState::Published, None, Some("rejected"))]
    #[case(SubmissionState::Rejected, None, Some("rejected"))]
    #[case(SubmissionState::TimedOut, None, Some("rejected"))]
    #[case(SubmissionState::Cancelled, None, None)]
    fn a_verdict_is_shown_of_what_has_ended_alone(
        #[case] state: SubmissionState,
        #[case] checks: Option<&str>,
        #[case] verdict: Option<&str>,
    ) {
        let record = SubmissionRecord {
            state,
            checks: Some(said_of("passed")),
            verdict: Some(said_of("rejected")),
            ..SubmissionRecord::default()
        };
        let view = view_of(&SubmissionId::parse("a").unwrap(), &record);
        assert_eq!(view.checks.map(|checks| checks.result).as_deref(), checks);
        assert_eq!(view.verdict.map(|verdict| verdict.result).as_deref(), verdict);
    }
}
