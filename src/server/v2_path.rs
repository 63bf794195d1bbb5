//! Paths below `/v2/`, read from the right, as names have slashes in them.

/// Where extensions are discovered; no name has a segment that begins so.
const DISCOVER: &str = "_oci/ext/discover";

/// What a path below `/v2/` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// The registry itself.
    Base,
    /// The list of repositories.
    Catalogue,
    /// The list of extensions, of the registry or of a repository.
    Extensions {
        /// The repository.
        name: Option<&'a str>,
    },
    /// The list of tags.
    Tags {
        /// The repository.
        name: &'a str,
    },
    /// A manifest by tag or digest.
    Manifest {
        /// The repository.
        name: &'a str,
        /// The tag or digest.
        reference: &'a str,
    },
    /// A blob by digest.
    Blob {
        /// The repository.
        name: &'a str,
        /// The digest.
        digest: &'a str,
    },
    /// Where uploads begin.
    Uploads {
        /// The repository.
        name: &'a str,
    },
    /// An upload under way.
    Upload {
        /// The repository.
        name: &'a str,
        /// The upload.
        id: &'a str,
    },
    /// What refers to a manifest.
    Referrers {
        /// The repository.
        name: &'a str,
        /// The subject.
        digest: &'a str,
    },
}

impl<'a> Target<'a> {
    /// Reads what follows `/v2/`; `None` when it means nothing. Names and references are not checked here.
    pub(super) fn parse(rest: &'a str) -> Option<Self> {
        if rest.is_empty() {
            return Some(Self::Base);
        }
        if rest == "_catalog" {
            return Some(Self::Catalogue);
        }
        if rest == DISCOVER {
            return Some(Self::Extensions { name: None });
        }
        if let Some(name) = rest.strip_suffix(DISCOVER).and_then(|name| name.strip_suffix('/')) {
            return named(name).map(|name| Self::Extensions { name: Some(name) });
        }
        let begins = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"));
        if let Some(name) = begins {
            return named(name).map(|name| Self::Uploads { name });
        }
        let (before, last) = rest.rsplit_once('/')?;
        if last.is_empty() {
            return None;
        }
        let (name, kind) = before.rsplit_once('/')?;
        match kind {
            "tags" if last == "list" => named(name).map(|name| Self::Tags { name }),
            "manifests" => named(name).map(|name| Self::Manifest { name, reference: last }),
            "blobs" => named(name).map(|name| Self::Blob { name, digest: last }),
            "referrers" => named(name).map(|name| Self::Referrers { name, digest: last }),
            "uploads" => {
                let name = named(name.strip_suffix("/blobs")?)?;
                Some(Self::Upload { name, id: last })
            }
            _ => None,
        }
    }

    /// What it is called in logs and metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Base => "/v2/",
            Self::Catalogue => "/v2/_catalog",
            Self::Extensions { .. } => "/v2/{name}/_oci/ext/discover",
            Self::Tags { .. } => "/v2/{name}/tags/list",
            Self::Manifest { .. } => "/v2/{name}/manifests/{reference}",
            Self::Blob { .. } => "/v2/{name}/blobs/{digest}",
            Self::Uploads { .. } => "/v2/{name}/blobs/uploads/",
            Self::Upload { .. } => "/v2/{name}/blobs/uploads/{id}",
            Self::Referrers { .. } => "/v2/{name}/referrers/{digest}",
        }
    }

    /// The methods that it answers.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Base
            | Self::Catalogue
            | Self::Extensions { .. }
            | Self::Tags { .. }
            | Self::Referrers { .. } => "GET, HEAD",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "GET, PATCH, PUT, DELETE",
        }
    }
}

/// What a path below `/v2/` means, and which parts of it are names, references and ids, in their order: for tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
#[must_use]
pub fn read_v2_path(rest: &str) -> Option<(&'static str, Vec<&str>)> {
    let target = Target::parse(rest)?;
    let parts = match target {
        Target::Base | Target::Catalogue => Vec::new(),
        Target::Extensions { name } => name.into_iter().collect(),
        Target::Tags { name } | Target::Uploads { name } => vec![name],
        Target::Manifest { name, reference } => vec![name, reference],
        Target::Blob { name, digest } | Target::Referrers { name, digest } => vec![name, digest],
        Target::Upload { name, id } => vec![name, id],
    };
    Some((target.label(), parts))
}

fn named(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_read_from_the_right() {
        let blobs = "blobs/uploads";
        for (rest, expected) in [
            ("", Some(Target::Base)),
            ("_catalog", Some(Target::Catalogue)),
            ("a/tags/list", Some(Target::Tags { name: "a" })),
            ("a/b/manifests/v1", Some(Target::Manifest { name: "a/b", reference: "v1" })),
            ("a/manifests/manifests/v1", Some(Target::Manifest { name: "a/manifests", reference: "v1" })),
            ("a/tags/list/manifests/x", Some(Target::Manifest { name: "a/tags/list", reference: "x" })),
            ("a/blobs/sha256:00", Some(Target::Blob { name: "a", digest: "sha256:00" })),
            ("a/blobs/uploads/", Some(Target::Uploads { name: "a" })),
            ("a/blobs/uploads", Some(Target::Uploads { name: "a" })),
            ("a/blobs/uploads/7", Some(Target::Upload { name: "a", id: "7" })),
            (
                "a/blobs/uploads/blobs/uploads/7",
                Some(Target::Upload { name: &format!("a/{blobs}"), id: "7" }),
            ),
            ("a/referrers/sha256:00", Some(Target::Referrers { name: "a", digest: "sha256:00" })),
            ("_oci/ext/discover", Some(Target::Extensions { name: None })),
            ("a/b/_oci/ext/discover", Some(Target::Extensions { name: Some("a/b") })),
            ("/_oci/ext/discover", None),
            ("a_oci/ext/discover", None),
            ("a/uploads/7", None),
            ("manifests/v1", None),
            ("/manifests/v1", None),
            ("a/manifests/", None),
            ("tags/list", None),
            ("blobs/uploads/", None),
            ("a/tags/other", None),
            ("a", None),
            ("/", None),
        ] {
            assert_eq!(Target::parse(rest), expected, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_a_panic(rest in ".{0,60}") {
            let _ = Target::parse(&rest);
        }

        #[test]
        fn any_name_comes_back_whole(name in "[a-z]{1,9}(/(manifests|blobs|uploads|tags|list|[a-z]{1,5})){0,6}") {
            let path = format!("{name}/manifests/v1");
            prop_assert_eq!(Target::parse(&path), Some(Target::Manifest { name: &name, reference: "v1" }));
            let path = format!("{name}/blobs/uploads/");
            prop_assert_eq!(Target::parse(&path), Some(Target::Uploads { name: &name }));
        }
    }
}
