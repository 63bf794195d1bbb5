//! The run's own terminal: what a person sees of a command, driven by a shell with job control on a terminal of the
//! test's own.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use pantry::sandbox::{Limits, SeccompProfile, Stdio as Streams};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::Winsize;

use crate::bench::{Bench, case};
use crate::executing::{with_policy, with_streams};

/// A terminal with a process in front of it.
struct Screen {
    control: std::fs::File,
    /// The other side, kept so that its modes can be looked at.
    side: OwnedFd,
    child: Child,
    seen: String,
    /// How much of it was waited for already.
    read: usize,
}

const SIZE: Winsize = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };

impl Screen {
    /// Starts a command as the leader of a session on a new terminal.
    fn with(command: &Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let (control, side) = (std::fs::File::from(pty.master), pty.slave);
        // A copy of the controlling side inside would keep the session alive when the test is over.
        for fd in [control.as_fd(), side.as_fd()] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).unwrap();
        }
        rustix::termios::tcsetwinsize(&control, SIZE).unwrap();
        let mut leader = Command::new("setsid");
        leader.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            leader.env(name, value.unwrap());
        }
        leader.env("TERM", "of-the-callers");
        let stream = || Stdio::from(side.try_clone().unwrap());
        let child = leader.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        Self { control, side, child, seen: String::new(), read: 0 }
    }

    /// A shell with job control, in which `$RUN` is the command.
    fn shell(command: &Command) -> Self {
        let quote = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
        let words: Vec<String> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
        let mut shell = Command::new("bash");
        // It tells of stopped jobs at once.
        shell
            .args(["--norc", "--noprofile", "-b", "-i"])
            .env("RUN", words.join(" "))
            .env("PS1", "at the shell> ");
        shell.env("HISTFILE", "");
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        let mut screen = Self::with(&shell);
        screen.wait("at the shell> ");
        screen
    }

    fn type_(&mut self, keys: &str) {
        self.control.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown after what was waited for before.
    fn wait(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.seen[self.read..].contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not shown:\n{}", self.seen);
            let mut fds = [PollFd::new(&self.control, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
            if fds[0].revents().is_empty() {
                continue;
            }
            let mut buffer = [0; 4096];
            match self.control.read(&mut buffer) {
                Ok(read @ 1..) => {
                    self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]).replace('\r', ""));
                }
                _ => panic!("the terminal ended without {text:?}:\n{}", self.seen),
            }
        }
        self.read += self.seen[self.read..].find(text).unwrap() + text.len();
    }

    fn modes(&self) -> String {
        format!("{:?}", rustix::termios::tcgetattr(self.side.as_fd()).unwrap())
    }

    /// Ends the shell, once it asks: keys that a command has not read by its end are dropped.
    fn leave(mut self) {
        self.wait("at the shell> ");
        self.type_("exit 0\n");
        self.wait("exit\n");
        assert!(self.child.wait().unwrap().success(), "{}", self.seen);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn talking(bench: &Bench, arguments: &[&str]) -> Command {
    with_streams(bench, Streams::Terminal, arguments)
}

case! {
    fn a_program_has_a_terminal_of_its_own(bench: &Bench) {
        let mut screen = Screen::with(&talking(bench, &["seat"]));
        screen.wait("foreground 1\n");
        screen.wait("kind of-the-callers\n");
        for line in ["0 /dev/pts/0\n", "1 /dev/pts/0\n", "2 /dev/pts/0\n", "tty opens\n", "size 31x97\n"] {
            assert!(screen.seen.contains(line), "{}", screen.seen);
        }
        // None of the host's is there, whatever its number.
        assert!(screen.seen.contains("another No such file or directory\n"), "{}", screen.seen);
        assert!(screen.child.wait().unwrap().success());
    }
}

case! {
    fn keys_signals_and_sizes_reach_the_program(bench: &Bench) {
        let mut screen = Screen::with(&talking(bench, &["converse"]));
        screen.wait("ready\n");
        screen.type_("hello\n");
        screen.wait("hello\ngot hello\n");
        screen.type_("\u{3}");
        screen.wait("interrupted\n");
        let other = Winsize { ws_row: 44, ws_col: 55, ..SIZE };
        rustix::termios::tcsetwinsize(&screen.control, other).unwrap();
        screen.wait("size 44x55\n");
        // Echo is the run's terminal's, so that a program can switch it off.
        screen.type_("silent\n");
        screen.wait("silence\n");
        screen.type_("password\n");
        screen.wait("got password\n");
        assert_eq!(screen.seen.matches("password").count(), 1, "{}", screen.seen);
        screen.type_("\u{4}");
        screen.wait("the end\n");
        assert!(screen.child.wait().unwrap().success());
    }
}

case! {
    fn the_callers_terminal_has_its_modes_back(bench: &Bench) {
        let mut screen = Screen::with(&talking(bench, &["converse"]));
        let before = screen.modes();
        screen.wait("ready\n");
        let during = screen.modes();
        assert_ne!(before, during, "the control: keys are passed on raw");
        // Also when the program leaves its own in another state, and what was typed too late is no command of a shell.
        screen.type_("silent\n");
        screen.wait("silence\n");
        screen.type_("quit\nrm -rf everything\n");
        assert_eq!(screen.child.wait().unwrap().code(), Some(7));
        assert_eq!(screen.modes(), before);
        assert_eq!(rustix::io::ioctl_fionread(&screen.side).unwrap(), 0, "keys are left");
    }
}

case! {
    fn a_shell_stops_and_continues_it(bench: &Bench) {
        let mut screen = Screen::shell(&talking(bench, &["converse"]));
        screen.type_("$RUN; echo code=$?\n");
        screen.wait("ready\n");
        screen.type_("\u{1a}");
        screen.wait("Stopped");
        screen.wait("at the shell> ");
        screen.type_("echo meanwhile-$((40 + 2))\n");
        screen.wait("meanwhile-42\n");
        screen.type_("fg\n");
        screen.wait("continued\n");
        screen.type_("again\n");
        screen.wait("got again\n");
        // A program that stops itself is the shell's likewise.
        screen.type_("stop\n");
        screen.wait("stopping\n");
        screen.wait("Stopped");
        screen.type_("bg\n");
        screen.wait("continued\n");
        // Behind, it asks for input, and is stopped for that.
        screen.wait("Stopped");
        screen.type_("fg\n");
        screen.wait("continued\n");
        screen.type_("quit\n");
        screen.wait("at the shell> ");
        screen.type_("echo and-$((6 * 7))\n");
        screen.wait("and-42\n");
        screen.leave();
    }
}

case! {
    fn a_job_that_runs_behind_comes_to_the_fore(bench: &Bench) {
        let mut screen = Screen::shell(&talking(bench, &["converse"]));
        screen.type_("$RUN &\n");
        screen.wait("ready\n");
        screen.wait("Stopped");
        screen.type_("fg\n");
        screen.wait("continued\n");
        screen.type_("here\n");
        screen.wait("got here\n");
        screen.type_("quit\n");
        screen.leave();
    }
}

case! {
    fn in_a_pipeline_it_takes_keys_only_when_it_asks(bench: &Bench) {
        // Its output goes to another program, which may be reading keys itself.
        let mut screen = Screen::shell(&talking(bench, &["seat"]));
        screen.type_("$RUN | tr a-z A-Z\n");
        screen.wait("FOREGROUND 0\n");
        assert!(screen.seen.contains("0 /DEV/PTS/0\n1 NO\n2 /DEV/PTS/0\n"), "{}", screen.seen);
        screen.leave();
        let mut screen = Screen::shell(&talking(bench, &["converse"]));
        screen.type_("$RUN | cat\n");
        screen.wait("ready\n");
        screen.type_("one\n");
        screen.wait("got one\n");
        screen.type_("quit\n");
        screen.leave();
    }
}

case! {
    fn it_can_ask_on_the_terminal_whatever_its_streams_are(bench: &Bench) {
        let mut screen = Screen::shell(&talking(bench, &["ask-terminal"]));
        screen.type_("echo data | $RUN\n");
        screen.wait("secret? ");
        screen.type_("sesame\n");
        screen.wait("told sesame\n");
        screen.leave();
    }
}

case! {
    fn without_a_terminal_there_is_none(bench: &Bench) {
        let output = talking(bench, &["seat"]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("0 no\n1 no\n2 no\ntty No such file or directory\n"), "{said}");
    }
}

case! {
    fn a_callers_file_is_never_inside(bench: &Bench) {
        let path = bench.dir.path().join("list");
        fs::write(&path, "abcdef").unwrap();
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let outside = Command::new(bench.root.join(&bench.probe[1..])).arg("behind").stdin(open()).output().unwrap();
        let control = String::from_utf8(outside.stdout).unwrap();
        assert!(control.contains("is a file 1\nfor writing opens\ntruncated 1\nmode changed 1\n"), "{control}");
        fs::write(&path, "abcdef").unwrap();
        let mut file = open();
        let output = talking(bench, &["behind"]).stdin(file.try_clone().unwrap()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("is a file 0\nfor writing no\ntruncated 0\nmode changed 0\nread a\n"), "{said}");
        // Whoever shares the file goes on where the program left off.
        assert_eq!(file.stream_position().unwrap(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "abcdef");
    }
}

case! {
    fn what_it_prints_reaches_the_callers_file_whole(bench: &Bench) {
        let path = bench.dir.path().join("printed");
        let status = talking(bench, &["flood-n", "20000"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&path).unwrap().into_file())
            .status()
            .unwrap();
        assert!(status.success());
        let printed = fs::read_to_string(&path).unwrap();
        assert_eq!(printed.lines().filter(|line| line.starts_with("line ")).count(), 20_000);
        assert!(printed.ends_with("line 19999\n"));
    }
}

/// Waits until the program is gone, whoever is still there.
fn wait_for_the_end(bench: &Bench) {
    let runs = || {
        let lines =
            fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
        lines.flatten().any(|line| line.starts_with(bench.probe.as_bytes()))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while runs() {
        assert!(Instant::now() < deadline, "it runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that may take this long.
fn timed(bench: &Bench, arguments: &[&str], wall_ms: u64) -> Command {
    let mut policy = bench.policy(arguments).profile(SeccompProfile::Command).stdio(Streams::Terminal);
    policy.limits = Limits { wall_ms, ..Limits::command() };
    with_policy(bench, &policy)
}

case! {
    fn a_program_that_stops_itself_stops_no_clock(bench: &Bench) {
        let mut screen = Screen::with(&timed(bench, &["converse"], 2000));
        screen.wait("ready\n");
        screen.type_("stop\n");
        screen.wait("stopping\n");
        // The caller is stopped likewise, as nobody continues it here; the program goes all the same.
        wait_for_the_end(bench);
        let leader = rustix::process::Pid::from_child(&screen.child);
        rustix::process::kill_process_group(leader, rustix::process::Signal::CONT).unwrap();
        assert_eq!(screen.child.wait().unwrap().code(), Some(124));
    }
}

case! {
    fn a_reader_that_reads_nothing_stops_no_clock(bench: &Bench) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = timed(bench, &["flood"], 1000)
            .stdin(Stdio::null())
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(124));
        drop(ours);
    }
}

case! {
    fn without_root_a_pipe_that_others_print_into_is_not_inside(bench: &Bench) {
        let (mut read, write) = std::io::pipe().unwrap();
        let own = rustix::fs::fstat(&write).unwrap().st_ino;
        let status = talking(bench, &["inode"]).stdin(Stdio::null()).stdout(write).status().unwrap();
        assert!(status.success());
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap();
        // As root the program's id owns no pipe of the caller's.
        assert_eq!(said.contains(&format!("inode {own}\n")), crate::bench::is_root(), "{said}");
        assert!(said.contains("inode "), "{said}");
    }
}

case! {
    fn a_job_that_nobody_can_continue_does_not_ask_for_ever(bench: &Bench) {
        let mut screen = Screen::shell(&talking(bench, &["ask-terminal"]));
        screen.type_("sh -c \"$RUN &\"; echo begun-$((40 + 2))\n");
        screen.wait("begun-42\n");
        screen.wait("secret? ");
        wait_for_the_end(bench);
        screen.type_("\n");
        screen.leave();
    }
}
