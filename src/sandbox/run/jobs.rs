//! Signals to the caller, and job control: what a shell does with the caller, the caller does with the program.

use super::Attended;
use crate::sandbox::terminal;
use crate::sandbox::wire::{self, ToInit};

impl Attended<'_> {
    pub(super) fn tell_init(&self, what: ToInit) {
        if let Some(status) = &self.status {
            // If it is gone, its pidfd says so.
            let _gone = wire::send_message(status, &what, &[]);
        }
    }

    /// Does what a signal to the caller asks for: mostly it is the program's.
    pub(super) fn signalled(&mut self, signal: i32) {
        match (&mut self.streams.terminal, signal) {
            (Some(terminal), nix::libc::SIGWINCH) => terminal.resize(),
            // A shell's `fg` for a job that was running behind; of one that was stopped `stopped` knows.
            (Some(terminal), nix::libc::SIGCONT) => {
                if !terminal.is_taken() && terminal.is_interactive() && terminal.is_ours() {
                    self.go_on();
                }
            }
            _ => self.tell_init(ToInit::Signal(signal)),
        }
    }

    /// The program was stopped: by a key, by reading from behind, or by another.
    pub(super) fn stopped(&mut self, signal: i32) {
        let Some(terminal) = &mut self.streams.terminal else { return };
        let asks = matches!(signal, nix::libc::SIGTTIN | nix::libc::SIGTTOU);
        if asks && !terminal.is_taken() && terminal.is_ours() {
            terminal.take();
            return self.tell_init(ToInit::Resume { foreground: true });
        }
        if asks && terminal::is_orphaned() {
            // It would ask for ever; going on, it finds that nothing is left to be read.
            terminal.hang_up();
            return self.tell_init(ToInit::Resume { foreground: false });
        }
        let took = terminal.is_taken();
        terminal.leave();
        terminal::stop_like(signal);
        if took
            && let Some(terminal) = &mut self.streams.terminal
            && terminal.is_ours()
        {
            terminal.look_again();
            terminal.take();
        }
        self.go_on();
    }

    /// Lets the program go on, with the terminal if the caller has it and the program wants it.
    fn go_on(&mut self) {
        let Some(terminal) = &mut self.streams.terminal else { return };
        terminal.resize();
        if !terminal.is_taken() && terminal.is_interactive() && terminal.is_ours() {
            terminal.look_again();
            terminal.take();
        }
        let foreground = terminal.is_taken();
        self.tell_init(ToInit::Resume { foreground });
    }
}
