//! Who asks, and what they may do.
//!
//! This part must never ask the host's name service (its modules would be loaded into our static binary), grant by
//! the address a request comes from, or compare a token in a time that tells something about it.
//!
//! Invariants: every request has a [`Principal`]; what it may do stands in [`Principal::may`] alone; the server's
//! [`Mode`] is the closed one until it is said otherwise.

mod groups;
mod principal;
mod token;

pub use principal::{Action, Mode, Principal, Role};

use std::path::Path;
use std::sync::Arc;

use crate::config::SecretFileError;
use crate::names::Random;

use groups::Groups;
use token::AdminToken;

/// Turns what a connection shows into a [`Principal`].
#[derive(Clone, Debug)]
pub struct Access {
    token: Arc<AdminToken>,
    groups: Arc<Groups>,
    daemon_uid: u32,
    mode: Mode,
}

impl Access {
    /// Reads the administration token `keys/admin-token`, or makes it at the first start.
    ///
    /// # Errors
    /// When the file can't be made, or is open to others.
    pub fn open(keys_dir: &Path, random: &dyn Random) -> Result<Self, AccessError> {
        Ok(Self {
            token: Arc::new(AdminToken::load_or_create(keys_dir, random)?),
            groups: Arc::new(Groups::of_this_machine()),
            daemon_uid: nix::unistd::geteuid().as_raw(),
            mode: Mode::Token,
        })
    }

    /// Who the other end of the local socket is: root and the daemon's user administer, members of the group
    /// `pantry` install and submit, others read.
    ///
    /// Reads the machine's small group file at each call, so that a new member needs no restart.
    #[must_use]
    pub fn peer(&self, uid: u32, gid: u32) -> Principal {
        let role = if uid == 0 || uid == self.daemon_uid {
            Role::Administrator
        } else if self.groups.is_member(uid, gid) {
            Role::Installer
        } else {
            Role::Reader
        };
        Principal::Peer { uid, gid, role }
    }

    /// Whose token it is; `None` when it is none of ours.
    #[must_use]
    pub fn token(&self, presented: &str) -> Option<Principal> {
        self.token
            .matches(presented)
            .then(|| Principal::Token { name: "admin".to_owned(), role: Role::Administrator })
    }

    /// What somebody without socket or token is on this server.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets the mode, which is [`Mode::Token`] until then.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Somebody without socket or token.
    #[must_use]
    pub fn anonymous(&self) -> Principal {
        Principal::Anonymous { mode: self.mode }
    }
}

/// Why access can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The file of the administration token can't be used.
    #[error("the administration token cannot be kept")]
    File(#[from] SecretFileError),
    /// The file holds something else.
    #[error("the administration token in {} is not one of ours", path.display())]
    NotAToken {
        /// The file.
        path: std::path::PathBuf,
    },
}

impl AccessError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "admin_token_unusable"
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(file) => file.hint(),
            Self::NotAToken { path } => format!("remove {}, so that a new one is made", path.display()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::names::SeededRandom;

    use super::*;

    fn access(dir: &Path) -> Access {
        Access::open(&dir.join("keys"), &SeededRandom::new(3)).unwrap()
    }

    #[test]
    fn the_token_is_made_once_and_only_it_matches() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let text = fs_err::read_to_string(dir.path().join("keys/admin-token")).unwrap();
        let token = text.trim_end();
        assert!(token.starts_with("pty_") && token.len() == 47, "{token}");
        let admin = Principal::Token { name: "admin".into(), role: Role::Administrator };
        assert_eq!(access.token(token), Some(admin));
        let again = Access::open(&dir.path().join("keys"), &SeededRandom::new(4)).unwrap();
        assert!(again.token(token).is_some());
        for wrong in
            ["", "pty_", &token[1..], &token.to_uppercase(), &format!("{token}x"), &format!("{token}\n")]
        {
            assert_eq!(access.token(wrong), None, "{wrong}");
        }
        assert!(!format!("{access:?}").contains(token));
    }

    #[test]
    fn a_file_that_holds_no_token_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        access(dir.path());
        for content in ["admin", "pty_short", "pty_\n"] {
            fs_err::write(dir.path().join("keys/admin-token"), content).unwrap();
            let refused = Access::open(&dir.path().join("keys"), &SeededRandom::new(3)).unwrap_err();
            assert!(matches!(refused, AccessError::NotAToken { .. }) && refused.hint().is_some());
        }
    }

    #[test]
    fn peers_have_their_roles() {
        let dir = tempfile::tempdir().unwrap();
        let (group, passwd) = (dir.path().join("group"), dir.path().join("passwd"));
        fs_err::write(&group, "root:x:0:\npantry:x:990:ann,bob\n").unwrap();
        fs_err::write(&passwd, "root:x:0:0::/:\nann:x:1001:1001::/:\ncarl:x:1003:1003::/:\n").unwrap();
        let mut access = access(dir.path());
        access.groups = Arc::new(Groups::new(group, passwd));
        access.daemon_uid = 500;
        for (uid, gid, role) in [
            (0, 0, Role::Administrator),
            (500, 500, Role::Administrator),
            (1001, 1001, Role::Installer),
            (1002, 990, Role::Installer),
            (1003, 1003, Role::Reader),
            (4_000_000_000, 4_000_000_000, Role::Reader),
        ] {
            assert_eq!(access.peer(uid, gid), Principal::Peer { uid, gid, role });
        }
    }

    #[test]
    fn the_mode_is_the_closed_one_until_it_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        assert_eq!(access.anonymous(), Principal::Anonymous { mode: Mode::Token });
        let open = access.with_mode(Mode::None);
        assert_eq!((open.mode(), open.anonymous()), (Mode::None, Principal::Anonymous { mode: Mode::None }));
    }
}
