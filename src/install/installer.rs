//! What callers use: making changes, listing, recovery.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{Action, Principal};
use crate::blobs::Blobs;
use crate::changes::{self, Changes, NewChange, TaskSet};
use crate::names::{ChangeId, Clock, Digest, Faults, PackId, PackageName, Random, Version};
use crate::packs;
use crate::state::{Read, State, StateError, Tx};
use crate::trees::{Trees, chain_ids};

use super::error::{InstallError, InstallRefusal};
use super::folder::{Folder, Mended};
use super::record::{self, INSTALLED, Installed};
use super::tasks::{self, InstallData, RemoveData};

/// What an installer works with.
pub struct InstallParts {
    /// The root directory.
    pub root: PathBuf,
    /// All records.
    pub state: State,
    /// All bytes.
    pub blobs: Blobs,
    /// Unpacked layers.
    pub trees: Trees,
    /// The engine that runs the tasks.
    pub changes: Changes,
    /// The present instant.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub random: Arc<dyn Random>,
    /// Where crash tests stop.
    pub faults: Faults,
}

/// Installs and removes packs by changes, and keeps `bin/` as the records say.
#[derive(Clone)]
pub struct Installer(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) parts: InstallParts,
    pub(super) folder: Folder,
}

/// An installed package as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstalledView {
    /// What it is called.
    pub name: String,
    /// Who publishes it.
    pub publisher: String,
    /// The installed version.
    pub version: String,
    /// Counts the installations of this package.
    pub revision: i64,
    /// The digest of its manifest.
    pub digest: String,
    /// The commands that it offers.
    pub commands: Vec<String>,
    /// Since when, in RFC 3339.
    pub installed_at: String,
}

impl From<Installed> for InstalledView {
    fn from(record: Installed) -> Self {
        Self {
            name: record.id.name.to_string(),
            publisher: record.id.publisher.to_string(),
            version: record.version.to_string(),
            revision: record.revision,
            digest: record.digest.to_string(),
            commands: record.commands.iter().map(|command| command.name.to_string()).collect(),
            installed_at: record.since.rfc3339(),
        }
    }
}

impl Installer {
    /// An installer for a root. Wrappers will start the program that is running now.
    #[must_use]
    pub fn new(parts: InstallParts) -> Self {
        // An executable that can't be found is told of when a wrapper is written.
        let program = std::env::current_exe().unwrap_or_default();
        Self::with_program(parts, program)
    }

    pub(super) fn with_program(mut parts: InstallParts, program: PathBuf) -> Self {
        // Launch files name absolute paths without links, as running a command looks them up.
        if let Ok(root) = fs_err::canonicalize(&parts.root) {
            parts.root = root;
        }
        let folder = Folder::new(&parts.root, program, parts.faults.clone());
        Self(Arc::new(Inner { parts, folder }))
    }

    /// Adds the tasks of installing and removing to the engine's set.
    pub fn register(&self, tasks: &mut TaskSet) {
        tasks::register(&self.0, tasks);
    }

    /// Begins to install a published pack; the caller has resolved its name to the digest.
    ///
    /// What is installed already at this digest gives a change that says so and ends at once.
    ///
    /// # Errors
    /// [`InstallRefusal`] with `forbidden`, `blob_missing`, `pack_mismatch`, `change_in_progress` (which names the change
    /// in the way) or what keeps the pack from being read.
    pub async fn install(
        &self,
        id: PackId,
        version: Version,
        digest: Digest,
        by: &Principal,
    ) -> Result<ChangeId, InstallRefusal> {
        let made = async {
            check_right(by)?;
            let parts = &self.0.parts;
            // Read here already, as the change must hold the names of the commands.
            let pack = packs::load(&parts.blobs, &digest).await?;
            tasks::check_identity(&pack, &id, &version)?;
            let data = InstallData { id, version, digest, by: by.label() };
            let change = ChangeId::new(&*parts.clock, &*parts.random);
            let now = parts.clock.now();
            let commands: Vec<String> =
                pack.info.commands.iter().map(|command| command.name.to_string()).collect();
            let made = parts
                .state
                .write(move |tx| {
                    let current = tx.get(&INSTALLED, &data.id)?;
                    let new = match &current {
                        Some(current) if current.digest == data.digest => already_installed(&change, &data),
                        _ => installation(&change, &data, &commands, current.as_ref()),
                    };
                    create(tx, now, &new)
                })
                .await??;
            parts.changes.wake();
            Ok(made)
        };
        made.await.map_err(|error: InstallError| error.into())
    }

    /// Begins to remove an installed package, named `<name>` or `<publisher>/<name>`. Its data stays unless `purge`.
    ///
    /// # Errors
    /// [`InstallRefusal`] with `forbidden`, `not_installed`, `ambiguous_name` or `change_in_progress`.
    pub async fn remove(&self, name: &str, purge: bool, by: &Principal) -> Result<ChangeId, InstallRefusal> {
        let made = async {
            check_right(by)?;
            let parts = &self.0.parts;
            let (wanted, by) = (name.to_owned(), by.label());
            let change = ChangeId::new(&*parts.clock, &*parts.random);
            let now = parts.clock.now();
            let made = parts
                .state
                .write(move |tx| {
                    let record = match find(tx, &wanted)? {
                        Ok(record) => record,
                        Err(error) => return Ok(Err(error)),
                    };
                    let data = RemoveData { id: record.id.clone(), purge, by: by.clone() };
                    create(tx, now, &removal(&change, &data, &record))
                })
                .await??;
            parts.changes.wake();
            Ok(made)
        };
        made.await.map_err(|error: InstallError| error.into())
    }

    /// What is installed, in the order of publishers and names.
    ///
    /// # Errors
    /// [`InstallRefusal`] when the state can't be read.
    pub async fn list(&self) -> Result<Vec<InstalledView>, InstallRefusal> {
        let records = self.0.parts.state.read(|view| record::all(view)).await.map_err(InstallError::from)?;
        Ok(records.into_iter().map(InstalledView::from).collect())
    }

    /// Makes `bin/` agree with the records: to be called at each start, before the engine of changes.
    ///
    /// # Errors
    /// [`InstallError`] when the state can't be read or the folder can't be written.
    pub async fn recover(&self) -> Result<Mended, InstallError> {
        let records = self.0.parts.state.read(|view| record::all(view)).await?;
        let folder = self.0.folder.clone();
        tokio::task::spawn_blocking(move || folder.mend(&records))
            .await
            .map_err(|_| InstallError::Interrupted)?
    }

    /// The layer chains that installed packs, and the revisions before them, need.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub fn kept_trees(view: &impl Read) -> Result<Vec<Digest>, StateError> {
        let mut kept = Vec::new();
        for record in record::all(view)? {
            kept.extend(chain_ids(&record.layers));
            kept.extend(record.previous.iter().flat_map(|previous| chain_ids(&previous.layers)));
        }
        kept.sort();
        kept.dedup();
        Ok(kept)
    }
}

fn check_right(by: &Principal) -> Result<(), InstallError> {
    if by.may(Action::Install) { Ok(()) } else { Err(InstallError::Forbidden { who: by.label() }) }
}

/// The one installed package of a name.
fn find(view: &impl Read, name: &str) -> Result<Result<Installed, InstallError>, StateError> {
    let unknown = || InstallError::NotInstalled(name.to_owned());
    if name.contains('/') {
        let Ok(id) = PackId::parse(name) else { return Ok(Err(unknown())) };
        return Ok(view.get(&INSTALLED, &id)?.ok_or_else(unknown));
    }
    let Ok(parsed) = PackageName::parse(name) else { return Ok(Err(unknown())) };
    let mut found = record::by_name(view, &parsed)?;
    Ok(match (found.pop(), found.is_empty()) {
        (None, _) => Err(unknown()),
        (Some(record), true) => Ok(record),
        (Some(last), false) => {
            let publishers =
                found.iter().chain([&last]).map(|record| record.id.publisher.to_string()).collect();
            Err(InstallError::Ambiguous { name: name.to_owned(), publishers })
        }
    })
}

fn create(
    tx: &mut Tx<'_>,
    now: crate::names::Millis,
    new: &NewChange,
) -> Result<Result<ChangeId, InstallError>, StateError> {
    Ok(match changes::create(tx, now, new)? {
        Ok(()) => Ok(new.id.clone()),
        Err(conflict) => {
            Err(InstallError::Busy { what: conflict.key.replacen(':', " ", 1), holder: conflict.holder })
        }
    })
}

fn conflicts<'a>(id: &PackId, commands: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut keys: Vec<_> = commands.map(|command| format!("command:{command}")).collect();
    keys.sort();
    keys.dedup();
    // The package first: of two reasons it is the one that people understand.
    keys.insert(0, format!("package:{id}"));
    keys
}

fn plain_data<T: Serialize>(data: &T) -> serde_json::Value {
    serde_json::to_value(data).expect("invariant: the data of a change is plain")
}

fn installation(
    change: &ChangeId,
    data: &InstallData,
    commands: &[String],
    current: Option<&Installed>,
) -> NewChange {
    let (id, version) = (&data.id, &data.version);
    let summary = match current {
        None => format!("Install {id} {version}"),
        Some(current) => format!("Update {id} from {} to {version}", current.version),
    };
    let old = current.into_iter().flat_map(|current| &current.commands).map(|command| command.name.as_str());
    NewChange {
        id: change.clone(),
        kind: "install".to_owned(),
        summary,
        subject: id.to_string(),
        tasks: tasks::INSTALL.to_vec(),
        conflicts: conflicts(id, commands.iter().map(String::as_str).chain(old)),
        data: plain_data(data),
        by: data.by.clone(),
    }
}

fn already_installed(change: &ChangeId, data: &InstallData) -> NewChange {
    NewChange {
        id: change.clone(),
        kind: "install".to_owned(),
        summary: format!("{} {} is already installed", data.id, data.version),
        subject: data.id.to_string(),
        tasks: tasks::ALREADY_INSTALLED.to_vec(),
        conflicts: conflicts(&data.id, std::iter::empty()),
        data: plain_data(data),
        by: data.by.clone(),
    }
}

fn removal(change: &ChangeId, data: &RemoveData, record: &Installed) -> NewChange {
    NewChange {
        id: change.clone(),
        kind: "remove".to_owned(),
        summary: format!("Remove {} {}", record.id, record.version),
        subject: record.id.to_string(),
        tasks: tasks::REMOVE.to_vec(),
        conflicts: conflicts(&record.id, record.commands.iter().map(|command| command.name.as_str())),
        data: plain_data(data),
        by: data.by.clone(),
    }
}
