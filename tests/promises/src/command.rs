//! What a puppet is told, and what it reports.

use alloc::boxed::Box;
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
    /// Set a file's status flags, in Redox's numbers.
    SetFlags(u64, u64),
    /// Make an event queue.
    NewQueue,
    /// Have a queue watch an fd, with flags and data of the crate `redox_event`.
    Watch {
        /// The queue.
        queue: u64,
        /// What to watch.
        fd: u64,
        /// For what.
        flags: u32,
        /// Comes with the event.
        data: u64,
    },
    /// Wait for an event in a queue: fd, data and flags, 64 bits each.
    NextEvent(u64),
    /// Cease to be root, for good.
    Become(u32),
    /// Make fds of what a platform carries fds with, and the other way round. Only a `Link` says
    /// this.
    Carry(u64),
    /// As above.
    Uncarry,
    /// Go on as two processes. Only a `Link` says this.
    Fork,
    /// Go on as a new program that does what it is told, in this process, with these files. There
    /// is a reply only where that fails.
    Exec,
    /// End this process, with all that it has. There is no reply.
    Exit,
    /// Make a buffer, use it and let go of everything, over and over, until signals have
    /// interrupted some calls. Each of those is tried again.
    Storm {
        /// The node to make it through.
        node: u64,
        /// Calls to be interrupted.
        interruptions: u64,
        /// Bytes in the buffer.
        size: u64,
    },
    /// Do anything with buffers, those of these names among them, until the process is killed.
    Soak {
        /// What the choices depend on.
        seed: u64,
        /// Which byte of the board is this client's.
        place: u64,
        /// The board's name, and others.
        names: Vec<u32>,
    },
    /// Do this over and over, until the process is killed or it fails.
    Forever(Box<Command>),
    /// A call that must be refused. Reports its errno, and the payload as it is afterwards.
    Refused {
        /// On what.
        fd: u64,
        /// Metadata.
        words: Vec<u64>,
        /// Sent, and reported.
        payload: Vec<u8>,
    },
    /// An operation that libredox has and no file of the scheme does.
    Foreign(u64, Foreign),
    /// A system call in a form that libredox does not have.
    Kernel(KernelCall),
    /// Something with memory of its own.
    Memory(Memory),
}

/// What a client does with memory that it registers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Memory {
    /// Memory that is of no fd: its address.
    Allocate {
        /// Bytes.
        size: u64,
        /// `MAP_PRIVATE` or `MAP_SHARED`.
        flags: u32,
    },
    /// Registers it through a node, with the client library: a handle.
    Register {
        /// The node.
        node: u64,
        /// Where.
        address: u64,
        /// Bytes.
        size: u64,
        /// How.
        how: How,
    },
    /// Registers what was registered once more.
    RegisterAgain(u32),
    /// Ends a registration.
    Release(u32),
    /// Allocates, registers, uses, releases, unmaps.
    Live {
        /// The node.
        node: u64,
        /// Pages.
        pages: u64,
    },
    /// An fd of this process's address space.
    Space,
    /// Sends copies of fds to a file, with a word.
    Send {
        /// The file.
        to: u64,
        /// What is sent.
        fds: Vec<u64>,
        /// What is said of it.
        word: u64,
    },
    /// Sends so many copies of an fd, the same ones each time, to a file at once; the errno.
    SendMany {
        /// The file.
        to: u64,
        /// What is sent.
        fd: u64,
        /// How many.
        copies: u64,
        /// What is said of it.
        word: u64,
    },
    /// Has threads write to memory until they are told to rest.
    Hammer {
        /// Where.
        address: u64,
        /// Bytes.
        size: u64,
        /// How many.
        threads: u64,
    },
    /// Has the threads rest. How many of their writes are missing.
    Rest,
}

/// How memory is registered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct How {
    /// Devices may only read.
    pub read_only: bool,
    /// No other thread uses it meanwhile.
    pub exclusive: bool,
}

/// Operations of libredox on fds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Foreign {
    /// fchmod.
    Chmod,
    /// fchown, to the caller's own user.
    Chown,
    /// ftruncate.
    Truncate,
    /// futimens.
    Times,
    /// fstatvfs.
    StatVfs,
    /// fcntl with this command.
    Fcntl(u64),
    /// Send it a copy of its own fd.
    Send,
    /// Receive an fd from it.
    Receive,
    /// Lock it, in relibc's form.
    Lock,
}

/// The kernel's system calls, with Redox's own numbers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum KernelCall {
    /// openat with any flags.
    OpenAt(u64, Vec<u8>, u64),
    /// The old fstat, with a buffer of any length.
    Fstat(u64, u64),
    /// The old fsync.
    Fsync(u64),
    /// fevent.
    Fevent(u64, u64),
    /// flink.
    Flink(u64, Vec<u8>),
    /// frename.
    Frename(u64, Vec<u8>),
    /// unlinkat.
    Unlinkat(u64, Vec<u8>, u64),
    /// read of so many bytes at an offset.
    ReadAt(u64, u64, u64),
    /// write at an offset.
    WriteAt(u64, Vec<u8>, u64),
    /// fmap with any flags: fd, offset, size, flags, and an address, where nothing is, or 0.
    Fmap(u64, u64, u64, u64, u64),
    /// mremap: address, size, new address, new size, flags. Only [`crate::remaps`] asks for it.
    Remap(u64, u64, u64, u64, u64),
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
