//! gemd as a program: sockets, signals, and thousands of clients that die.

mod linux;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gem_client::picture::Picture;
use gem_client::{Card, Name, Node, Register, Rights};
use linux::{Daemon, ROLE, command};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use syscall::error::{EINVAL, ENODEV};

/// A random number generator that a seed decides (xorshift64*, Vigna 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// Runs `test` in a client process of this daemon: the same test again, in its role.
fn in_client(daemon: &Daemon, test: &str, role: &str) -> Child {
    daemon
        .client(role)
        .args([test, "--exact", "--nocapture"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn send(signal: Signal, process: &Child) {
    kill(pid(process), signal).unwrap();
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(process.id().try_into().unwrap())
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[test]
fn sigterm_ends_it_with_exit_code_0_and_without_a_socket() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(&[]);
        send(signal, &daemon.process);
        assert!(daemon.process.wait().unwrap().success());
        assert!(!daemon.socket().exists());
    }
}

#[test]
fn a_second_gemd_on_the_same_socket_is_told_so() {
    let daemon = Daemon::start(&[]);
    let output = command(&daemon.socket()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&daemon.socket().display().to_string()),
        "{text}"
    );
    assert!(daemon.socket().exists(), "the first one still serves");
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("gem.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(
        socket.exists(),
        "nobody listens, and the file is still there"
    );
    let mut gemd = command(&socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let output = gemd.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert!(line.starts_with("gemd serves"), "{line}");
    send(Signal::SIGTERM, &gemd);
    assert!(gemd.wait().unwrap().success());
}

#[test]
fn with_two_vs_every_request_and_its_answer_are_told() {
    const TEST: &str = "with_two_vs_every_request_and_its_answer_are_told";
    if role().is_some() {
        let refused = Card::open(Node::Render).unwrap().create(0);
        assert_eq!(refused.unwrap_err().errno(), EINVAL);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("gem.sock");
    let mut gemd = command(&socket);
    let gemd = gemd
        .arg("-vv")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut gemd = gemd.spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(gemd.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let mut client = Command::new(std::env::current_exe().unwrap());
    client.args([TEST, "--exact"]).env(ROLE, "");
    let client = client.env("GEM_SOCKET", &socket).output().unwrap();
    assert!(client.status.success());
    send(Signal::SIGTERM, &gemd);
    let told = gemd.wait_with_output().unwrap().stderr;
    let told = String::from_utf8(told).unwrap();
    for part in ["Native(Create { size: 0", "Error(Errno(22))", "Closed("] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn bad_arguments_are_told_with_what_is_allowed() {
    for arguments in [
        &["--max-memory", "0"][..],
        &["--max-memory", "-1"],
        &["--max-object", "99999999999999999999"],
        &["--max-handles", "0"],
        &["--no-such-flag"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_gemd"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn calls_that_wait_when_it_is_told_to_stop_are_answered() {
    const TEST: &str = "calls_that_wait_when_it_is_told_to_stop_are_answered";
    const CLIENTS: u64 = 8;
    if let Some(client) = role() {
        return ask_once(client.parse().unwrap());
    }
    let mut daemon = Daemon::start(&[]);
    let mut clients: Vec<Child> = (0..CLIENTS)
        .map(|client| talking_client(&daemon, TEST, &client.to_string()))
        .collect();
    for client in &mut clients {
        assert_eq!(hear(client), "ready");
    }
    send(Signal::SIGSTOP, &daemon.process);
    let stopped = waitpid(pid(&daemon.process), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)));
    for client in &mut clients {
        drop(client.stdin.take());
    }
    for client in &mut clients {
        assert_eq!(hear(client), "asking");
        wait_until_asleep(client.id());
    }
    send(Signal::SIGTERM, &daemon.process);
    send(Signal::SIGCONT, &daemon.process);
    for client in &mut clients {
        assert!(client.wait().unwrap().success(), "a call was not answered");
    }
    assert!(daemon.process.wait().unwrap().success());
    assert!(!daemon.socket().exists());
}

/// A client that asks for one thing once its input ends. What can be done at once is done; what
/// has to wait for its pages may hear that the server is leaving.
fn ask_once(client: u64) {
    let card = Card::open(Node::Render).unwrap();
    let buffer = card.create(4096).unwrap();
    let object = buffer.export(Rights::ReadWrite).unwrap();
    println!("said: ready");
    let mut rest = String::new();
    std::io::stdin().read_line(&mut rest).unwrap();
    println!("said: asking");
    if client.is_multiple_of(2) {
        card.create(4096).map(std::mem::forget).unwrap();
    } else if let Err(error) = object.map_range(0, 4096, Rights::ReadWrite) {
        assert_eq!(error.errno(), ENODEV);
    }
    // Letting go of things is no longer possible.
    std::process::exit(0);
}

/// Waits until all threads of a process wait for something: of a client that has just said that
/// it is asking, for the answer.
fn wait_until_asleep(pid: u32) {
    let is_asleep = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // The name before the state can contain anything, in parentheses.
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    let tasks = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    while !tasks().all(is_asleep) {
        std::thread::yield_now();
    }
}

/// As [`in_client`], with an input that ends when told so, and an output to hear.
fn talking_client(daemon: &Daemon, test: &str, role: &str) -> Child {
    daemon
        .client(role)
        .args([test, "--exact", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The next line that begins with `said: `; the test harness prints others.
fn hear(client: &mut Child) -> String {
    let mut output = BufReader::new(client.stdout.as_mut().unwrap());
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "a client failed");
        if let Some((_, said)) = line.split_once("said: ") {
            return said.trim().to_string();
        }
    }
}

/// A client's whole life, decided by a seed, for as long as it lasts. It shares the buffer of this
/// name with all the others.
fn live(seed: u64, shared: Name) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let node = if random.below(4) == 0 {
        Node::Render
    } else {
        Node::Primary
    };
    let card = Card::open(node).unwrap();
    let mut buffers = Vec::new();
    let mut mappings = Vec::new();
    let mut fds = Vec::new();
    let mut of_shared = Vec::new();
    let mut own = Vec::new();
    loop {
        // Limits and names of the dead are errors, and part of life.
        match random.below(12) {
            0 | 1 => buffers.extend(card.create(1 + random.below(64 * 4096))),
            2 => {
                if let Some(buffer) = buffers.last() {
                    mappings.extend(buffer.map());
                }
            }
            3 => {
                if let Some(mapping) = mappings.last() {
                    // Some are read-only.
                    let _ = mapping.fill(seed as u8);
                }
            }
            4 => {
                if let Some(buffer) = buffers.first() {
                    let _ = buffer.flink().and_then(|name| card.open_name(name));
                }
            }
            5 => {
                if let Some(buffer) = buffers.first() {
                    fds.extend(buffer.export(Rights::ReadWrite));
                }
            }
            6 => {
                if let Some(fd) = fds.last() {
                    buffers.extend(card.import(fd));
                    mappings.extend(fd.map(Rights::ReadOnly));
                }
            }
            7 => {
                if let Ok(buffer) = card.open_name(shared) {
                    let mapping = buffer.map();
                    if let Ok(mapping) = &mapping {
                        mapping.write_at(0, &seed.to_ne_bytes()).unwrap();
                    }
                    of_shared.push((buffer.export(Rights::ReadWrite), mapping, buffer));
                }
            }
            8 => drop(mappings.pop()),
            9 => {
                let size = (1 + random.below(40) as usize) * gem_client::PAGE_SIZE;
                if let Ok(userptr) = card.userptr_new(size, Register::new()) {
                    userptr.memory().fill(seed as u8).unwrap();
                    own.push(userptr);
                }
            }
            10 if own.len() > 3 => own.clear(),
            _ => drop(buffers.pop()),
        }
        if buffers.len() > 20 {
            buffers.clear();
            fds.clear();
            of_shared.clear();
        }
    }
}

#[test]
fn thousands_of_clients_killed_at_random_points_leave_nothing() {
    const CLIENTS: u64 = 2000;
    const AT_A_TIME: usize = 16;
    const TEST: &str = "thousands_of_clients_killed_at_random_points_leave_nothing";
    match role().as_deref() {
        Some("look") => return assert_empty(),
        Some("share") => return share(),
        Some(life) => {
            let (seed, name) = life.split_once(' ').unwrap();
            let name = Name::new(name.parse().unwrap()).unwrap();
            return live(seed.parse().unwrap(), name);
        }
        None => {}
    }
    let daemon = Daemon::start(&["--max-memory", "256"]);
    let files = open_files(&daemon);
    let mut owner = talking_client(&daemon, TEST, "share");
    let name = hear(&mut owner);
    let mut random = Random(2026);
    let mut alive: Vec<Child> = Vec::new();
    for seed in 0..CLIENTS {
        alive.push(in_client(&daemon, TEST, &format!("{seed} {name}")));
        if alive.len() == AT_A_TIME {
            std::thread::sleep(Duration::from_micros(random.below(4000)));
            let victim = random.below(AT_A_TIME as u64) as usize;
            end(&mut alive.swap_remove(victim));
        }
    }
    alive.iter_mut().for_each(end);
    drop(owner.stdin.take());
    assert!(
        owner.wait().unwrap().success(),
        "the shared buffer was hurt"
    );
    let mut look = in_client(&daemon, TEST, "look");
    assert!(
        look.wait().unwrap().success(),
        "something is left, or gemd is gone"
    );
    // The last client's connection closes when gemd gets to it.
    let mut left = usize::MAX;
    for _ in 0..5000 {
        left = open_files(&daemon);
        if left == files {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("gemd had {files} files open, and now {left}");
}

/// A client that shares a buffer, and in the end finds its own part of it as it was.
fn share() {
    let card = Card::open(Node::Primary).unwrap();
    let buffer = card.create(2 * 4096).unwrap();
    let mapping = buffer.map().unwrap();
    mapping.write_at(4096, &[0xa5; 4096]).unwrap();
    println!("said: {}", buffer.flink().unwrap());
    let mut rest = String::new();
    std::io::stdin().read_line(&mut rest).unwrap();
    let mut bytes = [0; 4096];
    mapping.read_at(4096, &mut bytes).unwrap();
    assert!(bytes == [0xa5; 4096]);
}

/// How many files gemd has open.
fn open_files(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.process.id()));
    files.unwrap().count()
}

fn end(client: &mut Child) {
    // It runs until it is killed: if it ended by itself, it failed.
    assert_eq!(client.try_wait().unwrap(), None, "a client failed");
    client.kill().unwrap();
    client.wait().unwrap();
}

fn assert_empty() {
    let mut text = String::new();
    for _ in 0..5000 {
        text = gem_client::text::read("/scheme/gem/stats").unwrap();
        // This process's file and the two of the daemon's own.
        let zero = [
            "opens",
            "objects",
            "handles",
            "object-fds",
            "names",
            "offsets",
            "memory-pages",
            "mapped-pages",
            "userptr-pages",
            "userptr-ranges",
        ];
        let is =
            |key: &str, value: u64| text.lines().any(|line| line == format!("{key}:\t{value}"));
        if zero.iter().all(|key| is(key, 0)) && is("files", 3) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("left:\n{text}");
}

#[test]
fn a_picture_survives_a_buffer_and_a_bad_one_is_no_picture() {
    const TEST: &str = "a_picture_survives_a_buffer_and_a_bad_one_is_no_picture";
    if role().is_some() {
        let card = Card::open(Node::Primary).unwrap();
        let picture = Picture {
            width: 3,
            height: 2,
            rgba: (0..24).collect(),
        };
        let mapping = picture.store(&card).unwrap().map().unwrap();
        assert_eq!(Picture::load(&mapping).unwrap(), picture);
        // Whoever shares the buffer can claim any size.
        mapping.write_at(8, &u32::MAX.to_ne_bytes()).unwrap();
        assert!(Picture::load(&mapping).is_err());
        return;
    }
    let daemon = Daemon::start(&[]);
    assert!(in_client(&daemon, TEST, "client").wait().unwrap().success());
}
