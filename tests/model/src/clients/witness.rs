//! Somebody who takes the same steps in another way, and is told what came of them here.

use gem::pages::PageSource;
use gem::units::{Handle, Name, PageCount};
use gem::{Device, Driver, Error, Limits, ObjectCursor, ObjectView};

use crate::world::{Gpu, Mood, Shared};

/// What was asked of the device. Opens and object fds are numbered from 0 in the order in which
/// they were made. Offsets and sizes are bytes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are what the operations call them")]
pub enum Call {
    Open {
        user: u32,
    },
    CloseOpen {
        open: usize,
    },
    Revoke {
        open: usize,
    },
    Create {
        open: usize,
        size: u64,
    },
    Close {
        open: usize,
        handle: Handle,
    },
    Flink {
        open: usize,
        handle: Handle,
    },
    OpenName {
        open: usize,
        name: Name,
    },
    Export {
        open: usize,
        handle: Handle,
        write: bool,
    },
    ExportName {
        open: usize,
        name: Name,
        write: bool,
    },
    Import {
        open: usize,
        fd: usize,
    },
    CloseFd {
        fd: usize,
    },
    Offset {
        open: usize,
        handle: Handle,
    },
    /// `again`: as a fork does.
    Map {
        open: usize,
        offset: u64,
        size: u64,
        again: bool,
    },
    Unmap {
        open: usize,
        offset: u64,
        size: u64,
    },
    /// By a process of that user.
    MapFd {
        user: u32,
        fd: usize,
        offset: u64,
        size: u64,
        write: bool,
    },
    UnmapFd {
        user: u32,
        fd: usize,
        size: u64,
    },
    Advise {
        open: usize,
        handle: Handle,
        unneeded: bool,
    },
    BeginUse {
        open: usize,
        handle: Handle,
    },
    /// The work that was begun so many works after the oldest that is not ended.
    EndUse {
        work: usize,
    },
    /// So many pages are left to the machine.
    Left(Option<u64>),
    Limits(Limits),
}

/// Somebody who takes the same steps in another way.
pub trait Witness {
    /// What was asked, while the page source was in this mood, and what came of it: the number that
    /// the call gives, a handle with its size as [`sized`], an address as 0.
    fn saw(&mut self, call: Call, mood: Mood, outcome: Result<u64, Error>);

    /// A step was done, and this is the device.
    fn stepped(&mut self, device: &Device<Shared, Gpu>);
}

/// `handle | pages << 32`.
pub fn sized((handle, pages): (Handle, PageCount)) -> u64 {
    u64::from(handle.get()) | pages.get() << 32
}

/// All objects of a device, in the order of its table.
pub fn objects<S: PageSource, D: Driver>(
    device: &Device<S, D>,
) -> impl Iterator<Item = ObjectView> + use<'_, S, D> {
    let (mut cursor, mut slots) = (ObjectCursor::default(), usize::MAX);
    std::iter::from_fn(move || device.next_object(&mut cursor, &mut slots))
}
