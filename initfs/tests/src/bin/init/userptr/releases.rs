//! Promises about what gemd has let go of by the time that an unmapping returns.

use core::ptr::NonNull;

use gem_client::{Card, Node, Register};
use syscall::PAGE_SIZE;
use syscall::error::EFAULT;

use super::Memory;
use crate::scheme::Gemd;
use crate::{Broken, Outcome, Promise, expect, frames};

/// All of them.
pub const PROMISES: &[Promise] = &[Promise {
    name: "an_unmapping_returns_when_the_servers_own_mapping_is_gone",
    keep: unmap,
}];

/// Frames that others may take meanwhile: the kernel's heap, and what runs on another processor.
const OTHERS: u64 = 16;

/// A frame is free when nobody maps it any more, the server neither: few pages are unmapped by its
/// socket's thread, and many by its worker.
fn unmap() -> Outcome {
    let of_client =
        |error: gem_client::Error| Broken::Call(error.action(), syscall::Error::new(error.errno()));
    let _gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client)?;
    for pages in [64, 400, 600, 3000] {
        for _ in 0..5 {
            let memory = Memory::new(pages)?;
            memory.fill(1);
            let base = NonNull::new(memory.address as *mut u8);
            let base = base.ok_or(Broken::Call("find memory", syscall::Error::new(EFAULT)))?;
            let bytes = NonNull::slice_from_raw_parts(base, pages * PAGE_SIZE);
            // SAFETY: nobody has a reference to it, and it is not used once it is unmapped.
            let userptr = unsafe { card.userptr(bytes, Register::new()) }.map_err(of_client)?;
            let before = frames::free()?;
            drop(memory);
            let freed = frames::free()?.saturating_sub(before);
            let all = freed + OTHERS >= pages as u64;
            expect("whether all frames are free", (all, freed), (true, freed))?;
            userptr.release().map_err(of_client)?;
        }
    }
    Ok(())
}
