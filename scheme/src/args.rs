//! The command line of `gemd`.

#[cfg(not(target_os = "redox"))]
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgAction, Args as ClapArgs, Parser};
use gem::units::PageCount;
use gem::{Config, Limits, NameMode};
use gem_wire::limit::Limit;
use log::LevelFilter;

#[cfg(not(target_os = "redox"))]
use crate::demo;
use crate::machine;

/// The graphics-memory server of Redox.
///
/// Without a command it serves the scheme until it is told to stop (Ctrl-C, SIGTERM).
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = machine::EXAMPLES)]
pub struct Args {
    #[cfg(not(target_os = "redox"))]
    #[command(subcommand)]
    pub command: Option<demo::Command>,

    #[command(flatten)]
    pub serve: Serve,

    /// Say more: once for what is refused and why, twice for every request
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

impl Args {
    pub fn log_level(&self) -> LevelFilter {
        match self.verbose {
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        }
    }
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

    /// Memory to leave to the machine, in MiB: where there is less, buffers that nobody needs are
    /// purged [default: a sixteenth of the machine's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    pub keep_free: Option<u64>,

    /// Most handles of one open node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_HANDLES))]
    pub max_handles: Option<u32>,
}

/// The ranges are those that the limits have when they are set later (`gemctl limit`).
const MAX_HANDLES: i64 = Limit::HandlesPerOpen.most() as i64;
const MAX_MIB: u64 = Limit::Memory.most() / PAGES_PER_MIB;
const MAX_OBJECT_MIB: u64 = Limit::Object.most() / PAGES_PER_MIB;
const PAGES_PER_MIB: u64 = 256;

impl Serve {
    /// What the daemon is to be like on a machine with so much memory.
    pub fn config(&self, memory: PageCount) -> Result<Config> {
        let mut limits = Limits::for_memory(memory);
        if let Some(total) = mebibytes(self.max_memory)? {
            let keep_free = limits.keep_free;
            limits = Limits {
                keep_free,
                ..Limits::for_clients(total)
            };
        }
        if let Some(keep_free) = mebibytes(self.keep_free)? {
            limits.keep_free = keep_free;
        }
        if let Some(uid) = mebibytes(self.max_memory_per_user)? {
            limits.uid = uid;
            limits.object = limits.object.min(uid);
        }
        if let Some(object) = mebibytes(self.max_object)? {
            limits.object = object;
        }
        if let Some(handles) = self.max_handles {
            limits.handles_per_open = handles;
        }
        let names = if self.sequential_names {
            NameMode::Sequential
        } else {
            let mut seed = [0; 16];
            getrandom::fill(&mut seed).context("this machine has no randomness for names")?;
            NameMode::Random { seed }
        };
        Ok(Config { limits, names })
    }
}

fn mebibytes(mebibytes: Option<u64>) -> Result<Option<PageCount>> {
    let Some(mebibytes) = mebibytes else {
        return Ok(None);
    };
    let pages = mebibytes
        .checked_mul(PAGES_PER_MIB)
        .and_then(PageCount::new);
    pages
        .map(Some)
        .context("more memory than a machine can have")
}
