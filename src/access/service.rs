//! The token service: short tokens for clients that don't send a password with each request.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::principal::{Bearer, Principal};
use super::right::{Right, Rights};
use super::scope::AskedScope;
use super::{Access, AccessError};
use crate::names::{Millis, RepoName};

/// The service's name in challenges, and the issuer and audience of its tokens.
pub const TOKEN_SERVICE: &str = "pantry";
/// The audience of what may only be exchanged for a token.
const REFRESH: &str = "pantry/refresh";
/// So long a refresh token counts, if nothing ends it before.
const REFRESH_LIFE: Duration = Duration::from_hours(24 * 90);
/// Nothing of ours is longer.
const LONGEST: usize = 64 * 1024;

/// Signs and reads tokens.
pub(super) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    life: Duration,
}

/// What a token says. *Source*: RFC 7519; the token specification of the `distribution` project.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Entry>,
    /// Who it is for, so that it can be told what that one may now.
    holder: Holder,
}

/// One entry of `access`.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Holder {
    Anonymous,
    Admin { generation: u64 },
    User { name: String, generation: u64 },
    Token { id: String },
}

/// A token that was made.
#[derive(Clone)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// How long it counts, in seconds.
    pub expires_in: u64,
    /// Since when.
    pub issued_at: Millis,
    /// What was granted of what was asked, in the form of scopes with blanks between them.
    pub scope: String,
    /// What may be exchanged for further tokens, where that was asked for and somebody is known.
    pub refresh: Option<String>,
}

impl Signer {
    pub(super) fn new(key: &[u8], life: Duration) -> Self {
        Self { encoding: EncodingKey::from_secret(key), decoding: DecodingKey::from_secret(key), life }
    }

    fn read(&self, token: &str, audience: &str, now: Millis) -> Option<Claims> {
        if token.len() > LONGEST {
            return None;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[TOKEN_SERVICE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // By the clock that is passed in, not by the library's.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = decode::<Claims>(token, &self.decoding, &validation).ok()?.claims;
        let seconds = now.0 / 1000;
        (claims.nbf <= seconds && seconds < claims.exp).then_some(claims)
    }

    fn sign(&self, claims: &Claims) -> Result<String, AccessError> {
        encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .map_err(|error| AccessError::Signing { why: error.to_string() })
    }
}

impl Access {
    /// Makes a token with what of the scopes the principal may; with none of them it is a token all the same.
    /// `resolve` says which repository a name means.
    ///
    /// # Errors
    /// [`AccessError::Signing`].
    pub fn issue(
        &self,
        who: &Principal,
        scopes: &[AskedScope<'_>],
        resolve: impl Fn(&str) -> Option<RepoName>,
        offline: bool,
    ) -> Result<Issued, AccessError> {
        let now = self.now();
        let (mut access, mut granted) = (Vec::new(), Vec::new());
        for scope in scopes {
            if scope.kind == "registry" && scope.name == "catalog" && who.may_list() {
                access.push(entry("registry", "catalog", vec!["*".to_owned()]));
                granted.push("registry:catalog:*".to_owned());
                continue;
            }
            if scope.kind != "repository" {
                continue;
            }
            let Some(repo) = resolve(scope.repository()) else { continue };
            let asked = scope.rights();
            let rights = asked.iter().filter(|right| who.may_in(*right, &repo));
            let actions: Vec<String> = rights.map(|right| right.as_str().to_owned()).collect();
            if !actions.is_empty() {
                granted.push(format!("repository:{}:{}", scope.name, actions.join(",")));
                access.push(entry("repository", repo.as_str(), actions));
            }
        }
        let holder = self.holder(who);
        let life = self.0.signer.life;
        let claims = self.claims(who, TOKEN_SERVICE, holder, access, life);
        let refresh = match self.holder(who) {
            Holder::Anonymous => None,
            holder if offline => {
                Some(self.0.signer.sign(&self.claims(who, REFRESH, holder, Vec::new(), REFRESH_LIFE))?)
            }
            _ => None,
        };
        let token = self.0.signer.sign(&claims)?;
        Ok(Issued { token, expires_in: life.as_secs(), issued_at: now, scope: granted.join(" "), refresh })
    }

    /// Who holds a refresh token; nobody when it has ended with a changed password, a disabled or deleted user, or a
    /// revoked API token.
    #[must_use]
    pub fn refreshed(&self, refresh: &str) -> Option<Principal> {
        let claims = self.0.signer.read(refresh, REFRESH, self.now())?;
        self.subject(&claims.holder)
    }

    /// Who holds a token of the token service, with the rights of now.
    pub(super) fn bearer(&self, token: &str) -> Option<Principal> {
        let claims = self.0.signer.read(token, TOKEN_SERVICE, self.now())?;
        let subject = self.subject(&claims.holder)?;
        let (mut access, mut catalogue) = (Vec::new(), false);
        for entry in claims.access {
            if entry.kind == "registry" {
                catalogue |= entry.name == "catalog";
            } else if let Ok(repo) = RepoName::parse(&entry.name) {
                let rights = entry.actions.iter().filter_map(|word| Right::parse(word));
                access.push((repo, rights.fold(Rights::NONE, Rights::with)));
            }
        }
        Some(Principal::Bearer(Arc::new(Bearer { subject, access, catalogue })))
    }

    fn claims(
        &self,
        who: &Principal,
        audience: &str,
        holder: Holder,
        access: Vec<Entry>,
        life: Duration,
    ) -> Claims {
        let mut id = [0_u8; 16];
        self.random().fill(&mut id);
        let seconds = self.now().0 / 1000;
        Claims {
            iss: TOKEN_SERVICE.to_owned(),
            sub: who.label(),
            aud: audience.to_owned(),
            exp: seconds + life.as_secs(),
            nbf: seconds,
            iat: seconds,
            jti: format!("{:032x}", u128::from_be_bytes(id)),
            access,
            holder,
        }
    }

    /// As whom a principal is found again. Local users need no token; what they get is worth what everybody has.
    fn holder(&self, who: &Principal) -> Holder {
        match who {
            Principal::User { name, .. } => match self.directory().accounts.get(name) {
                Some(account) => Holder::User { name: name.to_string(), generation: account.generation },
                None => Holder::Anonymous,
            },
            Principal::Token { owner: None, .. } => Holder::Admin { generation: self.0.admin.generation() },
            Principal::Token { id, .. } => Holder::Token { id: id.to_string() },
            Principal::Anonymous { .. } | Principal::Peer { .. } | Principal::Bearer(_) => Holder::Anonymous,
        }
    }

    fn subject(&self, holder: &Holder) -> Option<Principal> {
        let directory = self.directory();
        match holder {
            Holder::Anonymous => Some(directory.anonymous.clone()),
            Holder::Admin { generation } => {
                (*generation == self.0.admin.generation()).then(Self::administrator)
            }
            Holder::User { name, generation } => {
                let account = directory.accounts.get(name.as_str())?;
                (!account.disabled && account.generation == *generation).then(|| account.principal())
            }
            Holder::Token { id } => directory.tokens_by_id.get(id.as_str())?.principal(self.now()),
        }
    }
}

/// With a key of its own, signs what may be claims, and reads tokens at second 1,000: for tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub fn sign_and_read(text: &str, audience: &str) -> (String, impl Fn(&str) -> Option<String>) {
    const KEY: &[u8] = &[7; 32];
    let signature =
        jsonwebtoken::crypto::sign(text.as_bytes(), &EncodingKey::from_secret(KEY), Algorithm::HS256);
    let own = Signer::new(KEY, Duration::from_mins(5));
    let audience = audience.to_owned();
    let read = move |token: &str| own.read(token, &audience, Millis(1_000_000)).map(|claims| claims.sub);
    (signature.unwrap_or_default(), read)
}

fn entry(kind: &str, name: &str, actions: Vec<String>) -> Entry {
    Entry { kind: kind.to_owned(), name: name.to_owned(), actions }
}
