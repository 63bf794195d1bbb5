//! The arguments as clap parses them; help texts are written here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::images::Platform;
use super::repo::Repo;

/// A self-hosted package appliance in one Linux binary.
#[derive(Debug, Parser)]
#[command(name = "pantry", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the daemon or the registry cannot be reached, 4 rejected or not valid,
5 not found, 6 in conflict with something else, 7 not permitted, 8 a task of the change failed.
`pantry exec`, `pantry run` and installed commands give the exit code of the program, 128+n when signal n ended it,
124 when its time was over, 137 when it hit a limit.";

/// Options that stand before or after any command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The folder everything lives below [default: /var/lib/pantry as root, else the user's state folder]
    #[arg(long, global = true, env = "PANTRY_ROOT", value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Talk to this server instead of the local socket, such as <http://127.0.0.1:7721>
    #[arg(long, global = true, env = "PANTRY_HOST", value_name = "URL")]
    pub(super) host: Option<String>,
    /// The token for --host, and for the registry of push, pull and login
    #[arg(long, global = true, env = "PANTRY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Certificates to trust for --host in place of this machine's own, as a PEM file
    #[arg(long, global = true, env = "PANTRY_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
    /// Say less
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences
    Text,
    /// One JSON document, with stable names
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Walk a package through everything on a temporary root, with real output
    Demo(Demo),
    /// Show what the daemon is and stands on
    Status,
    /// Make real jails on this machine and tell what holds them; needs no daemon
    Doctor(Doctor),
    /// Submit the package in a folder
    Submit(Submit),
    /// Show a submission: its state, findings and links
    Submission {
        /// The submission's id
        id: String,
        /// Follow it until its end
        #[arg(long)]
        watch: bool,
    },
    /// Install a published package
    Install {
        /// NAME, PUBLISHER/NAME or either with @VERSION
        package: String,
        /// Print the change's id and do not wait for it
        #[arg(long)]
        detach: bool,
    },
    /// Remove an installed package
    Remove {
        /// NAME or PUBLISHER/NAME
        package: String,
        /// Remove its data as well
        #[arg(long)]
        purge: bool,
    },
    /// List the installed packages
    List,
    /// Run an installed command in its jail; needs no daemon
    Exec(Exec),
    /// Run anything in a jail: from a directory, an image, or the base that Pantry carries; needs no daemon
    Run(Box<Run>),
    /// Collect what nobody refers to: bytes of deleted images, leftovers of pushes
    Gc(Gc),
    /// Hash every blob again and set aside what is damaged; damage is exit code 4
    Verify(Verify),
    /// Look for records, references and files that do not fit together; flaws are exit code 4
    Repair(Repair),
    /// List the changes, newest first
    Changes,
    /// Show a change: its tasks and its log
    Change {
        /// The change's id
        id: String,
    },
    /// Abort a change: what it has done so far is undone
    Abort {
        /// The change's id
        id: String,
    },
    /// The repositories of the registry: make, set, look into and remove them
    #[command(subcommand)]
    Repo(Repo),
    /// Send an image from an OCI layout or a saved archive to a registry; needs no daemon
    Push(Push),
    /// Fetch an image from a registry into an OCI layout; needs no daemon
    Pull(Pull),
    /// Check credentials for a registry and keep them where docker keeps them
    Login(Login),
    /// Forget the credentials for a registry
    Logout(Logout),
    /// Make, change and list the users of the server
    #[command(subcommand)]
    User(User),
    /// Make, list and revoke API tokens
    #[command(subcommand)]
    Token(Token),
    /// Say who may do what in which repositories
    #[command(subcommand)]
    Grant(Grant),
    /// Make, check and look into the root filesystem that Pantry carries
    #[command(subcommand)]
    Rootfs(Rootfs),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address and port of the HTTP API; port 0 takes a free one [default: 127.0.0.1:7721]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(super) check: bool,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Only as the user who asks; root else tries without root as well
    #[arg(long)]
    pub(super) only_this_user: bool,
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// The package to walk through
    #[arg(long, value_name = "DIR", default_value = "examples/greeter")]
    pub(super) package: PathBuf,
    /// The program that serves stand-in wheels when no package index answers
    #[arg(long, value_name = "FILE", default_value = "examples/local-index/serve.py")]
    pub(super) local_index: PathBuf,
    /// Leave the server running and print what to type next
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Submit {
    /// The folder with `pantry_package.yaml`
    pub(super) directory: PathBuf,
    /// Follow the submission until its end; a rejection is exit code 4
    #[arg(long)]
    pub(super) watch: bool,
    /// Run the checks only; nothing is stored
    #[arg(long)]
    pub(super) preview: bool,
    /// Repeating a request with the same key gives the first answer
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Only tell what would go, and why
    #[arg(long)]
    pub(super) dry_run: bool,
    /// How long nobody must have wanted it [default: `storage.collect_grace_seconds`]; with 0, pushes under way lose
    /// what no manifest names yet
    #[arg(long, value_name = "SECONDS")]
    pub(super) grace: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Read at most so many megabytes a second [default: as fast as the disk gives]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Mend what is found; without it nothing is changed
    #[arg(long)]
    pub(super) apply: bool,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The installed command, or the path of its wrapper
    pub(super) command: String,
    /// Arguments for the program, passed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Directory, OCI layout, archive, HOST[:PORT]/NAME[:TAG] of a registry, or pantry/base
    #[arg(long, value_name = "ROOT")]
    pub(super) root_fs: String,
    /// Show a directory of this machine inside, to be written; its owner is who the program is outside
    #[arg(long, value_name = "HOST:INSIDE")]
    pub(super) bind: Vec<String>,
    /// Show a file or directory of this machine inside, read-only
    #[arg(long, value_name = "HOST:INSIDE")]
    pub(super) ro_bind: Vec<String>,
    /// Scratch space in memory [default: /tmp of 64M]
    #[arg(long, value_name = "PATH[:SIZE]")]
    pub(super) tmpfs: Vec<String>,
    /// Set a variable; nothing is inherited
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Working directory inside [default: that of the image, else /]
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// Host name inside [default: pantry]
    #[arg(long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Memory of all processes and scratch space together, such as 512M [default: 2G]
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<String>,
    /// Processes and threads at a time [default: 1024]
    #[arg(long, value_name = "N")]
    pub(super) processes: Option<u64>,
    /// Processors, such as 2 or 0.5 [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) cpus: Option<String>,
    /// End it after this time, in seconds or as 30s, 5m, 2h [default: never]
    #[arg(long, value_name = "TIME")]
    pub(super) time: Option<String>,
    /// What it reaches
    #[arg(long, value_enum, value_name = "NETWORK", default_value_t = RunNetwork::None)]
    pub(super) network: RunNetwork,
    /// Grant something beyond the ordinary, such as network-client=tcp:443 or CHOWN
    #[arg(long, value_name = "NAME[=PORTS]")]
    pub(super) grant: Vec<String>,
    /// Refuse to start where a limit is held by less: memory, processes, cpu or time by rlimit, watchdog, cgroup1 or
    /// cgroup2
    #[arg(long, value_name = "LIMIT=BY", value_delimiter = ',')]
    pub(super) require: Vec<String>,
    /// Whether it gets a terminal of its own where yours is its input, output or errors
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = RunTerminal::Auto)]
    pub(super) terminal: RunTerminal,
    /// Tell what it may before, and what held it after
    #[arg(long)]
    pub(super) explain: bool,
    /// Tell after the run what it was refused: calls and paths; it runs slower, and may no more than without
    #[arg(long)]
    pub(super) learn: bool,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
    /// The program and its arguments, as they are [default: what the image starts]
    #[arg(last = true, value_name = "PROGRAM")]
    pub(super) argv: Vec<String>,
}

/// What a run reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RunNetwork {
    /// Nothing
    None,
    /// The network of this machine, as it is
    Host,
}

/// Whether a run has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RunTerminal {
    /// Where you have one: keys, job control and sizes work as in a shell
    Auto,
    /// What is typed and shown is copied
    Never,
}

/// How a registry is reached, and as whom.
#[derive(Debug, Args)]
pub(super) struct RegistryOptions {
    /// Log in as this user; the password is asked for [default: what `pantry login`, docker or podman keep]
    #[arg(short, long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    pub(super) password_stdin: bool,
    /// The file with logins, in docker's form
    #[arg(long, value_name = "FILE")]
    pub(super) auth_file: Option<PathBuf>,
    /// Speak HTTP without TLS [default: for loopback addresses only, unless --ca is given]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) plain_http: Option<bool>,
}

#[derive(Debug, Args)]
pub(super) struct Push {
    /// The folder of an OCI image layout, a tar of one, or a file of `docker save`
    pub(super) source: PathBuf,
    /// HOST[:PORT]/NAME[:TAG]
    pub(super) name: String,
    /// Send the image of this platform only, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse, conflicts_with = "all")]
    pub(super) platform: Option<Platform>,
    /// Send all images of the source as one for many platforms
    #[arg(long, conflicts_with = "ref")]
    pub(super) all: bool,
    /// Send the image that the source calls so [default: the only one, else the one called like the tag]
    #[arg(long, value_name = "REF")]
    pub(super) r#ref: Option<String>,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(super) name: String,
    /// The new folder, or the new archive where the name ends in `.tar`
    pub(super) destination: PathBuf,
    /// Fetch the image for this platform, such as linux/arm64 [default: that of this machine]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse, conflicts_with = "all")]
    pub(super) platform: Option<Platform>,
    /// Fetch the images of all platforms
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
}

#[derive(Debug, Args)]
pub(super) struct Login {
    /// HOST[:PORT]
    pub(super) registry: String,
    #[command(flatten)]
    pub(super) connection: RegistryOptions,
}

#[derive(Debug, Args)]
pub(super) struct Logout {
    /// HOST[:PORT]
    pub(super) registry: String,
    /// The file with logins, in docker's form
    #[arg(long, value_name = "FILE")]
    pub(super) auth_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Make a user; the password is asked for
    Add {
        /// Letters, digits, `.`, `_`, `-`, `@` and `+`
        name: String,
        /// nobody, reader, installer or administrator: what the user is beside what grants say
        #[arg(long, value_name = "ROLE", default_value = "nobody", value_parser = role)]
        role: String,
        /// Put the user into this group; may be given again
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Read the password from stdin
        #[arg(long)]
        password_stdin: bool,
        /// A user without a password gets in by API tokens alone
        #[arg(long, conflicts_with = "password_stdin")]
        no_password: bool,
    },
    /// List the users
    List,
    /// Show a user
    Show {
        /// The name
        name: String,
    },
    /// Remove a user with all tokens, memberships and grants
    Rm {
        /// The name
        name: String,
    },
    /// Give a user a new password
    Passwd {
        /// The name
        name: String,
        /// Read the password from stdin
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change a user's role and groups
    Set {
        /// The name
        name: String,
        /// nobody, reader, installer or administrator
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Option<String>,
        /// All groups that the user is in from now on; empty for none
        #[arg(long, value_name = "GROUP,GROUP")]
        groups: Option<String>,
    },
    /// Let nobody in as this user; API tokens rest until `enable`, what they and passwords obtained ends
    Disable {
        /// The name
        name: String,
    },
    /// Let a disabled user in again, also with the API tokens that are not revoked
    Enable {
        /// The name
        name: String,
    },
}

/// A role, by its word in the API.
fn role(text: &str) -> Result<String, String> {
    let role = crate::access::Role::parse(text);
    role.map(|role| role.as_str().to_owned())
        .ok_or_else(|| "a role is nobody, reader, installer or administrator".to_owned())
}

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make an API token and show it, this once
    Create {
        /// What it is called, once a user
        name: String,
        /// Whose it is [default: your own, where you are a user]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// How long it counts, such as 30d, 12h or 90m [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
        /// Narrow it to these rights, such as local/team:pull,push; may be given again
        #[arg(long = "scope", value_name = "PATTERN:RIGHTS")]
        scopes: Vec<String>,
        /// The most that its holder is here
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Option<String>,
    },
    /// List the API tokens, without their secrets
    List {
        /// Those of this user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Make an API token count no more
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}

/// A time in seconds: a number with `s`, `m`, `h` or `d`.
fn lifetime(text: &str) -> Result<u64, String> {
    let bad = || "a time is a number with s, m, h or d, such as 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or_else(bad)
}

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// Grant rights on a pattern, in place of what was granted on it
    Add {
        /// user:NAME, group:NAME or anonymous
        subject: String,
        /// `*`, or a name such as local/team: it and all below it
        pattern: String,
        /// Some of pull,push,delete,admin
        rights: String,
    },
    /// List the grants
    List,
    /// Take back all that was granted on a pattern
    Rm {
        /// user:NAME, group:NAME or anonymous
        subject: String,
        /// The pattern as it was granted on
        pattern: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Rootfs {
    /// Put the bundle together from this machine's programs
    Assemble {
        /// The new folder for the OCI image layout
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A folder to work in; its `wheels/` spares the download of uv the next time
        #[arg(long, value_name = "DIR")]
        work: Option<PathBuf>,
        /// The uv program [default: found on PATH, else fetched by pip]
        #[arg(long, value_name = "FILE")]
        uv: Option<PathBuf>,
        /// The pantry program for the third layer [default: this one]
        #[arg(long, value_name = "FILE")]
        pantry: Option<PathBuf>,
    },
    /// Check a layout or an unpacked root against every rule
    Check {
        /// The layout's or the root's folder
        path: PathBuf,
    },
    /// Put a layout into an executable
    Embed {
        /// The layout's folder
        #[arg(long, value_name = "DIR")]
        layout: PathBuf,
        /// The executable to read [default: this one]
        #[arg(long, value_name = "FILE")]
        executable: Option<PathBuf>,
        /// The executable to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what this executable, or a layout, carries
    Show {
        /// A layout's folder or another executable
        path: Option<PathBuf>,
    },
    /// List the files of the bundle
    Ls {
        /// A layout's folder or another executable
        path: Option<PathBuf>,
    },
    /// Write the embedded bundle as an OCI image layout
    Export {
        /// The new folder
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}
