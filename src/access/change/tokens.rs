//! API tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{administers, event, is_self};
use crate::access::name::AccountName;
use crate::access::principal::{Principal, Role};
use crate::access::right::Scope;
use crate::access::tables::{TOKENS, TokenRecord};
use crate::access::view::TokenView;
use crate::access::{Access, AccessError, token};
use crate::names::hex;
use crate::state::Read as _;

/// So many are kept at most: all are in memory.
const TOKENS_CAP: usize = 100_000;
/// One user has so many at most.
const TOKENS_OF_ONE: usize = 200;
/// A token is narrowed to so many patterns at most.
const SCOPES_CAP: usize = 64;
/// A token that lives longer had better not be said to end.
const LONGEST_LIFE: Duration = Duration::from_hours(24 * 3660);

/// An API token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who owns it.
    pub owner: AccountName,
    /// What it is called, once an owner.
    pub name: AccountName,
    /// How long it counts; for ever without it.
    pub expires_in: Option<Duration>,
    /// What of its owner's rights it has; all when empty.
    pub scopes: Vec<Scope>,
    /// The most that its holder is here. Without it: as its owner, or nobody where `scopes` narrow it.
    pub role: Option<Role>,
}

/// An API token that was made; the token itself is told this once.
pub struct MadeToken {
    /// `pty_…`.
    pub secret: String,
    /// What is told of it later too.
    pub view: TokenView,
}

impl Access {
    /// The API tokens, of one owner or of all.
    #[must_use]
    pub fn tokens(&self, owner: Option<&str>) -> Vec<TokenView> {
        let (directory, now) = (self.directory(), self.now());
        let tokens = directory.tokens_by_id.values();
        let wanted = tokens.filter(|token| owner.is_none_or(|owner| owner == &*token.owner));
        wanted.map(|token| TokenView::of(token, now)).collect()
    }

    /// Makes an API token: an administrator for everybody, who showed a password for themselves.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`], [`AccessError::TokenExists`],
    /// [`AccessError::TokenInvalid`], [`AccessError::TooMany`].
    pub async fn create_token(&self, by: &Principal, new: NewToken) -> Result<MadeToken, AccessError> {
        if !is_self(by, &new.owner) {
            administers(by)?;
        }
        self.check_token(&new)?;
        let mut bytes = [0_u8; 32];
        self.random().fill(&mut bytes);
        let secret = format!("{}{}", token::PREFIX, URL_SAFE_NO_PAD.encode(bytes));
        let hash = hex(&token::hash(&secret));
        let mut bytes = [0_u8; 8];
        self.random().fill(&mut bytes);
        let id = format!("{:016x}", u64::from_be_bytes(bytes));
        let now = self.now();
        let record = TokenRecord {
            id: id.clone(),
            owner: new.owner.clone(),
            name: new.name.clone(),
            hash,
            role: new.role,
            scopes: new.scopes,
            created_at: now,
            expires_at: new.expires_in.map(|life| now.after(life)),
        };
        let until = record.expires_at.map_or_else(|| "no end".to_owned(), |at| format!("until {at}"));
        let label = format!("token:{}/{}", new.owner, new.name);
        let event = event(by, "access.token.create", &label, &until);
        let key = (new.owner.to_string(), new.name.to_string());
        self.change(event, move |tx| {
            if tx.get(&TOKENS, &key)?.is_some() {
                return Ok(Err(AccessError::TokenExists { owner: key.0.clone(), name: key.1.clone() }));
            }
            tx.put(&TOKENS, &key, &record)?;
            Ok(Ok(()))
        })
        .await?;
        let directory = self.directory();
        let entry = directory.tokens_by_id.get(id.as_str());
        let entry = entry.ok_or(AccessError::TokenUnknown { id })?;
        Ok(MadeToken { secret, view: TokenView::of(entry, now) })
    }

    fn check_token(&self, new: &NewToken) -> Result<(), AccessError> {
        let directory = self.directory();
        let owner = directory.accounts.get(new.owner.as_str());
        let owner = owner.ok_or_else(|| AccessError::UserUnknown { name: new.owner.to_string() })?;
        if new.expires_in.is_some_and(|life| life.is_zero() || life > LONGEST_LIFE) {
            return Err(AccessError::TokenInvalid {
                why: "it must count for a second at least, and ten years at most",
            });
        }
        if new.scopes.iter().any(|scope| scope.rights.is_empty()) {
            return Err(AccessError::TokenInvalid { why: "a scope without rights allows nothing" });
        }
        if new.role.is_some_and(|role| role > owner.role) {
            return Err(AccessError::TokenInvalid { why: "its role is above that of its owner" });
        }
        if new.scopes.len() > SCOPES_CAP {
            return Err(AccessError::TooMany { what: "scopes of one token", cap: SCOPES_CAP });
        }
        if directory.tokens_by_id.len() >= TOKENS_CAP {
            return Err(AccessError::TooMany { what: "tokens", cap: TOKENS_CAP });
        }
        let own = directory.tokens_by_id.values().filter(|token| *token.owner == *new.owner.as_str());
        if own.count() >= TOKENS_OF_ONE {
            return Err(AccessError::TooMany { what: "tokens of this user", cap: TOKENS_OF_ONE });
        }
        Ok(())
    }

    /// Makes an API token count no more, and with it all that the token service gave out for it. Its owner may, with
    /// a password or with that very token.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::TokenUnknown`].
    pub async fn revoke_token(&self, by: &Principal, id: &str) -> Result<(), AccessError> {
        let directory = self.directory();
        let unknown = || AccessError::TokenUnknown { id: id.chars().take(32).collect() };
        let entry = directory.tokens_by_id.get(id).cloned();
        let own = entry.as_ref().is_some_and(|entry| match by {
            Principal::User { name, .. } => **name == *entry.owner,
            Principal::Token { owner, name, .. } => {
                owner.as_deref() == Some(&entry.owner) && **name == format!("{}/{}", entry.owner, entry.name)
            }
            _ => false,
        });
        if !own {
            // Who may not learns nothing of ids.
            administers(by)?;
        }
        let entry = entry.ok_or_else(unknown)?;
        let label = format!("token:{}/{}", entry.owner, entry.name);
        let event = event(by, "access.token.revoke", &label, "");
        let key = (entry.owner.to_string(), entry.name.clone());
        self.change(event, move |tx| {
            if tx.get(&TOKENS, &key)?.is_none_or(|found| *found.id != *entry.id) {
                return Ok(Err(AccessError::TokenUnknown { id: entry.id.to_string() }));
            }
            tx.delete(&TOKENS, &key)?;
            Ok(Ok(()))
        })
        .await
    }
}
