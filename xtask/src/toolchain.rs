//! Which compiler builds the image. Redox's target has no prebuilt library that would do without
//! an operating system, so `core` and `alloc` are built from source: with the active toolchain
//! where it has the source (rustup component `rust-src`), else with Debian's compiler, whose
//! source is a package.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::unusable;

/// Debian's compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// What installs it.
const INSTALL: &str = "apt-get install rustc-web rust-web-src";

/// The target of the image's programs.
pub const REDOX: &str = "x86_64-unknown-redox";
/// The target of the loader: its prebuilt `core` needs no operating system.
pub const LOADER: &str = "x86_64-unknown-linux-gnu";

/// A compiler with the source of its library.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compiler {
    /// The active toolchain.
    Active,
    /// Debian's.
    Debian,
}

impl Compiler {
    /// The one to use.
    ///
    /// # Errors
    ///
    /// Neither is there.
    pub fn find() -> Result<Self> {
        if has_library_source("rustc") {
            return Ok(Self::Active);
        }
        if has_library_source(DEBIAN_RUSTC) {
            return Ok(Self::Debian);
        }
        Err(unusable(format!(
            "no compiler with library source for {REDOX}: {INSTALL} (or rustup component add rust-src)"
        )))
    }

    /// A `cargo build` of programs for Redox, without packages named yet.
    pub fn build_for_redox(self) -> Command {
        let mut cargo = build(REDOX);
        cargo.args([
            "-Zbuild-std=core,alloc",
            "-Zbuild-std-features=compiler-builtins-mem",
        ]);
        // Static programs at fixed addresses, linked by the host's compiler driver: there is no
        // relibc to link with.
        cargo.env(
            "RUSTFLAGS",
            "-Clinker=cc -Crelocation-model=static -Crelro-level=off -Clink-arg=-nostartfiles \
             -Clink-arg=-nostdlib -Clink-arg=-static -Clink-arg=-Wl,--build-id=none",
        );
        if self == Self::Debian {
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }
}

/// A `cargo build` of the loader, without packages named yet.
pub fn build_loader() -> Command {
    let mut cargo = build(LOADER);
    cargo.env("RUSTFLAGS", "-Crelocation-model=static");
    cargo
}

fn build(target: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--target", target])
        .arg("--message-format=json-render-diagnostics")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    cargo
}

fn has_library_source(rustc: &str) -> bool {
    sysroot(rustc).is_ok_and(|sysroot| {
        Path::new(sysroot.trim_end())
            .join("lib/rustlib/src/rust/library/Cargo.lock")
            .exists()
    })
}

fn sysroot(rustc: &str) -> Result<String> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    String::from_utf8(output.stdout).context("rustc's sysroot is not UTF-8")
}
