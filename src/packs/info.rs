//! What a pack says of itself.

use serde::{Deserialize, Serialize};

use crate::names::{CommandName, Digest, PackageName, PublisherName, Version};

use super::error::PackError;

const COMMANDS_CAP: usize = 64;
const ARGUMENTS_CAP: usize = 256;
const TEXT_CAP: usize = 4096;
const ARTIFACTS_CAP: usize = 4096;

/// The content of the annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackInfo {
    /// What it is called.
    pub name: PackageName,
    /// Who publishes it.
    pub publisher: PublisherName,
    /// Its version.
    pub version: Version,
    /// `<os>/<architecture>` in the words of OCI, such as `linux/amd64`.
    pub platform: String,
    /// Diff id of the runtime layer that it stands on.
    pub base: Digest,
    /// What kind of thing it is.
    #[serde(rename = "type")]
    pub kind: PackType,
    /// What it offers to run; only applications have any.
    pub commands: Vec<PackCommand>,
    /// What it asks for beyond the jail's defaults.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// A sentence about it.
    pub summary: String,
    /// Its licence, as an SPDX expression.
    pub license: String,
    /// The files from elsewhere that went into it.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

/// What kind of thing a pack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackType {
    /// It has commands.
    Application,
    /// Others stand on it.
    Base,
    /// It has files.
    Content,
    /// It builds others.
    Toolchain,
}

/// A command that a pack offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackCommand {
    /// What people type.
    pub name: CommandName,
    /// The program, absolute in the pack's root.
    pub path: String,
    /// Arguments that come before those of the caller.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// A sentence about it.
    #[serde(default)]
    pub description: String,
}

/// A file from elsewhere that went into a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its file name.
    pub file: String,
    /// SHA-256 of its bytes, in lowercase hexadecimal.
    pub sha256: String,
}

impl PackInfo {
    /// Whether everything that types alone don't guarantee holds as well.
    pub(crate) fn check(&self) -> Result<(), PackError> {
        let refuse = |field, why: String| Err(PackError::Info { field, why });
        if let Err(why) = self.os_and_architecture() {
            return refuse("platform", why.to_owned());
        }
        if self.kind != PackType::Application && !self.commands.is_empty() {
            return refuse("commands", "only applications have commands".to_owned());
        }
        if self.commands.len() > COMMANDS_CAP || self.artifacts.len() > ARTIFACTS_CAP {
            return refuse("lists", format!("at most {COMMANDS_CAP} commands and {ARTIFACTS_CAP} artifacts"));
        }
        for (at, command) in self.commands.iter().enumerate() {
            if self.commands[..at].iter().any(|other| other.name == command.name) {
                return refuse("commands", format!("`{}` is there twice", command.name));
            }
            if !is_plain_absolute(&command.path) {
                return refuse("commands", format!("`{}` has no plain absolute path", command.name));
            }
            let texts = command.arguments.iter().chain([&command.description]);
            if command.arguments.len() > ARGUMENTS_CAP || texts.clone().any(|text| text.len() > TEXT_CAP) {
                return refuse("commands", format!("`{}` has too many or too long arguments", command.name));
            }
            if texts.clone().any(|text| text.contains('\0')) {
                return refuse("commands", format!("`{}` has an argument with a zero byte", command.name));
            }
        }
        if self.summary.len() > TEXT_CAP || self.license.len() > TEXT_CAP {
            return refuse("summary", format!("texts may have {TEXT_CAP} bytes"));
        }
        for artifact in &self.artifacts {
            let hex = artifact.sha256.len() == 64
                && artifact.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !hex || artifact.file.is_empty() || artifact.file.len() > 255 || artifact.file.contains('/') {
                return refuse("artifacts", format!("{:?} is no file name with its SHA-256", artifact.file));
            }
        }
        Ok(())
    }

    /// The two halves of the platform.
    pub(crate) fn os_and_architecture(&self) -> Result<(&str, &str), &'static str> {
        const RULE: &str = "it must be <os>/<architecture>, such as linux/amd64";
        let (os, architecture) = self.platform.split_once('/').ok_or(RULE)?;
        let word = |text: &str| {
            !text.is_empty()
                && text.len() <= 32
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if word(os) && word(architecture) { Ok((os, architecture)) } else { Err(RULE) }
    }
}

/// `/a/b`, without `.`, `..`, empty parts and control characters.
fn is_plain_absolute(path: &str) -> bool {
    path.len() <= 1024
        && !path.chars().any(char::is_control)
        && path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::packs) fn sample() -> PackInfo {
        PackInfo {
            name: PackageName::parse("greeter").unwrap(),
            publisher: PublisherName::parse("acme").unwrap(),
            version: Version::parse("1.0.0").unwrap(),
            platform: "linux/amd64".to_owned(),
            base: Digest::of(b"base"),
            kind: PackType::Application,
            commands: vec![PackCommand {
                name: CommandName::parse("greet").unwrap(),
                path: "/usr/bin/python3".to_owned(),
                arguments: vec!["-m".to_owned(), "greeter".to_owned()],
                description: "Greets".to_owned(),
            }],
            capabilities: Vec::new(),
            summary: "A greeter".to_owned(),
            license: "MIT".to_owned(),
            artifacts: vec![Artifact { file: "a.whl".to_owned(), sha256: "0".repeat(64) }],
        }
    }

    #[test]
    fn a_pack_that_says_odd_things_is_refused() {
        type Case = (&'static str, fn(&mut PackInfo));
        sample().check().unwrap();
        let broken: [Case; 9] = [
            ("platform", |info| info.platform = "linux".to_owned()),
            ("platform", |info| info.platform = "linux/../x".to_owned()),
            ("commands", |info| info.kind = PackType::Content),
            ("commands", |info| info.commands.push(info.commands[0].clone())),
            ("commands", |info| info.commands[0].path = "usr/bin/x".to_owned()),
            ("commands", |info| info.commands[0].path = "/usr/../x".to_owned()),
            ("commands", |info| info.commands[0].arguments[0] = "a\0b".to_owned()),
            ("artifacts", |info| info.artifacts[0].file = "../x".to_owned()),
            ("artifacts", |info| info.artifacts[0].sha256 = "A".repeat(64)),
        ];
        for (expected, breaking) in broken {
            let mut info = sample();
            breaking(&mut info);
            match info.check() {
                Err(PackError::Info { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
