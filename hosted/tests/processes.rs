//! Processes: their end, signals, threads, identities, files passed on, and fork.

mod common;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Command, ExitCode};
use std::ptr;
use std::time::Duration;

use common::{Daemon, PAGE, entries, errno, open, tell_daemon, wait_for_daemon};
use gem::units::{Gid, Identity, Pid, Uid};
use hosted::client::{self, Fork};
use libredox::call::{self, MmapArgs};
use syscall::flag::CallFlags;
use syscall::schemev2::{Opcode, SqeFlags};

fn main() -> ExitCode {
    common::main(
        entries![
            a_killed_client_closes_its_files_and_then_unmaps,
            a_killed_clients_calls_are_answered_to_nobody,
            a_file_opened_for_a_dead_client_is_closed,
            a_signal_cancels_once_and_the_answer_decides,
            an_open_by_path_is_not_cancelled,
            a_signal_interrupts_the_daemons_read,
            a_call_that_waits_does_not_hold_up_other_threads,
            any_thread_can_be_interrupted,
            identities_can_be_dropped_but_not_regained,
            a_parcel_passes_a_file_to_another_process,
            a_parcel_keeps_its_file_open,
            a_forked_child_has_the_files_and_not_the_mappings,
            a_child_without_a_connection_gets_ebadf,
            a_parents_end_is_seen_while_its_child_lives,
            exec_starts_anew,
            a_client_can_leave_and_come_back,
        ],
        entries![
            holds_files_and_mappings,
            waits_in_calls,
            opens_one,
            is_signalled,
            is_signalled_opening,
            calls_with_threads,
            signals_its_threads,
            drops_its_identity,
            sends_a_parcel,
            opens_a_parcel,
            makes_and_drops_a_parcel,
            forks,
            forks_carelessly,
            forks_and_dies,
            executes,
            was_executed,
            leaves_and_comes_back,
        ],
    )
}

fn call_it(fd: usize, word: u64) -> libredox::error::Result<usize> {
    call::call_rw(fd, &mut [], CallFlags::empty(), &[word])
}

fn map_page(fd: usize, offset: u64) -> usize {
    let args = MmapArgs {
        addr: ptr::null_mut(),
        length: PAGE,
        prot: (libc::PROT_READ | libc::PROT_WRITE) as u32,
        flags: libc::MAP_SHARED as u32,
        fd,
        offset,
    };
    // SAFETY: at any address.
    unsafe { call::mmap(args) }.unwrap().expose_provenance()
}

fn expect_unmap(daemon: &mut Daemon, id: u64, offset: u64) {
    let unmap = daemon.expect(Opcode::Munmap);
    assert_eq!([unmap.args[0], unmap.args[3]], [id, offset]);
    daemon.answer(&unmap, 0);
}

fn a_killed_client_closes_its_files_and_then_unmaps() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(2);
    let mut client = daemon.client("holds_files_and_mappings");
    for id in 20..23 {
        daemon.serve_open(id);
    }
    for _ in 0..2 {
        let prepare = daemon.expect(Opcode::MmapPrep);
        daemon.answer(&prepare, window);
    }
    assert_eq!(daemon.told_by(&mut client), "mapped");
    let pid = client.pid();
    client.kill();
    // 20 is mapped and stays; 21 was closed before but is mapped; 22 is neither.
    daemon.expect_close(22);
    let first = daemon.expect(Opcode::Munmap);
    assert_eq!((first.args[0], first.caller), (20, pid));
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.answer(&first, 0);
    daemon.expect_close(20);
    expect_unmap(&mut daemon, 21, PAGE as u64);
    daemon.expect_close(21);
}

fn holds_files_and_mappings() {
    let [first, second, _third] = ["a", "b", "c"].map(open);
    // Linux fills addresses from above: the second one mapped comes first.
    let later = map_page(second, PAGE as u64);
    let earlier = map_page(first, 0);
    assert!(earlier < later);
    call::close(second).unwrap();
    tell_daemon("mapped");
    wait_for_daemon();
}

fn a_killed_clients_calls_are_answered_to_nobody() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("waits_in_calls");
    daemon.serve_open(20);
    let mut calls = [daemon.next(), daemon.next()];
    calls.sort_by_key(|sqe| sqe.opcode);
    let [call, prepare] = calls;
    let (call, prepare) = match call.opcode == Opcode::Call as u8 {
        true => (call, prepare),
        false => (prepare, call),
    };
    common::payload(&call).fill(1);
    client.kill();
    // No Cancel: the file is closed while both wait.
    daemon.expect_close(20);
    common::payload(&call).fill(2);
    let (_, window) = daemon.object(1);
    daemon.answer(&call, 5);
    daemon.answer(&prepare, window);
    // The mapping was never made, so nothing is unmapped.
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    assert_eq!(
        daemon.write(&[common::regular(call.tag, 0)]),
        Err(libc::EBADFD)
    );
}

fn waits_in_calls() {
    let fd = open("x");
    std::thread::spawn(move || map_page(fd, 0));
    let _ = call::call_rw(fd, &mut [0; 5000], CallFlags::empty(), &[]);
}

fn a_file_opened_for_a_dead_client_is_closed() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("opens_one");
    let open = daemon.expect(Opcode::OpenAt);
    client.kill();
    assert!(daemon.next_within(Duration::from_millis(20)).is_none());
    daemon.answer(&open, 20);
    daemon.expect_close(20);
}

fn opens_one() {
    open("x");
}

fn a_signal_cancels_once_and_the_answer_decides() {
    let mut daemon = Daemon::start();
    let client = daemon.client("is_signalled");
    daemon.serve_open(20);
    // The answer to a cancelled call may be ECANCELED, EINTR, or what it would have been.
    let answers = [-libc::ECANCELED, -libc::EINTR, 7];
    for answer in answers {
        let call = daemon.expect(Opcode::Call);
        let cancel = daemon.interrupt(&client);
        assert_eq!(cancel.tag, call.tag);
        assert!(cancel.sqe_flags.contains(SqeFlags::ONEWAY));
        assert_eq!((cancel.args, cancel.caller), ([0; 6], 0));
        client.signal();
        assert!(
            daemon.next_within(Duration::from_millis(50)).is_none(),
            "once"
        );
        daemon.answer(&call, i64::from(answer) as u64);
    }
    daemon.expect_close(20);
    client.finish();
}

fn is_signalled() {
    common::be_interruptible();
    let fd = open("x");
    assert_eq!(errno(call_it(fd, 0)), libc::EINTR);
    assert_eq!(errno(call_it(fd, 0)), libc::EINTR);
    assert_eq!(call_it(fd, 0).unwrap(), 7);
}

fn an_open_by_path_is_not_cancelled() {
    let mut daemon = Daemon::start();
    let client = daemon.client("is_signalled_opening");
    let open = daemon.expect(Opcode::OpenAt);
    std::thread::sleep(Duration::from_millis(50));
    client.signal();
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.answer(&open, 20);
    daemon.expect_close(20);
    client.finish();
}

fn a_signal_interrupts_the_daemons_read() {
    common::be_interruptible();
    let daemon = Daemon::start();
    // SAFETY: no precondition.
    let reader = unsafe { libc::pthread_self() };
    let signaller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: the thread waits for this one to end.
        unsafe { libc::pthread_kill(reader, libc::SIGALRM) };
    });
    let read = call::read(daemon.socket.inner().raw(), &mut [0; 64]);
    assert_eq!(errno(read), libc::EINTR);
    signaller.join().unwrap();
}

fn is_signalled_opening() {
    common::be_interruptible();
    open("x");
}

fn a_call_that_waits_does_not_hold_up_other_threads() {
    let mut daemon = Daemon::start();
    let client = daemon.client("calls_with_threads");
    daemon.serve_open(20);
    let slow = daemon.expect(Opcode::Call);
    assert_eq!(slow.args[3], 1000);
    let mut answered = 0;
    let mut slow = Some(slow);
    while answered < 4 * 500 {
        let call = daemon.expect(Opcode::Call);
        common::payload(&call).fill(call.args[3] as u8);
        daemon.answer(&call, call.args[3]);
        answered += 1;
        if answered == 1000 {
            daemon.answer(&slow.take().unwrap(), 1000);
        }
    }
    daemon.expect_close(20);
    client.finish();
}

fn calls_with_threads() {
    let fd = open("x");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call_it(fd, 1000).unwrap(), 1000));
        std::thread::sleep(Duration::from_millis(50));
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..500 {
                    let word = thread * 50 + round % 50;
                    let mut payload = vec![0; 20_000];
                    let flags = CallFlags::empty();
                    let result = call::call_rw(fd, &mut payload, flags, &[word]).unwrap();
                    assert_eq!(result as u64, word);
                    assert!(payload.iter().all(|byte| *byte == word as u8));
                }
            });
        }
    });
}

fn any_thread_can_be_interrupted() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("signals_its_threads");
    daemon.serve_open(20);
    let calls = [daemon.expect(Opcode::Call), daemon.expect(Opcode::Call)];
    // One of the two threads receives, the other sleeps; both hear their signal.
    client.go();
    let mut cancelled = [
        daemon.expect(Opcode::Cancel).tag,
        daemon.expect(Opcode::Cancel).tag,
    ];
    cancelled.sort_unstable();
    let mut tags = calls.map(|call| call.tag);
    tags.sort_unstable();
    assert_eq!(cancelled, tags);
    for call in &calls {
        daemon.fail(call, libc::ECANCELED);
    }
    daemon.expect_close(20);
    client.finish();
}

fn signals_its_threads() {
    common::be_interruptible();
    let fd = open("x");
    let threads = [0, 1].map(|word| std::thread::spawn(move || errno(call_it(fd, word))));
    wait_for_daemon();
    // Again and again, as a signal that comes before a thread waits does not interrupt it.
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        for thread in &threads {
            // SAFETY: the thread was not joined.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGALRM) };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        threads.map(|thread| thread.join().unwrap()),
        [libc::EINTR; 2]
    );
}

fn identities_can_be_dropped_but_not_regained() {
    let mut daemon = Daemon::start();
    let client = daemon.client("drops_its_identity");
    daemon.serve_open(20);
    let pid = Pid(client.pid());
    let who = |uid, gid, pid| {
        Some(Identity {
            uid: Uid(uid),
            gid: Gid(gid),
            pid,
        })
    };
    assert_eq!(hosted::credentials(pid), who(0, 0, pid));
    assert_eq!(
        hosted::credentials(Pid(common::MANAGER)),
        who(0, 0, Pid(common::MANAGER))
    );
    assert_eq!(hosted::credentials(Pid(1)), None);
    let dup = daemon.expect(Opcode::Dup);
    assert_eq!(dup.args[5], 1000 | 2000 << 32);
    assert_eq!(hosted::credentials(pid), who(1000, 2000, pid));
    daemon.fail(&dup, libc::EACCES);
    // Opens by path stay the manager's.
    assert_eq!(daemon.serve_open(21).args[5], 0);
    daemon.expect_close(20);
    daemon.expect_close(21);
    daemon.finish(client);
    assert_eq!(hosted::credentials(pid), None, "who is gone is nobody");
}

fn drops_its_identity() {
    let fd = open("x");
    client::set_identity(1000, 2000).unwrap();
    assert_eq!(
        (call::geteuid().unwrap(), call::getegid().unwrap()),
        (1000, 2000)
    );
    assert_eq!(errno(call::dup(fd, b"x")), libc::EACCES);
    assert_eq!(client::set_identity(0, 0).unwrap_err().errno, libc::EPERM);
    assert_eq!(errno(call::fchown(fd, 1000, 0)), libc::EPERM);
    open("y");
}

fn a_parcel_passes_a_file_to_another_process() {
    let mut daemon = Daemon::start();
    let sender = daemon.client("sends_a_parcel");
    daemon.serve_open(20);
    let call = daemon.expect(Opcode::Call);
    assert_eq!(call.args[0], 20);
    assert_ne!(call.caller, sender.pid(), "the child's own pid");
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    daemon.finish(sender);
}

fn sends_a_parcel() {
    let fd = open("x");
    let parcel = client::to_parcel(fd).unwrap();
    assert_eq!(client::to_parcel(99).unwrap_err().errno, libc::EBADF);
    call::close(fd).unwrap();
    let number = parcel.as_raw_fd();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .env("HOSTED_CLIENT", "opens_a_parcel")
        .env("PARCEL", number.to_string());
    // SAFETY: the closure makes one system call on a number that stays open.
    unsafe {
        child.pre_exec(move || {
            libc::fcntl(number, libc::F_SETFD, 0);
            Ok(())
        });
    }
    let mut child = child.spawn().unwrap();
    drop(parcel);
    assert!(child.wait().unwrap().success());
}

fn opens_a_parcel() {
    let number = std::env::var("PARCEL").unwrap().parse().unwrap();
    // SAFETY: the parent left it to this process.
    let parcel = unsafe { OwnedFd::from_raw_fd(number) };
    let again = parcel.try_clone().unwrap();
    let fd = client::from_parcel(parcel).unwrap();
    call_it(fd, 0).unwrap();
    call::close(fd).unwrap();
    let fd = client::from_parcel(again).unwrap();
    call::close(fd).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(
        client::from_parcel(file.into()).unwrap_err().errno,
        libc::EBADF
    );
    let (socket, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    assert_eq!(
        client::from_parcel(socket.into()).unwrap_err().errno,
        libc::EBADF
    );
}

fn a_parcel_keeps_its_file_open() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("makes_and_drops_a_parcel");
    daemon.serve_open(20);
    daemon.serve_open(21);
    let call = daemon.expect(Opcode::Call);
    assert_eq!(call.args[0], 21);
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    client.go();
    daemon.expect_close(21);
    daemon.finish(client);
}

fn makes_and_drops_a_parcel() {
    let (fd, other) = (open("x"), open("y"));
    let parcels = [
        client::to_parcel(fd).unwrap(),
        client::to_parcel(fd).unwrap(),
    ];
    call::close(fd).unwrap();
    call_it(other, 0).unwrap();
    drop(parcels);
    wait_for_daemon();
}

fn a_forked_child_has_the_files_and_not_the_mappings() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(1);
    let client = daemon.client("forks");
    daemon.serve_open(20);
    let prepare = daemon.expect(Opcode::MmapPrep);
    daemon.answer(&prepare, window);
    let call = daemon.expect(Opcode::Call);
    assert_eq!((call.args[0], call.args[3]), (20, 1));
    assert_ne!(call.caller, client.pid());
    daemon.answer(&call, 0);
    let call = daemon.expect(Opcode::Call);
    assert_eq!((call.args[3], call.caller), (2, client.pid()));
    daemon.answer(&call, 0);
    // The child's end has closed nothing, and unmapped nothing.
    expect_unmap(&mut daemon, 20, 0);
    daemon.expect_close(20);
    client.finish();
}

fn forks() {
    let fd = open("x");
    let address = map_page(fd, 0);
    // SAFETY: this process has one thread.
    match unsafe { client::fork() }.unwrap() {
        Fork::Child(adopted) => {
            adopted.unwrap();
            call_it(fd, 1).unwrap();
            let mut residency = 0;
            // SAFETY: mincore only looks.
            let found = unsafe {
                let page = ptr::with_exposed_provenance_mut(address);
                libc::mincore(page, 1, &raw mut residency)
            };
            assert_eq!(found, -1, "nothing is mapped there");
            call::close(fd).unwrap();
        }
        Fork::Parent(child) => {
            wait_for_child(child);
            call_it(fd, 2).unwrap();
        }
    }
}

fn wait_for_child(child: i32) {
    let mut status = 0;
    call::waitpid(child as usize, &mut status, 0).unwrap();
    assert_eq!(status, 0, "the child failed");
}

fn a_child_without_a_connection_gets_ebadf() {
    let mut daemon = Daemon::start();
    let client = daemon.client("forks_carelessly");
    daemon.serve_open(20);
    let call = daemon.expect(Opcode::Call);
    assert_eq!(call.caller, client.pid());
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    client.finish();
}

fn forks_carelessly() {
    let fd = open("x");
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            assert_eq!(errno(call_it(fd, 0)), libc::EBADF);
            assert_eq!(errno(call::open("/scheme/test/y", 0, 0)), libc::EBADF);
            assert_eq!(client::connect().unwrap_err().errno(), libc::EBADF);
        }
        child => {
            wait_for_child(child);
            call_it(fd, 0).unwrap();
        }
    }
}

fn a_parents_end_is_seen_while_its_child_lives() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("forks_and_dies");
    daemon.serve_open(20);
    daemon.expect_close(20);
    client.go();
    assert_eq!(client.told(), "the child lives");
}

fn forks_and_dies() {
    let _fd = open("x");
    // SAFETY: this process has one thread.
    if unsafe { libc::fork() } == 0 {
        wait_for_daemon();
        tell_daemon("the child lives");
    }
}

fn exec_starts_anew() {
    let mut daemon = Daemon::start();
    let client = daemon.client("executes");
    daemon.serve_open(20);
    // The new program is the same process, and must not be refused as a second connection.
    daemon.expect_close(20);
    daemon.serve_open(21);
    daemon.expect_close(21);
    daemon.finish(client);
}

fn executes() {
    let _fd = open("x");
    let mut program = Command::new(std::env::current_exe().unwrap());
    let error = program.env("HOSTED_CLIENT", "was_executed").exec();
    panic!("{error}");
}

fn was_executed() {
    assert_eq!(open("y"), 3);
    client::disconnect();
}

fn a_client_can_leave_and_come_back() {
    let mut daemon = Daemon::start();
    let client = daemon.client("leaves_and_comes_back");
    daemon.serve_open(20);
    daemon.expect_close(20);
    daemon.serve_open(21);
    daemon.expect_close(21);
    client.finish();
}

fn leaves_and_comes_back() {
    let fd = open("x");
    client::disconnect();
    assert_eq!(errno(call_it(fd, 0)), libc::EBADF);
    assert_eq!(open("x"), fd);
}
