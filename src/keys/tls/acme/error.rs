//! Why an authority gave no certificate.

use std::path::PathBuf;

use crate::keys::KeyError;

/// No message of an authority is shown beyond this many characters.
const SHOWN: usize = 500;
/// The problem type of an authority that wants to be asked less often (RFC 8555, section 6.6).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// The problem type of an authority that has forgotten an account (RFC 8555, section 6.7).
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What kept an order from its certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AcmeError {
    /// A file of ours can't be read or written, or what came is no pair of certificate and key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `tls.acme_ca` holds no certificate that can be trusted.
    #[error("{} holds no certificate of an authority", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
    },
    /// HTTPS can't be set up.
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
    /// The authority can't be reached, or refuses.
    #[error("cannot {doing}")]
    Step {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: instant_acme::Error,
    },
    /// The authority wants another proof than the one that is given here.
    #[error("the authority offers no tls-alpn-01 challenge for {name}")]
    NoChallenge {
        /// The name.
        name: String,
    },
    /// The authority did not find its proof.
    #[error("the authority could not confirm {name}: {why}")]
    Unconfirmed {
        /// The name.
        name: String,
        /// What it says.
        why: String,
    },
    /// The order ended without the authority's saying why.
    #[error("the authority gave the order up")]
    GivenUp,
    /// The certificate is not what was asked for.
    #[error("the certificate that came {what}")]
    Unfit {
        /// What is wrong with it.
        what: &'static str,
    },
    /// It took too long.
    #[error("the authority did not come to an end in time")]
    TooLong,
}

impl AcmeError {
    fn problem(&self) -> Option<&str> {
        match self {
            Self::Step { source: instant_acme::Error::Api(problem), .. } => problem.r#type.as_deref(),
            _ => None,
        }
    }

    /// Tells whether the authority wants to be asked less often.
    pub(super) fn is_rate_limit(&self) -> bool {
        self.problem() == Some(RATE_LIMITED)
    }

    /// Tells whether the authority has forgotten our account.
    pub(super) fn is_unknown_account(&self) -> bool {
        self.problem() == Some(UNKNOWN_ACCOUNT)
    }

    /// The whole chain of causes in one line; words of the authority can't drive a terminal or fill the log.
    pub(super) fn told(&self) -> String {
        let mut told = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let words = error.to_string();
            // Some causes repeat what they are caused by.
            if !told.contains(&words) {
                told = format!("{told}: {words}");
            }
            cause = error.source();
        }
        told.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
    }
}
