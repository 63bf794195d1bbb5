//! A tar that is read at any place: its members are listed once, and their bytes are read where they lie.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::cli::failure::Failure;

/// An archive of an image has no more members than this.
const MEMBERS_CAP: usize = 100_000;
/// Links that lead to links are followed this far.
const LINKS_CAP: usize = 8;

/// Where bytes lie in a file.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Piece {
    pub(in crate::cli) file: Arc<std::fs::File>,
    pub(in crate::cli) offset: u64,
    pub(in crate::cli) size: u64,
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A listed tar.
pub(super) struct Archive {
    file: Arc<std::fs::File>,
    members: HashMap<String, Member>,
}

impl Archive {
    /// Lists a tar.
    ///
    /// *Limits*: not compressed; 100,000 members.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        use std::os::unix::fs::FileExt as _;
        let bad = |why: String| {
            Failure::usage(
                "archive_not_valid",
                format!("{} is no archive of an image: {why}", path.display()),
            )
        };
        let (file, _) = fs_err::File::open(path).map_err(|error| bad(error.to_string()))?.into_parts();
        let mut magic = [0; 6];
        if file.read_exact_at(&mut magic, 0).is_ok()
            && (magic.starts_with(&[0x1f, 0x8b])
                || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                || magic == *b"\xfd7zXZ\0"
                || magic.starts_with(b"BZh"))
        {
            return Err(bad("it is compressed".to_owned())
                .with_hint(Some("unpack it to a plain .tar first".to_owned())));
        }
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(|error| bad(error.to_string()))? {
            let entry = entry.map_err(|error| bad(error.to_string()))?;
            let name = plain(&entry.path().map_err(|error| bad(error.to_string()))?);
            let kind = entry.header().entry_type();
            let member = if kind.is_file() {
                Member::File { offset: entry.raw_file_position(), size: entry.size() }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name().map_err(|error| bad(error.to_string()))?;
                let target = target.unwrap_or_default();
                let beside = if kind.is_symlink() { Path::new(&name).parent() } else { None };
                Member::Link(plain(&beside.unwrap_or(Path::new("")).join(target)))
            } else {
                continue;
            };
            members.insert(name, member);
            if members.len() > MEMBERS_CAP {
                return Err(bad(format!("it has more than {MEMBERS_CAP} members")));
            }
        }
        Ok(Self { file: Arc::new(file), members })
    }

    /// Where a member's bytes lie.
    pub(super) fn find(&self, name: &str) -> Option<Piece> {
        let mut name = name;
        for _ in 0..LINKS_CAP {
            match self.members.get(name)? {
                Member::File { offset, size } => {
                    return Some(Piece { file: self.file.clone(), offset: *offset, size: *size });
                }
                Member::Link(target) => name = target,
            }
        }
        None
    }
}

/// A member's name without `.`, and with `..` resolved.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => _ = parts.pop(),
            _ => {}
        }
    }
    parts.join("/")
}
