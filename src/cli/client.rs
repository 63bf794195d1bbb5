//! The client of the API: over the local socket, or over HTTP with a token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::arguments::Global;
use super::failure::{Failure, cause};

/// Talks to one daemon.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    target: String,
    hint: String,
}

impl Client {
    /// The daemon that the global options name.
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let (builder, base, target, hint) = if let Some(url) = &global.host {
            let base = url.trim_end_matches('/').to_owned();
            if !(base.starts_with("http://") || base.starts_with("https://")) {
                let message = format!("{url} is not an https:// or http:// address");
                return Err(Failure::usage("host_not_supported", message));
            }
            let hint = if base.starts_with("https://") && global.ca.is_none() {
                "check --host, and that the server runs; a certificate of the server's own is trusted by --ca FILE"
            } else {
                "check --host, and that the server runs"
            };
            (trusting(builder, global)?, base.clone(), base, hint.to_owned())
        } else {
            let root = root(global);
            let socket = root.join("run/pantry.sock");
            let hint =
                format!("start it with `pantry serve --root {}`, or name it by --host", root.display());
            (
                builder.unix_socket(socket.as_path()),
                "http://localhost".to_owned(),
                socket.display().to_string(),
                hint,
            )
        };
        let http = builder.build().map_err(|error| {
            Failure::local("client_unavailable", format!("cannot make a client: {error}"))
        })?;
        Ok(Self { http, base, token: global.token.clone(), target, hint })
    }

    /// A request for a path of the API.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends and reads a JSON answer.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        self.send_with_status(request).await.map(|(_, value)| value)
    }

    /// As [`Client::send`], with the status.
    pub(super) async fn send_with_status(&self, request: RequestBuilder) -> Result<(u16, Value), Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok((status.as_u16(), value));
        }
        // A refusal with findings is an answer that the caller prints in full.
        if value.get("findings").is_some() {
            return Ok((status.as_u16(), value));
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let code = text("code").unwrap_or_else(|| format!("http_{}", status.as_u16()));
        let message = text("detail")
            .or_else(|| text("title"))
            .unwrap_or_else(|| format!("the server answered {status}"));
        Err(Failure::answered(status.as_u16(), &code, message, text("hint")))
    }

    /// Every entry of a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut entries = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=200{after}")).await?;
            entries.extend(page["items"].as_array().into_iter().flatten().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(entries),
            }
        }
    }

    /// Reads a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path)).await
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let detail = format!("cannot reach the daemon at {}: {}", self.target, cause(error));
        Failure::unreachable(detail, &self.hint)
    }
}

/// Trusts the certificates that `--ca` names, and no others.
pub(super) fn trusting(
    builder: reqwest::ClientBuilder,
    global: &Global,
) -> Result<reqwest::ClientBuilder, Failure> {
    let Some(path) = &global.ca else { return Ok(builder) };
    let unusable = |why: String| {
        Failure::usage("ca_unusable", format!("{} cannot be used: {why}", path.display()))
            .with_hint(Some("give a PEM file with certificates, such as the server's ca.pem".to_owned()))
    };
    let pem = fs_err::read(path).map_err(|error| unusable(error.to_string()))?;
    let certificates =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(builder.tls_certs_only(certificates))
}

/// The root that the global options, the environment or the default name.
pub(super) fn root(global: &Global) -> PathBuf {
    global.root.clone().unwrap_or_else(|| crate::config::default_root(&environment()))
}

/// The process's environment; a variable that is not UTF-8 is none of ours.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Waits between two looks at something that goes on: briefly at first, then longer, so that neither a quick end nor a
/// busy server waits for long.
pub(super) struct Looks(Duration);

impl Looks {
    pub(super) fn new() -> Self {
        Self(Duration::from_millis(20))
    }

    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 5 / 4).min(Duration::from_millis(500));
    }
}
