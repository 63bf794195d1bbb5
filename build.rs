//! Tells the program its version: `PANTRY_VERSION`, else the git tag `vX.Y.Z`, else the crate's.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PANTRY_VERSION");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs");
    let version = std::env::var("PANTRY_VERSION")
        .ok()
        .filter(|version| !version.is_empty())
        .or_else(|| {
            git(&["describe", "--tags", "--match", "v[0-9]*"])
                .map(|tag| tag.trim_start_matches('v').to_owned())
        })
        .unwrap_or_else(|| std::env::var("CARGO_PKG_VERSION").unwrap_or_default());
    println!("cargo:rustc-env=PANTRY_BUILD_VERSION={version}");
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=PANTRY_BUILD_COMMIT={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
