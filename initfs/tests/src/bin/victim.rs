//! A client that says on a board, a shared byte, how far it has come, until it is killed.

#![no_std]
#![no_main]

use core::convert::Infallible;
use core::ptr::NonNull;

use gem_client::{Card, Mapping, Node, ObjectFd, PAGE_SIZE, Register, Result, Rights};
use initfs_tests::victim::{BOARD, Phase, REGISTERS, SIZE, Step, WAYS};
use libredox::Fd;
use syscall::data::Map;
use syscall::flag::MapFlags;

rt::entry!(main);

fn main() -> u8 {
    let mut arguments = rt::start::arguments().skip(1);
    let lived = match arguments.next() {
        Some(kind) if kind == REGISTERS => {
            let way = arguments.next().and_then(|way| way.parse().ok());
            register(way.unwrap_or(0))
        }
        _ => live(),
    };
    match lived {
        Err(_) => 1,
    }
}

fn board() -> Result<Mapping> {
    ObjectFd::from_fd(Fd::new(BOARD)).map(Rights::ReadWrite)
}

fn live() -> Result<Infallible> {
    let board = board()?;
    let card = Card::open(Node::Render)?;
    board.write_at(0, &[Step::Opened as u8])?;
    let buffer = card.create(SIZE)?;
    board.write_at(0, &[Step::Created as u8])?;
    let mapping = buffer.map()?;
    board.write_at(0, &[Step::Mapped as u8])?;
    mapping.fill(1)?;
    board.write_at(0, &[Step::Touched as u8])?;
    loop {
        let _ = syscall::sched_yield();
    }
}

/// Registers memory in this one of [`WAYS`], for good.
fn register(way: usize) -> Result<Infallible> {
    let board = board()?;
    // Where there is one processor, its killer may have the next turn.
    let tell = |phase: Phase| {
        board.write_at(0, &[phase as u8])?;
        let _ = syscall::sched_yield();
        Ok(())
    };
    let (pages, keeps_mapping) = WAYS[way % WAYS.len()];
    let size = pages * PAGE_SIZE;
    let card = Card::open(Node::Render)?;
    // A mapping of this kind keeps the node open, also where its fd has been closed.
    let kept = if keeps_mapping {
        let buffer = card.create(SIZE)?;
        Some((buffer.map()?, buffer))
    } else {
        None
    };
    loop {
        tell(Phase::Fills)?;
        let memory = fresh(size, 0);
        for page in 0..pages {
            // SAFETY: it was mapped for this thread, which alone knows of it.
            unsafe { memory.add(page * PAGE_SIZE).write_volatile(1) };
        }
        tell(Phase::Registers)?;
        let bytes = NonNull::slice_from_raw_parts(memory, size);
        // SAFETY: as above; it is mapped longer than it is registered.
        let userptr = unsafe { card.userptr(bytes, Register::new())? };
        tell(Phase::Holds)?;
        userptr.memory().fill(2)?;
        tell(Phase::Unmaps)?;
        fresh(size, memory.addr().get());
        tell(Phase::RegistersAgain)?;
        // SAFETY: as above.
        unsafe { userptr.register_again()? };
        tell(Phase::Holds)?;
        userptr.memory().fill(3)?;
        tell(Phase::Unmaps)?;
        userptr.release()?;
        // SAFETY: nobody has a reference to it.
        let _ = unsafe { syscall::funmap(memory.addr().get(), size) };
        if let Some((mapping, _)) = &kept {
            mapping.write_at(0, &[1])?;
        }
    }
}

/// Maps fresh memory, anywhere or over what is at an address.
fn fresh(size: usize, address: usize) -> NonNull<u8> {
    let place = match address {
        0 => MapFlags::empty(),
        _ => MapFlags::MAP_FIXED,
    };
    let map = Map {
        offset: 0,
        size,
        flags: MapFlags::PROT_READ | MapFlags::PROT_WRITE | MapFlags::MAP_PRIVATE | place,
        address,
    };
    // SAFETY: what is replaced is the caller's own, to which nobody has a reference.
    let address = unsafe { syscall::fmap(!0, &map) }.expect("memory");
    NonNull::new(address as *mut u8).expect("memory is not at address 0")
}
