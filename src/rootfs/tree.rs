//! A root filesystem as a table in memory: what the rules look at, whether it came from layers, a folder, or a plan.

use std::collections::BTreeMap;

use super::bundle::LayerRole;
use super::elf::{self, ElfFacts};
use super::scan;

/// The longest chain of links that is followed, as in the kernel.
const LINK_LIMIT: usize = 40;

/// What the rules need to know about a file's content.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileFacts {
    pub(crate) size_bytes: u64,
    pub(crate) elf: Option<ElfFacts>,
    /// It starts as ELF and can't be read as such.
    pub(crate) broken_elf: bool,
    /// The interpreter of its first line, when that starts with `#!`.
    pub(crate) shebang: Option<String>,
    /// Absolute paths of interest that its bytes mention.
    pub(crate) mentions: Vec<String>,
}

impl FileFacts {
    pub(crate) fn of(content: &[u8]) -> Self {
        let elf = elf::is_elf(content).then(|| elf::parse(content));
        Self {
            size_bytes: content.len() as u64,
            broken_elf: matches!(elf, Some(Err(_))),
            elf: elf.and_then(Result::ok),
            shebang: shebang(content),
            mentions: scan::mentions(content),
        }
    }
}

fn shebang(content: &[u8]) -> Option<String> {
    let line = content.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = String::from_utf8_lossy(&line[..line.len().min(256)]).into_owned();
    Some(line.split_whitespace().next().unwrap_or_default().to_owned())
}

#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    Directory,
    File(FileFacts),
    Symlink(String),
    /// Anything that has no place in a root: devices, sockets, pipes, hard links, deletion marks.
    Special(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) modified: u64,
    /// It carries file capabilities or another security attribute.
    pub(crate) capabilities: bool,
    pub(crate) layer: Option<LayerRole>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadEnd {
    /// A part of the way isn't there.
    Missing,
    /// `..` leads above the root.
    Outside,
    /// Too many links.
    Loop,
}

/// Nodes by their path, without a leading slash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Follows a path, absolute or from the root, through every link, and never outside.
    pub(crate) fn resolve(&self, path: &str) -> Result<String, DeadEnd> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop().ok_or(DeadEnd::Outside)?;
                    continue;
                }
                _ => done.push(part),
            }
            let here = done.join("/");
            let node = self.nodes.get(&here).ok_or(DeadEnd::Missing)?;
            match &node.kind {
                NodeKind::Symlink(target) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(DeadEnd::Loop);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    } else {
                        done.pop();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                NodeKind::Directory => {}
                NodeKind::File(_) | NodeKind::Special(_) => {
                    if todo.iter().any(|rest| !rest.is_empty()) {
                        return Err(DeadEnd::Missing);
                    }
                }
            }
        }
        Ok(done.join("/"))
    }

    /// Whether a folder has anything in it.
    pub(crate) fn has_children(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.nodes.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn node(kind: NodeKind) -> Node {
        let mode = if matches!(kind, NodeKind::Directory) { 0o755 } else { 0o644 };
        Node { kind, mode, owner: (0, 0), modified: 0, capabilities: false, layer: None }
    }

    fn tree(links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for folder in ["usr", "usr/lib", "etc"] {
            tree.nodes.insert(folder.into(), node(NodeKind::Directory));
        }
        tree.nodes.insert("usr/lib/a".into(), node(NodeKind::File(FileFacts::default())));
        for (path, target) in links {
            tree.nodes.insert((*path).into(), node(NodeKind::Symlink((*target).into())));
        }
        tree
    }

    #[test]
    fn links_are_followed_inside_only() {
        let tree = tree(&[
            ("lib", "usr/lib"),
            ("etc/one", "two"),
            ("etc/two", "/lib/a"),
            ("etc/out", "../../x"),
            ("etc/far", "/opt/x"),
            ("etc/hop", "far"),
            ("etc/me", "me"),
        ]);
        assert_eq!(tree.resolve("/lib/a").unwrap(), "usr/lib/a");
        assert_eq!(tree.resolve("/etc/one").unwrap(), "usr/lib/a");
        assert_eq!(tree.resolve("/etc/../lib//./a").unwrap(), "usr/lib/a");
        assert_eq!(tree.resolve("/etc/out"), Err(DeadEnd::Outside));
        assert_eq!(tree.resolve("/etc/far"), Err(DeadEnd::Missing));
        assert_eq!(tree.resolve("/etc/hop"), Err(DeadEnd::Missing));
        assert_eq!(tree.resolve("/etc/me"), Err(DeadEnd::Loop));
        assert_eq!(tree.resolve("/lib/a/b"), Err(DeadEnd::Missing));
        assert_eq!(tree.resolve("/").unwrap(), "");
    }

    #[test]
    fn first_lines() {
        assert_eq!(shebang(b"#! /usr/bin/env python\nx").as_deref(), Some("/usr/bin/env"));
        assert_eq!(shebang(b"#!/bin/sh").as_deref(), Some("/bin/sh"));
        assert_eq!(shebang(b"#!").as_deref(), Some(""));
        assert_eq!(shebang(b"# x"), None);
    }
}
