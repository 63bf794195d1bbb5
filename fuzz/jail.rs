//! What meets hostile bytes around the jail: the policy decoder, the copier of outputs, the extractor of archives.
//!
//! Inputs of the last two are scripts, by which a tree or an archive is made that a random string would never be.
#![allow(clippy::unnecessary_debug_formatting)] // Names are hostile: escaped, they can be told apart.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use pantry::names::Digest;
use pantry::sandbox::{OutputDir, Policy, SeccompProfile, take_output};
use pantry::trees::{SourceCaps, extract_unconfined};

/// Policies: what is decoded is written back as it was, and what passes the check asks for nothing impossible.
pub fn policies(input: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<Policy>(input) else { return };
    let written = serde_json::to_vec(&policy).expect("a policy is plain data");
    assert_eq!(serde_json::from_slice::<Policy>(&written).ok().as_ref(), Some(&policy));
    if policy.check().is_err() {
        return;
    }
    assert!(policy.argv[0].starts_with('/'), "{:?}", policy.argv);
    let texts = policy.argv.iter().chain(policy.env.keys()).chain(policy.env.values());
    assert!(texts.clone().all(|text| !text.contains('\0')));
    assert!(texts.map(String::len).sum::<usize>() <= 1 << 20);
    assert!(policy.env.keys().all(|name| !name.is_empty() && !name.contains('=')));
    assert!(policy.limits.wall_ms > 0 || policy.profile == SeccompProfile::Command);
    assert!(policy.limits.memory_bytes > 0 && policy.limits.processes > 0 && policy.limits.open_files > 0);
    assert!(policy.identity.host_base != Some(0) && policy.identity.uid != u32::MAX);
    assert!(policy.identity.host_group != Some(0));
    let mut places: Vec<&Path> = policy.inputs.iter().map(|input| input.at.as_path()).collect();
    places.extend(policy.tmpfs.iter().map(|tmpfs| tmpfs.at.as_path()));
    places.extend(policy.data.iter().map(|data| data.at.as_path()));
    places.extend(policy.outputs.iter().map(|output| output.at.as_path()));
    for place in &places {
        let text = place.as_os_str().as_bytes();
        let mut parts = text.split(|byte| *byte == b'/');
        assert_eq!(parts.next(), Some(&b""[..]), "{place:?} begins at the root");
        let parts: Vec<&[u8]> = parts.collect();
        assert!(
            parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..") && !part.contains(&0)),
            "{place:?}"
        );
        assert!(!matches!(parts[0], b"proc" | b"dev" | b"sys"), "{place:?} is the jail's own");
        assert_eq!(places.iter().filter(|other| *other == place).count(), 1, "{place:?} twice");
    }
    let scratch = policy.tmpfs.iter().map(|tmpfs| (tmpfs.size_bytes, tmpfs.inodes));
    let outputs = policy.outputs.iter().map(|output| (output.size_bytes, output.inodes));
    assert!(scratch.chain(outputs).all(|(bytes, inodes)| bytes > 0 && inodes > 0), "0 is without limit");
}

/// Reads a script byte by byte; behind its end there are zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// As many bytes as the next one says, `most` at most.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (these, rest) = self.0.split_at(length);
        self.0 = rest;
        these
    }
}

/// What lies below a directory, by path; no link is followed.
fn below(top: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("what was made can be read") {
            let path = entry.expect("what was made can be read").path();
            let metadata = path.symlink_metadata().expect("what was made is there");
            if metadata.is_dir() {
                open.push(path.clone());
            }
            found.push((path, metadata));
        }
    }
    found
}

/// Makes a tree by a script: each step is a kind, a name, and content. Names are raw but for `/` and NUL.
fn make_tree(top: &Path, script: &mut Script<'_>) {
    let mut here = top.to_owned();
    for _ in 0..64 {
        if script.0.is_empty() {
            return;
        }
        let kind = script.byte();
        let name: Vec<u8> = script
            .bytes(255)
            .iter()
            .map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { *byte })
            .collect();
        if name.is_empty() || name == b"." || name == b".." {
            continue;
        }
        let path = here.join(std::ffi::OsStr::from_bytes(&name));
        // What can't be made, for a name that is there or too long, is left out.
        let _made = match kind % 8 {
            0 => fs::create_dir(&path).map(|()| here.clone_from(&path)),
            1 => File::create_new(&path).and_then(|mut file| file.write_all(script.bytes(255))),
            2 => symlink(std::ffi::OsStr::from_bytes(&[&b"../"[..], script.bytes(64)].concat()), &path),
            3 => UnixListener::bind(&path).map(drop),
            // Links are followed by this, and could lead anywhere.
            4 if path.is_symlink() => Ok(()),
            4 => fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(script.byte()) << 4)),
            5 => File::create_new(&path)
                .and_then(|file| file.set_len(u64::from(script.byte()) << script.byte().min(40))),
            6 => fs::read_link(&path)
                .or_else(|_| fs::hard_link(&path, here.join("linked")).map(|()| path))
                .map(drop),
            _ => {
                here = if here == top { here } else { here.parent().unwrap_or(top).to_owned() };
                Ok(())
            }
        };
    }
}

/// Opens up what the script has shut, so that it can be removed.
fn open_up(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("it is ours");
    for entry in fs::read_dir(dir).expect("it is open now").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Outputs: the first four bytes are the caps, the rest is a script of what a run left.
pub fn outputs(input: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&from).expect("a directory");
    fs::write(dir.path().join("outside"), "outside").expect("a file");
    let mut script = Script(input);
    let spec = OutputDir {
        at: "/output".into(),
        size_bytes: 1 << 20,
        inodes: 100,
        into: into.clone(),
        max_files: u64::from(script.byte()),
        max_bytes: u64::from(script.byte()) << (script.byte() % 12),
        max_depth: u32::from(script.byte() % 16),
    };
    make_tree(&from, &mut script);
    let taken = take_output(&from, &spec).expect("a new target in a directory of ours");
    open_up(&from);
    let mut stored: Vec<String> = Vec::new();
    for (path, metadata) in below(&into) {
        let name = path.strip_prefix(&into).expect("below it");
        let name = name.to_str().unwrap_or_else(|| panic!("{name:?} is no text"));
        assert!(!name.chars().any(char::is_control), "{name:?}");
        assert!(name.split('/').count() <= spec.max_depth.max(1) as usize, "{name:?} is too deep");
        assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{name:?} has a special bit");
        assert!(
            metadata.is_dir() || metadata.is_file() && metadata.nlink() == 1,
            "{name:?} is no plain file"
        );
        if metadata.is_file() {
            stored.push(name.to_owned());
        }
    }
    stored.sort();
    let listed: Vec<&str> = taken.files.iter().map(|file| file.path.as_str()).collect();
    // Where a cap ended the copying, nothing is left half either.
    assert_eq!(listed, stored);
    assert!(listed.len() as u64 <= spec.max_files && taken.bytes <= spec.max_bytes);
    for file in &taken.files {
        let content = fs::read(into.join(&file.path)).expect("it was listed");
        assert_eq!(
            (file.bytes, format!("sha256:{}", file.sha256)),
            (content.len() as u64, Digest::of(&content).to_string())
        );
    }
    assert_eq!(taken.bytes, taken.files.iter().map(|file| file.bytes).sum::<u64>());
    assert!(taken.skipped.iter().all(|entry| !entry.path.chars().any(char::is_control)));
    assert_eq!(fs::read(dir.path().join("outside")).expect("it is there"), b"outside");
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 3);
}

/// A tar by a script: each entry has a kind, a mode, a name, a target and content, and a checksum that fits.
fn make_archive(script: &mut Script<'_>) -> Vec<u8> {
    const KINDS: &[u8] = b"0152346789LKxgSV\0";
    let mut archive = Vec::new();
    for _ in 0..64 {
        if script.0.is_empty() {
            break;
        }
        let kind = KINDS[usize::from(script.byte()) % KINDS.len()];
        let mode = u32::from(script.byte()) << 4 | u32::from(kind & 7);
        let (name, target, content) = (script.bytes(100), script.bytes(100), script.bytes(255));
        // One length in eight is a lie.
        let size = if script.byte() % 8 == 7 { usize::from(script.byte()) << 9 } else { content.len() };
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        header[108..124].copy_from_slice(b"0000000\x000000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"14000000000\0");
        header[148..156].fill(b' ');
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target);
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Whether a link, with all that it leads over, stays below `top`.
fn stays_inside(top: &Path, link: &Path) -> bool {
    let mut here = link.parent().unwrap_or(top).to_owned();
    let mut left: Vec<PathBuf> = vec![fs::read_link(link).expect("it is a link")];
    for _ in 0..1000 {
        let Some(path) = left.pop() else { return true };
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        left.push(parts.as_path().to_owned());
        match part {
            Component::Normal(name) => {
                let next = here.join(name);
                match fs::read_link(&next) {
                    Ok(target) => left.push(target),
                    Err(_) => here = next,
                }
            }
            Component::ParentDir if here == top => return false,
            Component::ParentDir => here = here.parent().unwrap_or(top).to_owned(),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    // Round and round, but never out.
    true
}

/// Archives: after an even byte the rest is one, after an odd one it is the script of one.
pub fn archives(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let made = if choice % 2 == 0 { rest.to_vec() } else { make_archive(&mut Script(rest)) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let into = dir.path().join("into");
    fs::create_dir(&into).expect("a directory");
    let caps = SourceCaps { bytes: 64 << 10, entries: 40, depth: 6 };
    let unpacked = extract_unconfined(made.as_slice(), &into, &caps);
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1, "something was made outside");
    let Ok(entries) = unpacked else { return };
    let found = below(&into);
    assert!(entries > 0 && found.len() as u64 <= caps.entries, "{} entries", found.len());
    let mut bytes = 0;
    for (path, metadata) in found {
        let name = path.strip_prefix(&into).expect("below it");
        assert!(name.components().count() <= caps.depth as usize, "{name:?} is too deep");
        assert!(name.to_str().is_some_and(|name| !name.chars().any(char::is_control)), "{name:?}");
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_symlink() {
            assert!(stays_inside(&into, &path), "{name:?} leads out");
        } else if metadata.is_dir() {
            assert_eq!(mode, 0o755, "{name:?}");
        } else {
            assert!(metadata.is_file() && matches!(mode, 0o644 | 0o755), "{name:?} has {mode:o}");
            bytes += metadata.len();
        }
    }
    assert!(bytes <= caps.bytes.saturating_mul(caps.entries), "{bytes} bytes");
}
