use std::os::unix::fs::MetadataExt as _;

use super::super::handmade::{Tar, gzip};
use super::super::walk;
use super::*;

fn unpack(bytes: &[u8], order: &Order) -> (tempfile::TempDir, Result<Extracted, Refusal>) {
    let outer = tempfile::tempdir().unwrap();
    fs_err::create_dir(outer.path().join("out")).unwrap();
    let directory = walk::open_directory(&outer.path().join("out")).unwrap();
    let result = extract(bytes, directory, order);
    (outer, result)
}

fn source() -> Order {
    Order::source(&SourceCaps { bytes: 1 << 20, entries: 100, depth: 6 })
}

/// Nothing but the directory itself may have been touched.
fn assert_nothing_outside(outer: &tempfile::TempDir, case: &str) {
    let names: Vec<_> =
        fs_err::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["out"], "{case}");
}

#[test]
fn a_good_source_comes_out_with_plain_modes_and_no_times() {
    let tar = Tar::new()
        .extended(b'g', &[("comment", "0123456789abcdef")])
        .directory("./", 0o700)
        .file_mode("./run.py", 0o750, b"print(1)")
        .directory("pkg/", 0o700)
        .file_mode("pkg/data", 0o600, b"x")
        .file("deep/er/file", b"y")
        .link("pkg/latest", "../run.py")
        .hard_link("twin", "pkg/data");
    for bytes in [tar.clone().end(), tar.gzip()] {
        let (outer, result) = unpack(&bytes, &source());
        let out = outer.path().join("out");
        let figures = result.unwrap().figures;
        assert_eq!((figures.entries, figures.files, figures.bytes), (8, 4, 11));
        for (path, mode) in
            [("", 0o755), ("run.py", 0o755), ("pkg", 0o755), ("pkg/data", 0o644), ("deep/er", 0o755)]
        {
            let found = fs_err::symlink_metadata(out.join(path)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (mode, 0), "{path}");
        }
        assert_eq!(fs_err::read_to_string(out.join("pkg/latest")).unwrap(), "print(1)");
        assert_eq!(walk::list(&out).unwrap().figures(), figures);
    }
}

#[test]
fn a_layer_keeps_its_modes_and_may_have_absolute_links() {
    let tar = Tar::new()
        .directory("tmp", 0o1777)
        .directory("closed", 0o500)
        .file_mode("closed/secret", 0o400, b"s")
        .link("lib", "/usr/lib");
    let bytes = tar.end();
    let (outer, result) = unpack(&bytes, &Order::layer());
    assert_eq!(result.unwrap().diff_id, Digest::of(&bytes));
    let out = outer.path().join("out");
    for (path, mode) in [("tmp", 0o1777), ("closed", 0o500), ("closed/secret", 0o400)] {
        assert_eq!(fs_err::symlink_metadata(out.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    assert_eq!(fs_err::read_link(out.join("lib")).unwrap().to_str(), Some("/usr/lib"));
    walk::remove_tree(&out).unwrap();
    assert!(!out.exists());
}

#[test]
fn hostile_entries_are_refused_and_nothing_is_written_outside() {
    let long = "d/".repeat(7) + "f";
    let cases: Vec<(&str, Tar, &str)> = vec![
        ("dotdot", Tar::new().file("../evil", b"x"), "`..`"),
        ("dotdot inside", Tar::new().file("a/../../evil", b"x"), "`..`"),
        ("absolute", Tar::new().file("/tmp/evil", b"x"), "absolute"),
        ("absolute by extension", Tar::new().extended(b'x', &[("path", "/evil")]).file("a", b""), "absolute"),
        ("dotdot by extension", Tar::new().extended(b'x', &[("path", "../evil")]).file("a", b""), "`..`"),
        (
            "dotdot by long name",
            Tar::new().raw(b"././@LongLink", b'L', 0o644, 8, b"", b"../evil\0").file("a", b""),
            "`..`",
        ),
        ("link out", Tar::new().link("a", "../x"), "leads out"),
        ("absolute link", Tar::new().link("a", "/etc/passwd"), "absolute name"),
        (
            "two-hop link",
            Tar::new().directory("d", 0o755).link("d/up", "..").link("a", "d/up/../x"),
            "leads out",
        ),
        ("link circle", Tar::new().link("a", "b").link("b", "a"), "leads out"),
        ("through a link", Tar::new().link("a", ".").file("a/f", b"x"), "through a link"),
        ("through a link made later", Tar::new().file("a/f", b"x").link("a", ".."), "twice"),
        ("link over a file", Tar::new().file("a", b"x").link("a", "b"), "twice"),
        ("hard link out", Tar::new().hard_link("a", "../x"), "leads out"),
        ("hard link absolute", Tar::new().hard_link("a", "/etc/passwd"), "leads out"),
        ("hard link to nothing", Tar::new().hard_link("a", "b"), "no file before"),
        ("hard link to a link", Tar::new().link("l", "f").hard_link("a", "l"), "no file before"),
        (
            "hard link through a link",
            Tar::new().file("d/f", b"").link("l", "d").hard_link("a", "l/f"),
            "no file before",
        ),
        ("character device", Tar::new().raw(b"a", b'3', 0o644, 0, b"", b""), "device"),
        ("block device", Tar::new().raw(b"a", b'4', 0o644, 0, b"", b""), "device"),
        ("fifo", Tar::new().raw(b"a", b'6', 0o644, 0, b"", b""), "named pipe"),
        ("unknown kind", Tar::new().raw(b"a", b'V', 0o644, 0, b"", b""), "unknown kind"),
        ("setuid", Tar::new().file_mode("a", 0o4755, b"x"), "setuid"),
        ("setgid directory", Tar::new().directory("a", 0o2755), "setuid"),
        ("twice", Tar::new().file("a", b"1").file("a", b"2"), "twice"),
        ("twice, spelt otherwise", Tar::new().file("a", b"1").file("./a", b"2"), "twice"),
        ("directory twice", Tar::new().directory("a", 0o755).directory("a", 0o755), "twice"),
        ("below a file", Tar::new().file("a", b"1").file("a/b", b"2"), "below a file"),
        ("not UTF-8", Tar::new().raw(b"a\xff", b'0', 0o644, 0, b"", b""), "UTF-8"),
        ("link to not UTF-8", Tar::new().raw(b"a", b'2', 0o644, 0, b"\xff", b""), "UTF-8"),
        ("newline", Tar::new().file("a\nb", b""), "control"),
        ("root as a file", Tar::new().file("./", b""), "root"),
        ("file with a directory's name", Tar::new().file("a/", b"x"), "name of a directory"),
        (
            "two sizes",
            Tar::new().extended(b'x', &[("size", "512")]).raw(b"a", b'0', 0o644, 0, b"", &[0; 512]),
            "two different sizes",
        ),
        (
            "extension twice",
            Tar::new().extended(b'x', &[("path", "a"), ("path", "b")]).file("c", b""),
            "twice",
        ),
        (
            "sparse by extension",
            Tar::new().extended(b'x', &[("GNU.sparse.major", "1")]).file("a", b""),
            "sparse",
        ),
        ("global path", Tar::new().extended(b'g', &[("path", "x")]).file("a", b""), "global"),
        ("directory with content", Tar::new().raw(b"a", b'5', 0o755, 1, b"", b"x"), "content"),
        ("too deep", Tar::new().file(&long, b""), "deep"),
        ("deletion mark", Tar::new().file("a/.wh.b", b""), "deletion mark"),
    ];
    for (case, tar, words) in cases {
        let (outer, result) = unpack(&tar.end(), &source());
        let refusal = result.expect_err(case);
        assert_eq!(refusal.code, RefusalCode::ArchiveEntryRefused, "{case}: {refusal:?}");
        assert!(refusal.message.contains(words), "{case}: {refusal:?}");
        assert_nothing_outside(&outer, case);
    }
}

#[test]
fn a_layer_that_deletes_is_refused_by_its_own_code() {
    for name in [".wh.a", "d/.wh..wh..opq"] {
        let (_outer, result) = unpack(&Tar::new().file(name, b"").end(), &Order::layer());
        assert_eq!(result.unwrap_err().code, RefusalCode::LayerWhiteoutNotSupported);
    }
}

#[test]
fn damaged_archives_are_told_from_whole_ones() {
    let good = Tar::new().file("a", &[7; 5000]);
    let zipped = good.clone().gzip();
    let mut flipped = zipped.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    let mut tail = good.clone().end();
    tail.extend_from_slice(b"more");
    let mut header = good.clone().end();
    header[0] ^= 1;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("text", b"hello, this is no archive at all".repeat(40)),
        ("zip", b"PK\x03\x04aaaaaaa".to_vec()),
        ("zstd", b"\x28\xb5\x2f\xfdaaaa".to_vec()),
        ("nothing inside", Tar::new().end()),
        ("no end mark", good.clone().cut()),
        ("cut in a file", good.clone().cut()[..1024].to_vec()),
        ("cut in a header", good.clone().cut()[..100].to_vec()),
        ("cut gzip", zipped[..zipped.len() - 9].to_vec()),
        ("gzip with a wrong sum", flipped),
        ("bytes behind the end", tail),
        ("header sum", header),
        ("extension without an entry", Tar::new().extended(b'x', &[("path", "a")]).end()),
    ];
    for (case, bytes) in cases {
        let (_outer, result) = unpack(&bytes, &source());
        assert_eq!(result.expect_err(case).code, RefusalCode::ArchiveNotReadable, "{case}");
    }
}

#[test]
fn what_is_too_much_is_refused_early() {
    let many = (0..101).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b""));
    let implied = (0..60).fold(Tar::new(), |tar, n| tar.file(&format!("d{n}/f"), b""));
    let bomb = gzip(&Tar::new().raw(b"a", b'0', 0o644, 64 << 20, b"", &vec![0; 64 << 20]).end());
    let mut wide = source();
    wide.caps.bytes = 128 << 20;
    let cases: Vec<(&str, Vec<u8>, Order)> = vec![
        ("entries", many.end(), source()),
        ("implied entries", implied.end(), source()),
        ("bytes by header", Tar::new().raw(b"a", b'0', 0o644, 2 << 20, b"", b"").end(), source()),
        (
            "bytes in sum",
            (0..3).fold(Tar::new(), |tar, n| tar.file(&format!("{n}"), &vec![1; 400_000])).end(),
            source(),
        ),
        (
            "size that overflows",
            Tar::new().raw(b"a", b'0', 0o644, 0o77_777_777_777, b"", b"").end(),
            source(),
        ),
        (
            "long name",
            Tar::new().raw(b"n", b'L', 0o644, 8 << 20, b"", &vec![b'a'; 8 << 20]).file("a", b"").end(),
            source(),
        ),
        ("ratio", bomb, wide),
    ];
    for (case, bytes, order) in cases {
        let (outer, result) = unpack(&bytes, &order);
        assert_eq!(result.expect_err(case).code, RefusalCode::SourceTooLarge, "{case}");
        assert_nothing_outside(&outer, case);
    }
}

#[test]
fn a_foreign_layer_may_delete_much_and_not_without_end() {
    let marks = |count: usize| (0..count).fold(Tar::new(), |tar, n| tar.file(&format!("d/.wh.{n}"), b""));
    let (_outer, result) = unpack(&marks(MOST_MARKS).end(), &Order::foreign());
    assert_eq!(result.unwrap().removed.len(), MOST_MARKS);
    let deep = "d".repeat(250) + "/";
    let long = (0..MARKS_BYTES / 3700).fold(Tar::new(), |tar, n| {
        let name = format!("{}.wh.{n}\0", deep.repeat(15));
        tar.raw(b"././@LongLink", b'L', 0o644, name.len() as u64, b"", name.as_bytes()).file("a", b"")
    });
    for (case, tar) in [("marks", marks(MOST_MARKS + 1)), ("names", long)] {
        let (_outer, result) = unpack(&tar.end(), &Order::foreign());
        let refusal = result.expect_err(case);
        assert_eq!(refusal.code, RefusalCode::SourceTooLarge, "{case}");
        assert!(refusal.message.contains("too many deletion marks"), "{case}: {refusal:?}");
    }
}
