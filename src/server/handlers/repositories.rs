//! Repositories, for operators.

pub(in crate::server) mod create;
pub(in crate::server) mod delete;
pub(in crate::server) mod images;
pub(in crate::server) mod list;
pub(in crate::server) mod retention;
pub(in crate::server) mod set;
pub(in crate::server) mod show;
pub(in crate::server) mod tags;

use axum::body::Body;
use serde::{Deserialize, Serialize};

use crate::access::{Action, Right};
use crate::names::RepoName;
use crate::repos::{RepositorySettings, RepositoryView};
use crate::server::body::collect_or_refuse;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};

/// A request has no more bytes than this.
const BODY_CAP: u64 = 64 * 1024;

/// A repository.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Repository {
    /// The first segment of the names below it.
    name: String,
    /// `local`: uploaded here.
    r#type: &'static str,
    /// What kind of packages it holds: `docker`.
    package: &'static str,
    /// Only Pantry itself writes there.
    reserved: bool,
    /// When it was made, RFC 3339.
    created_at: String,
    /// Names below it that hold something.
    images: u64,
    /// Manifests of all images.
    manifests: u64,
    /// Tags of all images.
    tags: u64,
    /// Blobs of all images, those that several hold as often.
    blobs: u64,
    /// Bytes of these manifests and blobs; on disk what is shared lies once.
    bytes: u64,
    /// What the operator set.
    settings: RepositorySettings,
}

impl From<RepositoryView> for Repository {
    fn from(view: RepositoryView) -> Self {
        let RepositoryView { name, reserved, created_at, settings, totals } = view;
        Self {
            name,
            r#type: "local",
            package: "docker",
            reserved,
            created_at: created_at.rfc3339(),
            images: totals.images,
            manifests: totals.manifests,
            tags: totals.tags,
            blobs: totals.blobs,
            bytes: totals.bytes,
            settings,
        }
    }
}

/// Whether anything is done.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct DryRun {
    /// Answers as if it were done, or refuses as it would be refused, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Whether a repository is told to this caller: what it may pull or administer something in, as for `/v2/`; without the right to read
/// the status what it administers.
fn may_see(caller: &Caller, name: &str) -> bool {
    let Ok(repo) = RepoName::parse(name) else { return false };
    if !caller.0.may(Action::ReadStatus) {
        return administers(caller, name).is_ok();
    }
    caller.0.reach().touches(&repo) || administers(caller, name).is_ok()
}

/// Refuses who administers neither the server nor this repository, before it is looked whether there is such.
fn administers(caller: &Caller, name: &str) -> ApiResult<()> {
    match RepoName::parse(name) {
        Ok(repo) if caller.0.may_in(Right::Admin, &repo) => Ok(()),
        _ => caller.require(Action::Administer),
    }
}

async fn body<T: serde::de::DeserializeOwned>(body: Body, form: &'static str) -> ApiResult<T> {
    let bytes = collect_or_refuse(body, BODY_CAP).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::invalid("body_invalid", error.to_string()).hint(form))
}
