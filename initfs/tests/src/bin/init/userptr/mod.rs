//! Promises of the platform about clients' own pages, with `user-daemon` as the daemon and this
//! process as its client: what gemd builds userptr objects on.

mod abuse;
mod releases;
mod taking;

use core::ops::Deref;
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};

use initfs_tests::user::{ECHO, RELEASE, SET_OFFSET, TAKE};
use libredox::Fd;
use libredox::flag::O_RDWR;
use rt::fd::{self, Owned};
use rt::heap::map_anonymous;
use rt::process::{Command, Process};
use rt::protocol::THREAD_FD;
use syscall::data::Map;
use syscall::error::{ENODEV, Result};
use syscall::flag::{ADDRSPACE_OP_MMAP, ADDRSPACE_OP_TRANSFER, CallFlags, MapFlags, MremapFlags};
use syscall::{PAGE_SIZE, SYS_MREMAP, syscall5};

use crate::{Broken, Outcome, Promise, expect, in_call};

/// All of them.
pub fn promises() -> impl Iterator<Item = &'static Promise> {
    let of_platform = taking::PROMISES.iter().chain(abuse::PROMISES);
    of_platform.chain(releases::PROMISES)
}

const ALL: MapFlags = MapFlags::PROT_READ.union(MapFlags::PROT_WRITE);

/// A running daemon, and a file of it that is root's; killed when dropped.
struct Daemon {
    process: Process,
    file: File,
}

/// A file of the daemon's, through which a user has pages taken over.
struct File(Fd);

impl Daemon {
    fn start() -> core::result::Result<Self, Broken> {
        let process = Command::new("user-daemon").spawn();
        let process = process.map_err(in_call("start the daemon"))?;
        loop {
            match File::open(0) {
                Ok(file) => return Ok(Self { process, file }),
                Err(Broken::Call(_, error)) if error.errno == ENODEV => {
                    let _ = syscall::sched_yield();
                }
                Err(other) => return Err(other),
            }
        }
    }
}

impl Deref for Daemon {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl File {
    /// Opens one for this user, or for whom the caller says that he is.
    fn open(uid: u32) -> core::result::Result<Self, Broken> {
        Fd::open(&alloc::format!("/scheme/user/{uid}"), O_RDWR, 0)
            .map(Self)
            .map_err(|error| Broken::Call("open the daemon's file", error.into()))
    }

    fn raw(&self) -> usize {
        self.0.raw()
    }

    fn call(&self, words: &[u64]) -> Result<u64> {
        syscall::call_rw(self.raw(), &mut [], CallFlags::empty(), words).map(|answer| answer as u64)
    }

    fn ask(&self, what: &'static str, words: &[u64]) -> core::result::Result<u64, Broken> {
        self.call(words).map_err(in_call(what))
    }

    /// Sends an fd as the address space for what comes next.
    fn send(&self, space: Owned) -> Outcome {
        let space = space.into_raw();
        let sent = syscall::call_wo(self.raw(), &space.to_ne_bytes(), CallFlags::FD, &[0]);
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

    /// That it does not take over two pages there.
    fn refuses(&self, what: &'static str, space: Owned, address: usize, errno: i32) -> Outcome {
        let refused = self.try_take(space, address, 2);
        expect(what, refused.map_err(|error| error.errno), Err(errno))
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
        let mapped = unsafe { syscall::fmap(self.raw(), &map) };
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
pub struct Memory {
    pub address: usize,
    pub pages: usize,
}

impl Memory {
    pub fn new(pages: usize) -> core::result::Result<Self, Broken> {
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
    pub fn fill(&self, seed: u8) {
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

/// A copy of this process's address space, as `fork` makes it.
fn clone_space() -> core::result::Result<Owned, Broken> {
    own_space()?
        .dup(b"exclusive")
        .map_err(in_call("clone the address space"))
}

/// Moves pages of one address space to another; where they are.
fn transfer(
    to: &Owned,
    from: &Owned,
    source: usize,
    target: usize,
    pages: usize,
) -> core::result::Result<usize, Broken> {
    operate(
        ADDRSPACE_OP_TRANSFER,
        to,
        from,
        source,
        target,
        pages,
        MapFlags::PROT_READ,
    )
}

/// Maps pages of one address space in another one, too; where they are.
fn borrow(
    to: &Owned,
    from: &Owned,
    source: usize,
    pages: usize,
) -> core::result::Result<usize, Broken> {
    operate(ADDRSPACE_OP_MMAP, to, from, source, 0, pages, ALL)
}

fn operate(
    operation: usize,
    to: &Owned,
    from: &Owned,
    source: usize,
    target: usize,
    pages: usize,
    flags: MapFlags,
) -> core::result::Result<usize, Broken> {
    let words = [
        operation,
        from.raw(),
        source,
        target,
        pages * PAGE_SIZE,
        flags.bits(),
    ];
    // SAFETY: any words are bytes.
    let bytes =
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(&words)) };
    syscall::write(to.raw(), bytes).map_err(in_call("move or borrow pages"))
}
