//! Clients' own pages, taken over by a scheme: nothing that is written is lost, and whatever the
//! client unmaps the scheme hears of first.

mod common;

use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Daemon, PAGE, entries, errno, open, tell_daemon, wait_for_daemon};
use gem::pages::PageSource;
use gem::units::{PageCount, Uid};
use gem::user::{SpaceFd, UserAddr, UserFault, UserRange, UserSet, UserSource};
use libredox::call;
use syscall::data::Map;
use syscall::flag::{CallFlags, MapFlags, SchemeSocketCall};
use syscall::schemev2::{Opcode, Sqe};

fn main() -> ExitCode {
    common::main(
        entries![
            no_write_is_lost_while_pages_change_hands,
            shared_memory_without_a_file_can_be_taken_over,
            pages_that_were_never_touched_take_no_memory,
            an_unmapping_waits_until_the_scheme_knows,
            part_of_an_unmapping_is_told_as_that_part,
            a_client_that_ends_unmaps_everything,
            what_is_not_the_clients_own_memory_is_refused,
            a_file_that_is_no_address_space_is_refused,
            an_address_space_is_its_own_processs_to_send,
            what_is_given_up_stays_the_clients,
            only_the_client_maps_its_pages_once_and_where_they_were,
            a_range_that_is_unmapped_too_early_is_lost,
            a_range_is_taken_over_again,
            ten_thousand_ranges_of_one_client,
            a_closed_scheme_holds_up_no_unmapping,
        ],
        entries![
            hammers,
            shares_after_fork,
            has_never_touched,
            unmaps_in_every_way,
            unmaps_parts,
            ends_at_once,
            registers_what_it_must_not,
            sends_other_files,
            sends_its_parents,
            is_let_down,
            maps_wrongly,
            unmaps_too_early,
            registers_again,
            registers_very_many,
            unmaps_when_told,
        ],
    )
}

const CARD: u64 = 20;
const OWNER: Uid = Uid(1000);
/// Where the scheme pretends that the ranges are in its file.
const FAKE: u64 = 1 << 33;

/// What a client tells a scheme: a range, in metadata words.
fn register(card: usize, address: usize, bytes: usize) -> libredox::error::Result<u64> {
    let space = hosted::client::address_space().unwrap();
    let sent = space.to_ne_bytes();
    call::call_wo(card, &sent, CallFlags::FD, &[0])?;
    let words = [address as u64, bytes as u64];
    let value = call::call_wo(card, &[], CallFlags::empty(), &words)?;
    Ok(value as u64)
}

fn complete(card: usize, address: usize, bytes: usize, offset: u64) -> Result<usize, i32> {
    let map = Map {
        offset: offset as usize,
        size: bytes,
        flags: MapFlags::MAP_SHARED
            | MapFlags::MAP_FIXED
            | MapFlags::PROT_READ
            | MapFlags::PROT_WRITE,
        address,
    };
    // SAFETY: what is at the address is this test's, and meant to be replaced by its copy.
    unsafe { hosted::client::syscalls::fmap(card, &map) }.map_err(|error| error.errno)
}

/// Registers and maps, as a client library would.
fn hand_over(card: usize, address: usize, bytes: usize) {
    let offset = register(card, address, bytes).unwrap();
    assert_eq!(complete(card, address, bytes, offset), Ok(address));
}

fn memory(pages: usize, kind: i32) -> usize {
    // SAFETY: a new mapping.
    let made = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        libc::mmap(ptr::null_mut(), pages * PAGE, protection, kind, -1, 0)
    };
    assert_ne!(made, libc::MAP_FAILED);
    made.expose_provenance()
}

fn word(address: usize) -> &'static AtomicU64 {
    // SAFETY: tests pass addresses of words in mappings that they do not unmap while they use them.
    unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(address)) }
}

/// The daemon's side of [`register`]: the address space, and the range that is asked for.
fn asked(daemon: &mut Daemon) -> (usize, Sqe, UserRange) {
    let sent = daemon.expect(Opcode::Sendfd);
    let space = obtain(daemon, &sent);
    daemon.answer(&sent, 0);
    let call = daemon.expect(Opcode::Call);
    let pages = PageCount::exact(call.args[4]).unwrap();
    let range = UserRange::new(UserAddr::new(call.args[3]), pages).unwrap();
    (space, call, range)
}

fn obtain(daemon: &Daemon, sent: &Sqe) -> usize {
    let mut slot = usize::MAX.to_ne_bytes();
    let words = [SchemeSocketCall::ObtainFd as u64, sent.tag.into()];
    let socket = daemon.socket.inner();
    socket.call_ro(&mut slot, CallFlags::FD, &words).unwrap();
    usize::from_ne_bytes(slot)
}

fn acquire(daemon: &mut Daemon, space: usize, range: UserRange) -> Result<UserSet, UserFault> {
    let ticket = daemon.pages.acquire(OWNER, SpaceFd::new(space), range)?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        daemon.pages.finished(&mut Vec::new());
        if let Some(outcome) = daemon.pages.acquired(ticket) {
            return outcome;
        }
        assert!(Instant::now() < end, "an acquisition takes too long");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Agrees to a registration, and to the mapping that completes it.
fn take_over(daemon: &mut Daemon) -> UserSet {
    let (space, call, range) = asked(daemon);
    let set = acquire(daemon, space, range).unwrap();
    daemon.answer(&call, FAKE);
    agree(daemon, &set);
    set
}

fn agree(daemon: &mut Daemon, set: &UserSet) {
    let map = daemon.expect(Opcode::MmapPrep);
    assert_eq!(map.args[3], FAKE);
    let window = daemon.pages.user_window(set).unwrap();
    daemon.answer(&map, window.get() as u64);
}

/// The next request, which must say that these pages are unmapped.
fn told_of(daemon: &mut Daemon, first: u64, pages: u64) -> Sqe {
    let unmap = daemon.expect(Opcode::Munmap);
    let page = PAGE as u64;
    let is = ((unmap.args[3] - FAKE) / page, unmap.args[1] / page);
    assert_eq!(is, (first, pages));
    unmap
}

/// The next request says that these pages of a held set are unmapped: the set ends, then it is
/// answered.
fn taken_back(daemon: &mut Daemon, set: UserSet, first: u64, pages: u64) {
    let unmap = told_of(daemon, first, pages);
    daemon.pages.release_user(OWNER, set);
    daemon.answer(&unmap, 0);
}

fn no_write_is_lost_while_pages_change_hands() {
    let mut daemon = Daemon::start();
    let client = daemon.client("hammers");
    daemon.serve_open(CARD);
    for pages in HAMMERED {
        let set = take_over(&mut daemon);
        taken_back(&mut daemon, set, 0, pages as u64);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

const HAMMERED: [usize; 5] = [1, 3, 64, 1, 300];

fn hammers() {
    const THREADS: usize = 4;
    let card = open("card");
    for pages in HAMMERED {
        let start = memory(pages, libc::MAP_PRIVATE);
        word(start + 8 * THREADS).store(4711, Ordering::Relaxed);
        let stop = AtomicBool::new(false);
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let stop = &stop;
                        move || count_up(start, pages, thread, stop)
                    })
                })
                .collect();
            let written = |thread: usize| word(start + 8 * thread).load(Ordering::Relaxed);
            let wait_for_all = |more: &dyn Fn(usize) -> bool| {
                while !(0..THREADS).all(more) {
                    std::thread::yield_now();
                }
            };
            wait_for_all(&|thread| written(thread) > 0);
            hand_over(card, start, pages * PAGE);
            let before: Vec<u64> = (0..THREADS).map(written).collect();
            wait_for_all(&|thread| written(thread) > before[thread]);
            stop.store(true, Ordering::Relaxed);
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.collect()
        });
        for (thread, count) in counts.into_iter().enumerate() {
            let words = (0..pages).map(|page| word(start + page * PAGE + 8 * thread));
            let sum: u64 = words.map(|word| word.load(Ordering::Relaxed)).sum();
            assert_eq!(sum, count);
        }
        assert_eq!(
            word(start + 8 * THREADS).load(Ordering::Relaxed),
            4711,
            "what was there before"
        );
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), pages * PAGE) };
    }
    call::close(card).unwrap();
}

/// Adds one to a word of each page in turn, without a lock: the word is this thread's alone. How
/// often.
fn count_up(start: usize, pages: usize, thread: usize, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        for page in 0..pages {
            let word = word(start + page * PAGE + 8 * thread);
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            count += 1;
        }
    }
    count
}

fn shared_memory_without_a_file_can_be_taken_over() {
    let mut daemon = Daemon::start();
    let client = daemon.client("shares_after_fork");
    daemon.serve_open(CARD);
    let set = take_over(&mut daemon);
    taken_back(&mut daemon, set, 0, 2);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn shares_after_fork() {
    let card = open("card");
    let start = memory(2, libc::MAP_SHARED);
    word(start + PAGE).store(7, Ordering::Relaxed);
    hand_over(card, start, 2 * PAGE);
    assert_eq!(word(start + PAGE).load(Ordering::Relaxed), 7);
    // SAFETY: the child only reads one byte and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // A child has no mapping there: it crashes.
        let found = word(start).load(Ordering::Relaxed);
        std::process::exit(found as i32);
    }
    let mut status = 0;
    // SAFETY: the child was just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFSIGNALED(status));
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), 2 * PAGE) };
    call::close(card).unwrap();
}

/// 4 GiB minus one page.
const MANY: usize = (1 << 20) - 1;

fn pages_that_were_never_touched_take_no_memory() {
    let mut daemon = Daemon::start();
    let client = daemon.client("has_never_touched");
    daemon.serve_open(CARD);
    let set = take_over(&mut daemon);
    assert_eq!(set.pages().get(), MANY as u64);
    taken_back(&mut daemon, set, 0, MANY as u64);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn has_never_touched() {
    let card = open("card");
    let start = memory(MANY, libc::MAP_PRIVATE);
    let (first, last) = (word(start), word(start + (MANY - 1) * PAGE));
    first.store(1, Ordering::Relaxed);
    last.store(2, Ordering::Relaxed);
    hand_over(card, start, MANY * PAGE);
    let values = (first.load(Ordering::Relaxed), last.load(Ordering::Relaxed));
    assert_eq!(values, (1, 2));
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssShmem"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(kib < 1024, "{kib} KiB");
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), MANY * PAGE) };
    call::close(card).unwrap();
}

fn an_unmapping_waits_until_the_scheme_knows() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("unmaps_in_every_way");
    daemon.serve_open(CARD);
    for way in 0..WAYS {
        let set = take_over(&mut daemon);
        assert_eq!(daemon.told_by(&mut client), "mapped");
        client.go();
        let unmap = told_of(&mut daemon, 0, 4);
        // The client is in its call: nothing comes of it, and none of its other threads is held up.
        let early = daemon.next_within(Duration::from_millis(30));
        assert!(early.is_none(), "way {way}: {early:?}");
        daemon.pages.release_user(OWNER, set);
        daemon.answer(&unmap, 0);
        let after = daemon.expect(Opcode::Call);
        assert_eq!(after.args[3], way);
        daemon.answer(&after, 0);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

const WAYS: u64 = 4;

fn unmaps_in_every_way() {
    let card = open("card");
    for way in 0..WAYS {
        let start = memory(4, libc::MAP_PRIVATE);
        hand_over(card, start, 4 * PAGE);
        tell_daemon("mapped");
        wait_for_daemon();
        let address = ptr::with_exposed_provenance_mut(start);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the range is this test's, and not used any more.
        unsafe {
            match way {
                0 => {
                    libc::munmap(address, 4 * PAGE);
                }
                1 => {
                    libc::mmap(address, 4 * PAGE, protection, kind | libc::MAP_FIXED, -1, 0);
                }
                2 => {
                    let moved = libc::mremap(
                        address,
                        4 * PAGE,
                        4 * PAGE,
                        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                        ptr::with_exposed_provenance_mut::<libc::c_void>(memory(
                            4,
                            libc::MAP_PRIVATE,
                        )),
                    );
                    assert_ne!(moved, libc::MAP_FAILED);
                }
                _ => call::munmap(address.cast(), 4 * PAGE).unwrap(),
            }
        }
        call::call_wo(card, &[], CallFlags::empty(), &[way]).unwrap();
    }
    call::close(card).unwrap();
}

fn part_of_an_unmapping_is_told_as_that_part() {
    let mut daemon = Daemon::start();
    let client = daemon.client("unmaps_parts");
    daemon.serve_open(CARD);
    let set = take_over(&mut daemon);
    taken_back(&mut daemon, set, 2, 1);
    // The rest is still a mapping of the scheme's.
    for (first, pages) in [(0, 1), (5, 3), (1, 1), (3, 2)] {
        let unmap = told_of(&mut daemon, first, pages);
        daemon.answer(&unmap, 0);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn unmaps_parts() {
    let card = open("card");
    let start = memory(8, libc::MAP_PRIVATE);
    word(start + PAGE).store(5, Ordering::Relaxed);
    hand_over(card, start, 8 * PAGE);
    for (first, pages) in [(2, 1), (0, 1), (5, 3)] {
        let address = ptr::with_exposed_provenance_mut(start + first * PAGE);
        // SAFETY: this part is not used any more.
        unsafe { libc::munmap(address, pages * PAGE) };
    }
    assert_eq!(word(start + PAGE).load(Ordering::Relaxed), 5);
    // SAFETY: nobody uses the rest any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), 8 * PAGE) };
    call::close(card).unwrap();
}

fn a_client_that_ends_unmaps_everything() {
    let mut daemon = Daemon::start();
    for _ in 0..2 {
        let mut client = daemon.client("ends_at_once");
        daemon.serve_open(CARD);
        let set = take_over(&mut daemon);
        assert_eq!(daemon.told_by(&mut client), "mapped");
        client.kill();
        taken_back(&mut daemon, set, 0, 3);
        daemon.expect_close(CARD);
    }
}

fn ends_at_once() {
    let card = open("card");
    let start = memory(3, libc::MAP_PRIVATE);
    hand_over(card, start, 3 * PAGE);
    tell_daemon("mapped");
    wait_for_daemon();
    unreachable!("killed before");
}

fn what_is_not_the_clients_own_memory_is_refused() {
    let mut daemon = Daemon::start();
    let client = daemon.client("registers_what_it_must_not");
    daemon.serve_open(CARD);
    let held = take_over(&mut daemon);
    for fault in REFUSED {
        let (space, call, range) = asked(&mut daemon);
        assert_eq!(acquire(&mut daemon, space, range), Err(fault));
        daemon.answer(&call, 0);
    }
    taken_back(&mut daemon, held, 0, 4);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

const REFUSED: [UserFault; 7] = [
    UserFault::Foreign,
    UserFault::Foreign,
    UserFault::Hole,
    UserFault::Hole,
    UserFault::Foreign,
    UserFault::Foreign,
    UserFault::Foreign,
];

fn registers_what_it_must_not() {
    let card = open("card");
    let own = memory(4, libc::MAP_PRIVATE);
    hand_over(card, own, 4 * PAGE);
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let other = nix::sys::memfd::memfd_create(c"other", nix::sys::memfd::MFdFlags::empty());
    let other = std::fs::File::from(other.unwrap());
    other.set_len(PAGE as u64).unwrap();
    let read_only = memory(1, libc::MAP_PRIVATE);
    // SAFETY: new mappings.
    let [mapped, shared] = unsafe {
        use std::os::fd::AsRawFd;
        libc::mprotect(
            ptr::with_exposed_provenance_mut(read_only),
            PAGE,
            libc::PROT_READ,
        );
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        [(libc::MAP_PRIVATE, &file), (libc::MAP_SHARED, &other)].map(|(kind, file)| {
            libc::mmap(ptr::null_mut(), PAGE, protection, kind, file.as_raw_fd(), 0)
        })
    };
    assert_ne!(shared, libc::MAP_FAILED);
    // The last, so that nothing takes its place.
    let hole = memory(6, libc::MAP_PRIVATE);
    // SAFETY: new, and nobody uses it.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(hole + 4 * PAGE), PAGE) };
    for (start, pages) in [
        // What the scheme has already, wholly or in part.
        (own, 4),
        (own + 3 * PAGE, 1),
        (hole, 6),
        (hole + 4 * PAGE, 1),
        (mapped.expose_provenance(), 1),
        (shared.expose_provenance(), 1),
        (read_only, 1),
    ] {
        register(card, start, pages * PAGE).unwrap();
    }
    word(hole).store(1, Ordering::Relaxed);
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(own), 4 * PAGE) };
    call::close(card).unwrap();
}

fn a_file_that_is_no_address_space_is_refused() {
    let mut daemon = Daemon::start();
    let client = daemon.client("sends_other_files");
    daemon.serve_open(CARD);
    daemon.serve_open(21);
    let sent = daemon.expect(Opcode::Sendfd);
    let file = obtain(&daemon, &sent);
    daemon.answer(&sent, 0);
    let range = UserRange::new(UserAddr::new(PAGE as u64), PageCount::new(1).unwrap()).unwrap();
    for space in [file, 12_345, usize::MAX] {
        assert_eq!(
            daemon.pages.acquire(OWNER, SpaceFd::new(space), range),
            Err(UserFault::NotASpace)
        );
    }
    daemon.expect_close(21);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn sends_other_files() {
    let card = open("card");
    let other = open("other").to_ne_bytes();
    call::call_wo(card, &other, CallFlags::FD, &[0]).unwrap();
    // A file that stands for an address space has no operations.
    let space = hosted::client::address_space().unwrap();
    assert_eq!(errno(call::read(space, &mut [0; 8])), libc::ENODEV);
    call::close(space).unwrap();
    call::close(card).unwrap();
}

fn an_address_space_is_its_own_processs_to_send() {
    let mut daemon = Daemon::start();
    let client = daemon.client("sends_its_parents");
    daemon.serve_open(CARD);
    // The child, whose memory is at the same addresses and ordinary.
    let (space, call, range) = asked(&mut daemon);
    assert_eq!(acquire(&mut daemon, space, range), Err(UserFault::Foreign));
    daemon.answer(&call, 0);
    // The parent, by the same file.
    let (space, call, range) = asked(&mut daemon);
    let set = acquire(&mut daemon, space, range).unwrap();
    daemon.pages.release_user(OWNER, set);
    daemon.answer(&call, 0);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn sends_its_parents() {
    let card = open("card");
    let start = memory(4, libc::MAP_PRIVATE);
    word(start).store(6, Ordering::Relaxed);
    let space = hosted::client::address_space().unwrap();
    let send = || {
        let flags = CallFlags::FD | CallFlags::FD_CLONE;
        call::call_wo(card, &space.to_ne_bytes(), flags, &[0]).unwrap();
        let words = [start as u64, 4 * PAGE as u64];
        call::call_wo(card, &[], CallFlags::empty(), &words).unwrap();
    };
    // SAFETY: this process has no other thread that makes calls of a scheme.
    match unsafe { hosted::client::fork() }.unwrap() {
        hosted::client::Fork::Child(adopted) => {
            adopted.unwrap();
            send();
            // Neither waits.
            assert_eq!(word(start).fetch_add(1, Ordering::Relaxed), 6);
            std::process::exit(0);
        }
        hosted::client::Fork::Parent(child) => {
            assert_eq!(word(start).fetch_add(1, Ordering::Relaxed), 6);
            let child = nix::unistd::Pid::from_raw(child);
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    send();
    call::close(space).unwrap();
    call::close(card).unwrap();
}

fn what_is_given_up_stays_the_clients() {
    let mut daemon = Daemon::start();
    let client = daemon.client("is_let_down");
    daemon.serve_open(CARD);
    for round in 0..3 {
        let (space, call, range) = asked(&mut daemon);
        if round == 0 {
            // Nobody waits for the outcome.
            let ticket = daemon
                .pages
                .acquire(OWNER, SpaceFd::new(space), range)
                .unwrap();
            daemon.pages.abandon(ticket);
            wait_for(&mut daemon, ticket);
        } else {
            let set = acquire(&mut daemon, space, range).unwrap();
            daemon.pages.release_user(OWNER, set);
        }
        daemon.answer(&call, 0);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn wait_for(daemon: &mut Daemon, ticket: gem::pages::Ticket) {
    let end = Instant::now() + Duration::from_secs(20);
    let mut finished = Vec::new();
    while !finished.contains(&ticket) {
        assert!(Instant::now() < end, "nothing comes of giving up");
        daemon.pages.finished(&mut finished);
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn is_let_down() {
    let card = open("card");
    let start = memory(16, libc::MAP_PRIVATE);
    for round in 0..3 {
        word(start + PAGE).store(round, Ordering::Relaxed);
        register(card, start, 16 * PAGE).unwrap();
        // Nobody has to wait any more.
        let value = word(start + PAGE).fetch_add(1, Ordering::Relaxed);
        assert_eq!(value, round);
    }
    call::close(card).unwrap();
}

fn only_the_client_maps_its_pages_once_and_where_they_were() {
    let mut daemon = Daemon::start();
    let client = daemon.client("maps_wrongly");
    daemon.serve_open(CARD);
    let (space, call, range) = asked(&mut daemon);
    let set = acquire(&mut daemon, space, range).unwrap();
    daemon.answer(&call, FAKE);
    for _ in 0..3 {
        // The scheme agrees to all of them, and hears that they came to nothing.
        let map = daemon.expect(Opcode::MmapPrep);
        let window = daemon.pages.user_window(&set).unwrap();
        daemon.answer(&map, window.get() as u64);
        let unmap = daemon.expect(Opcode::Munmap);
        assert_eq!(unmap.args[1], map.args[1]);
        daemon.answer(&unmap, 0);
    }
    agree(&mut daemon, &set);
    let map = daemon.expect(Opcode::MmapPrep);
    let window = daemon.pages.user_window(&set).unwrap();
    daemon.answer(&map, window.get() as u64);
    let refused = told_of(&mut daemon, 0, 4);
    daemon.answer(&refused, 0);
    taken_back(&mut daemon, set, 0, 4);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn maps_wrongly() {
    let card = open("card");
    let start = memory(4, libc::MAP_PRIVATE);
    let elsewhere = memory(4, libc::MAP_PRIVATE);
    word(start).store(3, Ordering::Relaxed);
    let offset = register(card, start, 4 * PAGE).unwrap();
    assert_eq!(
        complete(card, elsewhere, 4 * PAGE, offset),
        Err(libc::EFAULT)
    );
    assert_eq!(complete(card, start, 3 * PAGE, offset), Err(libc::EFAULT));
    assert_eq!(
        complete(card, start + PAGE, 3 * PAGE, offset),
        Err(libc::EFAULT)
    );
    assert_eq!(complete(card, start, 4 * PAGE, offset), Ok(start));
    assert_eq!(complete(card, start, 4 * PAGE, offset), Err(libc::EFAULT));
    assert_eq!(word(start).load(Ordering::Relaxed), 3);
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), 4 * PAGE) };
    call::close(card).unwrap();
}

fn a_range_that_is_unmapped_too_early_is_lost() {
    let mut daemon = Daemon::start();
    let client = daemon.client("unmaps_too_early");
    daemon.serve_open(CARD);
    let (space, call, range) = asked(&mut daemon);
    let set = acquire(&mut daemon, space, range).unwrap();
    daemon.answer(&call, FAKE);
    agree(&mut daemon, &set);
    taken_back(&mut daemon, set, 0, 4);
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn unmaps_too_early() {
    let card = open("card");
    let start = memory(4, libc::MAP_PRIVATE);
    let offset = register(card, start, 4 * PAGE).unwrap();
    let end = ptr::with_exposed_provenance_mut(start + 3 * PAGE);
    // SAFETY: the last page, which nobody uses.
    unsafe { libc::munmap(end, PAGE) };
    assert_eq!(complete(card, start, 4 * PAGE, offset), Err(libc::EFAULT));
    word(start).store(1, Ordering::Relaxed);
    call::close(card).unwrap();
}

fn a_range_is_taken_over_again() {
    let mut daemon = Daemon::start();
    let client = daemon.client("registers_again");
    daemon.serve_open(CARD);
    for _ in 0..AGAIN {
        let set = take_over(&mut daemon);
        taken_back(&mut daemon, set, 0, 2);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

const AGAIN: u64 = 200;

fn registers_again() {
    let card = open("card");
    let start = memory(2, libc::MAP_PRIVATE);
    for round in 0..AGAIN {
        assert_eq!(word(start).load(Ordering::Relaxed), 0);
        word(start).store(round, Ordering::Relaxed);
        hand_over(card, start, 2 * PAGE);
        assert_eq!(word(start).load(Ordering::Relaxed), round);
        // New memory in the same place.
        // SAFETY: the range is this test's.
        unsafe {
            let address = ptr::with_exposed_provenance_mut(start);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            libc::mmap(address, 2 * PAGE, protection, kind, -1, 0);
        }
    }
    call::close(card).unwrap();
}

const VERY_MANY: u64 = 10_000;

fn ten_thousand_ranges_of_one_client() {
    let mut daemon = Daemon::start();
    let client = daemon.client("registers_very_many");
    daemon.serve_open(CARD);
    let sets: Vec<_> = (0..VERY_MANY).map(|_| take_over(&mut daemon)).collect();
    for set in sets {
        taken_back(&mut daemon, set, 0, 1);
    }
    daemon.expect_close(CARD);
    daemon.finish(client);
}

fn registers_very_many() {
    let card = open("card");
    let start = memory(2 * VERY_MANY as usize, libc::MAP_PRIVATE);
    let places = (0..VERY_MANY as usize).map(|place| start + 2 * place * PAGE);
    for place in places.clone() {
        hand_over(card, place, PAGE);
    }
    for place in places {
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(place), PAGE) };
    }
    call::close(card).unwrap();
}

fn a_closed_scheme_holds_up_no_unmapping() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client("unmaps_when_told");
    daemon.serve_open(CARD);
    let set = take_over(&mut daemon);
    assert_eq!(daemon.told_by(&mut client), "mapped");
    client.go();
    told_of(&mut daemon, 0, 2);
    // It is not answered, and never will be.
    call::close(daemon.socket.inner().raw()).unwrap();
    assert_eq!(daemon.told_by(&mut client), "unmapped");
    client.kill();
    daemon.pages.release_user(OWNER, set);
    std::process::exit(0);
}

fn unmaps_when_told() {
    let card = open("card");
    let start = memory(2, libc::MAP_PRIVATE);
    hand_over(card, start, 2 * PAGE);
    tell_daemon("mapped");
    wait_for_daemon();
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), 2 * PAGE) };
    tell_daemon("unmapped");
}
