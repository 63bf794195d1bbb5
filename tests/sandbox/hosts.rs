//! Hosts that lack something: `pantry doctor` finds it out by real jails, and says what to change.

use std::process::{Command, Output};

use crate::bench::{Bench, case, is_root};

/// What `pantry doctor` found.
struct Found {
    code: Option<i32>,
    findings: Vec<serde_json::Value>,
}

impl Found {
    fn of(output: &Output) -> Self {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        Self { code: output.status.code(), findings: answer["findings"].as_array().unwrap().clone() }
    }

    fn get(&self, what: &str) -> &serde_json::Value {
        let found = self.findings.iter().find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("{what} is not among {:?}", self.findings))
    }

    fn verdict(&self, what: &str) -> &str {
        self.get(what)["verdict"].as_str().unwrap()
    }

    /// Everything that is said of it.
    fn words(&self, what: &str) -> String {
        let found = self.get(what);
        format!("{} {}", found["found"].as_str().unwrap_or(""), found["hint"].as_str().unwrap_or(""))
    }
}

/// `pantry doctor` after a script has changed what it finds, in mount and user namespaces that end with it.
fn doctor_after(bench: &Bench, script: &str) -> Found {
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.arg("--map-root-user");
    }
    let script = format!("set -e\n{script}\nexec \"$1\" doctor --only-this-user --output json");
    let output = unshare
        .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
        .arg(&bench.helper)
        .current_dir("/")
        .output()
        .unwrap();
    Found::of(&output)
}

case! {
    fn a_host_that_has_everything_is_sound(bench: &Bench) {
        let output = Command::new(&bench.helper)
            .args(["doctor", "--only-this-user", "--output", "json"])
            .current_dir("/")
            .output()
            .unwrap();
        let found = Found::of(&output);
        assert_eq!(found.code, Some(0), "{:?}", found.findings);
        for what in ["kernel", "an empty job", "user namespace", "network namespace", "system call filter"] {
            assert_eq!(found.verdict(what), "full", "{:?}", found.get(what));
        }
        for what in ["a root of layers", "tests of packages", "without control groups", "time of an empty job"] {
            assert_eq!(found.verdict(what), "full", "{:?}", found.get(what));
        }
        assert_eq!(found.verdict("ids"), if is_root() { "full" } else { "weaker" });
        assert!(found.words("without control groups").contains("watchdog"));
    }
}

case! {
    fn where_user_namespaces_are_forbidden_the_setting_is_named(bench: &Bench) {
        // The limit of a user namespace holds for those made inside it.
        let script = "echo 0 > /proc/sys/user/max_user_namespaces";
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c"])
            .arg(format!("set -e; {script}; exec \"$1\" doctor --only-this-user --output json"))
            .arg("sh")
            .arg(&bench.helper)
            .current_dir("/")
            .output()
            .unwrap();
        let found = Found::of(&output);
        assert_eq!(found.code, Some(1));
        assert_eq!(found.verdict("an empty job"), "refused");
        assert!(found.words("an empty job").contains("user.max_user_namespaces"), "{:?}", found.findings);
    }
}

case! {
    fn where_the_outer_proc_is_masked_it_is_named(bench: &Bench) {
        let found = doctor_after(bench, "mount -t tmpfs none /proc/sys");
        assert_eq!(found.code, Some(1));
        assert_eq!(found.verdict("an empty job"), "refused");
        assert!(found.words("an empty job").contains("systempaths=unconfined"), "{:?}", found.findings);
    }
}

case! {
    fn where_no_group_can_be_made_the_watchdog_is_named(bench: &Bench) {
        let found = doctor_after(bench, "mount -t tmpfs -o ro none /sys/fs/cgroup");
        assert_eq!(found.code, Some(0), "{:?}", found.findings);
        for what in ["limit of memory", "limit of processes"] {
            assert_eq!(found.verdict(what), "weaker", "{:?}", found.get(what));
            let words = found.words(what);
            assert!(words.contains("by watchdog") && words.contains("Delegate="), "{words}");
        }
        assert_eq!(found.verdict("tests of packages"), "full");
    }
}
