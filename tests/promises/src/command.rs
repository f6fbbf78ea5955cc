//! What a puppet is told, and what it reports.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// One thing for a puppet to do. Numbers are as libredox takes them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Command {
    /// Open an absolute path.
    Open(String, i32),
    /// Open a path relative to an fd.
    OpenAt(u64, Vec<u8>, i32),
    /// Duplicate an fd with a path.
    Dup(u64, Vec<u8>),
    /// Close an fd.
    Close(u64),
    /// A call on one or more fds, with flags, metadata and a payload.
    Call {
        /// One fd, or two.
        fds: Vec<u64>,
        /// `CallFlags`.
        flags: u64,
        /// Metadata.
        words: Vec<u64>,
        /// Sent, and reported as it is afterwards.
        payload: Vec<u8>,
    },
    /// Map; at an address where one is given.
    Map {
        /// What.
        fd: u64,
        /// From where.
        offset: u64,
        /// How much.
        size: u64,
        /// `PROT_*`.
        prot: u32,
        /// `MAP_*` (without MAP_FIXED).
        flags: u32,
        /// Over what is there.
        fixed: Option<u64>,
    },
    /// Unmap.
    Unmap(u64, u64),
    /// Read a byte of memory.
    Peek(u64),
    /// Write a byte of memory.
    Poke(u64, u8),
    /// Read from an fd.
    Read(u64, u64),
    /// Write to an fd.
    Write(u64, Vec<u8>),
    /// The path of an fd.
    Fpath(u64),
    /// Size and inode number of an fd.
    Fstat(u64),
    /// Wait for an fd to be idle.
    Fsync(u64),
    /// Directory entries.
    Entries(u64),
    /// Cease to be root, for good.
    Become(u32),
    /// Make fds of what a platform carries fds with, and the other way round. Only a `Link` says
    /// this.
    Carry(u64),
    /// As above.
    Uncarry,
}

/// What came of it.
pub type Reply = Result<Outcome, i32>;

/// What came of what worked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// The result.
    pub value: u64,
    /// Bytes that were read, or the payload as it is now.
    pub bytes: Vec<u8>,
}
