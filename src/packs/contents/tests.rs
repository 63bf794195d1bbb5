use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn layer(dir: &Path) -> Result<(Vec<u8>, LayerDigests), PackError> {
    let mut bytes = Vec::new();
    let digests = Contents::of(dir)?.write(&mut bytes, "opt/app")?;
    Ok((bytes, digests))
}

fn chmod(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The same content, made in the given order with the given modes and times.
fn make(order: &[&str], mode: u32, time: i64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in order {
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, name.as_bytes()).unwrap();
        chmod(&path, mode | if name.contains("x.sh") { 0o100 } else { 0 });
        let at = rustix::fs::Timespec { tv_sec: time, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty()).unwrap();
    }
    symlink("b/x.sh", dir.path().join("link")).unwrap();
    chmod(&dir.path().join("b"), 0o700 | mode & 0o77);
    dir
}

#[test]
fn only_what_counts_gets_into_the_digest() {
    let one = make(&["a", "b/x.sh", "b-c", "z"], 0o644, 1_000);
    let two = make(&["z", "b-c", "b/x.sh", "a"], 0o600, 2_000_000_000);
    let (bytes, digests) = layer(one.path()).unwrap();
    assert_eq!(layer(two.path()).unwrap(), (bytes, digests.clone()));
    chmod(&two.path().join("a"), 0o755);
    assert_ne!(layer(two.path()).unwrap().1, digests, "an execute bit counts");
}

#[test]
fn entries_come_sorted_below_their_place_and_owned_by_root() {
    let dir = make(&["b/x.sh", "b-c", "a"], 0o664, 5);
    let (bytes, _) = layer(dir.path()).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let found: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            format!("{} {:o}", entry.path().unwrap().display(), header.mode().unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            "opt/ 755",
            "opt/app/ 755",
            "opt/app/a 644",
            "opt/app/b/ 755",
            "opt/app/b-c 644",
            "opt/app/b/x.sh 755",
            "opt/app/link 777"
        ]
    );
}

#[test]
fn what_a_pack_may_not_hold_is_refused_by_name() {
    type Case = (&'static str, fn(&Path));
    let cases: [Case; 8] = [
        ("leads out", |dir| symlink("../x", dir.join("l")).unwrap()),
        ("leads out", |dir| {
            fs_err::create_dir(dir.join("d")).unwrap();
            symlink("..", dir.join("d/up")).unwrap();
            symlink("d/up/../x", dir.join("l")).unwrap();
        }),
        ("absolute", |dir| symlink("/etc/passwd", dir.join("l")).unwrap()),
        ("deletion", |dir| fs_err::write(dir.join(".wh.a"), b"").unwrap()),
        ("control", |dir| fs_err::write(dir.join("a\nb"), b"").unwrap()),
        ("UTF-8", |dir| {
            let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
            fs_err::write(dir.join(name), b"").unwrap();
        }),
        ("setuid", |dir| {
            fs_err::write(dir.join("a"), b"").unwrap();
            chmod(&dir.join("a"), 0o4755);
        }),
        ("neither", |dir| {
            rustix::fs::mknodat(rustix::fs::CWD, dir.join("p"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
    ];
    for (words, prepare) in cases {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let error = layer(dir.path()).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_eq!(error.code(), "pack_content_refused");
    }
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path(), dir.path().join("way")).unwrap();
    assert!(layer(&dir.path().join("way")).is_err(), "the directory itself may not be a link");
}
