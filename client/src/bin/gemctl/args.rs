//! The command line of `gemctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gem_client::Limit;

/// Looks at and uses the graphics memory that gemd owns.
#[derive(Debug, Parser)]
#[command(name = "gemctl", version, max_term_width = 100, after_help = EXAMPLES)]
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
  gemctl top                    the same live: who holds how much, of how much
  gemctl stats --json           totals and limits, for programs
  gemctl limit                  every limit, and what it can be set to
  gemctl limit memory-pages-per-uid 512MiB
                                (root) no user gets more than that from now on
  gemctl events                 prints when root sets a limit, or memory runs short
  gemctl revoke 7               (root) takes everything from the open that clients calls 7

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
    /// Shows who holds how much, live (q ends it)
    ///
    /// Sorted by memory; s and S choose another column, r turns the order round, / filters.
    Top {
        /// Seconds between two looks at the server
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = delay)]
        delay: Duration,
    },
    /// Prints a limit, or all; with a value, sets it (root only)
    ///
    /// What clients have beyond a lower limit stays theirs; only what is new is refused. The next
    /// gemd begins with its own limits again.
    Limit {
        /// Which: see the list that `gemctl limit` prints
        #[arg(value_name = "LIMIT", value_parser = limit)]
        limit: Option<Limit>,
        /// A number; where pages are counted also with KiB, MiB or GiB
        #[arg(requires = "limit", allow_hyphen_values = true)]
        value: Option<String>,
    },
    /// Prints what the server tells as it happens, until Ctrl-C
    ///
    /// That is: limits that root sets, memory that runs short.
    Events {
        /// End after so many events
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Takes everything from an open node (root only)
    ///
    /// Its handles are closed, calls on it fail from then on. What its client has mapped stays
    /// mapped, and charged to its user, until it is unmapped or the client ends.
    Revoke {
        /// The number of the open, from `gemctl clients`
        client: u64,
    },
}

fn delay(seconds: &str) -> Result<Duration, String> {
    let number: Option<f64> = seconds.parse().ok();
    let number = number.filter(|seconds| (0.1..=3600.0).contains(seconds));
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "it is 0.1 to 3600".to_owned())
}

fn limit(name: &str) -> Result<Limit, String> {
    Limit::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        format!("there is no such limit; there are: {}", names.join(", "))
    })
}
