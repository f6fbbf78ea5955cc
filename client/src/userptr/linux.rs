//! The steps on Linux: the stand-in for the kernel does the work, in this process and in its own.

use libredox::call::{self, MmapArgs};
use libredox::flag::{MAP_SHARED, PROT_READ, PROT_WRITE};
use syscall::CallFlags;

use super::{ACTION, Range};
use crate::error::{Error, Result};

/// Linux's value, which libredox does not export.
const MAP_FIXED: u32 = 0x10;

/// From where the pages are taken: from where they are.
pub(super) struct Source(usize);

impl Source {
    /// # Safety
    ///
    /// None here; on Redox, as for registering.
    pub(super) unsafe fn new(range: Range, _: bool) -> Result<Self> {
        Ok(Self(range.address))
    }

    pub(super) fn address(&self) -> usize {
        self.0
    }

    /// The server has the pages.
    pub(super) fn leave(self) {}
}

/// Sends this process's address space to a node, with a word that says what for; waits until that
/// is done.
pub(super) fn send_space(node: usize, word: u64) -> Result<()> {
    let space = hosted::client::address_space();
    let space = space.map_err(|error| Error::new(ACTION, error.errno))?;
    call::call_wo(node, &space.to_ne_bytes(), CallFlags::FD, &[word])
        .map(drop)
        .map_err(Error::of(ACTION))
}

/// Maps the pages that the server has taken over where they were.
///
/// # Safety
///
/// What is there is those very pages.
pub(super) unsafe fn map_again(node: usize, offset: u64, range: Range) -> Result<()> {
    let args = MmapArgs {
        addr: core::ptr::with_exposed_provenance_mut(range.address),
        length: range.size,
        prot: PROT_READ | PROT_WRITE,
        flags: MAP_SHARED | MAP_FIXED,
        fd: node,
        offset,
    };
    // SAFETY: by contract nothing changes but whose the pages are.
    let mapped = unsafe { call::mmap(args) };
    mapped.map(drop).map_err(Error::of(ACTION))
}
