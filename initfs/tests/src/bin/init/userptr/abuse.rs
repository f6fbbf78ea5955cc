//! Promises about what is no ordinary memory, and about clients that mean no good.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use core::time::Duration;

use initfs_tests::user::{DUP_OWN_SPACE, ECHO, LOCATE, READ, TAKE};
use libredox::Fd;
use libredox::call::MmapArgs;
use libredox::flag::{MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_READ, PROT_WRITE};
use rt::fd::{self, Owned};
use rt::process::Command;
use rt::protocol::{Ended, FIRST_HANDED_FD, THREAD_FD};
use rt::socket::Socket;
use rt::time::sleep;
use syscall::PAGE_SIZE;
use syscall::data::Map;
use syscall::error::{EBADF, EFAULT};
use syscall::flag::{CallFlags, MapFlags};
use syscall::schemev2::Opcode;

use super::{ALL, Daemon, File, Memory, borrow, clone_space, own_space, transfer};
use crate::smoke::{self, number};
use crate::{Broken, Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "what_is_no_address_space_is_refused_without_asking_anybody",
        keep: no_space,
    },
    Promise {
        name: "memory_that_is_not_ordinary_is_refused_and_stays_as_it_was",
        keep: not_ordinary,
    },
    Promise {
        name: "another_schemes_memory_and_a_devices_are_refused_and_stay_as_they_were",
        keep: foreign,
    },
    Promise {
        name: "memory_borrowed_from_another_address_space_harms_nobody",
        keep: borrowed,
    },
    Promise {
        name: "pages_that_are_lent_for_a_call_can_be_taken_over",
        keep: lent,
    },
    Promise {
        name: "memory_that_changes_while_it_is_taken_over_harms_nobody",
        keep: changing,
    },
    Promise {
        name: "taking_over_and_mapping_at_once_do_not_wait_for_each_other",
        keep: both_ways,
    },
    Promise {
        name: "who_makes_a_worker_wait_for_ever_delays_nobody_else_for_long",
        keep: stuck,
    },
];

fn no_space() -> Outcome {
    let daemon = Daemon::start()?;
    let memory = Memory::new(2)?;
    memory.fill(1);
    let smoke = smoke::Daemon::start()?;
    let creation = Fd::open("/scheme/namespace/scheme-creation-cap", O_RDONLY, 0);
    let creation = creation.map_err(|error| Broken::Call("open a capability", error.into()))?;
    let silent = Socket::new(creation.raw()).map_err(in_call("make a scheme"))?;
    silent
        .set_waiting(false)
        .map_err(in_call("set a socket's flags"))?;
    let of_silent = silent.file(1).map_err(in_call("make a file"))?;
    let dup =
        |fd: usize, request: &[u8]| fd::dup(fd, request).map(Owned::new).map_err(in_call("dup"));
    let fds = [
        ("a file of a scheme that never answers", of_silent),
        ("a file of another scheme", dup(smoke.file.raw(), &[])?),
        ("a file of its own", dup(daemon.raw(), &[])?),
        ("a file of the kernel's", dup(rt::protocol::DEBUG_FD, &[])?),
        ("a thread", dup(THREAD_FD, &[])?),
        ("a table of files", dup(THREAD_FD, b"filetable")?),
        ("signal handlers", dup(THREAD_FD, b"sighandler")?),
    ];
    for (what, fd) in fds {
        daemon.refuses(what, fd, memory.address, EBADF)?;
    }
    // All that it has heard is that its file is closed.
    while let Some(sqe) = silent.receive().map_err(in_call("receive a request"))? {
        let opcode = Opcode::try_from_raw(sqe.opcode);
        expect(
            "what it is asked",
            opcode.map(|it| it as u8),
            Some(Opcode::CloseMsg as u8),
        )?;
    }
    let own = dup(daemon.raw(), DUP_OWN_SPACE)?;
    daemon.refuses("its own address space", own, memory.address, EFAULT)?;
    expect(
        "without a space",
        daemon.call(&[TAKE, 0, 1]).map_err(|error| error.errno),
        Err(EBADF),
    )?;
    memory.expect_filled(1)?;
    daemon.is_well()
}

fn not_ordinary() -> Outcome {
    let daemon = Daemon::start()?;
    // Nothing there.
    let memory = Memory::new(2)?;
    let nothing = memory.address;
    drop(memory);
    daemon.refuses("nothing", own_space()?, nothing, EFAULT)?;
    // A hole behind a page.
    let memory = Memory::new(2)?;
    memory.fill(1);
    // SAFETY: nobody uses it.
    let _ = unsafe { syscall::funmap(memory.address + PAGE_SIZE, PAGE_SIZE) };
    daemon.refuses("a hole", own_space()?, memory.address, EFAULT)?;
    expect("the page before it", memory.byte(5).load(SeqCst), 1)?;
    memory.byte(5).store(2, SeqCst);
    drop(memory);
    // A mapping of the daemon's.
    let memory = Memory::new(2)?;
    memory.fill(1);
    let set = daemon.take(memory.address, 2)?;
    daemon.map(set, memory.address, 2)?;
    daemon.refuses("a mapping of its own", own_space()?, memory.address, EFAULT)?;
    memory.expect_filled(1)?;
    memory.byte(5).store(3, SeqCst);
    expect(
        "what the daemon reads",
        daemon.ask("read", &[READ, set, 5])?,
        3,
    )?;
    daemon.release(set)?;
    drop(memory);
    // Beyond what there is.
    for (address, pages) in [
        (0, 1),
        (0x1000, 1),
        (0x7fff_ffff_f000, 1),
        (0x7fff_ffff_f000, 2),
        (1 << 63, 1),
        (usize::MAX - 4095, 1),
        (5, 1),
        (PAGE_SIZE * 16, 0),
    ] {
        let refused = daemon.try_take(own_space()?, address, pages);
        expect(
            "a place beyond",
            refused.map_err(|error| error.errno),
            Err(EFAULT),
        )?;
    }
    daemon.is_well()
}

/// Maps two pages of an fd.
fn map(fd: &Fd, flags: i32, offset: u64, pages: usize) -> Result<Memory, Broken> {
    let args = MmapArgs {
        addr: core::ptr::null_mut(),
        length: pages * PAGE_SIZE,
        prot: (PROT_READ | PROT_WRITE) as _,
        flags: flags as _,
        fd: fd.raw(),
        offset,
    };
    // SAFETY: nothing is at a null address that the kernel could replace.
    let address = unsafe { libredox::call::mmap(args) };
    let address = address.map_err(|error| Broken::Call("map", error.into()))?;
    Ok(Memory {
        address: address as usize,
        pages,
    })
}

fn foreign() -> Outcome {
    let daemon = Daemon::start()?;
    let smoke = smoke::Daemon::start()?;
    let page = map(&smoke.file, MAP_SHARED as _, 0, 1)?;
    for _ in 0..3 {
        let refused = daemon.try_take(own_space()?, page.address, 1);
        expect(
            "another scheme's page",
            refused.map_err(|error| error.errno),
            Err(EFAULT),
        )?;
        // The first write would hang if it were not as writeable as before.
        page.byte(64).fetch_add(1, SeqCst);
    }
    expect("a byte of it", page.byte(64).load(SeqCst), 3)?;
    drop(page);
    expect("bytes mapped", smoke.ask(&[number::MAPPED_BYTES])?, 0)?;

    let open = |path| {
        Fd::open(path, O_RDONLY, 0).map_err(|error| Broken::Call("open memory", error.into()))
    };
    let whole = map(
        &open("/scheme/memory/zeroed@wb?phys_contiguous")?,
        MAP_PRIVATE as _,
        0,
        2,
    )?;
    whole.fill(1);
    let frames = [whole.frame(0)?, whole.frame(1)?];
    daemon.refuses("contiguous memory", own_space()?, whole.address, EFAULT)?;
    whole.expect_filled(1)?;
    expect("its frames", [whole.frame(0)?, whole.frame(1)?], frames)?;

    // The text screen, which no memory map calls memory.
    let screen = map(
        &open("/scheme/memory/physical@uc")?,
        MAP_SHARED as _,
        0xb8000,
        2,
    )?;
    screen.byte(0).store(65, SeqCst);
    daemon.refuses("a device's memory", own_space()?, screen.address, EFAULT)?;
    screen.byte(0).store(66, SeqCst);
    expect("a byte of the screen", screen.byte(0).load(SeqCst), 66)?;

    let read_only = Memory::new(2)?;
    read_only.fill(4);
    // SAFETY: only this function uses it.
    let protect = |protection| unsafe {
        syscall::mprotect(read_only.address, 2 * PAGE_SIZE, protection)
            .map_err(in_call("change a protection"))
    };
    protect(MapFlags::PROT_READ)?;
    daemon.refuses("read-only memory", own_space()?, read_only.address, EFAULT)?;
    read_only.expect_filled(4)?;
    protect(ALL)?;
    read_only.fill(5);
    read_only.expect_filled(5)?;
    daemon.is_well()
}

fn borrowed() -> Outcome {
    let daemon = Daemon::start()?;
    let own = own_space()?;
    let empty = || own.dup(b"empty").map_err(in_call("make an address space"));
    // Of another space, where the pages are there.
    let other = empty()?;
    let memory = Memory::new(2)?;
    memory.fill(1);
    let there = transfer(&other, &own, memory.address, 0x7000_0000_0000, 2)?;
    memory.forget();
    let here = Memory {
        address: borrow(&own, &other, there, 2)?,
        pages: 2,
    };
    here.expect_filled(1)?;
    let set = daemon.take(here.address, 2)?;
    daemon.map(set, here.address, 2)?;
    here.expect_filled(1)?;
    daemon.ask("locate a page", &[LOCATE, set, 0])?;
    daemon.release(set)?;
    drop(here);
    // The last reference of the other space may now be the daemon's.
    drop(other);
    daemon.is_well()?;

    // Of another space, where they are not, and which goes away meanwhile.
    let other = empty()?;
    let memory = Memory::new(40)?;
    let there = transfer(&other, &own, memory.address, 0x7000_0000_0000, 40)?;
    memory.forget();
    let here = Memory {
        address: borrow(&own, &other, there, 40)?,
        pages: 40,
    };
    let refused = daemon.try_take(own_space()?, here.address, 40);
    expect(
        "pages not there",
        refused.map_err(|error| error.errno),
        Err(EFAULT),
    )?;
    drop(other);
    drop(here);

    // A space that borrows from this one: its pages would be looked for here, while the kernel has
    // this space locked to map them.
    let memory = Memory::new(40)?;
    let other = empty()?;
    let theirs = borrow(&other, &own, memory.address, 40)?;
    let refused = daemon.try_take(other, theirs, 40);
    expect(
        "pages of this space",
        refused.map_err(|error| error.errno),
        Err(EFAULT),
    )?;
    drop(memory);

    // Somebody else's: what they had comes here, as whoever has their space could do anyway.
    let memory = Memory::new(2)?;
    memory.fill(1);
    let theirs = clone_space()?;
    memory.fill(9);
    let set = daemon
        .try_take(theirs, memory.address, 2)
        .map_err(in_call("take over a copy's pages"))?;
    memory.expect_filled(9)?;
    daemon.map(set, memory.address, 2)?;
    memory.expect_filled(1)?;
    daemon.release(set)?;

    // Twice.
    let memory = Memory::new(2)?;
    memory.fill(3);
    let set = daemon.take(memory.address, 2)?;
    daemon.refuses("pages that are gone", own_space()?, memory.address, EFAULT)?;
    daemon.map(set, memory.address, 2)?;
    memory.expect_filled(3)?;
    daemon.release(set)?;
    daemon.is_well()
}

fn lent() -> Outcome {
    let daemon = Daemon::start()?;
    let smoke = Arc::new(smoke::Daemon::start()?);
    let memory = Arc::new(Memory::new(2)?);
    memory.fill(1);
    let (lender, borrower) = (memory.clone(), smoke.clone());
    let caller = rt::thread::spawn(move || {
        // SAFETY: two pages that live as long as the call; what is in them is of no interest.
        let payload =
            unsafe { core::slice::from_raw_parts_mut(lender.address as *mut u8, 2 * PAGE_SIZE) };
        let words = [number::WAIT];
        let _ = syscall::call_rw(borrower.file.raw(), payload, CallFlags::empty(), &words);
    });
    let caller = caller.map_err(in_call("start a thread"))?;
    while smoke.ask(&[number::WAITING])? == 0 {
        let _ = syscall::sched_yield();
    }
    let set = daemon.take(memory.address, 2)?;
    expect(
        "what the daemon reads",
        daemon.ask("read", &[READ, set, 5])?,
        1,
    )?;
    daemon.ask("locate a page", &[LOCATE, set, 1])?;
    // Mapping the set there before the call is answered would end the kernel, as mapping anything
    // else of a scheme's would.
    smoke.ask(&[number::ANSWER_ALL])?;
    caller.join();
    daemon.map(set, memory.address, 2)?;
    memory.expect_filled(1)?;
    daemon.release(set)?;
    daemon.is_well()
}

fn changing() -> Outcome {
    const ROUNDS: usize = 300;
    let daemon = Daemon::start()?;
    let other = Memory::new(1)?;
    let set = daemon.take(other.address, 1)?;
    daemon.map(set, other.address, 1)?;
    let memory = Memory::new(3)?;
    memory.fill(0);
    let stop = Arc::new(AtomicBool::new(false));
    let (ends, middle, file) = (stop.clone(), memory.address + PAGE_SIZE, daemon.raw());
    let changer = rt::thread::spawn(move || {
        let mut round = 0;
        while !ends.load(SeqCst) {
            round += 1;
            let (flags, fd) = match round % 4 {
                // A mapping of the daemon's, shared memory, private memory, nothing.
                0 => (MapFlags::MAP_SHARED, file),
                1 => (MapFlags::MAP_SHARED, !0),
                _ => (MapFlags::MAP_PRIVATE, !0),
            };
            let map = Map {
                offset: if fd == !0 {
                    0
                } else {
                    (set * super::SET_OFFSET) as usize
                },
                size: PAGE_SIZE,
                flags: ALL | MapFlags::MAP_FIXED | flags,
                address: middle,
            };
            // SAFETY: the page is nobody else's.
            unsafe {
                if round % 4 == 3 {
                    let _ = syscall::funmap(middle, PAGE_SIZE);
                } else {
                    let _ = syscall::fmap(fd, &map);
                }
            }
            // Each state is met by some round.
            if round % 3 == 0 {
                let _ = syscall::sched_yield();
            }
        }
    });
    let changer = changer.map_err(in_call("start a thread"))?;
    let mut taken = 0;
    for round in 0..ROUNDS {
        for _ in 0..round % 5 {
            let _ = syscall::sched_yield();
        }
        // Whatever comes of it.
        match daemon.try_take(own_space()?, memory.address, 3) {
            Ok(set) => {
                taken += 1;
                daemon.map(set, memory.address, 3)?;
                daemon.release(set)?;
            }
            Err(error) => expect("why it is refused", error.errno, EFAULT)?,
        }
        let map = Map {
            offset: 0,
            size: 3 * PAGE_SIZE,
            flags: ALL | MapFlags::MAP_FIXED | MapFlags::MAP_PRIVATE,
            address: memory.address,
        };
        // SAFETY: the pages are nobody else's.
        unsafe { syscall::fmap(!0, &map) }.map_err(in_call("map fresh memory"))?;
    }
    stop.store(true, SeqCst);
    changer.join();
    daemon.release(set)?;
    rt::say!("# {taken} of {ROUNDS} were taken over");
    daemon.is_well()
}

fn both_ways() -> Outcome {
    const ROUNDS: usize = 400;
    let daemon = Arc::new(Daemon::start()?);
    let mapped = Memory::new(64)?;
    let set = daemon.take(mapped.address, 64)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for number in 0..2 {
        let (ends, daemon) = (stop.clone(), daemon.clone());
        let thread = rt::thread::spawn(move || {
            let lent = Memory::new(16).expect("memory");
            lent.fill(1);
            while !ends.load(SeqCst) {
                // Both lock the daemon's address space, then this one.
                if number == 0 {
                    let map = Map {
                        offset: (set * super::SET_OFFSET) as usize,
                        size: 64 * PAGE_SIZE,
                        flags: ALL | MapFlags::MAP_SHARED,
                        address: 0,
                    };
                    // SAFETY: mapped where nothing is, and not used.
                    unsafe {
                        let address = syscall::fmap(daemon.raw(), &map).expect("a mapping");
                        let _ = syscall::funmap(address, 64 * PAGE_SIZE);
                    }
                } else {
                    // SAFETY: this thread's own pages.
                    let payload = unsafe {
                        core::slice::from_raw_parts_mut(lent.address as *mut u8, 16 * PAGE_SIZE)
                    };
                    let words = [ECHO, 5];
                    let echo = syscall::call_rw(daemon.raw(), payload, CallFlags::empty(), &words);
                    assert_eq!(echo, Ok(5));
                }
            }
        });
        threads.push(thread.map_err(in_call("start a thread"))?);
    }
    let memory = Memory::new(300)?;
    memory.fill(1);
    for _ in 0..ROUNDS {
        let set = daemon.take(memory.address, 300)?;
        daemon.map(set, memory.address, 300)?;
        daemon.release(set)?;
        // What is mapped now is the daemon's; give the range fresh memory.
        let map = Map {
            offset: 0,
            size: 300 * PAGE_SIZE,
            flags: ALL | MapFlags::MAP_FIXED | MapFlags::MAP_PRIVATE,
            address: memory.address,
        };
        // SAFETY: the pages are nobody else's.
        unsafe { syscall::fmap(!0, &map) }.map_err(in_call("map fresh memory"))?;
    }
    stop.store(true, SeqCst);
    for thread in threads {
        thread.join();
    }
    daemon.release(set)?;
    daemon.is_well()
}

/// A file with the address space of a process that is dead but for that, with a mapping of a daemon that
/// will not answer when it is told that it goes.
pub(super) fn dead_space() -> Result<File, Broken> {
    let file = File::open(1000)?;
    let client = Command::new("smoke-client")
        .argument("space")
        .hand(file.raw(), FIRST_HANDED_FD);
    let client = client.spawn().map_err(in_call("start a client"))?;
    let ended = client.wait().map_err(in_call("wait for a client"))?;
    expect("how the client ended", ended, Ended::Exited(0))?;
    Ok(file)
}

/// How many of one user's jobs may be lost before the user's others wait.
const LOST_PER_USER: usize = 4;

fn stuck() -> Outcome {
    let daemon = Daemon::start()?;
    let smoke = smoke::Daemon::start()?;
    let mut spaces = Vec::new();
    for _ in 0..=LOST_PER_USER {
        spaces.push(dead_space()?);
    }
    smoke.ask(&[number::KEEP_UNMAPPINGS])?;
    let mut threads = Vec::new();
    for file in spaces {
        let thread = rt::thread::spawn(move || {
            // Nothing is there: refused, but for the fd that has to be closed first.
            let refused = file.call(&[TAKE, 0x6000_0000_0000, 1]);
            assert_eq!(refused.map_err(|error| error.errno), Err(EFAULT));
        });
        threads.push(thread.map_err(in_call("start a thread"))?);
    }
    // Somebody else has to wait a while for each, but not for the last: that one is not begun.
    for _ in 0..2 * LOST_PER_USER {
        daemon.is_well()?;
    }
    sleep(Duration::from_millis(100));
    expect(
        "unmappings that wait",
        smoke.ask(&[number::WAITING])?,
        LOST_PER_USER,
    )?;
    smoke.ask(&[number::ANSWER_ALL])?;
    // Who comes back sees to what waited.
    for thread in threads {
        thread.join();
    }
    daemon.is_well()?;
    let file = File::open(1000)?;
    let memory = Memory::new(1)?;
    let set = file.take(memory.address, 1)?;
    file.release(set)
}
