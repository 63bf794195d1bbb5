//! Tells the program its version: `PANTRY_VERSION`, else the git tag `vX.Y.Z`, else the crate's; compiles the system call
//! filters of jails into it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

// The compiler of filters and its lists are the program's own, on as much of its names as they use.
#[allow(dead_code)]
#[path = "src/sandbox/filter/calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "src/sandbox/filter/program.rs"]
mod program;

mod sandbox {
    pub(crate) mod policy {
        #[allow(dead_code)] // What no other profile has is told by one of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum SeccompProfile {
            Test,
            Helper,
        }
    }
    pub(crate) mod sys {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct Insn {
            pub(crate) code: u16,
            pub(crate) jt: u8,
            pub(crate) jf: u8,
            pub(crate) k: u32,
        }
    }
}

/// As the program has it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    profile: sandbox::policy::SeccompProfile,
    emulate_ownership: bool,
    watched_memory: bool,
}

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
    pack_relocations();
    compile_filters();
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=PANTRY_BUILD_COMMIT={commit}");
    }
}

/// Has the linker pack the table of relocations, which every start of the program reads: it is a megabyte smaller then,
/// and a helper starts a tenth of a millisecond sooner.
///
/// The C library, which is linked in, must know the packed form: glibc has it since 2.36.
fn pack_relocations() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let native = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let known = || {
        let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?) >= (2, 36))
    };
    if native && known().unwrap_or(false) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Writes the filters of every choice, in the order in which `sandbox::filter` looks them up; none where the numbers of
/// system calls that are known here are another machine's.
fn compile_filters() {
    use sandbox::policy::SeccompProfile;
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/sandbox/filter/calls.rs");
    println!("cargo:rerun-if-changed=src/sandbox/filter/program.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut text = String::from(
        "#[allow(clippy::unreadable_literal)] // Written by a machine.\nstatic PREPARED: &[&[Insn]] = &[\n",
    );
    if variable("CARGO_CFG_TARGET_ARCH") == std::env::consts::ARCH {
        for profile in [SeccompProfile::Test, SeccompProfile::Helper] {
            for emulate_ownership in [false, true] {
                for watched_memory in [false, true] {
                    let choice = Choice { profile, emulate_ownership, watched_memory };
                    text.push_str("    &[");
                    for sandbox::sys::Insn { code, jt, jf, k } in program::compile(&calls::rules(choice)) {
                        let _never_fails =
                            write!(text, "Insn {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }}, ");
                    }
                    text.push_str("],\n");
                }
            }
        }
    }
    text.push_str("];\n");
    let folder = PathBuf::from(variable("OUT_DIR"));
    if let Err(error) = std::fs::write(folder.join("filters.rs"), text) {
        println!("cargo:error=cannot write the filters: {error}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
