//! Each fault of the page, planted with every digest right, so that nothing but the fault can be found.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use pantry::rootfs::{BundleSpec, CheckReport, FindingCode, check_directory, check_layout};
use tempfile::TempDir;

use crate::bench::{Plant, copy_folder, file, layout, link, manifest, planted, unpack};

fn check_with(plants: &[Plant]) -> CheckReport {
    let folder = planted(plants);
    check_layout(&folder.path().join("layout"), &BundleSpec::built_in().unwrap()).unwrap()
}

/// The check finds exactly these.
fn assert_found(plants: &[Plant], expected: &[(FindingCode, &str)]) {
    let report = check_with(plants);
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.code, finding.path.as_str())).collect();
    assert_eq!(found, expected, "{report}");
}

#[test]
fn planting_nothing_finds_nothing() {
    assert_found(&[], &[]);
}

#[test]
fn links_out() {
    assert_found(&[link("usr/share/out", "/opt/elsewhere")], &[(FindingCode::LinkOutside, "/usr/share/out")]);
    assert_found(
        &[link("usr/share/one", "two"), link("usr/share/two", "/opt/elsewhere")],
        &[(FindingCode::LinkOutside, "/usr/share/one"), (FindingCode::LinkOutside, "/usr/share/two")],
    );
    assert_found(
        &[link("usr/share/up", "../../../etc/passwd")],
        &[(FindingCode::LinkOutside, "/usr/share/up")],
    );
    assert_found(&[link("usr/share/self", "self")], &[(FindingCode::LinkLoop, "/usr/share/self")]);
    // A link to a folder of the host that the root has too is no way out.
    assert_found(&[link("usr/share/in", "/etc/passwd")], &[]);
}

#[test]
fn a_foreign_interpreter() {
    let mut program = std::fs::read("/usr/bin/git").unwrap();
    let name = b"/ld-linux";
    let place = program.windows(name.len()).position(|window| window == name).unwrap();
    program[place + 1..place + 9].copy_from_slice(b"ld-other");
    // The name is on the list of programs, so only the interpreter can be found.
    assert_found(
        &[file("usr/bin/python3-other", 0o755, &program)],
        &[(FindingCode::InterpreterMissing, "/usr/bin/python3-other")],
    );
}

#[test]
fn a_foreign_run_path_and_a_missing_library() {
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("libplain.so");
    let build = |arguments: &[&str]| {
        let status = Command::new("cc")
            .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"])
            .arg(&library)
            .args(arguments)
            .status();
        status.is_ok_and(|status| status.success()).then(|| std::fs::read(&library).unwrap())
    };
    let Some(content) = build(&["-Wl,-rpath,/opt/foreign"]) else {
        println!("skipped: no C compiler to make the libraries with");
        return;
    };
    assert_found(
        &[file("usr/lib/libplain.so", 0o644, &content)],
        &[(FindingCode::RunPathOutside, "/usr/lib/libplain.so")],
    );
    let content = build(&["-Wl,-rpath,$ORIGIN/../lib"]).unwrap();
    assert_found(&[file("usr/lib/libplain.so", 0o644, &content)], &[]);
    let other = folder.path().join("libgone.so");
    let made = Command::new("cc")
        .args(["-shared", "-nostdlib", "-Wl,-soname,libgone.so", "-x", "c", "/dev/null", "-o"])
        .arg(&other)
        .status();
    assert!(made.unwrap().success());
    let content = build(&["-x", "none", "-Wl,--no-as-needed", other.to_str().unwrap()]).unwrap();
    assert_found(
        &[file("usr/lib/libplain.so", 0o644, &content)],
        &[(FindingCode::LibraryMissing, "/usr/lib/libplain.so")],
    );
}

#[test]
fn a_foreign_shebang() {
    assert_found(
        &[file("usr/share/script", 0o755, b"#!/usr/local/bin/python\n")],
        &[(FindingCode::ShebangMissing, "/usr/share/script")],
    );
    assert_found(&[file("usr/share/script", 0o755, b"#!/usr/bin/python3\n")], &[]);
}

#[test]
fn setuid_setgid_and_loose_modes() {
    assert_found(&[file("usr/share/x", 0o4755, b"")], &[(FindingCode::Setuid, "/usr/share/x")]);
    assert_found(&[file("usr/share/x", 0o2755, b"")], &[(FindingCode::Setuid, "/usr/share/x")]);
    assert_found(&[file("usr/share/x", 0o666, b"")], &[(FindingCode::Mode, "/usr/share/x")]);
}

#[test]
fn a_shell_by_its_name_and_by_being_a_program() {
    let shell = std::fs::read("/bin/sh").unwrap();
    assert_found(
        &[file("usr/bin/sh", 0o755, &shell)],
        &[(FindingCode::DeniedProgram, "/usr/bin/sh"), (FindingCode::UndeclaredProgram, "/usr/bin/sh")],
    );
    assert_found(
        &[file("usr/share/innocent", 0o644, &shell)],
        &[(FindingCode::UndeclaredProgram, "/usr/share/innocent")],
    );
    assert_found(&[link("usr/bin/perl", "git")], &[(FindingCode::DeniedProgram, "/usr/bin/perl")]);
}

#[test]
fn things_that_are_no_plain_files() {
    for kind in [tar::EntryType::Char, tar::EntryType::Fifo] {
        let plant = Plant { path: "usr/share/x", kind, mode: 0o644, content: Vec::new(), target: "" };
        assert_found(&[plant], &[(FindingCode::SpecialFile, "/usr/share/x")]);
    }
    let hard = Plant { kind: tar::EntryType::Link, ..link("usr/share/x", "etc/passwd") };
    assert_found(&[Plant { mode: 0o644, ..hard }], &[(FindingCode::SpecialFile, "/usr/share/x")]);
    assert_found(
        &[file("usr/share/.wh.zoneinfo", 0o644, b"")],
        &[(FindingCode::SpecialFile, "/usr/share/.wh.zoneinfo")],
    );
    assert_found(&[file("etc/passwd", 0o644, b"")], &[(FindingCode::BadPath, "/etc/passwd")]);
}

#[test]
fn mount_points_stay_empty_and_mentions_resolve() {
    assert_found(&[file("dev/null", 0o644, b"")], &[(FindingCode::MountPoint, "/dev")]);
    assert_found(
        &[file("usr/share/x", 0o644, b"open /usr/share/nowhere/at-all now")],
        &[(FindingCode::DanglingPath, "/usr/share/x")],
    );
}

#[test]
fn a_bomb_stops_at_the_budget() {
    let report = check_with(&[file("usr/share/x", 0o644, &vec![0; 401 << 20])]);
    assert!(report.findings.iter().any(|finding| finding.code == FindingCode::Budget), "{report}");
}

type Damage = fn(&Path);

#[test]
fn damaged_layouts_are_findings() {
    let spec = BundleSpec::built_in().unwrap();
    let copy = || {
        let folder = TempDir::new().unwrap();
        copy_folder(layout(), &folder.path().join("layout"));
        folder
    };
    let layer = manifest(layout())["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = format!("layout/blobs/sha256/{}", layer.strip_prefix("sha256:").unwrap());
    let cases: [(Damage, &str, FindingCode); 3] = [
        (
            |path| {
                let mut bytes = std::fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(path, bytes).unwrap();
            },
            &blob,
            FindingCode::Digest,
        ),
        (|path| std::fs::remove_file(path).unwrap(), &blob, FindingCode::Layout),
        (|path| std::fs::write(path, "{}").unwrap(), "layout/index.json", FindingCode::Layout),
    ];
    for (damage, path, code) in cases {
        let folder = copy();
        damage(&folder.path().join(path));
        let report = check_layout(&folder.path().join("layout"), &spec).unwrap();
        assert!(report.findings.iter().any(|finding| finding.code == code), "{report}");
    }
}

#[test]
fn the_same_faults_are_found_in_an_unpacked_root() {
    let spec = BundleSpec::built_in().unwrap();
    let root = unpack(layout());
    let at = |path: &str| root.path().join(path);
    symlink("/opt/elsewhere", at("usr/share/out")).unwrap();
    symlink("out", at("usr/share/hop")).unwrap();
    std::fs::write(at("usr/share/script"), "#!/usr/local/bin/python\n").unwrap();
    std::fs::set_permissions(at("usr/share/script"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::copy("/bin/sh", at("usr/bin/sh")).unwrap();
    std::os::unix::net::UnixListener::bind(at("usr/share/socket")).unwrap();
    std::fs::write(at("tmp/left"), "").unwrap();
    std::fs::remove_file(at("etc/nsswitch.conf")).unwrap();
    let report = check_directory(root.path(), &spec).unwrap();
    for (code, path) in [
        (FindingCode::LinkOutside, "/usr/share/out"),
        (FindingCode::LinkOutside, "/usr/share/hop"),
        (FindingCode::ShebangMissing, "/usr/share/script"),
        (FindingCode::Setuid, "/usr/share/script"),
        (FindingCode::DeniedProgram, "/usr/bin/sh"),
        (FindingCode::SpecialFile, "/usr/share/socket"),
        (FindingCode::MountPoint, "/tmp"),
        (FindingCode::RequiredMissing, "/etc/nsswitch.conf"),
    ] {
        assert!(
            report.findings.iter().any(|finding| finding.code == code && finding.path == path),
            "{code:?} {path} isn't in\n{report}"
        );
    }
}
