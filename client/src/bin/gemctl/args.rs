//! The command line of `gemctl`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Looks at and uses the graphics memory that gemd owns.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Unix socket of the gemd to talk to [default: $XDG_RUNTIME_DIR/gem/gem.sock]
    #[cfg(not(target_os = "redox"))]
    #[arg(long, global = true, value_name = "PATH", env = "GEM_SOCKET")]
    pub socket: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  gemctl put cat.png            puts the picture into a buffer, prints its global name, and
                                keeps it until Ctrl-C
  gemctl get 1234567 copy.png   (in another terminal) writes what that buffer shows
  gemctl objects                every buffer you may see: who pays, who holds it, its name
  gemctl clients                every open node: whose it is, what it holds
  gemctl stats --json           totals and limits, for programs

A global name works for opens that are root's, the DRM master's, or vouched for by the master.
The first program that opens card0 is master. On Linux the user who runs gemd counts as root.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draws a PNG into a buffer, prints its global name, and keeps it until Ctrl-C
    Put {
        /// The picture
        picture: PathBuf,
    },
    /// Writes the picture in a buffer to a PNG
    Get {
        /// The buffer's global name
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
        name: u32,
        /// The file to write
        out: PathBuf,
    },
    /// Lists the buffers
    Objects,
    /// Lists the open nodes
    Clients,
    /// Prints totals and limits
    Stats,
}
