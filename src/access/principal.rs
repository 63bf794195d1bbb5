//! Principals and the table of what they may do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::right::{Grants, Reach, Right, Rights};
use crate::names::RepoName;

/// What a principal wants to do to the server as a whole; what it may do in a repository is a [`Right`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Submit a package, or preview one.
    Submit,
    /// Install, remove and their like.
    Install,
    /// Read what is going on: status, changes, submissions, metrics.
    ReadStatus,
    /// Everything else: keys, users, configuration.
    Administer,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Somebody over the network without credentials.
    Anonymous {
        /// The server's mode.
        mode: Mode,
        /// What everybody may do in repositories.
        grants: Grants,
    },
    /// A local user, as the kernel says.
    Peer {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// What that user is here.
        role: Role,
    },
    /// Somebody who showed a password.
    User {
        /// The name of the account.
        name: Arc<str>,
        /// What the user is here.
        role: Role,
        /// What the user may do in repositories: as one, as a member of groups, and as everybody.
        grants: Grants,
    },
    /// The holder of an API token.
    Token {
        /// By which it is revoked; `admin` for the one in the keys folder.
        id: Arc<str>,
        /// `<owner>/<name>`; `admin` for the one in the keys folder.
        name: Arc<str>,
        /// The user who owns it; nobody owns the one in the keys folder.
        owner: Option<Arc<str>>,
        /// What its holder is.
        role: Role,
        /// What its owner may do in repositories.
        grants: Grants,
        /// What of that the token may do; everything without it.
        scopes: Option<Grants>,
    },
    /// The holder of a token from the token service.
    Bearer(Arc<Bearer>),
}

/// A token from the token service, as it is worth at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// For whom it was made, with the rights of now.
    pub(super) subject: Principal,
    /// The repositories that it names, with the rights that it was given in each.
    pub(super) access: Vec<(RepoName, Rights)>,
    /// It lists repositories.
    pub(super) catalogue: bool,
}

/// What somebody is here, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May nothing but what grants say.
    #[default]
    Nobody,
    /// May read.
    Reader,
    /// May also submit and install.
    Installer,
    /// May everything.
    Administrator,
}

impl Role {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::Nobody, Self::Reader, Self::Installer, Self::Administrator];

    /// The word for it in the API and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Reader => "reader",
            Self::Installer => "installer",
            Self::Administrator => "administrator",
        }
    }

    /// The role of that word; `admin` is understood too.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if word == "admin" {
            return Some(Self::Administrator);
        }
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// What somebody without socket or credentials is on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only on loopback: may pull, push to writable repositories, delete there, and read status; never submit,
    /// install or administer, since any local user and any web page reaches loopback.
    None,
    /// May what is granted to `anonymous` in repositories, and ask whether the server is alive.
    Token,
}

impl Principal {
    /// Whether the principal may do it.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        match self {
            Self::Anonymous { mode: Mode::Token, .. } | Self::Bearer(_) => false,
            Self::Anonymous { mode: Mode::None, .. } => match action {
                Action::ReadStatus => true,
                Action::Submit | Action::Install | Action::Administer => false,
            },
            Self::Peer { role, .. } | Self::User { role, .. } | Self::Token { role, .. } => {
                *role >= least(action)
            }
        }
    }

    /// Whether the principal has the right in the repository. That clients write only where they may at all is
    /// another question, which `repos` answers.
    #[must_use]
    pub fn may_in(&self, right: Right, repo: &RepoName) -> bool {
        match self {
            Self::Anonymous { grants, .. } | Self::User { grants, .. } => grants.allow(right, repo),
            Self::Peer { role, .. } => *role >= least_in(right),
            Self::Token { grants, scopes, .. } => {
                grants.allow(right, repo) && scopes.as_ref().is_none_or(|scopes| scopes.allow(right, repo))
            }
            Self::Bearer(bearer) => bearer.names(right, repo) && bearer.subject.may_in(right, repo),
        }
    }

    /// Whether the one behind a token of the token service has the right; for others as [`Principal::may_in`].
    ///
    /// Such a token names what its client asked for, which limits the client, not the one behind it.
    #[must_use]
    pub fn could_in(&self, right: Right, repo: &RepoName) -> bool {
        match self {
            Self::Bearer(bearer) => bearer.subject.may_in(right, repo),
            _ => self.may_in(right, repo),
        }
    }

    /// Where the principal, or the one behind its token, may pull.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Anonymous { grants, .. } | Self::User { grants, .. } => grants.reach(Right::Pull),
            Self::Peer { role, .. } if *role >= least_in(Right::Pull) => Reach::Everything,
            Self::Peer { .. } => Reach::Below(Vec::new()),
            Self::Token { grants, scopes, .. } => {
                let reach = grants.reach(Right::Pull);
                scopes
                    .as_ref()
                    .map_or_else(|| reach.clone(), |scopes| reach.intersection(&scopes.reach(Right::Pull)))
            }
            Self::Bearer(bearer) => bearer.subject.reach(),
        }
    }

    /// Whether the principal may list repositories: a token of the token service must have been made for it.
    #[must_use]
    pub fn may_list(&self) -> bool {
        match self {
            Self::Bearer(bearer) => bearer.catalogue,
            Self::Anonymous { .. } => !self.reach().is_empty(),
            _ => true,
        }
    }

    /// Whether nobody known is behind it; also when a token was made for nobody known.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        match self {
            Self::Anonymous { .. } => true,
            Self::Bearer(bearer) => bearer.subject.is_anonymous(),
            _ => false,
        }
    }

    /// Whether it is the holder of a token from the token service.
    #[must_use]
    pub fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer(_))
    }

    /// Whether it must show credentials before the registry says that it is there.
    #[must_use]
    pub fn needs_credentials(&self) -> bool {
        matches!(self, Self::Anonymous { mode: Mode::Token, .. })
    }

    /// The account behind it, where there is one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } => Some(name),
            Self::Token { owner, .. } => owner.as_deref(),
            Self::Bearer(bearer) => bearer.subject.user(),
            Self::Anonymous { .. } | Self::Peer { .. } => None,
        }
    }

    /// The name in the audit log and in changes: `anonymous`, `uid:0`, `user:ann`, `token:ann/ci`, `token:admin`.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Anonymous { .. } => "anonymous".to_owned(),
            Self::Peer { uid, .. } => format!("uid:{uid}"),
            Self::User { name, .. } => format!("user:{name}"),
            Self::Token { name, .. } => format!("token:{name}"),
            Self::Bearer(bearer) => bearer.subject.label(),
        }
    }
}

impl Bearer {
    /// Whether it was given the right in exactly this repository.
    fn names(&self, right: Right, repo: &RepoName) -> bool {
        self.access.iter().any(|(named, rights)| named == repo && rights.contains(right))
    }
}

/// The least role that may do it.
fn least(action: Action) -> Role {
    match action {
        Action::ReadStatus => Role::Reader,
        Action::Submit | Action::Install => Role::Installer,
        Action::Administer => Role::Administrator,
    }
}

/// The least role of a local user that has the right everywhere.
fn least_in(right: Right) -> Role {
    match right {
        Right::Pull => Role::Reader,
        Right::Push | Right::Delete | Right::Admin => Role::Administrator,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::right::Pattern;
    use super::*;

    fn anonymous(mode: Mode) -> Principal {
        Principal::Anonymous { mode, grants: Grants::default() }
    }

    fn token(role: Role, grants: Grants, scopes: Option<Grants>) -> Principal {
        Principal::Token {
            id: "7".into(),
            name: "ann/ci".into(),
            owner: Some("ann".into()),
            role,
            grants,
            scopes,
        }
    }

    fn on(pattern: &str, rights: &str) -> Grants {
        Grants::of([(&Pattern::parse(pattern).unwrap(), Rights::parse(rights).unwrap())])
    }

    #[test]
    fn the_whole_table() {
        let peer = |role| Principal::Peer { uid: 1, gid: 1, role };
        let user = |role| Principal::User { name: "u".into(), role, grants: Grants::default() };
        let token = |role| token(role, Grants::default(), None);
        let columns = [Action::Submit, Action::Install, Action::ReadStatus, Action::Administer];
        let table = [
            (anonymous(Mode::None), "--y-"),
            (anonymous(Mode::Token), "----"),
            (peer(Role::Nobody), "----"),
            (peer(Role::Reader), "--y-"),
            (peer(Role::Installer), "yyy-"),
            (peer(Role::Administrator), "yyyy"),
            (user(Role::Nobody), "----"),
            (user(Role::Reader), "--y-"),
            (user(Role::Installer), "yyy-"),
            (user(Role::Administrator), "yyyy"),
            (token(Role::Nobody), "----"),
            (token(Role::Reader), "--y-"),
            (token(Role::Installer), "yyy-"),
            (token(Role::Administrator), "yyyy"),
        ];
        for (principal, rights) in table {
            let found: String = columns.iter().map(|a| if principal.may(*a) { 'y' } else { '-' }).collect();
            assert_eq!(found, rights, "{principal:?}");
        }
    }

    #[test]
    fn the_table_of_rights_in_repositories() {
        let peer = |role| Principal::Peer { uid: 1, gid: 1, role };
        let user = |grants| Principal::User { name: "u".into(), role: Role::Installer, grants };
        let bearer = |subject, rights: &str| {
            let access = vec![(RepoName::parse("local/a").unwrap(), Rights::parse(rights).unwrap())];
            Principal::Bearer(Arc::new(Bearer { subject, access, catalogue: false }))
        };
        // In `local/a`, then in `local/b`: pull push delete admin.
        let table = [
            (anonymous(Mode::Token), "---- ----"),
            (Principal::Anonymous { mode: Mode::Token, grants: on("local/a", "pull") }, "y--- ----"),
            (peer(Role::Nobody), "---- ----"),
            (peer(Role::Reader), "y--- y---"),
            (peer(Role::Installer), "y--- y---"),
            (peer(Role::Administrator), "yyyy yyyy"),
            (user(Grants::default()), "---- ----"),
            (user(on("local/a", "pull,push")), "yy-- ----"),
            (user(on("local", "delete")), "--y- --y-"),
            (user(on("*", "admin")), "yyyy yyyy"),
            (token(Role::Nobody, on("*", "pull,push"), None), "yy-- yy--"),
            (token(Role::Nobody, on("*", "pull,push"), Some(on("local/a", "push,delete"))), "-y-- ----"),
            (token(Role::Nobody, on("local/b", "pull"), Some(on("*", "admin"))), "---- y---"),
            (bearer(user(on("*", "pull,push")), "pull"), "y--- ----"),
            (bearer(user(on("local/a", "pull")), "admin"), "y--- ----"),
            (bearer(user(Grants::default()), "admin"), "---- ----"),
        ];
        for (principal, rights) in table {
            let in_repo = |name| -> String {
                let repo = RepoName::parse(name).unwrap();
                Right::ALL.iter().map(|r| if principal.may_in(*r, &repo) { 'y' } else { '-' }).collect()
            };
            assert_eq!(format!("{} {}", in_repo("local/a"), in_repo("local/b")), rights, "{principal:?}");
        }
    }

    #[test]
    fn a_token_reaches_what_it_and_its_owner_reach() {
        let narrowed = token(Role::Nobody, on("local", "pull"), Some(on("local/a", "pull")));
        assert_eq!(narrowed.reach(), Reach::Below(vec![RepoName::parse("local/a").unwrap()]));
        assert!(token(Role::Nobody, on("local", "pull"), Some(on("x", "pull"))).reach().is_empty());
        assert!(!anonymous(Mode::Token).may_list() && narrowed.may_list());
    }

    #[test]
    fn labels_name_the_principal() {
        assert_eq!(anonymous(Mode::None).label(), "anonymous");
        assert_eq!(Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }.label(), "uid:0");
        let user = Principal::User { name: "ann".into(), role: Role::Nobody, grants: Grants::default() };
        assert_eq!((user.label().as_str(), user.user()), ("user:ann", Some("ann")));
        let token = token(Role::Nobody, Grants::default(), None);
        assert_eq!((token.label().as_str(), token.user()), ("token:ann/ci", Some("ann")));
        let bearer = Bearer { subject: token, access: Vec::new(), catalogue: false };
        assert_eq!(Principal::Bearer(Arc::new(bearer)).label(), "token:ann/ci");
    }

    #[test]
    fn roles_have_words() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!((Role::parse("admin"), Role::parse("root")), (Some(Role::Administrator), None));
    }
}
