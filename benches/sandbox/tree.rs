//! The smallest root there is: a static program that returns 0, and empty mount points.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

/// Makes the root, readable by everybody.
pub fn make(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    for name in ["", "bin", "dev", "proc", "sys", "tmp", "run", "etc"] {
        fs_err::create_dir_all(root.join(name))?;
        open_up(&root.join(name))?;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/sandbox/true.c");
    let built =
        Command::new("cc").args(["-static", "-O1", "-o"]).arg(root.join("bin/true")).arg(source).output()?;
    ensure!(built.status.success(), "cc -static failed: {}", String::from_utf8_lossy(&built.stderr));
    Ok(root)
}

/// The root with empty layers over it, as a pack's has.
pub fn layers(folder: &Path, root: &Path, count: usize) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = vec![root.to_owned()];
    for number in 1..count {
        let layer = folder.join(format!("layer-{number}"));
        fs_err::create_dir_all(layer.join("opt"))?;
        for opened in [folder, &layer, &layer.join("opt")] {
            open_up(opened)?;
        }
        all.push(layer);
    }
    Ok(all)
}

/// Lets other users in.
pub fn open_up(path: &Path) -> anyhow::Result<()> {
    Ok(fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
