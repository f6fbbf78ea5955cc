//! A gemd of one's own for the tests of its clients.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

/// A gemd that ends with its owner.
pub struct Daemon {
    process: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts one, with these arguments, and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new(program())
            .arg("--socket")
            .arg(directory.path().join("gem.sock"))
            // Whatever else this machine does, its memory is not short.
            .args(["--keep-free", "1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("gemd serves"),
            "gemd did not start: {line}"
        );
        Self { process, directory }
    }

    /// Where it listens: in a directory that goes with it.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("gem.sock")
    }

    /// Ends it without a warning.
    #[allow(dead_code, reason = "not every test needs a daemon that ends")]
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends it a signal, by name.
    #[allow(dead_code, reason = "nor one that hangs")]
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name]).arg(self.process.id().to_string());
        assert!(kill.status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The daemon's program. It belongs to another package, which cargo has built where the whole
/// workspace is tested, and builds now where it is not.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_gemctl")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--workspace", "--bin", "gemd"])
            .arg("--target-dir")
            .arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "gemd cannot be built");
        profile.join("gemd")
    });
    &PROGRAM
}
