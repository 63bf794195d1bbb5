//! From what a request shows to who it is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::directory::Account;
use super::password::{Busy, Stored};
use super::principal::Principal;
use super::remembered::Mark;
use super::throttle::{Attempt, Throttle};
use super::{Access, AccountName, Event, token};

/// Nothing that is checked is longer.
const LONGEST_PASSWORD: usize = 1024;
/// When all who may wait do.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// Logins with the same credentials wait for one another, so that a client's many connections cost one computation.
pub(super) const TURNS: usize = 64;

/// What a request shows.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// An API token, or a token of the token service.
    Bearer(&'a str),
    /// A name with a password, or any name with an API token as the password.
    Basic {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
}

/// Why it is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such user, another password, or no API token of ours.
    Wrong,
    /// A token of the token service that is none of ours, or does not count any more.
    Stale,
    /// There were too many failures; nothing was checked.
    TooMany {
        /// When it may be tried again.
        retry_after: Duration,
    },
}

/// How logins ended, since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    passed: AtomicU64,
    wrong: AtomicU64,
    stale: AtomicU64,
    limited: AtomicU64,
}

/// How it ended that credentials were shown, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    /// Credentials that counted: passwords, also those that were remembered, and tokens.
    pub accepted: u64,
    /// Passwords that were computed and fitted.
    pub passed: u64,
    /// Passwords and API tokens that did not.
    pub wrong: u64,
    /// Tokens of the token service that did not count any more.
    pub stale: u64,
    /// Attempts that were told to come again later.
    pub limited: u64,
}

impl Access {
    /// Who shows this; `from` is the address of the other end.
    ///
    /// A failure is answered after a delay, which the caller's task sleeps. What is right already, or was a short
    /// while ago, is never delayed or limited by the failures of others.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn identify(&self, shown: Shown<'_>, from: Option<IpAddr>) -> Result<Principal, Refused> {
        let found = self.find(shown, from).await?;
        self.0.logins.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    async fn find(&self, shown: Shown<'_>, from: Option<IpAddr>) -> Result<Principal, Refused> {
        let presented = match shown {
            Shown::Bearer(presented) if !presented.starts_with(token::PREFIX) => {
                return self.bearer(presented).ok_or_else(|| {
                    self.0.logins.stale.fetch_add(1, Ordering::Relaxed);
                    Refused::Stale
                });
            }
            Shown::Basic { user, password } if !password.starts_with(token::PREFIX) => {
                return self.password(user, password, from).await;
            }
            Shown::Bearer(presented) | Shown::Basic { password: presented, .. } => presented,
        };
        if let Some(found) = self.token(presented) {
            return Ok(found);
        }
        let began = tokio::time::Instant::now();
        let attempt = self.attempt("(token)", from)?;
        self.failed("an API token", from);
        tokio::time::sleep_until(began + attempt.delay).await;
        Err(Refused::Wrong)
    }

    /// How logins ended.
    #[must_use]
    pub fn login_counts(&self) -> LoginCounts {
        let counts = &self.0.logins;
        LoginCounts {
            accepted: counts.accepted.load(Ordering::Relaxed),
            passed: counts.passed.load(Ordering::Relaxed),
            wrong: counts.wrong.load(Ordering::Relaxed),
            stale: counts.stale.load(Ordering::Relaxed),
            limited: counts.limited.load(Ordering::Relaxed),
        }
    }

    async fn password(&self, user: &str, password: &str, from: Option<IpAddr>) -> Result<Principal, Refused> {
        if let Some(known) = self.remembered(user, password) {
            return Ok(known);
        }
        let began = tokio::time::Instant::now();
        // For a name that is not there any mark does: it only says for whom to wait.
        let turn = self.mark(user, password).unwrap_or_else(|| self.0.remembered.mark(user, 0, password));
        let turn = self.0.turns[usize::from(turn[0]) % TURNS].lock().await;
        if let Some(known) = self.remembered(user, password) {
            return Ok(known);
        }
        let attempt = self.attempt(user, from)?;
        let mark = self.mark(user, password);
        let stored = match self.directory().accounts.get(user).filter(|account| may_login(account)) {
            Some(account) if password.len() <= LONGEST_PASSWORD => account.password.clone(),
            _ => Stored::Nothing,
        };
        match self.0.passwords.fits(stored, password).await {
            Err(Busy) => {
                self.throttle().undecided(&attempt);
                self.0.logins.limited.fetch_add(1, Ordering::Relaxed);
                return Err(Refused::TooMany { retry_after: COME_AGAIN });
            }
            // The password may have been changed in between.
            Ok(true) if mark.is_some() && mark == self.mark(user, password) => {
                self.throttle().succeeded(&attempt);
                self.0.logins.passed.fetch_add(1, Ordering::Relaxed);
                let mark = mark.unwrap_or_default();
                self.0.remembered.remember(mark, self.now());
                if let Some(known) = self.remembered(user, password) {
                    return Ok(known);
                }
            }
            Ok(_) => {}
        }
        drop(turn);
        self.failed(&shown_name(user), from);
        tokio::time::sleep_until(began + attempt.delay).await;
        Err(Refused::Wrong)
    }

    /// The user whose password was found to fit a short while ago.
    fn remembered(&self, user: &str, password: &str) -> Option<Principal> {
        let directory = self.directory();
        let account = directory.accounts.get(user).filter(|account| may_login(account))?;
        let mark = self.0.remembered.mark(user, account.generation, password);
        self.0.remembered.knows(&mark, self.now()).then(|| account.principal())
    }

    fn mark(&self, user: &str, password: &str) -> Option<Mark> {
        let directory = self.directory();
        let account = directory.accounts.get(user).filter(|account| may_login(account))?;
        Some(self.0.remembered.mark(user, account.generation, password))
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, name: &str, from: Option<IpAddr>) -> Result<Attempt, Refused> {
        let begun = self.throttle().begin(self.now(), from, name);
        begun.map_err(|retry_after| {
            self.0.logins.limited.fetch_add(1, Ordering::Relaxed);
            Refused::TooMany { retry_after }
        })
    }

    /// Writes a failure into the log and, as long as they are few, into the audit log.
    fn failed(&self, whose: &str, from: Option<IpAddr>) {
        self.0.logins.wrong.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let Some(unnoted) = self.throttle().note(now) else { return };
        let from = from.map_or_else(|| "local".to_owned(), |from| from.to_canonical().to_string());
        tracing::warn!(client = %from, account = whose, "credentials were refused");
        let why = match unnoted {
            0 => String::new(),
            more => format!("{more} further failures before this one are not listed"),
        };
        let event = Event {
            who: format!("address:{from}"),
            action: "access.login",
            subject: whose.to_owned(),
            outcome: "wrong_credentials",
            why,
        };
        let access = self.clone();
        tokio::spawn(async move {
            let recorder = access.0.recorder.clone();
            if let Err(error) = access.0.state.write(move |tx| recorder(tx, now, &event)).await {
                tracing::error!(%error, "a refused login could not be written into the audit log");
            }
        });
    }
}

fn may_login(account: &Account) -> bool {
    !account.disabled
}

/// A name from outside as it may stand in a log: what is no name may be a secret in the wrong field.
fn shown_name(user: &str) -> String {
    match AccountName::parse(user) {
        Ok(name) if !user.starts_with(token::PREFIX) => format!("user:{name}"),
        _ => "no name of an account".to_owned(),
    }
}
