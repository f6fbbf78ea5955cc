//! Clients that speak nonsense, clients that do not listen, and sockets that are taken.

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod raw;
mod sockets;

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Daemon, PAGE, entries, open};
use hosted::client;
use libredox::call;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg};
use syscall::flag::CallFlags;
use syscall::schemev2::{Opcode, Sqe};

use limits::*;
use raw::*;
use sockets::*;

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
