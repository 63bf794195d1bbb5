use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::folder::Folder;
use super::super::record::tests::installed;
use super::*;
use crate::names::Faults;

/// A root in which the command `greet` was linked.
fn linked() -> (tempfile::TempDir, CommandName) {
    let root = tempfile::tempdir().unwrap();
    let record = installed("acme/greeter", &["greet"]);
    Folder::new(root.path(), "/usr/bin/pantry".into(), Faults::none()).write(&record).unwrap();
    (root, record.commands[0].name.clone())
}

fn chmod(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts another file in the place of the launch file.
fn replace(root: &tempfile::TempDir, content: &[u8]) {
    let path = root.path().join("bin/.launch/greet");
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, content).unwrap();
    chmod(&path, 0o444);
}

#[test]
fn what_was_written_is_read_back_and_becomes_the_policy() {
    let (root, command) = linked();
    let launch = Launch::read(root.path(), &command).unwrap();
    let record = installed("acme/greeter", &["greet"]);
    assert_eq!((launch.revision, &launch.pack), (1, &record.id));
    let arguments = ["two words", "", "a\nb", "$(id)", "'\""].map(str::to_owned);
    let policy = launch.policy(&arguments);
    assert_eq!(policy.argv[..3], ["/usr/bin/python3", "-m", "greet"]);
    assert_eq!(policy.argv[3..], arguments);
    assert_eq!(policy.root, [root.path().join("trees").join(record.layers[0].diff_id.hex())]);
    assert_eq!(policy.env, record.env);
    assert_eq!(policy.cwd, Path::new("/opt/app"));
    assert_eq!(policy.limits.wall_ms, 0);
    assert!(matches!(policy.network, crate::sandbox::Network::None));
    assert!(matches!(policy.stdio, Stdio::Terminal));
    assert!(policy.inputs.is_empty() && policy.data.is_empty());
}

#[test]
fn a_file_that_others_could_write_is_refused() {
    let (root, command) = linked();
    let file = root.path().join("bin/.launch/greet");
    for (path, bad, good) in [
        (file.clone(), 0o464, 0o444),
        (file.clone(), 0o446, 0o444),
        (root.path().join("bin/.launch"), 0o775, 0o755),
        (root.path().join("bin"), 0o757, 0o755),
    ] {
        chmod(&path, bad);
        assert_eq!(Launch::read(root.path(), &command).unwrap_err().code(), "launch_file_not_trusted");
        chmod(&path, good);
        Launch::read(root.path(), &command).unwrap();
    }
    // Only root can give a file to somebody else; without root that half can't be tried.
    if rustix::process::geteuid().is_root() {
        let other = Some(rustix::process::Uid::from_raw(12345));
        rustix::fs::chown(&file, other, None).unwrap();
        assert_eq!(Launch::read(root.path(), &command).unwrap_err().code(), "launch_file_not_trusted");
    }
}

#[test]
fn a_link_in_the_place_of_anything_is_refused() {
    let (root, command) = linked();
    for name in ["bin/.launch/greet", "bin/.launch", "bin"] {
        let (path, aside) = (root.path().join(name), root.path().join("aside"));
        fs_err::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        assert_eq!(
            Launch::read(root.path(), &command).unwrap_err().code(),
            "launch_file_not_trusted",
            "{name}"
        );
        fs_err::remove_file(&path).unwrap();
        fs_err::rename(&aside, &path).unwrap();
    }
    Launch::read(root.path(), &command).unwrap();
    assert_eq!(
        Launch::read(root.path(), &CommandName::parse("other").unwrap()).unwrap_err().code(),
        "command_not_installed"
    );
}

#[test]
fn an_altered_file_is_refused() {
    let (root, command) = linked();
    let good = fs_err::read_to_string(root.path().join("bin/.launch/greet")).unwrap();
    let seal = Launch::read(root.path(), &command).unwrap().seal.unwrap();
    let cases = [
        good.replace("/usr/bin/python3", "/usr/bin/python4"),
        good.replace("\"memory_bytes\":2147483648", "\"memory_bytes\":4294967296"),
        good.replace("PYTHONPATH", "PYTHONHOME"),
        good.replace(seal.hex(), Digest::of(b"x").hex()),
        good.replace("\"version\":1", "\"version\":2"),
        good.replacen('{', "{\"more\":1,", 1),
        good[..good.len() / 2].to_owned(),
        String::new(),
        "[".repeat(1_000_000),
        good.replace("\"greet\"", "\"../x\""),
    ];
    for altered in cases {
        assert_ne!(altered, good);
        replace(&root, altered.as_bytes());
        assert_eq!(
            Launch::read(root.path(), &command).unwrap_err().code(),
            "launch_file_altered",
            "{altered:.200}"
        );
    }
    replace(&root, good.as_bytes());
    Launch::read(root.path(), &command).unwrap();
}

#[test]
fn a_sealed_file_counts_for_its_own_command_and_root_only() {
    let (root, command) = linked();
    let (elsewhere, _) = linked();
    let foreign = fs_err::read(elsewhere.path().join("bin/.launch/greet")).unwrap();
    replace(&root, &foreign);
    assert_eq!(Launch::read(root.path(), &command).unwrap_err().code(), "launch_file_altered");
    let other = CommandName::parse("other").unwrap();
    fs_err::copy(elsewhere.path().join("bin/.launch/greet"), elsewhere.path().join("bin/.launch/other"))
        .unwrap();
    assert_eq!(Launch::read(elsewhere.path(), &other).unwrap_err().code(), "launch_file_altered");
}
