//! In the client process: memory that it registers, and threads that write to it meanwhile.
//!
//! What is registered stays so from one order to the next, until it is released. The threads add
//! to words of every page and count what they have added, so that a write that was lost is missed.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::{forget, take};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use gem_client::{Card, Register, Userptr};
use libredox::Fd;
use libredox::call::{MmapArgs, mmap, munmap};
use libredox::flag::MAP_PRIVATE;
use spin::Mutex;
use syscall::CallFlags;
use syscall::error::{EBADF, EIO};

use crate::command::{How, Memory};
use crate::puppet::{PAGE, Platform, READ_WRITE};

/// What is registered, by its handle.
static HELD: Mutex<BTreeMap<u32, Userptr>> = Mutex::new(BTreeMap::new());
/// What is sent over and over.
static COPIES: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static HAMMER: Mutex<Option<Arc<Hammer>>> = Mutex::new(None);

/// Does it; the result.
pub(crate) fn act(command: Memory, platform: &mut dyn Platform) -> Result<u64, i32> {
    match command {
        Memory::Allocate { size, flags } => allocate(size as usize, flags),
        Memory::Register {
            node,
            address,
            size,
            how,
        } => {
            let userptr = register(node, address, size, how)?;
            let handle = userptr.buffer().handle();
            HELD.lock().insert(handle, userptr);
            Ok(handle.into())
        }
        Memory::RegisterAgain(handle) => {
            let held = HELD.lock();
            let userptr = held.get(&handle).ok_or(EBADF)?;
            // SAFETY: the test says that the memory is there and nobody moves it meanwhile.
            let again = unsafe { userptr.register_again() };
            again.map(|()| 0).map_err(|error| error.errno())
        }
        Memory::Release(handle) => {
            let userptr = HELD.lock().remove(&handle).ok_or(EBADF)?;
            userptr.release().map(|()| 0).map_err(|error| error.errno())
        }
        Memory::Live { node, pages } => live(node, pages).map(|()| 0),
        Memory::Space => platform.address_space().map(|fd| fd as u64),
        Memory::Send { to, fds, word } => {
            let bytes: Vec<u8> = fds
                .iter()
                .flat_map(|fd| (*fd as usize).to_ne_bytes())
                .collect();
            let flags = CallFlags::FD | CallFlags::FD_CLONE;
            let sent = libredox::call::call_wo(to as usize, &bytes, flags, &[word]);
            sent.map(|value| value as u64)
                .map_err(|error| error.errno())
        }
        Memory::SendMany {
            to,
            fd,
            copies,
            word,
        } => send_many(to as usize, fd as usize, copies, word),
        Memory::Hammer {
            address,
            size,
            threads,
        } => hammer(address, size, threads, platform).map(|()| 0),
        Memory::Rest => rest(platform),
    }
}

fn send_many(to: usize, fd: usize, copies: u64, word: u64) -> Result<u64, i32> {
    let mut all = COPIES.lock();
    while (all.len() as u64) < copies {
        all.push(libredox::call::dup(fd, []).map_err(|error| error.errno())?);
    }
    let bytes: Vec<u8> = all.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
    let flags = CallFlags::FD | CallFlags::FD_CLONE;
    let sent = libredox::call::call_wo(to, &bytes, flags, &[word]);
    Ok(sent.map_or_else(|error| error.errno() as u64, |_| 0))
}

fn allocate(size: usize, flags: u32) -> Result<u64, i32> {
    let args = MmapArgs {
        addr: core::ptr::null_mut(),
        length: size,
        prot: READ_WRITE,
        flags,
        fd: usize::MAX,
        offset: 0,
    };
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { mmap(args) };
    address
        .map(|address| address as u64)
        .map_err(|error| error.errno())
}

fn register(node: u64, address: u64, size: u64, how: How) -> Result<Userptr, i32> {
    let card = Card::from_fd(Fd::new(node as usize));
    // The test closes its own fds.
    forget(card.clone());
    let memory = NonNull::new(address as *mut u8).ok_or(syscall::error::EFAULT)?;
    let memory = NonNull::slice_from_raw_parts(memory, size as usize);
    let mut register = Register::new();
    if how.read_only {
        register = register.read_only();
    }
    if how.exclusive {
        // SAFETY: the test lets no other thread use the memory.
        register = unsafe { register.exclusive() };
    }
    // SAFETY: the test names memory of its own, which is accessed as bytes and atomics only.
    let userptr = unsafe { card.userptr(memory, register) };
    userptr.map_err(|error| error.errno())
}

/// One registration from its beginning to its end, with memory of its own.
fn live(node: u64, pages: u64) -> Result<(), i32> {
    let size = pages * PAGE;
    let address = allocate(size as usize, MAP_PRIVATE)?;
    for page in 0..pages {
        word(address, page, 0).store(page, SeqCst);
    }
    let userptr = register(node, address, size, How::default())?;
    for page in 0..pages {
        if word(address, page, 0).fetch_add(1, SeqCst) != page {
            return Err(EIO);
        }
    }
    let released = userptr.release();
    // SAFETY: allocated here.
    let unmapped = unsafe { munmap(address as *mut (), size as usize) };
    released.map_err(|error| error.errno())?;
    unmapped.map_err(|error| error.errno())
}

/// Threads at work on a piece of memory.
struct Hammer {
    address: u64,
    pages: u64,
    stop: AtomicBool,
    at_work: AtomicUsize,
    /// Pages' words that each has added to.
    added: [AtomicU64; MOST_THREADS],
}

const MOST_THREADS: usize = 8;

fn hammer(address: u64, size: u64, threads: u64, platform: &mut dyn Platform) -> Result<(), i32> {
    let hammer = Arc::new(Hammer {
        address,
        pages: size / PAGE,
        stop: AtomicBool::new(false),
        at_work: AtomicUsize::new(0),
        added: Default::default(),
    });
    let threads = (threads as usize).min(MOST_THREADS);
    for thread in 0..threads {
        let own = hammer.clone();
        platform.thread(Box::new(move || own.work(thread)))?;
    }
    while hammer.at_work.load(SeqCst) < threads {
        platform.pass();
    }
    *HAMMER.lock() = Some(hammer);
    Ok(())
}

/// Has the threads end. How many of their writes are missing.
fn rest(platform: &mut dyn Platform) -> Result<u64, i32> {
    let hammer = take(&mut *HAMMER.lock()).ok_or(EBADF)?;
    hammer.stop.store(true, SeqCst);
    while hammer.at_work.load(SeqCst) > 0 {
        platform.pass();
    }
    let mut missing = 0;
    for (thread, added) in hammer.added.iter().enumerate() {
        let found: u64 = (0..hammer.pages)
            .map(|page| word(hammer.address, page, thread + 1).load(SeqCst))
            .sum();
        missing += added.load(SeqCst).abs_diff(found);
    }
    Ok(missing)
}

impl Hammer {
    fn work(&self, thread: usize) {
        self.at_work.fetch_add(1, SeqCst);
        let mut added = 0;
        while !self.stop.load(SeqCst) {
            for page in 0..self.pages {
                word(self.address, page, thread + 1).fetch_add(1, SeqCst);
                added += 1;
            }
        }
        if let Some(sum) = self.added.get(thread) {
            sum.store(added, SeqCst);
        }
        self.at_work.fetch_sub(1, SeqCst);
    }
}

/// A word of a page. Tests write bytes of the first word only.
fn word<'a>(address: u64, page: u64, index: usize) -> &'a AtomicU64 {
    let at = (address + page * PAGE) as *mut u64;
    // SAFETY: the test names mapped memory, and unmaps it when the threads rest; the index is less
    // than a page's words.
    unsafe { AtomicU64::from_ptr(at.add(index)) }
}
