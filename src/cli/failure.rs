//! Why a command fails, as people read it and as programs do.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

use super::arguments::Format;
use super::output::safe;

/// What lies at the bottom of an error.
pub(super) fn cause(error: &dyn std::error::Error) -> &dyn std::error::Error {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}

/// A failed command: what people read, and the class that its exit code tells.
#[derive(Debug)]
pub(super) struct Failure {
    code: String,
    message: String,
    hint: Option<String>,
    exit: u8,
}

impl Failure {
    /// Something on this side failed.
    pub(super) fn local(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: None, exit: 1 }
    }

    /// The request itself is wrong.
    pub(super) fn usage(code: &str, message: impl Into<String>) -> Self {
        Self { exit: 2, ..Self::local(code, message) }
    }

    /// The daemon cannot be reached.
    pub(super) fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: 3, hint: Some(hint.into()), ..Self::local("daemon_unreachable", message) }
    }

    /// A registry cannot be reached.
    pub(super) fn registry_unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: 3, hint: Some(hint.into()), ..Self::local("registry_unreachable", message) }
    }

    /// A registry hangs; to try at once again would only take as long again.
    pub(super) fn registry_silent(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: 3, hint: Some(hint.into()), ..Self::local("registry_silent", message) }
    }

    /// Might the same succeed when it is done again at once?
    pub(super) fn may_pass(&self) -> bool {
        self.code == "registry_unreachable"
    }

    /// The daemon or a registry answered with an error of this HTTP status.
    pub(super) fn answered(
        status: u16,
        code: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        let exit = match status {
            400 | 413 | 422 => 4,
            404 => 5,
            409 => 6,
            401 | 403 | 421 => 7,
            _ => 1,
        };
        Self { hint, exit, ..Self::local(code, message) }
    }

    /// A submission was rejected.
    pub(super) fn rejected(code: &str, message: impl Into<String>) -> Self {
        Self { exit: 4, ..Self::local(code, message) }
    }

    /// A task of a change failed.
    pub(super) fn change(code: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { exit: 8, hint, ..Self::local(code, message) }
    }

    /// The same with a hint.
    pub(super) fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Prints the failure on stderr; as a JSON document on stdout where that was asked for.
    pub(super) fn print(&self, format: Format) {
        if format == Format::Json {
            let _ = writeln!(
                std::io::stdout(),
                "{}",
                json!({ "error": { "code": self.code, "message": self.message, "hint": self.hint } })
            );
            return;
        }
        // Where nobody can read it, the exit code tells.
        let _ = write!(std::io::stderr(), "{}", self.for_people());
    }

    /// Its lines. Messages may repeat what others wrote (names in archives, answers of registries), and the terminal is
    /// not theirs; even the code of a failure may be such an answer.
    fn for_people(&self) -> String {
        let mut lines = format!("error: {} [{}]\n", safe(&self.message), safe(&self.code));
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {}\n", safe(hint)));
        }
        lines
    }

    /// The process's exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::local("io_error", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_reach_the_terminal_raw() {
        let failure =
            Failure::local("odd\u{1b}code", "no \u{1b}[2Jname\0 here,\r\u{7f}\u{9b}1m\nsecond line")
                .with_hint(Some("ask \u{1b}]0;title\u{7} again".to_owned()));
        let lines = failure.for_people();
        assert!(!lines.chars().any(|c| c.is_control() && c != '\n'), "{lines:?}");
        assert!(lines.starts_with("error: no \\u{1b}[2Jname\\u{0} here,"), "{lines:?}");
        assert!(lines.contains("\nhint: ask \\u{1b}]0;title\\u{7} again\n"), "{lines:?}");
        assert_eq!(Failure::local("a_code", "plain").for_people(), "error: plain [a_code]\n");
    }
}
