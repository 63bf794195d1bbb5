//! Where things are mounted, and where they come from.

use std::path::{Component, Path};

use super::super::error::SandboxError;
use super::super::policy::Policy;
use super::super::wire::MAX_FDS;

const MOST_MOUNTS: usize = 256;
const MOST_LAYERS: usize = 32;

/// What a mount point is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Input,
    Data,
    Scratch,
    Output,
}

pub(super) fn check(policy: &Policy) -> Result<(), SandboxError> {
    inside("cwd", &policy.cwd)?;
    of_the_host(policy)?;
    outputs(policy)?;
    points(policy)
}

fn inside(what: &str, path: &Path) -> Result<(), SandboxError> {
    let normal = path.is_absolute()
        && path.as_os_str().len() < 4096
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        // `components` drops what a parser elsewhere might not.
        && path.components().collect::<std::path::PathBuf>().as_os_str() == path.as_os_str()
        && path.components().all(|part| part.as_os_str().len() <= 255)
        && !path.as_os_str().as_encoded_bytes().contains(&0);
    if normal {
        Ok(())
    } else {
        Err(SandboxError::refused(
            format!("{what} {}", path.display()),
            "it is not an absolute, normalized path",
            "write it from / on, without '.', '..', double or trailing slashes, names of at most 255 bytes",
        ))
    }
}

/// Layers, inputs, data: what of the host is shown, and what of it may be written.
fn of_the_host(policy: &Policy) -> Result<(), SandboxError> {
    for (index, layer) in policy.root.iter().enumerate() {
        inside("root", layer)?;
        for other in policy.root.iter().take(index) {
            if layer.starts_with(other) || other.starts_with(layer) {
                return Err(SandboxError::refused(
                    format!("root {}", layer.display()),
                    format!("it overlaps with the layer {}", other.display()),
                    "name each layer once, none inside another",
                ));
            }
        }
    }
    let inputs = policy.inputs.iter().map(|input| ("input", input.host.as_path()));
    let data = policy.data.iter().map(|data| ("data", data.host.as_path()));
    for (what, host) in inputs.clone().chain(data.clone()) {
        inside(&format!("{what} from"), host)?;
        let kernels = ["/proc", "/sys", "/dev"].iter().any(|own| host.starts_with(own));
        if kernels || host == Path::new("/") {
            return Err(SandboxError::refused(
                format!("{what} from {}", host.display()),
                "it would show the host itself",
                "name the directory or file that is needed, outside /proc, /sys and /dev",
            ));
        }
    }
    // What is written must not be what is promised to be read-only.
    let roots = policy.root.iter().map(|layer| ("root", layer.as_path()));
    for (_, written) in data.clone() {
        for (what, read) in roots.clone().chain(inputs.clone()) {
            if read.starts_with(written) || what == "root" && written.starts_with(read) {
                return Err(SandboxError::refused(
                    format!("data from {}", written.display()),
                    format!("the program could change the {what} {} through it", read.display()),
                    "keep what is written apart from what is only read",
                ));
            }
        }
    }
    Ok(())
}

/// Where outputs are copied to: each a place of its own, that nobody has yet and the program never reaches.
fn outputs(policy: &Policy) -> Result<(), SandboxError> {
    for (index, output) in policy.outputs.iter().enumerate() {
        let into = output.into.as_path();
        inside("outputs.into", into)?;
        let refused = |why: String, hint: &str| {
            Err(SandboxError::refused(format!("outputs.into {}", into.display()), why, hint))
        };
        for other in policy.outputs.iter().take(index).map(|other| other.into.as_path()) {
            if into.starts_with(other) || other.starts_with(into) {
                return refused(
                    format!("it overlaps with {}", other.display()),
                    "give each output a directory of its own",
                );
            }
        }
        let mut data = policy.data.iter().map(|data| data.host.as_path());
        if let Some(data) = data.find(|data| into.starts_with(data)) {
            return refused(
                format!("the program can write there, through the data of {}", data.display()),
                "choose a directory elsewhere",
            );
        }
        // Found out before the program has run for nothing; making it decides.
        if fs_err::symlink_metadata(into).is_ok() {
            return refused("it exists already".to_owned(), "name a directory that is to be made");
        }
        if !into.parent().is_some_and(Path::is_dir) {
            return refused("the directory above it does not exist".to_owned(), "make that first");
        }
    }
    Ok(())
}

fn points(policy: &Policy) -> Result<(), SandboxError> {
    let mut points: Vec<(&Path, Kind)> = Vec::new();
    points.extend(policy.inputs.iter().map(|input| (input.at.as_path(), Kind::Input)));
    points.extend(policy.tmpfs.iter().map(|tmpfs| (tmpfs.at.as_path(), Kind::Scratch)));
    points.extend(policy.data.iter().map(|data| (data.at.as_path(), Kind::Data)));
    points.extend(policy.outputs.iter().map(|output| (output.at.as_path(), Kind::Output)));
    if points.len() > MOST_MOUNTS || policy.root.len() > MOST_LAYERS || policy.outputs.len() > MAX_FDS / 2 {
        return Err(SandboxError::refused(
            "mounts",
            format!("at most {MOST_MOUNTS} mounts, {MOST_LAYERS} layers and {} outputs fit", MAX_FDS / 2),
            "merge some of them",
        ));
    }
    for (index, (point, _)) in points.iter().enumerate() {
        inside("mount point", point)?;
        let refused = |why: String, hint: &str| {
            Err(SandboxError::refused(format!("mount point {}", point.display()), why, hint))
        };
        let reserved = ["/proc", "/dev", "/sys"].iter().any(|own| point.starts_with(own));
        if reserved || *point == Path::new("/") {
            return refused(
                "that place is the jail's own".to_owned(),
                "choose a path outside /, /proc, /dev and /sys",
            );
        }
        for (_, (outer, kind)) in points.iter().enumerate().filter(|(other, _)| *other != index) {
            if point == outer {
                return refused("it is named twice".to_owned(), "give each mount a place of its own");
            }
            if !point.starts_with(outer) {
                continue;
            }
            match kind {
                Kind::Scratch => {}
                Kind::Input | Kind::Data => {
                    let why = format!("it lies in {}, which comes from the host", outer.display());
                    return refused(why, "mount it elsewhere, or below scratch space");
                }
                Kind::Output => {
                    let why = format!("it lies in the output {}, and would not be taken", outer.display());
                    return refused(why, "mount it elsewhere, or below scratch space");
                }
            }
        }
    }
    Ok(())
}
