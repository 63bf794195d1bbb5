//! The reason codes: wire identifiers, added and never renamed.

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Rejects the submission.
    Error,
    /// Is shown and rejects nothing.
    Warning,
}

impl Severity {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! reason_codes {
    ($($variant:ident = $text:literal: $severity:ident, $message:literal;)*) => {
        /// Why a submission is rejected or warned about; `docs/rejections.md` has one section a code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ReasonCode {
            $(#[doc = $message] $variant,)*
        }

        impl ReasonCode {
            /// Every code, in the order in which a result lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire; also its anchor in `docs/rejections.md`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// How much a finding of this code weighs unless a check says otherwise.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// A sentence for people, for findings that have no better one.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

reason_codes! {
    ManifestParseError = "manifest_parse_error": Error, "the manifest can't be read";
    ManifestMissingRequiredField = "manifest_missing_required_field": Error, "a required field is missing";
    ManifestInvalidFieldType = "manifest_invalid_field_type": Error, "a field has the wrong type or shape";
    ManifestBadSemver = "manifest_bad_semver": Error, "the version isn't a semantic version";
    ManifestUnknownCategory = "manifest_unknown_category": Error, "the category isn't known";
    ManifestUnknownParamType = "manifest_unknown_param_type": Error, "the parameter's type isn't known";
    ManifestUnknownSecretScope = "manifest_unknown_secret_scope": Error, "the secret's scope isn't known";
    ManifestMismatch = "manifest_mismatch": Error, "the manifest of the request differs from the one in the source";
    NameTaken = "name_taken": Error, "the name belongs to another publisher";
    VersionExists = "version_exists": Error, "this version exists with other content";
    AptPackagesNotSupported = "apt_packages_not_supported": Error, "system packages and post-install steps are not supported";
    SourceFetchFailed = "source_fetch_failed": Error, "the source can't be unpacked";
    SourceTooLarge = "source_too_large": Error, "the source is larger than allowed";
    RepoMissingReadme = "repo_missing_readme": Warning, "the source has no README";
    RepoMissingLicense = "repo_missing_license": Error, "the source has no licence file";
    RepoNoComponentsFound = "repo_no_components_found": Error, "the source has no component";
    RepoComponentFileMissing = "repo_component_file_missing": Error, "a component's file isn't in the source";
    RepoUnknownComponentType = "repo_unknown_component_type": Error, "the component's type isn't known";
    RoutineInvalidJson = "routine_invalid_json": Error, "the routine isn't a JSON object";
    RoutineMissingSteps = "routine_missing_steps": Error, "the routine has no steps";
    RoutineMissingTriggerPhrases = "routine_missing_trigger_phrases": Error, "the routine has no trigger phrases";
    RoutineMissingResponseInstruction = "routine_missing_response_instruction": Error, "the routine has no response instruction";
    RoutineStepMissingCommand = "routine_step_missing_command": Error, "a step of the routine names no command";
    StaticAnalysisSyntaxError = "static_analysis_syntax_error": Error, "a Python file can't be analysed";
    StaticAnalysisDisallowedPrimitive = "static_analysis_disallowed_primitive": Error, "a call that packages may not make";
    StaticAnalysisRawDbImport = "static_analysis_raw_db_import": Error, "a database library is imported";
    StaticAnalysisShadowsBuiltinDir = "static_analysis_shadows_builtin_dir": Error, "a top-level module hides one of the host's";
    StaticAnalysisSqlMutation = "static_analysis_sql_mutation": Warning, "a text looks like SQL that changes data";
    StaticAnalysisCrossCommandAccess = "static_analysis_cross_command_access": Warning, "another component's data is used";
    LockfileResolutionFailed = "lockfile_resolution_failed": Error, "the declared packages can't be resolved";
    ResolvedLockfileExceedsSizeCap = "resolved_lockfile_exceeds_size_cap": Error, "the lockfile is larger than 51,200 bytes";
    DependencyDownloadFailed = "dependency_download_failed": Error, "a dependency can't be had as a wheel";
    TestsFailed = "tests_failed": Error, "the tests failed";
    TestTimeout = "test_timeout": Error, "a test ran out of time";
    TestResourceLimit = "test_resource_limit": Error, "a test reached a limit";
    TestEscapeAttempt = "test_escape_attempt": Error, "a test made a call that the filter kills";
    ResultTimeout = "result_timeout": Error, "no result came in time";
    InternalError = "internal_error": Error, "Pantry itself failed";
}

impl ReasonCode {
    /// The code of this text, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_one_section_a_code_and_none_more() {
        let document = include_str!("../../docs/rejections.md");
        let sections: Vec<&str> =
            document.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
        let documented: BTreeSet<&str> = sections.iter().copied().collect();
        let known: BTreeSet<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(documented.len(), sections.len(), "a code is documented twice");
        assert_eq!(documented, known);
    }

    #[test]
    fn codes_are_unique_and_parse_back() {
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::parse(code.as_str()), Some(*code));
        }
        assert_eq!(ReasonCode::parse("nonsense"), None);
    }
}
