//! The file of passwords that an operator brings along (`htpasswd -B`).

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::AccessError;
use super::name::AccountName;

/// A larger file is the wrong file.
const FILE_CAP: u64 = 4 << 20;

/// One user of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: AccountName,
    pub(super) hash: String,
}

/// What tells one content of the file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    inode: u64,
    size: u64,
}

/// The file and what was read of it last.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl File {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Entry>), AccessError> {
        let failed = |source| AccessError::Htpasswd { path: path.to_owned(), source };
        // The stamp first: what is written after it shows by the next look.
        let stamp = stamp(path).map_err(failed)?;
        let entries = read(path).map_err(failed)?;
        Ok((Self { path: path.to_owned(), stamp: Some(stamp) }, entries))
    }

    /// The entries when the file is another than before; none when it can't be read any more.
    pub(super) fn look(&mut self) -> Option<Vec<Entry>> {
        let found = stamp(&self.path);
        if let (Ok(found), Some(last)) = (&found, &self.stamp)
            && found == last
        {
            return None;
        }
        match found.and_then(|stamp| Ok((read(&self.path)?, stamp))) {
            Ok((entries, stamp)) => {
                tracing::info!(users = entries.len(), path = %self.path.display(), "read the file of passwords");
                self.stamp = Some(stamp);
                Some(entries)
            }
            Err(error) => {
                // Said once; the users of a file that is gone are gone too.
                self.stamp.take()?;
                tracing::error!(%error, path = %self.path.display(), "the file of passwords can't be read: its users are shut out");
                Some(Vec::new())
            }
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs_err::metadata(path)?;
    // Before it is opened, which alone can do something to a device.
    usable(&meta)?;
    Ok(Stamp {
        modified: meta.modified().ok(),
        changed: (meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
        size: meta.len(),
    })
}

fn read(path: &Path) -> std::io::Result<Vec<Entry>> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    // A pipe that nobody writes to must not hold the thread that opens it.
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let file = fs_err::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    usable(&file.metadata()?)?;
    let mut bytes = Vec::new();
    // It may have grown meanwhile.
    if file.take(FILE_CAP + 1).read_to_end(&mut bytes)? as u64 > FILE_CAP {
        return Err(too_large());
    }
    Ok(parse(&bytes, path))
}

/// Refuses what is no regular file, as its reading may never end, and what is too large to be a file of passwords.
fn usable(meta: &std::fs::Metadata) -> std::io::Result<()> {
    if !meta.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    if meta.len() > FILE_CAP { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("it has more than {FILE_CAP} bytes"))
}

/// The lines that can be used; the log names the others by their number alone.
fn parse(bytes: &[u8], path: &Path) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        // What is no text is no entry either; the other lines are.
        let text = std::str::from_utf8(line).map(str::trim);
        let line = text.unwrap_or("not UTF-8");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').and_then(|(name, hash)| {
            let name = AccountName::parse(name).ok()?;
            is_bcrypt(hash).then(|| Entry { name, hash: hash.to_owned() })
        });
        match entry {
            // As with the program that the file is from, the first line of a name counts.
            Some(entry) if entries.iter().all(|other| other.name != entry.name) => entries.push(entry),
            Some(_) => {
                tracing::warn!(path = %path.display(), line = index + 1, "a name stands twice in the file of passwords");
            }
            None => tracing::warn!(
                path = %path.display(), line = index + 1,
                "a line of the file of passwords is passed over: it must be `<name>:<bcrypt hash>` (`htpasswd -B`)"
            ),
        }
    }
    entries
}

/// `$2y$05$` and 53 characters. A cost of more than 14 would take seconds of each login.
fn is_bcrypt(hash: &str) -> bool {
    let Some((version, rest)) = hash.strip_prefix("$2").and_then(|rest| rest.split_once('$')) else {
        return false;
    };
    let Some((cost, rest)) = rest.split_once('$') else { return false };
    let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
    matches!(version, "a" | "b" | "x" | "y")
        && cost.len() == 2
        && cost.parse().is_ok_and(|cost: u32| (4..=14).contains(&cost))
        && rest.len() == 53
        && plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e";

    #[test]
    fn only_lines_of_bcrypt_are_taken() {
        let text = format!(
            "# users\n\nann:{HASH}\nbob:$apr1$x$y\ncarl:{{SHA}}abc\nplain\nann:other\nann:{HASH}x\ndora : {HASH}\n\
             eve:{HASH}\r\nann:{HASH}\nfay:$2y$31${}\n:{HASH}\n",
            &HASH[7..]
        );
        let names: Vec<String> =
            parse(text.as_bytes(), Path::new("f")).into_iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["ann", "eve"]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_lost_one_has_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        assert_eq!(File::open(&path).unwrap_err().code(), "htpasswd_unreadable");
        fs_err::write(&path, format!("ann:{HASH}\n")).unwrap();
        let (mut file, entries) = File::open(&path).unwrap();
        assert_eq!((entries.len(), file.look()), (1, None));
        fs_err::write(&path, format!("ann:{HASH}\nbob:{HASH}\n")).unwrap();
        assert_eq!(file.look().unwrap().len(), 2);
        fs_err::remove_file(&path).unwrap();
        assert_eq!((file.look(), file.look()), (Some(Vec::new()), None));
        fs_err::write(&path, format!("ann:{HASH}\n")).unwrap();
        assert_eq!(file.look().unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_is_no_text_is_passed_over_alone() {
        let mut bytes = format!("ann:{HASH}\nb").into_bytes();
        bytes.extend(b"\xf6b:");
        bytes.extend(format!("{HASH}\r\neve:{HASH}").bytes());
        let names: Vec<String> =
            parse(&bytes, Path::new("f")).into_iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["ann", "eve"]);
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_has_nobody_and_holds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let good = || fs_err::write(&path, format!("ann:{HASH}\n")).unwrap();
        good();
        let (mut file, _) = File::open(&path).unwrap();
        fs_err::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // On a thread of its own, as the fault would be that it never returns.
        let (sender, receiver) = std::sync::mpsc::channel();
        let pipe = path.clone();
        std::thread::spawn(move || {
            let looked = (file.look(), File::open(&pipe).is_err(), read(&pipe).is_err());
            sender.send((looked, file)).unwrap();
        });
        let (looked, mut file) = receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(looked, (Some(Vec::new()), true, true));
        fs_err::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(file.look().is_none() && read(&path).is_err());
        fs_err::remove_file(&path).unwrap();
        good();
        assert_eq!(file.look().unwrap().len(), 1, "put right, it counts again");
        let large = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
        large.set_len(FILE_CAP + 1).unwrap();
        assert_eq!(file.look(), Some(Vec::new()));
        large.set_len(FILE_CAP).unwrap();
        assert_eq!(file.look().unwrap().len(), 1);
    }
}
