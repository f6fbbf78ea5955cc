//! The messages between a client process and the stand-in kernel: one system call a message.
//!
//! A Unix `SOCK_SEQPACKET` socket keeps the bounds of messages, so a message is a fixed header and
//! then, up to its end, the payload. Both ends run on one machine: numbers are in its byte order.
//! A client sends [`Request`]s and gets a [`Reply`] with the same number for each but
//! [`Op::Cancel`]; replies come in any order. File descriptors travel beside a message only where
//! the table below says so, exactly one each time.
//!
//! | op | `fd` | `args` | payload | result, `value` |
//! |---|---|---|---|---|
//! | Hello | | magic, version | | 0; uid \| gid << 32 |
//! | Cancel | | | | none: no reply |
//! | Open | | flags, fcntl flags | path | fd |
//! | OpenAt | directory | flags, fcntl flags | path | fd |
//! | Dup | yes | | name | fd |
//! | Dup2 | yes | new fd | name | fd |
//! | Close | yes | | | 0 |
//! | Read | yes | length, 1 for an explicit offset, offset, flags | | bytes read; they follow |
//! | Write | yes | 0, 1 for an explicit offset, offset, flags | bytes | bytes written |
//! | Call | first | flags, fds \| words << 8, second fd, 3 words | any | result; the payload follows |
//! | Fpath, Fstat | yes | length | | length; the bytes follow |
//! | Fcntl | yes | command, argument | | result |
//! | Fchown | yes | uid, gid | | 0 |
//! | Fsize, Fsync | yes | | | size, 0 |
//! | Fevent | yes | events | | events |
//! | Flink, Frename, Unlinkat | yes | flags | path | 0 |
//! | Lseek | yes | offset, whence | | offset |
//! | Mmap | yes | address, size, flags, offset | | 0; offset in the memory file that comes beside it |
//! | Munmap | | address, size | | 0 |
//! | Parcel, Fork | (Parcel) | | | 0; the parcel comes beside it |
//! | Unparcel, Adopt | | | with the parcel | fd, 0 |
//! | Space, OfferSpace | | | (OfferSpace) with a userfaultfd | fd |
//! | SetIdentity | | uid, gid | | 0 |
//!
//! Nothing here is checked beyond shape; what a number means is the kernel's business.

use syscall::error::{Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First argument of [`Op::Hello`].
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"gemkern\0");
/// Second argument of [`Op::Hello`]; raised with every change of this module.
pub(crate) const VERSION: u64 = 2;
/// The longest payload of a message, in bytes.
pub(crate) const PAYLOAD_MAX: usize = 64 * 1024;
/// The longest path, in bytes: the kernel's `PATH_MAX`.
pub(crate) const PATH_MAX: usize = 4096;

/// What a client sends.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Request {
    /// An [`Op`].
    pub(crate) op: u32,
    /// The client's number for this call, unique among those not yet answered.
    pub(crate) request: u32,
    /// The file descriptor it is about.
    pub(crate) fd: u64,
    /// The other arguments.
    pub(crate) args: [u64; 6],
}

impl Request {
    /// A request still without its number.
    pub(crate) fn new(op: Op, fd: usize, args: &[u64]) -> Self {
        let mut words = [0; 6];
        for (word, arg) in words.iter_mut().zip(args) {
            *word = *arg;
        }
        Self {
            op: op as u32,
            request: 0,
            fd: fd as u64,
            args: words,
        }
    }
}

/// What the kernel answers.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Reply {
    /// The number of the request that this answers.
    pub(crate) request: u32,
    /// Whether the client has to bring its own pages into the memory file beside it: 1, else 0.
    pub(crate) adopts: u32,
    /// The result as the kernel's ABI has it: a value, or a negated errno.
    pub(crate) result: u64,
    /// A second result of some calls.
    pub(crate) value: u64,
}

macro_rules! ops {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub(crate) enum Op { $($name = $number),* }

        impl Op {
            /// The operation with this number, if there is one.
            pub(crate) fn from_raw(raw: u32) -> Option<Self> {
                match raw {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

ops! {
    Hello = 1,
    Cancel = 2,
    Open = 3,
    OpenAt = 4,
    Dup = 5,
    Dup2 = 6,
    Close = 7,
    Read = 8,
    Write = 9,
    Call = 10,
    Fpath = 11,
    Fcntl = 12,
    Fchown = 13,
    Fsize = 14,
    Fevent = 15,
    Fstat = 16,
    Fsync = 17,
    Flink = 18,
    Frename = 19,
    Unlinkat = 20,
    Lseek = 21,
    Mmap = 22,
    Munmap = 23,
    Parcel = 24,
    Unparcel = 25,
    Fork = 26,
    Adopt = 27,
    SetIdentity = 28,
    Space = 29,
    OfferSpace = 30,
}

impl Op {
    /// Whether bytes may follow the header.
    pub(crate) fn has_payload(self) -> bool {
        matches!(
            self,
            Self::Open
                | Self::OpenAt
                | Self::Dup
                | Self::Dup2
                | Self::Write
                | Self::Call
                | Self::Flink
                | Self::Frename
                | Self::Unlinkat
        )
    }

    /// Whether exactly one file descriptor comes beside it; beside all others none may.
    pub(crate) fn carries_fd(self) -> bool {
        matches!(self, Self::Unparcel | Self::Adopt | Self::OfferSpace)
    }
}

/// A result as the kernel takes it apart (`Error::demux` of redox_syscall 0.9.2): by its low 32
/// bits. The crate's own function overflows where these are `0x8000_0000`, as in a fake offset of
/// 6 GiB; the kernel is built without overflow checks.
pub(crate) fn demux(value: usize) -> Result<usize> {
    match (value as i32).wrapping_neg() {
        errno @ 1..OTHER => Err(Error::new(errno)),
        _ => Ok(value),
    }
}

/// The first number that is no errno there.
const OTHER: i32 = syscall::error::STR_ERROR.len() as i32;
