//! `gemd`: the graphics-memory server, as a program.

mod args;
mod demo;
mod linux;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::Builder::new()
        .filter_level(args.log_level())
        .parse_default_env()
        .init();
    let result = match args.command {
        None => linux::serve(&args.serve),
        Some(Command::Demo(ref demo)) => demo::run(demo),
        Some(Command::DemoRole(ref role)) => demo::run_role(role),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
