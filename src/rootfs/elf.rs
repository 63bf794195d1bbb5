//! What an ELF file tells about what it needs.

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::read::{Error, ReadRef as _};

/// What the loader would read from an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElfFacts {
    /// The number of the machine it is for (`EM_…`).
    pub(crate) machine: u16,
    /// The loader it names; libraries mostly have none.
    pub(crate) interpreter: Option<String>,
    /// The names of the libraries it needs.
    pub(crate) needed: Vec<String>,
    /// Folders of `DT_RPATH`, which hold for the libraries below it too, unless it has a run path.
    pub(crate) rpath: Vec<String>,
    /// Folders of `DT_RUNPATH`.
    pub(crate) runpath: Vec<String>,
    /// The name it has as a library.
    pub(crate) soname: Option<String>,
    /// Whether the kernel could start it: it names a loader, or is of the fixed-address kind, or is a static one.
    pub(crate) program: bool,
}

/// Whether bytes start as an ELF file does.
pub(crate) fn is_elf(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF")
}

/// The number an ELF file for this architecture carries.
pub(crate) fn machine_of(architecture: &str) -> Option<u16> {
    match architecture {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    }
}

/// Reads the facts of a 64-bit ELF file.
pub(crate) fn parse(data: &[u8]) -> Result<ElfFacts, Error> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut facts = ElfFacts {
        machine: header.e_machine(endian).0,
        interpreter: None,
        needed: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        soname: None,
        program: header.e_type(endian) == elf::ET_EXEC,
    };
    let mut dynamic: &[elf::Dyn64<Endianness>] = &[];
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            facts.interpreter = Some(text(path));
            facts.program = true;
        }
        if let Some(entries) = segment.dynamic(endian, data)? {
            dynamic = entries;
        }
    }
    let (mut table, mut table_size, mut pie) = (None, 0, false);
    let live = || dynamic.iter().take_while(|entry| entry.tag(endian) != elf::DT_NULL);
    for entry in live() {
        match entry.tag(endian) {
            elf::DT_STRTAB => table = Some(entry.val(endian)),
            elf::DT_STRSZ => table_size = entry.val(endian),
            // The flag that tells a position-independent program, also a static one, from a library.
            elf::DT_FLAGS_1 => pie = entry.val(endian) & 0x0800_0000 != 0,
            _ => {}
        }
    }
    facts.program |= pie;
    let Some(address) = table else { return Ok(facts) };
    let offset = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| {
            let start = segment.p_vaddr(endian);
            let inside = address.checked_sub(start)?;
            (inside < segment.p_filesz(endian))
                .then(|| segment.p_offset(endian).checked_add(inside))
                .flatten()
        })
        .unwrap_or(u64::MAX);
    let strings = data.read_bytes_at(offset, table_size).unwrap_or_default();
    for entry in live() {
        let start = usize::try_from(entry.val(endian)).unwrap_or(usize::MAX);
        let name = || {
            let rest = strings.get(start..)?;
            let end = rest.iter().position(|&byte| byte == 0)?;
            Some(text(&rest[..end]))
        };
        let folders = || {
            name().unwrap_or_default().split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        match entry.tag(endian) {
            elf::DT_NEEDED => facts.needed.push(name().unwrap_or_else(|| "(unreadable name)".to_owned())),
            elf::DT_SONAME => facts.soname = name(),
            elf::DT_RPATH => facts.rpath = folders(),
            elf::DT_RUNPATH => facts.runpath = folders(),
            _ => {}
        }
    }
    Ok(facts)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_running_test_is_a_program_for_this_machine() {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let facts = parse(&data).unwrap();
        assert!(facts.program, "{facts:?}");
        assert_eq!(Some(facts.machine), machine_of(std::env::consts::ARCH));
        assert!(facts.soname.is_none());
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic() {
        let mut data = std::fs::read("/proc/self/exe").unwrap();
        data.truncate(4096);
        for cut in [0, 3, 4, 63, 64, 65, 300, 4095] {
            let _ = parse(&data[..cut]);
        }
        for place in 16..600 {
            let mut altered = data.clone();
            altered[place] ^= 0xff;
            let _ = parse(&altered);
        }
        assert!(parse(b"\x7fELF").is_err());
    }
}
