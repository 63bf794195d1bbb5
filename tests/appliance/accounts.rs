//! As whom servers and clients run: as the caller or, where the caller is root, as an ordinary user beside it.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use super::support::{PANTRY, Start, bundle};

/// An id that owns nothing but what the tests give it.
pub const PLAIN_ID: u32 = 61_234;

/// As whom a server and its clients run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// As whoever runs the tests.
    #[default]
    Caller,
    /// As an ordinary user; only root can start such a one.
    Plain,
}

/// What all tests of an account share; removed when the test process is gone.
struct Shared {
    folder: PathBuf,
    /// A root on which a server has already unpacked the bundle; copied for each test, so that none pays for it again.
    template: LazyLock<PathBuf, Box<dyn FnOnce() -> PathBuf + Send>>,
}

impl Shared {
    fn of(account: Account) -> Self {
        let folder = account.folder().keep();
        remove_at_exit(&folder);
        if account == Account::Plain {
            // The checkout may lie where an ordinary user cannot look.
            copy(Path::new(PANTRY), &folder.join("pantry"));
            copy(&bundle(), &folder.join("bundle"));
            account.own(&folder);
        }
        let root = folder.join("root");
        let template = LazyLock::new(Box::new(move || {
            let server = Start { account, ..Start::default() }.on(&root);
            server.until_healthy();
            server.stop();
            root
        }) as Box<dyn FnOnce() -> PathBuf + Send>);
        Self { folder, template }
    }
}

impl Account {
    fn shared(self) -> &'static Shared {
        static CALLER: LazyLock<Shared> = LazyLock::new(|| Shared::of(Account::Caller));
        static PLAIN: LazyLock<Shared> = LazyLock::new(|| Shared::of(Account::Plain));
        match self {
            Self::Caller => &CALLER,
            Self::Plain => &PLAIN,
        }
    }

    /// The program under test, where this account can start it.
    pub fn program(self) -> PathBuf {
        match self {
            Self::Caller => PathBuf::from(PANTRY),
            Self::Plain => self.shared().folder.join("pantry"),
        }
    }

    /// The bundle that all tests share, where this account can read it.
    pub fn bundle(self) -> PathBuf {
        match self {
            Self::Caller => bundle(),
            Self::Plain => self.shared().folder.join("bundle"),
        }
    }

    /// A program, to be run by this account.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        if self == Self::Plain {
            command.uid(PLAIN_ID).gid(PLAIN_ID).current_dir("/").env("HOME", "/nonexistent");
            command.env_remove("TMPDIR").env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
        }
        command
    }

    /// A new folder of this account's own.
    pub fn folder(self) -> tempfile::TempDir {
        let mut builder = tempfile::Builder::new();
        builder.prefix("pantry-test-");
        match self {
            Self::Caller => builder.tempdir().unwrap(),
            Self::Plain => {
                // Not where TMPDIR says, which may be the caller's alone.
                let folder = builder.tempdir_in("/tmp").unwrap();
                chown(folder.path(), Some(PLAIN_ID), Some(PLAIN_ID)).unwrap();
                folder
            }
        }
    }

    /// Gives a folder and what is in it to this account.
    pub fn own(self, folder: &Path) {
        if self == Self::Plain {
            let given =
                Command::new("chown").args(["-R", &format!("{PLAIN_ID}:{PLAIN_ID}")]).arg(folder).status();
            assert!(given.unwrap().success());
        }
    }

    /// A folder with a `root` in it on which the bundle is unpacked.
    pub fn fresh_root(self) -> tempfile::TempDir {
        let folder = self.folder();
        let template = &*self.shared().template;
        let copied =
            Command::new("cp").args(["-a", "--link"]).arg(template).arg(folder.path()).status().unwrap();
        assert!(copied.success());
        let root = folder.path().join("root");
        // What is written in place must not be shared with the template.
        for file in ["state.redb", "run/lock", "keys/admin-token", "trees/.lock"] {
            let bytes = std::fs::read(root.join(file)).unwrap();
            replace(&root.join(file), &bytes);
        }
        adopt_trees(&root);
        folder
    }
}

/// Lets the stamps of copied trees name the copies: else each server would unpack the bundle anew.
fn adopt_trees(root: &Path) {
    for entry in std::fs::read_dir(root.join("trees")).unwrap().flatten() {
        let stamp = entry.path();
        if stamp.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&stamp).unwrap()).unwrap();
        value["inode"] = std::fs::metadata(stamp.with_extension("")).unwrap().ino().into();
        replace(&stamp, value.to_string().as_bytes());
    }
}

/// Puts another file with the same owner and rights in a file's place.
fn replace(path: &Path, bytes: &[u8]) {
    let was = std::fs::metadata(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(was.mode() & 0o777)).unwrap();
    chown(path, Some(was.uid()), Some(was.gid())).unwrap();
}

/// Copies a file or a folder.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cannot copy {}", from.display());
}

/// Statics are not dropped: a process that ends with this one, however that ends, removes the folder.
fn remove_at_exit(folder: &Path) {
    static REMOVERS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    // In a session of its own, so that a signal to our group does not reach it.
    let remover = Command::new("setsid")
        .args(["sh", "-c", "cat >/dev/null; rm -rf -- \"$1\"", "sh"])
        .arg(folder)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    REMOVERS.lock().unwrap().push(remover);
}
