//! A gemd of one's own, and client processes to talk to it, on Linux.
//!
//! The test binary is its own client: started again with [`ROLE`] in the environment, it does
//! what that says instead of testing.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What a client process is to do.
pub const ROLE: &str = "GEM_TEST_ROLE";

/// A gemd that ends with its owner.
pub struct Daemon {
    pub process: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts one, with these arguments, and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut process = command(&directory.path().join("gem.sock"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let served = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line.starts_with("gemd serves"));
        assert!(served, "gemd did not start");
        Self { process, directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("gem.sock")
    }

    /// This test binary, as a client of this daemon.
    pub fn client(&self, role: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).env("GEM_SOCKET", self.socket());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, to serve on this socket.
pub fn command(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemd"));
    command.arg("--socket").arg(socket).stdin(Stdio::null());
    command
}
