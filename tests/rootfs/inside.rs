//! The root at work: its programs run in it, with nothing of the host in sight.

use std::path::Path;
use std::process::{Command, Output};

use pantry::rootfs::{BundleSpec, trace_host};
use tempfile::TempDir;

use crate::bench::{layout, unpack};

/// Enters a root with nothing of the host in it but two devices.
const ENTER: &str = "mount -t tmpfs none \"$0/dev\" && for device in null urandom; do \
                     : > \"$0/dev/$device\" && mount --bind \"/dev/$device\" \"$0/dev/$device\" || exit 99; done \
                     && exec chroot \"$0\" \"$@\"";

/// Runs a program inside, or tells why it can't.
fn inside(root: &Path, arguments: &[&str]) -> Option<Output> {
    let run = |arguments: &[&str]| {
        Command::new("unshare")
            .args(["-Urm", "sh", "-c", ENTER])
            .arg(root)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/tmp")
            .output()
    };
    if !run(&["/usr/bin/python3", "-V"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: this machine lets nobody enter a root of his own (user namespaces)");
        return None;
    }
    Some(run(arguments).unwrap())
}

fn works(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = inside(root, arguments)?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn python_has_all_that_elf_does_not_tell() {
    let root = unpack(layout());
    let program = "
import bz2, ctypes, curses, decimal, hashlib, json, locale, lzma, mimetypes, pwd, readline, socket, sqlite3, ssl, sys
import sysconfig, threading, unittest, uuid, venv, zlib, zoneinfo, datetime, os, asyncio, email, http.client
assert locale.setlocale(locale.LC_ALL, '') == 'C.UTF-8', locale.setlocale(locale.LC_ALL)
assert datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).utcoffset().total_seconds() == 7200
assert len(ssl.create_default_context().get_ca_certs()) > 100
assert pwd.getpwuid(65532).pw_name == 'pantry'
assert mimetypes.guess_type('x.epub')[0] == 'application/epub+zip'
curses.setupterm('xterm-256color', 1)
assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)
assert hashlib.new('sha3_256', b'x') and lzma.compress(b'x') and zlib.crc32(b'x')
ctypes.CDLL('libstdc++.so.6'); ctypes.CDLL('libgcc_s.so.1')
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
assert socket.getaddrinfo('localhost', 80)
assert sysconfig.get_paths()['stdlib'].startswith('/usr/lib/python3')
assert not os.path.exists('/bin/sh')
print(json.__cached__, json.dumps.__code__.co_filename)
";
    let Some(printed) = works(root.path(), &["/usr/bin/python3", "-W", "error", "-c", program]) else {
        return;
    };
    let (cached, compiled_from) = printed.trim().split_once(' ').unwrap();
    assert!(compiled_from.starts_with("/usr/lib/python3") && compiled_from.ends_with("/json/__init__.py"));
    // Compiled files are taken as they are: bit 0 of the flags says by hash, bit 1 clear says not compared.
    let pyc = std::fs::read(root.path().join(&cached[1..])).unwrap();
    assert_eq!(pyc[4..8], [1, 0, 0, 0]);
}

#[test]
fn nothing_is_compiled_anew_inside() {
    let root = unpack(layout());
    let program = "import json, email, sqlite3, unittest, asyncio, os
written = [os.path.join(f, n) for f, _, names in os.walk('/usr/lib') for n in names
           if n.endswith('.pyc') and os.stat(os.path.join(f, n)).st_mtime != 0]
assert not written, written";
    works(root.path(), &["/usr/bin/python3", "-c", program]);
}

#[test]
fn git_makes_and_clones_a_repository() {
    let root = unpack(layout());
    let git = |arguments: &[&str]| {
        let mut all = vec!["/usr/bin/git", "-c", "user.name=A", "-c", "user.email=a@localhost"];
        all.extend(arguments);
        works(root.path(), &all)
    };
    if git(&["init", "-q", "-b", "main", "/tmp/one"]).is_none() {
        return;
    }
    std::fs::write(root.path().join("tmp/one/file"), "text").unwrap();
    git(&["-C", "/tmp/one", "add", "file"]);
    git(&["-C", "/tmp/one", "commit", "-q", "-m", "A file"]);
    // From a bundle file: git starts the other side of a local clone through a shell, and there is none.
    git(&["-C", "/tmp/one", "bundle", "create", "-q", "/tmp/one.bundle", "HEAD", "main"]);
    git(&["clone", "-q", "/tmp/one.bundle", "/tmp/two"]);
    assert_eq!(std::fs::read_to_string(root.path().join("tmp/two/file")).unwrap(), "text");
    // The https helper starts and gets as far as there being nobody at the other end.
    let refused = inside(root.path(), &["/usr/bin/git", "ls-remote", "https://127.0.0.1:1/x"]).unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("127.0.0.1") && !text.contains("remote helper"), "{text}");
}

#[test]
fn what_the_programs_open_is_in_the_root() {
    let root = unpack(layout());
    let scratch = TempDir::new().unwrap();
    match trace_host(root.path(), scratch.path(), &BundleSpec::built_in().unwrap()).unwrap() {
        None => println!("skipped: strace isn't installed"),
        Some(report) => assert!(report.findings.is_empty() && report.opened > 100, "{report}"),
    }
}
