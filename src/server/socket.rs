//! The local socket `<root>/run/pantry.sock`.

use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::ServerError;

/// The most bytes that the system takes for the path of a socket, without the closing NUL.
const PATH_CAP: usize = 107;

/// Listens on the local socket; everybody may connect, as rights go by who connects.
///
/// A socket file that somebody left behind is replaced only when nobody answers on it.
pub(super) async fn listen(root: &Path) -> Result<(UnixListener, PathBuf), ServerError> {
    let folder = root.join("run");
    let path = folder.join("pantry.sock");
    if path.as_os_str().as_bytes().len() > PATH_CAP {
        return Err(ServerError::SocketPathTooLong { path, cap: PATH_CAP });
    }
    let failed = |source: std::io::Error| ServerError::Socket { path: path.clone(), source };
    fs_err::create_dir_all(&folder).map_err(failed)?;
    fs_err::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(failed)?;
    match UnixStream::connect(&path).await {
        Ok(_) => return Err(ServerError::SocketInUse { path }),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            fs_err::remove_file(&path).map_err(failed)?;
        }
        // Not there; or it can't be reached, which binding will tell.
        Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs_err::set_permissions(&path, Permissions::from_mode(0o666)).map_err(failed)?;
    Ok((listener, path))
}
