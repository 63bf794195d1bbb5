use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::names::{CommandName, Digest, Nonce, SubmissionId};

use super::super::job::{TestCommand, TestComponent};
use super::*;

fn job(components: &[(&str, &str, &str)], test: Option<TestCommand>) -> Job {
    let components = components.iter().map(|(kind, name, path)| TestComponent {
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
        path: (*path).to_owned(),
    });
    Job {
        submission: SubmissionId::parse("1").unwrap(),
        nonce: Nonce::parse("n").unwrap(),
        pack: Digest::of(b"pack"),
        components: components.collect(),
        test,
        callback_url: "http://127.0.0.1/".to_owned(),
    }
}

fn command(name: &str, path: &str, arguments: &[&str]) -> PackCommand {
    PackCommand {
        name: CommandName::parse(name).unwrap(),
        path: path.to_owned(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        description: String::new(),
    }
}

#[test]
fn imports_come_first_then_helps_then_the_own_test() {
    let own =
        TestCommand { argv: vec!["python3".into(), "-m".into(), "unittest".into()], timeout_seconds: 7 };
    let job = job(
        &[("command", "greet", "commands/greet/command.py"), ("routine", "r", "routines/r/routine.json")],
        Some(own),
    );
    let tests = plan(&job, &[command("greet", "/usr/bin/python3", &["-m", "greeter"])]);
    let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names, ["command/greet/import", "command/greet/help", "test"]);
    assert_eq!(tests[0].argv[3..], ["/opt/app/commands/greet/command.py", "commands.greet.command"]);
    assert_eq!(tests[0].proof, Proof::Token);
    assert_eq!(tests[1].argv, ["/usr/bin/python3", "-m", "greeter", "--help"]);
    assert_eq!(tests[2].argv[5..], ["python3", "-m", "unittest"]);
    assert_eq!((tests[2].argv[0].as_str(), tests[2].wall_ms), (PYTHON, Some(7000)));
}

#[test]
fn what_has_nothing_to_run_has_no_tests() {
    let routine = [("routine", "r", "routines/r/routine.json")];
    assert!(plan(&job(&routine, Some(TestCommand { argv: vec![], timeout_seconds: 1 })), &[]).is_empty());
}

#[test]
fn a_command_line_that_no_jail_takes_is_known_before() {
    let test =
        |argv: Vec<String>| plan(&job(&[], Some(TestCommand { argv, timeout_seconds: 0 })), &[]).remove(0);
    assert!(test(vec!["/bin/x".into()]).unusable().is_none());
    assert!(test(vec!["/bin/x".into(), "a\0b".into()]).unusable().is_some());
    assert!(test(vec!["/bin/x".into(), "a".repeat(ARGV_CAP)]).unusable().is_some());
    assert_eq!(test(vec!["/bin/x".into()]).wall_ms, None);
}

#[test]
fn a_file_is_imported_by_the_name_its_neighbours_use() {
    assert_eq!(module_name("commands/greet/command.py"), "commands.greet.command");
    assert_eq!(module_name("commands/my-greet/command.py"), "component");
    assert_eq!(module_name("command.py"), "command");
}

/// Runs a planned command line without a jail: (exit code, stdout, stderr).
fn run(argv: &[String], stdin: &[u8], dir: &std::path::Path) -> (Option<i32>, String, String) {
    let mut child = Command::new(&argv[0])
        .args(&argv[1..])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends without reading closes the pipe early.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[allow(clippy::print_stdout, reason = "a test that can't run says why")]
fn no_python() -> bool {
    let absent = !std::path::Path::new(PYTHON).exists();
    if absent {
        println!("skipped: {PYTHON} is not on this machine");
    }
    absent
}

#[test]
fn only_an_import_that_is_complete_prints_the_token() {
    if no_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (source, reaches) in [
        ("x = 1\n", true),
        ("import atexit\natexit.register(print, 'late')\nprint('PASS')\n", true),
        ("import sys\nsys.stdout = None\n", true),
        ("import sys\nsys.exit(0)\n", false),
        ("import os\nos._exit(0)\n", false),
        ("raise SystemExit\n", false),
        ("import sys\nsys.stdin.buffer.read()\n", false),
        ("raise ValueError('broken')\n", false),
        ("def f(:\n", false),
    ] {
        let path = dir.path().join("part.py");
        fs_err::write(&path, source).unwrap();
        let argv = [PYTHON, "-c", IMPORT, path.to_str().unwrap(), "part"].map(str::to_owned);
        let (code, out, _) = run(&argv, b"token-1", dir.path());
        let complete = code == Some(0) && out.ends_with("\ntoken-1\n");
        assert_eq!(complete, reaches, "{source:?}: {code:?} {out:?}");
    }
}

#[test]
fn a_relative_program_is_found_on_the_path() {
    if no_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let argv = |words: &[&str]| found(words.iter().map(|word| (*word).to_owned()).collect());
    let (code, out, _) =
        run(&argv(&["python3", "-c", "import sys; print(sys.argv[1:])", "a b"]), b"", dir.path());
    assert_eq!((code, out.as_str()), (Some(0), "['a b']\n"));
    let (code, _, err) = run(&argv(&["no-such-program-here"]), b"", dir.path());
    assert_eq!(code, Some(127));
    assert!(err.contains("no-such-program-here"), "{err}");
}
