//! Users, and the groups that they are in.

use super::{administers, event, is_self};
use crate::access::directory::Origin;
use crate::access::name::{AccountName, Subject};
use crate::access::principal::{Principal, Role};
use crate::access::tables::{GRANTS, MEMBERS, TOKENS, USERS, UserRecord};
use crate::access::view::UserView;
use crate::access::{Access, AccessError};
use crate::state::{MAX_SCAN_ROWS, Read as _, Scan, StateError, Table, Tx, Value};

/// So many are kept at most: all are in memory.
const USERS_CAP: usize = 100_000;
const MEMBERS_CAP: usize = 100_000;

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
