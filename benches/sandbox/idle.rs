//! What a run that waits keeps in memory beside its program: the helper and the init.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Memory of some processes, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Their share of every page that they have.
    pub proportional: f64,
    /// Pages that nobody else has.
    pub private: f64,
    /// Of these, the ones that no file backs.
    pub private_dirty: f64,
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
        let field = |file: &str, key: &str| fields(id, file, &[key]);
        held.proportional += field("smaps_rollup", "Pss:")?;
        held.private += fields(id, "smaps_rollup", &["Private_Clean:", "Private_Dirty:"])?;
        held.private_dirty += field("smaps_rollup", "Private_Dirty:")?;
        held.page_tables += field("status", "VmPTE:")?;
    }
    Ok(held)
}

fn fields(id: u32, file: &str, keys: &[&str]) -> anyhow::Result<f64> {
    let text = fs_err::read_to_string(format!("/proc/{id}/{file}"))?;
    let values = text.lines().filter_map(|line| {
        let (key, rest) = line.split_once(char::is_whitespace)?;
        keys.contains(&key).then(|| rest.split_whitespace().next()?.parse::<f64>().ok())?
    });
    Ok(values.sum())
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
