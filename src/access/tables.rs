//! The tables of this part and their records.

use serde::{Deserialize, Serialize};

use super::name::{AccountName, Subject};
use super::principal::Role;
use super::right::{Pattern, Rights, Scope};
use crate::names::Millis;
use crate::state::{Table, record};

/// Users by name.
pub(super) const USERS: Table<String, UserRecord> = Table::new("access.users");
/// Members: (group, user).
pub(super) const MEMBERS: Table<(String, String), ()> = Table::new("access.members");
/// API tokens: (owner, name).
pub(super) const TOKENS: Table<(String, String), TokenRecord> = Table::new("access.tokens");
/// Grants by subject and pattern, as texts.
pub(super) const GRANTS: Table<(String, String), GrantRecord> = Table::new("access.grants");

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UserRecord {
    /// The name, which is the key too.
    pub(super) name: AccountName,
    /// What the user is here.
    pub(super) role: Role,
    /// Nobody gets in as this user.
    #[serde(default)]
    pub(super) disabled: bool,
    /// The argon2id hash in the PHC form; without it there is no password that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    /// Another one whenever what was given out in the user's name must stop to count.
    pub(super) generation: u64,
    /// When the user was made.
    pub(super) created_at: Millis,
    /// When the password was set last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password_set_at: Option<Millis>,
}
record!(UserRecord, 1);

/// An API token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// By which it is revoked; says nothing of the token.
    pub(super) id: String,
    /// Who owns it.
    pub(super) owner: AccountName,
    /// What it is called, once an owner.
    pub(super) name: AccountName,
    /// SHA-256 of the token, in hexadecimal digits.
    pub(super) hash: String,
    /// The most that its holder is here; without it as its owner, or nobody where it is narrowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Role>,
    /// What it is narrowed to; not at all when empty.
    #[serde(default)]
    pub(super) scopes: Vec<Scope>,
    /// When it was made.
    pub(super) created_at: Millis,
    /// When it stops to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Millis>,
}
record!(TokenRecord, 1);

/// A grant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GrantRecord {
    /// Whom it is for.
    pub(super) subject: Subject,
    /// Where.
    pub(super) pattern: Pattern,
    /// What.
    pub(super) rights: Rights,
    /// When it was made or changed last.
    pub(super) created_at: Millis,
}
record!(GrantRecord, 1);
