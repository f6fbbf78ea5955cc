//! QEMU: one machine, its serial port as a stream of lines, and its monitor.
//!
//! A machine ends with its owner. What its lines mean is not known here (`report`); only that it
//! has said nothing for too long, or has ended.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::image::{BOOTSTRAP, KERNEL, LOADER};
use crate::monitor::Monitor;
use crate::unusable;

const PROGRAM: &str = "qemu-system-x86_64";

/// The machine types that the image is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Machine {
    /// PCI Express, of 2009.
    Q35,
    /// PCI, of 1996.
    Pc,
}

/// What machine to run.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Where the image's files are.
    pub image: &'a Path,
    /// The type.
    pub machine: Machine,
    /// How many processors.
    pub processors: u8,
    /// Memory in MiB.
    pub memory: u32,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Count instructions: every one takes a nanosecond of the machine's time.
    pub count_instructions: bool,
    /// Wait for a debugger.
    pub debugger: bool,
}

/// Whether QEMU is there.
///
/// # Errors
///
/// It is not installed.
pub fn check_installed() -> Result<()> {
    version().map(drop)
}

/// What QEMU says that it is.
///
/// # Errors
///
/// It is not installed.
pub fn version() -> Result<String> {
    let output = Command::new(PROGRAM).arg("--version").output();
    let text = String::from_utf8(output.map_err(cannot_run)?.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn cannot_run(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return unusable(format!(
            "{PROGRAM} is not installed: apt-get install qemu-system-x86"
        ));
    }
    anyhow::Error::new(error).context(format!("cannot run {PROGRAM}"))
}

/// A running machine. It is killed when dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    serial: UnixStream,
    monitor: Monitor,
    lines: Receiver<Vec<u8>>,
    deadline: Option<Instant>,
}

/// Why there is no further line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The machine is off.
    Off,
    /// Time is up.
    Late,
}

impl Qemu {
    /// Starts the machine, for at most `limit`.
    ///
    /// # Errors
    ///
    /// QEMU is not installed.
    pub fn start(setup: &Setup, limit: Option<Duration>) -> Result<Self> {
        let (serial, machines) = UnixStream::pair()?;
        let (monitor, monitors) = UnixStream::pair()?;
        let mut command = command(setup);
        command
            .stdin(OwnedFd::from(machines))
            .stdout(OwnedFd::from(monitors));
        let child = command.spawn().map_err(cannot_run)?;
        // With the last copy of ours QEMU's end of the serial port is the only one left.
        drop(command);
        let output = serial.try_clone()?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            serial,
            monitor: Monitor::new(monitor),
            lines,
            deadline: limit.map(|limit| Instant::now() + limit),
        })
    }

    /// The next line, without its end.
    ///
    /// # Errors
    ///
    /// The machine is off, or time is up.
    pub fn line(&mut self) -> Result<String, End> {
        let line = match self.deadline {
            None => self.lines.recv().map_err(|_| End::Off)?,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.lines.recv_timeout(left).map_err(|error| match error {
                    RecvTimeoutError::Disconnected => End::Off,
                    RecvTimeoutError::Timeout => End::Late,
                })?
            }
        };
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Types a line on the serial port.
    ///
    /// # Errors
    ///
    /// The machine is off.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.serial, "{line}").context("the machine does not listen")
    }

    /// See [`Monitor`].
    pub fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// Leaves the machine only this much more time.
    pub fn hurry(&mut self, rest: Duration) {
        let end = Instant::now() + rest;
        self.deadline = Some(self.deadline.map_or(end, |deadline| deadline.min(end)));
    }

    /// How QEMU ended, which it has or does now.
    ///
    /// # Errors
    ///
    /// None but of a failing host.
    pub fn status(mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It fails where QEMU has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(setup: &Setup) -> Command {
    let mut qemu = Command::new(PROGRAM);
    let machine = match setup.machine {
        Machine::Q35 => "q35",
        Machine::Pc => "pc",
    };
    // -initrd splits at commas and spaces, so the files have plain names in a directory.
    let modules = format!("{KERNEL},{BOOTSTRAP}");
    qemu.current_dir(setup.image)
        // The kernel does not use PCIDs the way that QEMU's emulation wants them.
        .args(["-machine", machine, "-cpu", "max,pcid=off"])
        .args(["-smp", &setup.processors.to_string()])
        .args(["-m", &format!("{}M", setup.memory)])
        .args(["-display", "none", "-no-reboot"])
        // Stdin and stdout are sockets, and both go both ways.
        .args(["-chardev", "socket,id=serial,fd=0"])
        .args(["-serial", "chardev:serial"])
        .args(["-chardev", "socket,id=monitor,fd=1"])
        .args(["-mon", "chardev=monitor,mode=control"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-kernel", LOADER, "-initrd", &modules])
        .args(["-append", setup.command_line]);
    if setup.count_instructions {
        qemu.args(["-icount", "shift=0,sleep=off"]);
    }
    if setup.debugger {
        qemu.args(["-s", "-S"]);
    }
    qemu
}
