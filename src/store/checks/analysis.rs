//! Static analysis of all Python files, by the bundle's `CPython` in the jail.
//!
//! The script only parses. What it prints is read as hostile bytes all the same: a parser that was subverted by a
//! file must not be able to do more than add wrong findings, and its death is a finding of its own.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::sandbox::{Cancel, End, Limits, Outcome, Policy, Sandbox, SandboxError, StdinBytes};

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::manifest::Manifest;

pub(crate) const SCRIPT: &str = include_str!("analyse.py");
/// Most bytes of a report that are read.
const REPORT_CAP: usize = 900 * 1024;
const WALL_MS: u64 = 60_000;

/// Runs the analysis of `source`. Blocking.
pub(crate) fn run(
    sandbox: &Sandbox,
    root: Vec<PathBuf>,
    source: &Path,
    manifest: &Manifest,
    cancel: &Cancel,
) -> Result<Vec<Finding>, SandboxError> {
    let mut argv: Vec<String> =
        ["/usr/bin/python3", "-I", "-S", "-", "/input"].into_iter().map(str::to_owned).collect();
    argv.push(manifest.name.to_string());
    argv.extend(manifest.components.iter().map(|component| component.name.clone()));
    let mut policy = Policy::new(root, argv).input(source, "/input");
    policy.limits = Limits { memory_bytes: 512 << 20, processes: 8, wall_ms: WALL_MS, ..Limits::tests() };
    let outcome = sandbox.run(&policy, StdinBytes::Bytes(SCRIPT.as_bytes().to_vec()), cancel)?;
    Ok(findings_of(&outcome))
}

fn findings_of(outcome: &Outcome) -> Vec<Finding> {
    match outcome.end {
        End::Exited(0) if outcome.stdout.dropped == 0 => read_report(&outcome.stdout.bytes),
        End::Exited(0) => vec![died("its report was cut")],
        _ => vec![died(&format!("it ended with {:?}", outcome.end))],
    }
}

fn died(why: &str) -> Finding {
    Finding::new(
        ReasonCode::StaticAnalysisSyntaxError,
        format!("the analysis of the Python files didn't finish: {why}"),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    findings: Vec<Reported>,
    #[allow(dead_code, reason = "part of the report's shape")]
    files: u64,
    dropped: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    code: String,
    severity: String,
    file: String,
    line: u64,
    message: String,
    snippet: Option<String>,
    primitive: Option<String>,
    value: Option<String>,
}

const REPORTABLE: &[ReasonCode] = &[
    ReasonCode::StaticAnalysisSyntaxError,
    ReasonCode::StaticAnalysisDisallowedPrimitive,
    ReasonCode::StaticAnalysisRawDbImport,
    ReasonCode::StaticAnalysisSqlMutation,
    ReasonCode::StaticAnalysisCrossCommandAccess,
];

/// Reads the line that the script printed.
pub(crate) fn read_report(bytes: &[u8]) -> Vec<Finding> {
    if bytes.len() > REPORT_CAP {
        return vec![died("its report is too long")];
    }
    let Ok(report) = serde_json::from_slice::<Report>(bytes) else {
        return vec![died("its report can't be read")];
    };
    let mut findings = Vec::new();
    for reported in report.findings.into_iter().take(500) {
        let Some(code) = ReasonCode::parse(&reported.code).filter(|code| REPORTABLE.contains(code)) else {
            return vec![died("its report names an unknown rule")];
        };
        let mut finding = Finding::new(code, reported.message).file(reported.file).line(reported.line);
        if reported.severity != "error" {
            finding = finding.warning();
        }
        if let Some(snippet) = reported.snippet {
            finding = finding.snippet(snippet);
        }
        if let Some(primitive) = reported.primitive {
            finding = finding.primitive(primitive);
        }
        if let Some(value) = reported.value {
            finding = finding.value(value);
        }
        findings.push(finding);
    }
    if report.dropped > 0 && !findings.iter().any(Finding::is_error) {
        let message = format!("{} more warnings left out", report.dropped);
        findings.push(Finding::new(ReasonCode::StaticAnalysisSqlMutation, message));
    }
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use rstest::rstest;

    use super::*;

    /// Runs the script with the machine's own interpreter; none where there is no such.
    fn analyse(files: &[(&str, &str)]) -> Option<Vec<Finding>> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        let started = Command::new("python3")
            .args(["-I", "-S", "-"])
            .arg(directory.path())
            .args(["greeter", "own"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            println!("skipped: this machine has no python3");
            return None;
        };
        child.stdin.take().unwrap().write_all(SCRIPT.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(read_report(&output.stdout))
    }

    #[rstest]
    #[case::eval("eval('1')\n", "eval")]
    #[case::exec("exec('1')\n", "exec")]
    #[case::builtin("import builtins\nbuiltins.eval('1')\n", "eval")]
    #[case::subscript("__builtins__['eval']('1')\n", "eval")]
    #[case::alias("e = eval\n", "eval")]
    #[case::system("import os\nos.system('x')\n", "os.system")]
    #[case::renamed("import os as o\no.system('x')\n", "os.system")]
    #[case::from_import("from os import system as s\ns('x')\n", "os.system")]
    #[case::star("from os import *\nsystem('x')\n", "os.system")]
    #[case::posix("import posix\nposix.system('x')\n", "os.system")]
    #[case::getattr("import os\ngetattr(os, 'system')('x')\n", "os.system")]
    #[case::dict("import os\nos.__dict__['system']('x')\n", "os.system")]
    #[case::assigned("import os\no = os\nf = o.popen\n", "os.popen")]
    #[case::imported("__import__('os').system('x')\n", "os.system")]
    #[case::import_module("import importlib\nimportlib.import_module('os').system('x')\n", "os.system")]
    #[case::via_submodule("import os.path\nos.execv('x', [])\n", "os.execv")]
    #[case::spawn("import os\nos.spawnlp(0, 'x')\n", "os.spawnlp")]
    #[case::popen("import subprocess\nsubprocess.Popen(['x'])\n", "subprocess.Popen")]
    #[case::run("from subprocess import run\n", "subprocess.run")]
    #[case::check("import subprocess as s\ns.check_output(['x'])\n", "subprocess.check_output")]
    #[case::nested(
        "def f():\n  class A:\n    def g(self):\n      import os\n      return lambda: os.system('x')\n",
        "os.system"
    )]
    fn disallowed_primitives_are_errors(#[case] code: &str, #[case] primitive: &str) {
        let Some(findings) = analyse(&[("lib/inner.py", code)]) else { return };
        let errors: Vec<&Finding> = findings.iter().filter(|f| f.is_error()).collect();
        assert!(!errors.is_empty(), "{findings:?}");
        for error in errors {
            assert_eq!(error.reason_code, "static_analysis_disallowed_primitive");
            assert_eq!(error.primitive.as_deref(), Some(primitive), "{findings:?}");
            assert_eq!(error.file.as_deref(), Some("lib/inner.py"));
            assert!(error.line.is_some() && error.snippet.is_some());
        }
    }

    #[rstest]
    #[case("import os\nprint(os.path.join('a', 'b'))\n")]
    #[case("class Model:\n  def eval(self): ...\nModel().eval()\n")]
    #[case("# eval('1')\ntext = \"os.system('x')\"\n")]
    #[case("import re\nre.compile('a')\n")]
    fn what_only_looks_alike_is_no_error(#[case] code: &str) {
        let Some(findings) = analyse(&[("a.py", code)]) else { return };
        assert!(!findings.iter().any(Finding::is_error), "{findings:?}");
    }

    #[rstest]
    #[case::database("a.py", "import sqlite3\n", "static_analysis_raw_db_import", true)]
    #[case::database_from("a.py", "from sqlalchemy.orm import x\n", "static_analysis_raw_db_import", true)]
    #[case::sql("a.py", "q = 'delete from people'\n", "static_analysis_sql_mutation", false)]
    #[case::others(
        "a.py",
        "from host import command_data\ncommand_data.get('other')\n",
        "static_analysis_cross_command_access",
        false
    )]
    #[case::import("a.py", "import ctypes\n", "static_analysis_disallowed_primitive", false)]
    #[case::compile("a.py", "compile('1', 'a', 'exec')\n", "static_analysis_disallowed_primitive", false)]
    #[case::syntax("a.py", "def\n", "static_analysis_syntax_error", true)]
    #[case::windowed("a.pyw", "def\n", "static_analysis_syntax_error", true)]
    #[case::upper("a.PY", "def\n", "static_analysis_syntax_error", true)]
    #[case::script(
        "bin/tool",
        "#!/usr/bin/env python3\neval('1')\n",
        "static_analysis_disallowed_primitive",
        true
    )]
    #[case::bytecode("a.pyc", "x", "static_analysis_syntax_error", true)]
    #[case::null("a.py", "x = 1\0\n", "static_analysis_syntax_error", true)]
    #[case::coding("a.py", "# coding: nonsense\n", "static_analysis_syntax_error", true)]
    fn other_rules(#[case] file: &str, #[case] code: &str, #[case] reason: &str, #[case] error: bool) {
        let Some(findings) = analyse(&[(file, code)]) else { return };
        assert!(findings.iter().any(|f| f.reason_code == reason && f.is_error() == error), "{findings:?}");
    }

    #[test]
    fn own_data_is_no_finding() {
        let code = "from host import command_data\ncommand_data.get('own')\n";
        let Some(findings) = analyse(&[("a.py", code)]) else { return };
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn code_with_another_suffix_is_found_where_it_is_loaded() {
        let loader = "import runpy\nrunpy.run_path('data/part.inc')\n";
        let Some(findings) = analyse(&[("a.py", loader), ("data/part.inc", "eval('1')\n")]) else { return };
        assert!(
            findings.iter().any(|f| f.is_error() && f.file.as_deref() == Some("data/part.inc")),
            "{findings:?}"
        );
        let Some(findings) = analyse(&[("a.py", loader), ("data/part.inc", "just prose\n")]) else { return };
        assert!(!findings.iter().any(Finding::is_error), "{findings:?}");
    }

    #[rstest]
    #[case("(".repeat(1 << 20))]
    #[case(format!("{}1", "-".repeat(1 << 20)))]
    #[case(format!("x{}", ".a".repeat(1 << 19)))]
    #[case(format!("x = {}1{}", "[".repeat(150), "]".repeat(150)))]
    fn deep_nesting_is_a_finding_and_no_crash(#[case] code: String) {
        let Some(findings) = analyse(&[("a.py", &code)]) else { return };
        assert!(findings.iter().all(|f| f.reason_code == "static_analysis_syntax_error"), "{findings:?}");
    }

    #[test]
    fn warnings_never_push_an_error_out() {
        let mut code = "import ctypes\n".repeat(1_000);
        code.push_str("eval('1')\n");
        let Some(findings) = analyse(&[("a.py", &code)]) else { return };
        assert!(findings.len() <= 500 && findings.iter().any(Finding::is_error));
    }

    #[rstest]
    #[case(b"" as &[u8])]
    #[case(b"{}")]
    #[case(b"[1]")]
    #[case(b"{\"findings\":[],\"files\":1,\"dropped\":0,\"passed\":true}")]
    #[case(b"{\"findings\":[{\"code\":\"tests_failed\",\"severity\":\"error\",\"file\":\"\",\"line\":0,\"message\":\"\"}],\"files\":1,\"dropped\":0}")]
    fn a_report_of_another_shape_is_refused(#[case] report: &[u8]) {
        let findings = read_report(report);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].reason_code, "static_analysis_syntax_error");
    }
}
