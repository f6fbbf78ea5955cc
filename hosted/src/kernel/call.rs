//! Calls in flight: what was asked of a scheme, who waits for it, and what is to be done with
//! the answer.
//!
//! Owned by the state, one slab a scheme, whose index is the tag in SQE and CQE. A call outlives
//! its caller: when a client dies, the call stays without one until the scheme has answered, and
//! so does its payload, which the daemon may be using.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use syscall::error::Error;

use super::address_space::Mapping;
use super::event_scheme::Watching;
use super::files::Description;

/// The address of an empty buffer: not null, and aligned for everything.
const DANGLING: u64 = 1 << 62;

/// A client's payload or path while the daemon may look at it: stays at one address.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    words: Box<[u64]>,
    length: usize,
}

impl Buffer {
    /// A copy of `bytes`.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// `length` zero bytes.
    pub(crate) fn zeroed(length: usize) -> Self {
        Self {
            words: vec![0; length.div_ceil(size_of::<u64>())].into_boxed_slice(),
            length,
        }
    }

    /// Where the daemon finds it.
    pub(crate) fn address(&self) -> u64 {
        if self.length == 0 {
            return DANGLING;
        }
        // The daemon gets a pointer back out of this number, as if from a kernel.
        self.words.as_ptr().expose_provenance() as u64
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `words` is at least `length` bytes of initialized integers, and any byte of an
        // integer is a valid `u8`; the borrow of `self` covers it.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.length) }
    }

    /// The bytes, to change.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; every bit pattern is a valid `u64`, and `self` is borrowed
        // mutably.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.length) }
    }
}

/// A client, by a number that is never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct ClientId(pub(crate) u64);

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A client process, for the request of this number.
    Client(ClientId, u32),
    /// A thread of the daemon itself.
    Thread(Arc<Waiter>),
}

/// Who a scheme is told is calling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Context {
    /// Process id.
    pub(crate) pid: u64,
    /// Effective user id.
    pub(crate) uid: u32,
    /// Effective group id.
    pub(crate) gid: u32,
}

impl Context {
    /// The pid of the name-space manager, who opens what clients name by path.
    pub(crate) const MANAGER_PID: u64 = 2;
    /// The name-space manager.
    pub(crate) const MANAGER: Self = Self {
        pid: Self::MANAGER_PID,
        uid: 0,
        gid: 0,
    };

    /// User and group as they stand in an SQE.
    pub(crate) fn credentials(self) -> u64 {
        u64::from(self.uid) | u64::from(self.gid) << 32
    }
}

/// A call that the scheme has not answered.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who waits; `None` where nobody does (any more).
    pub(crate) caller: Option<Caller>,
    /// What to do with the answer.
    pub(crate) after: After,
    /// What the daemon may be looking at.
    pub(crate) payload: Buffer,
    /// Whether the caller gets the payload back, whatever the answer.
    pub(crate) gives_back: bool,
    /// The description that the caller called: a call keeps it open as long as its caller lives.
    pub(crate) held: Option<Held>,
    /// Descriptions on their way: from the caller until the daemon fetches them, or from the
    /// daemon until it answers.
    pub(crate) fds: Vec<Arc<Description>>,
    /// Whether a signal has reached the caller.
    pub(crate) canceling: bool,
    /// Whether a signal is passed on: an open by path is made by the name-space manager, whom no
    /// signal reaches.
    pub(crate) cancelable: bool,
}

impl Call {
    /// A cancelable call without payload.
    pub(crate) fn new(caller: Option<Caller>, after: After) -> Self {
        Self {
            caller,
            after,
            payload: Buffer::default(),
            gives_back: false,
            held: None,
            fds: Vec::new(),
            canceling: false,
            cancelable: true,
        }
    }

    /// The same, with a payload that the caller does not see again.
    pub(crate) fn lending(self, payload: Buffer) -> Self {
        Self { payload, ..self }
    }

    /// The same, with a payload that the caller gets back, changed or not.
    pub(crate) fn sharing(self, payload: Buffer) -> Self {
        Self {
            payload,
            gives_back: true,
            ..self
        }
    }

    /// The same, keeping what was called open.
    pub(crate) fn holding(self, held: impl Into<Held>) -> Self {
        Self {
            held: Some(held.into()),
            ..self
        }
    }
}

/// A description that a call keeps.
#[derive(Debug)]
pub(crate) struct Held {
    description: Option<Arc<Description>>,
    consumed: bool,
}

impl Held {
    /// A description whose descriptor the call took away: its scheme is not told of its end.
    pub(crate) fn consumed(description: Arc<Description>) -> Self {
        Self {
            description: Some(description),
            consumed: true,
        }
    }

    /// The description.
    pub(crate) fn description(&self) -> Option<&Arc<Description>> {
        self.description.as_ref()
    }

    /// The description, which stays open.
    pub(crate) fn take(mut self) -> Option<Arc<Description>> {
        self.description.take()
    }
}

impl From<Arc<Description>> for Held {
    fn from(description: Arc<Description>) -> Self {
        Self {
            description: Some(description),
            consumed: false,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(description) = self.description.take().filter(|_| self.consumed) {
            description.consume();
        }
    }
}

/// What an answer leads to.
#[derive(Debug)]
pub(crate) enum After {
    /// The result is the caller's.
    Value,
    /// Success is 0.
    Zero,
    /// A new file descriptor, or one in the place of another.
    NewFd {
        /// The flags of the description.
        flags: u32,
        /// The descriptor to replace; `None` for a new one.
        replace: Option<usize>,
    },
    /// Bytes were read or written at the description's own offset.
    Advance,
    /// The scheme agrees with an fcntl; the kernel does its part.
    Fcntl {
        /// The command.
        command: u64,
        /// Its argument.
        argument: u64,
    },
    /// An fstat of the old kind: the kernel fills in the scheme's number.
    Stat,
    /// A standard file-system call: the description may ask for a notice.
    StdFs,
    /// Descriptors were sent: the result is how many.
    Sent(usize),
    /// Descriptors are received into the payload.
    Received,
    /// The size is known; seek to this far from it.
    SeekEnd(i64),
    /// The scheme has said where a mapping's pages are.
    Map(MapRequest),
    /// One piece is unmapped.
    Unmapped(Unmapping),
    /// The scheme of a file that is watched from now on has said what has happened already.
    Watching(Watching),
}

/// A mapping that a client asks for, checked as far as the kernel checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapRequest {
    /// Where the client will map it; `None` where it found no room.
    pub(crate) address: Option<u64>,
    /// Whole pages, in bytes.
    pub(crate) bytes: u64,
    /// From where in the file, page-aligned.
    pub(crate) offset: u64,
    /// Whether the client may write.
    pub(crate) writeable: bool,
}

/// Pieces of mappings that are gone and whose schemes are told one after the other, as the
/// kernel does it: the next when the one before is answered.
#[derive(Debug)]
pub(crate) struct Unmapping {
    /// Who waits until all is said, and for what.
    pub(crate) caller: Option<(Caller, AfterUnmapping)>,
    /// Whose mappings they were.
    pub(crate) context: Context,
    /// The piece that is being told, and keeps its description open until then.
    pub(crate) current: Option<Mapping>,
    /// The ones after it.
    pub(crate) pieces: VecDeque<Mapping>,
    /// The userfaultfd that is to be read when all is said.
    pub(crate) watched: Option<u64>,
}

/// What a caller waits for while pieces are unmapped.
#[derive(Debug)]
pub(crate) enum AfterUnmapping {
    /// That they are.
    Nothing,
    /// For its new mapping in their place.
    Mapped {
        /// The memory file.
        memory: super::reply::Attachment,
        /// Where in it the mapping begins, in bytes.
        offset: u64,
        /// Whether the client has to bring its own pages there.
        adopts: bool,
    },
    /// For a mapping that does not come about.
    Failed(Error),
}

/// Where a thread of the daemon waits for the answer to its own call.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    answer: Mutex<Option<LocalAnswer>>,
    answered: Condvar,
}

/// The answer to a call by the daemon itself.
#[derive(Debug)]
pub(crate) struct LocalAnswer {
    /// The result as the kernel's ABI has it.
    pub(crate) result: usize,
    /// What the payload became.
    pub(crate) payload: Vec<u8>,
}

impl Waiter {
    /// Hands over the answer.
    pub(crate) fn answer(&self, answer: LocalAnswer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.answered.notify_all();
    }

    /// Blocks until there is an answer.
    pub(crate) fn wait(&self) -> LocalAnswer {
        let mut slot = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match slot.take() {
                Some(answer) => return answer,
                None => {
                    slot = self
                        .answered
                        .wait(slot)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
