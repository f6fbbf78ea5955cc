//! `gemctl`: graphics memory from the command line.

mod args;
mod pictures;
mod tables;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(not(target_os = "redox"))]
    if let Some(socket) = &args.socket {
        gem_client::linux::set_socket(socket);
    }
    let result = match &args.command {
        Command::Put { picture } => pictures::put(picture, args.json),
        Command::Get { name, out } => pictures::get(*name, out, args.json),
        Command::Objects => tables::objects(args.json),
        Command::Clients => tables::clients(args.json),
        Command::Stats => tables::stats(args.json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
