//! The machine that the figures belong to.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

/// Cores, memory, kernel, the disk below this folder, and how busy it all is before the bench begins.
pub fn describe(folder: &Path) -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory_mib = line_of("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024);
    let kernel = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    // Above some tenths others are at work here, and the figures are theirs too.
    let load = fs_err::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let disk = disk_of(folder).unwrap_or_else(|| "unknown disk".to_owned());
    let summary = format!(
        "{cores} cores ({processor}), {memory_mib} MiB memory, Linux {kernel}, {} on {disk}, load {load} before",
        folder.display()
    );
    json!({
        "cores": cores, "processor": processor, "memory_mib": memory_mib,
        "kernel": kernel, "disk": disk, "folder": folder, "load_before": load, "summary": summary,
    })
}

fn line_of(file: &str, key: &str) -> Option<String> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Device, file system, and whether it turns or is virtual.
fn disk_of(folder: &Path) -> Option<String> {
    let device = fs_err::metadata(folder).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().rev().find(|line| line.split(' ').nth(2) == Some(number.as_str()))?;
    let mut after = mount.split_once(" - ")?.1.split(' ');
    let (kind, source) = (after.next()?, after.next()?);
    let block = fs_err::canonicalize(format!("/sys/dev/block/{number}")).ok();
    let how = block.map_or("no block device", |block| {
        let disk =
            if block.join("queue").exists() { block } else { block.parent().unwrap_or(&block).to_owned() };
        let turns =
            fs_err::read_to_string(disk.join("queue/rotational")).is_ok_and(|text| text.trim() == "1");
        match (disk.to_string_lossy().contains("virtio"), turns) {
            (true, _) => "a virtual disk",
            (false, true) => "a turning disk",
            (false, false) => "a solid disk",
        }
    });
    Some(format!("{kind} {source} ({how})"))
}
