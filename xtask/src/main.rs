//! `cargo xtask`: builds the test image and boots it on a real Redox kernel in QEMU.
//!
//! Exit codes: 0 where everything held; 1 where a test failed, the kernel panicked or time ran
//! out; 2 where what was asked for cannot be done, with one line that says why.

mod bench;
mod boot;
mod image;
mod qemu;
mod report;
mod toolchain;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot the test image and run its tests
    Boot(boot::Boot),
    /// Boot the test image and count guest instructions per operation
    Bench(bench::Bench),
}

/// What was asked for cannot be done; the message says what to do about it.
#[derive(Debug)]
struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// An [`Unusable`] with this message.
fn unusable(message: impl Into<String>) -> anyhow::Error {
    Unusable(message.into()).into()
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Boot(boot) => boot.run(),
        Task::Bench(bench) => bench.run(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Unusable>() { 2 } else { 1 })
        }
    }
}
