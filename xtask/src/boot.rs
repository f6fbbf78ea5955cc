//! The tasks: build, boot, judge.
//!
//! One after the other, each in a module of its own: `image` builds, `qemu` runs, `report` judges.
//! What cannot be done for want of something is one line and exit code 2; a run that failed
//! shows the end of what the machine said.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::image::{Image, check_kernel};
use crate::qemu::{self, End, Machine, Qemu, Setup};
use crate::record::Recording;
use crate::report::{Line, Report};
use crate::unusable;

/// How much of the log a failed run shows.
const TAIL: usize = 40;
/// What a kernel that has panicked needs for its stack trace.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What to boot, and on what.
#[derive(Args)]
pub struct Target {
    /// The kernel: the file `kernel` of a Redox build or image
    #[arg(long, env = "REDOX_KERNEL", value_name = "PATH")]
    kernel: Option<OsString>,
    /// The machine type
    #[arg(long, default_value = "q35")]
    machine: Machine,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=65536))]
    memory: u32,
    /// Seconds after which the run has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    time_limit: u64,
    /// Write all that the machine says to this file
    #[arg(long, value_name = "FILE")]
    keep_log: Option<PathBuf>,
}

/// `cargo xtask boot`.
#[derive(Args)]
pub struct Boot {
    #[command(flatten)]
    target: Target,
    /// How many processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    smp: u8,
    /// Run this test only
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
    /// How many clients are killed while they register memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Run only the test that has many clients do anything, with so many and for so long
    #[arg(long, value_name = "CLIENTS,SECONDS", value_parser = Soak::from_text, conflicts_with_all = ["test", "record"])]
    soak: Option<Soak>,
    /// Record what gemd is asked and answers, and put a trace of each promise that is kept into
    /// this directory (the committed ones: tests/traces/recorded)
    #[arg(long, value_name = "DIRECTORY")]
    record: Option<PathBuf>,
    /// Wait for a debugger on port 1234, without time limit
    #[arg(long)]
    gdb: bool,
}

/// The test of it.
const SOAK: &str = "clients_that_do_anything_and_are_killed_leave_nothing";

/// How long a soak is.
#[derive(Clone, Copy)]
struct Soak {
    clients: u32,
    seconds: u32,
}

impl Soak {
    fn from_text(text: &str) -> Result<Self, String> {
        let parts = text.split_once(',');
        let numbers = parts.and_then(|(clients, seconds)| {
            let clients = clients.parse().ok().filter(|n| (1..=256).contains(n))?;
            let seconds = seconds.parse().ok().filter(|n| (1..=3600).contains(n))?;
            Some(Self { clients, seconds })
        });
        numbers.ok_or_else(|| "1 to 256 clients and 1 to 3600 seconds, like 64,120".to_owned())
    }
}

impl Boot {
    /// Whether all tests passed.
    ///
    /// # Errors
    ///
    /// The run could not be made.
    pub fn run(&self) -> Result<bool> {
        if self.gdb {
            println!("# waiting for: gdb -ex 'target remote :1234'");
        }
        let mut command_line = Vec::new();
        if let Some(name) = &self.test {
            command_line.push(format!("test={name}"));
        }
        if let Some(rounds) = self.rounds {
            command_line.push(format!("rounds={rounds}"));
        }
        if let Some(Soak { clients, seconds }) = self.soak {
            command_line.push(format!("test={SOAK} soak={clients},{seconds}"));
        }
        if self.record.is_some() {
            command_line.push("record=1".to_owned());
        }
        let ended = self.target.run(&Run {
            processors: self.smp,
            command_line: &command_line.join(" "),
            record: self.record.as_deref(),
            count_instructions: false,
            debugger: self.gdb,
            tests: true,
        })?;
        Ok(ended.well)
    }
}

/// What the tasks do differently.
pub struct Run<'a> {
    /// How many.
    pub processors: u8,
    /// The kernel's, behind what every run says.
    pub command_line: &'a str,
    /// Where traces go.
    pub record: Option<&'a Path>,
    /// Let every instruction take a nanosecond.
    pub count_instructions: bool,
    /// Wait for one.
    pub debugger: bool,
    /// Whether there are tests to pass.
    pub tests: bool,
}

/// How a run has ended.
pub struct Ended {
    /// Whether nothing was wrong. What was has been told.
    pub well: bool,
    /// All that the machine has said, by the line.
    pub log: Vec<String>,
}

impl Target {
    /// The kernel that was named; an empty name is none.
    ///
    /// # Errors
    ///
    /// None is.
    pub fn kernel(&self) -> Result<&Path> {
        let named = self.kernel.as_deref().filter(|path| !path.is_empty());
        named
            .map(Path::new)
            .ok_or_else(|| unusable("no kernel is named: --kernel PATH, or REDOX_KERNEL=PATH"))
    }

    /// Builds the image and boots it, and tells what the machine says.
    ///
    /// # Errors
    ///
    /// The run could not be made.
    pub fn run(&self, run: &Run) -> Result<Ended> {
        let kernel = check_kernel(self.kernel()?)?;
        qemu::check_installed()?;
        let image = Image::build(&kernel)?;
        image.check_memory(self.memory)?;
        let command_line = format!(
            "processors={} memory={} {}",
            run.processors, self.memory, run.command_line
        );
        let setup = Setup {
            image: &image.directory,
            machine: self.machine,
            processors: run.processors,
            memory: self.memory,
            command_line: &command_line,
            count_instructions: run.count_instructions,
            debugger: run.debugger,
        };
        let mut kept = self.keep_log.as_deref().map(create).transpose()?;
        let limit = (!setup.debugger).then(|| Duration::from_secs(self.time_limit));
        let mut qemu = Qemu::start(&setup, limit)?;

        let mut recording = run.record.map(Recording::new).transpose()?;
        let mut report = Report::default();
        let mut log = Vec::new();
        let end = loop {
            let line = match qemu.line() {
                Ok(line) => line,
                Err(end) => break end,
            };
            if let Some(kept) = &mut kept {
                writeln!(kept, "{line}").context("cannot write the log")?;
            }
            if let Some(recording) = &mut recording
                && recording.take(&line)
            {
                continue;
            }
            match report.take(&line) {
                Line::Show => println!("{line}"),
                Line::Tested(name, kept) => {
                    println!("{line}");
                    if let Some(recording) = &mut recording {
                        recording.end(&name, kept)?;
                    }
                }
                Line::Log => {}
                Line::Panic => qemu.hurry(LAST_WORDS),
                Line::Look(address) => {
                    let entries = qemu.monitor().page_table_entries(run.processors, address)?;
                    let entries: Vec<_> =
                        entries.iter().map(|entry| format!("{entry:x}")).collect();
                    qemu.type_line(&entries.join(" "))?;
                }
            }
            log.push(line);
        };
        let went_off = end == End::Off;
        if went_off && qemu.status()?.code() == Some(3) {
            // The loader has said why.
            return Err(unusable("the loader refused the image"));
        }
        if report.knows_no_such_test() {
            return Err(unusable("there is nothing of that name"));
        }
        let mut faults = report.faults(run.tests, went_off);
        if let Some(recording) = recording {
            faults.extend(recording.faults());
        }
        if faults.is_empty() {
            return Ok(Ended { well: true, log });
        }
        println!("\nThe last the machine said:");
        for line in log.iter().skip(log.len().saturating_sub(TAIL)) {
            println!("    {line}");
        }
        for fault in &faults {
            println!("FAILED: {fault}");
        }
        Ok(Ended { well: false, log })
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path)
        .map_err(|error| unusable(format!("cannot write {}: {error}", path.display())))
}
