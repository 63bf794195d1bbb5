//! Why access can't be set up or changed.

use std::path::PathBuf;

use crate::config::SecretFileError;
use crate::state::StateError;

/// Why access can't be set up or changed.
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
        path: PathBuf,
    },
    /// The file of passwords can't be read.
    #[error("{} cannot be read", path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The records can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A password can't be hashed.
    #[error("the password cannot be hashed: {why}")]
    Hashing {
        /// What the algorithm says.
        why: String,
    },
    /// A token can't be signed.
    #[error("the token cannot be signed: {why}")]
    Signing {
        /// What the library says.
        why: String,
    },
    /// The one who asks may not.
    #[error("{who} may not do this")]
    Forbidden {
        /// The principal's label.
        who: String,
    },
    /// No such name is taken.
    #[error("{given:?} is no name of an account")]
    NameInvalid {
        /// As it came, cut.
        given: String,
    },
    /// No such subject is taken.
    #[error("{given:?} is nobody to grant rights to")]
    SubjectInvalid {
        /// As it came, cut.
        given: String,
    },
    /// No such password is taken.
    #[error("the password cannot be taken: {why}")]
    PasswordInvalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is such a user.
    #[error("there is a user {name} already")]
    UserExists {
        /// The name.
        name: String,
    },
    /// There is no such user.
    #[error("there is no user {name}")]
    UserUnknown {
        /// The name.
        name: String,
    },
    /// The user stands in the file of passwords, not in the records.
    #[error("{name} stands in the file of `auth.htpasswd`, and is changed there")]
    UserOfFile {
        /// The name.
        name: String,
    },
    /// The owner has a token of this name.
    #[error("{owner} has a token {name} already")]
    TokenExists {
        /// Who owns it.
        owner: String,
        /// The name.
        name: String,
    },
    /// There is no such token.
    #[error("there is no token {id}")]
    TokenUnknown {
        /// The id, cut.
        id: String,
    },
    /// No such token is made.
    #[error("the token cannot be made: {why}")]
    TokenInvalid {
        /// What is wrong.
        why: &'static str,
    },
    /// There is no such grant.
    #[error("{subject} is granted nothing on {pattern}")]
    GrantUnknown {
        /// Whom it would be for.
        subject: String,
        /// Where.
        pattern: String,
    },
    /// No such grant is made.
    #[error("the grant cannot be made: {why}")]
    GrantInvalid {
        /// What is wrong.
        why: &'static str,
    },
    /// No more of these are kept.
    #[error("there are {cap} {what} already, and no more are kept")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        cap: usize,
    },
}

impl AccessError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(_) | Self::NotAToken { .. } => "admin_token_unusable",
            Self::Htpasswd { .. } => "htpasswd_unreadable",
            Self::State(error) => error.code(),
            Self::Hashing { .. } => "password_hashing_failed",
            Self::Signing { .. } => "token_signing_failed",
            Self::Forbidden { .. } => "forbidden",
            Self::NameInvalid { .. } => "account_name_invalid",
            Self::SubjectInvalid { .. } => "subject_invalid",
            Self::PasswordInvalid { .. } => "password_invalid",
            Self::UserExists { .. } => "user_exists",
            Self::UserUnknown { .. } => "user_unknown",
            Self::UserOfFile { .. } => "user_of_file",
            Self::TokenExists { .. } => "token_exists",
            Self::TokenUnknown { .. } => "token_unknown",
            Self::TokenInvalid { .. } => "token_invalid",
            Self::GrantUnknown { .. } => "grant_unknown",
            Self::GrantInvalid { .. } => "grant_invalid",
            Self::TooMany { .. } => "too_many_accounts",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(file) => file.hint(),
            Self::NotAToken { path } => format!("remove {}, so that a new one is made", path.display()),
            Self::Htpasswd { .. } => {
                "let the user who runs Pantry read the file, or take `auth.htpasswd` out".to_owned()
            }
            Self::State(error) => return error.hint(),
            Self::Hashing { .. } => "it takes 19 MiB of memory; free some and try again".to_owned(),
            Self::Forbidden { .. } => "ask an administrator, or use the local socket as root".to_owned(),
            Self::NameInvalid { .. } => {
                "up to 64 letters, digits, `.`, `_`, `-`, `@` and `+`, beginning with a letter or digit"
                    .to_owned()
            }
            Self::SubjectInvalid { .. } => "`user:<name>`, `group:<name>` or `anonymous`".to_owned(),
            Self::PasswordInvalid { .. } => "choose 8 to 1024 characters without line ends".to_owned(),
            Self::UserUnknown { .. } => "`pantry user list` shows who there is".to_owned(),
            Self::TokenUnknown { .. } => "`pantry token list` shows which there are".to_owned(),
            Self::TokenExists { .. } => "choose another name, or revoke that one first".to_owned(),
            _ => return None,
        })
    }
}
