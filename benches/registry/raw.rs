//! The bare disk beside the registries: the same bytes written to a new file and synced, nothing else.

use std::io::Write as _;
use std::path::Path;

use crate::content::Blob;

/// Writes one file durably; gives its size.
pub fn write(folder: &Path, blob: &Blob<'_>) -> anyhow::Result<u64> {
    let mut file = fs_err::File::create_new(folder.join(&blob.digest["sha256:".len()..]))?;
    for piece in blob.pieces() {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    Ok(blob.size() as u64)
}

/// Makes room: nobody pulls these.
pub fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in fs_err::read_dir(folder)? {
        fs_err::remove_file(entry?.path())?;
    }
    Ok(())
}
