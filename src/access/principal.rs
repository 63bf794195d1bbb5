//! Principals and the table of what they may do.

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read content of the registry.
    Pull,
    /// Write content into a repository that clients may write.
    Push,
    /// Delete content there.
    DeleteContent,
    /// Submit a package, or preview one.
    Submit,
    /// Install, remove and their like.
    Install,
    /// Read what is going on: status, changes, submissions, metrics.
    ReadStatus,
    /// Everything else: keys, users, configuration.
    Administer,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pull,
        Self::Push,
        Self::DeleteContent,
        Self::Submit,
        Self::Install,
        Self::ReadStatus,
        Self::Administer,
    ];
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Somebody over the network without a token.
    Anonymous {
        /// The server's mode.
        mode: Mode,
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
    /// The holder of a token.
    Token {
        /// The token's name.
        name: String,
        /// What its holder is.
        role: Role,
    },
}

/// What somebody is here, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May nothing.
    Nobody,
    /// May read.
    Reader,
    /// May also submit and install.
    Installer,
    /// May everything.
    Administrator,
}

/// What somebody without socket or token is on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only on loopback: may pull, push to writable repositories, delete there, and read status; never submit,
    /// install or administer, since any local user and any web page reaches loopback.
    None,
    /// May nothing; the server answers only whether it is alive.
    Token,
}

impl Principal {
    /// Whether the principal may do it.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        match self {
            Self::Anonymous { mode: Mode::Token } => false,
            Self::Anonymous { mode: Mode::None } => match action {
                Action::Pull | Action::Push | Action::DeleteContent | Action::ReadStatus => true,
                Action::Submit | Action::Install | Action::Administer => false,
            },
            Self::Peer { role, .. } | Self::Token { role, .. } => *role >= least(action),
        }
    }

    /// The name in the audit log and in changes: `anonymous`, `uid:0`, `token:admin`.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Anonymous { .. } => "anonymous".to_owned(),
            Self::Peer { uid, .. } => format!("uid:{uid}"),
            Self::Token { name, .. } => format!("token:{name}"),
        }
    }
}

/// The least role that may do it.
fn least(action: Action) -> Role {
    match action {
        Action::Pull | Action::ReadStatus => Role::Reader,
        Action::Submit | Action::Install => Role::Installer,
        Action::Push | Action::DeleteContent | Action::Administer => Role::Administrator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let peer = |role| Principal::Peer { uid: 1, gid: 1, role };
        let token = |role| Principal::Token { name: "t".to_owned(), role };
        // Columns as in `Action::ALL`: pull push delete submit install status administer.
        let table = [
            (Principal::Anonymous { mode: Mode::None }, "yyy--y-"),
            (Principal::Anonymous { mode: Mode::Token }, "-------"),
            (peer(Role::Nobody), "-------"),
            (peer(Role::Reader), "y----y-"),
            (peer(Role::Installer), "y--yyy-"),
            (peer(Role::Administrator), "yyyyyyy"),
            (token(Role::Nobody), "-------"),
            (token(Role::Reader), "y----y-"),
            (token(Role::Installer), "y--yyy-"),
            (token(Role::Administrator), "yyyyyyy"),
        ];
        for (principal, rights) in table {
            let found: String =
                Action::ALL.iter().map(|a| if principal.may(*a) { 'y' } else { '-' }).collect();
            assert_eq!(found, rights, "{principal:?}");
        }
    }

    #[test]
    fn labels_name_the_principal() {
        assert_eq!(Principal::Anonymous { mode: Mode::None }.label(), "anonymous");
        assert_eq!(Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }.label(), "uid:0");
        assert_eq!(
            Principal::Token { name: "admin".into(), role: Role::Administrator }.label(),
            "token:admin"
        );
    }
}
