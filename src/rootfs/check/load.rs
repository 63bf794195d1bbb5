//! Reading a root filesystem into a tree, with caps.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{Finding, FindingCode};
use crate::rootfs::bundle::{Bundle, BundleLayer, LayerRole};
use crate::rootfs::error::RootfsError;
use crate::rootfs::layer::digest_text;
use crate::rootfs::spec::{Budget, BundleSpec};
use crate::rootfs::tree::{FileFacts, Node, NodeKind, Tree};

/// No single file that is looked into is larger.
pub(crate) const FILE_LIMIT: u64 = 512 << 20;

pub(super) fn from_bundle(
    bundle: &Bundle,
    spec: &BundleSpec,
    findings: &mut Vec<Finding>,
) -> Result<Tree, RootfsError> {
    let mut tree = Tree::default();
    for layer in bundle.layers() {
        let budget = budget_of(spec, layer.role);
        let mut note =
            |code, path: &str, detail: String| findings.push(Finding { code, path: path.to_owned(), detail });
        if let Err(problem) = load_layer(bundle, layer, budget, &mut tree, &mut note)? {
            note(problem.0, &layer.digest, problem.1);
        }
    }
    Ok(tree)
}

pub(super) fn budget_of(spec: &BundleSpec, role: LayerRole) -> Budget {
    match role {
        LayerRole::Runtime => spec.check.budgets.runtime,
        LayerRole::Tools => spec.check.budgets.tools,
        LayerRole::Pantry => spec.check.budgets.pantry,
    }
}

type Problem = (FindingCode, String);

/// Adds a layer's entries to the tree; the inner error is a finding about the layer as a whole.
fn load_layer(
    bundle: &Bundle,
    layer: &BundleLayer,
    budget: Budget,
    tree: &mut Tree,
    note: &mut dyn FnMut(FindingCode, &str, String),
) -> Result<Result<(), Problem>, RootfsError> {
    let mut stream = bundle.layer_reader(layer)?;
    // Beside the files' bytes a tar has a header an entry and rounds up to blocks.
    let cap = (budget.mib << 20).saturating_add(budget.entries.saturating_mul(4096));
    let hashed = Hashed { inner: GzDecoder::new(&mut stream), hash: Sha256::new(), left: cap };
    let mut tar = tar::Archive::new(hashed);
    let mut count = 0;
    let mut read_all = || -> io::Result<Result<(), Problem>> {
        for entry in tar.entries()? {
            let mut entry = entry?;
            count += 1;
            if count > budget.entries.saturating_mul(2) {
                return Ok(Err((FindingCode::Budget, format!("more than {count} entries"))));
            }
            add_entry(&mut entry, layer.role, tree, note)?;
        }
        Ok(Ok(()))
    };
    let outcome = match read_all() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problem)) => return Ok(Err(problem)),
        Err(error) => Err(error),
    };
    let mut hashed = tar.into_inner();
    let outcome = outcome.and_then(|()| io::copy(&mut hashed, &mut io::sink()).map(|_| ()));
    let diff_id = digest_text(&hashed.hash.finalize());
    let outcome = outcome.and_then(|()| io::copy(&mut stream, &mut io::sink()).map(|_| ()));
    if let Err(error) = outcome {
        let code = if error.kind() == io::ErrorKind::QuotaExceeded {
            FindingCode::Budget
        } else {
            FindingCode::Digest
        };
        return Ok(Err((code, error.to_string())));
    }
    if diff_id != layer.diff_id {
        return Ok(Err((
            FindingCode::Digest,
            format!("its tar has digest {diff_id}, not {}", layer.diff_id),
        )));
    }
    Ok(Ok(()))
}

fn add_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    role: LayerRole,
    tree: &mut Tree,
    note: &mut dyn FnMut(FindingCode, &str, String),
) -> io::Result<()> {
    let raw = entry.path_bytes().into_owned();
    let name = String::from_utf8_lossy(&raw).into_owned();
    let shown = format!("/{}", name.trim_start_matches('/'));
    let path = name.strip_suffix('/').unwrap_or(&name).to_owned();
    let plain =
        std::str::from_utf8(&raw).is_ok() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !plain {
        note(FindingCode::BadPath, &shown, "the path isn't plain and relative".to_owned());
        return Ok(());
    }
    let capabilities = entry.pax_extensions()?.is_some_and(|pax| {
        pax.flatten().any(|field| {
            field.key_bytes().starts_with(b"SCHILY.xattr.")
                || field.key_bytes().starts_with(b"LIBARCHIVE.xattr.")
        })
    });
    let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
    let file_name = path.rsplit('/').next().unwrap_or(&path);
    let kind = match entry.header().entry_type() {
        _ if file_name.starts_with(".wh.") => NodeKind::Special("deletion mark"),
        tar::EntryType::Directory => NodeKind::Directory,
        tar::EntryType::Symlink => NodeKind::Symlink(target.unwrap_or_default()),
        tar::EntryType::Regular => NodeKind::File(read_facts(entry)?),
        tar::EntryType::Link => NodeKind::Special("hard link"),
        tar::EntryType::Char | tar::EntryType::Block => NodeKind::Special("device"),
        tar::EntryType::Fifo => NodeKind::Special("pipe"),
        _ => NodeKind::Special("unknown kind"),
    };
    let header = entry.header();
    let found = Node {
        kind,
        mode: header.mode()?,
        owner: (header.uid()?, header.gid()?),
        modified: header.mtime()?,
        capabilities,
        layer: Some(role),
    };
    match tree.nodes.get(&path) {
        Some(Node { kind: NodeKind::Directory, mode, .. })
            if matches!(found.kind, NodeKind::Directory) && *mode == found.mode => {}
        Some(_) => note(FindingCode::BadPath, &shown, "it is there twice, and not the same".to_owned()),
        None => {
            tree.nodes.insert(path, found);
        }
    }
    Ok(())
}

fn read_facts(stream: &mut dyn Read) -> io::Result<FileFacts> {
    let mut content = Vec::new();
    stream.take(FILE_LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "a file is too large to look into"));
    }
    Ok(FileFacts::of(&content))
}

/// Hashes what is read and refuses to read more than its cap.
struct Hashed<R: Read> {
    inner: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::QuotaExceeded, "it unpacks to more than its budget allows")
        })?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

pub(super) fn from_directory(root: &Path, findings: &mut Vec<Finding>) -> Result<Tree, RootfsError> {
    let mut tree = Tree::default();
    let owner = fs_err::symlink_metadata(root)?;
    let own = (u64::from(owner.uid()), u64::from(owner.gid()));
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                findings.push(Finding {
                    code: FindingCode::BadPath,
                    path: format!("/{folder}/{}", name.to_string_lossy()),
                    detail: "the name isn't UTF-8".to_owned(),
                });
                continue;
            };
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let node = node_of(&entry.path(), own)?;
            if matches!(node.kind, NodeKind::Directory) {
                open.push(path.clone());
            }
            tree.nodes.insert(path, node);
        }
    }
    Ok(tree)
}

fn node_of(path: &Path, own: (u64, u64)) -> Result<Node, RootfsError> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs_err::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        NodeKind::Directory
    } else if kind.is_symlink() {
        NodeKind::Symlink(fs_err::read_link(path)?.to_string_lossy().into_owned())
    } else if kind.is_file() {
        NodeKind::File(read_facts(&mut fs_err::File::open(path)?).map_err(RootfsError::stream(path))?)
    } else if kind.is_socket() {
        NodeKind::Special("socket")
    } else if kind.is_fifo() {
        NodeKind::Special("pipe")
    } else {
        NodeKind::Special("device")
    };
    let mut nothing = [0_u8; 0];
    let capabilities = matches!(kind, NodeKind::File(_))
        && rustix::fs::lgetxattr(path, "security.capability", &mut nothing[..]).is_ok();
    let owner = (u64::from(meta.uid()), u64::from(meta.gid()));
    Ok(Node {
        kind,
        mode: meta.mode() & 0o7777,
        // Whoever unpacked it without root owns it whole; any other owner is still seen.
        owner: if owner == own { (0, 0) } else { owner },
        modified: 0,
        capabilities,
        layer: None,
    })
}
