//! The processes of the demo, from the outside: started, asked, ended.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::roles::Way;

/// A process that ends, if need be by force, when its owner goes.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start a process")?))
    }

    /// The first line that it prints and that begins like this; the rest of the line.
    fn line(&mut self, beginning: &str) -> Result<String> {
        let output = self.0.stdout.take().context("its output was taken")?;
        for line in BufReader::new(output).lines() {
            if let Some(rest) = line?.strip_prefix(beginning) {
                return Ok(rest.trim().to_string());
            }
        }
        bail!("it ended before it said `{beginning}`")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).context("no such pid")?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ourselves(socket: &Path) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.env("GEM_SOCKET", socket);
    Ok(command)
}

/// A gemd of our own.
pub struct Daemon(Process);

impl Daemon {
    /// Starts it, and waits until it serves.
    pub fn start(socket: &Path) -> Result<Self> {
        let mut process = Process::start(&mut ourselves(socket)?)?;
        process.line("gemd serves").context("gemd did not start")?;
        Ok(Self(process))
    }

    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.0.signal(Signal::SIGTERM)?;
        let status = self.0.0.wait()?;
        ensure!(status.success(), "gemd ended with {status}");
        Ok(())
    }
}

/// The process that has the picture.
pub struct Producer {
    process: Process,
    name: u32,
    fds: PathBuf,
}

impl Producer {
    /// Starts it, and waits until the picture is in a buffer.
    pub fn start(socket: &Path, picture: &Path, directory: &Path) -> Result<Self> {
        let fds = directory.join("fds.sock");
        let mut command = ourselves(socket)?;
        command
            .args(["demo-role", "produce"])
            .arg(picture)
            .arg(&fds);
        let mut process = Process::start(&mut command)?;
        let name = process.line("name").context("the producer failed")?;
        let name = name.parse().context("the producer's name is no number")?;
        Ok(Self { process, name, fds })
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn name(&self) -> u32 {
        self.name
    }

    /// Kills it without a warning.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.0.wait()?;
        Ok(())
    }
}

/// Runs a consumer that gets the picture this way and writes it; its pid.
pub fn consume(way: Way, producer: &Producer, socket: &Path, out: &Path) -> Result<u32> {
    let mut command = ourselves(socket)?;
    command.args(["demo-role", "consume"]).arg(way.argument());
    match way {
        Way::Name => command.arg(producer.name.to_string()),
        Way::ObjectFd | Way::RenderNode => command.arg(&producer.fds),
    };
    command.arg(out);
    let mut process = Process::start(&mut command)?;
    let status = process.0.wait()?;
    ensure!(status.success(), "the consumer ended with {status}");
    Ok(process.0.id())
}
