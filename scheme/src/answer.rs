//! What goes back: answers and the kernel's 16 bytes for them.
//!
//! An [`Answer`] says everything that the kernel is told; whatever goes into the payload is there
//! already when one is made. The only place where errors become negative numbers.

use gem::units::Uid;
use syscall::flag::EVENT_READ;
use syscall::schemev2::{Cqe, CqeOpcode, NewFdFlags};

use crate::fds::FdId;
use crate::sqe::Tag;

/// An error number as the client sees it, positive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errno(pub i32);

impl From<gem::Error> for Errno {
    fn from(error: gem::Error) -> Self {
        Self(error.errno().get())
    }
}

/// The answer to a request. Whatever goes into the payload has been written there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// A result, below the errno range.
    Value(u64),
    /// A new file of ours. `positioned`: the kernel keeps a read offset for it.
    File {
        /// Its number.
        id: FdId,
        /// Whether it has a read offset.
        positioned: bool,
    },
    /// It did not work, and nothing changed.
    Error(Errno),
    /// The same, with fds in the request that nobody has taken out. The kernel closes them on the
    /// thread that writes this answer, which is not to be the socket's: it is written in this
    /// user's turn, elsewhere.
    Unwanted(Errno, Uid),
}

impl Answer {
    /// Nothing to say but that it is done.
    pub const DONE: Self = Self::Value(0);

    /// As the kernel takes it.
    pub fn cqe(self, tag: Tag) -> Cqe {
        let (result, extra) = match self {
            Self::Value(value) => (value, 0),
            Self::File { id, positioned } => {
                let flags = if positioned {
                    NewFdFlags::POSITIONED
                } else {
                    NewFdFlags::empty()
                };
                (id.raw(), flags.bits())
            }
            Self::Error(Errno(errno)) | Self::Unwanted(Errno(errno), _) => {
                (i64::from(errno).wrapping_neg() as u64, 0)
            }
        };
        Cqe {
            flags: CqeOpcode::RespondRegular as u8,
            extra_raw: [extra, 0, 0],
            tag: tag.0,
            result,
        }
    }
}

/// What tells the kernel that a file has become readable. Nobody waits for it as for an answer.
pub fn readable(fd: FdId) -> Cqe {
    Cqe {
        flags: CqeOpcode::SendFevent as u8,
        extra_raw: [0; 3],
        tag: EVENT_READ.bits() as u32,
        result: fd.raw(),
    }
}

impl From<Result<Answer, Errno>> for Answer {
    fn from(result: Result<Answer, Errno>) -> Self {
        result.unwrap_or_else(Self::Error)
    }
}
