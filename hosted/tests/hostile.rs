//! Clients that speak nonsense, clients that do not listen, and sockets that are taken.

mod common;

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Daemon, PAGE, entries, errno, open};
use hosted::{Config, StartError, client};
use libredox::call;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
    sendmsg, socket,
};
use syscall::flag::{CallFlags, MapFlags};
use syscall::schemev2::{Opcode, Sqe};

fn main() -> ExitCode {
    common::main(
        entries![
            nonsense_ends_its_sender_and_nobody_else,
            random_messages_harm_nobody,
            a_client_that_does_not_read_is_ended_and_nobody_waits,
            calls_in_flight_are_limited,
            payloads_in_flight_are_limited,
            a_slow_reader_gets_everything,
            one_client_cannot_starve_another,
            a_second_connection_of_a_process_is_refused,
            a_stale_socket_is_replaced_and_a_live_one_is_not,
            the_socket_is_this_users_and_goes_with_the_kernel,
            two_kernels_in_one_process_are_refused,
            who_finds_no_daemon_is_told_what_to_do,
            files_do_not_pile_up,
            replies_that_nobody_takes_hold_no_files,
            parcels_are_limited,
            only_a_fresh_userfaultfd_stands_for_an_address_space,
            address_spaces_are_limited,
            killed_clients_leave_nothing,
        ],
        entries![
            speaks_nonsense,
            speaks_at_random,
            never_reads,
            calls_a_thousand_times,
            reads_a_lot,
            reads_slowly,
            floods,
            calls_a_little,
            connects_twice,
            finds_nobody,
            answers,
            comes_and_goes,
            maps_and_never_reads,
            makes_parcels,
            offers_other_files,
            offers_very_many,
            lives_dangerously,
        ],
    )
}

/// A request as it stands in a message.
fn message(op: u32, request: u32, fd: u64, args: [u64; 6], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(op.to_ne_bytes());
    bytes.extend(request.to_ne_bytes());
    bytes.extend(fd.to_ne_bytes());
    args.iter().for_each(|arg| bytes.extend(arg.to_ne_bytes()));
    bytes.extend(payload);
    bytes
}

const HELLO: u32 = 1;
const OPEN: u32 = 3;
const READ: u32 = 8;
const CALL: u32 = 10;
const FCNTL: u32 = 12;
const MMAP: u32 = 22;
const UNPARCEL: u32 = 25;
const OFFER_SPACE: u32 = 30;

/// What the kernel speaks.
const VERSION: u64 = 2;

fn hello() -> Vec<u8> {
    let magic = u64::from_le_bytes(*b"gemkern\0");
    message(HELLO, 1, 0, [magic, VERSION, 0, 0, 0, 0], &[])
}

/// A connection without the library.
fn raw_connection() -> OwnedFd {
    let path = std::env::var("GEM_SOCKET").unwrap();
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    connect(
        socket.as_raw_fd(),
        &UnixAddr::new(Path::new(&path)).unwrap(),
    )
    .unwrap();
    socket
}

fn greeted() -> OwnedFd {
    let connection = raw_connection();
    say(&connection, &hello());
    assert!(hears(&connection).is_some());
    connection
}

fn say(connection: &OwnedFd, message: &[u8]) {
    send(connection.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).unwrap();
}

/// The next reply: request number, result, and how long it is; `None` where the daemon hung up.
fn hears(connection: &OwnedFd) -> Option<(u32, u64, usize)> {
    let mut buffer = vec![0; 70_000];
    let length = recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap_or(0);
    if length == 0 {
        return None;
    }
    let request = u32::from_ne_bytes(buffer[..4].try_into().unwrap());
    let result = u64::from_ne_bytes(buffer[8..16].try_into().unwrap());
    Some((request, result, length))
}

fn nonsense_ends_its_sender_and_nobody_else() {
    let mut daemon = Daemon::start();
    let good = daemon.client("calls_a_little");
    daemon.serve_open(20);
    let bad = daemon.client("speaks_nonsense");
    let mut opened = 0;
    let mut bad_closed = 0;
    let mut good_calls = 0;
    loop {
        let sqe = daemon.next();
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => {
                opened += 1;
                daemon.answer(&sqe, 100 + opened);
            }
            Some(Opcode::CloseMsg) if sqe.args[0] == 20 => break,
            Some(Opcode::CloseMsg) => bad_closed += 1,
            Some(Opcode::Call) => {
                good_calls += 1;
                daemon.answer(&sqe, 0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(good_calls, 500);
    let closes = std::thread::spawn(move || bad.finish());
    while !closes.is_finished() || bad_closed < opened {
        if let Some(sqe) = daemon.next_within(Duration::from_millis(5)) {
            match Opcode::try_from_raw(sqe.opcode) {
                Some(Opcode::OpenAt) => {
                    opened += 1;
                    daemon.answer(&sqe, 100 + opened);
                }
                Some(Opcode::CloseMsg) => bad_closed += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    closes.join().unwrap();
    assert_eq!(opened, NONSENSE as u64, "each had a file open, and lost it");
    good.finish();
}

/// How many kinds of nonsense [`speaks_nonsense`] knows beyond the greeting.
const NONSENSE: usize = 13;

fn speaks_nonsense() {
    // Before the greeting, and instead of it.
    let magic = u64::from_le_bytes(*b"gemkern\0");
    for bytes in [
        message(OPEN, 1, 0, [0; 6], b"/scheme/test/x"),
        message(HELLO, 1, 0, [magic, VERSION + 1, 0, 0, 0, 0], &[]),
        message(HELLO, 1, 0, [0; 6], &[]),
        vec![0],
    ] {
        let connection = raw_connection();
        say(&connection, &bytes);
        let refusal = hears(&connection);
        assert!(refusal.is_none() || hears(&connection).is_none());
    }
    let nonsense = [
        vec![1; 63],
        vec![],
        message(0, 7, 0, [0; 6], &[]),
        message(9999, 7, 0, [0; 6], &[]),
        message(u32::MAX, 7, 0, [0; 6], &[]),
        hello(),
        message(CALL, 7, 3, [0; 6], &[0; 65537]),
        message(FCNTL, 7, 3, [0; 6], &[1]),
        message(READ, 7, 3, [65537, 0, 0, 0, 0, 0], &[]),
        message(READ, 7, 3, [u64::MAX, 0, 0, 0, 0, 0], &[]),
        message(UNPARCEL, 7, 0, [0; 6], &[]),
    ];
    for bytes in &nonsense {
        let connection = with_a_file();
        say(&connection, bytes);
        assert!(hears(&connection).is_none());
    }
    // Files that nobody asked for, few and many.
    for count in [1, 200] {
        let connection = with_a_file();
        let fds = vec![connection.as_raw_fd(); count];
        let bytes = message(FCNTL, 7, 3, [0; 6], &[]);
        let part = [IoSlice::new(&bytes)];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(
            connection.as_raw_fd(),
            &part,
            &rights,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert!(hears(&connection).is_none());
    }
    assert_eq!(nonsense.len() + 2, NONSENSE);
}

/// A greeted connection that has a file open.
fn with_a_file() -> OwnedFd {
    let connection = greeted();
    say(
        &connection,
        &message(OPEN, 5, 0, [0x3_0000, 0, 0, 0, 0, 0], b"/scheme/test/x"),
    );
    assert_eq!(
        hears(&connection).map(|(request, result, _)| (request, result)),
        Some((5, 3))
    );
    connection
}

fn random_messages_harm_nobody() {
    let mut daemon = Daemon::start();
    let mut bad = daemon.client("speaks_at_random");
    let fd = daemon.socket.inner().raw();
    call::fcntl(fd, syscall::F_SETFL, syscall::O_NONBLOCK).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    let mut requests = 0;
    while Instant::now() < end {
        let mut sqe = Sqe::default();
        if call::read(fd, &mut sqe).is_err() {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        requests += 1;
        let oneway = [Opcode::CloseMsg, Opcode::Cancel, Opcode::Detach];
        if !oneway.iter().any(|opcode| *opcode as u8 == sqe.opcode) {
            daemon.answer(&sqe, u64::from(sqe.tag) % 7);
        }
    }
    assert!(requests > 1000, "only {requests} came through");
    call::fcntl(fd, syscall::F_SETFL, 0).unwrap();
    bad.kill();
    let good = daemon.client("calls_a_little");
    loop {
        let sqe = daemon.next();
        match Opcode::try_from_raw(sqe.opcode) {
            // What the bad one still has in the queue is answered to nobody.
            Some(Opcode::OpenAt) if common::text(&sqe) == "good" => daemon.answer(&sqe, 999),
            Some(Opcode::Call) => daemon.answer(&sqe, 0),
            Some(Opcode::CloseMsg) if sqe.args[0] == 999 => break,
            _ => {}
        }
    }
    good.finish();
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn speaks_at_random() {
    let mut random = Random(0x1234_5678_9abc_def1);
    loop {
        let connection = with_a_file_of_any_number();
        for request in 10..200 {
            let op = (random.next() % 30) as u32;
            let small = random.next() % 8;
            let mut args = [0; 6];
            for arg in &mut args {
                *arg = match random.next() % 4 {
                    0 => random.next(),
                    1 => (random.next() % 64) * PAGE as u64,
                    _ => random.next() % 16,
                };
            }
            let length = if random.next().is_multiple_of(3) {
                small as usize * 100
            } else {
                0
            };
            let bytes = message(op, request, small, args, &vec![b'x'; length]);
            if send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).is_err() {
                break;
            }
            while recv(
                connection.as_raw_fd(),
                &mut [0; 100],
                MsgFlags::MSG_DONTWAIT,
            )
            .is_ok_and(|length| length > 0)
            {}
        }
    }
}

fn with_a_file_of_any_number() -> OwnedFd {
    loop {
        let connection = raw_connection();
        let sent = send(connection.as_raw_fd(), &hello(), MsgFlags::MSG_NOSIGNAL);
        if sent.is_ok() && hears(&connection).is_some() {
            let bytes = message(OPEN, 5, 0, [0x3_0000, 0, 0, 0, 0, 0], b"/scheme/test/x");
            say(&connection, &bytes);
            if hears(&connection).is_some() {
                return connection;
            }
        }
    }
}

fn a_client_that_does_not_read_is_ended_and_nobody_waits() {
    let mut daemon = Daemon::start();
    let mut bad = daemon.client("never_reads");
    daemon.serve_open(20);
    let mut calls = 0;
    loop {
        let sqe = daemon.next();
        if sqe.opcode == Opcode::CloseMsg as u8 {
            break;
        }
        calls += 1;
        let started = Instant::now();
        daemon.answer(&sqe, 0);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert!(calls > 10);
    assert_eq!(bad.told(), "ended");
}

fn never_reads() {
    let connection = with_a_file();
    let mut request = 100;
    loop {
        request += 1;
        let bytes = message(READ, request, 3, [65536, 0, 0, 0, 0, 0], &[]);
        if send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).is_err() {
            common::tell_daemon("ended");
            return;
        }
    }
}

fn calls_in_flight_are_limited() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("calls_a_thousand_times");
    daemon.serve_open(20);
    let calls: Vec<_> = (0..1024).map(|_| daemon.expect(Opcode::Call)).collect();
    assert_eq!(daemon.told_by(&mut client), "refused");
    daemon.answer(&calls[0], 0);
    let one_more = daemon.expect(Opcode::Call);
    assert_eq!(one_more.args[3], 7);
    daemon.expect_close(20);
    client.finish();
}

fn calls_a_thousand_times() {
    let connection = with_a_file();
    let call = |request| message(CALL, request, 3, [0, 1 | 1 << 8, 0, 7, 0, 0], &[]);
    for request in 0..=1024 {
        say(&connection, &call(1000 + request));
    }
    assert_refused(&connection, 1000 + 1024);
    assert_eq!(
        hears(&connection).map(|reply| (reply.0, reply.1)),
        Some((1000, 0))
    );
    say(&connection, &call(3000));
}

/// Hears that `request` was one too many.
fn assert_refused(connection: &OwnedFd, request: u32) {
    let again = (libc::EAGAIN as u64).wrapping_neg();
    let heard = hears(connection).map(|reply| (reply.0, reply.1));
    assert_eq!(heard, Some((request, again)));
    common::tell_daemon("refused");
}

fn payloads_in_flight_are_limited() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("reads_a_lot");
    daemon.serve_open(20);
    let reads: Vec<_> = (0..64).map(|_| daemon.expect(Opcode::Read)).collect();
    assert_eq!(daemon.told_by(&mut client), "refused");
    daemon.answer(&reads[0], 0);
    daemon.expect(Opcode::Read);
    daemon.expect_close(20);
    client.finish();
}

fn reads_a_lot() {
    let connection = with_a_file();
    let read = |request| message(READ, request, 3, [65536, 0, 0, 0, 0, 0], &[]);
    for request in 0..=64 {
        say(&connection, &read(1000 + request));
    }
    assert_refused(&connection, 1064);
    assert_eq!(hears(&connection).map(|reply| reply.0), Some(1000));
    say(&connection, &read(3000));
}

fn a_slow_reader_gets_everything() {
    let mut daemon = Daemon::start();
    let client = daemon.client("reads_slowly");
    daemon.serve_open(20);
    for _ in 0..40 {
        let read = daemon.expect(Opcode::Read);
        common::payload(&read).fill(9);
        daemon.answer(&read, 65536);
    }
    daemon.finish(client);
}

fn reads_slowly() {
    let connection = with_a_file();
    for request in 0..40 {
        say(
            &connection,
            &message(READ, 100 + request, 3, [65536, 0, 0, 0, 0, 0], &[]),
        );
    }
    std::thread::sleep(Duration::from_millis(200));
    for request in 0..40 {
        let (number, result, length) = hears(&connection).unwrap();
        assert_eq!((number, result), (100 + request, 65536));
        assert_eq!(length, 65536 + 24);
    }
}

fn one_client_cannot_starve_another() {
    let mut daemon = Daemon::start();
    let _flood = daemon.client("floods");
    daemon.serve_open(20);
    let client = daemon.client("calls_a_little");
    let mut calls = [0, 0];
    loop {
        let sqe = daemon.next();
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => daemon.answer(&sqe, 21),
            Some(Opcode::Call) => {
                calls[(sqe.args[0] - 20) as usize] += 1;
                daemon.answer(&sqe, 0);
            }
            _ => break,
        }
    }
    assert_eq!(calls[1], 500);
    assert!(calls[0] > 0);
    client.finish();
}

fn floods() {
    let connection = with_a_file();
    let other = connection.try_clone().unwrap();
    std::thread::spawn(move || while hears(&other).is_some() {});
    let mut request = 100;
    loop {
        request += 1;
        let bytes = message(CALL, request, 3, [0, 1, 0, 0, 0, 0], &[]);
        if send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).is_err() {
            return;
        }
    }
}

fn calls_a_little() {
    let fd = open("good");
    for _ in 0..500 {
        call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
    }
}

fn a_second_connection_of_a_process_is_refused() {
    let mut daemon = Daemon::start();
    let client = daemon.client("connects_twice");
    daemon.serve_open(20);
    let call = daemon.expect(Opcode::Call);
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    client.finish();
}

fn connects_twice() {
    let fd = open("x");
    let second = raw_connection();
    let _ = send(second.as_raw_fd(), &hello(), MsgFlags::MSG_NOSIGNAL);
    assert!(hears(&second).is_none());
    call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
}

fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gem.sock");
    // A daemon that is killed leaves its socket behind.
    let mut first = common::Client::start("answers", &path);
    assert_eq!(first.told(), "serving");
    let error = hosted::start(Config::new(&path)).err().unwrap();
    assert!(matches!(error, StartError::InUse(_)));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    first.kill();
    assert!(path.exists());
    let second = hosted::start(Config::new(&path)).unwrap();
    drop(second);
    // What is no socket is not touched.
    std::fs::write(&path, "precious").unwrap();
    let error = hosted::start(Config::new(&path)).err().unwrap();
    assert!(matches!(error, StartError::Failed(..)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

fn answers() {
    let kernel = hosted::start(Config::new(std::env::var("GEM_SOCKET").unwrap())).unwrap();
    common::tell_daemon("serving");
    common::wait_for_daemon();
    drop(kernel);
}

fn the_socket_is_this_users_and_goes_with_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("run/gem");
    let path = own.join("gem.sock");
    let kernel = hosted::start(Config::new(&path)).unwrap();
    let mode = own.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(path.exists());
    drop(kernel);
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);
}

fn two_kernels_in_one_process_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = hosted::start(Config::new(directory.path().join("a"))).unwrap();
    let second = hosted::start(Config::new(directory.path().join("b")));
    assert!(matches!(second.err(), Some(StartError::AlreadyRunning)));
    drop(kernel);
    drop(hosted::start(Config::new(directory.path().join("b"))).unwrap());
}

fn who_finds_no_daemon_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    common::Client::start("finds_nobody", &directory.path().join("none.sock")).finish();
}

fn finds_nobody() {
    assert_eq!(errno(call::open("/scheme/test/x", 0, 0)), libc::ENODEV);
    assert_eq!(errno(call::close(3)), libc::EBADF);
    let error = client::connect().unwrap_err();
    assert_eq!(error.errno(), libc::ENODEV);
    let text = error.to_string();
    for hint in ["none.sock", "gemd", "GEM_SOCKET", "--socket"] {
        assert!(text.contains(hint), "{text}");
    }
    client::set_socket("/nowhere");
    assert_eq!(client::socket(), Path::new("/nowhere"));
}

fn files_do_not_pile_up() {
    let mut daemon = Daemon::start();
    let before = open_files();
    for _ in 0..20 {
        let client = daemon.client("comes_and_goes");
        daemon.serve_open(20);
        let (set, window) = daemon.object(1);
        let prepare = daemon.expect(Opcode::MmapPrep);
        daemon.answer(&prepare, window);
        let unmap = daemon.expect(Opcode::Munmap);
        daemon.answer(&unmap, 0);
        daemon.expect_close(20);
        daemon.finish(client);
        gem::pages::PageSource::free(&mut daemon.pages, gem::units::Uid(0), set);
    }
    // Whatever clients still leave behind goes with their end.
    daemon.kernel.idle(Duration::from_millis(20)).unwrap();
    assert_eq!(open_files(), before);
    assert_eq!(
        (daemon.pages.live_sets(), daemon.pages.open_files()),
        (0, 0)
    );
}

fn comes_and_goes() {
    let fd = open("x");
    let _parcel = client::to_parcel(fd).unwrap();
    let args = call::MmapArgs {
        addr: std::ptr::null_mut(),
        length: PAGE,
        prot: libc::PROT_READ as u32,
        flags: libc::MAP_SHARED as u32,
        fd,
        offset: 0,
    };
    // SAFETY: at any address.
    unsafe { call::mmap(args) }.unwrap();
}

fn replies_that_nobody_takes_hold_no_files() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(1);
    let before = open_files();
    let mut client = daemon.client("maps_and_never_reads");
    daemon.serve_open(20);
    // More than fit the client's socket, which holds the first of them.
    for _ in 0..2000 {
        let prepare = daemon.expect(Opcode::MmapPrep);
        daemon.answer(&prepare, window);
    }
    let files = open_files() - before;
    assert!(files < 20, "one client holds {files} files of the daemon");
    client.kill();
    gem::pages::PageSource::free(&mut daemon.pages, gem::units::Uid(0), set);
}

fn maps_and_never_reads() {
    let connection = with_a_file();
    let flags = (MapFlags::MAP_SHARED | MapFlags::PROT_READ).bits() as u64;
    for request in 100.. {
        let address = (1 << 30) + u64::from(request) * PAGE as u64;
        let args = [address, PAGE as u64, flags, 0, 0, 0];
        let bytes = message(MMAP, request, 3, args, &[]);
        if send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).is_err() {
            return;
        }
    }
}

fn parcels_are_limited() {
    let mut daemon = Daemon::start();
    let client = daemon.client("makes_parcels");
    daemon.serve_open(20);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn makes_parcels() {
    let fd = open("x");
    let mut parcels = Vec::new();
    let refused = loop {
        match client::to_parcel(fd) {
            Ok(parcel) => parcels.push(parcel),
            Err(error) => break error.errno,
        }
    };
    assert_eq!(refused, libc::ENFILE);
    assert!(parcels.len() > 10);
    parcels.truncate(1);
    // A closed parcel makes room, as soon as the kernel has seen it.
    while client::to_parcel(fd).is_err() {}
}

fn killed_clients_leave_nothing() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(4);
    let before = open_files();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut live = std::collections::HashSet::new();
    let mut last_id = 1000;
    for _ in 0..60 {
        let mut clients = [0, 1].map(|_| daemon.client("lives_dangerously"));
        let end = Instant::now() + Duration::from_micros(5_000 + random.next() % 40_000);
        let mut killed = false;
        loop {
            if !killed && Instant::now() > end {
                clients.iter_mut().for_each(common::Client::kill);
                killed = true;
            }
            let Some(sqe) = daemon.next_within(Duration::from_millis(20)) else {
                if killed {
                    break;
                }
                continue;
            };
            match Opcode::try_from_raw(sqe.opcode) {
                Some(Opcode::OpenAt | Opcode::Dup) => {
                    last_id += 1;
                    live.insert(last_id);
                    daemon.answer(&sqe, last_id);
                }
                Some(Opcode::MmapPrep) => daemon.answer(&sqe, window),
                Some(Opcode::CloseMsg) => assert!(live.remove(&sqe.args[0]), "closed twice"),
                _ => daemon.answer(&sqe, 0),
            }
        }
    }
    assert!(last_id > 1300, "too few files were opened to say anything");
    assert_eq!(live.len(), 0, "every file was closed");
    assert_eq!(open_files(), before);
}

/// How many files this process has open, but for what a thread reads now and then: how much memory
/// the machine has left.
fn open_files() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let looked_at =
        |path: &std::path::PathBuf| path.starts_with("/proc") || path.starts_with("/sys");
    targets.filter(|path| !looked_at(path)).count()
}

fn lives_dangerously() {
    loop {
        let fd = open("x");
        let named = call::dup(fd, b"handle/1").unwrap();
        let parcel = client::to_parcel(named).unwrap();
        let args = call::MmapArgs {
            addr: std::ptr::null_mut(),
            length: 4 * PAGE,
            prot: libc::PROT_READ as u32,
            flags: libc::MAP_SHARED as u32,
            fd: named,
            offset: 0,
        };
        // SAFETY: at any address.
        let address = unsafe { call::mmap(args) }.unwrap();
        call::close(named).unwrap();
        call::call_rw(fd, &mut [0; 3000], CallFlags::empty(), &[1]).unwrap();
        let again = client::from_parcel(parcel).unwrap();
        // SAFETY: the middle of a mapping that nobody uses.
        unsafe { call::munmap(address.wrapping_byte_add(PAGE), PAGE) }.unwrap();
        // SAFETY: the same mapping.
        unsafe { call::munmap(address, 4 * PAGE) }.unwrap();
        call::close(again).unwrap();
        call::close(fd).unwrap();
    }
}

fn only_a_fresh_userfaultfd_stands_for_an_address_space() {
    let daemon = Daemon::start();
    let client = daemon.client("offers_other_files");
    daemon.finish(client);
}

fn offers_other_files() {
    let connection = greeted();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    // In the answer's lower half, as an errno.
    let refused = i64::from(libc::EINVAL).wrapping_neg() as u64;
    for file in [&null, &reader, &connection] {
        assert_eq!(offer(&connection, file), refused);
    }
    let file = userfaultfd();
    assert_eq!(offer(&connection, &file), 3);
    assert_eq!(offer(&connection, &file), refused, "it is in use");
}

fn userfaultfd() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the call makes a file, which is then owned here alone.
    unsafe {
        let flags = libc::O_CLOEXEC | 1;
        let made = libc::syscall(libc::SYS_userfaultfd, flags);
        assert!(made >= 0);
        OwnedFd::from_raw_fd(made as i32)
    }
}

fn offer(connection: &OwnedFd, file: &OwnedFd) -> u64 {
    let bytes = message(OFFER_SPACE, 9, 0, [0; 6], &[]);
    let part = [IoSlice::new(&bytes)];
    let fds = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::empty();
    sendmsg::<()>(connection.as_raw_fd(), &part, &rights, flags, None).unwrap();
    let (request, result, _) = hears(connection).expect("an answer");
    assert_eq!(request, 9);
    result
}

fn address_spaces_are_limited() {
    let daemon = Daemon::start();
    let greedy = daemon.client("offers_very_many");
    let mut greedy = greedy;
    assert_eq!(daemon.told_by(&mut greedy), "refused");
    // Others have room.
    let other = daemon.client("offers_other_files");
    daemon.finish(other);
    greedy.go();
    daemon.finish(greedy);
}

fn offers_very_many() {
    let connection = greeted();
    let refused = i64::from(libc::ENFILE).wrapping_neg() as u64;
    let count = (0..1_000_000).take_while(|_| offer(&connection, &userfaultfd()) != refused);
    assert!(count.count() > 10);
    common::tell_daemon("refused");
    common::wait_for_daemon();
}
