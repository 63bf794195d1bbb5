//! `bin/`: wrappers and launch files on disk, and making them agree with the records.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::names::{CommandName, Faults};

use super::error::InstallError;
use super::launch::Launch;
use super::record::Installed;
use super::wrapper::{self, Interpreter, SHORT_LINK};

/// What unfinished files are called.
const UNFINISHED: &str = ".tmp-";

/// What was put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Files that were missing or not as the record says, and were written again.
    pub written: u64,
    /// Files that no record names, and were removed.
    pub removed: u64,
}

/// The folder of wrappers of a root.
#[derive(Clone)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Our own program, which wrappers start.
    program: PathBuf,
    faults: Faults,
}

/// The two files of a command.
struct Files {
    command: CommandName,
    launch: Vec<u8>,
    wrapper: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Launch,
    Wrapper,
}

impl Kind {
    fn mode(self) -> u32 {
        match self {
            Self::Launch => 0o444,
            Self::Wrapper => 0o755,
        }
    }
}

impl Folder {
    pub(crate) fn new(root: &Path, program: PathBuf, faults: Faults) -> Self {
        Self { root: root.to_owned(), program, faults }
    }

    fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        match kind {
            Kind::Launch => self.bin().join(".launch").join(name),
            Kind::Wrapper => self.bin().join(name),
        }
    }

    /// Refuses to go on where a file that is not ours has the name of a command.
    pub(crate) fn check_free(&self, commands: &[CommandName]) -> Result<(), InstallError> {
        for command in commands {
            let path = self.path(Kind::Wrapper, command.as_str());
            if path.symlink_metadata().is_ok() && !is_our_wrapper(&path) {
                return Err(InstallError::Foreign { path });
            }
        }
        Ok(())
    }

    /// Writes the launch files and then the wrappers of a record, each in one step, and syncs the folders.
    pub(crate) fn write(&self, record: &Installed) -> Result<u64, InstallError> {
        self.prepare()?;
        let files = self.files(record)?;
        let mut written = 0;
        for (kind, point) in
            [(Kind::Launch, "install.link.after_launch"), (Kind::Wrapper, "install.link.after_wrappers")]
        {
            for file in &files {
                let content = if kind == Kind::Launch { &file.launch } else { &file.wrapper };
                written += u64::from(self.put(kind, file.command.as_str(), content)?);
                self.faults.pass("install.link.after_file");
            }
            self.sync(kind)?;
            self.faults.pass(point);
        }
        Ok(written)
    }

    /// Removes the wrappers and then the launch files of these commands.
    pub(crate) fn remove(&self, commands: &[CommandName]) -> Result<u64, InstallError> {
        let mut removed = 0;
        for (kind, point) in
            [(Kind::Wrapper, "remove.unlink.after_wrappers"), (Kind::Launch, "remove.unlink.after_launch")]
        {
            for command in commands {
                let path = self.path(kind, command.as_str());
                if kind == Kind::Wrapper && path.symlink_metadata().is_ok() && !is_our_wrapper(&path) {
                    tracing::warn!(path = %path.display(), "a file that is no wrapper of ours stays");
                    continue;
                }
                match fs_err::remove_file(&path) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.sync(kind)?;
            self.faults.pass(point);
        }
        Ok(removed)
    }

    /// Makes the folder agree with the records: writes what is missing or different, removes what is ours and belongs
    /// to none of them, and leaves foreign files alone.
    pub(crate) fn mend(&self, records: &[Installed]) -> Result<Mended, InstallError> {
        if records.is_empty() && !self.bin().exists() {
            return Ok(Mended::default());
        }
        let mut mended = Mended::default();
        for record in records {
            let commands: Vec<_> = record.commands.iter().map(|command| command.name.clone()).collect();
            match self.check_free(&commands) {
                Ok(()) => mended.written += self.write(record)?,
                Err(error) => tracing::error!(pack = %record.id, %error, "its wrappers can't be written"),
            }
        }
        self.prepare()?;
        let known: BTreeSet<&str> = records
            .iter()
            .flat_map(|record| record.commands.iter().map(|command| command.name.as_str()))
            .collect();
        for kind in [Kind::Wrapper, Kind::Launch] {
            for entry in fs_err::read_dir(self.path(kind, ""))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if known.contains(name.as_str()) {
                    continue;
                }
                let ours = name.starts_with(UNFINISHED)
                    || kind == Kind::Launch
                    || (CommandName::parse(&name).is_ok() && is_our_wrapper(&entry.path()));
                if ours && entry.file_type()?.is_file() {
                    fs_err::remove_file(entry.path())?;
                    mended.removed += 1;
                }
            }
            self.sync(kind)?;
        }
        Ok(mended)
    }

    fn files(&self, record: &Installed) -> Result<Vec<Files>, InstallError> {
        let interpreter = Interpreter::choose(&self.program, &self.bin())?;
        if let Interpreter::Link(link) = &interpreter {
            self.link(Path::new(link))?;
        }
        let mut files = Vec::new();
        for command in &record.commands {
            let launch = Launch::of(&self.root, record, command)
                .sealed()
                .map_err(|error| InstallError::Io(std::io::Error::from(error)))?;
            let wrapper = wrapper::text(&interpreter, &self.root, record, &command.name).into_bytes();
            files.push(Files { command: command.name.clone(), launch, wrapper });
        }
        Ok(files)
    }

    /// The link by which wrappers start us where our own path doesn't fit.
    fn link(&self, link: &Path) -> Result<(), InstallError> {
        if fs_err::read_link(link).is_ok_and(|target| target == self.program) {
            return Ok(());
        }
        let unfinished = self.bin().join(format!("{UNFINISHED}link"));
        remove_if_there(&unfinished)?;
        fs_err::os::unix::fs::symlink(&self.program, &unfinished)?;
        debug_assert!(link.ends_with(SHORT_LINK));
        Ok(fs_err::rename(&unfinished, link)?)
    }

    fn prepare(&self) -> Result<(), InstallError> {
        for folder in [self.bin(), self.bin().join(".launch")] {
            if !folder.is_dir() {
                fs_err::create_dir(&folder)?;
            }
            if fs_err::symlink_metadata(&folder)?.mode() & 0o7777 != 0o755 {
                fs_err::set_permissions(&folder, Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// Puts a file into place in one step; `false` when it is there as it should be.
    fn put(&self, kind: Kind, name: &str, content: &[u8]) -> Result<bool, InstallError> {
        let path = self.path(kind, name);
        let same = path.symlink_metadata().is_ok_and(|found| {
            found.is_file()
                && found.mode() & 0o7777 == kind.mode()
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.len() == content.len() as u64
        });
        if same && fs_err::read(&path)? == content {
            return Ok(false);
        }
        let unfinished = self.path(kind, &format!("{UNFINISHED}{name}"));
        remove_if_there(&unfinished)?;
        let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(kind.mode()))?;
        file.sync_all()?;
        drop(file);
        fs_err::rename(&unfinished, &path)?;
        Ok(true)
    }

    fn sync(&self, kind: Kind) -> Result<(), InstallError> {
        match fs_err::File::open(self.path(kind, "")) {
            Ok(folder) => Ok(folder.sync_all()?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn remove_if_there(path: &Path) -> Result<(), InstallError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a file (not what a link leads to) is a wrapper of ours.
fn is_our_wrapper(path: &Path) -> bool {
    let Ok(found) = path.symlink_metadata() else { return false };
    let mut beginning = Vec::new();
    found.is_file()
        && std::fs::File::open(path).is_ok_and(|file| file.take(512).read_to_end(&mut beginning).is_ok())
        && wrapper::is_ours(&beginning)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
