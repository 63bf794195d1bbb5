//! Changing users, members, API tokens and grants: the records first, then what is in memory.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::directory::Origin;
use super::name::{AccountName, Subject};
use super::principal::{Action, Principal, Role};
use super::right::{Pattern, Rights, Scope};
use super::tables::{GRANTS, GrantRecord, MEMBERS, TOKENS, TokenRecord, USERS, UserRecord};
use super::view::{GrantView, TokenView, UserView};
use super::{Access, AccessError, Event, token};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Table, Tx, Value};

/// So many of each are kept at most: all are in memory.
const USERS_CAP: usize = 100_000;
const TOKENS_CAP: usize = 100_000;
const GRANTS_CAP: usize = 100_000;
const MEMBERS_CAP: usize = 100_000;
/// One user has so many tokens at most.
const TOKENS_OF_ONE: usize = 200;
/// A token is narrowed to so many patterns at most.
const SCOPES_CAP: usize = 64;
/// A token that lives longer had better not be said to end.
const LONGEST_LIFE: Duration = Duration::from_hours(24 * 3660);

/// A user to be made.
#[derive(Clone)]
pub struct NewUser {
    /// The name.
    pub name: AccountName,
    /// The password; without it the user gets in by API tokens alone.
    pub password: Option<String>,
    /// What the user is here.
    pub role: Role,
}

/// What is to be another way with a user; what is `None` stays.
#[derive(Clone, Default)]
pub struct UserChange {
    /// The new password. Tokens of the token service that were given out end with the old one.
    pub password: Option<String>,
    /// The new role.
    pub role: Option<Role>,
    /// Whether nobody gets in as this user.
    pub disabled: Option<bool>,
    /// The groups that the user is in from now on; also for one of the file of passwords.
    pub groups: Option<Vec<AccountName>>,
}

impl UserChange {
    /// Whether nothing is to be another way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { password, role, disabled, groups } = self;
        password.is_none() && role.is_none() && disabled.is_none() && groups.is_none()
    }
}

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

/// A refusal inside a transaction, which then wrote nothing.
type Decided<T> = Result<T, AccessError>;

impl Access {
    /// All users in order, those of the file too.
    #[must_use]
    pub fn users(&self) -> Vec<UserView> {
        self.directory().accounts.values().map(UserView::of).collect()
    }

    /// One user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<UserView> {
        self.directory().user_view(name)
    }

    /// The groups that have members, in order, each with its members in order.
    #[must_use]
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let directory = self.directory();
        let mut groups: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        for account in directory.accounts.values() {
            for group in &account.groups {
                groups.entry(group.clone()).or_default().push(account.name.to_string());
            }
        }
        groups.into_iter().collect()
    }

    /// The API tokens, of one owner or of all.
    #[must_use]
    pub fn tokens(&self, owner: Option<&str>) -> Vec<TokenView> {
        let (directory, now) = (self.directory(), self.now());
        let tokens = directory.tokens_by_id.values();
        let wanted = tokens.filter(|token| owner.is_none_or(|owner| owner == &*token.owner));
        wanted.map(|token| TokenView::of(token, now)).collect()
    }

    /// All grants, ordered by subject and pattern.
    #[must_use]
    pub fn grants(&self) -> Vec<GrantView> {
        self.directory().grants.iter().map(GrantView::of).collect()
    }

    /// Makes a user.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`] for who does not administer, [`AccessError::UserExists`],
    /// [`AccessError::PasswordInvalid`].
    pub async fn create_user(&self, by: &Principal, new: NewUser) -> Result<UserView, AccessError> {
        administers(by)?;
        let directory = self.directory();
        if directory.accounts.len() >= USERS_CAP {
            return Err(AccessError::TooMany { what: "users", cap: USERS_CAP });
        }
        if directory.accounts.contains_key(new.name.as_str()) {
            return Err(AccessError::UserExists { name: new.name.to_string() });
        }
        let password = match &new.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let record = UserRecord {
            name: new.name.clone(),
            role: new.role,
            disabled: false,
            password_set_at: password.as_ref().map(|_| self.now()),
            password,
            generation: self.fresh_generation(),
            created_at: self.now(),
        };
        let event = event(by, "access.user.create", &format!("user:{}", new.name), new.role.as_str());
        let key = new.name.to_string();
        self.change(event, move |tx| {
            if tx.get(&USERS, &key)?.is_some() {
                return Ok(Err(AccessError::UserExists { name: key.clone() }));
            }
            tx.put(&USERS, &key, &record)?;
            Ok(Ok(()))
        })
        .await?;
        self.told_user(new.name.as_str())
    }

    /// Changes a user. Who showed a password may change the own one; all else is an administrator's.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`], [`AccessError::UserOfFile`],
    /// [`AccessError::PasswordInvalid`].
    pub async fn update_user(
        &self,
        by: &Principal,
        name: &AccountName,
        change: UserChange,
    ) -> Result<UserView, AccessError> {
        let UserChange { password, role, disabled, groups } = change;
        let recorded = password.is_some() || role.is_some() || disabled.is_some();
        let only_password = role.is_none() && disabled.is_none() && groups.is_none();
        if !(only_password && is_self(by, name)) {
            administers(by)?;
        }
        if recorded || groups.is_none() {
            self.must_be_of_records(name)?;
        }
        if let Some(groups) = &groups {
            let members: usize = self.directory().accounts.values().map(|account| account.groups.len()).sum();
            if members + groups.len() > MEMBERS_CAP {
                return Err(AccessError::TooMany { what: "memberships", cap: MEMBERS_CAP });
            }
        }
        let password = match &password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let mut what = Vec::new();
        what.extend(password.as_ref().map(|_| "password".to_owned()));
        what.extend(role.map(|role| format!("role {}", role.as_str())));
        what.extend(groups.as_ref().map(|groups| {
            let names: Vec<&str> = groups.iter().map(AccountName::as_str).collect();
            format!("groups {}", names.join(" "))
        }));
        what.extend(disabled.map(|off| if off { "disabled" } else { "enabled" }.to_owned()));
        let event = event(by, "access.user.change", &format!("user:{name}"), &what.join(", "));
        let (key, now, generation) = (name.to_string(), self.now(), self.fresh_generation());
        let access = self.clone();
        self.change(event, move |tx| {
            if let Some(groups) = &groups {
                // As it is at this moment: who changes something is alone.
                let directory = access.directory();
                let Some(account) = directory.accounts.get(key.as_str()) else {
                    return Ok(Err(AccessError::UserUnknown { name: key.clone() }));
                };
                for gone in account.groups.iter().filter(|own| !groups.iter().any(|new| new.as_str() == *own))
                {
                    tx.delete(&MEMBERS, &(gone.clone(), key.clone()))?;
                }
                for group in groups {
                    tx.put(&MEMBERS, &(group.to_string(), key.clone()), &())?;
                }
                if !recorded {
                    return Ok(Ok(()));
                }
            }
            let Some(mut record) = tx.get(&USERS, &key)? else {
                return Ok(Err(AccessError::UserUnknown { name: key.clone() }));
            };
            if let Some(password) = &password {
                record.password = Some(password.clone());
                record.password_set_at = Some(now);
            }
            record.role = role.unwrap_or(record.role);
            record.disabled = disabled.unwrap_or(record.disabled);
            if password.is_some() || disabled.is_some() {
                record.generation = generation;
            }
            tx.put(&USERS, &key, &record)?;
            Ok(Ok(()))
        })
        .await?;
        self.told_user(name.as_str())
    }

    /// Removes a user with all tokens, memberships and grants, so that a later user of the same name has none of them.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`], [`AccessError::UserOfFile`].
    pub async fn delete_user(&self, by: &Principal, name: &AccountName) -> Result<(), AccessError> {
        administers(by)?;
        self.must_be_of_records(name)?;
        let directory = self.directory();
        let groups =
            directory.accounts.get(name.as_str()).map(|user| user.groups.clone()).unwrap_or_default();
        let event = event(by, "access.user.delete", &format!("user:{name}"), "");
        let (key, subject) = (name.to_string(), Subject::User(name.clone()).to_string());
        self.change(event, move |tx| {
            if tx.get(&USERS, &key)?.is_none() {
                return Ok(Err(AccessError::UserUnknown { name: key.clone() }));
            }
            tx.delete(&USERS, &key)?;
            delete_all(tx, &TOKENS, &key)?;
            for group in &groups {
                tx.delete(&MEMBERS, &(group.clone(), key.clone()))?;
            }
            delete_all(tx, &GRANTS, &subject)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Puts a user into a group, which comes into being with its first member. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`].
    pub async fn add_member(
        &self,
        by: &Principal,
        group: &AccountName,
        user: &AccountName,
    ) -> Result<UserView, AccessError> {
        administers(by)?;
        let members: usize = self.directory().accounts.values().map(|account| account.groups.len()).sum();
        if members >= MEMBERS_CAP {
            return Err(AccessError::TooMany { what: "memberships", cap: MEMBERS_CAP });
        }
        if self.user(user.as_str()).is_none() {
            return Err(AccessError::UserUnknown { name: user.to_string() });
        }
        let event = event(by, "access.member.add", &format!("group:{group}"), &format!("user:{user}"));
        let key = (group.to_string(), user.to_string());
        self.change(event, move |tx| {
            tx.put(&MEMBERS, &key, &())?;
            Ok(Ok(()))
        })
        .await?;
        self.told_user(user.as_str())
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::MemberUnknown`].
    pub async fn remove_member(
        &self,
        by: &Principal,
        group: &AccountName,
        user: &AccountName,
    ) -> Result<(), AccessError> {
        administers(by)?;
        let event = event(by, "access.member.remove", &format!("group:{group}"), &format!("user:{user}"));
        let key = (group.to_string(), user.to_string());
        self.change(event, move |tx| {
            if tx.get(&MEMBERS, &key)?.is_none() {
                return Ok(Err(AccessError::MemberUnknown { group: key.0.clone(), user: key.1.clone() }));
            }
            tx.delete(&MEMBERS, &key)?;
            Ok(Ok(()))
        })
        .await
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
        let hash = format!("{:x}", HexBytes(&Sha256::digest(secret.as_bytes())));
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

    /// Grants rights on a pattern in place of what the subject was granted on it.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::UserUnknown`] for a user who is not there,
    /// [`AccessError::GrantInvalid`].
    pub async fn grant(
        &self,
        by: &Principal,
        subject: &Subject,
        pattern: &Pattern,
        rights: Rights,
    ) -> Result<GrantView, AccessError> {
        administers(by)?;
        if rights.is_empty() {
            return Err(AccessError::GrantInvalid { why: "it names no right" });
        }
        if self.directory().grants.len() >= GRANTS_CAP {
            return Err(AccessError::TooMany { what: "grants", cap: GRANTS_CAP });
        }
        if let Subject::User(name) = subject
            && self.user(name.as_str()).is_none()
        {
            return Err(AccessError::UserUnknown { name: name.to_string() });
        }
        let record = GrantRecord {
            subject: subject.clone(),
            pattern: pattern.clone(),
            rights,
            created_at: self.now(),
        };
        let view = GrantView::of(&record);
        let event = event(by, "access.grant", &subject.to_string(), &format!("{rights} on {pattern}"));
        let key = (subject.to_string(), pattern.to_string());
        self.change(event, move |tx| {
            tx.put(&GRANTS, &key, &record)?;
            Ok(Ok(()))
        })
        .await?;
        Ok(view)
    }

    /// Takes back all that a subject was granted on a pattern.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`], [`AccessError::GrantUnknown`].
    pub async fn revoke_grant(
        &self,
        by: &Principal,
        subject: &Subject,
        pattern: &Pattern,
    ) -> Result<(), AccessError> {
        administers(by)?;
        let event = event(by, "access.grant.revoke", &subject.to_string(), &format!("on {pattern}"));
        let key = (subject.to_string(), pattern.to_string());
        self.change(event, move |tx| {
            if tx.get(&GRANTS, &key)?.is_none() {
                return Ok(Err(AccessError::GrantUnknown { subject: key.0.clone(), pattern: key.1.clone() }));
            }
            tx.delete(&GRANTS, &key)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Shows what another part wrote in its own transaction ([`revoke_below`]).
    ///
    /// # Errors
    /// [`AccessError::State`].
    pub async fn reload(&self) -> Result<(), AccessError> {
        let _one_at_a_time = self.0.changing.lock().await;
        self.refresh().await?;
        Ok(())
    }

    fn must_be_of_records(&self, name: &AccountName) -> Result<(), AccessError> {
        match self.directory().accounts.get(name.as_str()).map(|account| account.origin) {
            Some(Origin::Records) => Ok(()),
            Some(Origin::File) => Err(AccessError::UserOfFile { name: name.to_string() }),
            None => Err(AccessError::UserUnknown { name: name.to_string() }),
        }
    }

    fn told_user(&self, name: &str) -> Result<UserView, AccessError> {
        self.user(name).ok_or_else(|| AccessError::UserUnknown { name: name.to_owned() })
    }

    fn fresh_generation(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        self.random().fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// Writes, with the line in the audit log, and then shows the new state of things. It goes on when the caller no
    /// longer waits: what is written must also be what is in memory.
    async fn change(
        &self,
        event: Event,
        act: impl Fn(&mut Tx<'_>) -> Result<Decided<()>, StateError> + Send + 'static,
    ) -> Result<(), AccessError> {
        let access = self.clone();
        let changed = tokio::spawn(async move {
            let _one_at_a_time = access.0.changing.lock().await;
            let (recorder, now) = (access.0.recorder.clone(), access.now());
            let written = access.0.state.write(move |tx| {
                let decided = act(tx)?;
                if decided.is_ok() {
                    recorder(tx, now, &event)?;
                }
                Ok(decided)
            });
            let outcome = written.await;
            // Also after a failure, which may have come after the commit.
            access.refresh().await?;
            outcome?
        });
        changed.await.unwrap_or(Err(AccessError::State(StateError::Closed)))
    }
}

/// How many grants are on a repository or on what lies below it.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn grants_below(view: &impl Read, root: &str) -> Result<u64, StateError> {
    Ok(below(view, root)?.len() as u64)
}

/// Takes back every grant on a repository and on what lies below it, in the transaction that removes it, so that one of
/// the same name that is made later begins without; gives how many. [`Access::reload`] is to follow.
///
/// # Errors
/// [`StateError`] when the records fail.
pub fn revoke_below(tx: &mut Tx<'_>, root: &str) -> Result<u64, StateError> {
    let keys = below(tx, root)?;
    for key in &keys {
        tx.delete(&GRANTS, key)?;
    }
    Ok(keys.len() as u64)
}

fn below(view: &impl Read, root: &str) -> Result<Vec<(String, String)>, StateError> {
    let (mut found, mut scan) = (Vec::new(), Scan::all());
    loop {
        let rows = view.scan(&GRANTS, &scan, MAX_SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(found) };
        scan = scan.after(last);
        let of = |pattern: &Pattern| matches!(pattern, Pattern::Below(name) if name.root() == root);
        found.extend(rows.into_iter().filter(|(_, grant)| of(&grant.pattern)).map(|(key, _)| key));
    }
}

/// Removes every row whose key begins with this text.
fn delete_all<V: Value>(
    tx: &mut Tx<'_>,
    table: &Table<(String, String), V>,
    first: &String,
) -> Result<(), StateError> {
    loop {
        let rows = tx.scan(table, &Scan::prefix(first), MAX_SCAN_ROWS)?;
        if rows.is_empty() {
            return Ok(());
        }
        for (key, _) in rows {
            tx.delete(table, &key)?;
        }
    }
}

/// The bytes in hexadecimal digits.
struct HexBytes<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexBytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn administers(by: &Principal) -> Result<(), AccessError> {
    if by.may(Action::Administer) { Ok(()) } else { Err(AccessError::Forbidden { who: by.label() }) }
}

/// Whether it is that user, with the password: a token must not give birth to one that outlives it.
fn is_self(by: &Principal, name: &AccountName) -> bool {
    matches!(by, Principal::User { name: own, .. } if **own == *name.as_str())
}

fn event(by: &Principal, action: &'static str, subject: &str, why: &str) -> Event {
    let (who, subject, why) = (by.label(), subject.to_owned(), why.to_owned());
    Event { who, action, subject, outcome: "done", why }
}
