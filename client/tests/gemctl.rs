//! `gemctl` as people and scripts use it: its output, its files, its messages, its exit codes.

mod daemon;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use daemon::Daemon;
use gem_client::picture::Picture;
use serde_json::Value;

fn gemctl(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemctl"));
    command
        .arg("--socket")
        .arg(daemon.socket())
        .args(arguments)
        .current_dir(directory(daemon))
        .stdin(Stdio::null());
    command
}

/// Where the tests' files are; it goes with the daemon.
fn directory(daemon: &Daemon) -> PathBuf {
    daemon.socket().parent().unwrap().to_path_buf()
}

fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    gemctl(daemon, arguments).output().unwrap()
}

fn succeed(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = run(daemon, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(daemon, arguments)).unwrap()
}

/// The message of a command that must fail.
fn fail(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = run(daemon, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A `gemctl put` that runs, and the name it printed.
struct Put {
    process: Child,
    name: String,
}

impl Put {
    fn start(daemon: &Daemon, picture: &str) -> Self {
        let mut process = gemctl(daemon, &["put", picture])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut name = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut name).unwrap();
        let name = name.trim().to_string();
        Self { process, name }
    }

    /// Ctrl-C, or what a session manager sends.
    fn stop(mut self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal])
            .arg(self.process.id().to_string())
            .status();
        assert!(sent.unwrap().success());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn picture(path: &Path) -> Picture {
    let picture = Picture {
        width: 37,
        height: 21,
        rgba: (0..37 * 21 * 4u32).map(|n| (n * 7) as u8).collect(),
    };
    picture.write_png(path).unwrap();
    picture
}

#[test]
fn a_picture_that_was_put_is_got_pixel_for_pixel_until_ctrl_c() {
    let daemon = Daemon::start(&[]);
    let picture = picture(&directory(&daemon).join("in.png"));
    for signal in ["INT", "TERM"] {
        let put = Put::start(&daemon, "in.png");
        let said = succeed(&daemon, &["get", &put.name, "out.png"]);
        assert_eq!(said, "out.png: 37 x 21 pixels\n");
        let out = directory(&daemon).join("out.png");
        assert_eq!(Picture::read_png(&out).unwrap(), picture);
        fs::remove_file(out).unwrap();
        let name = put.name.clone();
        put.stop(signal);
        let message = fail(&daemon, &["get", &name, "out.png"]);
        assert!(message.contains("no such buffer"), "{message}");
        assert!(!directory(&daemon).join("out.png").exists());
    }
}

#[test]
fn the_tables_show_what_is_there_as_text_and_as_json() {
    let daemon = Daemon::start(&[]);
    picture(&directory(&daemon).join("in.png"));
    let put = Put::start(&daemon, "in.png");
    let pid = u64::from(put.process.id());

    let objects = json(&daemon, &["objects", "--json"]);
    let [object] = objects.as_array().unwrap().as_slice() else {
        panic!("one object: {objects}");
    };
    assert_eq!(object["name"].to_string(), put.name);
    assert_eq!(object["pages"], 1);
    assert_eq!(
        object["offset"].as_str().map(|offset| &offset[..2]),
        Some("0x")
    );
    let text = succeed(&daemon, &["objects"]);
    assert!(
        text.starts_with("object ") && text.contains(&put.name),
        "{text}"
    );

    let clients = json(&daemon, &["clients", "--json"]);
    assert_eq!(clients[0]["gem-pid"], pid);
    assert_eq!(clients[0]["gem-node"], "card0");
    let text = succeed(&daemon, &["clients"]);
    assert!(text.contains(&format!(" {pid} ")), "{text}");

    let stats = json(&daemon, &["stats", "--json"]);
    assert_eq!(stats["objects"], 1);
    assert!(stats["limit-memory-pages"].as_u64().unwrap() > 0);
    let text = succeed(&daemon, &["stats"]);
    assert!(
        text.lines()
            .any(|line| line.starts_with("limit-memory-pages ")),
        "{text}"
    );

    put.stop("INT");
    assert_eq!(
        json(&daemon, &["objects", "--json"]),
        Value::Array(Vec::new())
    );
    assert_eq!(json(&daemon, &["stats", "--json"])["memory-pages"], 0);
}

#[test]
fn messages_say_what_is_wrong_and_what_to_do() {
    let daemon = Daemon::start(&[]);
    let directory = directory(&daemon);
    fs::write(directory.join("text.png"), "no picture").unwrap();
    for (arguments, parts) in [
        (
            &["put", "missing.png"][..],
            &["missing.png", "No such file"][..],
        ),
        (&["put", "text.png"], &["text.png", "PNG"]),
        (
            &["get", "7", "out.png"],
            &["no such buffer", "gemctl objects", "ENOENT"],
        ),
    ] {
        let message = fail(&daemon, arguments);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }
    let socket = daemon.socket();
    drop(daemon);
    let output = Command::new(env!("CARGO_BIN_EXE_gemctl"))
        .args(["stats", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    for part in [socket.to_str().unwrap(), "start gemd"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn names_that_cannot_be_are_a_matter_of_usage() {
    for name in ["0", "2147483648", "-1", "cat"] {
        let output = Command::new(env!("CARGO_BIN_EXE_gemctl"))
            .args(["get", name, "out.png"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

#[test]
fn a_buffer_without_a_picture_is_not_got() {
    let daemon = Daemon::start(&[]);
    gem_client::linux::set_socket(&daemon.socket());
    let card = gem_client::Card::open(gem_client::Node::Primary).unwrap();
    let buffer = card.create(4096).unwrap();
    let name = buffer.flink().unwrap().to_string();
    let message = fail(&daemon, &["get", &name, "out.png"]);
    assert!(message.contains("holds no picture"), "{message}");
}

#[test]
fn limits_are_read_set_and_refused_with_what_they_can_be() {
    let daemon = Daemon::start(&[]);
    let table = succeed(&daemon, &["limit"]);
    assert!(table.contains("memory-pages-per-uid"), "{table}");
    let set = succeed(&daemon, &["limit", "object-pages", "4MiB"]);
    assert_eq!(set, "object-pages: 1024\n");
    let limit = json(&daemon, &["limit", "object-pages", "--json"]);
    assert_eq!(limit["object-pages"]["value"], 1024);
    assert_eq!(
        json(&daemon, &["stats", "--json"])["limit-object-pages"],
        1024
    );
    for value in ["0", "-1", "16777217", "99999999999999999999", "1MiB", "x"] {
        let output = run(&daemon, &["limit", "handles-per-open", value]);
        assert_eq!(output.status.code(), Some(2), "{value}");
        let message = String::from_utf8(output.stderr).unwrap();
        for part in ["1 to 16777216", "Usage: gemctl "] {
            assert!(message.contains(part), "{message}");
        }
    }
    let output = run(&daemon, &["limit", "cats"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("handles-per-open"), "{message}");
}

#[test]
fn events_are_printed_as_they_come() {
    let daemon = Daemon::start(&[]);
    for (arguments, lines) in [
        (
            &["events", "--count", "2"][..],
            ["object-pages: 5", "object-pages: 6"],
        ),
        (
            &["events", "--count", "2", "--json"],
            [
                r#"{"event":"limit-changed","limit":"object-pages","value":5}"#,
                r#"{"event":"limit-changed","limit":"object-pages","value":6}"#,
            ],
        ),
    ] {
        succeed(&daemon, &["limit", "object-pages", "7"]);
        let mut command = gemctl(&daemon, arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        // Until it is there to be told.
        while json(&daemon, &["stats", "--json"])["waiting"] == 0 {}
        succeed(&daemon, &["limit", "object-pages", "5"]);
        assert_eq!(output.next().unwrap().unwrap(), lines[0]);
        succeed(&daemon, &["limit", "object-pages", "6"]);
        assert_eq!(output.next().unwrap().unwrap(), lines[1]);
        assert!(output.next().is_none());
        assert!(process.wait().unwrap().success());
    }
}

#[test]
fn an_open_is_revoked_by_the_number_that_clients_shows() {
    let daemon = Daemon::start(&[]);
    picture(&directory(&daemon).join("in.png"));
    let put = Put::start(&daemon, "in.png");
    let clients = json(&daemon, &["clients", "--json"]);
    let number = clients[0]["drm-client-id"].to_string();
    let printed = succeed(&daemon, &["revoke", &number]);
    assert_eq!(printed, format!("revoked {number}\n"));
    let message = fail(&daemon, &["get", &put.name, "out.png"]);
    assert!(message.contains("no such buffer"), "{message}");
    let clients = json(&daemon, &["clients", "--json"]);
    assert_eq!(clients[0]["gem-revoked"], 1);
    let message = fail(&daemon, &["revoke", "99"]);
    for part in ["no such open", "gemctl clients", "ENOENT"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_disk_that_is_full_is_an_error_and_a_closed_pipe_is_none() {
    let daemon = Daemon::start(&[]);
    picture(&directory(&daemon).join("in.png"));
    let put = Put::start(&daemon, "in.png");
    let message = fail(&daemon, &["get", &put.name, "/dev/full"]);
    for part in ["/dev/full", "No space"] {
        assert!(message.contains(part), "{message}");
    }

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = gemctl(&daemon, &["stats"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("cannot print: No space"), "{message}");

    // As in `gemctl stats | true`.
    let mut command = gemctl(&daemon, &["stats"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && message.is_empty(), "{message}");
}

#[test]
fn a_file_whose_name_is_not_unicode_is_written_and_named() {
    let daemon = Daemon::start(&[]);
    picture(&directory(&daemon).join("in.png"));
    let put = Put::start(&daemon, "in.png");
    let out = OsStr::from_bytes(b"out\xff.png");
    let mut command = gemctl(&daemon, &["--json", "get", &put.name]);
    let output = command.arg(out).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["out"], "out\u{fffd}.png");
    assert!(directory(&daemon).join(out).exists());
}

#[test]
fn the_help_teaches_by_example() {
    let output = Command::new(env!("CARGO_BIN_EXE_gemctl"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in [
        "Examples:",
        "gemctl put",
        "gemctl get",
        "master",
        "--json",
        "--socket",
    ] {
        assert!(help.contains(part), "{help}");
    }
}
