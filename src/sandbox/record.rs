//! What a run notes in the run directory before it makes anything that outlives a crash.
//!
//! A later process may sit in other control groups, and would look for those of a crashed run below its own only. So
//! each run that makes groups has a file, named as the run, that lists them. The file is believed only as far as what
//! it names is provably ours: see [`leftovers`].

use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FileType, Mode, OFlags};

use super::cgroup;
use super::error::{Doing as _, SandboxError};

/// No run has more than four groups.
const MOST_BYTES: u64 = 32 * 1024;

/// The record of a living run; dropped, it is removed, unless a group is still there.
#[derive(Debug)]
pub(crate) struct Record {
    file: PathBuf,
    groups: Vec<PathBuf>,
}

impl Record {
    /// Writes one; none is needed for a run without groups.
    ///
    /// Not synchronised to the disk: what takes the page cache away takes the groups too.
    pub(crate) fn write(dir: &Path, name: &str, groups: Vec<PathBuf>) -> Result<Option<Self>, SandboxError> {
        use std::io::Write as _;
        let doing = "note the run's control groups";
        if groups.is_empty() {
            return Ok(None);
        }
        let file = dir.join(name);
        let mut text = Vec::new();
        for group in &groups {
            text.extend_from_slice(group.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let record = Self { file, groups };
        options.open(&record.file).and_then(|mut file| file.write_all(&text)).doing(doing)?;
        Ok(Some(record))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.groups.iter().any(|group| group.exists()) {
            let _left_to_sweep = fs::remove_file(&self.file);
        }
    }
}

/// The groups of the run `name` that its record names and that are still there.
///
/// The file must be ours and nobody else's to write, and each path must lead to a control group that has the run's
/// name; anything else in it is passed over.
pub(crate) fn leftovers(file: &Path, name: &str) -> Vec<PathBuf> {
    read(file)
        .unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .map(|line| PathBuf::from(std::ffi::OsString::from_vec(line.to_vec())))
        .filter(|path| {
            let straight = path.components().enumerate().all(|(index, part)| {
                matches!((index, part), (0, Component::RootDir) | (1.., Component::Normal(_)))
            });
            path.is_absolute() && straight && path.ends_with(name) && cgroup::is_group(path)
        })
        .collect()
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(file, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw()
        && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if !ours || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_record_is_private_and_goes_with_its_groups() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("group");
        fs::create_dir(&group).unwrap();
        let file = dir.path().join("run");
        let record = Record::write(dir.path(), "run", vec![group.clone()]).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        drop(record);
        assert!(file.exists(), "the group is there still");
        let record = Record::write(dir.path(), "run", vec![group.clone()]).unwrap();
        fs::remove_dir(&group).unwrap();
        drop(record);
        assert!(!file.exists());
        assert!(Record::write(dir.path(), "run", vec![]).unwrap().is_none() && !file.exists());
    }

    #[test]
    fn only_control_groups_of_that_name_are_believed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let file = dir.path().join("record");
        let plain = dir.path().join("run");
        // The last is a control group where there is one, but none of that name.
        let named = format!("{}\nrun\n\n/\n/sys/fs/cgroup/../cgroup\n/sys/fs/cgroup\n", plain.display());
        fs::write(&file, named).unwrap();
        fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&file).is_some());
        assert_eq!(leftovers(&file, "run"), Vec::<PathBuf>::new());
        for others in [0o602, 0o640, 0o604] {
            fs::set_permissions(&file, std::fs::Permissions::from_mode(others)).unwrap();
            assert_eq!(read(&file), None, "{others:o}");
        }
    }
}
