//! From `pantry submit` to published: versions of `examples/greeter`, after one has warmed the wheels.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::latency::Latencies;
use crate::process::{Process, get};
use crate::report::{Report, Table};
use crate::starting::until_proved;

/// The stand-in index of the examples; it ends with this value.
struct Index {
    child: Child,
    url: String,
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Submits `versions` versions one after another and tells where the time goes.
pub fn measure(
    binary: &Path,
    root: &Path,
    folder: &Path,
    versions: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let index = index(folder, report)?;
    let environment: Vec<(&str, &str)> =
        index.iter().map(|index| ("PANTRY_STORE_INDEX_URL", index.url.as_str())).collect();
    let server = Process::pantry(binary, root, &environment)?;
    until_proved(&server)?;
    let package = folder.join("greeter");
    let example = checkout().join("examples/greeter");
    let copied = Command::new("cp").arg("-a").arg(&example).arg(&package).status()?;
    ensure!(copied.success(), "cannot copy {}", example.display());

    let cold = submit(binary, root, &package, 0)?;
    let (mut whole, mut tasks) = (Latencies::default(), BTreeMap::<String, Latencies>::new());
    let mut order = Vec::new();
    for version in 1..=versions {
        let (took, answer) = submit(binary, root, &package, version)?;
        whole.push(took);
        for (task, millis) in task_times(&server, &answer)? {
            if !order.contains(&task) {
                order.push(task.clone());
            }
            tasks.entry(task).or_default().push(Duration::from_millis(millis));
        }
    }
    server.stop()?;
    let mut table = Table::new("submit to published, ms", &["median", "best", "worst"]);
    table.row("greeter, wheels to download", vec![Some(cold.0.as_secs_f64() * 1e3), None, None]);
    let mut row = |name: String, times: &Latencies| {
        table.row(name, [50, 0, 100].map(|at| times.percentile_ms(at)).to_vec());
    };
    row(format!("greeter, warm wheels, {versions} versions"), &whole);
    for task in order {
        row(format!("  of which {task}"), &tasks[&task]);
    }
    report.table(&table);
    Ok(())
}

/// Gives the copy a new version and submits it as a person would; the time is that of the command.
fn submit(binary: &Path, root: &Path, package: &Path, number: usize) -> anyhow::Result<(Duration, Value)> {
    let manifest = package.join("pantry_package.yaml");
    let text = fs_err::read_to_string(&manifest)?;
    let lines: Vec<String> =
        text.lines()
            .map(|line| {
                if line.starts_with("version:") { format!("version: 1.1.{number}") } else { line.to_owned() }
            })
            .collect();
    fs_err::write(&manifest, lines.join("\n") + "\n")?;
    let began = Instant::now();
    let output = Command::new(binary)
        .arg("--root")
        .arg(root)
        .args(["--output", "json", "submit"])
        .arg(package)
        .arg("--watch")
        .stdin(Stdio::null())
        .output()?;
    let took = began.elapsed();
    let answers: Result<Vec<Value>, _> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>().collect();
    let answer = answers.ok().and_then(|mut answers| answers.pop()).unwrap_or_default();
    if answer["state"] != "published" {
        bail!("greeter was not published: {answer}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((took, answer))
}

/// How long each task of the submission's change took.
fn task_times(server: &Process, submission: &Value) -> anyhow::Result<Vec<(String, u64)>> {
    let change = submission["change"].as_str().context("the submission names no change")?;
    let answer = get(server.address, &format!("/v1/changes/{change}"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let change: Value =
        serde_json::from_str(body).with_context(|| format!("no change came back: {answer}"))?;
    let tasks = change["tasks"].as_array().context("the change has no tasks")?;
    Ok(tasks
        .iter()
        .filter_map(|task| Some((task["kind"].as_str()?.to_owned(), task["millis"].as_u64()?)))
        .collect())
}

/// `None` when the index that this machine is configured for answers.
fn index(folder: &Path, report: &mut Report) -> anyhow::Result<Option<Index>> {
    let probe = Command::new("timeout")
        .args(["20", "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(["--no-cache-dir", "--retries", "0", "inflection", "--dest"])
        .arg(folder.join("probe"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_ok_and(|status| status.success()) {
        report.note("wheels come from the index that this machine is configured for");
        return Ok(None);
    }
    report.note("the configured index does not answer: wheels come from examples/local-index on loopback");
    let mut child = Command::new("python3")
        .arg(checkout().join("examples/local-index/serve.py"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("stdout was asked for as a pipe")?;
    let mut index = Index { child, url: String::new() };
    BufReader::new(stdout).read_line(&mut index.url)?;
    index.url.truncate(index.url.trim_end().len());
    ensure!(index.url.starts_with("http://127.0.0.1:"), "the stand-in index did not start");
    Ok(Some(index))
}

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
