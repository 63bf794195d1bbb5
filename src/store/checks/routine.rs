//! Routines: steps as JSON.

use std::path::Path;

use serde_json::Value;

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::manifest::{ComponentType, Manifest};
use super::layout::read_file;

const ROUTINE_CAP: u64 = 1 << 20;

/// Checks every routine that is there; a missing file is another rule's.
pub(super) fn check(source: &Path, manifest: &Manifest, findings: &mut Vec<Finding>) {
    for component in manifest.components.iter().filter(|component| component.kind == ComponentType::Routine) {
        if source.join(&component.path).symlink_metadata().is_ok() {
            let bytes = read_file(source, &component.path, ROUTINE_CAP);
            findings.extend(rules(bytes.as_deref()).into_iter().map(|finding| finding.file(&component.path)));
        }
    }
}

fn rules(bytes: Option<&[u8]>) -> Vec<Finding> {
    let Some(Ok(Value::Object(routine))) = bytes.map(serde_json::from_slice::<Value>) else {
        return vec![Finding::new(
            ReasonCode::RoutineInvalidJson,
            "the routine must be a JSON object, 1 MiB at most",
        )];
    };
    let mut findings = Vec::new();
    let empty_list = |key: &str| routine.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if empty_list("trigger_phrases") {
        let message = "`trigger_phrases` must be a list with at least one phrase";
        findings.push(Finding::new(ReasonCode::RoutineMissingTriggerPhrases, message));
    }
    if empty_list("steps") {
        findings.push(Finding::new(
            ReasonCode::RoutineMissingSteps,
            "`steps` must be a list with at least one step",
        ));
    }
    for (at, step) in routine.get("steps").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if step.get("command").and_then(Value::as_str).is_none_or(|command| command.trim().is_empty()) {
            let message = format!("step {} names no `command`", at + 1);
            let finding =
                Finding::new(ReasonCode::RoutineStepMissingCommand, message).value((at + 1).to_string());
            findings.push(finding);
        }
    }
    if routine.get("response_instruction").and_then(Value::as_str).is_none_or(|text| text.trim().is_empty()) {
        let message = "`response_instruction` must be a text";
        findings.push(Finding::new(ReasonCode::RoutineMissingResponseInstruction, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"trigger_phrases":["a"],"steps":[{"command":"x"}],"response_instruction":"y"}"#, &[])]
    #[case("[", &["routine_invalid_json"])]
    #[case("[]", &["routine_invalid_json"])]
    #[case(r#"{"trigger_phrases":["a"],"steps":[{"command":"x"},{}],"response_instruction":"y"}"#, &["routine_step_missing_command"])]
    #[case("{}", &["routine_missing_trigger_phrases", "routine_missing_steps", "routine_missing_response_instruction"])]
    fn routine_rules(#[case] text: &str, #[case] expected: &[&str]) {
        let found: Vec<String> = rules(Some(text.as_bytes())).into_iter().map(|f| f.reason_code).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_megabyte_of_brackets_is_no_json() {
        assert_eq!(rules(Some("[".repeat(1 << 20).as_bytes()))[0].reason_code, "routine_invalid_json");
    }

    #[test]
    fn the_number_of_a_step_counts_from_one() {
        let found = rules(Some(br#"{"trigger_phrases":["a"],"steps":[{}],"response_instruction":"y"}"#));
        assert_eq!(found[0].value.as_deref(), Some("1"));
    }
}
