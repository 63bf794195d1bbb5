//! Certificates and keys in files.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::provider;
use crate::keys::KeyError;

/// No chain and no key is longer.
const CAP: u64 = 1024 * 1024;

/// A certificate with its chain, and its key.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) certified: CertifiedKey,
    /// The file of the certificate, for messages.
    pub(super) path: PathBuf,
}

impl Pair {
    /// Reads both and checks that they belong together.
    pub(super) fn read(certificate: &Path, key: &Path) -> Result<Self, KeyError> {
        let pair = Self::parse((certificate, &read(certificate)?), (key, &read(key)?))?;
        if fs::metadata(key).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
            tracing::warn!(path = %key.display(), "everybody on this machine may read the key of the port");
        }
        Ok(pair)
    }

    /// Takes both from the content of their files, which may be one, and checks that they belong together.
    pub(super) fn parse(
        (certificate, chain): (&Path, &[u8]),
        (key, pem): (&Path, &[u8]),
    ) -> Result<Self, KeyError> {
        let chain = certificates_in(certificate, chain)?;
        let private = PrivateKeyDer::from_pem_slice(pem).map_err(|source| match source {
            rustls_pki_types::pem::Error::NoItemsFound => KeyError::NoKey { path: key.to_owned() },
            source => KeyError::NotPem { path: key.to_owned(), source },
        })?;
        let certified = CertifiedKey::from_der(chain.clone(), private, &provider())
            .map_err(|source| KeyError::Unusable { path: certificate.to_owned(), source })?;
        Ok(Self { chain, certified, path: certificate.to_owned() })
    }
}

/// All certificates of a file, one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    certificates_in(path, &read(path)?)
}

fn certificates_in(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| KeyError::NotPem { path: path.to_owned(), source })?;
    if found.is_empty() { Err(KeyError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// A file whole, as far as it is no longer than any of ours.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    use std::io::Read as _;
    let failed = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // A fifo in the place of the file must not make the server wait.
    let file =
        fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    file.take(CAP).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a file whole or not at all.
pub(in crate::keys) fn put(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = |source| KeyError::Unwritable { path: path.to_owned(), source };
    if fs::read(path).is_ok_and(|known| known == content) {
        return Ok(());
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    // The mask of the process may have taken rights away that everybody is to have.
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// What tells whether a file was exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of what a link leads to; `None` when nothing is there.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}
