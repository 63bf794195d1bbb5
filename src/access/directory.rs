//! Everybody and what they may do, in memory: made anew after each change, read without a lock held.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::htpasswd::Entry;
use super::name::{AccountName, Subject};
use super::password::Stored;
use super::principal::{Mode, Principal, Role};
use super::right::{Grants, Pattern, Right, Rights, Scope};
use super::tables::{GRANTS, GrantRecord, MEMBERS, TOKENS, TokenRecord, USERS, UserRecord};
use crate::names::Millis;
use crate::state::{Key, MAX_SCAN_ROWS, Read, Scan, State, StateError, Table, Value};

/// What stands in the records.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) users: Vec<UserRecord>,
    /// (group, user).
    pub(super) members: Vec<(String, String)>,
    pub(super) tokens: Vec<TokenRecord>,
    pub(super) grants: Vec<GrantRecord>,
}

impl Rows {
    /// Reads all records, a page a transaction.
    pub(super) async fn read(state: &State) -> Result<Self, StateError> {
        Ok(Self {
            users: all(state, &USERS).await?.into_iter().map(|(_, user)| user).collect(),
            members: all(state, &MEMBERS).await?.into_iter().map(|(key, ())| key).collect(),
            tokens: all(state, &TOKENS).await?.into_iter().map(|(_, token)| token).collect(),
            grants: all(state, &GRANTS).await?.into_iter().map(|(_, grant)| grant).collect(),
        })
    }
}

async fn all<K, V>(state: &State, table: &'static Table<K, V>) -> Result<Vec<(K, V)>, StateError>
where
    K: Key + Clone + Send + 'static,
    V: Value + Send + 'static,
{
    let mut rows: Vec<(K, V)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = state
            .read(move |view| {
                let scan = after.as_ref().map_or_else(Scan::all, |key| Scan::all().after(key));
                view.scan(table, &scan, MAX_SCAN_ROWS)
            })
            .await?;
        let full = page.len() == MAX_SCAN_ROWS;
        rows.extend(page);
        if !full {
            return Ok(rows);
        }
    }
}

/// Where an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the records.
    Records,
    /// In the file of passwords.
    File,
}

/// Somebody with a name.
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) disabled: bool,
    pub(super) password: Stored,
    pub(super) generation: u64,
    pub(super) grants: Grants,
    pub(super) groups: Vec<String>,
    pub(super) origin: Origin,
    pub(super) created_at: Option<Millis>,
    pub(super) password_set_at: Option<Millis>,
}

impl Account {
    pub(super) fn principal(&self) -> Principal {
        Principal::User { name: self.name.clone(), role: self.role, grants: self.grants.clone() }
    }
}

/// An API token.
pub(super) struct TokenEntry {
    pub(super) id: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) name: String,
    pub(super) role: Option<Role>,
    pub(super) scopes: Vec<Scope>,
    pub(super) created_at: Millis,
    pub(super) expires_at: Option<Millis>,
    principal: Principal,
    owner_disabled: bool,
}

impl TokenEntry {
    /// Whose the token is at this moment.
    pub(super) fn principal(&self, now: Millis) -> Option<Principal> {
        let expired = self.expires_at.is_some_and(|at| now >= at);
        (!expired && !self.owner_disabled).then(|| self.principal.clone())
    }
}

/// Everybody, as of one moment.
pub(super) struct Directory {
    pub(super) accounts: BTreeMap<Arc<str>, Account>,
    tokens: HashMap<[u8; 32], Arc<TokenEntry>>,
    pub(super) tokens_by_id: BTreeMap<Arc<str>, Arc<TokenEntry>>,
    pub(super) grants: Vec<GrantRecord>,
    pub(super) anonymous: Principal,
}

impl Directory {
    /// Everybody that the records and the file name; who stands in both counts as the records say.
    pub(super) fn new(mode: Mode, rows: Rows, file: &[Entry]) -> Self {
        let of = |subject: &Subject| -> Vec<(&Pattern, Rights)> {
            let range = rows.grants.iter().filter(|grant| grant.subject == *subject);
            range.map(|grant| (&grant.pattern, grant.rights)).collect()
        };
        let mut by_subject: HashMap<&Subject, Vec<(&Pattern, Rights)>> = HashMap::new();
        for grant in &rows.grants {
            by_subject.entry(&grant.subject).or_default().push((&grant.pattern, grant.rights));
        }
        let mut everybody = of(&Subject::Anonymous);
        if mode == Mode::None {
            // As a server on loopback has it: nobody is asked who they are.
            everybody.push((&Pattern::All, Rights::of(&[Right::Pull, Right::Push, Right::Delete])));
        }
        let mut groups_of: HashMap<&str, Vec<String>> = HashMap::new();
        for (group, user) in &rows.members {
            groups_of.entry(user).or_default().push(group.clone());
        }
        let grants_of = |name: &AccountName, role: Role, groups: &[String]| -> Grants {
            if role == Role::Administrator {
                return Grants::everywhere(Rights::ALL);
            }
            let mut subjects = vec![Subject::User(name.clone())];
            subjects
                .extend(groups.iter().filter_map(|group| AccountName::parse(group).ok()).map(Subject::Group));
            let own = subjects.iter().filter_map(|subject| by_subject.get(subject)).flatten();
            Grants::of(own.chain(&everybody).copied())
        };
        let mut accounts = BTreeMap::new();
        for entry in file {
            let groups = groups_of.get(entry.name.as_str()).cloned().unwrap_or_default();
            let name: Arc<str> = entry.name.as_str().into();
            let account = Account {
                name: name.clone(),
                role: Role::Nobody,
                disabled: false,
                password: Stored::Bcrypt(entry.hash.as_str().into()),
                generation: generation_of(&entry.hash),
                grants: grants_of(&entry.name, Role::Nobody, &groups),
                groups,
                origin: Origin::File,
                created_at: None,
                password_set_at: None,
            };
            accounts.insert(name, account);
        }
        for user in &rows.users {
            let groups = groups_of.get(user.name.as_str()).cloned().unwrap_or_default();
            let name: Arc<str> = user.name.as_str().into();
            let account = Account {
                name: name.clone(),
                role: user.role,
                disabled: user.disabled,
                password: user.password.as_deref().map_or(Stored::Nothing, |phc| Stored::Argon2(phc.into())),
                generation: user.generation,
                grants: grants_of(&user.name, user.role, &groups),
                groups,
                origin: Origin::Records,
                created_at: Some(user.created_at),
                password_set_at: user.password_set_at,
            };
            accounts.insert(name, account);
        }
        let anonymous = Principal::Anonymous { mode, grants: Grants::of(everybody.iter().copied()) };
        let (mut tokens, mut tokens_by_id) = (HashMap::new(), BTreeMap::new());
        for record in rows.tokens {
            let Some(hash) = hash_bytes(&record.hash) else { continue };
            let Some(owner) = accounts.get(record.owner.as_str()) else { continue };
            let entry = Arc::new(entry(record, owner));
            tokens.insert(hash, entry.clone());
            tokens_by_id.insert(entry.id.clone(), entry);
        }
        drop(by_subject);
        Self { accounts, tokens, tokens_by_id, grants: rows.grants, anonymous }
    }

    /// The token whose hash this is.
    ///
    /// A hash table tells by its time whether a hash is there; of a token of 256 random bits that tells nothing.
    pub(super) fn token(&self, hash: &[u8; 32]) -> Option<&Arc<TokenEntry>> {
        self.tokens.get(hash)
    }
}

fn entry(record: TokenRecord, owner: &Account) -> TokenEntry {
    let narrowed = (!record.scopes.is_empty())
        .then(|| Grants::of(record.scopes.iter().map(|scope| (&scope.pattern, scope.rights))));
    let most = record.role.unwrap_or(if narrowed.is_some() { Role::Nobody } else { Role::Administrator });
    let id: Arc<str> = record.id.into();
    let principal = Principal::Token {
        id: id.clone(),
        name: format!("{}/{}", record.owner, record.name).into(),
        owner: Some(owner.name.clone()),
        role: owner.role.min(most),
        grants: owner.grants.clone(),
        scopes: narrowed,
    };
    TokenEntry {
        id,
        owner: owner.name.clone(),
        name: record.name.to_string(),
        role: record.role,
        scopes: record.scopes,
        created_at: record.created_at,
        expires_at: record.expires_at,
        principal,
        owner_disabled: owner.disabled,
    }
}

/// Another one for each line of the file, so that what was given out ends when the password changes.
fn generation_of(hash: &str) -> u64 {
    Sha256::digest(hash.as_bytes()).iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn hash_bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}
