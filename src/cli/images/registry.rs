//! One repository of one registry, as a client sees it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderValue, header};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::challenge::Challenge;
use super::content::{ACCEPTED, MANIFEST_CAP};
use super::credentials::Credentials;
use super::failure::{reason, refused, unreachable};
use super::name::plain_by_default;
use super::patience::{Moved, Patience};
use crate::cli::failure::Failure;
use crate::names::Digest;

/// An answer with a token has no more bytes than this.
const TOKEN_CAP: usize = 256 * 1024;
/// A registry that is busy is asked again this often.
const PATIENCE: u32 = 5;
/// And it is waited for this long at most, whatever it asks for.
const LONGEST_WAIT: u64 = 30;

/// How a registry is reached.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Connection {
    /// Plain HTTP or not; where nobody says so, as [`plain_by_default`] has it.
    pub(in crate::cli) plain_http: Option<bool>,
    /// Certificates to trust beside those of the system.
    pub(in crate::cli) ca: Option<PathBuf>,
    /// Who asks.
    pub(in crate::cli) credentials: Option<Credentials>,
}

/// A client of one registry, with the rights that it asks for.
pub(in crate::cli) struct Registry {
    http: reqwest::Client,
    base: Url,
    host: String,
    repository: String,
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    patience: Patience,
    /// The `Authorization` that was good last.
    shown: Mutex<Option<HeaderValue>>,
}

/// Where a blob goes.
pub(in crate::cli) enum Place {
    /// Nowhere: the registry had it.
    Mounted,
    /// To this address.
    Upload(Url),
}

impl Registry {
    /// A client for `host`; `scopes` are what it asks for where the registry gives tokens.
    pub(in crate::cli) fn new(
        host: &str,
        repository: &str,
        scopes: Vec<String>,
        connection: &Connection,
    ) -> Result<Self, Failure> {
        let local = plain_by_default(host);
        let plain = connection.plain_http.unwrap_or(local && connection.ca.is_none());
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pantry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20));
        if local {
            // No proxy can reach this machine's own addresses.
            builder = builder.no_proxy();
        }
        if let Some(file) = &connection.ca {
            let bad = |why: String| {
                Failure::usage("ca_not_valid", format!("{} holds no certificates: {why}", file.display()))
                    .with_hint(Some("give a PEM file".to_owned()))
            };
            let pem =
                fs_err::read(file).map_err(|error| Failure::usage("ca_not_valid", error.to_string()))?;
            let all = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| bad(reason(&error)))?;
            if all.is_empty() {
                return Err(bad("it has no `BEGIN CERTIFICATE`".to_owned()));
            }
            builder = builder.tls_certs_merge(all);
        }
        let http = builder.build().map_err(|error| {
            Failure::local("client_unavailable", format!("cannot make a client: {}", reason(&error)))
        })?;
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| Failure::usage("name_not_valid", format!("{host:?} is no registry: {error}")))?;
        Ok(Self {
            http,
            base,
            host: host.to_owned(),
            repository: repository.to_owned(),
            scopes,
            credentials: connection.credentials.clone(),
            patience: Patience::default(),
            shown: Mutex::new(None),
        })
    }

    /// A client that pulls from a repository.
    pub(in crate::cli) fn to_pull(
        host: &str,
        repository: &str,
        connection: &Connection,
    ) -> Result<Self, Failure> {
        Self::new(host, repository, vec![format!("repository:{repository}:pull")], connection)
    }

    /// A client that pushes to a repository, and mounts from those of `sources`.
    pub(in crate::cli) fn to_push(
        host: &str,
        repository: &str,
        sources: &[String],
        connection: &Connection,
    ) -> Result<Self, Failure> {
        let mut scopes = vec![format!("repository:{repository}:pull,push")];
        let others = sources.iter().filter(|source| *source != repository);
        scopes.extend(others.map(|source| format!("repository:{source}:pull")));
        Self::new(host, repository, scopes, connection)
    }

    /// How long it is waited for.
    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// `HOST[:PORT]`
    pub(in crate::cli) fn host(&self) -> &str {
        &self.host
    }

    /// Asks the registry for itself; fails where these credentials are not good.
    pub(in crate::cli) async fn check(&self) -> Result<(), Failure> {
        let response = self.send(|| Ok(self.http.get(self.base.clone()))).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(refused("it cannot be logged in to", response).await)
        }
    }

    /// A manifest's exact bytes, with the type that the registry says.
    pub(in crate::cli) async fn manifest(&self, reference: &str) -> Result<(Vec<u8>, String), Failure> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let response = self.send(|| Ok(self.http.get(url.clone()).header(header::ACCEPT, ACCEPTED))).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&format!("{}/{reference}", self.repository), response).await);
        }
        let kind = text_of(&response, header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let cap = usize::try_from(MANIFEST_CAP).unwrap_or(usize::MAX);
        let bytes = self.patience.bounded(response, cap).await.map_err(|unread| {
            unread.of(&self.host, |unread| {
                Failure::rejected("manifest_not_valid", format!("the manifest of {reference} {unread}"))
            })
        })?;
        if let Ok(wanted) = Digest::parse(reference)
            && !wanted.names(&bytes)
        {
            return Err(mismatch(&wanted));
        }
        Ok((bytes, kind))
    }

    /// Is a blob there?
    pub(in crate::cli) async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.send(|| Ok(self.http.head(url.clone()))).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(&format!("blob {digest}"), response).await),
        }
    }

    /// Asks for a blob from a byte on; `true` where the answer begins there, and not at the first byte.
    pub(in crate::cli) async fn blob(&self, digest: &Digest, from: u64) -> Result<(Response, bool), Failure> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let make = || {
            let request = self.http.get(url.clone());
            Ok(if from == 0 { request } else { request.header(header::RANGE, format!("bytes={from}-")) })
        };
        let response = self.send(make).await?;
        match response.status() {
            StatusCode::OK => Ok((response, false)),
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                let begins = text_of(&response, header::CONTENT_RANGE)
                    .is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
                if begins {
                    return Ok((response, true));
                }
                let detail = format!("{} answers another range than was asked for", self.host);
                Err(Failure::local("registry_not_valid", detail))
            }
            _ => Err(refused(&format!("blob {digest}"), response).await),
        }
    }

    /// Begins to send a blob, unless the registry has it in a repository that this caller may read.
    pub(in crate::cli) async fn place(
        &self,
        digest: &Digest,
        source: Option<&str>,
    ) -> Result<Place, Failure> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string());
        if let Some(source) = source {
            url.query_pairs_mut().append_pair("from", source);
        }
        let make = || Ok(self.http.post(url.clone()).header(header::CONTENT_LENGTH, 0));
        let response = self.send(make).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Place::Mounted),
            StatusCode::ACCEPTED => {
                let location = text_of(&response, header::LOCATION).unwrap_or_default();
                let place = url.join(&location).ok().filter(|_| !location.is_empty());
                let mut place = place.ok_or_else(|| {
                    let detail = format!("{} does not say where the blob goes", self.host);
                    Failure::local("registry_not_valid", detail)
                })?;
                place.query_pairs_mut().append_pair("digest", &digest.to_string());
                Ok(Place::Upload(place))
            }
            _ => Err(refused(&format!("an upload to {}", self.repository), response).await),
        }
    }

    /// Sends a blob's bytes; `body` makes them anew where the request has to be made again, and notes what is taken.
    pub(super) async fn upload(
        &self,
        place: &Url,
        size: u64,
        body: impl AsyncFn(Moved) -> Result<reqwest::Body, Failure>,
    ) -> Result<(), Failure> {
        let mut renewed = false;
        loop {
            let moved = Moved::begin(size);
            let request = self
                .http
                .put(place.clone())
                .header(header::CONTENT_LENGTH, size)
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(body(moved.clone()).await?);
            let (response, shown) = self.send_once(request, Some(&moved)).await?;
            match response.status() {
                StatusCode::CREATED => return Ok(()),
                StatusCode::UNAUTHORIZED if !renewed && self.authorize(&response, shown.as_ref()).await? => {
                    renewed = true;
                }
                _ => return Err(refused("the upload of a blob", response).await),
            }
        }
    }

    /// Sends a manifest, and checks that the registry took exactly it.
    pub(in crate::cli) async fn put_manifest(
        &self,
        reference: &str,
        kind: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let kind = HeaderValue::from_str(kind).map_err(|_| {
            Failure::rejected("manifest_not_valid", "the type of a manifest is no header value")
        })?;
        let make = || {
            let request = self.http.put(url.clone()).header(header::CONTENT_TYPE, kind.clone());
            Ok(request.body(bytes.to_vec()))
        };
        let response = self.send(make).await?;
        if response.status() != StatusCode::CREATED {
            return Err(refused(&format!("{}/{reference}", self.repository), response).await);
        }
        let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match said.map(Digest::parse) {
            Some(Ok(said)) if !said.names(bytes) => Err(mismatch(&Digest::of(bytes))),
            _ => Ok(()),
        }
    }

    fn url(&self, rest: &str) -> Result<Url, Failure> {
        self.base.join(&format!("{}/{rest}", self.repository)).map_err(|error| {
            Failure::usage("name_not_valid", format!("{} is no address: {error}", self.repository))
        })
    }

    /// Sends a request; with new credentials where they are demanded, and again later where the registry is busy.
    async fn send(&self, make: impl Fn() -> Result<RequestBuilder, Failure>) -> Result<Response, Failure> {
        let (mut renewed, mut waits) = (false, 0);
        loop {
            let (response, shown) = self.send_once(make()?, None).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !renewed && self.authorize(&response, shown.as_ref()).await? => {
                    renewed = true;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if waits < PATIENCE => {
                    let after = text_of(&response, header::RETRY_AFTER).and_then(|text| text.parse().ok());
                    waits += 1;
                    let seconds = after.unwrap_or(u64::from(waits)).min(LONGEST_WAIT);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Sends a request, of whose body `moved` tells; gives the answer, and the credentials that were shown.
    async fn send_once(
        &self,
        request: RequestBuilder,
        moved: Option<&Moved>,
    ) -> Result<(Response, Option<HeaderValue>), Failure> {
        let mut request = request.build().map_err(|error| unreachable(&self.host, &error))?;
        // An upload may go to another host, which must not see what was meant for the registry.
        let shown = if request.url().origin() == self.base.origin() { self.shown().clone() } else { None };
        if let Some(shown) = &shown {
            request.headers_mut().insert(header::AUTHORIZATION, shown.clone());
        }
        let answer = self.http.execute(request);
        let answer = match moved {
            Some(moved) => self.patience.uploaded(&self.host, moved, answer).await?,
            None => self.patience.answer(&self.host, answer).await?,
        };
        Ok((answer.map_err(|error| unreachable(&self.host, &error))?, shown))
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gets what an answer demands; `false` where that is what has been shown already.
    async fn authorize(&self, response: &Response, before: Option<&HeaderValue>) -> Result<bool, Failure> {
        if response.url().origin() != self.base.origin() {
            return Ok(false);
        }
        let values = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let demanded: Vec<Challenge> =
            values.filter_map(|value| value.to_str().ok()).filter_map(Challenge::parse).collect();
        let token = demanded.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match (token.or(demanded.first()), &self.credentials) {
            (_, Some(Credentials::Token(token))) => bearer(token)?,
            (Some(Challenge::Bearer { realm, service }), _) => {
                bearer(&self.token(realm, service.as_deref()).await?)?
            }
            (Some(Challenge::Basic), Some(credentials)) => credentials.basic()?,
            _ => return Ok(false),
        };
        let changed = before != Some(&value);
        *self.shown() = Some(value);
        Ok(changed)
    }

    /// A token for the scopes, from where the registry says.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<String, Failure> {
        let bad =
            |why: &str| Failure::local("registry_not_valid", format!("{} gives no token: {why}", self.host));
        let mut url = Url::parse(realm).map_err(|_| bad("its realm is no address"))?;
        if url.scheme() != "https" {
            // Who is reached by TLS must not have the password sent elsewhere in the clear.
            if self.base.scheme() == "https" {
                return Err(bad("it speaks TLS, and its realm does not"));
            }
            // The caller let it be shown in the clear to this registry, and to nobody else.
            if self.credentials.is_some() && url.origin() != self.base.origin() {
                return Err(bad(
                    "its realm is another host or port, and would get the password in the clear",
                ));
            }
        }
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service.map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        }
        let mut waits = 0;
        let response = loop {
            let mut request = self.http.get(url.clone());
            if let Some(credentials) = &self.credentials {
                request = request.header(header::AUTHORIZATION, credentials.basic()?);
            }
            let answer = self.patience.answer(&self.host, request.send()).await?;
            let response = answer.map_err(|error| unreachable(&self.host, &error))?;
            if response.status() != StatusCode::TOO_MANY_REQUESTS || waits == PATIENCE {
                break response;
            }
            waits += 1;
            let after = text_of(&response, header::RETRY_AFTER).and_then(|text| text.parse().ok());
            tokio::time::sleep(Duration::from_secs(after.unwrap_or(1).min(LONGEST_WAIT))).await;
        };
        if response.status() != StatusCode::OK {
            return Err(refused("no token is given", response).await);
        }
        let body = self.patience.bounded(response, TOKEN_CAP).await;
        let body = body.map_err(|unread| {
            unread.of(&self.host, |unread| bad(&format!("what its realm answers {unread}")))
        })?;
        let value: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| bad("its answer is no JSON"))?;
        let token = value["token"].as_str().or(value["access_token"].as_str());
        token.map(str::to_owned).ok_or_else(|| bad("its answer holds none"))
    }
}

/// What was asked for by its digest, and is something else.
pub(super) fn mismatch(digest: &Digest) -> Failure {
    Failure::rejected("digest_mismatch", format!("what should be {digest} is something else"))
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Failure::usage("token_not_valid", "the token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn text_of(response: &Response, name: header::HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
