//! The section of an executable that holds a bundle: found, written, and taken off again.
//!
//! Only little-endian 64-bit ELF is known, which is every platform Pantry runs on.

use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use fs_err::File;
use sha2::{Digest as _, Sha256};

use super::error::RootfsError;
use super::layer::{digest_of_stream, digest_text};

const SECTION_NAME: &str = ".pantry.bundle";
const HEADER_LENGTH: usize = 256;
const HEADER_BYTES: u64 = HEADER_LENGTH as u64;
const MAGIC: &[u8; 16] = b"PANTRY-BUNDLE-1\n";
const ELF_HEADER_BYTES: usize = 64;
const SECTION_ENTRY_BYTES: usize = 64;
/// No string table of section names that is read is larger.
const NAMES_LIMIT: u64 = 1 << 20;

/// A payload whose header was found intact.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) tar_offset: u64,
    pub(crate) tar_bytes: u64,
    pub(crate) tar_digest: String,
    pub(crate) manifest_digest: String,
    pub(crate) original: Original,
}

/// What the file was before the payload came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Original {
    pub(crate) size_bytes: u64,
    pub(crate) digest: String,
    table_offset: u64,
    table_entries: u16,
    names_index: u16,
}

/// The fields of an ELF header that matter here.
struct Header {
    bytes: [u8; ELF_HEADER_BYTES],
}

impl Header {
    fn read(file: &mut File, path: &Path) -> Result<Self, RootfsError> {
        let unusable =
            |detail: &str| RootfsError::Executable { path: path.to_owned(), detail: detail.to_owned() };
        let mut bytes = [0; ELF_HEADER_BYTES];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => unusable("it is no ELF executable"),
            _ => RootfsError::File(error),
        })?;
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(unusable("it is no little-endian 64-bit ELF executable"));
        }
        let header = Self { bytes };
        if header.table_entries() > 0 && usize::from(header.u16(0x3a)) != SECTION_ENTRY_BYTES {
            return Err(unusable("its section table has entries of another size"));
        }
        Ok(header)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn table_offset(&self) -> u64 {
        u64_at(&self.bytes, 0x28)
    }

    fn table_entries(&self) -> u16 {
        self.u16(0x3c)
    }

    fn names_index(&self) -> u16 {
        self.u16(0x3e)
    }

    fn set_table(&mut self, offset: u64, entries: u16, names_index: u16) {
        self.bytes[0x28..0x30].copy_from_slice(&offset.to_le_bytes());
        let size: u16 = if entries == 0 { 0 } else { 64 };
        self.bytes[0x3a..0x3c].copy_from_slice(&size.to_le_bytes());
        self.bytes[0x3c..0x3e].copy_from_slice(&entries.to_le_bytes());
        self.bytes[0x3e..0x40].copy_from_slice(&names_index.to_le_bytes());
    }
}

/// One entry of a section table, as it stands in the file.
#[derive(Clone, Copy)]
struct Section([u8; SECTION_ENTRY_BYTES]);

impl Section {
    fn name(&self) -> usize {
        u32_at(&self.0, 0) as usize
    }

    fn range(&self) -> (u64, u64) {
        (u64_at(&self.0, 0x18), u64_at(&self.0, 0x20))
    }

    fn put(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

struct Table {
    sections: Vec<Section>,
    names: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |four| u32::from_le_bytes(four.try_into().expect("invariant: four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .map_or(0, |eight| u64::from_le_bytes(eight.try_into().expect("invariant: eight bytes")))
}

fn read_table(file: &mut File, header: &Header, path: &Path) -> Result<Table, RootfsError> {
    let cut = |detail: &str| RootfsError::PayloadCut { path: path.to_owned(), detail: detail.to_owned() };
    let size = file.metadata()?.len();
    let length = usize::from(header.table_entries()) * SECTION_ENTRY_BYTES;
    if header.table_offset().checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(cut("the file ends before its section table"));
    }
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(header.table_offset()))?;
    file.read_exact(&mut bytes)?;
    let sections: Vec<Section> =
        bytes.as_chunks::<SECTION_ENTRY_BYTES>().0.iter().map(|entry| Section(*entry)).collect();
    let Some(names) = sections.get(usize::from(header.names_index())) else {
        return Ok(Table { sections, names: Vec::new() });
    };
    let (offset, length) = names.range();
    if length > NAMES_LIMIT || offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(cut("the names of its sections aren't there"));
    }
    let mut names = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(length).read_to_end(&mut names)?;
    Ok(Table { sections, names })
}

/// Finds the payload of an executable; `None` when it has none.
///
/// Reads the headers only. A file that ends before its section table is taken as cut, since the table is the last
/// thing in a file with a payload.
pub(crate) fn find(path: &Path) -> Result<Option<Payload>, RootfsError> {
    let mut file = File::open(path)?;
    let header = Header::read(&mut file, path)?;
    if header.table_offset() == 0 || header.table_entries() == 0 {
        return Ok(None);
    }
    let table = read_table(&mut file, &header, path)?;
    let named = |section: &&Section| {
        table.names.get(section.name()..).is_some_and(|rest| {
            rest.strip_prefix(SECTION_NAME.as_bytes()).is_some_and(|after| after.first() == Some(&0))
        })
    };
    let mut ours = table.sections.iter().filter(named);
    let Some(section) = ours.next() else { return Ok(None) };
    let altered =
        |detail: &str| RootfsError::PayloadAltered { path: path.to_owned(), detail: detail.to_owned() };
    if ours.next().is_some() {
        return Err(altered("it is there twice"));
    }
    let (offset, length) = section.range();
    if offset.checked_add(length).is_none_or(|end| end > file.metadata().map_or(0, |meta| meta.len())) {
        return Err(RootfsError::PayloadCut {
            path: path.to_owned(),
            detail: "the file ends before its section does".to_owned(),
        });
    }
    let mut bytes = [0; HEADER_LENGTH];
    file.seek(SeekFrom::Start(offset))?;
    if length < HEADER_BYTES {
        return Err(altered("its section is too short"));
    }
    file.read_exact(&mut bytes)?;
    let payload =
        decode(&bytes, offset + HEADER_BYTES).ok_or_else(|| altered("its header isn't what was written"))?;
    if payload.tar_bytes != length - HEADER_BYTES {
        return Err(altered("its section has another length than its header says"));
    }
    Ok(Some(payload))
}

fn encode(payload: &Payload) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    let original = &payload.original;
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..24].copy_from_slice(&payload.tar_bytes.to_le_bytes());
    bytes[24..56].copy_from_slice(&raw(&payload.tar_digest));
    bytes[56..88].copy_from_slice(&raw(&payload.manifest_digest));
    bytes[88..96].copy_from_slice(&original.size_bytes.to_le_bytes());
    bytes[96..128].copy_from_slice(&raw(&original.digest));
    bytes[128..136].copy_from_slice(&original.table_offset.to_le_bytes());
    bytes[136..138].copy_from_slice(&original.table_entries.to_le_bytes());
    bytes[138..140].copy_from_slice(&original.names_index.to_le_bytes());
    let seal = Sha256::digest(&bytes[..224]);
    bytes[224..].copy_from_slice(&seal);
    bytes
}

fn decode(bytes: &[u8; HEADER_LENGTH], tar_offset: u64) -> Option<Payload> {
    if &bytes[..16] != MAGIC || Sha256::digest(&bytes[..224])[..] != bytes[224..] {
        return None;
    }
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Some(Payload {
        tar_offset,
        tar_bytes: u64_at(bytes, 16),
        tar_digest: digest_text(&bytes[24..56]),
        manifest_digest: digest_text(&bytes[56..88]),
        original: Original {
            size_bytes: u64_at(bytes, 88),
            digest: digest_text(&bytes[96..128]),
            table_offset: u64_at(bytes, 128),
            table_entries: short(136),
            names_index: short(138),
        },
    })
}

/// The 32 bytes of a digest; zeros for anything else.
fn raw(digest: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte =
            hex.get(place * 2..place * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    bytes
}

/// Appends a section with a payload to the executable in `file`, which has none.
///
/// `write_tar` writes the tar and gives its length and digest.
pub(crate) fn append(
    file: &mut File,
    path: &Path,
    manifest_digest: &str,
    write_tar: impl FnOnce(&mut dyn Write) -> Result<(u64, String), RootfsError>,
) -> Result<Payload, RootfsError> {
    let unusable =
        |detail: &str| RootfsError::Executable { path: path.to_owned(), detail: detail.to_owned() };
    let mut header = Header::read(file, path)?;
    let mut table = if header.table_offset() == 0 || header.table_entries() == 0 {
        Table { sections: Vec::new(), names: Vec::new() }
    } else {
        read_table(file, &header, path)?
    };
    file.seek(SeekFrom::Start(0))?;
    let (digest, size_bytes) = digest_of_stream(file).map_err(RootfsError::stream(path))?;
    let original = Original {
        size_bytes,
        digest,
        table_offset: header.table_offset(),
        table_entries: header.table_entries(),
        names_index: header.names_index(),
    };
    let mut names_index = usize::from(header.names_index());
    if table.sections.is_empty() || table.names.is_empty() {
        // A file without a section table gets the smallest one: the empty entry and the names.
        let mut names = Section([0; SECTION_ENTRY_BYTES]);
        names.0[..4].copy_from_slice(&1_u32.to_le_bytes());
        names.0[4..8].copy_from_slice(&3_u32.to_le_bytes());
        names.put(0x30, 1);
        table.sections = vec![Section([0; SECTION_ENTRY_BYTES]), names];
        table.names = b"\0.shstrtab\0".to_vec();
        names_index = 1;
    }
    if table.sections.len() >= 0xff00 - 1 || names_index >= table.sections.len() {
        return Err(unusable("its section table is of the extended kind"));
    }
    let start = align(file, 16)?;
    file.write_all(&[0; HEADER_LENGTH])?;
    let mut buffered = io::BufWriter::with_capacity(1 << 17, &mut *file);
    let (tar_bytes, tar_digest) = write_tar(&mut buffered)?;
    buffered.flush().map_err(RootfsError::stream(path))?;
    drop(buffered);

    let names_offset = align(file, 8)?;
    let mut ours = Section([0; SECTION_ENTRY_BYTES]);
    let name = u32::try_from(table.names.len()).map_err(|_| unusable("it has too many section names"))?;
    ours.0[..4].copy_from_slice(&name.to_le_bytes());
    // PROGBITS without flags: kept by tools, loaded by nobody.
    ours.0[4..8].copy_from_slice(&1_u32.to_le_bytes());
    ours.put(0x18, start);
    ours.put(0x20, HEADER_BYTES + tar_bytes);
    ours.put(0x30, 16);
    table.names.extend_from_slice(SECTION_NAME.as_bytes());
    table.names.push(0);
    table.sections[names_index].put(0x18, names_offset);
    table.sections[names_index].put(0x20, table.names.len() as u64);
    table.sections.push(ours);
    file.write_all(&table.names)?;
    let table_offset = align(file, 8)?;
    for section in &table.sections {
        file.write_all(&section.0)?;
    }
    let payload = Payload {
        tar_offset: start + HEADER_BYTES,
        tar_bytes,
        tar_digest,
        manifest_digest: manifest_digest.to_owned(),
        original,
    };
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&encode(&payload))?;
    let count = |number: usize| u16::try_from(number).map_err(|_| unusable("it has too many sections"));
    header.set_table(table_offset, count(table.sections.len())?, count(names_index)?);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.bytes)?;
    Ok(payload)
}

/// Writes zeros up to the next multiple of `to` at the end of a file, and gives that place.
fn align(file: &mut File, to: u64) -> Result<u64, RootfsError> {
    let end = file.seek(SeekFrom::End(0))?;
    let place = end.next_multiple_of(to);
    for _ in end..place {
        file.write_all(&[0])?;
    }
    Ok(place)
}

/// Copies an executable without its payload.
///
/// The result is the very file the payload was added to, or, when a tool rewrote it since, that one's loaded part
/// without any section: the same bytes for the same input in either case.
pub(crate) fn copy_without(path: &Path, payload: &Payload, out: &mut File) -> Result<(), RootfsError> {
    let mut file = File::open(path)?;
    let original = &payload.original;
    let mut header = Header::read(&mut file, path)?;
    header.set_table(original.table_offset, original.table_entries, original.names_index);
    copy_start(&mut file, path, original.size_bytes, &header, out)?;
    out.seek(SeekFrom::Start(0))?;
    if digest_of_stream(out).map_err(RootfsError::stream(path))?.0 == original.digest {
        return Ok(());
    }
    let loaded = loaded_bytes(&mut file, path, &header)?;
    header.set_table(0, 0, 0);
    out.set_len(0)?;
    copy_start(&mut file, path, loaded, &header, out)
}

fn copy_start(
    file: &mut File,
    path: &Path,
    length: u64,
    header: &Header,
    out: &mut File,
) -> Result<(), RootfsError> {
    file.seek(SeekFrom::Start(0))?;
    out.seek(SeekFrom::Start(0))?;
    io::copy(&mut file.take(length), out).map_err(RootfsError::stream(path))?;
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&header.bytes)?;
    Ok(())
}

/// Where the last loaded byte of an executable is.
fn loaded_bytes(file: &mut File, path: &Path, header: &Header) -> Result<u64, RootfsError> {
    let unusable =
        || RootfsError::Executable { path: path.to_owned(), detail: "its segments can't be read".to_owned() };
    let (offset, size, count) =
        (u64_at(&header.bytes, 0x20), u64::from(header.u16(0x36)), u64::from(header.u16(0x38)));
    if size != 56 {
        return Err(unusable());
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(size * count).read_to_end(&mut bytes)?;
    let ends = bytes
        .as_chunks::<56>()
        .0
        .iter()
        .map(|segment| u64_at(segment, 0x08).saturating_add(u64_at(segment, 0x20)));
    let end = ends.chain([offset + size * count]).max().unwrap_or(0);
    if bytes.len() as u64 != size * count || end > file.metadata()?.len() { Err(unusable()) } else { Ok(end) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::layer::digest_of;

    #[test]
    fn a_header_survives_and_no_bit_of_it_can_change() {
        let payload = Payload {
            tar_offset: 4096,
            tar_bytes: 77,
            tar_digest: digest_of(b"tar"),
            manifest_digest: digest_of(b"manifest"),
            original: Original {
                size_bytes: 99,
                digest: digest_of(b"file"),
                table_offset: 5,
                table_entries: 6,
                names_index: 7,
            },
        };
        let bytes = encode(&payload);
        let read = decode(&bytes, 4096).expect("what was written is read");
        assert_eq!(format!("{read:?}"), format!("{payload:?}"));
        for place in 0..bytes.len() {
            let mut altered = bytes;
            altered[place] ^= 1;
            assert!(decode(&altered, 4096).is_none(), "byte {place}");
        }
    }
}
