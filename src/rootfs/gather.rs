//! The plan of a root: which host file, link or folder goes where, and what each is like.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::bundle::LayerRole;
use super::closure::{Files as _, Host, find_library};
use super::error::RootfsError;
use super::spec::{TreeSpec, excluded};
use super::tree::{FileFacts, Node, NodeKind, Tree};

/// No single file that is taken into a bundle is larger.
const FILE_LIMIT: u64 = 512 << 20;
/// No tree is deeper; a loop of links between folders ends here.
const DEPTH_LIMIT: usize = 32;

/// Where the bytes of a planned file come from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A file of the host, or of the stage.
    Path(PathBuf),
    /// Bytes made here.
    Bytes(Vec<u8>),
}

/// Everything that will be in the root, with the layer each thing belongs to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the rules and the closure look at.
    pub(crate) tree: Tree,
    /// The bytes of the files in `tree`, by the same paths.
    pub(crate) contents: BTreeMap<String, Content>,
    closed: BTreeSet<String>,
}

impl Plan {
    /// Adds a host file under the path it is looked up by, with every link on the way; gives its real path.
    ///
    /// Links of folders (a host's `/lib` → `usr/lib`) are not taken over, what lies behind them is: the root's own such
    /// links are declared.
    pub(crate) fn add_host(
        &mut self,
        path: &str,
        role: LayerRole,
        package: Option<&str>,
    ) -> Result<String, RootfsError> {
        self.add_host_at(path, role, package, 0)
    }

    fn add_host_at(
        &mut self,
        path: &str,
        role: LayerRole,
        package: Option<&str>,
        depth: usize,
    ) -> Result<String, RootfsError> {
        let missing =
            || RootfsError::Missing { path: PathBuf::from(path), package: package.map(str::to_owned) };
        let (folder, name) = path.rsplit_once('/').ok_or_else(missing)?;
        let folder = if folder.is_empty() { "/" } else { folder };
        let folder = fs_err::canonicalize(folder).map_err(|_| missing())?;
        let folder = folder.to_str().map(|text| text.trim_end_matches('/').to_owned()).ok_or_else(missing)?;
        let place = format!("{folder}/{name}");
        let key = place.trim_start_matches('/').to_owned();
        let meta = fs_err::symlink_metadata(&place).map_err(|_| missing())?;
        if meta.is_symlink() && depth < DEPTH_LIMIT {
            let target = fs_err::read_link(&place)?;
            let target = target.to_str().ok_or_else(missing)?;
            let target =
                if target.starts_with('/') { target.to_owned() } else { format!("{folder}/{target}") };
            let (behind, last) = target.rsplit_once('/').ok_or_else(missing)?;
            let behind =
                fs_err::canonicalize(if behind.is_empty() { "/" } else { behind }).map_err(|_| missing())?;
            let behind = behind.to_str().ok_or_else(missing)?.trim_end_matches('/');
            self.add_link(&key, &relative(&folder, &format!("{behind}/{last}")), role);
            return self.add_host_at(&format!("{behind}/{last}"), role, package, depth + 1);
        }
        if !meta.is_file() {
            return Err(missing());
        }
        if !self.tree.nodes.contains_key(&key) {
            self.add_file(&key, Content::Path(PathBuf::from(&place)), role)?;
        }
        Ok(place)
    }

    /// Adds a file with bytes from anywhere; it can be started only when it is ELF and could be before.
    pub(crate) fn add_file(
        &mut self,
        key: &str,
        content: Content,
        role: LayerRole,
    ) -> Result<(), RootfsError> {
        let (facts, startable) = match &content {
            Content::Bytes(bytes) => (FileFacts::of(bytes), false),
            Content::Path(path) => {
                let meta = fs_err::metadata(path)?;
                if meta.len() > FILE_LIMIT {
                    return Err(RootfsError::TooLarge {
                        path: path.clone(),
                        size_bytes: meta.len(),
                        limit_bytes: FILE_LIMIT,
                    });
                }
                (FileFacts::of(&fs_err::read(path)?), meta.permissions().mode() & 0o111 != 0)
            }
        };
        let mode = if startable && facts.elf.is_some() { 0o755 } else { 0o644 };
        self.add_node(key, NodeKind::File(facts), mode, role);
        self.contents.insert(key.to_owned(), content);
        Ok(())
    }

    /// Adds a link; the first one at a path stays.
    pub(crate) fn add_link(&mut self, key: &str, target: &str, role: LayerRole) {
        if !self.tree.nodes.contains_key(key) {
            self.add_node(key, NodeKind::Symlink(target.to_owned()), 0o777, role);
        }
    }

    /// Adds a folder with a mode of its own, to mount on.
    pub(crate) fn add_mount_point(&mut self, key: &str, mode: u32, role: LayerRole) {
        self.add_node(key, NodeKind::Directory, mode, role);
    }

    /// Adds every file of a host's tree that isn't excluded; folders come with their files.
    pub(crate) fn add_tree(&mut self, tree: &TreeSpec, role: LayerRole) -> Result<(), RootfsError> {
        let missing =
            || RootfsError::Missing { path: PathBuf::from(&tree.path), package: Some(tree.package.clone()) };
        if !Path::new(&tree.path).is_dir() {
            return Err(missing());
        }
        let mut open = vec![String::new()];
        while let Some(folder) = open.pop() {
            if folder.split('/').count() > DEPTH_LIMIT {
                return Err(missing());
            }
            for entry in fs_err::read_dir(format!("{}{folder}", tree.path))? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(missing)?;
                let below = format!("{folder}/{name}");
                if excluded(&tree.exclude, below.trim_start_matches('/')) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    open.push(below);
                } else {
                    self.add_host(&format!("{}{below}", tree.path), role, Some(&tree.package))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a library by name, as the loader would find it for a program of this machine.
    pub(crate) fn add_library(
        &mut self,
        name: &str,
        machine: u16,
        package: &str,
        role: LayerRole,
    ) -> Result<(), RootfsError> {
        let place = super::closure::default_folders(machine)
            .into_iter()
            .map(|folder| format!("{folder}/{name}"))
            .find(|path| Host.real_file(path).is_some())
            .ok_or_else(|| RootfsError::Missing {
                path: PathBuf::from(name),
                package: Some(package.to_owned()),
            })?;
        self.add_host(&place, role, Some(package)).map(|_| ())
    }

    /// Adds what the ELF files of the plan need, until nothing is missing.
    pub(crate) fn close(&mut self, role: LayerRole) -> Result<(), RootfsError> {
        loop {
            let open: Vec<_> = self
                .tree
                .nodes
                .iter()
                .filter(|(key, _)| !self.closed.contains(*key))
                .filter_map(|(key, node)| match &node.kind {
                    NodeKind::File(FileFacts { elf: Some(elf), .. }) => Some((key.clone(), elf.clone())),
                    _ => None,
                })
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            for (key, elf) in open {
                let real = format!("/{key}");
                for name in &elf.needed {
                    let place = find_library(&Host, &elf, &real, name).ok_or_else(|| {
                        RootfsError::Library { library: name.clone(), needed_by: PathBuf::from(&real) }
                    })?;
                    self.add_host(&place, role, None)?;
                }
                if let Some(interpreter) = &elf.interpreter {
                    self.add_host(interpreter, role, None)?;
                }
                self.closed.insert(key);
            }
        }
    }

    fn add_node(&mut self, key: &str, kind: NodeKind, mode: u32, role: LayerRole) {
        for (place, _) in key.match_indices('/') {
            self.tree.nodes.entry(key[..place].to_owned()).or_insert_with(|| Node {
                kind: NodeKind::Directory,
                mode: 0o755,
                owner: (0, 0),
                modified: 0,
                capabilities: false,
                layer: Some(role),
            });
        }
        let node = Node { kind, mode, owner: (0, 0), modified: 0, capabilities: false, layer: Some(role) };
        self.tree.nodes.insert(key.to_owned(), node);
    }
}

/// The way from a folder to a path, both absolute, with `..` where needed.
fn relative(folder: &str, target: &str) -> String {
    let from: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    let to: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", from.len() - shared);
    up.chain(to[shared..].iter().copied()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ways_between_folders() {
        assert_eq!(relative("/usr/lib64", "/usr/lib/x/ld.so"), "../lib/x/ld.so");
        assert_eq!(relative("/usr/lib", "/usr/lib/a.1"), "a.1");
        assert_eq!(relative("/", "/a/b"), "a/b");
        assert_eq!(relative("/a/b", "/c"), "../../c");
    }

    #[test]
    fn links_come_with_what_they_lead_to_and_scripts_cannot_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/script"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(root.join("real/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("script", root.join("real/two")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("folder")).unwrap();
        let mut plan = Plan::default();
        let asked = root.join("folder/two");
        let real = plan.add_host(asked.to_str().unwrap(), LayerRole::Runtime, None).unwrap();
        assert_eq!(Path::new(&real), root.join("real/script"));
        let node =
            |name: &str| plan.tree.nodes.get(root.join(name).to_str().unwrap().trim_start_matches('/'));
        assert!(matches!(&node("real/two").unwrap().kind, NodeKind::Symlink(target) if target == "script"));
        assert_eq!(node("real/script").unwrap().mode, 0o644);
        assert!(node("folder").is_none());
    }

    #[test]
    fn a_missing_file_names_its_package() {
        let error =
            Plan::default().add_host("/nowhere/at/all", LayerRole::Runtime, Some("thing")).unwrap_err();
        assert_eq!(error.code(), "rootfs_file_missing");
        assert!(error.hint().unwrap().contains("thing"));
    }
}
