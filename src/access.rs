//! Who asks, and what they may do.
//!
//! This part must never ask the host's name service (its modules would be loaded into our static binary), grant by
//! the address a request comes from, compare a token in a time that tells something about it, or keep a password or
//! token in any form from which it could be got back.
//!
//! Invariants:
//! - Every request has a [`Principal`]; what it may do stands in [`Principal::may`] and [`Principal::may_in`] alone;
//!   the server's [`Mode`] is the closed one until it is said otherwise.
//! - Users, members, tokens and grants change by the methods of [`Access`] only: records first, with a line in the
//!   audit log in the same transaction, then the directory in memory. A request reads the directory alone.
//! - A token of the token service is worth what it says *and* what its subject may at this moment, so that taking
//!   back a right, a token or a user counts at once.

mod change;
mod directory;
mod error;
mod groups;
mod htpasswd;
mod login;
mod name;
mod password;
mod principal;
mod remembered;
mod right;
mod scope;
mod service;
mod tables;
mod throttle;
mod token;
mod view;

pub use change::{MadeToken, NewToken, NewUser, UserChange, grants_below, revoke_below};
pub use error::AccessError;
pub use login::{LoginCounts, Refused, Shown};
pub use name::{AccountName, Subject};
pub use principal::{Action, Bearer, Mode, Principal, Role};
pub use right::{Grants, Pattern, Reach, Right, Rights, Scope};
pub use scope::AskedScope;
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use service::sign_and_read;
pub use service::{Issued, TOKEN_SERVICE};
pub use view::{GrantView, TokenView, UserView};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::names::{Clock, Millis, Random};
use crate::state::{State, StateError, Tx};

use directory::{Directory, Rows};
use groups::Groups;
use htpasswd::Entry;
use password::Passwords;
use remembered::Remembered;
use service::Signer;
use throttle::Throttle;
use token::AdminToken;

/// How often it is looked whether the file of passwords is another.
const LOOK: Duration = Duration::from_secs(1);

/// What happened to accounts, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The principal that acted.
    pub who: String,
    /// What was done, e.g. `access.user.create`.
    pub action: &'static str,
    /// What it was done to.
    pub subject: String,
    /// How it ended.
    pub outcome: &'static str,
    /// More about it; never a secret.
    pub why: String,
}

/// Writes an event into the audit log, in the transaction of the act.
pub type Recorder = Arc<dyn Fn(&mut Tx<'_>, Millis, &Event) -> Result<(), StateError> + Send + Sync>;

/// What access stands on.
pub struct AccessParts {
    /// Where the records are.
    pub state: State,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where secrets come from.
    pub random: Arc<dyn Random>,
    /// Where the administration token is kept, or made at the first start.
    pub keys_dir: PathBuf,
    /// What somebody without credentials is.
    pub mode: Mode,
    /// A file of further users, in the form of `htpasswd -B`.
    pub htpasswd: Option<PathBuf>,
    /// With what the token service signs.
    pub token_key: Vec<u8>,
    /// How long its tokens count.
    pub token_life: Duration,
    /// The audit log.
    pub recorder: Recorder,
}

/// Turns what a connection shows into a [`Principal`], and keeps the accounts; clones share one.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    state: State,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    mode: Mode,
    admin: AdminToken,
    groups: Groups,
    daemon_uid: u32,
    recorder: Recorder,
    directory: RwLock<Arc<Directory>>,
    file: Mutex<Arc<Vec<Entry>>>,
    /// Held by the one who changes something.
    changing: tokio::sync::Mutex<()>,
    passwords: Passwords,
    remembered: Remembered,
    throttle: Mutex<Throttle>,
    turns: [tokio::sync::Mutex<()>; login::TURNS],
    logins: login::Counts,
    signer: Signer,
}

impl Access {
    /// Reads the administration token `keys/admin-token`, or makes it at the first start, and all accounts.
    ///
    /// # Errors
    /// When the token's file can't be made, or is open to others; when the file of passwords or the records can't be
    /// read.
    pub async fn open(parts: AccessParts) -> Result<Self, AccessError> {
        let AccessParts { state, clock, random, keys_dir, mode, htpasswd, token_key, token_life, recorder } =
            parts;
        let admin = AdminToken::load_or_create(&keys_dir, random.as_ref())?;
        let (watched, entries) = match htpasswd.as_deref().map(htpasswd::File::open).transpose()? {
            Some((file, entries)) => (Some(file), entries),
            None => (None, Vec::new()),
        };
        let directory = Directory::new(mode, Rows::read(&state).await?, &entries);
        let access = Self(Arc::new(Inner {
            admin,
            groups: Groups::of_this_machine(),
            daemon_uid: nix::unistd::geteuid().as_raw(),
            mode,
            recorder,
            directory: RwLock::new(Arc::new(directory)),
            file: Mutex::new(Arc::new(entries)),
            changing: tokio::sync::Mutex::new(()),
            passwords: Passwords::new(random.as_ref()),
            remembered: Remembered::new(random.as_ref()),
            throttle: Mutex::default(),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            logins: login::Counts::default(),
            signer: Signer::new(&token_key, token_life),
            state,
            clock,
            random,
        }));
        if let Some(file) = watched {
            tokio::spawn(watch(Arc::downgrade(&access.0), file));
        }
        Ok(access)
    }

    /// Who the other end of the local socket is: root and the daemon's user administer, members of the group
    /// `pantry` install and submit, others read.
    ///
    /// Reads the machine's small group file at each call, so that a new member needs no restart.
    #[must_use]
    pub fn peer(&self, uid: u32, gid: u32) -> Principal {
        let role = if uid == 0 || uid == self.0.daemon_uid {
            Role::Administrator
        } else if self.0.groups.is_member(uid, gid) {
            Role::Installer
        } else {
            Role::Reader
        };
        Principal::Peer { uid, gid, role }
    }

    /// Whose API token it is; `None` when it is none of ours, or does not count any more.
    #[must_use]
    pub fn token(&self, presented: &str) -> Option<Principal> {
        let hash = token::hash(presented);
        if self.0.admin.matches(&hash) {
            return Some(Self::administrator());
        }
        self.directory().token(&hash)?.principal(self.now())
    }

    fn administrator() -> Principal {
        Principal::Token {
            id: "admin".into(),
            name: "admin".into(),
            owner: None,
            role: Role::Administrator,
            grants: Grants::everywhere(Rights::ALL),
            scopes: None,
        }
    }

    /// Somebody without socket or credentials.
    #[must_use]
    pub fn anonymous(&self) -> Principal {
        self.directory().anonymous.clone()
    }

    fn directory(&self) -> Arc<Directory> {
        self.0.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Millis {
        self.0.clock.now()
    }

    fn random(&self) -> &dyn Random {
        self.0.random.as_ref()
    }

    async fn hash_password(&self, password: &str) -> Result<String, AccessError> {
        self.0.passwords.hash(password, &self.0.random).await
    }

    /// Makes the directory anew; to be called with `changing` held, so that an older one never comes last.
    async fn refresh(&self) -> Result<(), AccessError> {
        let rows = Rows::read(&self.0.state).await?;
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let directory = Arc::new(Directory::new(self.0.mode, rows, &file));
        *self.0.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
        Ok(())
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

/// Looks after the file of passwords for as long as somebody uses the access.
async fn watch(access: Weak<Inner>, mut file: htpasswd::File) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut unseen = false;
    loop {
        ticks.tick().await;
        let looked = tokio::task::spawn_blocking(move || {
            let entries = file.look();
            (file, entries)
        });
        let Ok((back, entries)) = looked.await else { return };
        file = back;
        let Some(access) = access.upgrade().map(Access) else { return };
        if let Some(entries) = entries {
            *access.0.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
            unseen = true;
        }
        if unseen {
            let _one_at_a_time = access.0.changing.lock().await;
            match access.refresh().await {
                Ok(()) => unseen = false,
                Err(error) => {
                    tracing::error!(%error, "the users of the file of passwords can't be brought up to date");
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
