//! Requests of one client. A request that a death of the server cuts off is *lost*: whether it was done is unknown.
//! One that fails otherwise is an error that a client saw.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::Method;
use reqwest::blocking::Client;
use reqwest::header::HeaderMap;

use super::history::History;
use super::server::Server;

/// The longest that the server may be away, or take for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// What came back, whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The life of the server that answered.
    pub life: u64,
    /// Just before the request went out.
    pub asked: Instant,
    /// When the answer was there.
    pub answered: Instant,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Fails unless the status is one of these.
    pub fn expect(self, allowed: &[u16], what: &str) -> anyhow::Result<Self> {
        if allowed.contains(&self.status) {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]).into_owned();
        bail!("{what} was answered with {} instead of {allowed:?}: {body}", self.status)
    }
}

/// A request to be sent, perhaps more than once.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    /// From the slash on, or a whole address that the server gave.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Ask {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }
}

/// One client of the server, with connections of its own that end with each life of the server.
pub struct Wire<'s> {
    server: &'s Server,
    token: String,
    client: Option<(u64, Client)>,
    pub history: History,
    /// Requests that were answered, and that deaths cut off.
    pub answered: u64,
    pub lost: u64,
}

impl<'s> Wire<'s> {
    pub fn new(server: &'s Server, history: History) -> anyhow::Result<Self> {
        Ok(Self { server, token: server.token()?, client: None, history, answered: 0, lost: 0 })
    }

    /// Sends once; `None` when the server died meanwhile.
    pub fn once(&mut self, ask: &Ask) -> anyhow::Result<Option<Answer>> {
        let life = self.server.alive(PATIENCE).context("the server did not come back")?;
        let client = match &self.client {
            Some((of, client)) if *of == life => client.clone(),
            _ => {
                let client = Client::builder()
                    .no_proxy()
                    .redirect(reqwest::redirect::Policy::none())
                    .timeout(PATIENCE)
                    .build()?;
                self.client.insert((life, client)).1.clone()
            }
        };
        let url = if ask.path.starts_with('/') {
            format!("{}{}", self.server.url(), ask.path)
        } else {
            ask.path.clone()
        };
        let mut request = client.request(ask.method.clone(), url).bearer_auth(&self.token);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if !ask.body.is_empty() || matches!(ask.method, Method::POST | Method::PUT | Method::PATCH) {
            request = request.body(ask.body.clone());
        }
        let asked = Instant::now();
        let outcome = request.send().and_then(|response| {
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok((status, headers, response.bytes()?))
        });
        let came = match &outcome {
            Ok((status, ..)) => status.to_string(),
            Err(error) if self.server.life() == life => format!("failed: {error}"),
            Err(_) => "lost".to_owned(),
        };
        let path = ask.path.split_once("/v2/").map_or(ask.path.as_str(), |(_, rest)| rest);
        self.history.note(&format!(
            "{} {path} ({} bytes) in life {life}: {came}",
            ask.method,
            ask.body.len()
        ))?;
        match outcome {
            Ok((status, headers, body)) => {
                self.answered += 1;
                Ok(Some(Answer { status, headers, body, life, asked, answered: Instant::now() }))
            }
            Err(_) if self.server.life() != life => {
                self.lost += 1;
                Ok(None)
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                Err(error.context(format!("{} {} failed while the server lived", ask.method, ask.path)))
            }
        }
    }

    /// Sends until it is answered: only for what may be done twice.
    pub fn until_answered(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        loop {
            if let Some(answer) = self.once(ask)? {
                return Ok(answer);
            }
        }
    }
}
