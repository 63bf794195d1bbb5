//! The bundle's description (`rootfs/bundle.yaml`), parsed once.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::RootfsError;

const BUILT_IN: &str = include_str!("../../rootfs/bundle.yaml");

/// What a bundle holds, how it is checked, and what may be missing from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleSpec {
    schema: u32,
    pub(crate) runtime: RuntimeSpec,
    pub(crate) tools: ToolsSpec,
    pub(crate) pantry: PantrySpec,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) check: CheckSpec,
    pub(crate) dangling: Vec<DanglingSpec>,
    pub(crate) trace: Vec<DanglingSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuntimeSpec {
    pub(crate) python: PythonSpec,
    pub(crate) libraries: Vec<LibrarySpec>,
    pub(crate) certificates: CertificatesSpec,
    pub(crate) trees: Vec<TreeSpec>,
    pub(crate) files: Vec<FileSpec>,
    pub(crate) links: Vec<LinkSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolsSpec {
    pub(crate) programs: Vec<FileSpec>,
    pub(crate) trees: Vec<TreeSpec>,
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) uv: UvSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PantrySpec {
    pub(crate) to: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PythonSpec {
    pub(crate) program: String,
    pub(crate) package: String,
    pub(crate) exclude: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LibrarySpec {
    pub(crate) name: String,
    pub(crate) package: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificatesSpec {
    pub(crate) folder: String,
    pub(crate) to: String,
    pub(crate) package: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeSpec {
    pub(crate) path: String,
    pub(crate) package: String,
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSpec {
    pub(crate) path: String,
    pub(crate) package: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkSpec {
    pub(crate) path: String,
    pub(crate) to: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UvSpec {
    pub(crate) to: String,
    pub(crate) version: String,
    pub(crate) wheels: BTreeMap<String, WheelSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WheelSpec {
    pub(crate) tag: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountSpec {
    pub(crate) path: String,
    mode: String,
    #[serde(default)]
    writable: Option<WritableKind>,
}

/// What a writable folder is backed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritableKind {
    /// Memory, gone at the end.
    Tmpfs,
    /// The explicit, persistent state mount.
    State,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckSpec {
    pub(crate) programs: Vec<String>,
    pub(crate) required: Vec<String>,
    pub(crate) denied: Vec<String>,
    pub(crate) budgets: Budgets,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    pub(crate) runtime: Budget,
    pub(crate) tools: Budget,
    pub(crate) pantry: Budget,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) entries: u64,
    pub(crate) mib: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DanglingSpec {
    pub(crate) path: String,
    #[serde(default, rename = "in")]
    pub(crate) within: Option<String>,
    #[serde(rename = "reason")]
    reason: String,
}

impl MountSpec {
    /// The permission bits of the empty folder.
    pub(crate) fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o755)
    }
}

impl BundleSpec {
    /// Parses a description and refuses what could never give a sound bundle.
    ///
    /// # Errors
    /// When it isn't the YAML expected, has an unknown field, another schema, a path that isn't absolute and plain, or an
    /// exception without a reason.
    pub fn parse(yaml: &str) -> Result<Self, RootfsError> {
        let spec: Self = serde_saphyr::from_str(yaml)
            .map_err(|source| RootfsError::Spec { detail: source.to_string() })?;
        spec.validate().map_err(|detail| RootfsError::Spec { detail })?;
        Ok(spec)
    }

    /// The description that is compiled in.
    ///
    /// # Errors
    /// Never in a build whose tests pass; a broken description is reported as any other.
    pub fn built_in() -> Result<Self, RootfsError> {
        Self::parse(BUILT_IN)
    }

    /// The folders of the root that a jail may make writable, and what backs each; nothing else ever is.
    pub fn writable_mounts(&self) -> impl Iterator<Item = (&str, WritableKind)> {
        self.mounts.iter().filter_map(|mount| Some((mount.path.as_str(), mount.writable?)))
    }

    fn validate(&self) -> Result<(), String> {
        if self.schema != 1 {
            return Err(format!("schema {} isn't known, this program knows 1", self.schema));
        }
        let paths = (self.mounts.iter().map(|mount| &mount.path))
            .chain(self.runtime.files.iter().chain(&self.tools.programs).map(|file| &file.path))
            .chain(self.runtime.trees.iter().chain(&self.tools.trees).map(|tree| &tree.path))
            .chain(self.runtime.links.iter().chain(&self.tools.links).map(|link| &link.path))
            .chain([
                &self.runtime.python.program,
                &self.runtime.certificates.folder,
                &self.runtime.certificates.to,
            ])
            .chain([&self.tools.uv.to, &self.pantry.to]);
        for path in paths {
            let plain = path.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            });
            if !plain {
                return Err(format!("{path:?} isn't an absolute, plain path"));
            }
        }
        for mount in &self.mounts {
            if u32::from_str_radix(&mount.mode, 8).map_or(true, |mode| mode > 0o1777) {
                return Err(format!("{} isn't a mode", mount.mode));
            }
        }
        for exception in self.dangling.iter().chain(&self.trace) {
            if exception.reason.trim().is_empty() {
                return Err(format!("the exception {:?} has no reason", exception.path));
            }
        }
        for (architecture, wheel) in &self.tools.uv.wheels {
            if wheel.sha256.len() != 64 || !wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("the wheel for {architecture} has no SHA-256"));
            }
        }
        Ok(())
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else { return rest.is_empty() };
    for part in middle {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether a path below a tree is left out: the path, one of its folders, or one of its names fits a pattern.
pub(crate) fn excluded(patterns: &[String], relative: &str) -> bool {
    let starts = relative.match_indices('/').map(|(place, _)| &relative[..place]).chain([relative]);
    starts.into_iter().any(|start| {
        let name = start.rsplit('/').next().unwrap_or(start);
        patterns.iter().any(|pattern| fits(pattern, start) || fits(pattern, name))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_description_is_valid() {
        let spec = BundleSpec::built_in().unwrap();
        let writable: Vec<_> = spec.writable_mounts().collect();
        assert_eq!(writable, [("/tmp", WritableKind::Tmpfs), ("/var/lib/pantry", WritableKind::State)]);
        assert!(spec.tools.uv.wheels.contains_key("x86_64") && spec.tools.uv.wheels.contains_key("aarch64"));
    }

    #[test]
    fn faulty_descriptions_are_refused_with_what_is_wrong() {
        for (from, to, word) in [
            ("schema: 1", "schema: 2", "schema 2"),
            ("path: /etc/mime.types", "path: etc/mime.types", "etc/mime.types"),
            ("path: /etc/mime.types", "path: /etc/../mime.types", "mime.types"),
            ("mode: \"1777\"", "mode: \"9\"", "mode"),
            ("dangling:\n", "dangling:\n  - { path: /x, reason: \" \" }\n", "reason"),
            ("schema: 1", "schema: 1\nextra: 1", "extra"),
        ] {
            let faulty = BUILT_IN.replace(from, to);
            assert_ne!(faulty, BUILT_IN, "{from}");
            let error = BundleSpec::parse(&faulty).err().unwrap();
            assert_eq!(error.code(), "rootfs_spec_invalid");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn patterns() {
        assert!(
            fits("*.a", "libx.a")
                && !fits("*.a", "libx.ab")
                && fits("a*b*c", "a1b2c")
                && !fits("ab*ba", "aba")
        );
        assert!(fits("test", "test") && !fits("test", "tests") && fits("*", ""));
        let patterns = ["test".to_owned(), "lib-dynload/_test*".to_owned()];
        assert!(excluded(&patterns, "unittest/test/x.py") && excluded(&patterns, "lib-dynload/_testcapi.so"));
        assert!(!excluded(&patterns, "unittest/case.py") && !excluded(&patterns, "_testing.py"));
    }
}
