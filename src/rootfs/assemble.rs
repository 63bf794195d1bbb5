//! Putting the bundle together from the host's programs.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err::File;
use serde::Serialize;

use super::bundle::{Bundle, LayerRole, blob_name};
use super::check::check_planned;
use super::closure::triplet;
use super::elf::machine_of;
use super::embed::write_without_payload;
use super::error::RootfsError;
use super::gather::{Content, Plan};
use super::layer::{LayerDigests, LayerWriter};
use super::layout::{oci_architecture, write_documents};
use super::python::{Compilation, Python};
use super::skeleton;
use super::spec::{BundleSpec, TreeSpec};
use super::tree::NodeKind;
use super::uv::{self, UvOrigin};

/// What to assemble, from what, and where.
pub struct AssembleOptions<'a> {
    /// The bundle's description.
    pub spec: &'a BundleSpec,
    /// The pantry program for the third layer; a payload in it is left out.
    pub pantry_binary: &'a Path,
    /// The layout directory to make; it must not exist.
    pub out: &'a Path,
    /// A folder to work in. Only `wheels/` stays in it, so keeping the folder spares the download next time.
    pub work: &'a Path,
    /// A uv program to use instead of looking for one.
    pub uv: Option<PathBuf>,
    /// Told each step, for a person who waits.
    pub progress: &'a dyn Fn(&str),
}

/// What was assembled.
#[derive(Debug, Clone, Serialize)]
pub struct AssembleReport {
    /// The layout directory.
    pub out: PathBuf,
    /// Digest of the image's manifest.
    pub bundle_digest: String,
    /// The platform it is for.
    pub platform: String,
    /// The version of its Python.
    pub python_version: String,
    /// Where uv came from: `given`, `machine`, `kept wheel` or `fetched wheel`.
    pub uv_origin: &'static str,
    /// The layers.
    pub layers: Vec<LayerReport>,
    /// How long it took.
    pub took_ms: u64,
}

/// One layer of an [`AssembleReport`].
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Which one.
    pub role: LayerRole,
    /// What it is known by.
    #[serde(flatten)]
    pub digests: LayerDigests,
}

impl fmt::Display for AssembleReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "bundle   {}", self.bundle_digest)?;
        for LayerReport { role, digests } in &self.layers {
            writeln!(
                out,
                "{:<8} {} {:>10} stored {:>11} as tar {:>5} entries",
                role.as_str(),
                digests.digest,
                digests.size_bytes,
                digests.tar_bytes,
                digests.entries
            )?;
        }
        write!(
            out,
            "{} for {}, Python {}, uv from: {}, {} ms",
            self.out.display(),
            self.platform,
            self.python_version,
            self.uv_origin,
            self.took_ms
        )
    }
}

/// Assembles the bundle and writes it as a layout; what it writes has passed every rule of the check.
///
/// Needs the host's programs that the description names, and no rights. The same host files give the same bytes.
///
/// # Errors
/// When something named isn't on the machine, uv can't be had, a rule is broken, or a file operation fails; `out` then
/// doesn't exist.
pub fn assemble(options: &AssembleOptions<'_>) -> Result<AssembleReport, RootfsError> {
    if fs_err::symlink_metadata(options.out).is_ok() {
        return Err(RootfsError::OutputExists { path: options.out.to_owned() });
    }
    let stage = Stage::new(options.work)?;
    let report = assemble_in(options, &stage.path)?;
    if let Some(parent) = options.out.parent() {
        fs_err::create_dir_all(parent)?;
    }
    move_folder(&stage.path.join("layout"), options.out)?;
    Ok(report)
}

fn assemble_in(options: &AssembleOptions<'_>, stage: &Path) -> Result<AssembleReport, RootfsError> {
    let started = Instant::now();
    let architecture = std::env::consts::ARCH;
    let unknown = || RootfsError::Architecture { architecture: architecture.to_owned() };
    let machine = machine_of(architecture).ok_or_else(unknown)?;
    let oci = oci_architecture(architecture).ok_or_else(unknown)?;
    let spec = options.spec;
    let place = |path: &str| path.replace("{triplet}", triplet(machine));

    let mut plan = Plan::default();
    (options.progress)("runtime: Python and its standard library");
    let python = Python::find(&spec.runtime.python.program, &spec.runtime.python.package)?;
    runtime(&mut plan, spec, &python, machine, &place, stage)?;
    (options.progress)("tools: git and uv");
    let wheels = options.work.join("wheels");
    let (uv, uv_origin) =
        uv::obtain(&spec.tools.uv, options.uv.as_deref(), &wheels, stage, &python, options.progress)?;
    tools(&mut plan, spec, uv, &place)?;
    let bare = stage.join("pantry");
    write_without_payload(options.pantry_binary, &bare)?;
    plan.add_file(inside(&spec.pantry.to), Content::Path(bare), LayerRole::Pantry)?;
    plan.close(LayerRole::Pantry)?;

    (options.progress)("check");
    let checked = check_planned(&plan.tree, spec);
    if !checked.passed() {
        return Err(RootfsError::Check { findings: checked.findings });
    }
    (options.progress)("layers");
    let layout = stage.join("layout");
    fs_err::create_dir_all(layout.join("blobs/sha256"))?;
    let layers = write_layers(&plan, &layout)?;
    let bundle_digest = write_documents(&layout, &layers, oci, &python.version)?;
    // What was written is opened as any reader will, so a mistake shows here and not at the first start.
    Bundle::open_layout(&layout)?;
    Ok(AssembleReport {
        out: options.out.to_owned(),
        bundle_digest,
        platform: format!("linux/{oci}"),
        python_version: python.version,
        uv_origin: match uv_origin {
            UvOrigin::Given => "given",
            UvOrigin::Machine => "machine",
            UvOrigin::KeptWheel => "kept wheel",
            UvOrigin::FetchedWheel => "fetched wheel",
        },
        layers: layers.into_iter().map(|(role, digests)| LayerReport { role, digests }).collect(),
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn runtime(
    plan: &mut Plan,
    spec: &BundleSpec,
    python: &Python,
    machine: u16,
    place: &dyn Fn(&str) -> String,
    stage: &Path,
) -> Result<(), RootfsError> {
    let role = LayerRole::Runtime;
    let runtime = &spec.runtime;
    for (key, text) in skeleton::FILES {
        plan.add_file(key, Content::Bytes(text.as_bytes().to_vec()), role)?;
    }
    for link in &runtime.links {
        plan.add_link(inside(&link.path), &link.to, role);
    }
    for mount in &spec.mounts {
        plan.add_mount_point(inside(&mount.path), mount.mode(), role);
    }
    plan.add_host(&runtime.python.program, role, Some(&runtime.python.package))?;
    let stdlib = TreeSpec {
        path: python.stdlib.clone(),
        package: runtime.python.package.clone(),
        exclude: runtime.python.exclude.clone(),
    };
    plan.add_tree(&stdlib, role)?;
    compile(plan, python, stage)?;
    for library in &runtime.libraries {
        plan.add_library(&library.name, machine, &library.package, role)?;
    }
    let certificates = &runtime.certificates;
    let bytes = certificate_bundle(Path::new(&certificates.folder), &certificates.package)?;
    plan.add_file(inside(&certificates.to), Content::Bytes(bytes), role)?;
    for tree in &runtime.trees {
        plan.add_tree(tree, role)?;
    }
    for file in &runtime.files {
        plan.add_host(&place(&file.path), role, Some(&file.package))?;
    }
    plan.close(role)
}

fn tools(
    plan: &mut Plan,
    spec: &BundleSpec,
    uv: PathBuf,
    place: &dyn Fn(&str) -> String,
) -> Result<(), RootfsError> {
    let role = LayerRole::Tools;
    for link in &spec.tools.links {
        plan.add_link(inside(&link.path), &link.to, role);
    }
    for program in &spec.tools.programs {
        let path = place(&program.path);
        super::python::real_program(Path::new(&path), &program.package)?;
        plan.add_host(&path, role, Some(&program.package))?;
    }
    for tree in &spec.tools.trees {
        plan.add_tree(tree, role)?;
    }
    plan.add_file(inside(&spec.tools.uv.to), Content::Path(uv), role)?;
    plan.close(role)
}

/// The path of a declared thing as a key of the tree.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Compiles every source of the plan and adds the results.
fn compile(plan: &mut Plan, python: &Python, stage: &Path) -> Result<(), RootfsError> {
    let folder = stage.join("compiled");
    fs_err::create_dir_all(&folder)?;
    let mut sources = Vec::new();
    for (key, content) in &plan.contents {
        if let (Content::Path(_), Some(compiled)) = (content, python.compiled_name(key)) {
            let staged = folder.join(format!("{}.pyc", sources.len()));
            sources.push(Compilation { inside: format!("/{key}"), compiled_inside: compiled, staged });
        }
    }
    python.compile(&folder, &sources)?;
    for source in sources {
        plan.add_file(&source.compiled_inside, Content::Path(source.staged), LayerRole::Runtime)?;
    }
    Ok(())
}

/// Joins the certificates of a folder, sorted by their file names.
fn certificate_bundle(folder: &Path, package: &str) -> Result<Vec<u8>, RootfsError> {
    let missing = || RootfsError::Missing { path: folder.to_owned(), package: Some(package.to_owned()) };
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(|_| missing())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            names.push(path);
        }
    }
    if names.is_empty() {
        return Err(missing());
    }
    names.sort();
    let mut bundle = Vec::new();
    for name in names {
        bundle.extend_from_slice(&fs_err::read(&name)?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    Ok(bundle)
}

/// Writes the three layers, each in a thread of its own.
fn write_layers(plan: &Plan, layout: &Path) -> Result<Vec<(LayerRole, LayerDigests)>, RootfsError> {
    std::thread::scope(|scope| {
        let running: Vec<_> = LayerRole::ALL
            .into_iter()
            .map(|role| (role, scope.spawn(move || write_layer(plan, role, layout))))
            .collect();
        running
            .into_iter()
            .map(|(role, thread)| {
                let digests = thread.join().unwrap_or_else(|_| {
                    let source = io::Error::other("the layer's thread panicked");
                    Err(RootfsError::Stream { path: layout.to_owned(), source })
                })?;
                Ok((role, digests))
            })
            .collect()
    })
}

fn write_layer(plan: &Plan, role: LayerRole, layout: &Path) -> Result<LayerDigests, RootfsError> {
    let temporary = layout.join("blobs").join(role.as_str());
    let mut layer = LayerWriter::new(io::BufWriter::new(File::create_new(&temporary)?));
    for (key, node) in &plan.tree.nodes {
        // A layer brings the folders above its own entries along, so that it can be unpacked alone.
        let own = node.layer == Some(role);
        let above =
            matches!(node.kind, NodeKind::Directory) && node.layer < Some(role) && holds(plan, key, role);
        if !own && !above {
            continue;
        }
        match &node.kind {
            NodeKind::Directory => layer.directory(key, node.mode)?,
            NodeKind::Symlink(target) => layer.symlink(key, target)?,
            NodeKind::File(facts) => {
                let (mut bytes, mut file);
                let stream: &mut dyn Read = match plan.contents.get(key) {
                    Some(Content::Bytes(content)) => {
                        bytes = content.as_slice();
                        &mut bytes
                    }
                    Some(Content::Path(path)) => {
                        file = File::open(path)?;
                        &mut file
                    }
                    None => {
                        return Err(RootfsError::Missing { path: PathBuf::from(key), package: None });
                    }
                };
                layer.file(key, node.mode, facts.size_bytes, stream)?;
            }
            NodeKind::Special(_) => return Err(RootfsError::LayerPath { entry: key.clone() }),
        }
    }
    let (out, digests) = layer.finish()?;
    let file = out
        .into_inner()
        .map_err(|error| RootfsError::Stream { path: temporary.clone(), source: error.into_error() })?;
    file.sync_all()?;
    let name = blob_name(&digests.digest)
        .map_err(|detail| RootfsError::Layout { path: layout.to_owned(), detail })?;
    fs_err::rename(&temporary, layout.join(name))?;
    Ok(digests)
}

/// Whether a folder has an entry of a layer somewhere below.
fn holds(plan: &Plan, key: &str, role: LayerRole) -> bool {
    let prefix = format!("{key}/");
    let below = plan.tree.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    below.into_iter().any(|(_, node)| node.layer == Some(role))
}

/// Renames a folder, or copies it where it can't be renamed.
fn move_folder(from: &Path, to: &Path) -> Result<(), RootfsError> {
    match fs_err::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            super::report::export(&Bundle::open_layout(from)?, to)
        }
        other => Ok(other?),
    }
}

/// A folder that is gone at the end, however that comes.
struct Stage {
    path: PathBuf,
}

impl Stage {
    fn new(work: &Path) -> Result<Self, RootfsError> {
        fs_err::create_dir_all(work)?;
        let work = fs_err::canonicalize(work)?;
        // Another assembly may run in the same folder: the first free name is taken.
        let mut number = 0_u32;
        loop {
            let path = work.join(format!("stage-{}-{number}", std::process::id()));
            match fs_err::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays behind after a failure to remove is only space, and must not hide the first error.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}
