//! The image: loader, kernel and bootstrap image in one directory.
//!
//! The bootstrap image is flat: the bootstrap program as it lies in memory from 0x1000 on, and
//! behind it, at the next page, a tar archive of the programs. Its head (`start.s` of
//! `initfs/bootstrap`) tells where the archive begins, and gets its size here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use loader::kernel::Kernel;

use crate::toolchain::{Compiler, build_loader};
use crate::unusable;

const PAGE: usize = 4096;
/// Where the kernel maps the bootstrap image.
const BOOTSTRAP_BASE: u64 = 0x1000;
const MAGIC: &[u8] = b"gem-boot";
const ARCHIVE_START: usize = 0x08;
const ARCHIVE_SIZE: usize = 0x10;
/// Memory that the machine needs besides the image: what the tests fill.
const REST: u64 = 208 << 20;

/// File names in the image's directory.
pub const LOADER: &str = "loader";
/// See [`LOADER`].
pub const KERNEL: &str = "kernel";
/// See [`LOADER`].
pub const BOOTSTRAP: &str = "bootstrap";

/// An image ready to boot.
#[derive(Debug)]
pub struct Image {
    /// Where the three files are.
    pub directory: PathBuf,
    size: u64,
}

/// Looks at the kernel file before anything is built.
///
/// # Errors
///
/// It cannot be read, or the loader would refuse it.
pub fn check_kernel(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|error| {
        unusable(format!(
            "cannot read the kernel {}: {error}",
            path.display()
        ))
    })?;
    Kernel::check(&bytes).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

impl Image {
    /// Builds loader and programs, and puts the image together.
    ///
    /// # Errors
    ///
    /// No compiler, or a build that failed.
    pub fn build(kernel: &[u8]) -> Result<Self> {
        let compiler = Compiler::find()?;
        let loader = loader()?;
        let programs = build(compiler.build_for_redox().args([
            "--package",
            "initfs-bootstrap",
            "--package",
            "initfs-tests",
        ]))?;

        let directory = root().join("target/image");
        fs::create_dir_all(&directory)?;
        let bootstrap = bootstrap_image(&programs)?;
        let files = [
            (LOADER, loader.as_slice()),
            (KERNEL, kernel),
            (BOOTSTRAP, &bootstrap),
        ];
        for (name, bytes) in files {
            let path = directory.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        // The bootstrap image is in memory twice while the kernel copies it.
        let size = loader.len() + kernel.len() + 2 * bootstrap.len();
        Ok(Self {
            directory,
            size: size as u64,
        })
    }

    /// Whether it fits into a machine with so many MiB.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn check_memory(&self, mebibytes: u32) -> Result<()> {
        let needed = (self.size + REST).div_ceil(1 << 20);
        if needed > mebibytes.into() {
            return Err(unusable(format!(
                "the image does not fit into {mebibytes} MiB: --memory {needed} or more"
            )));
        }
        Ok(())
    }
}

/// Builds the loader.
///
/// # Errors
///
/// The build failed.
pub fn loader() -> Result<Vec<u8>> {
    let programs = build(build_loader().args(["--package", "initfs-loader"]))?;
    Ok(fs::read(program(&programs, "loader")?)?)
}

/// The repository's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a cargo build; the programs that it made.
fn build(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    let root = root();
    let output = cargo
        .arg("--manifest-path")
        .arg(root.join("initfs/Cargo.toml"))
        .arg("--target-dir")
        .arg(root.join("target/initfs"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the image's programs do not build");
    let messages = String::from_utf8(output.stdout)?;
    messages
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .filter_map(|message| match message {
            Ok(message) => message["executable"].as_str().map(PathBuf::from).map(Ok),
            Err(error) => Some(Err(error.into())),
        })
        .collect()
}

fn program<'a>(programs: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    programs
        .iter()
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .map(PathBuf::as_path)
        .with_context(|| format!("no program {name} was built"))
}

fn bootstrap_image(programs: &[PathBuf]) -> Result<Vec<u8>> {
    let path = program(programs, "bootstrap")?;
    let mut image = flatten(&fs::read(path)?).context("the bootstrap program")?;
    let archive = archive(programs.iter().filter(|other| *other != path))?;

    ensure!(image.starts_with(MAGIC), "the bootstrap image has no head");
    let start = usize_at(&image, ARCHIVE_START)? as u64 - BOOTSTRAP_BASE;
    ensure!(
        image.len() as u64 <= start,
        "the archive would lie inside the bootstrap program"
    );
    image[ARCHIVE_SIZE..ARCHIVE_SIZE + 8].copy_from_slice(&(archive.len() as u64).to_le_bytes());
    image.resize(start as usize, 0);
    image.extend(archive);
    image.resize(image.len().next_multiple_of(PAGE), 0);
    Ok(image)
}

fn usize_at(bytes: &[u8], offset: usize) -> Result<usize> {
    let word = bytes.get(offset..offset + 8).context("too short")?;
    Ok(u64::from_le_bytes(word.try_into()?) as usize)
}

/// The program as it lies in memory, from the address where the kernel maps it.
fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let mut flat = Vec::new();
    for segment in elf.segments().context("no segments")? {
        if segment.p_type != PT_LOAD {
            continue;
        }
        let Some(start) = segment.p_vaddr.checked_sub(BOOTSTRAP_BASE) else {
            bail!("a segment at {:#x}", segment.p_vaddr);
        };
        let bytes = elf.segment_data(&segment)?;
        let end = start + segment.p_memsz;
        flat.resize(flat.len().max(end as usize), 0);
        flat[start as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(flat)
}

fn archive<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in programs {
        let name = path.file_name().context("a program without a name")?;
        let bytes = stripped(path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// The program without what is not loaded.
fn stripped(path: &Path) -> Result<Vec<u8>> {
    let mut file = fs::read(path)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let segments = elf.segments().context("no segments")?;
    let end = segments
        .iter()
        .map(|segment| segment.p_offset + segment.p_filesz)
        .max()
        .unwrap_or(0);
    file.truncate(end as usize);
    // The table of sections is gone: no entries, at no offset.
    file[0x28..0x30].fill(0);
    file[0x3C..0x40].fill(0);
    Ok(file)
}
