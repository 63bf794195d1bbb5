//! `pantry run`: anything in a jail, from a directory, an image or the base that Pantry carries; needs no daemon.
//!
//! It must never change what it shows: not the root, not the owner of a directory that is bound. What an image says of
//! itself (variables, working directory, program) is taken; who it wants to be is not.

mod explain;
mod fetch;
mod kept;
mod mounts;
mod options;
mod program;
mod root;

use std::process::ExitCode;

use super::arguments::{Global, Run};
use super::failure::Failure;
use crate::sandbox::{self, ExecOptions, Policy, SandboxError, Stdio};

pub(super) fn run(global: &Global, options: &Run) -> Result<ExitCode, Failure> {
    // What is wrong with the options is told before anything is fetched.
    let asked = options::parse(options)?;
    let root = root::find(global, options)?;
    let policy = policy(options, asked, &root)?;
    if options.explain {
        explain::before(global, &policy);
    }
    let how = ExecOptions { learn: options.learn, ..ExecOptions::default() };
    let status = sandbox::exec_with(&policy, &how).map_err(failed)?;
    if options.explain {
        explain::after(global, &status);
    } else {
        explain::unless_by_itself(global, &status);
    }
    if let Some(learned) = &status.learned {
        explain::learned(global, learned);
    }
    Ok(ExitCode::from(u8::try_from(status.code & 0xff).unwrap_or(1)))
}

/// What was asked for, on that root.
fn policy(options: &Run, asked: options::Asked, root: &root::Root) -> Result<Policy, Failure> {
    let mut argv = options.argv.clone();
    if argv.is_empty() {
        argv.clone_from(&root.argv);
    }
    let Some(name) = argv.first().cloned() else {
        return Err(Failure::usage("program_missing", "no program was named")
            .with_hint(Some("name it behind `--`, such as: -- /bin/sh -c 'echo hello'".to_owned())));
    };
    let mut policy = asked.policy;
    policy.root.clone_from(&root.layers);
    for (name, value) in &root.env {
        if !asked.env.contains_key(name) {
            policy.env.insert(name.clone(), value.clone());
        }
    }
    if policy.stdio == Stdio::Terminal
        && let Some(kind) = sandbox::terminal_kind()
    {
        policy.env.insert("TERM".to_owned(), kind);
    }
    policy.env.extend(asked.env);
    if options.cwd.is_none() {
        policy.cwd.clone_from(&root.cwd);
    }
    // Before anything is looked up in places that nobody has looked at.
    policy.argv = vec!["/".to_owned()];
    policy.check().map_err(refused)?;
    argv[0] = program::find(&policy, &name)?;
    policy.argv = argv;
    policy.check().map_err(refused)?;
    Ok(policy)
}

/// What the options ask for and no policy may have.
#[allow(clippy::needless_pass_by_value)] // `map_err` gives it away.
fn refused(error: SandboxError) -> Failure {
    Failure::usage(error.code(), error.to_string()).with_hint(error.hint())
}

#[allow(clippy::needless_pass_by_value)] // `map_err` gives it away.
fn failed(error: SandboxError) -> Failure {
    Failure::local(error.code(), error.to_string()).with_hint(error.hint())
}
