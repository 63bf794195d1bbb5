//! `pantry version`.

use serde_json::json;

use super::arguments::Global;
use super::failure::Failure;
use super::output::{print, text};

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let bundle = crate::rootfs::Bundle::open_embedded()
        .map_err(|error| Failure::local(error.code(), error.to_string()).with_hint(error.hint()))?;
    let value = json!({
        "version": env!("PANTRY_BUILD_VERSION"),
        "commit": option_env!("PANTRY_BUILD_COMMIT"),
        "schema": crate::state::State::SCHEMA,
        "bundle_digest": bundle.map(|bundle| bundle.manifest_digest()),
    });
    print(global, &value, |value| {
        let bundle = value["bundle_digest"]
            .as_str()
            .map_or("no bundle embedded".to_owned(), |d| format!("bundle {d}"));
        format!(
            "pantry {} (commit {}, schema {}, {bundle})",
            text(value, "version"),
            text(value, "commit"),
            text(value, "schema")
        )
    })?;
    Ok(())
}
