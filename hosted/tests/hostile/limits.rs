//! Clients that ask for too much, or do not listen.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hosted::client;
use libredox::call;
use nix::sys::socket::{MsgFlags, send};
use syscall::flag::{CallFlags, MapFlags};
use syscall::schemev2::Opcode;

use super::common::{self, Daemon, PAGE, open};
use super::raw::*;

pub fn a_client_that_does_not_read_is_ended_and_nobody_waits() {
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

pub fn never_reads() {
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

pub fn calls_in_flight_are_limited() {
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

pub fn calls_a_thousand_times() {
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

pub fn payloads_in_flight_are_limited() {
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

pub fn reads_a_lot() {
    let connection = with_a_file();
    let read = |request| message(READ, request, 3, [65536, 0, 0, 0, 0, 0], &[]);
    for request in 0..=64 {
        say(&connection, &read(1000 + request));
    }
    assert_refused(&connection, 1064);
    assert_eq!(hears(&connection).map(|reply| reply.0), Some(1000));
    say(&connection, &read(3000));
}

pub fn a_slow_reader_gets_everything() {
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

pub fn reads_slowly() {
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

pub fn one_client_cannot_starve_another() {
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

pub fn floods() {
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

pub fn calls_a_little() {
    let fd = open("good");
    for _ in 0..500 {
        call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
    }
}

pub fn files_do_not_pile_up() {
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

pub fn comes_and_goes() {
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

pub fn replies_that_nobody_takes_hold_no_files() {
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

pub fn maps_and_never_reads() {
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

pub fn parcels_are_limited() {
    let mut daemon = Daemon::start();
    let client = daemon.client("makes_parcels");
    daemon.serve_open(20);
    daemon.expect_close(20);
    daemon.finish(client);
}

pub fn makes_parcels() {
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

pub fn address_spaces_are_limited() {
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

pub fn offers_very_many() {
    let connection = greeted();
    let refused = i64::from(libc::ENFILE).wrapping_neg() as u64;
    let count = (0..1_000_000).take_while(|_| offer(&connection, &userfaultfd()) != refused);
    assert!(count.count() > 10);
    common::tell_daemon("refused");
    common::wait_for_daemon();
}
