//! What a victim (`bin/victim.rs`) and its killer agree on.

/// The argument of a victim that registers memory, over and over. Another one says how.
pub const REGISTERS: &str = "registers";

/// The number that the victim has the board at: an object fd, of whose first byte each step is
/// written to when it is done.
pub const BOARD: usize = rt::protocol::FIRST_HANDED_FD;

/// Bytes in the victim's buffer.
pub const SIZE: u64 = 64 * 1024;

/// How far it has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Step {
    /// It has been started.
    Started = 0,
    /// It has opened a node.
    Opened,
    /// It has a buffer.
    Created,
    /// It has mapped the buffer.
    Mapped,
    /// It has written to every page.
    Touched,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Started,
        Self::Opened,
        Self::Created,
        Self::Mapped,
        Self::Touched,
    ];
}

/// What a victim that registers memory is at, once it has opened its node and everything else that
/// it keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// It gets memory and writes to it.
    Fills = 0x10,
    /// It registers the memory.
    Registers,
    /// It uses the memory.
    Holds,
    /// It unmaps the memory, or closes the handle and unmaps it.
    Unmaps,
    /// It registers fresh memory by the handle that it has.
    RegistersAgain,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Fills,
        Self::Registers,
        Self::Holds,
        Self::Unmaps,
        Self::RegistersAgain,
    ];
}

/// In which ways memory is registered: how many pages, and whether another mapping of the same node
/// is there.
pub const WAYS: [(usize, bool); 8] = [
    (1, false),
    (3, true),
    (16, false),
    (1, true),
    (3, false),
    (40, true),
    (16, true),
    (300, false),
];
