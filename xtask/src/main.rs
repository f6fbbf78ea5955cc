//! `cargo xtask`: builds the test image and boots it on a real Redox kernel in QEMU.
//!
//! Exit codes: 0 where everything held; 1 where a test failed, the kernel panicked or time ran
//! out; 2 where what was asked for cannot be done, with one line that says why.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{Unusable, bench, boot, summary};

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
    /// Boot the test image with one and with two processors, and write docs/boot-report.md
    Report(summary::Summary),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Boot(boot) => boot.run(),
        Task::Bench(bench) => bench.run(),
        Task::Report(summary) => summary.run(),
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
