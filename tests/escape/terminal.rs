//! The caller's terminal: nothing is typed into it, and nothing that is shown on it drives it.

use std::process::{Command, Stdio};

use pantry::sandbox::{Cancel, StdinBytes};

use crate::bench::case;

fn pty() -> Option<(std::fs::File, std::fs::File)> {
    match nix::pty::openpty(None, None) {
        Ok(pty) => Some((pty.master.into(), pty.slave.into())),
        Err(error) => {
            println!("skipped: no terminal can be made here: {error}");
            None
        }
    }
}

case! {
    fn nothing_is_typed_into_a_terminal_also_with_high_bits(bench: &Bench) {
        // The terminal is a pty of the test's own, handed in as standard input: the worst case.
        let Some((_controller, terminal)) = pty() else { return };
        let outside = Command::new(bench.root.join(&bench.probe[1..]))
            .arg("terminal")
            .stdin(Stdio::from(terminal.try_clone().unwrap()))
            .output()
            .unwrap();
        let there = String::from_utf8(outside.stdout).unwrap();
        // The control: the kernel takes the high bits for nothing, and a line discipline can be set.
        assert_eq!(there.matches("TIOCSETD 0\n").count(), 4, "{there}");
        let policy = bench.policy(&["terminal"]);
        let outcome = bench.sandbox.run(&policy, StdinBytes::File(terminal), &Cancel::new().unwrap()).unwrap();
        let said = outcome.stdout.text();
        for name in ["TIOCSTI", "TIOCLINUX", "TIOCSETD"] {
            assert_eq!(said.matches(&format!("{name} 1\n")).count(), 4, "{said}");
        }
        assert!(said.contains("TIOCGWINSZ 0\n"), "its size may be asked: {said}");
        assert!(said.contains("tty 2\n") && said.contains("console 2\n"), "{said}");
    }
}

case! {
    fn what_a_program_prints_cannot_drive_a_terminal(bench: &Bench) {
        let bytes = bench.outside(&["inject"]).stdout;
        let outcome = bench.run(&bench.policy(&["inject"]));
        // The control: the bytes are kept as they came.
        assert_eq!(outcome.stdout.bytes, bytes);
        assert!(bytes.contains(&0x1b) && bytes.contains(&0x07));
        let shown = outcome.stdout.text();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(!shown.contains('\u{202e}'), "nor are letters turned around: {shown:?}");
        assert!(shown.contains("red") && shown.contains("reversed"), "{shown:?}");
    }
}
