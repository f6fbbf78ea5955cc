//! Opens, calls, reads and writes: what a scheme sees of them, and what a client gets back.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{Daemon, MANAGER, ROOT, entries, errno, open, payload, regular, text};
use libredox::call;
use redox_scheme::Socket;
use redox_scheme::scheme::register_scheme_inner;
use syscall::flag::{self as redox, CallFlags};
use syscall::schemev2::{Cqe, CqeOpcode, NewFdFlags, Opcode, SqeFlags};

fn main() -> ExitCode {
    common::main(
        entries![
            an_open_by_path_comes_from_the_name_space_manager,
            a_payload_goes_there_and_comes_back,
            a_two_fd_call_carries_both_ids,
            another_schemes_fd_is_exdev,
            the_kernel_keeps_offsets_where_the_scheme_wants_it,
            dup_and_close,
            a_standard_call_is_one_for_libredox_and_another_for_old_programs,
            a_file_can_be_sent_to_a_scheme,
            a_scheme_can_answer_with_a_file,
            fcntl_is_the_schemes_and_then_the_kernels,
            a_bad_completion_stops_its_batch,
            errors_are_translated,
            a_read_returns_as_many_requests_as_there_are,
            another_thread_can_kick_the_daemon,
            a_closed_scheme_is_enodev,
            what_is_not_there_has_an_errno,
        ],
        entries![
            opens,
            calls,
            calls_with_two,
            crosses_schemes,
            reads,
            dups,
            asks_for_status,
            sends,
            opens_elsewhere,
            sets_flags,
            calls_once,
            gets_errors,
            opens_and_waits,
            outlives_the_scheme,
            asks_for_nothing,
        ],
    )
}

fn an_open_by_path_comes_from_the_name_space_manager() {
    let mut daemon = Daemon::start();
    let client = daemon.client("opens");
    let open = daemon.expect(Opcode::OpenAt);
    assert_eq!(text(&open), "some/where");
    let flags = redox::O_RDWR | redox::O_CREAT | 0x0100_0000 | 0o644;
    assert_eq!(
        [open.args[0], open.args[3], open.args[4]],
        [ROOT, flags as u64, 0]
    );
    assert_eq!((open.caller, open.args[5]), (MANAGER, 0));
    daemon.answer(&open, 20);

    let below = daemon.expect(Opcode::OpenAt);
    assert_eq!(text(&below), "");
    assert_eq!(below.args[1], 1 << 62);
    let flags = (redox::O_RDONLY | redox::O_NONBLOCK) as u64;
    assert_eq!([below.args[0], below.args[3]], [20, flags]);
    assert_eq!(below.args[4], redox::O_NONBLOCK as u64);
    assert_eq!(below.caller, client.pid());
    daemon.fail(&below, libc::ENOENT);

    let raw = daemon.expect(Opcode::OpenAt);
    assert_eq!([raw.args[3], raw.args[4]], [0x1234, 0x5678]);
    daemon.fail(&raw, libc::EINVAL);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn opens() {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    let fd = call::open("/scheme/test/some/where", flags, 0o644).unwrap();
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let below = call::openat(fd, "", flags, libc::O_NONBLOCK as u32);
    assert_eq!(errno(below), libc::ENOENT);
    let raw = hosted::client::syscalls::openat(fd, "x", 0x1234, 0x5678);
    assert_eq!(raw.unwrap_err().errno, libc::EINVAL);
    assert_eq!(errno(call::open("/scheme/none/x", 0, 0)), libc::ENODEV);
    assert_eq!(
        errno(call::open("/scheme/test/x", libc::O_DIRECT, 0)),
        libc::EINVAL
    );
    let long = format!("/scheme/test/{}", "x".repeat(5000));
    assert_eq!(errno(call::open(long, 0, 0)), libc::ENAMETOOLONG);
    assert_eq!(errno(call::openat(fd, [0xff, 0xfe], 0, 0)), libc::EINVAL);
    call::close(fd).unwrap();
    assert_eq!(errno(call::close(fd)), libc::EBADF);
}

fn a_payload_goes_there_and_comes_back() {
    let mut daemon = Daemon::start();
    let client = daemon.client("calls");
    daemon.serve_open(20);
    for length in [0, 1, 100, 4096, 65536] {
        let call = daemon.expect(Opcode::Call);
        assert_eq!([call.args[0], call.args[2]], [20, length]);
        assert_eq!(call.args[3..], [7, 8, 9]);
        assert_eq!(call.caller, client.pid());
        assert_eq!(call.sqe_flags.bits(), 0);
        if length == 0 {
            assert_eq!(call.args[1], 1 << 62);
        } else {
            assert_eq!(call.args[1] % 8, 0);
        }
        payload(&call)
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_mul(3));
        daemon.answer(&call, length + 5);
    }
    let failed = daemon.expect(Opcode::Call);
    payload(&failed).fill(0xee);
    daemon.fail(&failed, libc::ENOSPC);
    let written = daemon.expect(Opcode::Call);
    assert_eq!(written.args[3..], [1, 0, 0]);
    daemon.answer(&written, 0);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn calls() {
    let fd = open("x");
    for length in [0, 1, 100, 4096, 65536] {
        let mut bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let result = call::call_rw(fd, &mut bytes, CallFlags::empty(), &[7, 8, 9, 10]);
        assert_eq!(result.unwrap(), length + 5);
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(index, byte)| *byte == (index as u8).wrapping_mul(3))
        );
    }
    let mut bytes = [1; 8];
    let failed = call::call_rw(fd, &mut bytes, CallFlags::empty(), &[7, 8, 9]);
    assert_eq!(errno(failed), libc::ENOSPC);
    assert_eq!(bytes, [0xee; 8], "a payload comes back with an error, too");
    static CONSTANT: [u8; 16] = [5; 16];
    call::call_wo(fd, &CONSTANT, CallFlags::empty(), &[1]).unwrap();
    let too_long = call::call_wo(fd, &[0; 65537], CallFlags::empty(), &[]);
    assert_eq!(errno(too_long), libc::EMSGSIZE);
    let unknown = CallFlags::from_bits_retain(1 << 40);
    assert_eq!(errno(call::call_wo(fd, &[], unknown, &[])), libc::EINVAL);
}

fn a_two_fd_call_carries_both_ids() {
    let mut daemon = Daemon::start();
    let client = daemon.client("calls_with_two");
    daemon.serve_open(20);
    daemon.serve_open(21);
    let call = daemon.expect(Opcode::Call);
    assert!(call.sqe_flags.contains(SqeFlags::MULTIPLE_IDS));
    assert_eq!(call.args[0], 20);
    assert_eq!(call.args[3..], [7, 8, 21]);
    daemon.answer(&call, 1);
    let consumed = daemon.expect(Opcode::Call);
    assert_eq!([consumed.args[0], consumed.args[5]], [20, 21]);
    daemon.answer(&consumed, 2);
    // A call that takes its files away is their scheme's only notice.
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.finish(client);
}

fn calls_with_two() {
    let (node, object) = (open("node"), open("object"));
    let fds = [node, object];
    let both = fds.as_slice();
    assert_eq!(
        call::call_rw(both, &mut [], CallFlags::empty(), &[7, 8, 9]).unwrap(),
        1
    );
    let none: &[usize] = &[];
    assert_eq!(
        errno(call::call_rw(none, &mut [], CallFlags::empty(), &[])),
        libc::EINVAL
    );
    let three: &[usize] = &[node, object, node];
    assert_eq!(
        errno(call::call_rw(three, &mut [], CallFlags::empty(), &[])),
        libc::EINVAL
    );
    let closed: &[usize] = &[node, 77];
    assert_eq!(
        errno(call::call_rw(closed, &mut [], CallFlags::empty(), &[])),
        libc::EBADF
    );
    assert_eq!(
        call::call_rw(both, &mut [], CallFlags::CONSUME, &[]).unwrap(),
        2
    );
    assert_eq!(errno(call::close(node)), libc::EBADF);
    assert_eq!(errno(call::close(object)), libc::EBADF);
}

fn another_schemes_fd_is_exdev() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("crosses_schemes");
    daemon.serve_open(20);
    // A second scheme, with a thread of its own that sleeps in its read.
    let other = Socket::create().unwrap();
    register_scheme_inner(&other, "other", 1).unwrap();
    let reader = std::thread::spawn(move || {
        let mut sqe = syscall::schemev2::Sqe::default();
        assert_eq!(call::read(other.inner().raw(), &mut sqe).unwrap(), 64);
        assert_eq!(sqe.opcode, Opcode::OpenAt as u8);
        call::write(other.inner().raw(), &regular(sqe.tag, 5)).unwrap();
        assert_eq!(call::read(other.inner().raw(), &mut sqe).unwrap(), 64);
        assert_eq!((sqe.opcode, sqe.args[0]), (Opcode::CloseMsg as u8, 5));
    });
    client.go();
    let call = daemon.expect(Opcode::Call);
    assert_eq!(call.args[3], 3);
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    reader.join().unwrap();
    daemon.finish(client);
}

fn crosses_schemes() {
    let fd = open("x");
    common::wait_for_daemon();
    let other = call::open("/scheme/other/y", libc::O_RDWR, 0).unwrap();
    let fds = [fd, other];
    let crossed = call::call_rw(fds.as_slice(), &mut [], CallFlags::empty(), &[]);
    assert_eq!(errno(crossed), libc::EXDEV);
    call::call_rw(fd, &mut [], CallFlags::empty(), &[3]).unwrap();
}

fn the_kernel_keeps_offsets_where_the_scheme_wants_it() {
    let mut daemon = Daemon::start();
    let client = daemon.client("reads");
    let positioned = daemon.expect(Opcode::OpenAt);
    let mut answer = regular(positioned.tag, 20);
    answer.extra_raw = [NewFdFlags::POSITIONED.bits(), 0, 0];
    daemon.write(&[answer]).unwrap();
    daemon.serve_open(21);

    let flags = redox::O_RDWR as u64;
    for offset in [0, 3] {
        let read = daemon.expect(Opcode::Read);
        assert_eq!(
            [read.args[0], read.args[2], read.args[3], read.args[4]],
            [20, 10, offset, flags]
        );
        payload(&read)[..3].copy_from_slice(b"abc");
        daemon.answer(&read, 3);
    }
    let write = daemon.expect(Opcode::Write);
    assert_eq!((write.args[3], text(&write).as_str()), (6, "hello"));
    daemon.answer(&write, 5);
    let explicit = daemon.expect(Opcode::Read);
    assert_eq!([explicit.args[3], explicit.args[4]], [1000, 7]);
    daemon.answer(&explicit, 0);
    let size = daemon.expect(Opcode::Fsize);
    daemon.answer(&size, 100);
    let read = daemon.expect(Opcode::Read);
    assert_eq!(read.args[3], 98);
    daemon.answer(&read, 0);

    let unpositioned = daemon.expect(Opcode::Read);
    assert_eq!([unpositioned.args[0], unpositioned.args[3]], [21, u64::MAX]);
    daemon.answer(&unpositioned, 4);
    let again = daemon.expect(Opcode::Read);
    assert_eq!(again.args[3], u64::MAX);
    daemon.fail(&again, libc::EIO);
    daemon.expect_close(20);
    daemon.expect_close(21);
    daemon.finish(client);
}

fn reads() {
    use hosted::client::syscalls::{lseek, read_at};
    let (positioned, other) = (open("p"), open("o"));
    for _ in 0..2 {
        let mut bytes = [0; 10];
        assert_eq!(call::read(positioned, &mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], b"abc");
    }
    assert_eq!(call::write(positioned, b"hello").unwrap(), 5);
    assert_eq!(lseek(positioned, 0, redox::SEEK_CUR).unwrap(), 11);
    assert_eq!(read_at(positioned, &mut [0; 4], 1000, 7).unwrap(), 0);
    assert_eq!(lseek(positioned, 0, redox::SEEK_CUR).unwrap(), 11);
    assert_eq!(lseek(positioned, -2, redox::SEEK_END).unwrap(), 98);
    assert_eq!(
        lseek(positioned, -1, redox::SEEK_SET).unwrap_err().errno,
        libc::EINVAL
    );
    assert_eq!(call::read(positioned, &mut [0; 4]).unwrap(), 0);
    assert_eq!(call::read(other, &mut [0; 4]).unwrap(), 4);
    assert_eq!(errno(call::read(other, &mut [0; 4])), libc::EIO);
    call::close(positioned).unwrap();
}

fn dup_and_close() {
    let mut daemon = Daemon::start();
    let client = daemon.client("dups");
    daemon.serve_open(20);
    let dup = daemon.expect(Opcode::Dup);
    assert_eq!(
        (dup.args[0], text(&dup).as_str(), dup.caller),
        (20, "handle/7", client.pid())
    );
    daemon.answer(&dup, 21);
    let refused = daemon.expect(Opcode::Dup);
    daemon.fail(&refused, libc::ENOENT);
    // Both descriptors of 20 are closed, then 21 is replaced.
    daemon.expect_close(20);
    let again = daemon.expect(Opcode::Dup);
    daemon.answer(&again, 22);
    daemon.expect_close(21);
    daemon.expect_close(22);
    daemon.finish(client);
}

fn dups() {
    let fd = open("x");
    assert_eq!(fd, 3, "the lowest number that is free");
    let same = call::dup(fd, b"").unwrap();
    assert_eq!(same, 4);
    let named = call::dup(fd, b"handle/7").unwrap();
    assert_eq!(named, 5);
    assert_eq!(errno(call::dup(fd, b"handle/8")), libc::ENOENT);
    assert_eq!(call::dup2(fd, fd, b"").unwrap(), fd);
    assert_eq!(errno(call::dup2(99, 99, b"")), libc::EBADF);
    call::close(fd).unwrap();
    call::close(same).unwrap();
    assert_eq!(call::dup2(named, named, b"other").unwrap(), named);
    call::close(named).unwrap();
}

fn a_standard_call_is_one_for_libredox_and_another_for_old_programs() {
    let mut daemon = Daemon::start();
    let client = daemon.client("asks_for_status");
    daemon.serve_open(20);
    let stat = daemon.expect(Opcode::StdFsCall);
    assert_eq!(
        [stat.args[0], stat.args[3]],
        [20, redox::StdFsCallKind::Fstat as u64]
    );
    assert_eq!(stat.args[2], size_of::<syscall::data::Stat>() as u64);
    let mut filled = syscall::data::Stat {
        st_size: 12345,
        st_ino: 99,
        st_mode: redox::MODE_FILE | 0o600,
        ..Default::default()
    };
    payload(&stat).copy_from_slice(&filled);
    daemon.answer(&stat, 0);

    for (kind, argument) in [
        (redox::StdFsCallKind::Fsync, 0),
        (redox::StdFsCallKind::Ftruncate, 77),
        (redox::StdFsCallKind::Fchmod, 0o640),
    ] {
        let call = daemon.expect(Opcode::StdFsCall);
        assert_eq!(call.args[3..], [kind as u64, argument, 0]);
        daemon.answer(&call, 0);
    }
    let entries = daemon.expect(Opcode::StdFsCall);
    assert_eq!(
        entries.args[2..],
        [100, redox::StdFsCallKind::Getdents as u64, 5, 19]
    );
    daemon.fail(&entries, libc::ENOTDIR);

    let old = daemon.expect(Opcode::Fstat);
    filled.st_size = 1;
    payload(&old).copy_from_slice(&filled);
    daemon.answer(&old, 0);
    let short = daemon.expect(Opcode::Fstat);
    assert_eq!(short.args[2], 1);
    daemon.answer(&short, 0);
    let old = daemon.expect(Opcode::Fsync);
    daemon.answer(&old, 5);
    let path = daemon.expect(Opcode::Fpath);
    payload(&path)[..4].copy_from_slice(b"/a/b");
    daemon.answer(&path, 4);
    let owner = daemon.expect(Opcode::Fchown);
    assert_eq!(owner.args[..3], [20, 5, 6]);
    daemon.answer(&owner, 0);
    // A file on which the scheme wants to hear of every descriptor that is closed.
    let lock = daemon.expect(Opcode::StdFsCall);
    let mut answer = regular(lock.tag, 0);
    answer.flags = CqeOpcode::RespondAndNotifyOnDetach as u8;
    daemon.write(&[answer]).unwrap();
    let detach = daemon.expect(Opcode::Detach);
    assert_eq!((detach.args[0], detach.caller), (20, client.pid()));
    daemon.expect_close(20);
    daemon.finish(client);
}

fn asks_for_status() {
    use hosted::client::syscalls;
    let fd = open("x");
    let stat = call::fstat(fd).unwrap();
    assert_eq!(
        (stat.st_size, stat.st_ino, stat.st_mode),
        (12345, 99, 0o100_600)
    );
    call::fsync(fd).unwrap();
    call::ftruncate(fd, 77).unwrap();
    call::fchmod(fd, 0o640).unwrap();
    assert_eq!(errno(call::getdents(fd, &mut [0; 100], 5)), libc::ENOTDIR);
    let mut old = syscall::data::Stat::default();
    assert_eq!(syscalls::fstat(fd, &mut old).unwrap(), 0);
    assert_eq!(
        (old.st_size, old.st_dev),
        (1, 17),
        "the kernel fills in the scheme"
    );
    assert_eq!(syscalls::fstat(fd, &mut [0]).unwrap_err().errno, libc::EIO);
    assert_eq!(syscalls::fsync(fd).unwrap(), 0);
    let mut path = [0; 20];
    assert_eq!(call::fpath(fd, &mut path).unwrap(), 4);
    assert_eq!(&path[..4], b"/a/b");
    call::fchown(fd, 5, 6).unwrap();
    let lock = [redox::StdFsCallKind::Lock as u64, 0, 0];
    call::call_wo(fd, &[], CallFlags::STD_FS, &lock).unwrap();
    assert_eq!(
        errno(call::call_wo(fd, &[], CallFlags::STD_FS, &[1])),
        libc::EINVAL
    );
    assert_eq!(
        errno(call::call_wo(fd, &[], CallFlags::STD_FS, &[200, 0, 0])),
        libc::EOPNOTSUPP
    );
}

fn a_file_can_be_sent_to_a_scheme() {
    let mut daemon = Daemon::start();
    let client = daemon.client("sends");
    daemon.serve_open(20);
    daemon.serve_open(21);
    let sent = daemon.expect(Opcode::Sendfd);
    assert_eq!(sent.args[..4], [20, 0, 9, 1]);
    assert_eq!(sent.caller, client.pid());
    let mut slot = usize::MAX.to_ne_bytes();
    let words = [redox::SchemeSocketCall::ObtainFd as u64, sent.tag.into()];
    daemon
        .socket
        .inner()
        .call_ro(&mut slot, CallFlags::FD, &words)
        .unwrap();
    let received = usize::from_ne_bytes(slot);
    daemon.answer(&sent, 0);
    // The client's descriptor is gone, the daemon's keeps the file.
    let done = daemon.expect(Opcode::Call);
    call::close(received).unwrap();
    daemon.expect_close(21);
    daemon.answer(&done, 0);

    // What the daemon does not fetch is closed when it answers.
    daemon.serve_open(22);
    let ignored = daemon.expect(Opcode::Sendfd);
    daemon.fail(&ignored, libc::EOPNOTSUPP);
    daemon.expect_close(22);
    let kept = daemon.expect(Opcode::Sendfd);
    let words = [redox::SchemeSocketCall::ObtainFd as u64, 12345];
    let unknown = daemon
        .socket
        .inner()
        .call_ro(&mut slot, CallFlags::FD, &words);
    assert_eq!(errno(unknown), libc::EINVAL);
    daemon.answer(&kept, 0);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn sends() {
    let (fd, other) = (open("x"), open("y"));
    let bytes = other.to_ne_bytes();
    assert_eq!(call::call_wo(fd, &bytes, CallFlags::FD, &[9]).unwrap(), 1);
    assert_eq!(errno(call::close(other)), libc::EBADF);
    call::call_wo(fd, &[], CallFlags::empty(), &[]).unwrap();
    let third = open("z").to_ne_bytes();
    assert_eq!(
        errno(call::call_wo(fd, &third, CallFlags::FD, &[])),
        libc::EOPNOTSUPP
    );
    let itself = fd.to_ne_bytes();
    call::call_wo(fd, &itself, CallFlags::FD | CallFlags::FD_CLONE, &[]).unwrap();
    let busy = CallFlags::FD | CallFlags::FD_CLONE | CallFlags::FD_EXCLUSIVE;
    assert_eq!(errno(call::call_wo(fd, &itself, busy, &[])), libc::EBUSY);
    assert_eq!(
        errno(call::call_wo(fd, &[9; 8], CallFlags::FD, &[])),
        libc::EBADF
    );
}

fn a_scheme_can_answer_with_a_file() {
    let mut daemon = Daemon::start();
    let client = daemon.client("opens_elsewhere");
    let own = daemon
        .socket
        .create_this_scheme_fd(0, 44, redox::O_RDONLY, 0)
        .unwrap();
    let open = daemon.expect(Opcode::OpenAt);
    let mut answer = regular(open.tag, own as u64);
    answer.flags = CqeOpcode::RespondWithFd as u8;
    assert_eq!(daemon.write(&[answer]), Ok(1));
    assert_eq!(
        errno(call::close(own)),
        libc::EBADF,
        "the descriptor went to the client"
    );
    let read = daemon.expect(Opcode::Read);
    assert_eq!([read.args[0], read.args[4]], [44, redox::O_RDONLY as u64]);
    daemon.answer(&read, 0);

    let own = daemon.socket.create_this_scheme_fd(0, 45, 0, 0).unwrap();
    let receive = daemon.expect(Opcode::Recvfd);
    assert_eq!(receive.args[..5], [44, 0, 1, 6, 7]);
    let words = [redox::SchemeSocketCall::MoveFd as u64, receive.tag.into()];
    daemon
        .socket
        .inner()
        .call_wo(&own.to_ne_bytes(), CallFlags::FD, &words)
        .unwrap();
    let mut answer = regular(receive.tag, 1);
    answer.flags = CqeOpcode::RespondWithMultipleFds as u8;
    assert_eq!(daemon.write(&[answer]), Ok(1));
    daemon.expect_close(44);
    daemon.expect_close(45);
    daemon.finish(client);
}

fn opens_elsewhere() {
    let fd = open("x");
    call::read(fd, &mut [0; 4]).unwrap();
    let mut slot = usize::MAX.to_ne_bytes();
    assert_eq!(
        call::call_ro(fd, &mut slot, CallFlags::FD, &[6, 7]).unwrap(),
        1
    );
    assert_eq!(usize::from_ne_bytes(slot), 4);
    call::close(fd).unwrap();
    call::close(4).unwrap();
}

fn fcntl_is_the_schemes_and_then_the_kernels() {
    let mut daemon = Daemon::start();
    let client = daemon.client("sets_flags");
    daemon.serve_open(20);
    let get = daemon.expect(Opcode::Fcntl);
    assert_eq!(get.args[..3], [20, redox::F_GETFL as u64, 0]);
    daemon.answer(&get, 0);
    let set = daemon.expect(Opcode::Fcntl);
    assert_eq!(
        set.args[..3],
        [20, redox::F_SETFL as u64, redox::O_NONBLOCK as u64]
    );
    daemon.answer(&set, 0);
    let get = daemon.expect(Opcode::Fcntl);
    daemon.answer(&get, 0);
    let refused = daemon.expect(Opcode::Fcntl);
    daemon.fail(&refused, libc::EOPNOTSUPP);
    let unknown = daemon.expect(Opcode::Fcntl);
    daemon.answer(&unknown, 0);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn sets_flags() {
    let fd = open("x");
    assert_eq!(call::fcntl(fd, redox::F_GETFL, 0).unwrap(), redox::O_RDWR);
    call::fcntl(fd, redox::F_SETFL, libc::O_NONBLOCK as usize).unwrap();
    let flags = redox::O_RDWR | redox::O_NONBLOCK;
    assert_eq!(call::fcntl(fd, redox::F_GETFL, 0).unwrap(), flags);
    assert_eq!(errno(call::fcntl(fd, redox::F_GETFL, 0)), libc::EOPNOTSUPP);
    assert_eq!(errno(call::fcntl(fd, 99, 0)), libc::EINVAL);
    assert_eq!(call::fcntl(fd, redox::F_GETFD, 0).unwrap(), 0);
    assert_eq!(call::fcntl(fd, redox::F_DUPFD, 20).unwrap(), 20);
}

fn a_bad_completion_stops_its_batch() {
    let mut daemon = Daemon::start();
    let mut clients = Vec::new();
    for id in 20..23 {
        clients.push(daemon.client("calls_once"));
        daemon.serve_open(id);
        daemon.expect(Opcode::Call);
    }
    drop(clients);
    let unknown = regular(500, 0);
    assert_eq!(daemon.write(&[unknown]), Err(libc::EBADFD));
    let mut nonsense = regular(0, 0);
    nonsense.flags = 7;
    assert_eq!(daemon.write(&[nonsense]), Err(libc::EINVAL));
    let mut no_file = regular(0, 999);
    no_file.flags = CqeOpcode::RespondWithFd as u8;
    assert_eq!(daemon.write(&[no_file]), Err(libc::EINVAL));
    let mut nobody_sent = regular(0, 5);
    nobody_sent.flags = CqeOpcode::ObtainFd as u8;
    assert_eq!(daemon.write(&[nobody_sent]), Err(libc::ENOENT));
    let event = |tag| Cqe {
        flags: CqeOpcode::SendFevent as u8,
        extra_raw: [0; 3],
        tag,
        result: 20,
    };
    assert_eq!(daemon.write(&[event(1)]), Ok(1));
    assert_eq!(daemon.write(&[event(4)]), Err(libc::EINVAL));
    // The calls that wait have the tags 0, 1 and 2: each was the tag of the open before it.
    assert_eq!(
        daemon.write(&[regular(0, 0), unknown, regular(1, 0)]),
        Ok(1)
    );
    assert_eq!(daemon.write(&[unknown, regular(1, 0)]), Err(libc::EBADFD));
    assert_eq!(daemon.write(&[regular(1, 0), regular(2, 0)]), Ok(2));
    assert_eq!(daemon.write(&[regular(1, 0)]), Err(libc::EBADFD));
    assert_eq!(daemon.write(&[]), Ok(0));
}

fn calls_once() {
    let fd = open("x");
    call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
}

fn errors_are_translated() {
    let mut daemon = Daemon::start();
    let client = daemon.client("gets_errors");
    daemon.serve_open(20);
    for errno in [libc::EINTR, libc::ECANCELED, libc::EACCES] {
        let call = daemon.expect(Opcode::Call);
        daemon.fail(&call, errno);
    }
    // As in the kernel, only the lower half decides whether a result is an errno.
    let call = daemon.expect(Opcode::Call);
    daemon.answer(&call, 5 << 32 | 0xffff_fffe);
    let call = daemon.expect(Opcode::Call);
    daemon.answer(&call, 5 << 32 | 0x7fff_ffff);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn gets_errors() {
    let fd = open("x");
    let call = || call::call_rw(fd, &mut [], CallFlags::empty(), &[]);
    assert_eq!(errno(call()), libc::EIO, "EINTR that no signal caused");
    assert_eq!(errno(call()), libc::ECANCELED);
    assert_eq!(errno(call()), libc::EACCES);
    assert_eq!(errno(call()), libc::ENOENT);
    assert_eq!(call().unwrap(), 5 << 32 | 0x7fff_ffff);
}

fn a_read_returns_as_many_requests_as_there_are() {
    let mut daemon = Daemon::start();
    let fd = daemon.socket.inner().raw();
    call::fcntl(fd, redox::F_SETFL, redox::O_NONBLOCK).unwrap();
    assert_eq!(errno(call::read(fd, &mut [0; 64])), libc::EAGAIN);
    assert_eq!(errno(call::read(fd, &mut [0; 63])), libc::EINVAL);
    call::fcntl(fd, redox::F_SETFL, 0).unwrap();
    let mut client = daemon.client("opens_and_waits");
    for id in 20..23 {
        daemon.serve_open(id);
    }
    assert_eq!(client.told(), "open");
    client.kill();
    let mut buffer = [0; 130];
    assert_eq!(call::read(fd, &mut buffer).unwrap(), 128);
    assert_eq!(call::read(fd, &mut buffer).unwrap(), 64);
}

fn opens_and_waits() {
    let _fds = [open("x"), open("y"), open("z")];
    common::tell_daemon("open");
    common::wait_for_daemon();
}

fn another_thread_can_kick_the_daemon() {
    let mut daemon = Daemon::start();
    let control = daemon.socket.create_this_scheme_fd(0, 7, 0, 0).unwrap();
    let thread = std::thread::spawn(move || {
        for word in 0..100 {
            let result = call::call_rw(control, &mut [], CallFlags::empty(), &[word]);
            assert_eq!(result.unwrap(), word as usize + 1);
        }
        call::call_rw(control, &mut [], CallFlags::empty(), &[100])
    });
    for word in 0..100 {
        let kick = daemon.expect(Opcode::Call);
        assert_eq!((kick.args[0], kick.args[3]), (7, word));
        assert_eq!(kick.caller, u64::from(std::process::id()));
        daemon.answer(&kick, word + 1);
    }
    daemon.expect(Opcode::Call);
    // A thread that waits when the scheme goes would otherwise wait for ever.
    drop(daemon.socket);
    assert_eq!(errno(thread.join().unwrap()), libc::ENODEV);
}

fn a_closed_scheme_is_enodev() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("outlives_the_scheme");
    daemon.serve_open(20);
    daemon.expect(Opcode::Call);
    let kernel = daemon.kernel;
    drop(daemon.socket);
    let served = std::thread::spawn(move || {
        kernel.idle(Duration::from_millis(300)).unwrap();
        kernel
    });
    client.go();
    assert_eq!(client.told(), "ENODEV twice");
    let kernel = served.join().unwrap();
    client.go();
    drop(kernel);
    client.finish();
}

fn outlives_the_scheme() {
    let fd = open("x");
    let waiting = std::thread::spawn(move || call::call_rw(fd, &mut [], CallFlags::empty(), &[]));
    common::wait_for_daemon();
    assert_eq!(
        errno(call::call_rw(fd, &mut [], CallFlags::empty(), &[])),
        libc::ENODEV
    );
    assert_eq!(errno(call::open("/scheme/test/x", 0, 0)), libc::ENODEV);
    assert!(!waiting.is_finished(), "who waits goes on waiting");
    common::tell_daemon("ENODEV twice");
    common::wait_for_daemon();
    assert_eq!(errno(waiting.join().unwrap()), libc::ENODEV);
    assert_eq!(errno(call::close(fd)), libc::ENODEV);
}

fn what_is_not_there_has_an_errno() {
    let daemon = Daemon::start();
    let mut client = daemon.client("asks_for_nothing");
    client.go();
    daemon.finish(client);
}

fn asks_for_nothing() {
    common::wait_for_daemon();
    hosted::client::connect().unwrap();
    assert_eq!(errno(call::open("/somewhere", 0, 0)), libc::ENOENT);
    let capability = call::open("/scheme/namespace/scheme-creation-cap", 0, 0);
    assert_eq!(errno(capability), libc::EACCES);
    assert_eq!(errno(call::read(3, &mut [0; 4])), libc::EBADF);
    assert_eq!(errno(call::getns()), libc::ENOSYS);
    assert_eq!(
        call::geteuid().unwrap(),
        0,
        "whoever runs the daemon is root"
    );
    let mut text = [0; 64];
    assert_eq!(
        libredox::error::Error::new(libc::EACCES).description(&mut text),
        "Permission denied"
    );
}
