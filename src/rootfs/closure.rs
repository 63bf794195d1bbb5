//! Where the loader finds a library: on the host while gathering, inside the root while checking. One rule for both.

use super::elf::ElfFacts;
use super::tree::{NodeKind, Tree};

/// A filesystem in which libraries are looked for.
pub(crate) trait Files {
    /// The path of the regular file that `path` leads to through links, absolute, if there is one.
    fn real_file(&self, path: &str) -> Option<String>;
}

impl Files for Tree {
    fn real_file(&self, path: &str) -> Option<String> {
        let real = self.resolve(path).ok()?;
        matches!(self.nodes.get(&real)?.kind, NodeKind::File(_)).then(|| format!("/{real}"))
    }
}

/// The host's own filesystem.
pub(crate) struct Host;

impl Files for Host {
    fn real_file(&self, path: &str) -> Option<String> {
        let real = fs_err::canonicalize(path).ok()?;
        real.is_file().then(|| real.to_str().map(str::to_owned)).flatten()
    }
}

/// The name of the machine's library folder.
pub(crate) fn triplet(machine: u16) -> &'static str {
    if machine == 183 { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" }
}

/// The folders the loader looks into when nothing else is said; a host's `/usr/local` and `ld.so.conf` are left out on
/// purpose, they are its owner's.
pub(crate) fn default_folders(machine: u16) -> [String; 6] {
    let triplet = triplet(machine);
    [
        format!("/lib/{triplet}"),
        format!("/usr/lib/{triplet}"),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/lib".into(),
        "/usr/lib".into(),
    ]
}

/// The run path of a file in force, with `$ORIGIN` replaced by the folder the file is in.
pub(crate) fn run_path(facts: &ElfFacts, real_path: &str) -> Vec<String> {
    let folders = if facts.runpath.is_empty() { &facts.rpath } else { &facts.runpath };
    let origin = real_path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folders.iter().map(|folder| folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)).collect()
}

/// The path under which the loader would find `name` for the file at `real_path`, before links are followed.
///
/// Limits: a `DT_RPATH` isn't handed down to the libraries below a file; who relies on that gets a missing library.
pub(crate) fn find_library(
    files: &dyn Files,
    facts: &ElfFacts,
    real_path: &str,
    name: &str,
) -> Option<String> {
    if name.contains('/') {
        return files.real_file(name).map(|_| name.to_owned());
    }
    run_path(facts, real_path)
        .into_iter()
        .chain(default_folders(facts.machine))
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| files.real_file(path).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_the_folder_of_the_real_file() {
        let mut facts = ElfFacts {
            machine: 62,
            interpreter: None,
            needed: vec![],
            rpath: vec!["/old".into()],
            runpath: vec!["$ORIGIN/../lib".into(), "${ORIGIN}".into()],
            soname: None,
            program: false,
        };
        assert_eq!(run_path(&facts, "/opt/x/bin/y"), ["/opt/x/bin/../lib", "/opt/x/bin"]);
        facts.runpath.clear();
        assert_eq!(run_path(&facts, "/opt/x/bin/y"), ["/old"]);
    }
}
