//! What the state knows of installed packs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blobs::Owner;
use crate::names::{ChangeId, CommandName, Digest, Millis, PackId, PackageName, Version};
use crate::packs::Pack;
use crate::state::{Read, Scan, StateError, Table, Tx, record};
use crate::trees::LayerRef;

/// Installed packs.
pub(crate) const INSTALLED: Table<PackId, Installed> = Table::new("installed");
/// Who owns which command.
pub(crate) const COMMANDS: Table<CommandName, CommandOwner> = Table::new("installed_commands");

const PAGE: usize = 200;

/// An installed revision of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) id: PackId,
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    /// Counts the installations of this package.
    pub(crate) revision: i64,
    /// The change that installed it.
    pub(crate) change: ChangeId,
    pub(crate) layers: Vec<LayerRef>,
    /// Every blob that it needs.
    pub(crate) blobs: Vec<Digest>,
    pub(crate) commands: Vec<Command>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) since: Millis,
    pub(crate) by: String,
    /// The revision before it, without its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Box<Installed>>,
}
record!(Installed, 1);

/// A command of an installed pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) name: CommandName,
    /// The program and the arguments that come before those of the caller.
    pub(crate) argv: Vec<String>,
}

/// The owner of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandOwner {
    pub(crate) pack: PackId,
}
record!(CommandOwner, 1);

impl Installed {
    /// The record of a pack that is being installed over `current`.
    pub(crate) fn over(
        current: Option<&Self>,
        pack: &Pack,
        change: &ChangeId,
        since: Millis,
        by: &str,
    ) -> Self {
        let commands = pack.info.commands.iter().map(|command| Command {
            name: command.name.clone(),
            argv: std::iter::once(&command.path).chain(&command.arguments).cloned().collect(),
        });
        Self {
            id: PackId { publisher: pack.info.publisher.clone(), name: pack.info.name.clone() },
            version: pack.info.version.clone(),
            digest: pack.digest.clone(),
            revision: current.map_or(0, |current| current.revision) + 1,
            change: change.clone(),
            layers: pack.layers.clone(),
            blobs: pack.blobs(),
            commands: commands.collect(),
            env: pack.env.clone(),
            since,
            by: by.to_owned(),
            previous: current.map(|current| Box::new(Self { previous: None, ..current.clone() })),
        }
    }

    /// As which it refers to its blobs.
    pub(crate) fn owner(&self) -> Owner {
        Owner::new("installed", format!("{}#{}", self.id, self.revision))
    }
}

/// Whether a pack is installed, now or as the revision before, under this key.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn installed_stands(tx: &Tx<'_>, key: &str, digest: &Digest) -> Result<bool, StateError> {
    let Some(id) = key.rsplit_once('#').and_then(|(id, _)| PackId::parse(id).ok()) else { return Ok(false) };
    let Some(record) = tx.get(&INSTALLED, &id)? else { return Ok(false) };
    let mut revisions = std::iter::once(&record).chain(record.previous.as_deref());
    Ok(revisions.any(|one| format!("{}#{}", one.id, one.revision) == key && one.blobs.contains(digest)))
}

/// All records, in the order of their names.
pub(crate) fn all(view: &impl Read) -> Result<Vec<Installed>, StateError> {
    let mut found: Vec<Installed> = Vec::new();
    loop {
        let scan = match found.last() {
            None => Scan::all(),
            Some(last) => Scan::all().after(&last.id),
        };
        let page = view.scan(&INSTALLED, &scan, PAGE)?;
        let full = page.len() == PAGE;
        found.extend(page.into_iter().map(|(_, record)| record));
        if !full {
            return Ok(found);
        }
    }
}

/// The records of a name, whoever publishes it.
pub(crate) fn by_name(view: &impl Read, name: &PackageName) -> Result<Vec<Installed>, StateError> {
    Ok(all(view)?.into_iter().filter(|record| record.id.name == *name).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::install) fn installed(id: &str, commands: &[&str]) -> Installed {
        Installed {
            id: PackId::parse(id).unwrap(),
            version: Version::parse("1.0.0").unwrap(),
            digest: Digest::of(id.as_bytes()),
            revision: 1,
            change: ChangeId::parse("change").unwrap(),
            layers: vec![LayerRef { digest: Digest::of(b"layer"), diff_id: Digest::of(b"tar") }],
            blobs: Vec::new(),
            commands: commands
                .iter()
                .map(|name| Command {
                    name: CommandName::parse(name).unwrap(),
                    argv: vec!["/usr/bin/python3".to_owned(), "-m".to_owned(), (*name).to_owned()],
                })
                .collect(),
            env: crate::packs::environment(),
            since: Millis(1),
            by: "uid:0".to_owned(),
            previous: None,
        }
    }
}
