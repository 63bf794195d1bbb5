//! Submissions as the API answers them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::callback::ResultBody;
use crate::names::{Digest, PackId, SubmissionId};
use crate::state::{Read as _, Scan};

use super::finding::{VerdictView, printable};
use super::record::{SUBMISSIONS, SubmissionRecord, SubmissionState};
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
    /// What the checks and the tests say.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// The accepted result; its texts are the package's own words.
    #[serde(default)]
    pub test: Option<serde_json::Value>,
    /// Where more is to be had.
    pub links: BTreeMap<String, String>,
    /// The change that works on it.
    pub change: String,
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
        if let Some(verdict) = &row.verdict {
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
        let rows = self.0.parts.state.read(move |view| view.scan(&SUBMISSIONS, &scan, limit)).await?;
        Ok(rows.iter().map(|(id, row)| view_of(id, row)).collect())
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
        verdict: row.verdict.as_ref().map(|verdict| VerdictView {
            result: verdict.result.clone(),
            message: verdict.message.clone(),
            reason_codes: verdict.reason_codes.clone(),
            findings: Vec::new(),
            warnings: Vec::new(),
        }),
        test: None,
        links,
        change,
    }
}
