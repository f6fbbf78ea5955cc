//! Promises of the gem scheme: a fresh gemd and a process of the program `promise` for each. Those
//! about gemd's end start it themselves.

use alloc::sync::Arc;
use core::time::Duration;

use gem_promises::{Promise, exhaustion, restarts, signals};
use gem_traces::UNRECORDED;
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::process::{Command, Process};
use rt::protocol::Ended;
use rt::sync::Event;
use rt::time::Instant;
use syscall::error::ENODEV;

use crate::{Broken, Outcome, environment, expect, in_call, value};

/// Small enough for the promises about limits to reach them.
const LIMITS: [&str; 8] = [
    "--keep-free",
    "1",
    "--max-memory",
    "64",
    "--max-object",
    "8",
    "--max-handles",
    "500",
];
/// Large enough for a signal to meet a call that waits for pages.
const LARGE: [&str; 4] = ["--max-memory", "512", "--max-object", "64"];
/// As much as the machine has, and more.
pub const ALL: [&str; 6] = [
    "--max-memory",
    "65536",
    "--max-object",
    "8",
    "--keep-free",
    "32",
];
/// How many clients soak, and for how many seconds, where the kernel's command line does not say
/// (`soak=`).
const SOAK: &str = "16,5";
/// How long a promise may take. Emulation is slow, and slower where the host does other things.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running gemd; killed when dropped.
pub struct Gemd {
    process: Process,
}

impl Gemd {
    /// Starts one, and waits until it serves.
    pub fn start(arguments: &[&str]) -> Result<Self, Broken> {
        let mut command = Command::new("gemd");
        for argument in arguments {
            command = command.argument(argument);
        }
        let process = command.spawn().map_err(in_call("start gemd"))?;
        let gemd = Self { process };
        let end = Instant::now().after(PATIENCE);
        loop {
            match Fd::open("/scheme/gem/stats", O_RDONLY, 0) {
                Ok(_) => return Ok(gemd),
                Err(error) if error.errno() == ENODEV && Instant::now() < end => {
                    let _ = syscall::sched_yield();
                }
                Err(error) => return Err(Broken::Call("open gemd's stats", error.into())),
            }
        }
    }

    /// Whether it still does.
    pub fn is_serving(&self) -> Outcome {
        let stats = Fd::open("/scheme/gem/stats", O_RDONLY, 0);
        stats
            .map(drop)
            .map_err(|error| Broken::Call("open gemd's stats afterwards", error.into()))
    }
}

impl Drop for Gemd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a trace of it can be recorded.
pub fn is_recorded(promise: &Promise) -> bool {
    UNRECORDED.iter().all(|(other, _)| *other != promise.name)
}

/// Tests it. What is broken stands on the serial port, and with `record`, what gemd did.
pub fn keep(promise: &Promise, record: bool) -> Outcome {
    let is_among = |promises: &[Promise]| promises.iter().any(|other| other.name == promise.name);
    let record: &[&str] = if record { &["--record"] } else { &[] };
    let gemd = if is_among(restarts::PROMISES) {
        None
    } else if is_among(signals::PROMISES) {
        Some(Gemd::start(&[record, &LARGE].concat())?)
    } else if is_among(exhaustion::PROMISES) {
        Some(Gemd::start(&[record, &ALL].concat())?)
    } else {
        Some(Gemd::start(&[record, &LIMITS].concat())?)
    };
    let environment = environment();
    let soak = value(&environment, "soak").unwrap_or(SOAK);
    let test = Command::new("promise")
        .argument(promise.name)
        .argument(soak);
    let test = test.spawn().map_err(in_call("start the test"))?;
    let seconds = soak
        .split(',')
        .next_back()
        .and_then(|text| text.parse().ok());
    let ended = wait(test, PATIENCE + Duration::from_secs(seconds.unwrap_or(0)))?;
    expect("how the test ended", ended, Ended::Exited(0))?;
    gemd.map_or(Ok(()), |gemd| gemd.is_serving())
}

/// How the process ended; it is killed when it takes too long.
fn wait(process: Process, patience: Duration) -> Result<Ended, Broken> {
    let process = Arc::new(process);
    let over = Arc::new(Event::new());
    let (watched, done) = (process.clone(), over.clone());
    let watch = rt::thread::spawn(move || {
        if !done.wait_until(Instant::now().after(patience)) {
            rt::say!("# time is up");
            let _ = watched.kill();
        }
    });
    let watch = watch.map_err(in_call("start a thread"))?;
    let ended = process.wait().map_err(in_call("wait for the test"));
    over.set();
    watch.join();
    ended
}
