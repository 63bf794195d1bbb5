//! What this host can do for jails, found out by making real ones.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cancel::Cancel;
use super::engine::Sandbox;
use super::error::{Doing as _, SandboxError};
use super::host;
use super::landlock;
use super::outcome::{End, Outcome};
use super::policy::{Limits, Policy, Require, SeccompProfile, Tmpfs};
use super::receipt::{Enforcement, OwnExecutable, Receipt, RootKind};
use super::streams::StdinBytes;

/// So many empty jobs are timed.
const TIMED: usize = 9;
/// Where the program stands inside.
const INSIDE: &str = "/pantry";

/// How good something is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Full,
    /// It works, and holds less than it could; the receipt of each run says so.
    Weaker,
    /// It was not tried, and nothing depends on it.
    NotTried,
    /// It does not work.
    Refused,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Weaker => "weaker",
            Self::NotTried => "not tried",
            Self::Refused => "refused",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What would make it better, where something can.
    pub hint: Option<String>,
}

impl Finding {
    /// Says what was found.
    #[must_use]
    pub fn new(what: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, found: found.into(), hint: None }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    fn refused(what: &str, error: &SandboxError) -> Self {
        Self { hint: error.hint(), ..Self::new(what, Verdict::Refused, error.to_string()) }
    }
}

impl Sandbox {
    /// Makes real jails that do nothing, and tells what each of them was held by: one as this process can, and one
    /// without control groups, as on a host that delegates none.
    ///
    /// `program` is what runs inside, with these arguments: a static executable of the host that exits with 0.
    ///
    /// # Errors
    /// When not even a try can be made. That a jail is refused is a finding.
    pub fn examine(&self, program: &Path, arguments: &[&str]) -> Result<Vec<Finding>, SandboxError> {
        let kernel = host::kernel();
        let mut findings = vec![match host::check_kernel(&kernel) {
            Ok(()) => Finding::new("kernel", Verdict::Full, kernel),
            Err(error) => Finding::refused("kernel", &error),
        }];
        let policy = empty_job(program, arguments);
        match self.job(&policy) {
            Err(error) => {
                findings.push(Finding::refused("an empty job", &error));
                return Ok(findings);
            }
            Ok(outcome) => {
                findings.push(job("an empty job", &outcome));
                findings.extend(of_receipt(&outcome.receipt));
            }
        }
        findings.push(self.overlay(&policy)?);
        findings.push(self.publishing(&policy));
        findings.push(self.without_groups(&policy));
        findings.push(self.time(&policy));
        Ok(findings)
    }

    fn job(&self, policy: &Policy) -> Result<Outcome, SandboxError> {
        self.run(policy, StdinBytes::Empty, &Cancel::new()?)
    }

    /// A root of several layers, as those of images are.
    fn overlay(&self, policy: &Policy) -> Result<Finding, SandboxError> {
        use std::os::unix::fs::PermissionsExt as _;
        let what = "a root of layers";
        let layers = tempfile::tempdir().doing("make two layers")?;
        let mut policy = policy.clone();
        for layer in ["lower", "upper"] {
            let path = layers.path().join(layer);
            fs_err::create_dir(&path).doing("make two layers")?;
            policy.root.push(path);
        }
        for path in policy.root.iter().map(PathBuf::as_path).chain([layers.path()]) {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).doing("make two layers")?;
        }
        Ok(match self.job(&policy) {
            Err(error) => Finding::refused(what, &error),
            Ok(outcome) => match outcome.receipt.features.root {
                Some(RootKind::Overlay) if outcome.end.success() => {
                    Finding::new(what, Verdict::Full, "a read-only overlay, made inside")
                }
                other => Finding::new(
                    what,
                    Verdict::Refused,
                    format!("{other:?}; it {}", outcome.end.in_words(None)),
                ),
            },
        })
    }

    /// Whether packages that were tested here may be published.
    fn publishing(&self, policy: &Policy) -> Finding {
        let what = "tests of packages";
        match self.job(&Policy { require: Require::publishing(), ..policy.clone() }) {
            Ok(_) => Finding::new(what, Verdict::Full, "memory, processes and wall clock are enforced"),
            Err(error) => Finding::refused(what, &error),
        }
    }

    fn without_groups(&self, policy: &Policy) -> Finding {
        let what = "without control groups";
        match self.watching().job(policy) {
            Err(error) => Finding::refused(what, &error),
            Ok(outcome) if outcome.end.success() => {
                let by = outcome.receipt.limits.memory.enforced_by;
                Finding::new(what, Verdict::Full, format!("works, memory and processes by {by}"))
            }
            Ok(outcome) => Finding::new(what, Verdict::Refused, format!("it {}", outcome.end.in_words(None))),
        }
    }

    fn time(&self, policy: &Policy) -> Finding {
        let what = "time of an empty job";
        let mut times = Vec::with_capacity(TIMED);
        for _ in 0..TIMED {
            let begun = std::time::Instant::now();
            match self.job(policy) {
                Ok(_) => times.push(begun.elapsed().as_secs_f64() * 1000.0),
                Err(error) => return Finding::refused(what, &error),
            }
        }
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[TIMED / 2], times[TIMED - 1]);
        Finding::new(what, Verdict::Full, format!("median {median:.1} ms, longest {worst:.1} ms of {TIMED}"))
    }
}

/// Nothing but the program, in an empty root.
fn empty_job(program: &Path, arguments: &[&str]) -> Policy {
    let argv = std::iter::once(INSIDE).chain(arguments.iter().copied()).map(str::to_owned).collect();
    let mut policy = Policy::new(Vec::new(), argv).input(program, INSIDE).profile(SeccompProfile::Test);
    policy.limits = Limits { wall_ms: 10_000, ..Limits::tests() };
    policy.tmpfs = vec![Tmpfs { at: PathBuf::from("/tmp"), size_bytes: 1 << 20, inodes: 64 }];
    policy
}

fn job(what: &str, outcome: &Outcome) -> Finding {
    if outcome.end == End::Exited(0) {
        let mode = if outcome.receipt.root_mode { "root" } else { "the caller's own id" };
        return Finding::new(
            what,
            Verdict::Full,
            format!("works, started by {mode}, inside as id {}", outcome.receipt.host_uid),
        );
    }
    let said = outcome.stderr.text();
    Finding::new(what, Verdict::Refused, format!("it {}: {}", outcome.end.in_words(None), said.trim()))
}

/// What a run of an empty job was really held by, a line each.
fn of_receipt(receipt: &Receipt) -> Vec<Finding> {
    const DELEGATE: &str = "delegate the controllers to Pantry: Delegate=cpu memory pids in its unit";
    let (limits, features) = (&receipt.limits, &receipt.features);
    let mut findings = Vec::new();
    for (what, enforced) in [
        ("limit of memory", limits.memory),
        ("limit of processes", limits.processes),
        ("limit of processor time", limits.cpu),
    ] {
        let by = enforced.enforced_by;
        let found = format!("by {by}");
        findings.push(if by >= Enforcement::Cgroup1 {
            Finding::new(what, Verdict::Full, found)
        } else {
            Finding::new(what, Verdict::Weaker, found).hint(DELEGATE)
        });
    }
    findings.push(Finding::new("limit of the wall clock", Verdict::Full, "by the caller's clock"));
    let there = |what: &str, is: bool, found: &str| {
        let (verdict, found) = if is { (Verdict::Full, found) } else { (Verdict::Refused, "missing") };
        Finding::new(what, verdict, found)
    };
    findings.push(there("user namespace", features.user_namespace, "its own"));
    findings.push(there("network namespace", features.network_namespace, "its own, empty"));
    findings.push(there("system call filter", features.seccomp, "an allow-list"));
    findings.push(match features.landlock_abi {
        Some(abi) => match landlock::lacks(abi) {
            None => {
                Finding::new("Landlock", Verdict::Full, format!("ABI {abi}: files, TCP, signals and sockets"))
            }
            Some(what) => Finding::new("Landlock", Verdict::Weaker, format!("ABI {abi}, which holds {what}"))
                .hint("a kernel of 6.12 or later holds all of it"),
        },
        None => Finding::new("Landlock", Verdict::Weaker, "not used; mounts and the filter hold alone")
            .hint("a kernel of 5.19 or later with `landlock` among its lsm= has it"),
    });
    findings.push(match features.own_executable {
        Some(OwnExecutable::ReadOnlyMount) => {
            Finding::new("own executable", Verdict::Full, "behind a read-only mount")
        }
        Some(OwnExecutable::SealedCopy) => {
            Finding::new("own executable", Verdict::Weaker, "a sealed copy in memory for each run")
        }
        None => Finding::new("own executable", Verdict::Refused, "not protected"),
    });
    findings.push(if features.session_keyring {
        Finding::new("session keyring", Verdict::Full, "its own")
    } else {
        Finding::new("session keyring", Verdict::Weaker, "the caller's; the calls that reach it are denied")
    });
    findings.push(if receipt.root_mode {
        Finding::new("ids", Verdict::Full, "each run has an outside id that owns nothing")
    } else {
        let found = "all runs have the caller's id, in namespaces of their own";
        Finding::new("ids", Verdict::Weaker, found).hint("start the daemon as root, if that matters to you")
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::super::receipt::{Enforced, EnforcedLimits, Features};
    use super::*;

    fn receipt(by: Enforcement, landlock_abi: Option<u32>) -> Receipt {
        let one = Enforced { limit: 1, enforced_by: by };
        Receipt {
            limits: EnforcedLimits {
                memory: one,
                processes: one,
                cpu: one,
                wall: one,
                open_files: one,
                file_size: one,
                output: one,
            },
            kernel: "6.1".to_owned(),
            root_mode: false,
            features: Features {
                user_namespace: true,
                network_namespace: true,
                seccomp: true,
                landlock_abi,
                session_keyring: true,
                own_executable: Some(OwnExecutable::SealedCopy),
                root: Some(RootKind::Tmpfs),
            },
            ownership_emulated: false,
            grants: Vec::new(),
            peak_memory_bytes: None,
            host_uid: 1000,
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_is_weaker_is_said_with_what_to_do() {
        let found = of_receipt(&receipt(Enforcement::Watchdog, None));
        let verdict = |what: &str| found.iter().find(|one| one.what == what).map(|one| one.verdict);
        assert_eq!(verdict("limit of memory"), Some(Verdict::Weaker));
        assert_eq!(verdict("Landlock"), Some(Verdict::Weaker));
        let old = of_receipt(&receipt(Enforcement::Cgroup2, Some(5)));
        let old = old.iter().find(|one| one.what == "Landlock").expect("it is looked at");
        assert_eq!(old.verdict, Verdict::Weaker, "{old:?}");
        assert!(old.found.contains("ABI 5") && old.hint.is_some(), "{old:?}");
        assert_eq!(verdict("own executable"), Some(Verdict::Weaker));
        assert_eq!(verdict("ids"), Some(Verdict::Weaker));
        assert_eq!(verdict("user namespace"), Some(Verdict::Full));
        let hints = found.iter().filter_map(|one| one.hint.as_deref()).collect::<Vec<_>>().join("\n");
        assert!(hints.contains("Delegate=cpu memory pids") && hints.contains("landlock"), "{hints}");
        let found = of_receipt(&receipt(Enforcement::Cgroup2, Some(7)));
        let limits = found.iter().filter(|one| one.what.starts_with("limit of"));
        assert!(limits.into_iter().all(|one| one.verdict == Verdict::Full), "{found:?}");
    }
}
