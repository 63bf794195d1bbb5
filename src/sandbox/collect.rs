//! Taking what a run left in an output directory.
//!
//! Called only when every process of the run is gone, so nothing changes under us. What comes is hostile still: it
//! is reached by descriptors, no link is followed, and only plain files and directories are copied, into new ones
//! of ours, without attributes and special bits, within caps, hashed as they are stored.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::SandboxError;
use super::outcome::{OutputCap, SkipReason, SkippedEntry, TakenFile, TakenOutput};
use super::policy::OutputDir;
use crate::names::hex;

const MOST_SKIPPED: usize = 100;
/// Every level holds two descriptors.
const DEEPEST: u32 = 64;

/// Copies a directory of the host that nobody writes to any more, as what a run has left is copied.
///
/// # Errors
/// `SandboxError::Output` where the copy can't be written, or its target exists already.
pub fn take_output(from: &std::path::Path, spec: &OutputDir) -> Result<TakenOutput, SandboxError> {
    let failed = |errno: Errno| SandboxError::Output { into: spec.into.clone(), source: errno.into() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(CWD, from, flags, Mode::empty()).map_err(failed)?;
    take(&from, spec)
}

/// Copies the directory behind `from` to the host.
pub(crate) fn take(from: &OwnedFd, spec: &OutputDir) -> Result<TakenOutput, SandboxError> {
    let failed = |source: std::io::Error| SandboxError::Output { into: spec.into.clone(), source };
    std::fs::DirBuilder::new().mode(0o700).create(&spec.into).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let into =
        rustix::fs::openat(CWD, &spec.into, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let mut taker = Taker {
        spec,
        entries: 0,
        taken: TakenOutput {
            at: spec.at.clone(),
            into: spec.into.clone(),
            files: Vec::new(),
            bytes: 0,
            skipped: Vec::new(),
            over_cap: None,
        },
    };
    match rustix::fs::openat(from, ".", flags, Mode::empty()) {
        Ok(top) => match taker.directory(&top, &into, "", 1) {
            Ok(()) | Err(Stop::OverCap) => {}
            Err(Stop::Failed(source)) => return Err(failed(source)),
        },
        Err(_) => taker.skip(".", SkipReason::Unreadable),
    }
    taker.taken.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(taker.taken)
}

enum Stop {
    OverCap,
    Failed(std::io::Error),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

struct Taker<'a> {
    spec: &'a OutputDir,
    entries: u64,
    taken: TakenOutput,
}

impl Taker<'_> {
    fn skip(&mut self, path: &str, why: SkipReason) {
        if self.taken.skipped.len() < MOST_SKIPPED {
            self.taken.skipped.push(SkippedEntry { path: path.to_owned(), why });
        }
    }

    fn over(&mut self, cap: OutputCap) -> Stop {
        self.taken.over_cap = Some(cap);
        Stop::OverCap
    }

    fn directory(&mut self, from: &OwnedFd, into: &OwnedFd, prefix: &str, depth: u32) -> Result<(), Stop> {
        let mut names = Vec::new();
        for entry in read_kept_from_us(from)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                self.entries += 1;
                if self.entries > self.spec.max_files {
                    return Err(self.over(OutputCap::Files));
                }
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let path = format!("{prefix}{}", name.to_string_lossy());
            let Some(name) = name.to_str().ok().filter(|name| !name.chars().any(char::is_control)) else {
                self.skip(&path.escape_debug().to_string(), SkipReason::Name);
                continue;
            };
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.subdirectory(from, into, name, &path, depth)?,
                FileType::RegularFile => self.file(from, into, name, &path)?,
                FileType::Symlink => self.skip(&path, SkipReason::Link),
                _ => self.skip(&path, SkipReason::Special),
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        name: &str,
        path: &str,
        depth: u32,
    ) -> Result<(), Stop> {
        if depth >= self.spec.max_depth.min(DEEPEST) {
            return Err(self.over(OutputCap::Depth));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(inner) = open_kept_from_us(from, name, flags, 0o700) else {
            self.skip(path, SkipReason::Unreadable);
            return Ok(());
        };
        rustix::fs::mkdirat(into, name, Mode::from_raw_mode(0o755))?;
        let copy = rustix::fs::openat(into, name, flags, Mode::empty())?;
        self.directory(&inner, &copy, &format!("{path}/"), depth + 1)
    }

    fn file(&mut self, from: &OwnedFd, into: &OwnedFd, name: &str, path: &str) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some(source) = open_kept_from_us(from, name, flags, 0o600) else {
            self.skip(path, SkipReason::Unreadable);
            return Ok(());
        };
        let stat = rustix::fs::fstat(&source)?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        // Holes count as bytes: that is what a copy of them is.
        if size > self.spec.max_bytes.saturating_sub(self.taken.bytes) {
            return Err(self.over(OutputCap::Bytes));
        }
        let mode = if stat.st_mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let make = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(into, name, make, Mode::from_raw_mode(mode))?;
        let (bytes, sha256) = store(source, copy, size).map_err(Stop::Failed)?;
        self.taken.bytes += bytes;
        self.taken.files.push(TakenFile { path: path.to_owned(), bytes, sha256 });
        Ok(())
    }
}

/// Opens what its owner may have closed: without root we are that owner, and can open it up again.
fn open_kept_from_us(parent: &OwnedFd, name: &str, flags: OFlags, mode: u32) -> Option<OwnedFd> {
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty()).ok()?;
            rustix::fs::openat(parent, name, flags, Mode::empty()).ok()
        }
        other => other.ok(),
    }
}

/// Reads a directory that its owner may have made readable and not searchable: that too we can undo.
fn read_kept_from_us(directory: &OwnedFd) -> Result<Dir, Errno> {
    match Dir::read_from(directory) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(directory, Mode::from_raw_mode(0o700))?;
            Dir::read_from(directory)
        }
        other => other,
    }
}

/// Copies at most `size` bytes; says how many and what they hash to.
fn store(source: OwnedFd, copy: OwnedFd, size: u64) -> std::io::Result<(u64, String)> {
    let mut source = std::fs::File::from(source).take(size);
    let mut copy = std::fs::File::from(copy);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        copy.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
    Ok((bytes, hex(&hash.finalize())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use fs_err as fs;

    use super::*;

    fn spec(into: &Path) -> OutputDir {
        OutputDir {
            at: "/output".into(),
            size_bytes: 1 << 20,
            inodes: 100,
            into: into.to_owned(),
            max_files: 10,
            max_bytes: 1000,
            max_depth: 3,
        }
    }

    fn run(
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut OutputDir),
    ) -> (tempfile::TempDir, TakenOutput) {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fill(&from);
        let mut spec = spec(&dir.path().join("into"));
        change(&mut spec);
        let fd = rustix::fs::openat(CWD, &from, OFlags::PATH, Mode::empty()).unwrap();
        let taken = take(&fd, &spec).unwrap();
        (dir, taken)
    }

    #[test]
    fn files_are_copied_without_special_bits_and_hashed() {
        let (dir, taken) = run(
            |from| {
                fs::create_dir(from.join("sub")).unwrap();
                fs::write(from.join("sub/b"), "abc").unwrap();
                fs::set_permissions(from.join("sub/b"), std::fs::Permissions::from_mode(0o6755)).unwrap();
                fs::write(from.join("a"), "").unwrap();
            },
            |_| {},
        );
        let paths: Vec<_> = taken.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a", "sub/b"]);
        assert_eq!(taken.files[1].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let copied = fs::metadata(dir.path().join("into/sub/b")).unwrap().permissions().mode();
        assert_eq!(copied & 0o7777, 0o755);
        assert_eq!(taken.over_cap, None);
    }

    #[test]
    fn links_fifos_and_bad_names_stay_behind() {
        let (dir, taken) = run(
            |from| {
                symlink("/etc/passwd", from.join("link")).unwrap();
                symlink("/etc", from.join("dirlink")).unwrap();
                rustix::fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .unwrap();
                fs::write(from.join("bad\nname"), "x").unwrap();
            },
            |_| {},
        );
        assert!(taken.files.is_empty());
        let why: Vec<_> = taken.skipped.iter().map(|entry| entry.why).collect();
        assert_eq!(why, [SkipReason::Name, SkipReason::Link, SkipReason::Special, SkipReason::Link]);
        assert_eq!(fs::read_dir(dir.path().join("into")).unwrap().count(), 0);
    }

    #[test]
    fn caps_end_the_copying_and_are_named() {
        let many = |from: &Path| (0..11).for_each(|n| fs::write(from.join(n.to_string()), "x").unwrap());
        assert_eq!(run(many, |_| {}).1.over_cap, Some(OutputCap::Files));
        assert_eq!(run(many, |spec| spec.max_files = 11).1.over_cap, None);
        let sparse = |from: &Path| fs::File::create(from.join("s")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(run(sparse, |_| {}).1.over_cap, Some(OutputCap::Bytes));
        let deep = |from: &Path| fs::create_dir_all(from.join("a/b/c")).unwrap();
        assert_eq!(run(deep, |_| {}).1.over_cap, Some(OutputCap::Depth));
        assert_eq!(run(deep, |spec| spec.max_depth = 4).1.over_cap, None);
    }

    #[test]
    fn an_existing_target_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::openat(CWD, dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        assert!(matches!(take(&fd, &spec(dir.path())), Err(SandboxError::Output { .. })));
    }
}
