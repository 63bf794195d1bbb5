//! Unpacking an archive into an empty directory. Runs inside the jail; a plain function over a reader and a directory,
//! so that it can be tested without one.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tar::EntryType;

use crate::names::{Digest, Sha256Stream};

use super::archive::{ArchiveReader, Verdict};
use super::destination::{Destination, finish_file};
use super::error::{Refusal, RefusalCode};
use super::links::{Target, leaves_root};
use super::listing::{Figures, Listed, Listing};
use super::path::EntryPath;

/// So much may a foreign layer remove: deletion marks, and bytes of the names that they remove. The whole list goes
/// into the report, which has to fit into what is kept of the extractor's output.
const MOST_MARKS: usize = 100_000;
pub(crate) const MARKS_BYTES: usize = 16 << 20;

/// How much an archive from outside may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCaps {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// How deep a path may be.
    pub depth: u32,
}

impl Default for SourceCaps {
    fn default() -> Self {
        Self { bytes: 64 << 20, entries: 10_000, depth: 32 }
    }
}

/// What is being unpacked; the rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ArchiveKind {
    /// A layer: modes are kept, links may be absolute (they start at the root that the layer becomes).
    Layer,
    /// A layer of an image that others made: as a layer, but setuid bits, devices and pipes are left out, and what it
    /// removes of the layers below is told.
    Foreign,
    /// A package's source: modes become 0755 or 0644, links stay inside on their own.
    Source,
}

/// What to unpack and how much of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) kind: ArchiveKind,
    pub(crate) caps: SourceCaps,
    /// How many bytes one compressed byte may give.
    pub(crate) ratio: u64,
}

impl Order {
    pub(crate) fn layer() -> Self {
        let caps = SourceCaps { bytes: 8 << 30, entries: 300_000, depth: 64 };
        Self { kind: ArchiveKind::Layer, caps, ratio: 300 }
    }

    pub(crate) fn foreign() -> Self {
        Self { kind: ArchiveKind::Foreign, ..Self::layer() }
    }

    pub(crate) fn source(caps: &SourceCaps) -> Self {
        Self { kind: ArchiveKind::Source, caps: caps.clone(), ratio: 200 }
    }

    /// Headers, names and padding come on top of the files' own bytes.
    fn stream_cap(&self) -> u64 {
        self.caps.bytes.saturating_add(self.caps.entries.saturating_mul(4096)).saturating_add(1 << 20)
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extracted {
    pub(crate) figures: Figures,
    /// SHA-256 of the archive without its compression.
    pub(crate) diff_id: Digest,
    /// The paths that are gone of the layers below; only a foreign layer has such.
    #[serde(default)]
    pub(crate) removed: Vec<String>,
}

/// Unpacks `archive` into the empty directory `into`.
pub(crate) fn extract<R: Read>(archive: R, into: OwnedFd, order: &Order) -> Result<Extracted, Refusal> {
    let reader = ArchiveReader::open(archive, order.stream_cap(), order.ratio)?;
    let verdict = reader.verdict();
    let mut tar = tar::Archive::new(reader);
    let mut unpacking = Unpacking {
        order,
        into: Destination::new(into),
        seen: HashMap::new(),
        listing: Listing::default(),
        removed: Vec::new(),
        removed_bytes: 0,
        bytes: 0,
        buffer: vec![0; 256 * 1024],
    };
    let entries = tar.entries().map_err(|error| verdict.explain(&error))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| verdict.explain(&error))?;
        unpacking.take(&mut entry, &verdict)?;
    }
    let removed = std::mem::take(&mut unpacking.removed);
    let (figures, into) = unpacking.check_links()?;
    let diff_id = tar.into_inner().finish()?;
    into.close()?;
    if figures.entries == 0 && order.kind == ArchiveKind::Source {
        return Err(Refusal::unreadable("the archive holds nothing"));
    }
    Ok(Extracted { figures, diff_id, removed })
}

/// What lies at a path so far.
enum Seen {
    Directory { mode: u32, listed: bool },
    File,
    Link(String),
}

struct Unpacking<'a> {
    order: &'a Order,
    into: Destination,
    seen: HashMap<String, Seen>,
    listing: Listing,
    removed: Vec<String>,
    removed_bytes: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

/// Directories whose mode is still to be set.
struct Closing {
    into: Destination,
    directories: Vec<(String, u32)>,
}

impl Closing {
    fn close(mut self) -> Result<(), Refusal> {
        // Deepest first; a directory's own name is longer than its parent's.
        self.directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for (path, mode) in &self.directories {
            self.into.finish_directory(path, *mode).map_err(|errno| Refusal::writing(path, errno))?;
        }
        self.into.finish_directory("", 0o755).map_err(|errno| Refusal::writing(".", errno))
    }
}

impl Unpacking<'_> {
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, verdict: &Verdict) -> Result<(), Refusal> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return take_global(entry, verdict);
        }
        let name = entry.path_bytes().into_owned();
        let refuse = |why: &str| Refusal::entry(&name, why);
        if kind == EntryType::GNUSparse {
            return Err(refuse("is a sparse file, which is not taken here"));
        }
        check_extensions(entry, &name)?;
        let size = entry.size();
        if kind != EntryType::Regular && kind != EntryType::Continuous && size != 0 {
            return Err(refuse("has content, though it is no file"));
        }
        let path = EntryPath::parse(&name, self.order.caps.depth)?;
        let mode = entry.header().mode().map_err(|_| refuse("has no readable mode"))?;
        let foreign = self.order.kind == ArchiveKind::Foreign;
        if foreign && matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo) {
            return Ok(());
        }
        if mode & 0o6000 != 0 && !foreign {
            return Err(refuse("has a setuid or setgid bit"));
        }
        if path.is_root() {
            return match kind {
                EntryType::Directory => Ok(()),
                _ => Err(refuse("takes the place of the root")),
            };
        }
        if path.name().starts_with(".wh.") {
            let code = match self.order.kind {
                ArchiveKind::Foreign => return self.take_mark(&path, &refuse),
                ArchiveKind::Layer => RefusalCode::LayerWhiteoutNotSupported,
                ArchiveKind::Source => RefusalCode::ArchiveEntryRefused,
            };
            return Err(Refusal::new(code, refuse("is a deletion mark").message));
        }
        self.prepare(&path, kind == EntryType::Directory, &refuse)?;
        let key = path.as_str().to_owned();
        match kind {
            EntryType::Directory => self.take_directory(&path, mode)?,
            EntryType::Regular | EntryType::Continuous => {
                if name.ends_with(b"/") {
                    return Err(refuse("is a file with the name of a directory"));
                }
                self.take_file(&path, mode, size, entry, verdict)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = self.link_target(&path, &target, &refuse)?;
                self.into
                    .make_link(path.parent(), path.name(), &target)
                    .map_err(|errno| Refusal::writing(path.as_str(), errno))?;
                self.listing.0.insert(key.clone(), Listed::Link { target: target.clone() });
                self.seen.insert(key, Seen::Link(target));
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.take_hard_link(&path, &target, &refuse)?;
            }
            EntryType::Char | EntryType::Block => return Err(refuse("is a device")),
            EntryType::Fifo => return Err(refuse("is a named pipe")),
            _ => return Err(refuse("is of an unknown kind")),
        }
        Ok(())
    }

    /// Remembers what a mark removes: a name, or all that the directory had before.
    ///
    /// *Source*: OCI image specification, layers, Whiteouts.
    fn take_mark(&mut self, path: &EntryPath, refuse: &dyn Fn(&str) -> Refusal) -> Result<(), Refusal> {
        let name = path.name().strip_prefix(".wh.").unwrap_or_default();
        let removed = match name {
            ".wh..opq" if path.parent().is_empty() => return Err(refuse("removes the whole root")),
            ".wh..opq" => path.parent().to_owned(),
            // What a storage driver of old kept for itself.
            _ if name.starts_with(".wh.") => return Ok(()),
            "" | "." | ".." => return Err(refuse("is a deletion mark of nothing")),
            _ if path.parent().is_empty() => name.to_owned(),
            _ => format!("{}/{name}", path.parent()),
        };
        self.removed_bytes += removed.len();
        let entries = usize::try_from(self.order.caps.entries).unwrap_or(usize::MAX);
        if self.removed.len() >= MOST_MARKS.min(entries) || self.removed_bytes > MARKS_BYTES {
            let message = format!(
                "the archive has too many deletion marks: a layer may have {MOST_MARKS}, with {} MiB of names",
                MARKS_BYTES >> 20
            );
            return Err(Refusal::too_large(message));
        }
        self.removed.push(removed);
        Ok(())
    }

    /// Counts the entry, refuses a second one of that name, and makes the directories above it.
    fn prepare(
        &mut self,
        path: &EntryPath,
        is_directory: bool,
        refuse: &dyn Fn(&str) -> Refusal,
    ) -> Result<(), Refusal> {
        match self.seen.get(path.as_str()) {
            None => {}
            Some(Seen::Directory { listed: false, .. }) if is_directory => {}
            Some(_) => return Err(refuse("is there twice")),
        }
        for above in path.ancestors() {
            match self.seen.get(above) {
                Some(Seen::Directory { .. }) => {}
                Some(Seen::Link(_)) => return Err(refuse("would be written through a link")),
                Some(Seen::File) => return Err(refuse("lies below a file")),
                None => {
                    let above = EntryPath::parse(above.as_bytes(), u32::MAX)?;
                    self.make_directory(&above, 0o755, false)?;
                }
            }
        }
        self.count()
    }

    fn count(&self) -> Result<(), Refusal> {
        if self.seen.len() as u64 >= self.order.caps.entries {
            let message = format!("the archive has more than {} entries", self.order.caps.entries);
            return Err(Refusal::too_large(message));
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &EntryPath, mode: u32, listed: bool) -> Result<(), Refusal> {
        self.count()?;
        self.into
            .make_directory(path.parent(), path.name())
            .map_err(|errno| Refusal::writing(path.as_str(), errno))?;
        self.seen.insert(path.as_str().to_owned(), Seen::Directory { mode, listed });
        Ok(())
    }

    fn take_directory(&mut self, path: &EntryPath, mode: u32) -> Result<(), Refusal> {
        let mode = match self.order.kind {
            ArchiveKind::Layer | ArchiveKind::Foreign => mode & 0o1777,
            ArchiveKind::Source => 0o755,
        };
        if let Some(Seen::Directory { mode: implied, listed }) = self.seen.get_mut(path.as_str()) {
            (*implied, *listed) = (mode, true);
            return Ok(());
        }
        self.make_directory(path, mode, true)
    }

    fn take_file(
        &mut self,
        path: &EntryPath,
        mode: u32,
        size: u64,
        content: &mut dyn Read,
        verdict: &Verdict,
    ) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.order.caps.bytes {
            let message = format!("the archive holds more than {} bytes", self.order.caps.bytes);
            return Err(Refusal::too_large(message));
        }
        let mode = match self.order.kind {
            ArchiveKind::Layer | ArchiveKind::Foreign => mode & 0o777,
            ArchiveKind::Source if mode & 0o111 != 0 => 0o755,
            ArchiveKind::Source => 0o644,
        };
        let writing = |errno| Refusal::writing(path.as_str(), errno);
        let mut file = self.into.make_file(path.parent(), path.name()).map_err(writing)?;
        let mut hash = Sha256Stream::default();
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = content.read(&mut self.buffer[..want]).map_err(|error| verdict.explain(&error))?;
            if read == 0 {
                return Err(Refusal::unreadable("the archive ends within a file"));
            }
            let piece = &self.buffer[..read];
            hash.update(piece);
            file.write_all(piece).map_err(|error| {
                writing(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
            })?;
            left -= read as u64;
        }
        finish_file(&file, mode).map_err(writing)?;
        let listed = Listed::File { mode, size, content: hash.finish() };
        self.listing.0.insert(path.as_str().to_owned(), listed);
        self.seen.insert(path.as_str().to_owned(), Seen::File);
        Ok(())
    }

    fn link_target(
        &self,
        path: &EntryPath,
        target: &[u8],
        refuse: &dyn Fn(&str) -> Refusal,
    ) -> Result<String, Refusal> {
        let target = std::str::from_utf8(target).map_err(|_| refuse("leads to a name that is not UTF-8"))?;
        if target.is_empty() || target.len() > 4095 || target.chars().any(char::is_control) {
            return Err(refuse("leads to a name that can't be one"));
        }
        if target.starts_with('/') && self.order.kind == ArchiveKind::Source {
            return Err(refuse("is a link to an absolute name"));
        }
        // At once on names alone; over other links once all are known.
        if leaves_root(path.as_str(), &|at| {
            if at == path.as_str() { Target::Link(target) } else { Target::Other }
        }) {
            return Err(refuse("is a link that leads out"));
        }
        Ok(target.to_owned())
    }

    fn take_hard_link(
        &mut self,
        path: &EntryPath,
        target: &[u8],
        refuse: &dyn Fn(&str) -> Refusal,
    ) -> Result<(), Refusal> {
        let target = EntryPath::parse(target, self.order.caps.depth)
            .map_err(|_| refuse("is a hard link that leads out"))?;
        let Some(listed @ Listed::File { .. }) = self.listing.0.get(target.as_str()).cloned() else {
            return Err(refuse("is a hard link to what is no file before it"));
        };
        self.into
            .make_hard_link((target.parent(), target.name()), (path.parent(), path.name()))
            .map_err(|errno| Refusal::writing(path.as_str(), errno))?;
        self.listing.0.insert(path.as_str().to_owned(), listed);
        self.seen.insert(path.as_str().to_owned(), Seen::File);
        Ok(())
    }

    /// Now that all links are known: none may lead out over another one.
    fn check_links(mut self) -> Result<(Figures, Closing), Refusal> {
        let seen = &self.seen;
        let look = |at: &str| match seen.get(at) {
            Some(Seen::Link(target)) => Target::Link(target.as_str()),
            _ => Target::Other,
        };
        for (path, entry) in seen {
            if matches!(entry, Seen::Link(_)) && leaves_root(path, &look) {
                return Err(Refusal::entry(path.as_bytes(), "is a link that leads out over another link"));
            }
        }
        let mut directories = Vec::new();
        for (path, entry) in self.seen {
            if let Seen::Directory { mode, .. } = entry {
                self.listing.0.insert(path.clone(), Listed::Directory { mode });
                directories.push((path, mode));
            }
        }
        Ok((self.listing.figures(), Closing { into: self.into, directories }))
    }
}

/// A header for the whole archive, as some forges write one: it may comment, and change nothing.
fn take_global<R: Read>(entry: &mut tar::Entry<'_, R>, verdict: &Verdict) -> Result<(), Refusal> {
    let name = entry.path_bytes().into_owned();
    let refuse = |why: &str| Refusal::entry(&name, why);
    if entry.size() > 64 * 1024 {
        return Err(refuse("is a header of more than 64 KiB"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| verdict.explain(&error))?;
    for extension in tar::PaxExtensions::new(&bytes) {
        let key = extension.ok().and_then(|extension| extension.key().ok().map(str::to_owned));
        match key.as_deref() {
            Some("comment" | "mtime" | "atime" | "ctime") => {}
            _ => return Err(refuse("changes the entries after it by a global header")),
        }
    }
    Ok(())
}

/// Extended headers may not say other things than the plain ones: readers of archives disagree on who wins.
fn check_extensions<R: Read>(entry: &mut tar::Entry<'_, R>, name: &[u8]) -> Result<(), Refusal> {
    let refuse = |why: &str| Refusal::entry(name, why);
    let plain_size = entry.header().entry_size().map_err(|_| refuse("has no readable size"))?;
    if entry.size() != plain_size {
        return Err(refuse("has two different sizes"));
    }
    let Some(extensions) = entry.pax_extensions().map_err(|_| refuse("has a damaged extended header"))?
    else {
        return Ok(());
    };
    let mut keys = Vec::new();
    for extension in extensions {
        let extension = extension.map_err(|_| refuse("has a damaged extended header"))?;
        let key = extension.key().map_err(|_| refuse("has a damaged extended header"))?;
        if key.starts_with("GNU.sparse") {
            return Err(refuse("is a sparse file, which is not taken here"));
        }
        if key == "size" && extension.value().ok().and_then(|v| v.parse::<u64>().ok()) != Some(plain_size) {
            return Err(refuse("has two different sizes"));
        }
        if keys.iter().any(|seen| seen == key) {
            return Err(refuse("has an extended header that says something twice"));
        }
        keys.push(key.to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
