//! Running the extractor inside a jail, and being it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::names::{Digest, Sha256Stream};
use crate::sandbox::{
    Cancel, Captured, DataMount, End, Input, Limits, Policy, Sandbox, SeccompProfile, StdinBytes,
};

use super::error::{Refusal, RefusalCode, TreeError};
use super::extract::{ArchiveKind, Extracted, MARKS_BYTES, Order, SourceCaps, extract};

/// The argument by which this program knows that it is the extractor.
const VERB: &str = "__extract";
/// Where the extractor finds the directory to fill.
const OUT: &str = "/out";
/// The exit code with which it reports a refusal.
const REFUSED: i32 = 3;

/// As root, who the extractor is outside, where that id exists.
const OUTSIDE_ID: u32 = 1_060_001;

const MIB: u64 = 1 << 20;

/// Where an archive comes from.
pub(crate) enum Archive {
    /// A stream that passes through us and is hashed on its way.
    Stream(Box<dyn Read + Send>),
    /// A file that the extractor reads itself.
    File(File),
}

/// What does the unpacking.
#[derive(Clone)]
pub(crate) enum Extractor {
    /// This program in a jail.
    Jail(Sandbox),
    /// A plain call, for tests of what is around it.
    #[cfg(test)]
    InProcess,
}

/// The result, and the digest of the bytes that were fed where they were.
pub(crate) struct Unpacking {
    pub(crate) extracted: Extracted,
    pub(crate) fed: Option<Digest>,
}

impl Extractor {
    /// Unpacks into `into`, an empty directory of ours, which belongs to the jail's id while it runs.
    pub(crate) fn run(&self, archive: Archive, into: &Path, order: &Order) -> Result<Unpacking, TreeError> {
        match archive {
            Archive::File(file) => {
                let extracted = self.unpack(file, into, order)?;
                Ok(Unpacking { extracted, fed: None })
            }
            Archive::Stream(source) => {
                let (reader, writer) = io::pipe()?;
                let feeder = std::thread::Builder::new()
                    .name("layer-feed".to_owned())
                    .spawn(move || feed(source, writer))?;
                let extracted = self.unpack(File::from(OwnedFd::from(reader)), into, order);
                // The reading end is closed by now, so that the feeder can't be stuck.
                let fed =
                    feeder.join().unwrap_or_else(|_| Err(io::Error::other("the feeding thread panicked")));
                match (extracted, fed) {
                    (_, Err(error)) => Err(error.into()),
                    (Err(error), _) => Err(error),
                    (Ok(extracted), Ok(fed)) => Ok(Unpacking { extracted, fed: Some(fed) }),
                }
            }
        }
    }

    fn unpack(&self, archive: File, into: &Path, order: &Order) -> Result<Extracted, TreeError> {
        match self {
            Self::Jail(sandbox) => in_jail(sandbox, archive, into, order),
            #[cfg(test)]
            Self::InProcess => {
                let directory = super::walk::open_directory(into)?;
                extract(archive, directory, order).map_err(refused)
            }
        }
    }
}

/// Passes everything on; a reader that has gone away is its own business, a source that fails is not.
fn feed(mut source: Box<dyn Read + Send>, mut writer: io::PipeWriter) -> io::Result<Digest> {
    let mut hash = Sha256Stream::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            return Ok(hash.finish());
        }
        hash.update(&buffer[..read]);
        match writer.write_all(&buffer[..read]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(hash.finish()),
            other => other?,
        }
    }
}

fn refused(refusal: Refusal) -> TreeError {
    TreeError::Refused { code: refusal.code, message: refusal.message }
}

fn in_jail(sandbox: &Sandbox, archive: File, into: &Path, order: &Order) -> Result<Extracted, TreeError> {
    let mut policy = Policy::new(Vec::new(), Vec::new());
    let order_text = serde_json::to_string(order).expect("invariant: an order is plain data");
    policy.argv = vec!["/pantry".to_owned(), VERB.to_owned(), order_text];
    policy.inputs.push(Input { host: sandbox.own_executable()?, at: "/pantry".into() });
    policy.data.push(DataMount { host: into.to_owned(), at: OUT.into() });
    policy.tmpfs.clear();
    policy.env.clear();
    policy.profile = SeccompProfile::Helper;
    policy.limits = limits(order);
    if let Some(id) = outside_id() {
        policy.identity.host_base = Some(id);
        let directory = super::walk::open_directory(into)?;
        let owner = (rustix::process::Uid::from_raw(id), rustix::process::Gid::from_raw(id));
        rustix::fs::fchown(&directory, Some(owner.0), Some(owner.1))
            .map_err(TreeError::at("hand over", into))?;
    }
    let outcome = sandbox.run(&policy, StdinBytes::File(archive), &Cancel::new()?)?;
    let ended = |end: String| TreeError::Ended { end, stderr: last_words(&outcome.stderr.text()) };
    match outcome.end {
        End::Exited(0) => report(&outcome.stdout).map_err(ended),
        End::Exited(REFUSED) => Err(refused(report::<Refusal>(&outcome.stdout).map_err(ended)?)),
        End::TimedOut => Err(TreeError::TimedOut { seconds: policy.limits.wall_ms / 1000 }),
        other => Err(ended(format!("{other:?}"))),
    }
}

/// What the extractor reports; otherwise why it can't be taken.
///
/// A report without its middle may well be one of fewer deletions, so that it is refused before it is read.
fn report<T: DeserializeOwned>(stdout: &Captured) -> Result<T, String> {
    if stdout.dropped > 0 {
        return Err(format!("its report is too long, and {} bytes of it were dropped", stdout.dropped));
    }
    serde_json::from_slice(&stdout.bytes).map_err(|error| format!("its report can't be read: {error}"))
}

/// As root, an id that owns nothing but the directory that the extractor fills; without root there is one id only.
fn outside_id() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    free_id(&fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

/// An id that exists in this user namespace and is nobody's: a container may have a short range.
fn free_id(map: &str) -> Option<u32> {
    let ranges = map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let first: u64 = fields.next()?.parse().ok()?;
        Some(first..first + fields.nth(1)?.parse::<u64>().ok()?)
    });
    let ranges: Vec<_> = ranges.collect();
    if ranges.iter().any(|range| range.contains(&u64::from(OUTSIDE_ID))) {
        return Some(OUTSIDE_ID);
    }
    // Its own users are at the lower end, the jails of other runs at the upper.
    let longest = ranges.into_iter().max_by_key(|range| range.end - range.start)?;
    (longest.end - longest.start > 10_000).then(|| u32::try_from(longest.end - 3000).ok()).flatten()
}

fn last_words(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(400);
    text.chars().skip(skip).collect::<String>().trim().to_owned()
}

fn limits(order: &Order) -> Limits {
    let (memory, wall_ms) = match order.kind {
        ArchiveKind::Layer | ArchiveKind::Foreign => (512 * MIB, 600_000),
        ArchiveKind::Source => (256 * MIB, 120_000),
    };
    let mut limits = Limits::build();
    limits.memory_bytes = memory;
    limits.processes = 4;
    limits.wall_ms = wall_ms;
    limits.open_files = 64;
    limits.file_size_bytes = order.caps.bytes.max(MIB);
    limits.output_bytes = match order.kind {
        // With every deletion that a layer may have: in JSON a name has at most twice its bytes, quotes and commas come
        // on top.
        ArchiveKind::Foreign => 2 * MARKS_BYTES as u64 + 8 * MIB,
        ArchiveKind::Layer | ArchiveKind::Source => MIB / 4,
    };
    limits.output_total_bytes = limits.output_bytes + MIB;
    limits
}

/// Unpacks a source in this very process, without the jail that is there for it: only for tests of what the extractor
/// makes of hostile bytes. Gives the number of entries.
///
/// # Errors
/// `TreeError::Refused` for what is no good archive; an input or output error where `into` can't be opened.
pub fn extract_unconfined(archive: impl Read, into: &Path, caps: &SourceCaps) -> Result<u64, TreeError> {
    let directory = super::walk::open_directory(into)?;
    let extracted = extract(archive, directory, &Order::source(caps)).map_err(refused)?;
    Ok(extracted.figures.entries)
}

/// Is the extractor, when this program was started as such inside its jail: unpacks standard input, reports on
/// standard output and ends the process. Returns at once otherwise.
///
/// To be called before argument parsing, right after the jail's own entry.
pub fn extract_entry() {
    let arguments: Vec<_> = std::env::args_os().skip(1).take(3).collect();
    let [verb, order] = arguments.as_slice() else { return };
    if verb != VERB {
        return;
    }
    let result = serde_json::from_slice::<Order>(order.as_encoded_bytes())
        .map_err(|error| {
            Refusal::new(RefusalCode::ExtractionFailed, format!("the order can't be read: {error}"))
        })
        .and_then(|order| {
            let directory = super::walk::open_directory(Path::new(OUT))
                .map_err(|error| Refusal::new(RefusalCode::ExtractionFailed, error.to_string()))?;
            extract(io::stdin().lock(), directory, &order)
        });
    let (report, code) = match &result {
        Ok(extracted) => (serde_json::to_vec(extracted), 0),
        Err(refusal) => (serde_json::to_vec(refusal), REFUSED),
    };
    let mut out = io::stdout();
    let written =
        report.map_err(io::Error::from).and_then(|report| out.write_all(&report)).and_then(|()| out.flush());
    std::process::exit(if written.is_ok() { code } else { 4 });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_its_middle_is_refused_though_it_can_be_read() {
        let removed: Vec<String> = (0..4).map(|n| format!("d/{n}")).collect();
        let whole = serde_json::to_vec(&removed).unwrap();
        // Cut between two names, as chance has it: both ends together are a list again.
        let cut = [&whole[..7], &whole[13..]].concat();
        assert!(serde_json::from_slice::<Vec<String>>(&cut).is_ok_and(|read| read.len() < removed.len()));
        let stdout = Captured { bytes: cut, dropped: 6, dropped_at: 7 };
        assert!(report::<Vec<String>>(&stdout).is_err_and(|why| why.contains("6 bytes of it were dropped")));
        let stdout = Captured { bytes: whole, ..Captured::default() };
        assert_eq!(report::<Vec<String>>(&stdout), Ok(removed));
    }

    #[test]
    fn the_report_of_every_deletion_fits() {
        let room = limits(&Order::foreign()).output_bytes;
        assert!(room > 2 * MARKS_BYTES as u64 + 3 * 100_000 && room <= 64 * MIB);
    }

    #[test]
    fn the_outside_id_is_one_that_exists() {
        assert_eq!(free_id("         0          0 4294967295\n"), Some(OUTSIDE_ID));
        assert_eq!(free_id("0 100000 65536\n"), Some(62_536));
        assert_eq!(free_id("0 1000 1\n"), None);
        assert_eq!(free_id("nonsense"), None);
    }
}
