//! `gemctl`: graphics memory from the command line.

mod args;
mod events;
mod out;
mod pictures;
mod rule;
mod tables;
mod top;
mod units;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if out::is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    #[cfg(not(target_os = "redox"))]
    {
        if let Some(socket) = &args.socket {
            gem_client::linux::set_socket(socket);
        }
        // Later calls would fail as well, but could not say where the daemon was looked for.
        gem_client::linux::connect()?;
    }
    match &args.command {
        Command::Put { picture } => pictures::put(picture, args.json),
        Command::Get { name, out } => pictures::get(*name, out, args.json),
        Command::Objects => tables::objects(args.json),
        Command::Clients => tables::clients(args.json),
        Command::Stats => tables::stats(args.json),
        Command::Top { .. } if args.json => {
            bail!("top is for people; for programs: gemctl clients --json")
        }
        Command::Top { delay } => top::run(*delay),
        Command::Limit { limit, value } => match (limit, value) {
            (Some(limit), Some(value)) => rule::set(*limit, value, args.json),
            _ => rule::show(*limit, args.json),
        },
        Command::Events { count } => events::run(*count, args.json),
        Command::Revoke { client } => rule::revoke(*client, args.json),
    }
}
