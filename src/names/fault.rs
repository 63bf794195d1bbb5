//! Named points at which crash tests stop the process.

use std::sync::Arc;

/// The fault points of one process; does nothing unless the feature `fault-points` is compiled in and one is armed.
///
/// Armed by `PANTRY_FAULT=<name>[@<n>]`: at the n-th (default first) time that the point is passed, the process
/// kills itself with SIGKILL, so that neither destructors nor buffers run.
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<Armed>>);

#[cfg_attr(not(feature = "fault-points"), allow(dead_code))]
enum Armed {
    /// The process ends at the point of this name, when its turn has come.
    Point { name: String, left: std::sync::atomic::AtomicU64 },
    /// A test of this process is told of every point.
    #[cfg(test)]
    Observer(Box<dyn Fn(&str) + Send + Sync>),
}

impl std::fmt::Debug for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Point { name, left } => {
                f.debug_struct("Point").field("name", name).field("left", left).finish()
            }
            #[cfg(test)]
            Self::Observer(_) => f.write_str("Observer"),
        }
    }
}

impl Faults {
    /// No point is armed.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Arms the point named by the environment, when this build has fault points at all.
    #[must_use]
    pub fn from_environment() -> Self {
        #[cfg(feature = "fault-points")]
        if let Ok(spec) = std::env::var("PANTRY_FAULT") {
            let (name, nth) = match spec.rsplit_once('@') {
                Some((name, nth)) => (name.to_owned(), nth.parse().unwrap_or(1)),
                None => (spec, 1),
            };
            return Self(Some(Arc::new(Armed::Point { name, left: std::sync::atomic::AtomicU64::new(nth) })));
        }
        Self(None)
    }

    /// Calls this at every point, on the thread that passes it.
    #[cfg(test)]
    pub(crate) fn observed(observer: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Armed::Observer(Box::new(observer)))))
    }

    /// Passes the point `name`; the process ends here when it is armed and its turn has come.
    #[inline]
    pub fn pass(&self, name: &str) {
        #[cfg(feature = "fault-points")]
        if let Some(Armed::Point { name: armed, left }) = self.0.as_deref() {
            use std::sync::atomic::Ordering;
            if armed == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
                let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
            }
        }
        #[cfg(test)]
        if let Some(Armed::Observer(observer)) = self.0.as_deref() {
            observer(name);
        }
        #[cfg(not(feature = "fault-points"))]
        let _ = (name, &self.0);
    }
}
