//! What a registry answers, and what goes wrong on the way, as the command line tells it.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::patience::Patience;
use crate::cli::failure::{Failure, cause};
use crate::cli::output::safe;

/// An error's body is read no further than this.
const BODY_CAP: usize = 64 * 1024;

/// The reason at the bottom of an error.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    safe(&cause(error).to_string())
}

/// A request that got no answer.
pub(super) fn unreachable(registry: &str, error: &reqwest::Error) -> Failure {
    let why = reason(error);
    let hint = if why.contains("certificate") || why.contains("UnknownIssuer") {
        "give the certificate of the registry, or of who signed it, by --ca FILE"
    } else if error.is_connect() {
        "check the name and the port; --plain-http where the registry has no TLS"
    } else {
        "run the command again: what has arrived is not sent twice"
    };
    Failure::registry_unreachable(format!("cannot reach {registry}: {why}"), hint)
}

/// A refusal, with the registry's own code and words.
pub(super) async fn refused(what: &str, response: Response) -> Failure {
    let status = response.status();
    let body = Patience::default().bounded(response, BODY_CAP).await.unwrap_or_default();
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let first = &value["errors"][0];
    // What the specification has no code for may have one of its own.
    let code = first["detail"]["code"].as_str().or_else(|| first["code"].as_str());
    let code = code.map(|code| safe(code).to_lowercase());
    let code = code.unwrap_or_else(|| format!("http_{}", status.as_u16()));
    let said = first["message"].as_str().map_or_else(|| status.to_string(), |text| shortened(&safe(text)));
    let hint = first["detail"]["hint"].as_str().map(|hint| shortened(&safe(hint)));
    let hint = hint.or_else(|| own_hint(status).map(str::to_owned));
    Failure::answered(status.as_u16(), &code, format!("{what}: {said}"), hint)
}

fn own_hint(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => {
            Some("log in with `pantry login`, or give --username and --password-stdin, or --token")
        }
        StatusCode::FORBIDDEN => Some("ask who administers the registry for the right to do this"),
        _ => None,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(400).collect()
}
