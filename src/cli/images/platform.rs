//! For which machine an image is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::content::Descriptor;
use crate::cli::failure::Failure;
use crate::cli::output::safe;

/// `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

impl Platform {
    /// That of this machine.
    pub(in crate::cli) fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Parses `os/architecture[/variant]`.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, parts.next()) {
            (Some(os), Some(architecture), None)
                if !os.is_empty() && !architecture.is_empty() && variant.as_deref() != Some("") =>
            {
                Ok(Self { os, architecture, variant })
            }
            _ => Err("a platform is written as OS/ARCHITECTURE[/VARIANT], such as linux/arm64".to_owned()),
        }
    }

    /// Does an image for `other` serve who wants this? A variant counts only where one is wanted.
    fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// The first image for a platform.
pub(in crate::cli) fn choose<'a>(
    images: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, Failure> {
    let offered = |image: &'a Descriptor| image.platform.as_ref();
    images.iter().find(|image| offered(image).is_some_and(|platform| wanted.takes(platform))).ok_or_else(
        || {
            let mut there: Vec<String> =
                images.iter().filter_map(offered).map(|platform| safe(&platform.to_string())).collect();
            there.dedup();
            let there = if there.is_empty() { "none that is named".to_owned() } else { there.join(", ") };
            Failure::answered(
                404,
                "platform_unknown",
                format!("there is no image for {wanted}"),
                Some(format!("choose by --platform, or take --all; there is: {there}")),
            )
        },
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_counts_only_where_one_is_wanted() {
        let all: Vec<Descriptor> = ["linux/amd64", "linux/arm/v6", "linux/arm/v7"]
            .iter()
            .map(|text| Descriptor {
                platform: Some(Platform::parse(text).unwrap()),
                ..Descriptor::of("x", text.as_bytes())
            })
            .collect();
        let chosen =
            |text: &str| choose(&all, &Platform::parse(text).unwrap()).ok().map(|d| d.digest.clone());
        assert_eq!(chosen("linux/arm").unwrap(), all[1].digest);
        assert_eq!(chosen("linux/arm/v7").unwrap(), all[2].digest);
        assert_eq!(chosen("linux/arm/v8"), None);
        assert_eq!(chosen("windows/amd64"), None);
        for bad in ["", "linux", "linux/", "/x", "a/b/", "a/b/c/d"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }
}
