//! What must lie where: README, licence, components.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::manifest::{Component, ComponentType, MANIFEST_FILE, Manifest};

/// Names of the host's own packages: a module of that name at the top would hide one of them.
const HOST_NAMES: &[&str] = &[
    "commands",
    "services",
    "utils",
    "core",
    "agents",
    "device_families",
    "device_managers",
    "provisioning",
    "repositories",
    "db",
    "vendor",
    "scripts",
];
/// Most components that are found by layout.
const COMPONENTS_CAP: usize = 200;

/// The directory that holds the manifest: the unpacked root, or its only directory.
pub(crate) fn source_root(unpacked: &Path) -> PathBuf {
    if unpacked.join(MANIFEST_FILE).symlink_metadata().is_ok() {
        return unpacked.to_owned();
    }
    let mut entries = fs_err::read_dir(unpacked).into_iter().flatten().flatten();
    match (entries.next(), entries.next()) {
        (Some(only), None) if only.file_type().is_ok_and(|kind| kind.is_dir()) => only.path(),
        _ => unpacked.to_owned(),
    }
}

/// The regular file's bytes, when it is there, inside the source and not larger than `cap`.
pub(super) fn read_file(source: &Path, path: &str, cap: u64) -> Option<Vec<u8>> {
    let full = regular_file(source, path)?;
    let mut bytes = Vec::new();
    fs_err::File::open(full).ok()?.take(cap + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= cap).then_some(bytes)
}

/// The real path of a regular file in the source; a link that leaves the source counts as absent.
fn regular_file(source: &Path, path: &str) -> Option<PathBuf> {
    let root = fs_err::canonicalize(source).ok()?;
    let full = fs_err::canonicalize(root.join(path)).ok()?;
    (full.starts_with(&root) && full.is_file()).then_some(full)
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn has_document(names: &[String], stems: &[&str]) -> bool {
    names.iter().any(|name| {
        let upper = name.to_ascii_uppercase();
        let stem = upper.split(['.', '-']).next().unwrap_or_default();
        stems.contains(&stem)
    })
}

/// README, licence, components, and names that hide the host's.
pub(super) fn check(source: &Path, manifest: &mut Manifest, findings: &mut Vec<Finding>) {
    let names: Vec<String> = names_in(source);
    let files: Vec<String> = names.iter().filter(|name| source.join(name).is_file()).cloned().collect();
    if !has_document(&files, &["README"]) {
        findings.push(Finding::new(ReasonCode::RepoMissingReadme, "the source has no README at its root"));
    }
    if !has_document(&files, &["LICENSE", "LICENCE", "COPYING", "UNLICENSE"]) {
        findings
            .push(Finding::new(ReasonCode::RepoMissingLicense, "the source has no LICENSE file at its root"));
    }
    shadows(source, &names, findings);
    components(source, manifest, findings);
}

fn components(source: &Path, manifest: &mut Manifest, findings: &mut Vec<Finding>) {
    if manifest.components.is_empty() {
        manifest.components = by_layout(source, &manifest.name.to_string());
        if manifest.components.is_empty() {
            let message = "no component is declared, and none is found by its place \
                (`commands/<name>/command.py`, `agents/<name>/agent.py`, … or `command.py` at the root)";
            findings.push(Finding::new(ReasonCode::RepoNoComponentsFound, message));
        }
        return;
    }
    for component in &manifest.components {
        if regular_file(source, &component.path).is_none() {
            let message = format!("the file of component `{}` isn't in the source", component.name);
            findings.push(
                Finding::new(ReasonCode::RepoComponentFileMissing, message)
                    .file(MANIFEST_FILE)
                    .value(&component.path),
            );
        }
        let wanted = if component.kind == ComponentType::Routine { ".json" } else { ".py" };
        if !component.path.ends_with(wanted) {
            let message = format!("the file of a {} ends in `{wanted}`", component.kind.as_str());
            findings.push(
                Finding::new(ReasonCode::RepoComponentFileMissing, message)
                    .file(MANIFEST_FILE)
                    .value(&component.path),
            );
        }
    }
}

/// Components in their usual places; folders that begin with `.` or `_` are left out.
fn by_layout(source: &Path, package: &str) -> Vec<Component> {
    let mut found = Vec::new();
    for (kind, folder, file) in ComponentType::LAYOUT {
        for name in names_in(&source.join(folder)) {
            let path = format!("{folder}/{name}/{file}");
            if !name.starts_with(['.', '_'])
                && regular_file(source, &path).is_some()
                && found.len() < COMPONENTS_CAP
            {
                found.push(Component { kind, name, path, description: None });
            }
        }
    }
    if found.is_empty() && regular_file(source, "command.py").is_some() {
        let path = "command.py".to_owned();
        found.push(Component {
            kind: ComponentType::Command,
            name: package.to_owned(),
            path,
            description: None,
        });
    }
    found
}

/// A top-level `utils.py`, `utils/__init__.py` or `utils/*.py` would be imported in place of the host's `utils`.
/// The folders in which components lie by layout are no packages of that kind while they hold folders only.
fn shadows(source: &Path, names: &[String], findings: &mut Vec<Finding>) {
    for name in names {
        let module = name.strip_suffix(".py").unwrap_or(name);
        if !HOST_NAMES.contains(&module) {
            continue;
        }
        let path = source.join(name);
        let hides = if path.is_dir() {
            let layout = ComponentType::LAYOUT.iter().any(|(_, folder, _)| folder == name);
            if layout { names_in(&path).iter().any(|inner| is_python(inner)) } else { holds_python(&path, 8) }
        } else {
            name != module
        };
        if hides {
            let message = format!(
                "a top-level `{module}` would hide the host's own; put it into a package of your own"
            );
            findings.push(
                Finding::new(ReasonCode::StaticAnalysisShadowsBuiltinDir, message).file(name).value(module),
            );
        }
    }
}

fn is_python(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("py"))
}

fn holds_python(directory: &Path, depth: u32) -> bool {
    names_in(directory).iter().any(|name| {
        let path = directory.join(name);
        let is_dir = path.symlink_metadata().is_ok_and(|entry| entry.is_dir());
        if is_dir { depth > 0 && holds_python(&path, depth - 1) } else { is_python(name) }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::super::super::manifest::{parse_yaml, tests::GOOD};
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in files {
            let path = directory.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x = 1\n").unwrap();
        }
        directory
    }

    fn codes(files: &[&str], more: &str) -> (Vec<String>, Manifest) {
        let directory = tree(files);
        let mut manifest = parse_yaml(format!("{GOOD}{more}").as_bytes()).unwrap();
        let mut findings = Vec::new();
        check(directory.path(), &mut manifest, &mut findings);
        (findings.into_iter().map(|finding| finding.reason_code).collect(), manifest)
    }

    #[rstest]
    #[case(&["README.md", "LICENSE", "commands/greet/command.py"], "", &[])]
    #[case(&["readme", "LICENSE-MIT", "command.py"], "", &[])]
    #[case(&["COPYING.txt", "command.py"], "", &["repo_missing_readme"])]
    #[case(&["README", "command.py"], "", &["repo_missing_license"])]
    #[case(&["README", "LICENSE/x", "command.py"], "", &["repo_missing_license"])]
    #[case(&["README", "LICENSE"], "", &["repo_no_components_found"])]
    #[case(&["README", "LICENSE", "commands/_off/command.py", "commands/.x/command.py"], "", &["repo_no_components_found"])]
    #[case(&["README", "LICENSE", "a.py"], "components: [{type: command, name: a, path: a.py}]\n", &[])]
    #[case(&["README", "LICENSE", "a.py"], "components: [{type: command, name: a, path: b.py}]\n", &["repo_component_file_missing"])]
    #[case(&["README", "LICENSE", "a.txt"], "components: [{type: command, name: a, path: a.txt}]\n", &["repo_component_file_missing"])]
    #[case(&["README", "LICENSE", "command.py", "utils/a.py"], "", &["static_analysis_shadows_builtin_dir"])]
    #[case(&["README", "LICENSE", "command.py", "db.py"], "", &["static_analysis_shadows_builtin_dir"])]
    #[case(&["README", "LICENSE", "commands/__init__.py", "commands/a/command.py"], "", &["static_analysis_shadows_builtin_dir"])]
    #[case(&["README", "LICENSE", "command.py", "scripts/run.sh", "shared/a.py", "lib/b.py"], "", &[])]
    fn layout_rules(#[case] files: &[&str], #[case] more: &str, #[case] expected: &[&str]) {
        assert_eq!(codes(files, more).0, expected);
    }

    #[test]
    fn components_are_found_by_their_place() {
        let files = [
            "commands/b/command.py",
            "commands/a/command.py",
            "routines/r/routine.json",
            "agents/x/other.py",
        ];
        let found = codes(&files, "").1.components;
        let found: Vec<(&str, &str)> = found.iter().map(|c| (c.kind.as_str(), c.path.as_str())).collect();
        assert_eq!(
            found,
            [
                ("command", "commands/a/command.py"),
                ("command", "commands/b/command.py"),
                ("routine", "routines/r/routine.json")
            ]
        );
    }

    #[test]
    fn a_single_folder_at_the_top_is_looked_into() {
        let inner = tree(&["greeter-1.0/pantry_package.yaml"]);
        assert_eq!(source_root(inner.path()), inner.path().join("greeter-1.0"));
        let flat = tree(&["pantry_package.yaml", "a/b"]);
        assert_eq!(source_root(flat.path()), flat.path());
        let several = tree(&["a/b", "c/d"]);
        assert_eq!(source_root(several.path()), several.path());
    }

    #[test]
    fn a_link_out_of_the_source_is_as_good_as_absent() {
        let outside = tree(&["secret.py"]);
        let source = tree(&["a.py"]);
        std::os::unix::fs::symlink(outside.path().join("secret.py"), source.path().join("b.py")).unwrap();
        assert!(read_file(source.path(), "a.py", 100).is_some());
        assert!(read_file(source.path(), "b.py", 100).is_none());
        assert!(read_file(source.path(), "../a.py", 100).is_none());
        assert!(read_file(source.path(), "a.py", 2).is_none());
    }
}
