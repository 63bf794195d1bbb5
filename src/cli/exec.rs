//! `pantry exec`, and what a wrapper's `#!` line calls.

use std::path::Path;
use std::process::ExitCode;

use super::arguments::{Exec, Global};
use super::failure::Failure;

/// Called as the interpreter of a wrapper: `pantry exec <wrapper> <arguments…>`, with every argument as it is.
///
/// clap would look at options among the arguments, so the wrapper's path is recognised here.
pub(super) fn from_wrapper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "exec" {
        return None;
    }
    let wrapper = arguments.next()?.into_string().ok()?;
    if !Path::new(&wrapper).is_absolute() && !wrapper.contains('/') {
        return None;
    }
    let passed: Result<Vec<String>, _> = arguments.map(std::ffi::OsString::into_string).collect();
    let result = match passed {
        Ok(passed) => start(None, &wrapper, &passed),
        Err(argument) => Err(Failure::usage(
            "argument_not_utf8",
            format!("the argument {} is not UTF-8", argument.display()),
        )),
    };
    Some(result.unwrap_or_else(|failure| {
        failure.print(super::arguments::Format::Text);
        failure.exit_code()
    }))
}

pub(super) fn run(global: &Global, options: &Exec) -> Result<ExitCode, Failure> {
    let root = super::client::root(global);
    start(Some(&root), &options.command, &options.arguments)
}

fn start(root: Option<&Path>, command: &str, arguments: &[String]) -> Result<ExitCode, Failure> {
    let code = crate::install::exec(root, command, arguments)
        .map_err(|error| Failure::local(error.code(), error.to_string()).with_hint(error.hint()))?;
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
}
