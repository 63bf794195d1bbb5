//! The layers of a root, and the mount points that they lack.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::libc;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Kind, point};
use crate::sandbox::error::{Fault, Step};

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The open directories of a root, top layer first.
pub(super) struct Layers {
    top_first: Vec<OwnedFd>,
}

/// A mount point to make: its components with the mode of each directory.
pub(super) struct Missing {
    path: PathBuf,
    kind: Kind,
    components: Vec<(OsString, Mode)>,
}

/// What a component is in the merged view.
enum Found {
    /// A directory, as it is in each layer that has it, with the mode of the topmost.
    Directory(Vec<OwnedFd>, Mode),
    File,
    Nothing,
}

impl Layers {
    /// Opens the layers, given bottom first.
    pub(super) fn open(bottom_first: &[PathBuf]) -> Result<Self, Fault> {
        let top_first = bottom_first
            .iter()
            .rev()
            .map(|path| {
                rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).step_at("open the root layer", path)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let layers = Self { top_first };
        // What these are must not depend on where a link of the tree leads (CVE-2026-41579).
        for name in ["dev", "proc", "sys", "tmp"] {
            if matches!(merged(&layers.top_first, name.as_ref()), Err(_) | Ok(Found::File)) {
                let step = format!("take the root: its /{name} is no real directory");
                return Err(Fault { step, errno: libc::ENOTDIR });
            }
        }
        Ok(layers)
    }

    pub(super) fn top_first(&self) -> impl Iterator<Item = &OwnedFd> {
        self.top_first.iter()
    }

    /// Which of the mount points no layer has.
    pub(super) fn missing(&self, points: &[(PathBuf, Kind)]) -> Result<Vec<Missing>, Fault> {
        let mut missing = Vec::new();
        for (path, kind) in points {
            if let Some(components) = self.lacks(path, *kind).step_at("place the mount point", path)? {
                missing.push(Missing { path: path.clone(), kind: *kind, components });
            }
        }
        Ok(missing)
    }

    fn lacks(&self, path: &Path, kind: Kind) -> Result<Option<Vec<(OsString, Mode)>>, Errno> {
        let mut here: Vec<OwnedFd> = Vec::new();
        let mut components = Vec::new();
        let mut absent = false;
        let names: Vec<OsString> = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .map(|part| part.as_os_str().to_owned())
            .collect();
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let mut mode = Mode::from_raw_mode(0o755);
            if !absent {
                let found = merged(if index == 0 { &self.top_first } else { &here }, name)?;
                match found {
                    Found::Directory(next, real) if !last || kind == Kind::Directory => {
                        (here, mode) = (next, real);
                    }
                    Found::File if last && kind == Kind::File => {}
                    Found::Directory(..) => return Err(Errno::ISDIR),
                    Found::File => return Err(Errno::NOTDIR),
                    Found::Nothing => absent = true,
                }
            }
            components.push((name.clone(), mode));
        }
        Ok(absent.then_some(components))
    }
}

/// Looks a name up in directories that an overlay would merge.
fn merged(directories: &[OwnedFd], name: &std::ffi::OsStr) -> Result<Found, Errno> {
    let mut found = Vec::new();
    let mut mode = None;
    for directory in directories {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let stat = rustix::fs::fstat(&entry)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mode.get_or_insert(Mode::from_raw_mode(stat.st_mode & 0o1777));
                found.push(entry);
            }
            // A directory above hides the rest.
            _ if !found.is_empty() => break,
            // A whiteout: what is below is gone.
            FileType::CharacterDevice if stat.st_rdev == 0 => break,
            FileType::Symlink => return Err(Errno::LOOP),
            FileType::RegularFile => return Ok(Found::File),
            _ => return Err(Errno::NOTDIR),
        }
    }
    Ok(match mode {
        Some(mode) => Found::Directory(found, mode),
        None => Found::Nothing,
    })
}

impl Missing {
    /// Makes the mount point in the scratch layer; directories that lower layers have keep their mode.
    pub(super) fn make(&self, layer: &OwnedFd) -> Result<(), Fault> {
        self.make_in(layer).step_at("make the mount point", &self.path)
    }

    fn make_in(&self, layer: &OwnedFd) -> Result<(), Errno> {
        let mut here = rustix::fs::openat(layer, ".", DIRECTORY, Mode::empty())?;
        for (index, (name, mode)) in self.components.iter().enumerate() {
            if index + 1 == self.components.len() && self.kind == Kind::File {
                return match point::make_one(&here, Path::new(name), Kind::File, *mode) {
                    Err(Errno::EXIST) => Ok(()),
                    other => other,
                };
            }
            match rustix::fs::mkdirat(&here, name, *mode) {
                // The umask doesn't let every bit through.
                Ok(()) => rustix::fs::chmodat(&here, name, *mode, rustix::fs::AtFlags::empty())?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            here = rustix::fs::openat(&here, name, DIRECTORY, Mode::empty())?;
        }
        Ok(())
    }
}
