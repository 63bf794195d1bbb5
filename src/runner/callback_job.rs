//! The callback job: signs the report's bytes and posts them. It never sees the package.

use std::time::Duration;

use crate::callback::{HEADER, Signer};
use crate::names::{Nonce, SubmissionId};

use super::error::RunnerError;
use super::report::TestReport;

/// Time for one request, from connecting to the answer's end.
const TIMEOUT: Duration = Duration::from_secs(20);
/// An answer is a few words; more isn't read.
const ANSWER_CAP: usize = 64 * 1024;
/// How long it waits before each further attempt.
pub(super) const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(30)];

/// Where a report goes.
pub(super) struct CallbackJob<'a> {
    pub(super) submission: &'a SubmissionId,
    pub(super) nonce: &'a Nonce,
    pub(super) url: &'a str,
    pub(super) signer: &'a Signer,
    pub(super) delays: &'a [Duration],
    /// Whom it trusts; without it whom this machine trusts.
    pub(super) tls: Option<&'a rustls::ClientConfig>,
}

/// What one attempt came to.
enum Attempt {
    Accepted,
    Refused { status: u16, code: String },
    ServerFailed { status: u16 },
    Unreachable(reqwest::Error),
}

impl CallbackJob<'_> {
    /// Posts the report until it is accepted or refused, the same bytes at each attempt: a repeat of what was accepted
    /// without our hearing so is answered with 200 again.
    ///
    /// # Errors
    /// When the server refuses the result, or doesn't take it at any attempt.
    pub(super) async fn run(&self, report: &TestReport) -> Result<(), RunnerError> {
        let body = report.body_bytes();
        let (signature, key_id) = self.signer.sign(self.submission, self.nonce, &body);
        let request = |source| RunnerError::Request { url: self.url.to_owned(), source };
        // A redirect or a proxy from the environment would carry the result to somebody else.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT);
        if let Some(tls) = self.tls {
            builder = builder.tls_backend_preconfigured(tls.clone());
        }
        let client = builder.build().map_err(request)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self.attempt(&client, &signature, body.clone()).await?;
            let failure = match attempt {
                Attempt::Accepted => {
                    tracing::info!(submission = %self.submission, key_id, attempts, "result delivered");
                    return Ok(());
                }
                Attempt::Refused { status, code } => return Err(RunnerError::Refused { status, code }),
                Attempt::ServerFailed { status } => {
                    RunnerError::ServerFailed { url: self.url.to_owned(), status, attempts }
                }
                Attempt::Unreachable(source) => {
                    RunnerError::Unreachable { url: self.url.to_owned(), attempts, source }
                }
            };
            let Some(delay) = self.delays.get(attempts - 1) else { return Err(failure) };
            tracing::warn!(submission = %self.submission, error = %failure, delay_ms = delay.as_millis(), "result not delivered yet");
            tokio::time::sleep(*delay).await;
        }
    }

    async fn attempt(
        &self,
        client: &reqwest::Client,
        signature: &str,
        body: Vec<u8>,
    ) -> Result<Attempt, RunnerError> {
        let request = client
            .post(self.url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(HEADER, signature)
            .body(body)
            .build()
            .map_err(|source| RunnerError::Request { url: self.url.to_owned(), source })?;
        let response = match client.execute(request).await {
            Ok(response) => response,
            Err(source) => return Ok(Attempt::Unreachable(source)),
        };
        let status = response.status();
        Ok(match status.as_u16() {
            200 => Attempt::Accepted,
            500.. => Attempt::ServerFailed { status: status.as_u16() },
            status => Attempt::Refused { status, code: code_of(response).await },
        })
    }
}

/// The `code` of the answer's problem document.
async fn code_of(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        if bytes.len() + piece.len() > ANSWER_CAP {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    let problem: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let code = problem["code"].as_str().filter(|code| {
        code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    code.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
