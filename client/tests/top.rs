//! `gemctl top` as people see it: what is on the screen, what keys do, and that the terminal is
//! as it was afterwards, whatever ended it.

mod daemon;
mod terminal;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use daemon::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terminal::Terminal;

/// A terminal in which `gemctl top` shows a client that holds a picture of 564 KiB.
struct Top {
    terminal: Terminal,
    top: Child,
    client: Child,
    daemon: Daemon,
}

impl Top {
    fn start() -> Self {
        let daemon = Daemon::start(&["--max-memory", "64"]);
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scheme/assets/demo.png");
        let mut client = gemctl(&daemon)
            .arg("put")
            .arg(picture)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut name = String::new();
        let mut output = BufReader::new(client.stdout.take().unwrap());
        output.read_line(&mut name).unwrap();

        let mut terminal = Terminal::new();
        let mut command = gemctl(&daemon);
        command.args(["top", "--delay", "0.1"]);
        let top = terminal.run(command);
        terminal.wait_for("card0");
        Self {
            terminal,
            top,
            client,
            daemon,
        }
    }

    /// The program ends by itself, with this code, and the terminal is as it was. Returns what it
    /// shows.
    fn ends(&mut self, code: i32) -> String {
        assert_eq!(self.top.wait().unwrap().code(), Some(code));
        self.terminal.check_that_it_is_as_it_was()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.top.id() as i32), signal).unwrap();
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        for process in [&mut self.top, &mut self.client] {
            // Both fail only where it has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn gemctl(daemon: &Daemon) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemctl"));
    command.arg("--socket").arg(daemon.socket());
    command
}

#[test]
fn who_holds_how_much_is_shown_while_it_changes() {
    let mut top = Top::start();
    let pid = top.client.id().to_string();
    let screen = top.terminal.wait_for(&pid);
    let line = screen.lines().find(|line| line.contains(&pid)).unwrap();
    assert!(line.contains("564 KiB"), "{screen}");
    for part in ["1 objects", "564 KiB of 64.0 MiB", "564 KiB of 32.0 MiB"] {
        assert!(screen.contains(part), "no {part}:\n{screen}");
    }
    top.client.kill().unwrap();
    top.terminal.wait_for("0 objects");
    top.terminal.wait_for("0 B of 64.0 MiB");
}

#[test]
fn keys_sort_filter_and_quit() {
    let mut top = Top::start();
    top.terminal.wait_for("*total");
    top.terminal.keys("s");
    top.terminal.wait_for("*shared");
    top.terminal.keys("/renderD");
    top.terminal.wait_for("filter: renderD");
    top.terminal.keys("\r");
    let screen = top.terminal.wait_for("\"renderD\": 0 of 1");
    assert!(!screen.contains("card0"), "{screen}");
    top.terminal.keys("\x1b");
    top.terminal.wait_for("card0");
    top.terminal.keys("q");
    top.ends(0);
}

#[test]
fn ctrl_c_and_signals_leave_the_terminal_as_it_was() {
    let mut top = Top::start();
    top.terminal.keys("\x03");
    top.ends(0);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut top = Top::start();
        top.signal(signal);
        top.ends(0);
    }
}

#[test]
fn a_server_that_ends_leaves_the_terminal_as_it_was_and_a_message() {
    let mut top = Top::start();
    top.daemon.kill();
    let screen = top.ends(1);
    assert!(screen.contains("gemctl: cannot"), "{screen}");
}

#[test]
fn a_server_that_hangs_is_told_of_and_q_still_quits() {
    let mut top = Top::start();
    top.daemon.signal("STOP");
    top.terminal.wait_for("the server has not answered for");
    top.terminal.keys("q");
    top.ends(0);
    top.daemon.signal("CONT");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let daemon = Daemon::start(&[]);
    for arguments in [&["top"][..], &["top", "--json"]] {
        let output = gemctl(&daemon).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("gemctl clients --json"), "{message}");
    }
}
