//! Secrets that people type or pipe in; they never stand on a command line, where every process can read them.

use std::io::{Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use super::failure::Failure;

/// A secret has no more bytes than this.
const CAP: usize = 4096;

/// A password: the first line of stdin, or asked for on the terminal without being shown.
pub(super) fn password(prompt: &str, from_stdin: bool) -> Result<String, Failure> {
    let password = if from_stdin { from(&mut std::io::stdin().lock())? } else { asked(prompt)? };
    if password.is_empty() {
        return Err(Failure::usage("password_missing", "the password is empty"));
    }
    Ok(password)
}

/// As [`password`]; typed twice where it is typed.
pub(super) fn new_password(from_stdin: bool) -> Result<String, Failure> {
    let first = password("New password: ", from_stdin)?;
    if !from_stdin && asked("The same again: ")? != first {
        return Err(Failure::usage("passwords_differ", "the two passwords are not the same"));
    }
    Ok(first)
}

fn from(input: &mut impl std::io::Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    input.take(CAP as u64 + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage("password_not_valid", "the password is no UTF-8 text"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() > CAP || line.contains(['\n', '\r', '\0']) {
        return Err(Failure::usage(
            "password_not_valid",
            format!("a password is one line of {CAP} bytes at most"),
        ));
    }
    Ok(line.to_owned())
}

fn asked(prompt: &str) -> Result<String, Failure> {
    let unusable = || {
        Failure::usage("password_missing", "there is no terminal to ask for the password on")
            .with_hint(Some("pipe it in: --password-stdin < FILE".to_owned()))
    };
    let opened = fs_err::OpenOptions::new().read(true).write(true).open("/dev/tty");
    let (opened, _) = opened.map_err(|_| unusable())?.into_parts();
    let mut terminal = &opened;
    let _quiet = Quiet::begin(terminal).ok_or_else(unusable)?;
    terminal.write_all(prompt.as_bytes())?;
    let mut typed = Vec::new();
    let mut byte = [0];
    loop {
        if terminal.read(&mut byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' | 4 => break,
            3 => {
                let _ = terminal.write_all(b"\n");
                return Err(Failure::local("interrupted", "interrupted"));
            }
            8 | 127 => {
                // A character may be several bytes long.
                while typed.pop().is_some_and(|last: u8| last & 0xc0 == 0x80) {}
            }
            21 => typed.clear(),
            byte if typed.len() < CAP => typed.push(byte),
            _ => {}
        }
    }
    let _ = terminal.write_all(b"\n");
    from(&mut typed.as_slice())
}

/// A terminal that shows nothing and leaves every key to us, until this value goes away; so that no signal can leave
/// it silent.
struct Quiet<'a> {
    terminal: &'a std::fs::File,
    before: rustix::termios::Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a std::fs::File) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_piped_password_is_one_line() {
        let read = |text: &str| from(&mut text.as_bytes()).ok();
        assert_eq!(read("secret\n").as_deref(), Some("secret"));
        assert_eq!(read("secret\r\n").as_deref(), Some("secret"));
        assert_eq!(read(" with blanks ").as_deref(), Some(" with blanks "));
        assert_eq!(read("two\nlines\n"), None);
        assert_eq!(read(&"x".repeat(CAP + 1)), None);
        assert!(from(&mut [0xff_u8].as_slice()).is_err());
    }
}
