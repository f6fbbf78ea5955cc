//! `gemd`: the graphics-memory server, as a program. One binary for two machines: Redox, and Linux
//! with the stand-in kernel of `hosted`, where it can also show what it does.

mod args;
#[cfg(not(target_os = "redox"))]
mod demo;
#[cfg(not(target_os = "redox"))]
mod linux;
#[cfg(target_os = "redox")]
mod redox;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
#[cfg(not(target_os = "redox"))]
use linux as machine;
#[cfg(target_os = "redox")]
use redox as machine;

fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::Builder::new()
        .filter_level(args.log_level())
        .parse_default_env()
        .init();
    match machine::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
