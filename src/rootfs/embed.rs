//! Putting a bundle into an executable, and taking it off again.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err::{File, OpenOptions};
use serde::Serialize;

use super::bundle::Bundle;
use super::error::RootfsError;
use super::layer::Tap;
use super::section;

/// What an embedding did.
#[derive(Debug, Clone, Serialize)]
pub struct EmbedReport {
    /// The executable written.
    pub out: PathBuf,
    /// Digest of the bundle's manifest.
    pub bundle_digest: String,
    /// Length of the executable before.
    pub before_bytes: u64,
    /// Length of the executable now.
    pub after_bytes: u64,
}

impl fmt::Display for EmbedReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: bundle {} embedded, {} bytes before, {} now",
            self.out.display(),
            self.bundle_digest,
            self.before_bytes,
            self.after_bytes
        )
    }
}

/// Writes `executable` with the bundle of `layout` in it to `out`, which may be the same file; a bundle that is in it
/// already is replaced.
///
/// The layout is verified before, the result is read back and verified before it takes the place of `out`.
///
/// # Errors
/// When the layout isn't whole, the executable isn't one for the same platform, or a file operation fails; `out` is then
/// as it was.
pub fn embed(executable: &Path, layout: &Path, out: &Path) -> Result<EmbedReport, RootfsError> {
    let bundle = Bundle::open_layout(layout)?;
    bundle.verify()?;
    let temporary = Temporary::beside(out)?;
    let mut file = temporary.create(executable)?;
    copy_bare(executable, &mut file)?;
    check_platform(&temporary.path, executable, bundle.platform())?;
    let payload = section::append(&mut file, executable, &bundle.manifest_digest(), |stream| {
        write_tar(&bundle, stream)
    })?;
    file.sync_all()?;
    let after_bytes = file.metadata()?.len();
    drop(file);
    let read_back = Bundle::open_executable(&temporary.path)?.ok_or_else(|| RootfsError::PayloadCut {
        path: out.to_owned(),
        detail: "what was just written isn't found".to_owned(),
    })?;
    read_back.verify()?;
    temporary.rename(out)?;
    Ok(EmbedReport {
        out: out.to_owned(),
        bundle_digest: bundle.manifest_digest(),
        before_bytes: payload.original.size_bytes,
        after_bytes,
    })
}

/// Writes `executable` without its bundle to `out`; a copy when it has none.
///
/// # Errors
/// When the executable can't be read as one or a file operation fails; `out` is then as it was.
pub fn write_without_payload(executable: &Path, out: &Path) -> Result<(), RootfsError> {
    let temporary = Temporary::beside(out)?;
    let mut file = temporary.create(executable)?;
    copy_bare(executable, &mut file)?;
    file.sync_all()?;
    temporary.rename(out)
}

fn copy_bare(executable: &Path, file: &mut File) -> Result<(), RootfsError> {
    if let Some(payload) = section::find(executable)? {
        return section::copy_without(executable, &payload, file);
    }
    io::copy(&mut File::open(executable)?, file).map_err(RootfsError::stream(executable))?;
    Ok(())
}

fn check_platform(copy: &Path, executable: &Path, platform: &str) -> Result<(), RootfsError> {
    let mut start = [0; 20];
    io::Read::read_exact(&mut File::open(copy)?, &mut start)?;
    let expected: u16 = if platform == "linux/arm64" { 183 } else { 62 };
    if u16::from_le_bytes([start[18], start[19]]) == expected {
        return Ok(());
    }
    Err(RootfsError::Executable {
        path: executable.to_owned(),
        detail: format!("it isn't for {platform}, which the bundle is for"),
    })
}

fn write_tar(bundle: &Bundle, stream: &mut dyn Write) -> Result<(u64, String), RootfsError> {
    let mut tar = tar::Builder::new(Tap::new(stream));
    for (name, size_bytes, mut content) in bundle.files()? {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size_bytes);
        tar.append_data(&mut header, &name, &mut content).map_err(RootfsError::stream(Path::new(&name)))?;
    }
    let (_, length, digest) = tar.into_inner().map_err(RootfsError::stream(bundle.origin()))?.finish();
    Ok((length, digest))
}

/// A file beside the one to be replaced, gone again unless it took its place.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(out: &Path) -> Result<Self, RootfsError> {
        let name = out.file_name().ok_or_else(|| RootfsError::Executable {
            path: out.to_owned(),
            detail: "it isn't the path of a file".to_owned(),
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        Ok(Self { path: out.with_file_name(hidden) })
    }

    fn create(&self, like: &Path) -> Result<File, RootfsError> {
        let mode = fs_err::metadata(like)?.permissions().mode() & 0o777;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&self.path)?;
        fs_err::set_permissions(&self.path, std::fs::Permissions::from_mode(mode))?;
        Ok(file)
    }

    fn rename(self, out: &Path) -> Result<(), RootfsError> {
        fs_err::rename(&self.path, out)?;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, and a failure to clean up must not hide the first error.
        let _ = fs_err::remove_file(&self.path);
    }
}
