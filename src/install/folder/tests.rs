use std::os::unix::fs::symlink;

use super::super::record::tests::installed;
use super::*;

fn folder(root: &Path, program: &Path) -> Folder {
    Folder::new(root, program.to_owned(), Faults::none())
}

fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for at in ["bin", "bin/.launch"] {
        for entry in fs_err::read_dir(root.join(at)).unwrap() {
            found.push(format!("{at}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_record_becomes_a_wrapper_and_a_launch_file_and_goes_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), Path::new("/usr/bin/pantry"));
    let record = installed("acme/greeter", &["greet"]);
    assert_eq!(folder.write(&record).unwrap(), 2);
    assert_eq!(folder.write(&record).unwrap(), 0, "the second time nothing is written");
    assert_eq!(listing(root.path()), ["bin/.launch", "bin/.launch/greet", "bin/greet"]);
    let mode = |path: &str| fs_err::metadata(root.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("bin/greet"), mode("bin/.launch/greet")), (0o755, 0o444));
    let wrapper = fs_err::read_to_string(root.path().join("bin/greet")).unwrap();
    assert!(wrapper.starts_with("#!/usr/bin/pantry exec\n# pantry wrapper 1\n"));
    for line in ["pack: acme/greeter 1.0.0", "revision: 1", "command: greet"] {
        assert!(wrapper.lines().any(|found| found == line), "{line}");
    }
    assert_eq!(folder.remove(&[record.commands[0].name.clone()]).unwrap(), 2);
    assert_eq!(listing(root.path()), ["bin/.launch"]);
}

#[test]
fn mending_goes_both_ways_and_leaves_foreign_files_alone() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), Path::new("/usr/bin/pantry"));
    let (kept, gone) = (installed("acme/a", &["one", "two"]), installed("acme/b", &["three"]));
    folder.write(&kept).unwrap();
    folder.write(&gone).unwrap();
    let bin = root.path().join("bin");
    fs_err::remove_file(bin.join("one")).unwrap();
    fs_err::remove_file(bin.join(".launch/two")).unwrap();
    fs_err::write(bin.join(".launch/.tmp-one"), b"half").unwrap();
    fs_err::write(bin.join(".tmp-two"), b"half").unwrap();
    fs_err::write(bin.join("mine.sh"), b"#!/bin/sh\n").unwrap();
    symlink("/bin/true", bin.join("link")).unwrap();
    assert_eq!(folder.mend(std::slice::from_ref(&kept)).unwrap(), Mended { written: 2, removed: 4 });
    let expected = [
        "bin/.launch",
        "bin/.launch/one",
        "bin/.launch/two",
        "bin/link",
        "bin/mine.sh",
        "bin/one",
        "bin/two",
    ];
    assert_eq!(listing(root.path()), expected);
    assert_eq!(folder.mend(std::slice::from_ref(&kept)).unwrap(), Mended::default());
    // Modes and content count as well.
    fs_err::set_permissions(bin.join(".launch/one"), Permissions::from_mode(0o666)).unwrap();
    fs_err::write(bin.join("two"), b"#!/x exec\n# pantry wrapper 1\n").unwrap();
    assert_eq!(folder.mend(&[kept]).unwrap(), Mended { written: 2, removed: 0 });
}

#[test]
fn a_root_without_installations_gets_no_folder() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(folder(root.path(), Path::new("/p")).mend(&[]).unwrap(), Mended::default());
    assert!(!root.path().join("bin").exists());
}

#[test]
fn a_foreign_file_is_neither_overwritten_nor_removed() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), Path::new("/usr/bin/pantry"));
    let record = installed("acme/greeter", &["greet"]);
    fs_err::create_dir(root.path().join("bin")).unwrap();
    for make in [
        |path: &Path| fs_err::write(path, b"#!/bin/sh\n").unwrap(),
        |path: &Path| symlink("/nowhere", path).unwrap(),
    ] {
        let path = root.path().join("bin/greet");
        make(&path);
        let names = [record.commands[0].name.clone()];
        assert_eq!(folder.check_free(&names).unwrap_err().code(), "wrapper_in_the_way");
        assert_eq!(folder.remove(&names).unwrap(), 0);
        fs_err::remove_file(&path).unwrap();
    }
}

#[test]
fn a_program_at_an_impossible_path_is_started_by_a_short_link() {
    let root = tempfile::tempdir().unwrap();
    let record = installed("acme/greeter", &["greet"]);
    let program = Path::new("/opt/my tools/pantry");
    folder(root.path(), program).write(&record).unwrap();
    let link = root.path().join("bin/.pantry");
    assert_eq!(fs_err::read_link(&link).unwrap(), program);
    let wrapper = fs_err::read_to_string(root.path().join("bin/greet")).unwrap();
    assert!(wrapper.starts_with(&format!("#!{} exec\n", link.display())));
    folder(root.path(), Path::new("/opt/other tools/pantry")).mend(&[record]).unwrap();
    assert_eq!(fs_err::read_link(&link).unwrap(), Path::new("/opt/other tools/pantry"));
}

/// The kernel itself starts the wrapper; the interpreter tells what it was given.
#[test]
fn arguments_of_every_kind_reach_the_program() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join("tell");
    fs_err::write(&program, "#!/bin/sh\nfor given in \"$@\"; do printf '%s\\0' \"$given\"; done\n").unwrap();
    fs_err::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let record = installed("acme/greeter", &["greet"]);
    folder(root.path(), &program).write(&record).unwrap();
    let wrapper = root.path().join("bin/greet");
    let mut arguments: Vec<String> =
        ["two words", "", "'", "\"", "a\nb", "$(touch evil)", "`id`", "*", "\\", "--", "-x", "é"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend((0..10_000).map(|n| n.to_string()));
    let output = std::process::Command::new(&wrapper).args(&arguments).output().unwrap();
    assert!(output.status.success());
    let told: Vec<String> =
        output.stdout.split(|&b| b == 0).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    let expected = [
        vec!["exec".to_owned(), wrapper.to_str().unwrap().to_owned()],
        arguments,
        // Behind the last zero.
        vec![String::new()],
    ];
    assert_eq!(told, expected.concat());
}
