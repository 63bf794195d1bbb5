//! The C library's name service, settled before it can load a module of the host.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// Of the GNU C library (`nss.h`): sets what a database of the name service asks, in place of `nsswitch.conf`.
    fn __nss_configure_lookup(database: *const c_char, service_line: *const c_char) -> c_int;
}

/// Which databases a static binary may ask, and of what: only what is built into it.
const LINES: [(&CStr, &CStr); 3] = [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")];

/// Keeps the C library from loading the host's `libnss_*` into this static binary, where a library of another version
/// can crash it. Must be called before any thread exists.
pub(crate) fn settle_name_service() {
    for (database, line) in LINES {
        // SAFETY: both arguments are NUL-terminated and live for the whole program; the function only parses them and
        // keeps copies. No other thread exists yet, so nobody reads the tables that it writes.
        let _unknown = unsafe { __nss_configure_lookup(database.as_ptr(), line.as_ptr()) };
    }
}
