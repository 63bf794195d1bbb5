//! Installing, running and removing, as a person types it.

use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::support::{Server, checkout, edit, example, show, signal};

fn with_greeter() -> Server {
    let server = Server::start();
    let submission = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(submission["state"], "published", "{submission:#}");
    let output = server.pantry(&["install", "greeter"]);
    assert!(output.status.success(), "{}\n{}", show(&output), server.log());
    server
}

#[test]
fn an_installed_command_runs_without_the_daemon() {
    let server = with_greeter();
    let wrapper = server.root.join("bin/greet");
    assert_eq!(std::fs::metadata(&wrapper).unwrap().permissions().mode() & 0o777, 0o755);
    let listed = server.json(&["list"]);
    assert_eq!(listed["items"][0]["name"], "greeter");
    server.stop();
    let output = Command::new(&wrapper).arg("ada").output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Ada"));
    let named = server.pantry(&["exec", "greet", "ada"]);
    assert_eq!(named.stdout, output.stdout, "{}", show(&named));
}

/// A server with a package installed whose command tells what it was given.
fn with_teller() -> Server {
    let server = Server::start();
    let package = example("greeter");
    edit(package.path(), "pantry_package.yaml", "name: greeter", "name: teller");
    edit(package.path(), "pantry_package.yaml", "- name: greet\n    run", "- name: tell\n    run");
    let program = r#"import json, sys, time

if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "exit":
        sys.exit(int(sys.argv[2]))
    if what == "stdin":
        sys.stdout.write(sys.stdin.read().upper())
    elif what == "wait":
        print("waiting", flush=True)
        time.sleep(600)
    else:
        print(json.dumps(sys.argv[1:]))
"#;
    std::fs::write(package.path().join("commands/greet/command.py"), program).unwrap();
    std::fs::write(package.path().join("tests/test_greet.py"), "import unittest\n").unwrap();
    edit(
        package.path(),
        "pantry_package.yaml",
        "[python3, -m, unittest, -v, tests.test_greet]",
        "[python3, -c, pass]",
    );
    let submission = server.submit(package.path());
    assert_eq!(submission["state"], "published", "{submission:#}");
    let output = server.pantry(&["install", "teller"]);
    assert!(output.status.success(), "{}", show(&output));
    server
}

#[test]
fn arguments_stdin_and_exit_code_pass_through() {
    let server = with_teller();
    let wrapper = server.root.join("bin/tell");
    let given = [
        "two words",
        "quote\"s and 'more'",
        "$(id) `id` $HOME",
        "line\nbreak",
        "",
        "--help",
        "--",
        "-x",
        "é",
    ];
    let output = Command::new(&wrapper).args(given).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let told: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, given);
    let many: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let output = Command::new(&wrapper).args(&many).output().unwrap();
    let told: Vec<String> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", show(&output)));
    assert_eq!(told, many);
    for code in [0, 3, 117] {
        let output = Command::new(&wrapper).args(["exit", &code.to_string()]).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
    }
    let mut child =
        Command::new(&wrapper).arg("stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&b"grace ".repeat(50_000)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"GRACE ".repeat(50_000));
}

#[test]
fn a_signal_reaches_the_command() {
    let server = with_teller();
    let mut child = Command::new(server.root.join("bin/tell"))
        .arg("wait")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "waiting\n");
    signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    let status = child.wait().unwrap();
    let code = std::os::unix::process::ExitStatusExt::signal(&status).map(|n| 128 + n).or(status.code());
    assert_eq!(code, Some(143), "{status}");
}

#[test]
fn an_update_replaces_and_a_removal_leaves_nothing() {
    let server = with_greeter();
    let newer = example("greeter");
    edit(newer.path(), "pantry_package.yaml", "1.0.0", "1.1.0");
    assert_eq!(server.submit(newer.path())["state"], "published");
    let output = server.pantry(&["install", "greeter@1.1.0"]);
    assert!(output.status.success(), "{}", show(&output));
    let listed = server.json(&["list"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["version"], "1.1.0");
    assert_eq!(listed["items"][0]["revision"], 2);
    let output = server.pantry(&["remove", "greeter"]);
    assert!(output.status.success(), "{}", show(&output));
    assert!(server.json(&["list"])["items"].as_array().unwrap().is_empty());
    assert_eq!(files_in_bin(&server), Vec::<String>::new());
    server.until_nothing_is_left("at the end");
}

pub fn files_in_bin(server: &Server) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["bin", "bin/.launch"] {
        for entry in std::fs::read_dir(server.root.join(folder)).into_iter().flatten().flatten() {
            if entry.file_name() != ".launch" {
                names.push(format!("{folder}/{}", entry.file_name().display()));
            }
        }
    }
    names.sort();
    names
}

#[test]
fn two_packages_cannot_own_one_command() {
    let server = with_greeter();
    let rival = example("greeter");
    edit(rival.path(), "pantry_package.yaml", "name: greeter", "name: rival");
    assert_eq!(server.submit(rival.path())["state"], "published");
    let output = server.pantry(&["install", "rival"]);
    assert_eq!(output.status.code(), Some(8), "{}", show(&output));
    assert!(
        show(&output).contains("command_conflict") && show(&output).contains("greeter"),
        "{}",
        show(&output)
    );
    assert_eq!(server.json(&["list"])["items"].as_array().unwrap().len(), 1);
    let still = Command::new(server.root.join("bin/greet")).arg("ada").output().unwrap();
    assert!(still.status.success(), "{}", show(&still));
}

#[test]
fn a_launch_file_that_was_altered_is_refused() {
    let server = with_greeter();
    let launch = server.root.join("bin/.launch/greet");
    let text = std::fs::read_to_string(&launch).unwrap();
    std::fs::set_permissions(&launch, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&launch, text.replace("1.0.0", "9.9.9")).unwrap();
    std::fs::set_permissions(&launch, std::fs::Permissions::from_mode(0o444)).unwrap();
    let output = Command::new(server.root.join("bin/greet")).arg("ada").output().unwrap();
    assert!(!output.status.success());
    assert!(show(&output).contains("hint:"), "{}", show(&output));
    std::fs::write(&launch, text).unwrap();
}
