//! Event queues: what a scheme sees of them, and what the crate `redox_event` makes of them.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{Client, Daemon, entries, errno, open, tell_daemon, wait_for_daemon};
use event::raw::RawEventV1;
use event::{EventFlags, EventQueue, RawEventQueue};
use hosted::client::{self, Fork, syscalls};
use libredox::call;
use syscall::data::Event;
use syscall::flag::{EVENT_READ, EVENT_WRITE, F_SETFL, O_NONBLOCK};
use syscall::schemev2::{Cqe, CqeOpcode, Opcode};

const READ: u64 = EVENT_READ.bits() as u64;
const WRITE: u64 = EVENT_WRITE.bits() as u64;

fn main() -> ExitCode {
    common::main(
        entries![
            a_queue_is_told_what_has_happened_and_what_happens,
            a_read_waits_for_an_event_and_a_signal_ends_it,
            a_scheme_is_asked_for_all_that_is_waited_for,
            a_watch_ends_with_the_last_descriptor_of_its_file,
            a_forked_child_has_the_same_queue,
            a_dead_client_takes_no_event,
            what_cannot_be_watched_is_refused,
            a_queue_keeps_no_more_than_one_event_a_watch,
            the_daemon_itself_has_queues,
        ],
        entries![
            watches,
            waits,
            watches_with_two_queues,
            watches_and_closes,
            forks,
            shares_a_queue,
            watches_what_it_cannot,
            writes_over_and_over,
        ],
    )
}

impl Daemon {
    /// Lets the client watch a file; what has happened already.
    fn serve_watch(&mut self, id: u64, asked: u64, ready: u64) {
        let watch = self.expect(Opcode::Fevent);
        assert_eq!(watch.args[..2], [id, asked]);
        self.answer(&watch, ready);
    }

    /// Says that something has happened.
    fn happen(&self, id: u64, what: u64) {
        let cqe = Cqe {
            flags: CqeOpcode::SendFevent as u8,
            extra_raw: [0; 3],
            tag: what as u32,
            result: id,
        };
        assert_eq!(self.write(&[cqe]), Ok(1));
    }

    /// As `told_by`, while signals reach the client.
    fn told_amid_signals(&self, client: &mut Client) -> String {
        let pid = client.pid() as i32;
        std::thread::scope(|scope| {
            let told = scope.spawn(|| client.told());
            while !told.is_finished() {
                // SAFETY: the process is a child that was not waited for.
                unsafe { libc::kill(pid, libc::SIGALRM) };
                let _ = self.kernel.idle(Duration::from_millis(1));
            }
            told.join().unwrap()
        })
    }
}

/// In a client: the oldest event of a queue.
fn next(queue: &EventQueue<usize>) -> (usize, usize, EventFlags) {
    let event = queue.next_event().unwrap();
    (event.fd, event.user_data, event.flags)
}

fn a_queue_is_told_what_has_happened_and_what_happens() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("watches");
    daemon.serve_open(20);
    daemon.serve_open(21);
    let watch = daemon.expect(Opcode::Fevent);
    assert_eq!(watch.caller, client.pid());
    assert_eq!(watch.args[..2], [20, READ]);
    daemon.answer(&watch, READ);
    daemon.serve_watch(21, READ | WRITE, 0);
    assert_eq!(daemon.told_by(&mut client), "one");
    daemon.happen(20, WRITE);
    daemon.happen(21, READ | WRITE);
    daemon.happen(20, READ);
    daemon.happen(99, READ);
    daemon.serve_watch(21, 0, 0);
    daemon.happen(21, READ);
    daemon.happen(20, READ);
    assert_eq!(daemon.told_by(&mut client), "three");
    client.go();
    daemon.expect_close(20);
    daemon.expect_close(21);
    client.finish();
}

fn watches() {
    let (first, second) = (open("x"), open("y"));
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(first, 7, EventFlags::READ).unwrap();
    let both = EventFlags::READ | EventFlags::WRITE;
    queue.subscribe(second, 8, both).unwrap();
    assert_eq!(next(&queue), (first, 7, EventFlags::READ));
    tell_daemon("one");
    assert_eq!(next(&queue), (second, 8, both));
    assert_eq!(next(&queue), (first, 7, EventFlags::READ));
    queue.unsubscribe(second).unwrap();
    assert_eq!(next(&queue), (first, 7, EventFlags::READ));
    tell_daemon("three");
    wait_for_daemon();
}

fn a_read_waits_for_an_event_and_a_signal_ends_it() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("waits");
    daemon.serve_open(20);
    daemon.serve_watch(20, READ, 0);
    assert_eq!(daemon.told_amid_signals(&mut client), "interrupted");
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.happen(20, READ);
    assert_eq!(daemon.told_by(&mut client), "happened");
    // A signal while the scheme is asked cancels that.
    client.go();
    let watch = daemon.expect(Opcode::Fevent);
    let cancel = daemon.interrupt(&client);
    assert_eq!(cancel.tag, watch.tag);
    daemon.fail(&watch, libc::ECANCELED);
    daemon.expect_close(20);
    client.finish();
}

fn waits() {
    common::be_interruptible();
    let file = open("x");
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(file, 7, EventFlags::READ).unwrap();
    let interrupted = queue.next_event().map(|_| ());
    assert_eq!(errno(interrupted), libc::EINTR);
    tell_daemon("interrupted");
    loop {
        match queue.next_event() {
            Ok(event) => break assert_eq!(event.user_data, 7),
            Err(error) => assert_eq!(error.errno(), libc::EINTR),
        }
    }
    tell_daemon("happened");
    wait_for_daemon();
    let interrupted = queue.subscribe(file, 7, EventFlags::READ);
    assert_eq!(errno(interrupted), libc::EINTR);
}

fn a_scheme_is_asked_for_all_that_is_waited_for() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("watches_with_two_queues");
    daemon.serve_open(20);
    daemon.serve_watch(20, READ, 0);
    daemon.serve_watch(20, READ | WRITE, READ);
    daemon.serve_watch(20, READ | WRITE, 0);
    assert_eq!(daemon.told_by(&mut client), "both");
    daemon.happen(20, WRITE);
    assert_eq!(daemon.told_by(&mut client), "one");
    // A queue that is closed waits for nothing.
    daemon.serve_watch(20, READ, 0);
    daemon.expect_close(20);
    client.finish();
}

fn watches_with_two_queues() {
    let file = open("x");
    let queues = [0; 2].map(|_| EventQueue::<usize>::new().unwrap());
    queues[0].subscribe(file, 1, EventFlags::READ).unwrap();
    let both = EventFlags::READ | EventFlags::WRITE;
    queues[1].subscribe(file, 2, both).unwrap();
    // What is ready when one begins to wait the other hears of, too.
    assert_eq!(next(&queues[0]), (file, 1, EventFlags::READ));
    assert_eq!(next(&queues[1]), (file, 2, EventFlags::READ));
    // Queues are files, and can be watched.
    let outer = RawEventQueue::new().unwrap();
    let inner = call::open("/scheme/event", libc::O_RDWR, 0).unwrap();
    outer.subscribe(inner, 3, EventFlags::READ).unwrap();
    let watch = Event {
        id: file,
        flags: EVENT_WRITE,
        data: 4,
    };
    assert_eq!(call::write(inner, &watch).unwrap(), size_of::<Event>());
    tell_daemon("both");
    let event = outer.next_event().unwrap();
    assert_eq!((event.fd, event.user_data), (inner, 3));
    tell_daemon("one");
    call::close(inner).unwrap();
    queues[1].unsubscribe(file).unwrap();
}

fn a_watch_ends_with_the_last_descriptor_of_its_file() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("watches_and_closes");
    daemon.serve_open(20);
    daemon.serve_open(21);
    daemon.serve_watch(20, READ, 0);
    daemon.serve_watch(21, READ, 0);
    assert_eq!(daemon.told_by(&mut client), "closed one of two");
    daemon.happen(20, READ);
    assert_eq!(daemon.told_by(&mut client), "closed both");
    daemon.expect_close(20);
    daemon.happen(20, READ);
    // The scheme uses the number again.
    client.go();
    daemon.serve_open(20);
    assert_eq!(daemon.told_by(&mut client), "opened");
    daemon.happen(20, READ);
    daemon.happen(21, READ);
    daemon.expect_close(20);
    daemon.expect_close(21);
    client.finish();
}

fn watches_and_closes() {
    let (first, other) = (open("x"), open("y"));
    let copy = call::dup(first, []).unwrap();
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(first, 1, EventFlags::READ).unwrap();
    queue.subscribe(other, 2, EventFlags::READ).unwrap();
    call::close(first).unwrap();
    tell_daemon("closed one of two");
    assert_eq!(next(&queue), (first, 1, EventFlags::READ));
    call::close(copy).unwrap();
    tell_daemon("closed both");
    wait_for_daemon();
    let again = open("z");
    assert_eq!(again, first);
    tell_daemon("opened");
    assert_eq!(next(&queue), (other, 2, EventFlags::READ));
    call::close(again).unwrap();
}

fn a_forked_child_has_the_same_queue() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("forks");
    daemon.serve_open(20);
    daemon.serve_watch(20, READ, READ);
    assert_eq!(daemon.told_by(&mut client), "the child has it");
    daemon.happen(20, READ);
    daemon.expect_close(20);
    client.finish();
}

fn forks() {
    let file = open("x");
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(file, 1, EventFlags::READ).unwrap();
    let child = forked(|| {
        assert_eq!(next(&queue), (file, 1, EventFlags::READ));
        tell_daemon("the child has it");
    });
    assert_eq!(wait_for(child), 0);
    assert_eq!(next(&queue), (file, 1, EventFlags::READ));
}

/// A forked child that does this and ends.
fn forked(work: impl FnOnce()) -> i32 {
    // SAFETY: there is no other thread.
    match unsafe { client::fork() }.unwrap() {
        Fork::Child(adopted) => {
            adopted.unwrap();
            work();
            std::process::exit(0);
        }
        Fork::Parent(child) => child,
    }
}

/// Waits for a child's end; its status.
fn wait_for(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is alive.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status
}

fn a_dead_client_takes_no_event() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("shares_a_queue");
    daemon.serve_open(20);
    daemon.serve_watch(20, READ, 0);
    assert_eq!(daemon.told_by(&mut client), "the other waits");
    // Until its read is there.
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    client.go();
    assert_eq!(daemon.told_by(&mut client), "the other is dead");
    assert!(daemon.next_within(Duration::from_millis(50)).is_none());
    daemon.happen(20, READ);
    daemon.expect_close(20);
    client.finish();
}

fn shares_a_queue() {
    let file = open("x");
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(file, 1, EventFlags::READ).unwrap();
    let child = forked(|| {
        tell_daemon("the other waits");
        let _ = queue.next_event();
        unreachable!("it is killed");
    });
    wait_for_daemon();
    // SAFETY: a child that was not waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait_for(child);
    tell_daemon("the other is dead");
    assert_eq!(next(&queue), (file, 1, EventFlags::READ));
}

fn what_cannot_be_watched_is_refused() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("watches_what_it_cannot");
    daemon.serve_open(20);
    let watch = daemon.expect(Opcode::Fevent);
    daemon.fail(&watch, libc::EOPNOTSUPP);
    daemon.expect_close(20);
    assert_eq!(daemon.told_by(&mut client), "done");
    client.finish();
}

fn watches_what_it_cannot() {
    let file = open("x");
    let queue = call::open("/scheme/event", libc::O_RDWR, 0).unwrap();
    let watch = |id: usize| Event {
        id,
        flags: EVENT_READ,
        data: 0,
    };
    let refused = |event: Event| errno(call::write(queue, &event));
    assert_eq!(refused(watch(file)), libc::EOPNOTSUPP);
    call::close(file).unwrap();
    assert_eq!(refused(watch(file)), libc::EBADF);
    assert_eq!(refused(watch(usize::MAX)), libc::EBADF);
    assert_eq!(refused(watch(queue)), libc::EBADF);
    assert_eq!(refused(watch(syscall::EVENT_TIMEOUT_ID)), libc::EINVAL);
    assert_eq!(call::write(queue, &[1; 23]).unwrap(), 0, "no whole event");

    call::fcntl(queue, F_SETFL, O_NONBLOCK).unwrap();
    let mut room = [0; size_of::<Event>()];
    assert_eq!(errno(call::read(queue, &mut room)), libc::EAGAIN);
    assert_eq!(errno(call::read(queue, &mut room[1..])), libc::EINVAL);
    assert_eq!(syscalls::fevent(queue, 3), Ok(WRITE as usize));
    let mut path = [0; 100];
    let length = call::fpath(queue, &mut path).unwrap();
    assert_eq!(&path[..length], b"/scheme/event/");
    assert!(call::dup(queue, "other").is_err());
    assert!(call::fstat(queue).is_err());

    // SAFETY: room for one event is given each time.
    unsafe {
        let mut event = RawEventV1::default();
        let event = &raw mut event;
        let null = std::ptr::null();
        let get = event::raw::redox_event_queue_get_events_v1;
        let einval = -libc::EINVAL as usize;
        assert_eq!(get(queue, event, 0, 0, null, std::ptr::null()), einval);
        assert_eq!(get(queue, event, 1, 1, null, std::ptr::null()), einval);
        assert_eq!(event::raw::redox_event_queue_create_v1(1), einval);
        let ctl = event::raw::redox_event_queue_ctl_v1;
        assert_eq!(ctl(queue, 0, 1 << 9, 0), einval);
    }
    call::close(queue).unwrap();
    assert_eq!(errno(call::write(queue, &watch(0))), libc::EBADF);
    tell_daemon("done");
}

fn a_queue_keeps_no_more_than_one_event_a_watch() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("writes_over_and_over");
    daemon.serve_open(20);
    for _ in 0..100 {
        daemon.serve_watch(20, READ, READ);
    }
    for _ in 0..100 {
        daemon.happen(20, READ);
    }
    assert_eq!(daemon.told_by(&mut client), "done");
    daemon.expect_close(20);
    client.finish();
}

fn writes_over_and_over() {
    let file = open("x");
    let queue = call::open("/scheme/event", libc::O_RDWR, 0).unwrap();
    // Several at once: each is seen to.
    let watch = Event {
        id: file,
        flags: EVENT_READ,
        data: 5,
    };
    let watches: Vec<u8> = (0..10).flat_map(|_| watch.to_vec()).collect();
    for _ in 0..10 {
        assert_eq!(call::write(queue, &watches).unwrap(), watches.len());
    }
    let mut events = [0; 100 * size_of::<Event>()];
    let length = call::read(queue, &mut events).unwrap();
    assert_eq!(length, size_of::<Event>());
    tell_daemon("done");
}

fn the_daemon_itself_has_queues() {
    let daemon = Daemon::start();
    let queue = call::open("/scheme/event", libc::O_RDWR, 0).unwrap();
    call::fcntl(queue, F_SETFL, O_NONBLOCK).unwrap();
    assert_eq!(errno(call::read(queue, &mut [0; 24])), libc::EAGAIN);
    let socket = Event {
        id: daemon.socket.inner().raw(),
        flags: EVENT_READ,
        data: 0,
    };
    assert_eq!(errno(call::write(queue, &socket)), libc::EBADF);
    call::close(queue).unwrap();
}
