//! Secrets: values that never print, and how they are kept in files.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

/// The fewest bytes a signing key may have.
pub const MIN_KEY_BYTES: usize = 32;

/// No secret is longer; a larger file is the wrong file.
const SECRET_CAP: u64 = 64 * 1024;

/// A value that never prints.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one who uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file that the operator keeps. One line end at its end is dropped, as editors and
    /// `echo` add it.
    ///
    /// # Errors
    /// When the file can't be read, is empty, holds more than one line, or isn't UTF-8.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        let file = fs::File::open(path).map_err(|source| SecretFileError::io(path, source))?;
        Self::from_open(path, file)
    }

    /// Reads the secret that Pantry keeps in `dir/name`, or makes it at the first start.
    ///
    /// The folder is made with mode 0700, the file with 0600; the file gets its name only after its content is
    /// on disk, so a crash leaves either no file or a whole one.
    ///
    /// # Errors
    /// When folder or file belong to somebody else or are open to others, or when the disk refuses.
    pub fn load_or_create(
        dir: &Path,
        name: &str,
        make: impl FnOnce() -> String,
    ) -> Result<Self, SecretFileError> {
        own_folder(dir)?;
        let path = dir.join(name);
        if let Some(secret) = Self::read_private(&path)? {
            return Ok(secret);
        }
        create(dir, &path, make().as_bytes())?;
        Self::read_private(&path)?.ok_or(SecretFileError::Empty { path })
    }

    fn read_private(path: &Path) -> Result<Option<Self>, SecretFileError> {
        // A link could lead to a file that others write, and opening a fifo would wait.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SecretFileError::io(path, source)),
        };
        let meta = file.metadata().map_err(|source| SecretFileError::io(path, source))?;
        check_owner(path, &meta)?;
        let mode = meta.permissions().mode() & 0o777;
        if !meta.is_file() || mode & 0o077 != 0 {
            return Err(SecretFileError::TooOpen { path: path.to_owned(), mode, wanted: 0o600 });
        }
        Self::from_open(path, file).map(Some)
    }

    fn from_open(path: &Path, file: fs::File) -> Result<Self, SecretFileError> {
        let mut text = String::new();
        match file.take(SECRET_CAP + 1).read_to_string(&mut text) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(SecretFileError::NotText { path: path.to_owned() });
            }
            Err(source) => return Err(SecretFileError::io(path, source)),
            Ok(_) => {}
        }
        if text.len() as u64 > SECRET_CAP {
            return Err(SecretFileError::NotText { path: path.to_owned() });
        }
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(SecretFileError::Empty { path: path.to_owned() });
        }
        if line.contains('\n') {
            return Err(SecretFileError::NotText { path: path.to_owned() });
        }
        Ok(Self(line.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

fn check_owner(path: &Path, meta: &std::fs::Metadata) -> Result<(), SecretFileError> {
    let euid = nix::unistd::geteuid().as_raw();
    if meta.uid() == euid {
        return Ok(());
    }
    Err(SecretFileError::Foreign { path: path.to_owned(), owner: meta.uid(), wanted: euid })
}

fn own_folder(dir: &Path) -> Result<(), SecretFileError> {
    let io = |source| SecretFileError::io(dir, source);
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)?;
            }
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io(source)),
    }
    let meta = fs::symlink_metadata(dir).map_err(io)?;
    check_owner(dir, &meta)?;
    let mode = meta.permissions().mode() & 0o777;
    // Who may write the folder could exchange the files in it.
    if !meta.is_dir() || mode & 0o022 != 0 {
        return Err(SecretFileError::TooOpen { path: dir.to_owned(), mode, wanted: 0o700 });
    }
    Ok(())
}

fn create(dir: &Path, path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let io = |source| SecretFileError::io(path, source);
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(io)?;
    file.write_all(content).and_then(|()| file.write_all(b"\n")).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&unfinished, path).map_err(io)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Why a file with a secret can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// The system refuses.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could read or exchange it.
    #[error("{} has mode {mode:04o}, which lets others in; it must be {wanted:04o}", path.display())]
    TooOpen {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it needs.
        wanted: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {owner}, not to user {wanted}, who runs Pantry", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that runs Pantry.
        wanted: u32,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is not one line of UTF-8 text.
    #[error("{} is not one line of text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl SecretFileError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check that the path exists and that this user may use it".to_owned(),
            Self::TooOpen { path, wanted, .. } => {
                format!(
                    "run `chmod {wanted:04o} {}`, and exchange the secret if others could have read it",
                    path.display()
                )
            }
            Self::Foreign { path, .. } => {
                format!("run Pantry as the owner of {}, or give it away", path.display())
            }
            Self::Empty { path } => {
                format!("remove {}, so that a new one is made, or fill it", path.display())
            }
            Self::NotText { path } => format!("put the secret alone on the first line of {}", path.display()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_made_once_and_kept_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let first = Secret::load_or_create(&keys, "k", || "first".to_owned()).unwrap();
        let again = Secret::load_or_create(&keys, "k", || "second".to_owned()).unwrap();
        assert_eq!((first.expose(), again.expose()), ("first", "first"));
        assert_eq!((mode(&keys), mode(&keys.join("k"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1, "nothing unfinished stays");
        assert_eq!(format!("{first:?}"), "[secret]");
    }

    #[test]
    fn what_a_crash_left_does_not_stop_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).unwrap();
        fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(keys.join("k.new"), "").unwrap();
        assert_eq!(Secret::load_or_create(&keys, "k", || "made".to_owned()).unwrap().expose(), "made");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        Secret::load_or_create(&keys, "k", || "made".to_owned()).unwrap();
        for bits in [0o640, 0o604, 0o620] {
            fs::set_permissions(keys.join("k"), std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
            let refused = Secret::load_or_create(&keys, "k", || "new".to_owned()).unwrap_err();
            assert!(matches!(refused, SecretFileError::TooOpen { mode, .. } if mode == bits), "{refused:?}");
            assert!(refused.hint().contains("chmod 0600"));
        }
    }

    #[test]
    fn a_folder_that_others_write_and_a_linked_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        Secret::load_or_create(&keys, "k", || "made".to_owned()).unwrap();
        std::os::unix::fs::symlink(keys.join("k"), keys.join("linked")).unwrap();
        assert!(matches!(
            Secret::load_or_create(&keys, "linked", String::new),
            Err(SecretFileError::Io { .. })
        ));
        fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        assert!(matches!(
            Secret::load_or_create(&keys, "k", String::new),
            Err(SecretFileError::TooOpen { mode: 0o770, .. })
        ));
    }

    #[test]
    fn a_file_of_the_operator_holds_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for (content, expected) in [
            ("k\n", Some("k")),
            ("k", Some("k")),
            ("k \r\n", Some("k ")),
            ("", None),
            ("\n", None),
            ("a\nb\n", None),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(Secret::read(&path).ok().as_ref().map(Secret::expose), expected, "{content:?}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(Secret::read(&path), Err(SecretFileError::NotText { .. })));
        assert!(matches!(Secret::read(&dir.path().join("absent")), Err(SecretFileError::Io { .. })));
    }
}
