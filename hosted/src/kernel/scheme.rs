//! A scheme as the kernel sees it: the queue of requests (SQEs) that its daemon reads.
//!
//! Invariants: nothing is queued once the scheme is closed. The queue's lock is a leaf: it is
//! taken with the kernel's state locked or not, and nothing is locked under it. What becomes of
//! the answers is the business of `cqe`.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::EventFd;
use syscall::schemev2::Sqe;

/// One scheme. Lives as long as anything refers to it; open as long as its socket is.
#[derive(Debug)]
pub(crate) struct Scheme {
    id: usize,
    open: AtomicBool,
    queue: Mutex<Queue>,
    wake: Arc<EventFd>,
}

#[derive(Debug, Default)]
struct Queue {
    sqes: VecDeque<Sqe>,
    reader: Reader,
}

/// What the thread that reads the socket is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Reader {
    /// It will look at the queue by itself.
    #[default]
    Awake,
    /// It sleeps, or is about to, and must be woken by the event file.
    Asleep,
    /// The event file was written for it, and it has not come back yet.
    Woken,
}

impl Scheme {
    /// An open scheme, whose sleeping reader is woken through `wake`.
    pub(crate) fn new(id: usize, wake: Arc<EventFd>) -> Self {
        Self {
            id,
            open: AtomicBool::new(true),
            queue: Mutex::default(),
            wake,
        }
    }

    /// A scheme without a daemon.
    pub(crate) fn closed(id: usize, wake: Arc<EventFd>) -> Self {
        let scheme = Self::new(id, wake);
        scheme.open.store(false, Ordering::Release);
        scheme
    }

    /// The scheme's number.
    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// Whether the scheme's socket is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Closes the scheme for good and forgets what its daemon has not read.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.queue().sqes.clear();
        self.wake();
    }

    /// Queues a request; a closed scheme gets none.
    pub(crate) fn send(&self, sqe: Sqe) {
        if !self.is_open() {
            return;
        }
        let sleeps = {
            let mut queue = self.queue();
            queue.sqes.push_back(sqe);
            let sleeps = queue.reader == Reader::Asleep;
            if sleeps {
                queue.reader = Reader::Woken;
            }
            sleeps
        };
        if sleeps {
            self.wake();
        }
    }

    /// Copies whole requests into `buffer` and returns how many bytes they are. With none there
    /// and `sleep`, the reader counts as asleep until [`Scheme::awake`].
    pub(crate) fn take(&self, buffer: &mut [u8], sleep: bool) -> usize {
        let mut queue = self.queue();
        let count = queue.sqes.len().min(buffer.len() / size_of::<Sqe>());
        for (sqe, room) in queue
            .sqes
            .drain(..count)
            .zip(buffer.chunks_exact_mut(size_of::<Sqe>()))
        {
            room.copy_from_slice(&sqe);
        }
        if count == 0 && sleep {
            queue.reader = Reader::Asleep;
        }
        count * size_of::<Sqe>()
    }

    /// The oldest request, for a scheme that the kernel serves itself.
    pub(crate) fn next(&self) -> Option<Sqe> {
        self.queue().sqes.pop_front()
    }

    /// The reader is no longer asleep.
    pub(crate) fn awake(&self) {
        self.queue().reader = Reader::Awake;
    }

    /// Wakes again a reader that was woken and has not come back: the reader of another scheme,
    /// which shares the event file, may have taken the wake-up.
    pub(crate) fn wake_again(&self) {
        let woken = self.queue().reader == Reader::Woken;
        if woken {
            self.wake();
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only where the counter is full, and then the reader wakes anyway.
        let _ = self.wake.write(1);
    }
}
