//! Promises of the platform about clients' own pages, with `user-daemon` as the daemon and this
//! process as its client: what gemd builds userptr objects on.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

use initfs_tests::user::{
    ADD, DUP_OWN_SPACE, ECHO, LOCATE, READ, RELEASE, SET_OFFSET, TAKE, TAKE_AND_ABANDON, UNMAPPED,
};
use libredox::Fd;
use libredox::flag::O_RDWR;
use rt::fd::{self, Owned};
use rt::heap::map_anonymous;
use rt::process::{Command, Process};
use rt::protocol::THREAD_FD;
use syscall::data::Map;
use syscall::error::{EBADF, EFAULT, ENODEV, Result};
use syscall::flag::{ADDRSPACE_OP_TRANSFER, CallFlags, MapFlags, MremapFlags};
use syscall::{PAGE_SIZE, SYS_MREMAP, syscall5};

use crate::{Broken, Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "pages_taken_over_and_mapped_again_are_the_same_frames",
        keep: same_frames,
    },
    Promise {
        name: "pages_never_written_to_get_a_frame_of_their_own_before_anybody_writes",
        keep: untouched,
    },
    Promise {
        name: "a_copy_on_write_sibling_sees_no_write_to_pages_taken_over",
        keep: sibling,
    },
    Promise {
        name: "six_thousand_aliased_pages_are_taken_over_while_threads_write",
        keep: aliased,
    },
    Promise {
        name: "shared_memory_is_taken_over_where_all_of_it_is_there",
        keep: shared,
    },
    Promise {
        name: "what_is_no_address_space_is_refused_without_asking_anybody",
        keep: no_space,
    },
    Promise {
        name: "memory_that_is_not_ordinary_is_refused_and_stays_as_it_was",
        keep: not_ordinary,
    },
    Promise {
        name: "pages_that_nobody_asks_for_go_back",
        keep: abandoned,
    },
];

const ALL: MapFlags = MapFlags::PROT_READ.union(MapFlags::PROT_WRITE);

/// A running daemon, and a file of it; killed when dropped.
struct Daemon {
    process: Process,
    file: Fd,
}

impl Daemon {
    fn start() -> core::result::Result<Self, Broken> {
        let process = Command::new("user-daemon").spawn();
        let process = process.map_err(in_call("start the daemon"))?;
        loop {
            match Fd::open("/scheme/user/file", O_RDWR, 0) {
                Ok(file) => return Ok(Self { process, file }),
                Err(error) if error.errno() == ENODEV => {
                    let _ = syscall::sched_yield();
                }
                Err(error) => return Err(Broken::Call("open the daemon's file", error.into())),
            }
        }
    }

    fn call(&self, words: &[u64]) -> Result<u64> {
        syscall::call_rw(self.file.raw(), &mut [], CallFlags::empty(), words)
            .map(|answer| answer as u64)
    }

    fn ask(&self, what: &'static str, words: &[u64]) -> core::result::Result<u64, Broken> {
        self.call(words).map_err(in_call(what))
    }

    /// Sends an fd as the address space for what comes next.
    fn send(&self, space: Owned) -> Outcome {
        let space = space.into_raw();
        let sent = syscall::call_wo(self.file.raw(), &space.to_ne_bytes(), CallFlags::FD, &[0]);
        fd::release(space);
        sent.map(drop).map_err(in_call("send an fd"))
    }

    fn try_take(&self, space: Owned, address: usize, pages: usize) -> Result<u64> {
        if let Err(Broken::Call(_, error)) = self.send(space) {
            return Err(error);
        }
        self.call(&[TAKE, address as u64, pages as u64])
    }

    /// Has it take over pages of this process; the set.
    fn take(&self, address: usize, pages: usize) -> core::result::Result<u64, Broken> {
        self.try_take(own_space()?, address, pages)
            .map_err(in_call("have pages taken over"))
    }

    fn refuses(&self, what: &'static str, space: Owned, address: usize, errno: i32) -> Outcome {
        expect(
            what,
            self.try_take(space, address, 2)
                .map_err(|error| error.errno),
            Err(errno),
        )
    }

    /// Maps a set where it was.
    fn map(&self, set: u64, address: usize, pages: usize) -> Outcome {
        let map = Map {
            offset: (set * SET_OFFSET) as usize,
            size: pages * PAGE_SIZE,
            flags: ALL | MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
            address,
        };
        // SAFETY: what is replaced is what was taken over, or its aliases.
        let mapped = unsafe { syscall::fmap(self.file.raw(), &map) };
        expect(
            "where a set is mapped",
            mapped.map_err(|error| error.errno),
            Ok(address),
        )
    }

    fn release(&self, set: u64) -> Outcome {
        self.ask("release a set", &[RELEASE, set]).map(drop)
    }

    /// That it still answers, and takes pages over.
    fn is_well(&self) -> Outcome {
        expect("an echo", self.ask("call it", &[ECHO, 42])?, 42)?;
        let memory = Memory::new(1)?;
        memory.fill(7);
        let set = self.take(memory.address, 1)?;
        self.map(set, memory.address, 1)?;
        memory.expect_filled(7)?;
        self.release(set)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Memory of this process; unmapped when dropped.
struct Memory {
    address: usize,
    pages: usize,
}

impl Memory {
    fn new(pages: usize) -> core::result::Result<Self, Broken> {
        let address = map_anonymous(pages * PAGE_SIZE).map_err(in_call("map memory"))?;
        Ok(Self { address, pages })
    }

    fn shared(pages: usize) -> core::result::Result<Self, Broken> {
        let map = Map {
            offset: 0,
            size: pages * PAGE_SIZE,
            flags: ALL | MapFlags::MAP_SHARED,
            address: 0,
        };
        // SAFETY: without a fixed address the kernel maps where nothing is.
        let address = unsafe { syscall::fmap(!0, &map) };
        let address = address.map_err(in_call("map shared memory"))?;
        Ok(Self { address, pages })
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: mapped as long as this lives, and accessed atomically only.
        unsafe { AtomicU8::from_ptr((self.address + offset) as *mut u8) }
    }

    /// Writes to each page: its number and `seed`, added.
    fn fill(&self, seed: u8) {
        for page in 0..self.pages {
            self.byte(page * PAGE_SIZE + 5)
                .store(seed.wrapping_add(page as u8), SeqCst);
        }
    }

    fn expect_filled(&self, seed: u8) -> Outcome {
        for page in 0..self.pages {
            let is = self.byte(page * PAGE_SIZE + 5).load(SeqCst);
            expect("a byte of a page", is, seed.wrapping_add(page as u8))?;
        }
        Ok(())
    }

    /// The number of the frame of a page.
    fn frame(&self, page: usize) -> core::result::Result<u64, Broken> {
        frame(self.address + page * PAGE_SIZE)
    }

    /// Another mapping of the same pages.
    fn alias(&self) -> core::result::Result<Self, Broken> {
        let hole = Self::new(self.pages)?;
        let (address, pages) = (hole.address, hole.pages);
        drop(hole);
        let flags = (MremapFlags::KEEP_OLD | MremapFlags::FIXED).bits() | ALL.bits();
        for page in 0..pages {
            let (from, to) = (self.address + page * PAGE_SIZE, address + page * PAGE_SIZE);
            // SAFETY: nothing is at the target, where this is the only thread that maps.
            let aliased = unsafe { syscall5(SYS_MREMAP, from, PAGE_SIZE, to, PAGE_SIZE, flags) };
            aliased.map_err(in_call("alias a page"))?;
        }
        Ok(Self { address, pages })
    }

    /// Says that something else has taken it.
    fn forget(self) {
        core::mem::forget(self);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from it any more.
        let _ = unsafe { syscall::funmap(self.address, self.pages * PAGE_SIZE) };
    }
}

fn frame(address: usize) -> core::result::Result<u64, Broken> {
    crate::pages::locate(address as u64).map(|place| place / PAGE_SIZE as u64)
}

fn own_space() -> core::result::Result<Owned, Broken> {
    let space = fd::dup(THREAD_FD, b"addrspace").map_err(in_call("open the address space"))?;
    Ok(Owned::new(space))
}

fn same_frames() -> Outcome {
    let daemon = Daemon::start()?;
    for pages in [1, 2, 256, 257, 1000] {
        let memory = Memory::new(pages)?;
        memory.fill(1);
        let frames: Vec<u64> = (0..pages)
            .map(|page| memory.frame(page))
            .collect::<core::result::Result<_, _>>()?;
        let set = daemon.take(memory.address, pages)?;
        daemon.map(set, memory.address, pages)?;
        memory.expect_filled(1)?;
        let mut some = Vec::from([0, pages / 2, pages - 1]);
        some.dedup();
        for page in some {
            expect("a page's frame", memory.frame(page)?, frames[page])?;
            let located = daemon.ask("locate a page", &[LOCATE, set, page as u64])?;
            expect("where the daemon finds it", located, frames[page])?;
            let offset = page * PAGE_SIZE + 5;
            let read = daemon.ask("read a byte", &[READ, set, offset as u64])?;
            expect("what the daemon reads", read, u64::from(1 + page as u8))?;
            daemon.ask("write a byte", &[ADD, set, offset as u64])?;
            expect(
                "what it wrote",
                memory.byte(offset).load(SeqCst),
                2 + page as u8,
            )?;
        }
        let before = daemon.ask("ask", &[UNMAPPED])?;
        daemon.release(set)?;
        let frame = frames[0];
        expect("the frame, released", memory.frame(0)?, frame)?;
        memory.byte(0).store(9, SeqCst);
        drop(memory);
        let unmapped = daemon.ask("ask", &[UNMAPPED])? - before;
        expect("pages the daemon was told of", unmapped, pages as u64)?;
    }
    Ok(())
}

fn untouched() -> Outcome {
    let daemon = Daemon::start()?;
    // The kernel's zero page.
    let fresh = Memory::new(1)?;
    let zero = fresh.frame(0)?;
    for located_first in [true, false] {
        let pages = 40;
        let memory = Memory::new(pages)?;
        expect("a fresh page's frame", memory.frame(0)?, zero)?;
        let set = daemon.take(memory.address, pages)?;
        if located_first {
            daemon.ask("locate a page", &[LOCATE, set, 0])?;
        }
        daemon.map(set, memory.address, pages)?;
        for page in 0..pages {
            let located = daemon.ask("locate a page", &[LOCATE, set, page as u64])?;
            expect("whether it is the zero page", located == zero, false)?;
            expect("the client's frame", memory.frame(page)?, located)?;
            daemon.ask("write", &[ADD, set, (page * PAGE_SIZE) as u64])?;
            expect(
                "what was written",
                memory.byte(page * PAGE_SIZE).load(SeqCst),
                1,
            )?;
        }
        expect("the zero page", fresh.byte(0).load(SeqCst), 0)?;
        daemon.release(set)?;
    }
    let other = Memory::new(1)?;
    expect("a fresh page", other.byte(0).load(SeqCst), 0)
}

/// A copy of this process's address space, as `fork` makes it.
fn clone_space() -> core::result::Result<Owned, Broken> {
    own_space()?
        .dup(b"exclusive")
        .map_err(in_call("clone the address space"))
}

/// Moves pages of another address space here.
fn fetch(space: &Owned, address: usize, pages: usize) -> core::result::Result<Memory, Broken> {
    let words = [
        ADDRSPACE_OP_TRANSFER,
        space.raw(),
        address,
        0,
        pages * PAGE_SIZE,
        MapFlags::PROT_READ.bits(),
    ];
    // SAFETY: any words are bytes.
    let bytes =
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(&words)) };
    let address = syscall::write(own_space()?.raw(), bytes).map_err(in_call("fetch pages"))?;
    Ok(Memory { address, pages })
}

fn sibling() -> Outcome {
    let daemon = Daemon::start()?;
    for (located_first, alias) in [(true, false), (false, false), (false, true)] {
        let memory = Memory::new(3)?;
        memory.fill(1);
        let sibling = clone_space()?;
        let source = if alias { Some(memory.alias()?) } else { None };
        let address = source
            .as_ref()
            .map_or(memory.address, |alias| alias.address);
        let set = daemon.take(address, 3)?;
        if located_first {
            daemon.ask("locate a page", &[LOCATE, set, 0])?;
            daemon.ask("write", &[ADD, set, 5])?;
        }
        daemon.map(set, memory.address, 3)?;
        if let Some(source) = source {
            source.forget();
        }
        for page in 0..3 {
            daemon.ask("write", &[ADD, set, page * PAGE_SIZE as u64 + 5])?;
            daemon.ask("locate a page", &[LOCATE, set, page])?;
            daemon.ask("write", &[ADD, set, page * PAGE_SIZE as u64 + 5])?;
        }
        memory.byte(6).store(77, SeqCst);
        let theirs = fetch(&sibling, memory.address, 3)?;
        theirs.expect_filled(1)?;
        expect("a byte written later", theirs.byte(6).load(SeqCst), 0)?;
        let more = u8::from(located_first);
        expect("the client's own", memory.byte(5).load(SeqCst), 3 + more)?;
        daemon.release(set)?;
    }
    Ok(())
}

fn aliased() -> Outcome {
    const PAGES: usize = 6000;
    let daemon = Daemon::start()?;
    let memory = Arc::new(Memory::new(PAGES)?);
    memory.fill(3);
    let stop = Arc::new(AtomicBool::new(false));
    let (shared, ends) = (memory.clone(), stop.clone());
    let writer = rt::thread::spawn(move || {
        let mut round = 0_u32;
        while !ends.load(SeqCst) {
            // A counter in each of some pages: none may lose an addition.
            for page in (0..PAGES).step_by(997) {
                shared.byte(page * PAGE_SIZE + 9).fetch_add(1, SeqCst);
            }
            round += 1;
            shared.byte(17).store(round as u8, SeqCst);
        }
    });
    let writer = writer.map_err(in_call("start a thread"))?;
    let alias = memory.alias()?;
    let set = daemon.take(alias.address, PAGES)?;
    alias.forget();
    daemon.map(set, memory.address, PAGES)?;
    daemon.ask("locate a page", &[LOCATE, set, 5999])?;
    stop.store(true, SeqCst);
    writer.join();
    let rounds = memory.byte(17).load(SeqCst);
    for page in (0..PAGES).step_by(997) {
        let count = memory.byte(page * PAGE_SIZE + 9).load(SeqCst);
        expect("additions in a page", count, rounds)?;
    }
    memory.expect_filled(3)?;
    daemon.release(set)
}

fn shared() -> Outcome {
    let daemon = Daemon::start()?;
    let memory = Memory::shared(300)?;
    daemon.refuses(
        "untouched shared memory",
        own_space()?,
        memory.address,
        EFAULT,
    )?;
    expect("an untouched byte", memory.byte(0).load(SeqCst), 0)?;
    memory.fill(5);
    let set = daemon.take(memory.address, 300)?;
    daemon.map(set, memory.address, 300)?;
    memory.expect_filled(5)?;
    let located = daemon.ask("locate a page", &[LOCATE, set, 299])?;
    expect("a page's frame", memory.frame(299)?, located)?;
    daemon.release(set)?;
    daemon.is_well()
}

fn no_space() -> Outcome {
    let daemon = Daemon::start()?;
    let memory = Memory::new(2)?;
    memory.fill(1);
    let smoke = crate::smoke::Daemon::start()?;
    let dup =
        |fd: usize, request: &[u8]| fd::dup(fd, request).map(Owned::new).map_err(in_call("dup"));
    let fds = [
        ("a file of another scheme", dup(smoke.file.raw(), &[])?),
        ("a file of its own", dup(daemon.file.raw(), &[])?),
        ("a file of the kernel's", dup(rt::protocol::DEBUG_FD, &[])?),
        ("a thread", dup(THREAD_FD, &[])?),
        ("a table of files", dup(THREAD_FD, b"filetable")?),
        ("signal handlers", dup(THREAD_FD, b"sighandler")?),
    ];
    for (what, fd) in fds {
        daemon.refuses(what, fd, memory.address, EBADF)?;
    }
    let own = dup(daemon.file.raw(), DUP_OWN_SPACE)?;
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

fn abandoned() -> Outcome {
    let daemon = Daemon::start()?;
    for pages in [1, 600] {
        let memory = Memory::new(pages)?;
        memory.fill(1);
        for _ in 0..20 {
            daemon.send(own_space()?)?;
            let words = [TAKE_AND_ABANDON, memory.address as u64, pages as u64];
            daemon.ask("take and abandon", &words)?;
            memory.expect_filled(1)?;
        }
    }
    daemon.is_well()
}
