//! What clients, root and the machine do.

use arbitrary::Arbitrary;

use crate::world::Mood;

/// One step. Any value of any field means something: opens and object fds are counted round and
/// round among those that are there; names and offsets from the newest to the oldest ever given.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are what the operations call them")]
pub enum Step {
    /// A process of a user opens the node.
    Open { user: u8 },
    /// It closes it.
    CloseOpen { open: u8 },
    /// It dies: the kernel unmaps what it has mapped and closes what it has open.
    Die { open: u8 },
    /// A buffer; `size` is bytes, the highest two values are far too many.
    Create { open: u8, size: u16, mood: Mood },
    /// Closes a handle.
    Close { open: u8, handle: u8 },
    /// Gives a name.
    Flink { open: u8, handle: u8 },
    /// Opens by name.
    OpenName { open: u8, name: u8, mood: Mood },
    /// An object fd of a handle.
    Export { open: u8, handle: u8, write: bool },
    /// An object fd of a name.
    ExportName { open: u8, name: u8, write: bool },
    /// A handle of an object fd.
    Import { open: u8, fd: u8, mood: Mood },
    /// Closes an object fd.
    CloseFd { fd: u8 },
    /// Asks for the offset to map at.
    Offset { open: u8, handle: u8 },
    /// Maps through the node.
    Map {
        open: u8,
        offset: u8,
        pages: u8,
        mood: Mood,
    },
    /// Maps what is mapped already, as a fork does.
    MapAgain {
        open: u8,
        offset: u8,
        skip: u8,
        pages: u8,
    },
    /// Unmaps what may be mapped or not.
    Unmap {
        open: u8,
        offset: u8,
        skip: u8,
        pages: u8,
    },
    /// Maps through an object fd.
    MapFd {
        fd: u8,
        skip: u8,
        pages: u8,
        write: bool,
        mood: Mood,
    },
    /// Unmaps what is mapped through it.
    UnmapFd { fd: u8, pages: u8 },
    /// Root revokes an open.
    Revoke { open: u8 },
    /// Whether the contents are needed.
    Advise {
        open: u8,
        handle: u8,
        unneeded: bool,
    },
    /// Something goes to work on an object.
    BeginUse { open: u8, handle: u8 },
    /// The oldest work but so many is done.
    EndUse { work: u8 },
    /// The machine has so many pages left, or does not know.
    Left { pages: Option<u8> },
    /// Root sets a limit.
    Limit { which: u8, value: u8 },
}
