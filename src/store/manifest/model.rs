//! The manifest as the rest of the store uses it.

use serde::{Deserialize, Serialize};

use crate::names::{CommandName, PackageName, PublisherName, Version};

/// A package manifest that broke no rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The manifest's own format; 1.
    pub schema_version: u64,
    /// The package's name.
    pub name: PackageName,
    /// The version that is submitted.
    pub version: Version,
    /// What the package is for.
    pub description: String,
    /// The name that people see.
    pub display_name: Option<String>,
    /// Who publishes it, when the author says so.
    pub publisher: Option<PublisherName>,
    /// The licence, as an SPDX expression.
    pub license: String,
    /// A page about it.
    pub homepage: Option<String>,
    /// Words to find it by.
    pub keywords: Vec<String>,
    /// Shelves it stands on.
    pub categories: Vec<String>,
    /// Platforms it runs on; none means any.
    pub platforms: Vec<String>,
    /// Python packages it needs, as PEP 508 requirements.
    pub packages: Vec<String>,
    /// Components it says it has.
    pub components: Vec<Component>,
    /// Commands that become wrappers.
    pub commands: Vec<Command>,
    /// Its own tests.
    pub test: Option<TestSection>,
    /// Values that the installer sets.
    pub parameters: Vec<Parameter>,
    /// Secrets that it asks for.
    pub secrets: Vec<Secret>,
    /// What it asks of the jail.
    pub sandbox: SandboxAsk,
    /// The oldest Pantry it works with.
    pub min_pantry_version: Option<Version>,
}

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentType {
    /// A command that answers people.
    Command,
    /// A program that works on a schedule.
    Agent,
    /// Speaks to one family of devices.
    DeviceProtocol,
    /// Collects devices of several families.
    DeviceManager,
    /// Builds prompts.
    PromptProvider,
    /// A list of steps, as JSON.
    Routine,
}

impl ComponentType {
    /// Every type, with the folder and the entry file it is found by: `<folder>/<name>/<file>`.
    pub const LAYOUT: [(Self, &'static str, &'static str); 6] = [
        (Self::Command, "commands", "command.py"),
        (Self::Agent, "agents", "agent.py"),
        (Self::DeviceProtocol, "device_families", "protocol.py"),
        (Self::DeviceManager, "device_managers", "manager.py"),
        (Self::PromptProvider, "prompt_providers", "provider.py"),
        (Self::Routine, "routines", "routine.json"),
    ];

    /// The type's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Agent => "agent",
            Self::DeviceProtocol => "device_protocol",
            Self::DeviceManager => "device_manager",
            Self::PromptProvider => "prompt_provider",
            Self::Routine => "routine",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::LAYOUT.iter().map(|(kind, ..)| *kind).find(|kind| kind.as_str() == text)
    }
}

/// A part of the package that Pantry tests by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: ComponentType,
    /// What it is called.
    pub name: String,
    /// Its entry file, below the source's root.
    pub path: String,
    /// What it is for.
    pub description: Option<String>,
}

/// A command that becomes a wrapper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What people type.
    pub name: CommandName,
    /// The program and its first arguments.
    pub run: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// The package's own tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestSection {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take; 1 to 180.
    pub timeout_seconds: u64,
}

/// A value that the installer sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// One of `string int float bool enum date time datetime`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it means.
    pub description: Option<String>,
    /// Whether it must be set.
    pub required: bool,
    /// The values of an `enum`.
    pub enum_values: Vec<String>,
}

/// A secret that the package asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// One of `integration user node`.
    pub scope: String,
    /// One of `string int bool user`.
    pub value_type: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it must be set.
    pub required: bool,
}

/// What the package asks of the jail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxAsk {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes at a time.
    pub processes: Option<u64>,
    /// Named grants.
    pub capabilities: Vec<String>,
}
