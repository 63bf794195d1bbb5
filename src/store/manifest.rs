//! The package manifest, `pantry_package.yaml`: read strictly, every fault told with its line.
//!
//! Invariant: a [`Manifest`] exists only when no rule was broken.

mod model;
mod node;
mod read;
mod rules;

pub use model::{Command, Component, ComponentType, Manifest, TestSection};
pub(crate) use node::Node;

use super::codes::ReasonCode;
use super::finding::Finding;

/// The manifest's file name, at the source's root.
pub const MANIFEST_FILE: &str = "pantry_package.yaml";
/// Largest manifest that is read.
const MANIFEST_CAP: usize = 256 * 1024;

/// Reads the bytes of the manifest file.
///
/// # Errors
/// Every fault that was found, at least one.
pub fn parse_yaml(bytes: &[u8]) -> Result<Manifest, Vec<Finding>> {
    let refuse = |message: String, line: u64| {
        vec![Finding::new(ReasonCode::ManifestParseError, message).file(MANIFEST_FILE).line(line)]
    };
    if bytes.len() > MANIFEST_CAP {
        return Err(refuse(format!("the manifest has more than {MANIFEST_CAP} bytes"), 0));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count() as u64;
        refuse(format!("the manifest isn't UTF-8 (byte {})", error.valid_up_to()), line)
    })?;
    let node = node::from_yaml(text).map_err(|fault| refuse(fault.message, fault.line))?;
    read::manifest(&node, Some(MANIFEST_FILE))
}

/// Reads the manifest that a request carries.
///
/// # Errors
/// Every fault that was found, at least one.
pub fn parse_json(value: &serde_json::Value) -> Result<Manifest, Vec<Finding>> {
    read::manifest(&Node::from_json(value), None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use rstest::rstest;

    use super::*;

    pub(crate) const GOOD: &str = "\
schema_version: 1
name: greeter
version: 1.0.0
description: Says hello.
license: MIT
";

    fn codes(yaml: &str) -> Vec<(String, Option<u64>)> {
        match parse_yaml(yaml.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.into_iter().map(|f| (f.reason_code, f.line)).collect(),
        }
    }

    #[test]
    fn the_smallest_manifest_is_enough() {
        let manifest = parse_yaml(GOOD.as_bytes()).unwrap();
        assert_eq!(manifest.name.as_str(), "greeter");
        assert_eq!(manifest.version.to_string(), "1.0.0");
        assert!(manifest.components.is_empty() && manifest.commands.is_empty());
    }

    #[rstest]
    #[case::unknown_key("keyword: [a]\n", "manifest_parse_error", 6)]
    #[case::wrong_type("keywords: a\n", "manifest_invalid_field_type", 6)]
    #[case::element("keywords:\n  - a\n  - 7\n", "manifest_invalid_field_type", 8)]
    #[case::category("categories: [nonsense]\n", "manifest_unknown_category", 6)]
    #[case::parameter("parameters:\n  - name: a\n    type: blob\n", "manifest_unknown_param_type", 8)]
    #[case::enum_values(
        "parameters:\n  - name: a\n    type: int\n    enum_values: [b]\n",
        "manifest_invalid_field_type",
        9
    )]
    #[case::scope("secrets:\n  - name: a\n    scope: galaxy\n", "manifest_unknown_secret_scope", 8)]
    #[case::secret_type(
        "secrets:\n  - name: a\n    scope: user\n    value_type: blob\n",
        "manifest_invalid_field_type",
        9
    )]
    #[case::component(
        "components:\n  - type: gadget\n    name: a\n    path: a.py\n",
        "repo_unknown_component_type",
        7
    )]
    #[case::missing("components:\n  - type: command\n    path: a.py\n", "manifest_missing_required_field", 7)]
    #[case::path_up(
        "components:\n  - type: command\n    name: a\n    path: ../a.py\n",
        "manifest_invalid_field_type",
        9
    )]
    #[case::path_absolute(
        "components:\n  - type: command\n    name: a\n    path: /a.py\n",
        "manifest_invalid_field_type",
        9
    )]
    #[case::command_name("commands:\n  - name: ../x\n    run: [a]\n", "manifest_invalid_field_type", 7)]
    #[case::command_empty("commands:\n  - name: x\n    run: []\n", "manifest_invalid_field_type", 8)]
    #[case::test_timeout("test: {command: [a], timeout_seconds: 0}\n", "manifest_invalid_field_type", 6)]
    #[case::url("packages:\n  - 'x @ https://example.invalid/x.whl'\n", "manifest_invalid_field_type", 7)]
    #[case::option(
        "packages:\n  - '--index-url https://example.invalid'\n",
        "manifest_invalid_field_type",
        7
    )]
    #[case::two_lines("packages:\n  - \"x\\ny\"\n", "manifest_invalid_field_type", 7)]
    #[case::spec("packages:\n  - {name: x, version: '>>1'}\n", "manifest_invalid_field_type", 7)]
    #[case::deep_marker("packages:\n  - \"x; ((((((((((((((((((((a\"\n", "manifest_invalid_field_type", 7)]
    #[case::apt("apt_packages: [mpv]\n", "apt_packages_not_supported", 6)]
    #[case::apt_source("apt_sources:\n  - {name: a, key_url: b, repo: c}\n", "apt_packages_not_supported", 7)]
    #[case::post_install("post_install:\n  - {op: x}\n", "apt_packages_not_supported", 7)]
    #[case::apt_type("apt_packages: mpv\n", "manifest_invalid_field_type", 6)]
    #[case::duplicate("license: MIT\n", "manifest_parse_error", 6)]
    #[case::capability("sandbox: {capabilities: [root]}\n", "manifest_invalid_field_type", 6)]
    #[case::newer("min_pantry_version: 99.0.0\n", "manifest_invalid_field_type", 6)]
    fn a_fault_has_its_code_and_line(#[case] more: &str, #[case] code: &str, #[case] line: u64) {
        assert_eq!(codes(&format!("{GOOD}{more}")), [(code.to_owned(), Some(line))]);
    }

    #[rstest]
    #[case("name: greeter\n", "name: Greeter\n", "manifest_invalid_field_type", Some(2))]
    #[case("name: greeter\n", "name: gree--ter\n", "manifest_invalid_field_type", Some(2))]
    #[case("name: greeter\n", "name: 7\n", "manifest_invalid_field_type", Some(2))]
    #[case("version: 1.0.0\n", "version: 1.0\n", "manifest_invalid_field_type", Some(3))]
    #[case("version: 1.0.0\n", "version: '1.0'\n", "manifest_bad_semver", Some(3))]
    #[case("version: 1.0.0\n", "version: 1.0.0+linux\n", "manifest_bad_semver", Some(3))]
    #[case("schema_version: 1\n", "schema_version: 2\n", "manifest_invalid_field_type", Some(1))]
    #[case("license: MIT\n", "", "manifest_missing_required_field", None)]
    #[case("description: Says hello.\n", "description: ''\n", "manifest_missing_required_field", Some(4))]
    fn required_fields_are_checked(
        #[case] from: &str,
        #[case] to: &str,
        #[case] code: &str,
        #[case] line: Option<u64>,
    ) {
        assert_eq!(codes(&GOOD.replace(from, to)), [(code.to_owned(), line)]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let findings = parse_yaml(format!("{GOOD}keyword: [a]\n").as_bytes()).unwrap_err();
        assert!(findings[0].message.as_ref().unwrap().contains("did you mean `keywords`?"), "{findings:?}");
        assert_eq!(findings[0].value.as_deref(), Some("keyword"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let found = codes("schema_version: 1\nname: Bad\nversion: x\nfoo: 1\n");
        let found: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(
            found,
            [
                "manifest_parse_error",
                "manifest_invalid_field_type",
                "manifest_bad_semver",
                "manifest_missing_required_field",
                "manifest_missing_required_field"
            ]
        );
    }

    #[test]
    fn null_lists_are_empty_and_equal_to_absent_ones() {
        let with_null = parse_yaml(format!("{GOOD}apt_packages: null\npackages:\n").as_bytes()).unwrap();
        assert_eq!(with_null, parse_yaml(GOOD.as_bytes()).unwrap());
    }

    #[test]
    fn both_forms_of_a_package_become_requirements() {
        let yaml = format!(
            "{GOOD}packages:\n  - {{name: requests, version: '>=2.31,<3'}}\n  - {{name: six, version: 1.16.0}}\n  - 'rich[jupyter]>=13; python_version > \"3.8\"'\n  - {{name: attrs}}\n"
        );
        let manifest = parse_yaml(yaml.as_bytes()).unwrap();
        assert_eq!(
            manifest.packages,
            ["requests>=2.31,<3", "six==1.16.0", "rich[jupyter]>=13; python_version > \"3.8\"", "attrs"]
        );
    }

    #[test]
    fn a_request_and_a_file_of_the_same_content_are_equal() {
        let json = serde_json::json!({"schema_version": 1, "name": "greeter", "version": "1.0.0",
            "description": "Says hello.", "license": "MIT", "keywords": null});
        assert_eq!(parse_json(&json).unwrap(), parse_yaml(GOOD.as_bytes()).unwrap());
        assert_eq!(parse_json(&serde_json::json!([])).unwrap_err()[0].reason_code, "manifest_parse_error");
    }

    #[rstest]
    #[case::brackets("[".repeat(200_000))]
    #[case::braces("{a: ".repeat(60_000))]
    #[case::blocks("- ".repeat(100_000))]
    #[case::aliases("a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n".to_owned())]
    #[case::empty(String::new())]
    #[case::scalar("hello".to_owned())]
    #[case::list("- a\n".to_owned())]
    #[case::two_documents(format!("{GOOD}---\n{GOOD}"))]
    #[case::too_large("#".repeat(1 << 20))]
    #[case::tag(format!("{GOOD}homepage: !custom x\n"))]
    fn hostile_bytes_are_a_parse_error(#[case] yaml: String) {
        let found = codes(&yaml);
        assert!(
            !found.is_empty() && found.iter().all(|(code, _)| code == "manifest_parse_error"),
            "{found:?}"
        );
    }

    #[test]
    fn a_megabyte_of_brackets_does_not_crash_the_parser_itself() {
        assert!(node::from_yaml(&"[".repeat(1 << 20)).is_err());
        assert!(node::from_yaml(&"{".repeat(1 << 20)).is_err());
    }

    #[test]
    fn invalid_utf8_names_its_line() {
        let findings = parse_yaml(b"schema_version: 1\nname: \xff\n").unwrap_err();
        assert_eq!((findings[0].reason_code.as_str(), findings[0].line), ("manifest_parse_error", Some(2)));
    }
}
