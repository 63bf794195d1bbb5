//! Where uv comes from: a given path, the machine, a kept wheel, or the package index the machine's pip is set up for.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::RootfsError;
use super::layer::digest_of_stream;
use super::python::{Python, real_program, run};
use super::spec::UvSpec;

const UNPACK: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    names = [name for name in wheel.namelist() if name.endswith('.data/scripts/uv')]
    if len(names) != 1: sys.exit('the wheel has no uv program')
    with wheel.open(names[0]) as source, open(sys.argv[2], 'xb') as target: shutil.copyfileobj(source, target)";

/// Where uv was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UvOrigin {
    /// A path that was given.
    Given,
    /// A program of this machine.
    Machine,
    /// A wheel kept from an earlier time.
    KeptWheel,
    /// A wheel fetched now.
    FetchedWheel,
}

/// Gives a uv program, in this order: `given`, one of the machine that is ELF, the kept wheel, a wheel from the index.
///
/// A wheel is used only when it has the digest in the description; it stays in `wheels` for the next time.
pub(crate) fn obtain(
    spec: &UvSpec,
    given: Option<&Path>,
    wheels: &Path,
    stage: &Path,
    python: &Python,
    progress: &dyn Fn(&str),
) -> Result<(PathBuf, UvOrigin), RootfsError> {
    if let Some(given) = given {
        return Ok((real_program(given, "")?, UvOrigin::Given));
    }
    if let Some(found) = on_machine(spec) {
        return Ok((found, UvOrigin::Machine));
    }
    let architecture = env::consts::ARCH;
    let wheel = spec
        .wheels
        .get(architecture)
        .ok_or_else(|| RootfsError::Architecture { architecture: architecture.to_owned() })?;
    let expected = format!("sha256:{}", wheel.sha256);
    let kept = wheels.join(format!("uv-{}-{architecture}.whl", spec.version));
    let mut origin = UvOrigin::KeptWheel;
    if digest_of_file(&kept)?.as_deref() != Some(expected.as_str()) {
        progress(&format!("fetching uv {} from the package index of this machine's pip", spec.version));
        fetch(spec, &wheel.tag, &expected, stage, &kept)?;
        origin = UvOrigin::FetchedWheel;
    }
    let program = stage.join("uv");
    run(Command::new(&python.program).args(["-I", "-c", UNPACK]).arg(&kept).arg(&program))?;
    let executable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs_err::set_permissions(&program, executable)?;
    Ok((real_program(&program, "")?, origin))
}

fn on_machine(spec: &UvSpec) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let places =
        env::split_paths(&folders).filter(|folder| folder.is_absolute()).map(|folder| folder.join("uv"));
    [PathBuf::from(&spec.to)].into_iter().chain(places).find_map(|place| real_program(&place, "").ok())
}

fn digest_of_file(path: &Path) -> Result<Option<String>, RootfsError> {
    match fs_err::File::open(path) {
        Ok(mut file) => Ok(Some(digest_of_stream(&mut file).map_err(RootfsError::stream(path))?.0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has pip fetch the wheel, with whatever index, proxy and certificates the machine has set up for it.
fn fetch(spec: &UvSpec, tag: &str, expected: &str, stage: &Path, kept: &Path) -> Result<(), RootfsError> {
    let unavailable = |detail: String| RootfsError::Uv { version: spec.version.clone(), detail };
    let folder = stage.join("download");
    let mut tried = Vec::new();
    for program in ["/usr/bin/python3", "python3"] {
        fs_err::create_dir_all(&folder)?;
        let fetched = run(Command::new(program)
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                "--no-deps",
            ])
            .args(["--only-binary", ":all:", "--platform", tag, "--dest"])
            .arg(&folder)
            .arg(format!("uv=={}", spec.version)));
        match fetched {
            Ok(_) => {
                tried.clear();
                break;
            }
            Err(error) => tried.push(format!("{program} -m pip: {error}")),
        }
    }
    if !tried.is_empty() {
        return Err(unavailable(tried.join("; ")));
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(&folder)? {
        found.push(entry?.path());
    }
    let [wheel] = found.as_slice() else {
        return Err(unavailable(format!("pip brought {} files, not one wheel", found.len())));
    };
    let actual = digest_of_file(wheel)?.unwrap_or_default();
    if actual != expected {
        return Err(RootfsError::Digest {
            what: format!("the wheel of uv {}", spec.version),
            expected: expected.to_owned(),
            actual,
        });
    }
    if let Some(folder) = kept.parent() {
        fs_err::create_dir_all(folder)?;
    }
    // The stage may lie on another filesystem than the kept wheels: copy beside, then rename.
    let beside = kept.with_extension(format!("part-{}", std::process::id()));
    fs_err::copy(wheel, &beside)?;
    fs_err::rename(&beside, kept)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rootfs::spec::WheelSpec;

    #[test]
    fn a_kept_wheel_with_the_right_digest_is_used_without_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let wheels = folder.path().join("wheels");
        fs_err::create_dir_all(&wheels).unwrap();
        let architecture = env::consts::ARCH;
        let wheel = wheels.join(format!("uv-9.9.9-{architecture}.whl"));
        let make = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel: wheel.write(sys.executable, 'uv-9.9.9.data/scripts/uv')";
        let python = Python::find("/usr/bin/python3", "python3").unwrap();
        run(Command::new(&python.program).args(["-I", "-c", make]).arg(&wheel)).unwrap();
        let digest = digest_of_file(&wheel).unwrap().unwrap();
        let sha256 = digest.strip_prefix("sha256:").unwrap().to_owned();
        let spec = UvSpec {
            to: "/nowhere/uv".to_owned(),
            version: "9.9.9".to_owned(),
            wheels: BTreeMap::from([(architecture.to_owned(), WheelSpec { tag: "none".to_owned(), sha256 })]),
        };
        if on_machine(&spec).is_some() {
            println!("skipped: this machine has a uv of its own, which comes first");
            return;
        }
        let (program, origin) =
            obtain(&spec, None, &wheels, folder.path(), &python, &|_| panic!("nothing to fetch")).unwrap();
        assert_eq!(origin, UvOrigin::KeptWheel);
        assert!(fs_err::read(program).unwrap() == fs_err::read(&python.program).unwrap());
    }
}
