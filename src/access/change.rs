//! Changing users, API tokens and grants: the records first, then what is in memory.

mod grants;
mod tokens;
mod users;

pub use grants::{grants_below, revoke_below};
pub use tokens::{MadeToken, NewToken};
pub use users::{NewUser, UserChange};

use super::name::AccountName;
use super::principal::{Action, Principal};
use super::{Access, AccessError, Event};
use crate::state::{StateError, Tx};

/// A refusal inside a transaction, which then wrote nothing.
type Decided<T> = Result<T, AccessError>;

impl Access {
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
