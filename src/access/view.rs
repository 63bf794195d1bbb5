//! What is told of accounts: never a password, never a token.

use serde::Serialize;

use super::directory::{Account, Directory, Origin, TokenEntry};
use super::password::Stored;
use super::principal::Role;
use super::right::Scope;
use super::tables::GrantRecord;
use crate::names::Millis;

/// A user, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct UserView {
    /// The name.
    pub name: String,
    /// What the user is here.
    #[schema(value_type = String)]
    pub role: Role,
    /// Nobody gets in as this user.
    pub disabled: bool,
    /// There is a password; without one the user gets in by API tokens alone.
    pub has_password: bool,
    /// The groups that the user is in, in order.
    pub groups: Vec<String>,
    /// `records`, or `htpasswd` for one of the file.
    pub origin: &'static str,
    /// When the user was made; not known of those of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub created_at: Option<String>,
    /// When the password was set last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_set_at: Option<String>,
}

impl UserView {
    pub(super) fn of(account: &Account) -> Self {
        Self {
            name: account.name.to_string(),
            role: account.role,
            disabled: account.disabled,
            has_password: !matches!(account.password, Stored::Nothing),
            groups: account.groups.clone(),
            origin: match account.origin {
                Origin::Records => "records",
                Origin::File => "htpasswd",
            },
            created_at: account.created_at.map(Millis::rfc3339),
            password_set_at: account.password_set_at.map(Millis::rfc3339),
        }
    }
}

/// An API token, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TokenView {
    /// The id by which it is revoked.
    pub id: String,
    /// Who owns it.
    pub owner: String,
    /// What it is called.
    pub name: String,
    /// The most that its holder is here, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// What it is narrowed to; not at all when empty.
    #[schema(value_type = Vec<Object>)]
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: String,
    /// When it stops to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// It has stopped to count.
    pub expired: bool,
}

impl TokenView {
    pub(super) fn of(token: &TokenEntry, now: Millis) -> Self {
        Self {
            id: token.id.to_string(),
            owner: token.owner.to_string(),
            name: token.name.clone(),
            role: token.role,
            scopes: token.scopes.clone(),
            created_at: token.created_at.rfc3339(),
            expires_at: token.expires_at.map(Millis::rfc3339),
            expired: token.expires_at.is_some_and(|at| now >= at),
        }
    }
}

/// A grant, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct GrantView {
    /// `user:<name>`, `group:<name>` or `anonymous`.
    pub subject: String,
    /// `*`, or the name of a repository: it and those below it.
    pub pattern: String,
    /// `pull`, `push`, `delete`, `admin`.
    pub rights: Vec<&'static str>,
    /// When it was made or changed last.
    pub created_at: String,
}

impl GrantView {
    pub(super) fn of(grant: &GrantRecord) -> Self {
        Self {
            subject: grant.subject.to_string(),
            pattern: grant.pattern.to_string(),
            rights: grant.rights.iter().map(super::Right::as_str).collect(),
            created_at: grant.created_at.rfc3339(),
        }
    }
}

impl Directory {
    /// The user of this name.
    pub(super) fn user_view(&self, name: &str) -> Option<UserView> {
        self.accounts.get(name).map(UserView::of)
    }
}
