//! The rules, over a tree in memory.

use std::collections::BTreeMap;

use super::load::budget_of;
use super::{Finding, FindingCode};
use crate::rootfs::bundle::LayerRole;
use crate::rootfs::closure::{Files as _, find_library, run_path, triplet};
use crate::rootfs::elf::{ElfFacts, machine_of};
use crate::rootfs::spec::{BundleSpec, fits};
use crate::rootfs::tree::{DeadEnd, FileFacts, Node, NodeKind, Tree};

/// Where a tree comes from, which decides what can be asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Layers, or what will be.
    Layers,
    /// A folder on disk.
    Directory,
}

/// Holds a tree against every rule.
pub(super) fn judge(
    tree: &Tree,
    spec: &BundleSpec,
    origin: Origin,
    architecture: &str,
    findings: &mut Vec<Finding>,
) {
    let machine = machine_of(architecture).unwrap_or_default();
    let mut judge = Judge { tree, spec, machine, triplet: triplet(machine), findings };
    for (path, node) in &tree.nodes {
        judge.attributes(path, node, origin);
        judge.name(path, node);
        match &node.kind {
            NodeKind::Symlink(target) => judge.link(path, target),
            NodeKind::File(facts) => judge.file(path, node, facts),
            NodeKind::Special(what) => judge.note(FindingCode::SpecialFile, path, (*what).to_owned()),
            NodeKind::Directory => {}
        }
    }
    judge.mounts();
    judge.required();
    judge.budgets(origin);
}

pub(super) fn file_bytes(tree: &Tree) -> u64 {
    tree.nodes
        .values()
        .map(|node| if let NodeKind::File(facts) = &node.kind { facts.size_bytes } else { 0 })
        .sum()
}

struct Judge<'a> {
    tree: &'a Tree,
    spec: &'a BundleSpec,
    machine: u16,
    triplet: &'static str,
    findings: &'a mut Vec<Finding>,
}

impl Judge<'_> {
    fn note(&mut self, code: FindingCode, path: &str, detail: String) {
        self.findings.push(Finding { code, path: format!("/{path}"), detail });
    }

    fn attributes(&mut self, path: &str, node: &Node, origin: Origin) {
        if node.owner != (0, 0) {
            self.note(FindingCode::Owner, path, format!("owner {}:{}", node.owner.0, node.owner.1));
        }
        if origin == Origin::Layers && node.modified != 0 {
            self.note(FindingCode::Time, path, format!("changed at {}", node.modified));
        }
        if node.capabilities {
            self.note(FindingCode::Capabilities, path, "it has extended security attributes".to_owned());
        }
        if matches!(node.kind, NodeKind::Symlink(_)) {
            return;
        }
        if node.mode & 0o6000 != 0 {
            self.note(FindingCode::Setuid, path, format!("mode {:04o}", node.mode));
        }
        if self.spec.mounts.iter().any(|mount| mount.path.strip_prefix('/') == Some(path)) {
            return;
        }
        let expected: &[u32] =
            if matches!(node.kind, NodeKind::Directory) { &[0o755] } else { &[0o644, 0o755] };
        if !expected.contains(&(node.mode & 0o1777)) {
            self.note(FindingCode::Mode, path, format!("mode {:04o}", node.mode));
        }
    }

    fn name(&mut self, path: &str, node: &Node) {
        let name = path.rsplit('/').next().unwrap_or(path);
        let startable = match node.kind {
            NodeKind::File(_) => node.mode & 0o111 != 0,
            NodeKind::Symlink(_) => path.rsplit('/').nth(1).is_some_and(|folder| folder.ends_with("bin")),
            NodeKind::Directory | NodeKind::Special(_) => false,
        };
        let denied = |name: &str| self.spec.check.denied.iter().any(|pattern| fits(pattern, name));
        if startable && denied(name) {
            self.note(FindingCode::DeniedProgram, path, format!("{name} has no place in the root"));
        }
    }

    fn link(&mut self, path: &str, target: &str) {
        match self.tree.resolve(path) {
            Ok(_) => {}
            Err(DeadEnd::Loop) => self.note(FindingCode::LinkLoop, path, format!("to {target}")),
            Err(DeadEnd::Outside) => {
                self.note(FindingCode::LinkOutside, path, format!("to {target}, above the root"));
            }
            Err(DeadEnd::Missing) => {
                self.note(
                    FindingCode::LinkOutside,
                    path,
                    format!("to {target}, which doesn't end in the root"),
                );
            }
        }
    }

    fn file(&mut self, path: &str, node: &Node, facts: &FileFacts) {
        if facts.broken_elf {
            self.note(FindingCode::ElfUnreadable, path, "it starts as ELF".to_owned());
        }
        if let Some(elf) = &facts.elf {
            self.elf(path, elf);
        }
        if let (Some(program), true) = (&facts.shebang, node.mode & 0o111 != 0)
            && self.tree.real_file(program).is_none()
        {
            self.note(FindingCode::ShebangMissing, path, format!("#!{program}"));
        }
        // A compiled file mentions what its source does, in a form without ends of words: the source is looked at.
        let mentions = if self.has_source(path) { &[][..] } else { &facts.mentions };
        for mention in mentions {
            if self.tree.resolve(mention).is_ok() {
                continue;
            }
            let known = self.spec.dangling.iter().any(|exception| {
                let place = exception.within.as_deref().unwrap_or("*").replace("{triplet}", self.triplet);
                fits(&exception.path.replace("{triplet}", self.triplet), mention)
                    && fits(&place, &format!("/{path}"))
            });
            if !known {
                self.note(FindingCode::DanglingPath, path, mention.clone());
            }
        }
    }

    fn has_source(&self, path: &str) -> bool {
        let source = || {
            let (folder, name) = path.strip_suffix(".pyc")?.rsplit_once("/__pycache__/")?;
            Some(format!("{folder}/{}.py", name.split('.').next()?))
        };
        source().is_some_and(|source| self.tree.nodes.contains_key(&source))
    }

    fn elf(&mut self, path: &str, elf: &ElfFacts) {
        let real = format!("/{path}");
        if elf.machine != self.machine {
            self.note(FindingCode::MachineMismatch, path, format!("machine {}", elf.machine));
        }
        if let Some(interpreter) = &elf.interpreter
            && self.tree.real_file(interpreter).is_none()
        {
            self.note(FindingCode::InterpreterMissing, path, interpreter.clone());
        }
        for folder in run_path(elf, &real) {
            let inside = folder.starts_with('/')
                && self.tree.resolve(&folder).is_ok_and(|found| {
                    self.tree.nodes.get(&found).is_some_and(|node| matches!(node.kind, NodeKind::Directory))
                });
            if !inside {
                self.note(FindingCode::RunPathOutside, path, folder);
            }
        }
        for name in &elf.needed {
            if find_library(self.tree, elf, &real, name).is_none() {
                self.note(FindingCode::LibraryMissing, path, name.clone());
            }
        }
        let declared = |pattern: &String| fits(&pattern.replace("{triplet}", self.triplet), &real);
        if elf.program && !self.spec.check.programs.iter().any(declared) {
            self.note(FindingCode::UndeclaredProgram, path, "it isn't on the list of programs".to_owned());
        }
    }

    fn mounts(&mut self) {
        for mount in &self.spec.mounts {
            let path = mount.path.trim_start_matches('/');
            let problem = match self.tree.nodes.get(path) {
                None => Some("it is missing".to_owned()),
                Some(node) if !matches!(node.kind, NodeKind::Directory) => {
                    Some("it isn't a directory".to_owned())
                }
                Some(_) if self.tree.has_children(path) => Some("it isn't empty".to_owned()),
                Some(node) if node.mode & 0o7777 != mount.mode() => {
                    Some(format!("mode {:04o}, not {:04o}", node.mode, mount.mode()))
                }
                Some(_) => None,
            };
            if let Some(problem) = problem {
                self.note(FindingCode::MountPoint, path, problem);
            }
        }
        // A directory without anything in it is a place to mount on: only the declared ones may be there.
        for (path, node) in &self.tree.nodes {
            let declared = self.spec.mounts.iter().any(|mount| mount.path.trim_start_matches('/') == path);
            if matches!(node.kind, NodeKind::Directory) && !declared && !self.tree.has_children(path) {
                self.note(FindingCode::MountPoint, path, "it is empty and not declared".to_owned());
            }
        }
    }

    fn required(&mut self) {
        for path in &self.spec.check.required {
            if self.tree.resolve(path).is_err() {
                self.note(
                    FindingCode::RequiredMissing,
                    path.trim_start_matches('/'),
                    "it has to be there".to_owned(),
                );
            }
        }
    }

    fn budgets(&mut self, origin: Origin) {
        let mut sums: BTreeMap<Option<LayerRole>, (u64, u64)> = BTreeMap::new();
        for node in self.tree.nodes.values() {
            let sum = sums.entry(node.layer).or_default();
            sum.0 += 1;
            if let NodeKind::File(facts) = &node.kind {
                sum.1 += facts.size_bytes;
            }
        }
        for (role, (entries, bytes)) in sums {
            let budgets = match (role, origin) {
                (Some(role), _) => vec![budget_of(self.spec, role)],
                (None, _) => LayerRole::ALL.into_iter().map(|role| budget_of(self.spec, role)).collect(),
            };
            let name = role.map_or("", LayerRole::as_str);
            let most: u64 = budgets.iter().map(|budget| budget.entries).sum();
            if entries > most {
                self.note(
                    FindingCode::Budget,
                    "",
                    format!("{name} has {entries} entries, the budget is {most}"),
                );
            }
            let most: u64 = budgets.iter().map(|budget| budget.mib << 20).sum();
            if bytes > most {
                self.note(FindingCode::Budget, "", format!("{name} has {bytes} bytes, the budget is {most}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::tests::node;

    fn findings_of(change: impl FnOnce(&mut Tree)) -> Vec<(FindingCode, String)> {
        let mut tree = Tree::default();
        for path in ["dev", "etc", "proc", "usr", "usr/bin"] {
            tree.nodes.insert(path.into(), node(NodeKind::Directory));
        }
        for path in ["etc/a", "usr/bin/tool"] {
            tree.nodes.insert(path.into(), node(NodeKind::File(FileFacts::default())));
        }
        let mut spec = BundleSpec::built_in().expect("the built-in description is valid");
        spec.mounts.retain(|mount| mount.path == "/dev");
        tree.nodes.remove("proc");
        spec.check.required.clear();
        change(&mut tree);
        let mut findings = Vec::new();
        judge(&tree, &spec, Origin::Layers, "x86_64", &mut findings);
        findings.into_iter().map(|finding| (finding.code, finding.path)).collect()
    }

    #[test]
    fn a_sound_tree_has_no_findings() {
        assert_eq!(findings_of(|_| ()), []);
    }

    #[test]
    fn each_attribute_rule_finds_its_fault() {
        type Change = fn(&mut Node);
        let cases: [(FindingCode, Change); 6] = [
            (FindingCode::Owner, |node| node.owner = (1000, 0)),
            (FindingCode::Time, |node| node.modified = 1),
            (FindingCode::Capabilities, |node| node.capabilities = true),
            (FindingCode::Setuid, |node| node.mode = 0o4755),
            (FindingCode::Mode, |node| node.mode = 0o666),
            (FindingCode::SpecialFile, |node| node.kind = NodeKind::Special("device")),
        ];
        for (code, change) in cases {
            let found = findings_of(|tree| change(tree.nodes.get_mut("etc/a").expect("the tree has it")));
            assert_eq!(found, [(code, "/etc/a".to_owned())]);
        }
    }

    #[test]
    fn mount_points_are_declared_real_and_empty() {
        let expected = |path: &str| [(FindingCode::MountPoint, path.to_owned())];
        assert_eq!(findings_of(|tree| drop(tree.nodes.remove("dev"))), expected("/dev"));
        let spare = |tree: &mut Tree| drop(tree.nodes.insert("spare".into(), node(NodeKind::Directory)));
        assert_eq!(findings_of(spare), expected("/spare"));
        let full = |tree: &mut Tree| {
            drop(tree.nodes.insert("dev/null".into(), node(NodeKind::File(FileFacts::default()))));
        };
        assert_eq!(findings_of(full), expected("/dev"));
        let link =
            |tree: &mut Tree| drop(tree.nodes.insert("dev".into(), node(NodeKind::Symlink("etc".into()))));
        assert_eq!(findings_of(link), expected("/dev"));
    }

    #[test]
    fn a_shebang_counts_when_the_file_can_be_started() {
        for (mode, expected) in [(0o644, 0), (0o755, 1)] {
            let found = findings_of(|tree| {
                let mut script = node(NodeKind::File(FileFacts::of(b"#!/usr/local/bin/python\n")));
                script.mode = mode;
                tree.nodes.insert("etc/script".into(), script);
            });
            assert_eq!(found.len(), expected, "{found:?}");
        }
    }

    #[test]
    fn mentions_must_resolve() {
        let with = |text: &'static [u8]| {
            findings_of(move |tree| {
                drop(tree.nodes.insert("etc/b".into(), node(NodeKind::File(FileFacts::of(text)))));
            })
        };
        assert_eq!(with(b"/usr/bin/tool /usr/lib/gone"), [(FindingCode::DanglingPath, "/etc/b".to_owned())]);
        assert_eq!(with(b"/usr/bin/gone"), []);
    }
}
