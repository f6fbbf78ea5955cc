//! What a victim (`bin/victim.rs`) and its killer agree on.

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
