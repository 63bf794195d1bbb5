//! Whether foreign code may run here: nobody knows before the run-time proof has ended.

use tokio::sync::watch;

/// The code of what is refused because foreign code may not run here.
pub(super) const REFUSED_CODE: &str = "foreign_code_refused";
/// What to do about it.
pub(super) const REFUSED_HINT: &str = "`pantry status` and `/health` say what this machine lacks";

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may run.
    Admitted,
    /// It may not, for this reason.
    Refused(String),
    /// The server stops, and the question stays open.
    Closing,
}

/// Where those who need a jail wait for the decision.
pub(super) struct Foreign(watch::Sender<Option<Decision>>);

impl Foreign {
    pub(super) fn undecided() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Decides; of two decisions the first one counts.
    pub(super) fn decide(&self, decision: Decision) {
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(decision);
            }
            first
        });
    }

    /// The decision, as soon as there is one.
    pub(super) async fn decided(&self) -> Decision {
        let mut seen = self.0.subscribe();
        let found = seen.wait_for(Option::is_some).await;
        // The sender lives as long as `self`.
        found.ok().and_then(|found| found.clone()).unwrap_or(Decision::Closing)
    }

    /// Why foreign code is refused, if it is.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.0.borrow() {
            Some(Decision::Refused(why)) => Some(why.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_early_waits_for_the_first_decision() {
        let foreign = Foreign::undecided();
        assert_eq!(foreign.refusal(), None);
        let (decided, ()) = tokio::join!(foreign.decided(), async {
            tokio::task::yield_now().await;
            foreign.decide(Decision::Refused("no namespaces".to_owned()));
            foreign.decide(Decision::Closing);
        });
        assert_eq!(decided, Decision::Refused("no namespaces".to_owned()));
        assert_eq!(foreign.refusal().as_deref(), Some("no namespaces"));
        assert_eq!(foreign.decided().await, decided);
    }
}
