//! `submit.publish`: what the accepted result means. Published is the digest that was stored before dispatch.

use serde_json::Value;

use crate::audit;
use crate::callback::ResultBody;
use crate::changes::{Step, TaskFailure};
use crate::names::PackId;
use crate::packs::{self, BuiltPack};
use crate::state::Read as _;
use crate::trees::LayerRef;

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::record::{
    CLAIMS, NAMES, NameRecord, PackRow, SUBMISSIONS, SubmissionState, VERSIONS, VersionRecord,
};
use super::{Job, broken};

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Codes that a runner may give for a failed test.
const RUNNER_CODES: &[ReasonCode] = &[
    ReasonCode::TestsFailed,
    ReasonCode::TestTimeout,
    ReasonCode::TestResourceLimit,
    ReasonCode::TestEscapeAttempt,
];
const ERRORS_CAP: usize = 50;

/// The findings of a result that did not pass: the runner's codes as far as they are known, and its errors.
pub(in super::super) fn findings_of(body: &ResultBody) -> Vec<Finding> {
    let mut codes: Vec<ReasonCode> = body
        .extra
        .get("reason_codes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|code| ReasonCode::parse(code.as_str()?))
        .filter(|code| RUNNER_CODES.contains(code))
        .collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() {
        codes.push(ReasonCode::TestsFailed);
    }
    let mut findings: Vec<Finding> = codes
        .iter()
        .map(|code| {
            let words = if body.summary.trim().is_empty() { code.sentence() } else { body.summary.as_str() };
            Finding::new(*code, words)
        })
        .collect();
    let first = codes[0];
    findings.extend(body.errors.iter().take(ERRORS_CAP).map(|error| Finding::new(first, error)));
    findings
}

impl Job<'_> {
    pub(super) async fn publish(&self) -> Result<Step, TaskFailure> {
        let accepted = self.row.accepted.as_ref();
        let passed =
            accepted.ok_or_else(|| TaskFailure::new("result_missing", "no result was accepted"))?.passed;
        if !passed {
            let missing = || TaskFailure::new("result_missing", "the accepted result is gone");
            let body: ResultBody = self.json(self.row.result.as_ref().ok_or_else(missing)?).await?;
            let mut findings = self.warnings().await?;
            findings.extend(findings_of(&body));
            return self.reject(findings).await;
        }
        if let Some(lacks) = &self.row.lacks {
            let message = format!("the tests passed, but the package can't be published: {lacks}");
            let finding = Finding::new(ReasonCode::InternalError, message).value("submission_incomplete");
            return self.reject(vec![finding]).await;
        }
        let manifest = self.manifest().await?;
        let row = self.row.pack.clone();
        let pack =
            self.built(row.ok_or_else(|| TaskFailure::new("pack_missing", "the pack is gone"))?).await?;
        let publisher = self.row.publisher.clone();
        let publisher = publisher
            .ok_or_else(|| TaskFailure::new("publisher_missing", "the submission has no publisher"))?;
        let package = PackId { publisher, name: manifest.name.clone() };
        let repository = package.repository();
        let (id, now) = (self.id.clone(), self.inner.now());
        self.inner.parts.faults.pass("store.publish");
        let (name, version) = (manifest.name.clone(), manifest.version.clone());
        let key = (name.canonical(), version.clone());
        self.inner
            .parts
            .state
            .write(move |tx| {
                let Some(mut row) = tx.get(&SUBMISSIONS, &id)?.filter(|row| !row.state.is_final()) else {
                    return Ok(());
                };
                packs::place(tx, now, &repository, &pack, &[version.tag()])?;
                let release = VersionRecord {
                    digest: pack.manifest.digest.clone(),
                    source: row.source.as_ref().map(|source| source.digest.clone()),
                    submission: id.clone(),
                    published_at: now,
                };
                tx.put(&VERSIONS, &key, &release)?;
                tx.delete(&CLAIMS, &key)?;
                let newest = tx
                    .scan(&VERSIONS, &crate::state::Scan::prefix(&key.0), crate::state::MAX_SCAN_ROWS)?
                    .into_iter()
                    .all(|((_, other), _)| other <= key.1);
                let known = tx.get(&NAMES, &key.0)?.map(|known| known.description);
                let description = known.filter(|_| !newest).unwrap_or_else(|| manifest.description.clone());
                let owner = NameRecord {
                    publisher: package.publisher.clone(),
                    name: manifest.name.clone(),
                    description,
                    published: true,
                };
                tx.put(&NAMES, &key.0, &owner)?;
                row.state = SubmissionState::Published;
                row.verdict.clone_from(&row.checks);
                row.trouble = None;
                row.updated_at = row.updated_at.max(now);
                tx.put(&SUBMISSIONS, &id, &row)?;
                let event = audit::Event {
                    who: row.by.clone(),
                    action: "publish".to_owned(),
                    subject: format!("{repository}:{version}"),
                    outcome: "published".to_owned(),
                    why: format!("submission {id}, {}", pack.manifest.digest),
                };
                audit::append(tx, now, &event)?;
                Ok(())
            })
            .await?;
        self.inner.parts.faults.pass("store.published");
        self.ctx.log(&format!("published {name} {}", manifest_tag(&self.row))).await;
        Ok(Step::Done)
    }

    /// What the checks warned about stays with the verdict.
    async fn warnings(&self) -> Result<Vec<Finding>, TaskFailure> {
        match &self.row.checks {
            Some(checks) => {
                let verdict: super::super::finding::VerdictView = self.json(&checks.whole).await?;
                Ok(verdict.warnings)
            }
            None => Ok(Vec::new()),
        }
    }

    async fn built(&self, row: PackRow) -> Result<BuiltPack, TaskFailure> {
        let bytes = self.inner.parts.blobs.read_small(&row.manifest.digest, 4 << 20).await;
        let bytes = bytes.map_err(|error| broken(error.code(), &error))?;
        Ok(BuiltPack {
            manifest: row.manifest.stored(),
            manifest_bytes: bytes.to_vec(),
            config: row.config.stored(),
            layers: row
                .layers
                .into_iter()
                .map(|(digest, diff_id, size)| {
                    let stored = crate::blobs::Stored::known(digest.clone(), size);
                    (LayerRef { digest, diff_id }, stored)
                })
                .collect(),
            media_type: MEDIA_TYPE,
        })
    }
}

fn manifest_tag(row: &super::super::record::SubmissionRecord) -> String {
    row.version.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn body(json: serde_json::Value) -> ResultBody {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_failed_result_without_known_codes_is_a_failed_test() {
        let body =
            body(serde_json::json!({"passed": false, "summary": "FAIL", "test_count": 1, "pass_count": 0,
            "errors": ["own: it broke"], "reason_codes": ["name_taken", "nonsense", 7]}));
        let codes: Vec<String> = findings_of(&body).into_iter().map(|finding| finding.reason_code).collect();
        assert_eq!(codes, ["tests_failed", "tests_failed"]);
    }

    #[test]
    fn a_runner_can_say_which_way_a_test_failed() {
        let body = body(serde_json::json!({"passed": false, "summary": "", "test_count": 1, "pass_count": 0,
            "reason_codes": ["test_timeout", "test_resource_limit", "test_timeout"]}));
        let found = findings_of(&body);
        let codes: Vec<&str> = found.iter().map(|finding| finding.reason_code.as_str()).collect();
        assert_eq!(codes, ["test_timeout", "test_resource_limit"]);
        assert!(found.iter().all(Finding::is_error));
    }
}
