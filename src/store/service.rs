//! The store as a value, and what it is made of.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::access::Principal;
use crate::blobs::Blobs;
use crate::changes::{Changes, TaskSet};
use crate::config::Config;
use crate::keys::CallbackRing;
use crate::names::{Clock, Faults, Millis, PublisherName, Random, SubmissionId};
use crate::packs::Base;
use crate::runner::Embedded;
use crate::sandbox::Sandbox;
use crate::state::State;
use crate::trees::Trees;

use super::foreign::{Decision, Foreign};
use super::pace::Pace;
use super::tasks;

/// Previews at a time.
const PREVIEWS: usize = 2;

/// What a store works with.
pub struct StoreParts {
    /// All records.
    pub state: State,
    /// All bytes.
    pub blobs: Blobs,
    /// Unpacks sources.
    pub trees: Trees,
    /// Runs checker, resolver and downloads.
    pub sandbox: Sandbox,
    /// Runs the tasks.
    pub changes: Changes,
    /// Verifies results.
    pub keys: CallbackRing,
    /// Tests packs here.
    pub runner: Embedded,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and nonces.
    pub random: Arc<dyn Random>,
    /// Where crash tests stop the process.
    pub faults: Faults,
    /// The configuration.
    pub config: Config,
    /// What packs stand on.
    pub base: Base,
    /// Directories of L0, bottom first.
    pub runtime_root: Vec<PathBuf>,
    /// Directories of L0 and L1, bottom first.
    pub tools_root: Vec<PathBuf>,
}

/// Takes submissions and publishes them; cheap to clone.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) parts: StoreParts,
    /// Where results are sent to; known once the server has bound its port.
    callback_base: RwLock<Option<String>>,
    /// Idempotency keys whose request is being answered at this moment.
    pub(super) answering: Mutex<HashSet<(String, String)>>,
    /// Previews run in their request, so there are few at a time.
    pub(super) previews: tokio::sync::Semaphore,
    /// Whether foreign code may run.
    pub(super) foreign: Foreign,
    /// How much each address has submitted.
    pace: Pace,
}

impl Store {
    /// A store over these parts; nothing runs before its tasks are registered and the engine is started.
    #[must_use]
    pub fn new(parts: StoreParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            callback_base: RwLock::new(None),
            answering: Mutex::new(HashSet::new()),
            previews: tokio::sync::Semaphore::new(PREVIEWS),
            foreign: Foreign::undecided(),
            pace: Pace::default(),
        }))
    }

    /// Adds the tasks of submissions to those that the engine knows.
    pub fn register(&self, set: &mut TaskSet) {
        tasks::register(&self.0, set);
    }

    /// Says that foreign code may run here: previews and tasks have waited for it.
    pub fn admit(&self) {
        self.0.foreign.decide(Decision::Admitted);
    }

    /// Says that foreign code may not run here, and why: submissions are refused, and tasks that need a jail fail.
    pub fn refuse(&self, why: &str) {
        self.0.foreign.decide(Decision::Refused(why.to_owned()));
    }

    /// Says that the server stops before it is known whether foreign code may run: nobody waits for it any more.
    pub fn closing(&self) {
        self.0.foreign.decide(Decision::Closing);
    }

    /// Counts a submission, or a preview, from an address of the network.
    ///
    /// # Errors
    /// How long to wait, when `limits.submissions_per_hour` is used up.
    pub fn count_submission(&self, from: IpAddr) -> Result<(), Duration> {
        self.0.pace.count(from, self.0.parts.config.limits.submissions_per_hour, self.0.now())
    }

    /// Says under which address this server is reached by whoever sends a result, such as `http://127.0.0.1:7721`.
    pub fn set_callback_url(&self, base: String) {
        *self.0.callback_base.write().unwrap_or_else(PoisonError::into_inner) = Some(base);
    }
}

impl Inner {
    pub(super) fn now(&self) -> Millis {
        self.parts.clock.now()
    }

    /// The address to which the result of a submission is sent.
    pub(super) fn callback_url(&self, id: &SubmissionId) -> Option<String> {
        let configured = self.parts.config.callback.url.clone();
        let known = self.callback_base.read().unwrap_or_else(PoisonError::into_inner).clone();
        let base = configured.or(known)?;
        Some(format!("{}/v1/submissions/{id}/container-result", base.trim_end_matches('/')))
    }

    /// What stands in front of `/docs/rejections#…`.
    pub(super) fn docs_base(&self) -> &str {
        self.parts.config.public_url.as_deref().unwrap_or_default()
    }
}

/// The account under which a principal publishes. There are no accounts yet beside the appliance's own.
pub(super) fn publisher_of(_: &Principal) -> PublisherName {
    PublisherName::local()
}
