//! One folder a noun, one file a verb.

pub(super) mod audit;
pub(super) mod blobs;
pub(super) mod catalogue;
pub(super) mod changes;
pub(super) mod collections;
mod content;
pub(super) mod damage;
pub(super) mod extensions;
pub(super) mod grants;
pub(super) mod health;
pub(super) mod installed;
pub(super) mod manifests;
pub(super) mod metrics;
pub(super) mod packages;
pub(super) mod referrers;
pub(super) mod repairs;
pub(super) mod reports;
pub(super) mod repositories;
pub(super) mod status;
pub(super) mod submissions;
pub(super) mod tags;
pub(super) mod token;
pub(super) mod tokens;
pub(super) mod uploads;
pub(super) mod users;
pub(super) mod v2;
pub(super) mod verifications;
