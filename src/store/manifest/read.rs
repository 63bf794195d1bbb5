//! From the tree of values to the typed manifest, collecting every fault on the way.

use crate::names::{CommandName, PackageName, PublisherName, Version};

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::model::{Command, Component, ComponentType, Manifest, Parameter, SandboxAsk, Secret, TestSection};
use super::node::{Key, Node, Value};
use super::rules;

const KEYS: &[&str] = &[
    "schema_version",
    "name",
    "version",
    "description",
    "display_name",
    "publisher",
    "license",
    "homepage",
    "keywords",
    "categories",
    "platforms",
    "packages",
    "apt_packages",
    "apt_sources",
    "post_install",
    "components",
    "commands",
    "test",
    "parameters",
    "secrets",
    "sandbox",
    "min_pantry_version",
];
/// Most entries of one list.
const LIST_CAP: usize = 2_000;
/// Longest test, as the runner's wall clock allows.
const TEST_SECONDS_CAP: i64 = 180;

/// Reads the whole manifest.
pub(super) fn manifest(node: &Node, file: Option<&'static str>) -> Result<Manifest, Vec<Finding>> {
    let mut faults = Faults { file, found: Vec::new() };
    let Some(map) = Map::of(node, "the manifest", ReasonCode::ManifestParseError, &mut faults) else {
        return Err(faults.found);
    };
    map.only(KEYS, &mut faults);
    refuse_system_packages(&map, &mut faults);
    let schema_version = schema_version(&map, &mut faults);
    let name = map.parsed("name", ReasonCode::ManifestInvalidFieldType, PackageName::parse, &mut faults);
    let version = map.parsed("version", ReasonCode::ManifestBadSemver, Version::parse, &mut faults);
    let description = map.required_text("description", &mut faults);
    let license = license(&map, &mut faults);
    let publisher = map.has("publisher").then(|| {
        map.parsed("publisher", ReasonCode::ManifestInvalidFieldType, PublisherName::parse, &mut faults)
    });
    let optional = Optional {
        display_name: map.text("display_name", &mut faults),
        homepage: homepage(&map, &mut faults),
        keywords: map.texts("keywords", &mut faults),
        categories: map.words(
            "categories",
            rules::CATEGORIES,
            ReasonCode::ManifestUnknownCategory,
            &mut faults,
        ),
        platforms: map.words(
            "platforms",
            rules::PLATFORMS,
            ReasonCode::ManifestInvalidFieldType,
            &mut faults,
        ),
        packages: map.each("packages", &mut faults, package),
        components: map.each("components", &mut faults, component),
        commands: commands(&map, &mut faults),
        test: map.present("test").and_then(|node| test(node, &mut faults)),
        parameters: map.each("parameters", &mut faults, parameter),
        secrets: map.each("secrets", &mut faults, secret),
        sandbox: map.present("sandbox").and_then(|node| sandbox(node, &mut faults)).unwrap_or_default(),
        min_pantry_version: min_pantry_version(&map, &mut faults),
    };
    if let (Some(schema_version), Some(name), Some(version), Some(description), Some(license), true) =
        (schema_version, name, version, description, license, faults.found.is_empty())
    {
        return Ok(Manifest {
            schema_version,
            name,
            version,
            description,
            display_name: optional.display_name,
            publisher: publisher.flatten(),
            license,
            homepage: optional.homepage,
            keywords: optional.keywords,
            categories: optional.categories,
            platforms: optional.platforms,
            packages: optional.packages,
            components: optional.components,
            commands: optional.commands,
            test: optional.test,
            parameters: optional.parameters,
            secrets: optional.secrets,
            sandbox: optional.sandbox,
            min_pantry_version: optional.min_pantry_version,
        });
    }
    Err(faults.found)
}

/// The fields that may be absent, as read.
struct Optional {
    display_name: Option<String>,
    homepage: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
    platforms: Vec<String>,
    packages: Vec<String>,
    components: Vec<Component>,
    commands: Vec<Command>,
    test: Option<TestSection>,
    parameters: Vec<Parameter>,
    secrets: Vec<Secret>,
    sandbox: SandboxAsk,
    min_pantry_version: Option<Version>,
}

struct Faults {
    file: Option<&'static str>,
    found: Vec<Finding>,
}

impl Faults {
    fn add(&mut self, code: ReasonCode, line: u64, value: Option<&str>, message: impl AsRef<str>) {
        let mut finding = Finding::new(code, message).line(line);
        if let Some(file) = self.file {
            finding = finding.file(file);
        }
        if let Some(value) = value {
            finding = finding.value(value);
        }
        self.found.push(finding);
    }

    fn shape(&mut self, node: &Node, what: &str, wanted: &str) {
        let message = format!("{what} must be {wanted}, not {}", node.value.kind());
        self.add(ReasonCode::ManifestInvalidFieldType, node.line, None, message);
    }
}

/// A map of the tree, with the words for messages.
struct Map<'n> {
    what: String,
    line: u64,
    entries: &'n [(Key, Node)],
}

impl<'n> Map<'n> {
    fn of(node: &'n Node, what: &str, code: ReasonCode, faults: &mut Faults) -> Option<Self> {
        if let Value::Map(entries) = &node.value {
            return Some(Self { what: what.to_owned(), line: node.line, entries });
        }
        faults.add(code, node.line, None, format!("{what} must be a map, not {}", node.value.kind()));
        None
    }

    fn only(&self, known: &[&str], faults: &mut Faults) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let hint = rules::nearest(&key.text, known).map_or_else(
                || format!("known keys: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let shown: String = key.text.chars().take(80).collect();
            let message = format!("{} has an unknown key `{shown}`; {hint}", self.what);
            faults.add(ReasonCode::ManifestParseError, key.line, Some(&shown), message);
        }
    }

    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(known, _)| known.text == key).map(|(_, node)| node)
    }

    /// As `get`, with nothing for an explicit null.
    fn present(&self, key: &str) -> Option<&'n Node> {
        self.get(key).filter(|node| node.value != Value::Null)
    }

    fn has(&self, key: &str) -> bool {
        self.present(key).is_some()
    }

    fn field(&self, key: &str) -> String {
        if self.what == "the manifest" { format!("`{key}`") } else { format!("`{key}` of {}", self.what) }
    }

    fn text(&self, key: &str, faults: &mut Faults) -> Option<String> {
        let node = self.present(key)?;
        match &node.value {
            Value::Text(text) if text.len() > 16_384 => {
                faults.add(
                    ReasonCode::ManifestInvalidFieldType,
                    node.line,
                    None,
                    format!("{} may have 16,384 bytes at most", self.field(key)),
                );
                None
            }
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) if key == "version" || key == "min_pantry_version" => {
                faults.shape(node, &self.field(key), "a text (put it in quotes)");
                None
            }
            _ => {
                faults.shape(node, &self.field(key), "a text");
                None
            }
        }
    }

    fn required_text(&self, key: &str, faults: &mut Faults) -> Option<String> {
        let Some(node) = self.present(key) else {
            let message = format!("{} is required", self.field(key));
            let line = if self.what == "the manifest" { 0 } else { self.line };
            faults.add(ReasonCode::ManifestMissingRequiredField, line, Some(key), message);
            return None;
        };
        let text = self.text(key, faults)?;
        if text.trim().is_empty() {
            let message = format!("{} is required and may not be empty", self.field(key));
            faults.add(ReasonCode::ManifestMissingRequiredField, node.line, Some(key), message);
            return None;
        }
        Some(text)
    }

    fn parsed<T>(
        &self,
        key: &str,
        code: ReasonCode,
        parse: fn(&str) -> Result<T, crate::names::NameError>,
        faults: &mut Faults,
    ) -> Option<T> {
        let text = self.required_text(key, faults)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                let line = self.get(key).map_or(0, |node| node.line);
                faults.add(code, line, Some(&text), format!("{}: {error}", self.field(key)));
                None
            }
        }
    }

    fn boolean(&self, key: &str, default: bool, faults: &mut Faults) -> bool {
        match self.present(key) {
            None => default,
            Some(Node { value: Value::Bool(value), .. }) => *value,
            Some(node) => {
                faults.shape(node, &self.field(key), "`true` or `false`");
                default
            }
        }
    }

    fn whole(&self, key: &str, least: i64, most: i64, faults: &mut Faults) -> Option<u64> {
        let node = self.present(key)?;
        match node.value {
            Value::Integer(value) if (least..=most).contains(&value) => u64::try_from(value).ok(),
            Value::Integer(value) => {
                let message = format!("{} must be {least} to {most}", self.field(key));
                faults.add(
                    ReasonCode::ManifestInvalidFieldType,
                    node.line,
                    Some(&value.to_string()),
                    message,
                );
                None
            }
            _ => {
                faults.shape(node, &self.field(key), "an integer");
                None
            }
        }
    }

    fn list(&self, key: &str, faults: &mut Faults) -> &'n [Node] {
        match self.present(key) {
            None => &[],
            Some(Node { value: Value::List(items), .. }) if items.len() <= LIST_CAP => items,
            Some(node @ Node { value: Value::List(_), .. }) => {
                faults.shape(node, &self.field(key), &format!("a list of {LIST_CAP} entries at most"));
                &[]
            }
            Some(node) => {
                faults.shape(node, &self.field(key), "a list");
                &[]
            }
        }
    }

    fn each<T>(&self, key: &str, faults: &mut Faults, read: fn(&Node, &mut Faults) -> Option<T>) -> Vec<T> {
        self.list(key, faults).iter().filter_map(|node| read(node, faults)).collect()
    }

    fn texts(&self, key: &str, faults: &mut Faults) -> Vec<String> {
        let mut texts = Vec::new();
        for node in self.list(key, faults) {
            match &node.value {
                Value::Text(text) => texts.push(text.clone()),
                _ => faults.shape(node, &format!("an entry of {}", self.field(key)), "a text"),
            }
        }
        texts
    }

    fn words(&self, key: &str, known: &[&str], code: ReasonCode, faults: &mut Faults) -> Vec<String> {
        let mut words = Vec::new();
        for node in self.list(key, faults) {
            match &node.value {
                Value::Text(text) if known.contains(&text.as_str()) => words.push(text.clone()),
                Value::Text(text) => unknown_word(text, node.line, &self.field(key), known, code, faults),
                _ => faults.shape(node, &format!("an entry of {}", self.field(key)), "a text"),
            }
        }
        words
    }

    /// A required word out of a closed list.
    fn word(&self, key: &str, known: &[&str], code: ReasonCode, faults: &mut Faults) -> Option<String> {
        let text = self.required_text(key, faults)?;
        if known.contains(&text.as_str()) {
            return Some(text);
        }
        let line = self.get(key).map_or(0, |node| node.line);
        unknown_word(&text, line, &self.field(key), known, code, faults);
        None
    }

    /// An argument list: not empty, no NUL.
    fn argv(&self, key: &str, faults: &mut Faults) -> Option<Vec<String>> {
        if !self.has(key) {
            self.required_text(key, faults);
            return None;
        }
        let before = faults.found.len();
        let argv = self.texts(key, faults);
        if faults.found.len() > before {
            return None;
        }
        let bad = argv.len() > 256 || argv.first().is_none_or(|program| program.trim().is_empty());
        if bad || argv.iter().any(|argument| argument.contains('\0') || argument.len() > 4096) {
            let line = self.get(key).map_or(0, |node| node.line);
            let message =
                format!("{} must name a program, with 255 arguments at most and no NUL", self.field(key));
            faults.add(ReasonCode::ManifestInvalidFieldType, line, None, message);
            return None;
        }
        Some(argv)
    }
}

fn unknown_word(text: &str, line: u64, field: &str, known: &[&str], code: ReasonCode, faults: &mut Faults) {
    let hint = rules::nearest(text, known)
        .map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
    let shown: String = text.chars().take(80).collect();
    faults.add(code, line, Some(&shown), format!("{field} can't be `{shown}`; {hint}"));
}

fn schema_version(map: &Map<'_>, faults: &mut Faults) -> Option<u64> {
    if map.has("schema_version") {
        return map.whole("schema_version", 1, 1, faults);
    }
    faults.add(
        ReasonCode::ManifestMissingRequiredField,
        0,
        Some("schema_version"),
        "`schema_version` is required (1)",
    );
    None
}

fn license(map: &Map<'_>, faults: &mut Faults) -> Option<String> {
    let text = map.required_text("license", faults)?;
    if rules::is_spdx_shaped(&text) {
        return Some(text);
    }
    let line = map.get("license").map_or(0, |node| node.line);
    let message = "`license` must be an SPDX expression, such as `MIT OR Apache-2.0`";
    faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&text), message);
    None
}

fn homepage(map: &Map<'_>, faults: &mut Faults) -> Option<String> {
    let text = map.text("homepage", faults)?;
    let shaped = text.starts_with("https://") || text.starts_with("http://");
    if !shaped || text.len() > 2048 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let line = map.get("homepage").map_or(0, |node| node.line);
        let message = "`homepage` must be an address that begins with `https://` or `http://`";
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&text), message);
        return None;
    }
    Some(text)
}

fn min_pantry_version(map: &Map<'_>, faults: &mut Faults) -> Option<Version> {
    map.present("min_pantry_version")?;
    let version = map.parsed("min_pantry_version", ReasonCode::ManifestBadSemver, Version::parse, faults)?;
    let own = Version::parse(env!("CARGO_PKG_VERSION"))
        .expect("invariant: the crate's version is a semantic version");
    if version > own {
        let line = map.get("min_pantry_version").map_or(0, |node| node.line);
        let message = format!("the package asks for Pantry {version} or newer; this is {own}");
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&version.to_string()), message);
    }
    Some(version)
}

fn refuse_system_packages(map: &Map<'_>, faults: &mut Faults) {
    for key in ["apt_packages", "apt_sources", "post_install"] {
        for node in map.list(key, faults) {
            let value = if let Value::Text(text) = &node.value { Some(text.as_str()) } else { None };
            let message = format!("`{key}` is not supported: a package can bring Python packages only");
            faults.add(ReasonCode::AptPackagesNotSupported, node.line, value, message);
        }
    }
}

fn package(node: &Node, faults: &mut Faults) -> Option<String> {
    let requirement = match &node.value {
        Value::Text(text) => text.trim().to_owned(),
        Value::Map(_) => {
            let map = Map::of(node, "a package", ReasonCode::ManifestInvalidFieldType, faults)?;
            map.only(&["name", "version"], faults);
            let name = map.required_text("name", faults)?;
            let version = map.text("version", faults);
            rules::requirement_of(name.trim(), version.as_deref())
        }
        _ => {
            faults.shape(node, "an entry of `packages`", "a PEP 508 text or {name, version}");
            return None;
        }
    };
    if let Err(message) = rules::check_requirement(&requirement) {
        faults.add(ReasonCode::ManifestInvalidFieldType, node.line, Some(&requirement), message);
        return None;
    }
    Some(requirement)
}

/// A name that becomes part of a test's name or of a path.
fn is_component_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn component(node: &Node, faults: &mut Faults) -> Option<Component> {
    let map = Map::of(node, "a component", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["type", "name", "path", "description"], faults);
    let kinds: Vec<&str> = ComponentType::LAYOUT.iter().map(|(kind, ..)| kind.as_str()).collect();
    let kind = map.word("type", &kinds, ReasonCode::RepoUnknownComponentType, faults);
    let name = map.required_text("name", faults);
    let path = map.required_text("path", faults);
    let description = map.text("description", faults);
    let (kind, name, path) = (ComponentType::parse(&kind?)?, name?, path?);
    if !is_component_name(&name) {
        let line = map.get("name").map_or(0, |node| node.line);
        let message =
            "a component's name is 1 to 64 letters, digits, `_`, `-` or `.`, starting with a letter or digit";
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&name), message);
        return None;
    }
    if let Err(rule) = rules::check_path(&path) {
        let line = map.get("path").map_or(0, |node| node.line);
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&path), rule);
        return None;
    }
    Some(Component { kind, name, path, description })
}

fn commands(map: &Map<'_>, faults: &mut Faults) -> Vec<Command> {
    let commands = map.each("commands", faults, command);
    for (at, command) in commands.iter().enumerate() {
        if commands[..at].iter().any(|other| other.name == command.name) {
            let message = format!("the command `{}` is declared twice", command.name);
            let line = map.get("commands").map_or(0, |node| node.line);
            faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(command.name.as_str()), message);
        }
    }
    commands
}

fn command(node: &Node, faults: &mut Faults) -> Option<Command> {
    let map = Map::of(node, "a command", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["name", "run", "description"], faults);
    let name = map.parsed("name", ReasonCode::ManifestInvalidFieldType, CommandName::parse, faults);
    let run = map.argv("run", faults);
    let description = map.text("description", faults);
    let (name, run) = (name?, run?);
    let program = run.first().map_or("", |program| program.strip_prefix("./").unwrap_or(program));
    if let Err(rule) = rules::check_path(program.strip_prefix('/').unwrap_or(program)) {
        let line = map.get("run").map_or(0, |node| node.line);
        let message = format!("the program of command `{name}`: {rule}");
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(program), message);
        return None;
    }
    Some(Command { name, run, description })
}

fn test(node: &Node, faults: &mut Faults) -> Option<TestSection> {
    let map = Map::of(node, "`test`", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["command", "timeout_seconds"], faults);
    let command = map.argv("command", faults);
    let timeout_seconds = if map.has("timeout_seconds") {
        map.whole("timeout_seconds", 1, TEST_SECONDS_CAP, faults)?
    } else {
        TEST_SECONDS_CAP.unsigned_abs()
    };
    Some(TestSection { command: command?, timeout_seconds })
}

fn parameter(node: &Node, faults: &mut Faults) -> Option<Parameter> {
    let map = Map::of(node, "a parameter", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["name", "type", "description", "required", "enum_values"], faults);
    let name = map.required_text("name", faults);
    let kind = map.word("type", rules::PARAMETER_TYPES, ReasonCode::ManifestUnknownParamType, faults);
    let description = map.text("description", faults);
    let required = map.boolean("required", false, faults);
    let enum_values = map.texts("enum_values", faults);
    let (name, kind) = (name?, kind?);
    if (kind == "enum") == enum_values.is_empty() {
        let line = map.get("enum_values").map_or(node.line, |values| values.line);
        let message = format!("parameter `{name}`: `enum_values` belongs to the type `enum`, and only to it");
        faults.add(ReasonCode::ManifestInvalidFieldType, line, Some(&name), message);
        return None;
    }
    Some(Parameter { name, kind, description, required, enum_values })
}

fn secret(node: &Node, faults: &mut Faults) -> Option<Secret> {
    let map = Map::of(node, "a secret", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["name", "scope", "value_type", "description", "required"], faults);
    let name = map.required_text("name", faults);
    let scope = map.word("scope", rules::SECRET_SCOPES, ReasonCode::ManifestUnknownSecretScope, faults);
    let value_type = if map.has("value_type") {
        map.word("value_type", rules::SECRET_TYPES, ReasonCode::ManifestInvalidFieldType, faults)
    } else {
        Some("string".to_owned())
    };
    let description = map.text("description", faults);
    let required = map.boolean("required", true, faults);
    Some(Secret { name: name?, scope: scope?, value_type: value_type?, description, required })
}

fn sandbox(node: &Node, faults: &mut Faults) -> Option<SandboxAsk> {
    let map = Map::of(node, "`sandbox`", ReasonCode::ManifestInvalidFieldType, faults)?;
    map.only(&["memory_bytes", "processes", "capabilities"], faults);
    Some(SandboxAsk {
        memory_bytes: map.whole("memory_bytes", 1, i64::MAX, faults),
        processes: map.whole("processes", 1, i64::MAX, faults),
        capabilities: map.words(
            "capabilities",
            rules::CAPABILITIES,
            ReasonCode::ManifestInvalidFieldType,
            faults,
        ),
    })
}
