//! What a run that waits keeps in memory beside its program: the helper and the init.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Memory of some processes, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Their share of every page that they have.
    pub proportional: f64,
    /// The part of that which no file backs: what a run adds to the machine's memory.
    pub anonymous: f64,
    /// The part of it which is the program's file: there once for all who run it, and the kernel can drop it.
    pub file: f64,
    /// What the kernel needs to map all that.
    pub page_tables: f64,
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the helper and the init of the run whose program is called `idle`, below the process `worker`.
pub fn look(worker: u32) -> anyhow::Result<Held> {
    let deadline = Instant::now() + PATIENCE;
    let program = loop {
        let found = descendants(worker)?.into_iter().find(|id| name(*id).is_some_and(|name| name == "idle"));
        match found {
            Some(id) => break id,
            None if Instant::now() > deadline => bail!("the idle run did not start"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    // What the start left to do is done by then.
    std::thread::sleep(Duration::from_millis(300));
    let init = parent(program).context("the program has no init")?;
    let helper = parent(init).context("the init has no helper")?;
    let mut held = Held::default();
    for id in [helper, init] {
        held.proportional += field(id, "smaps_rollup", "Pss:")?;
        held.anonymous += field(id, "smaps_rollup", "Pss_Anon:")?;
        held.file += field(id, "smaps_rollup", "Pss_File:")?;
        held.page_tables += field(id, "status", "VmPTE:")?;
    }
    Ok(held)
}

fn field(id: u32, file: &str, key: &str) -> anyhow::Result<f64> {
    let text = fs_err::read_to_string(format!("/proc/{id}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("no {key} in {file} of process {id}"))
}

fn stat(id: u32) -> Option<(String, u32)> {
    let text = fs_err::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    Some((name, after.split_whitespace().nth(1)?.parse().ok()?))
}

fn name(id: u32) -> Option<String> {
    stat(id).map(|(name, _)| name)
}

fn parent(id: u32) -> Option<u32> {
    stat(id).map(|(_, parent)| parent)
}

fn descendants(of: u32) -> anyhow::Result<Vec<u32>> {
    let all: Vec<(u32, u32)> = fs_err::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let mut found = vec![of];
    let mut seen = 0;
    while let Some(of) = found.get(seen).copied() {
        found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(id, _)| *id));
        seen += 1;
    }
    Ok(found)
}
