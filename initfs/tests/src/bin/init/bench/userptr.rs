//! A client's own pages, beside the kernel's own steps for the same range: `bare-daemon` and a client
//! that does nothing but those.
//!
//! The bare steps are what no server can do without: the client opens its address space, aliases the
//! pages (or not), sends the fd; the daemon obtains it, moves the pages, closes it, answers; the
//! client asks for its handle and maps the pages where they were. To end it, a call or an unmapping,
//! whereupon the daemon unmaps its own mapping before it answers. Aliases are in the same place for
//! both.

use core::ptr::NonNull;

use gem_client::{Card, Node, Register};
use initfs_tests::bare::{CLAIM, PAGES_BITS, RELEASE};
use libredox::Fd;
use libredox::flag::O_RDWR;
use rt::fd;
use rt::process::{Command, Process};
use rt::protocol::THREAD_FD;
use syscall::data::Map;
use syscall::error::ENODEV;
use syscall::flag::{CallFlags, MapFlags, MremapFlags};
use syscall::{PAGE_SIZE, SYS_MREMAP, syscall5};

use super::rows::{call, of_client};
use super::{Meter, Row};
use crate::scheme::Gemd;
use crate::userptr::Memory;
use crate::{Broken, Outcome, in_call};

macro_rules! rows {
    ($($pages:literal),*) => {
        /// All of them.
        pub const ROWS: &[Row] = &[$(
            row(concat!("userptr-alias-", $pages), register::<$pages, true>),
            row(concat!("userptr-alias-", $pages, "-bare"), bare_register::<$pages, true>),
            row(concat!("userptr-exclusive-", $pages), register::<$pages, false>),
            row(concat!("userptr-exclusive-", $pages, "-bare"), bare_register::<$pages, false>),
            row(concat!("userptr-munmap-", $pages), unmap::<$pages>),
            row(concat!("userptr-munmap-", $pages, "-bare"), bare_unmap::<$pages>),
        )*];
    };
}

rows!(1, 16, 256, 4096);

const fn row(name: &'static str, measure: fn(&Meter) -> Outcome) -> Row {
    Row { name, measure }
}

/// How many times ranges of this size are measured.
const fn rounds(pages: usize) -> usize {
    if pages > 256 { 11 } else { 51 }
}

/// Memory that has been written to, page by page.
fn memory(pages: usize) -> Result<Memory, Broken> {
    let memory = Memory::new(pages)?;
    memory.fill(1);
    Ok(memory)
}

/// Registers and releases; what is left mapped goes afterwards.
fn register<const PAGES: usize, const ALIAS: bool>(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let meter = meter.at_most(rounds(PAGES));
    meter.measure_with(
        || memory(PAGES),
        |memory| {
            let userptr = userptr(&card, &memory, ALIAS)?;
            userptr.release().map_err(of_client)?;
            Ok(memory)
        },
    )
}

/// Unmaps what is registered, all of it.
fn unmap<const PAGES: usize>(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let meter = meter.at_most(rounds(PAGES));
    let prepare = || {
        let memory = memory(PAGES)?;
        let userptr = userptr(&card, &memory, true)?;
        Ok((memory, userptr))
    };
    meter.measure_with(prepare, |(memory, userptr)| {
        drop(memory);
        Ok(userptr)
    })
}

fn ready() -> Result<(Gemd, Card), Broken> {
    let gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client)?;
    // The first range has the server find out more than the next ones.
    let memory = memory(1)?;
    userptr(&card, &memory, true)?
        .release()
        .map_err(of_client)?;
    Ok((gemd, card))
}

fn userptr(card: &Card, memory: &Memory, alias: bool) -> Result<gem_client::Userptr, Broken> {
    let how = if alias {
        Register::new()
    } else {
        // SAFETY: this is the only thread.
        unsafe { Register::new().exclusive() }
    };
    let base = NonNull::new(memory.address as *mut u8);
    let base = base.ok_or(Broken::Call("find memory", syscall::Error::new(ENODEV)))?;
    let bytes = NonNull::slice_from_raw_parts(base, memory.pages * PAGE_SIZE);
    // SAFETY: the memory is unmapped only where the buffer is not used any more, and nobody has a
    // reference to it.
    unsafe { card.userptr(bytes, how) }.map_err(of_client)
}

fn bare_register<const PAGES: usize, const ALIAS: bool>(meter: &Meter) -> Outcome {
    let bare = Bare::start()?;
    let meter = meter.at_most(rounds(PAGES));
    meter.measure_with(
        || memory(PAGES),
        |memory| {
            bare.register(&memory, ALIAS)?;
            call(bare.file.raw(), &mut [], &[RELEASE])?;
            Ok(memory)
        },
    )
}

fn bare_unmap<const PAGES: usize>(meter: &Meter) -> Outcome {
    let bare = Bare::start()?;
    let meter = meter.at_most(rounds(PAGES));
    let prepare = || {
        let memory = memory(PAGES)?;
        bare.register(&memory, true)?;
        Ok(memory)
    };
    meter.measure_with(prepare, |memory| {
        drop(memory);
        Ok(())
    })
}

/// A running `bare-daemon`, and a file of it; killed when dropped.
struct Bare {
    process: Process,
    file: Fd,
}

impl Bare {
    fn start() -> Result<Self, Broken> {
        let anchor = Map {
            offset: 0,
            size: PAGE_SIZE,
            flags: MapFlags::PROT_READ | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE,
            address: ANCHOR,
        };
        // SAFETY: nothing is replaced. It may be there already.
        let _ = unsafe { syscall::fmap(!0, &anchor) };
        let process = Command::new("bare-daemon").spawn();
        let process = process.map_err(in_call("start the daemon"))?;
        loop {
            match Fd::open("/scheme/bare/file", O_RDWR, 0) {
                Ok(file) => return Ok(Self { process, file }),
                Err(error) if error.errno() == ENODEV => {
                    let _ = syscall::sched_yield();
                }
                Err(error) => return Err(Broken::Call("open the daemon's file", error.into())),
            }
        }
    }

    fn register(&self, memory: &Memory, alias: bool) -> Outcome {
        let source = if alias {
            alias_all(memory)?;
            STAGING
        } else {
            memory.address
        };
        let space = fd::dup(THREAD_FD, b"addrspace").map_err(in_call("open the address space"))?;
        let word = ((source / PAGE_SIZE) << PAGES_BITS | memory.pages) as u64;
        let file = self.file.raw();
        let sent = syscall::call_wo(file, &space.to_ne_bytes(), CallFlags::FD, &[word]);
        fd::release(space);
        sent.map_err(in_call("send the address space"))?;
        call(file, &mut [], &[CLAIM])?;
        let map = Map {
            offset: 0,
            size: memory.pages * PAGE_SIZE,
            flags: ALL | MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
            address: memory.address,
        };
        // SAFETY: what is there is those very pages, or nothing.
        let mapped = unsafe { syscall::fmap(file, &map) };
        mapped.map(drop).map_err(in_call("map the pages"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ALL: MapFlags = MapFlags::PROT_READ.union(MapFlags::PROT_WRITE);

/// Where the client library puts its first aliases, behind a page that is always mapped.
const STAGING: usize = ANCHOR + PAGE_SIZE;
const ANCHOR: usize = 0x6000_0000_0000;

fn alias_all(memory: &Memory) -> Outcome {
    let flags = (MremapFlags::KEEP_OLD | MremapFlags::FIXED).bits() | ALL.bits();
    for page in (0..memory.pages * PAGE_SIZE).step_by(PAGE_SIZE) {
        let (from, to) = (memory.address + page, STAGING + page);
        // SAFETY: nothing is there, and the old mapping stays.
        let aliased = unsafe { syscall5(SYS_MREMAP, from, PAGE_SIZE, to, PAGE_SIZE, flags) };
        aliased.map_err(in_call("alias a page"))?;
    }
    Ok(())
}
