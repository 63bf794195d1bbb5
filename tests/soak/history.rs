//! What a client asked and was answered, kept in a file, so that a failure can be told from its beginning.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;

/// A failure tells so many acts of each client, the last ones,
const ACTS: usize = 30;
/// and so many lines of the server.
const LINES: usize = 80;

/// The file of one client; a line begins with the time and the number of the act.
pub struct History {
    file: File,
    began: Instant,
    act: u64,
}

impl History {
    pub fn new(root: &Path, number: usize, began: Instant) -> anyhow::Result<Self> {
        let path = path(root, number);
        let file = File::create(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(Self { file, began, act: 0 })
    }

    /// From here on lines belong to this act.
    pub fn begin(&mut self, act: u64, what: &str) -> anyhow::Result<()> {
        self.act = act;
        self.note(what)
    }

    pub fn note(&mut self, what: &str) -> anyhow::Result<()> {
        let line = format!("{:>9.3} #{} {what}\n", self.began.elapsed().as_secs_f64(), self.act);
        Ok(self.file.write_all(line.as_bytes())?)
    }
}

fn path(root: &Path, number: usize) -> PathBuf {
    root.with_extension(format!("client-{number}.log"))
}

/// The digests in a text.
fn digests(text: &str) -> BTreeSet<String> {
    let digest = |word: &str| {
        let (algorithm, hex) = word.split_once(':')?;
        let long = hex.len() >= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        (long && algorithm.starts_with("sha")).then(|| word.to_owned())
    };
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter_map(digest).collect()
}

/// The repositories of clients in a text.
fn repositories(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '-');
    let parts =
        words.filter_map(|word| word.split_once("-w").or_else(|| word.split_once("/w")).map(|_| word));
    parts.map(str::to_owned).collect()
}

/// What all clients did with the digests that an error names, or with the repositories when it names none, and what
/// the server said of them.
pub fn story(root: &Path, clients: usize, server_log: &str, error: &str) -> String {
    let mut sought = digests(error);
    if sought.is_empty() {
        sought = repositories(error);
    }
    let concerns = |text: &str| sought.iter().any(|one| text.contains(one.as_str()));
    let mut told = Vec::new();
    for number in 0..clients {
        let path = path(root, number);
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        let mut acts: Vec<Vec<&str>> = Vec::new();
        let act = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        for line in text.lines() {
            match acts.last_mut() {
                Some(last) if act(last[0]) == act(line) => last.push(line),
                _ => acts.push(vec![line]),
            }
        }
        acts.retain(|lines| lines.iter().any(|line| concerns(line)));
        let lines: Vec<&str> = acts[acts.len().saturating_sub(ACTS)..].concat();
        if !lines.is_empty() {
            told.push(format!("\nclient {number} ({}):\n{}\n", path.display(), lines.join("\n")));
        }
    }
    let lines: Vec<&str> = server_log.lines().filter(|line| concerns(line)).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    told.push(format!("\nthe server of it:\n{}\n", last.join("\n")));
    told.concat()
}
