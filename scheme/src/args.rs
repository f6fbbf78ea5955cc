//! The command line of `gemd`.

use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};
use gem_wire::limit::Limit;
use log::LevelFilter;

use crate::demo;

/// The graphics-memory server of Redox.
///
/// Without a command it serves the scheme until it is told to stop (Ctrl-C, SIGTERM).
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub serve: Serve,

    /// Say more: once for what is refused and why, twice for every request
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  gemd                          serve on the default socket until Ctrl-C
  gemd --socket /tmp/my.sock    serve there
  gemd demo                     two processes share a picture through a private gemd
  gemctl put PICTURE.png        (in another terminal) put a picture into a buffer";

impl Args {
    pub fn log_level(&self) -> LevelFilter {
        match self.verbose {
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a private gemd, a producer and a consumer, and moves a picture between them
    Demo(demo::Args),
    /// A process of the demo
    #[command(hide = true)]
    DemoRole(demo::RoleArgs),
}

/// How to serve.
#[derive(ClapArgs, Clone, Debug)]
pub struct Serve {
    /// Name of the scheme: clients open /scheme/NAME/card0
    #[arg(long, value_name = "NAME", default_value = "gem")]
    pub scheme: String,

    /// Unix socket that stands for the kernel [default: $XDG_RUNTIME_DIR/gem/gem.sock]
    #[cfg(not(target_os = "redox"))]
    #[arg(long, value_name = "PATH", env = "GEM_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Global names count up from 1 instead of being random; for reproducible tests only
    #[arg(long)]
    pub sequential_names: bool,

    /// Most memory for all clients together, in MiB [default: half of the machine's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    pub max_memory: Option<u64>,

    /// Most memory for the clients of one user, in MiB [default: half of --max-memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    pub max_memory_per_user: Option<u64>,

    /// Most memory in one object, in MiB [default: as for one user]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_OBJECT_MIB))]
    pub max_object: Option<u64>,

    /// Most handles of one open node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_HANDLES))]
    pub max_handles: Option<u32>,
}

/// The ranges are those that the limits have when they are set later (`gemctl limit`).
const MAX_HANDLES: i64 = Limit::HandlesPerOpen.most() as i64;
const MAX_MIB: u64 = Limit::Memory.most() / PAGES_PER_MIB;
const MAX_OBJECT_MIB: u64 = Limit::Object.most() / PAGES_PER_MIB;
const PAGES_PER_MIB: u64 = 256;
