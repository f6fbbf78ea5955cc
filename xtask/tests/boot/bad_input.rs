//! What cannot be done: one line that says why, and exit code 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::loader::kernel_file;
use crate::{KERNEL, Need};

pub fn trials(nothing: &Need, image: &Need) -> Vec<Trial> {
    vec![
        nothing.trial("a_kernel_must_be_named", unnamed),
        nothing.trial("a_file_that_is_no_kernel_is_refused", no_kernel),
        nothing.trial("a_missing_qemu_is_told_how_to_install", no_qemu),
        nothing.trial("a_log_that_cannot_be_written_is_told_first", no_log),
        nothing.trial("a_soak_that_cannot_be_is_refused", no_soak),
        image.trial("an_image_larger_than_memory_is_refused", too_large),
    ]
}

/// A directory of this test's own.
pub fn directory(name: &str) -> Result<PathBuf, Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// `xtask boot`, with no kernel named.
pub fn boot() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("boot").env_remove(KERNEL);
    command
}

/// Expects exit code 2 and one line that says this.
pub fn expect_refusal(command: &mut Command, says: &str) -> Result<(), Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    let errors = String::from_utf8(output.stderr)?;
    // What cargo says while it builds the image goes the same way.
    let mut lines = errors.lines().filter(|line| line.starts_with("error: "));
    let (line, more) = (lines.next().unwrap_or_default(), lines.next());
    if output.status.code() == Some(2) && line.contains(says) && more.is_none() {
        return Ok(());
    }
    Err(format!("{}, not `{says}`:\n{errors}", output.status).into())
}

fn unnamed() -> Result<(), Failed> {
    expect_refusal(&mut boot(), "no kernel is named")?;
    expect_refusal(boot().env(KERNEL, ""), "no kernel is named")
}

fn no_kernel() -> Result<(), Failed> {
    let directory = directory("no-kernel")?;
    let path = directory.join("text");
    fs::write(&path, "#!/bin/sh\n")?;
    expect_refusal(boot().arg("--kernel").arg(&path), "is not an ELF file")?;
    expect_refusal(boot().env(KERNEL, &path), "is not an ELF file")?;
    let missing = directory.join("missing");
    expect_refusal(boot().env(KERNEL, &missing), "cannot read the kernel")?;
    expect_refusal(boot().env(KERNEL, &directory), "cannot read the kernel")?;
    // A program of this machine's.
    let own = env!("CARGO_BIN_EXE_xtask");
    expect_refusal(boot().env(KERNEL, own), "is not a static x86-64 program")
}

fn no_qemu() -> Result<(), Failed> {
    let directory = directory("no-qemu")?;
    let kernel = directory.join("kernel");
    fs::write(&kernel, kernel_file())?;
    let mut boot = boot();
    // No program is found, but this one.
    boot.env(KERNEL, &kernel).env("PATH", &directory);
    expect_refusal(&mut boot, "apt-get install qemu-system-x86")
}

fn no_log() -> Result<(), Failed> {
    let directory = directory("no-log")?;
    let kernel = directory.join("kernel");
    fs::write(&kernel, kernel_file())?;
    let mut boot = boot();
    boot.env(KERNEL, &kernel).arg("--keep-log").arg(&directory);
    expect_refusal(&mut boot, "cannot write")
}

fn no_soak() -> Result<(), Failed> {
    for soak in [
        "", "64", "64,", "0,5", "257,5", "64,0", "64,3601", "-1,5", "64,1,2",
    ] {
        let soak = format!("--soak={soak}");
        expect_refusal(boot().arg(soak), "1 to 256 clients and 1 to 3600 seconds")?;
    }
    expect_refusal(
        boot().args(["--soak", "16,5", "--test", "one"]),
        "cannot be used with",
    )
}

fn too_large() -> Result<(), Failed> {
    let kernel = directory("too-large")?.join("kernel");
    fs::write(&kernel, kernel_file())?;
    let mut boot = boot();
    boot.env(KERNEL, &kernel).args(["--memory", "64"]);
    expect_refusal(&mut boot, "the image does not fit into 64 MiB")
}
