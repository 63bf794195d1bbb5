//! The command line: one file a subcommand. It parses, calls the API over the local socket, and prints.
//!
//! Data goes to stdout, everything else to stderr. Errors say what and why, and `hint:` says what to do.
//! It must never touch the state, the blobs or the keys of a root that a daemon may be serving; `exec` reads the
//! sealed launch file only, and `run` keeps its images in a folder of its own.

#![allow(clippy::print_stdout, clippy::print_stderr)] // This is the part whose purpose is to print.
#![allow(clippy::format_push_string)] // What people read is short; that it reads well counts more.

mod arguments;
mod changes;
mod client;
mod connection;
mod demo;
mod doctor;
mod exec;
mod failure;
mod grants;
mod images;
mod install;
mod log;
mod login;
mod output;
mod pull;
mod push;
mod repo;
mod rootfs;
mod run;
mod secret;
mod serve;
mod status;
mod submit;
mod tokens;
mod upkeep;
mod users;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use failure::Failure;

/// Runs the program with the process's own arguments.
#[must_use]
pub fn run() -> ExitCode {
    // `exec` is what wrappers call: it must cost nothing and take every argument as it is.
    if let Some(code) = exec::from_wrapper() {
        return code;
    }
    let arguments = Arguments::parse();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            failure.print(arguments.global.output);
            failure.exit_code()
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Exec(options) => return exec::run(global, options),
        Command::Run(options) => return run::run(global, options),
        Command::Serve(options) => serve::run(global, options),
        Command::Demo(options) => demo::run(options),
        Command::Doctor(options) => return doctor::run(global, options),
        Command::Version => version::run(global),
        Command::Rootfs(command) => rootfs::run(global, command),
        Command::Status => wait(status::run(global)),
        Command::Submit(options) => wait(submit::run(global, options)),
        Command::Submission { id, watch } => wait(submit::show(global, id, *watch)),
        Command::Install { package, detach } => wait(install::install(global, package, *detach)),
        Command::Remove { package, purge } => wait(install::remove(global, package, *purge)),
        Command::List => wait(install::list(global)),
        Command::Repo(command) => wait(repo::run(global, command)),
        Command::Gc(options) => wait(upkeep::gc(global, options)),
        Command::Verify(options) => wait(upkeep::verify(global, options)),
        Command::Repair(options) => wait(upkeep::repair(global, options)),
        Command::Changes => wait(changes::list(global)),
        Command::Change { id } => wait(changes::show(global, id)),
        Command::Abort { id } => wait(changes::abort(global, id)),
        Command::Push(options) => wait(until_interrupted(push::run(global, options))),
        Command::Pull(options) => wait(until_interrupted(pull::run(global, options))),
        Command::Login(options) => wait(login::login(global, options)),
        Command::Logout(options) => login::logout(global, options),
        Command::User(command) => wait(users::run(global, command)),
        Command::Token(command) => wait(tokens::run(global, command)),
        Command::Grant(command) => wait(grants::run(global, command)),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a client command on a small runtime of its own.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("runtime_unavailable", format!("cannot start: {error}")))?;
    runtime.block_on(command)
}

/// Ends a command that has begun to write, so that what it has written goes away with it.
async fn until_interrupted(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = command => ended,
        _ = terminate.recv() => Err(Failure::local("interrupted", "interrupted; nothing is left")),
        _ = interrupt.recv() => Err(Failure::local("interrupted", "interrupted; nothing is left")),
    }
}
