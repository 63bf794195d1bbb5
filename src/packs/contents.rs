//! A directory as the content of a layer.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::rootfs::{LayerDigests, LayerWriter};
use crate::trees::{Target, leaves_root};

use super::error::PackError;

const ENTRIES_CAP: u64 = 200_000;
const DEPTH_CAP: usize = 64;

/// What a directory holds at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Directory,
    File { executable: bool, size: u64 },
    Link(String),
}

/// The content of a directory, sorted, before any byte of its files is read.
pub(crate) struct Contents {
    root: OwnedFd,
    /// Path below the directory.
    entries: Vec<(String, Found)>,
}

fn io(path: &str) -> impl FnOnce(Errno) -> PackError {
    let path = path.to_owned();
    move |errno| {
        let source = std::io::Error::from(errno);
        PackError::Io(std::io::Error::new(source.kind(), format!("failed to read `{path}`: {source}")))
    }
}

fn refuse(path: &str, why: &'static str) -> PackError {
    PackError::Content { path: path.into(), why }
}

impl Contents {
    /// Lists a directory, refusing what a pack may not hold.
    pub(crate) fn of(dir: &Path) -> Result<Self, PackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(io(&dir.display().to_string()))?;
        let mut entries = Vec::new();
        gather(&root, "", 0, &mut entries)?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let links: HashMap<&str, &str> = entries
            .iter()
            .filter_map(|(path, found)| match found {
                Found::Link(target) => Some((path.as_str(), target.as_str())),
                _ => None,
            })
            .collect();
        let look = |at: &str| links.get(at).map_or(Target::Other, |target| Target::Link(target));
        if let Some(path) = links.keys().find(|path| leaves_root(path, &look)) {
            return Err(refuse(path, "the link leads out of its directory, or in circles"));
        }
        Ok(Self { root, entries })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes everything as one layer, below `prefix` (`opt/app`).
    pub(crate) fn write<W: Write>(&self, out: W, prefix: &str) -> Result<LayerDigests, PackError> {
        let mut layer = LayerWriter::new(out);
        for (at, _) in prefix.match_indices('/') {
            layer.directory(&prefix[..at], 0o755)?;
        }
        layer.directory(prefix, 0o755)?;
        for (path, found) in &self.entries {
            let place = format!("{prefix}/{path}");
            match found {
                Found::Directory => layer.directory(&place, 0o755)?,
                Found::Link(target) => layer.symlink(&place, target)?,
                Found::File { executable, size } => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                    let inside = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                    let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside)
                        .map_err(io(path))?;
                    let stat = rustix::fs::fstat(&file).map_err(io(path))?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                        return Err(refuse(path, "it changed while it was packed"));
                    }
                    let mode = if *executable { 0o755 } else { 0o644 };
                    layer.file(&place, mode, *size, &mut std::fs::File::from(file))?;
                }
            }
        }
        let (_, digests) = layer.finish()?;
        Ok(digests)
    }
}

fn gather(
    directory: &OwnedFd,
    prefix: &str,
    depth: usize,
    entries: &mut Vec<(String, Found)>,
) -> Result<(), PackError> {
    if depth > DEPTH_CAP {
        return Err(refuse(prefix, "it lies more than 64 directories deep"));
    }
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut listing = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        names.push(entry.map_err(io(prefix))?.file_name().to_owned());
    }
    for name in names {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let shown =
            if prefix.is_empty() { String::new() } else { format!("{prefix}/") } + &name.to_string_lossy();
        let text = name.to_str().map_err(|_| refuse(&shown, "its name is not UTF-8"))?;
        if text.chars().any(char::is_control) {
            return Err(refuse(&shown, "its name has a control character"));
        }
        if text.starts_with(".wh.") {
            return Err(refuse(&shown, "its name marks a deletion in a layer"));
        }
        if entries.len() as u64 >= ENTRIES_CAP {
            return Err(PackError::TooMuch { what: "entries", cap: ENTRIES_CAP });
        }
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(io(&shown))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_mode & 0o6000 != 0 && kind == FileType::RegularFile {
            return Err(refuse(&shown, "it has a setuid or setgid bit"));
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below =
                    rustix::fs::openat(directory.as_fd(), &name, flags, Mode::empty()).map_err(io(&shown))?;
                entries.push((shown.clone(), Found::Directory));
                gather(&below, &shown, depth + 1, entries)?;
            }
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                entries.push((shown, Found::File { executable: stat.st_mode & 0o100 != 0, size }));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, &name, Vec::new()).map_err(io(&shown))?;
                let target = target.into_string().map_err(|_| refuse(&shown, "its target is not UTF-8"))?;
                if target.starts_with('/') {
                    return Err(refuse(&shown, "the link leads to an absolute path"));
                }
                entries.push((shown, Found::Link(target)));
            }
            _ => return Err(refuse(&shown, "it is neither a file nor a directory nor a link")),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
