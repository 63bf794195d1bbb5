//! The smallest root there is: static programs that return 0 and that wait, and empty mount points.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

/// So many layers the root has with all that can be put over it.
const LAYERS: usize = 3;

/// Makes the root and the layers over it, readable by everybody.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    for name in ["", "bin", "dev", "proc", "sys", "tmp", "run", "etc"] {
        fs_err::create_dir_all(root.join(name))?;
        open_up(&root.join(name))?;
    }
    for program in ["true", "idle"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/sandbox").join(program);
        let built = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(root.join("bin").join(program))
            .arg(source.with_extension("c"))
            .output()?;
        ensure!(built.status.success(), "cc -static failed: {}", String::from_utf8_lossy(&built.stderr));
    }
    for layer in &layers(folder, LAYERS)[1..] {
        fs_err::create_dir_all(layer.join("opt"))?;
        open_up(layer)?;
        open_up(&layer.join("opt"))?;
    }
    Ok(())
}

/// The root with empty layers over it, as a pack's has: so many in all.
pub fn layers(folder: &Path, count: usize) -> Vec<PathBuf> {
    let above = (1..count.min(LAYERS)).map(|number| folder.join(format!("layer-{number}")));
    std::iter::once(folder.join("root")).chain(above).collect()
}

/// Lets other users in.
pub fn open_up(path: &Path) -> anyhow::Result<()> {
    Ok(fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
