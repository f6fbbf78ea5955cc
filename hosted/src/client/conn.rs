//! A client's connection to the stand-in kernel: requests out, replies in, for many threads.
//!
//! Every thread sends for itself. Of those that wait, one receives, for all: it hands replies to
//! whom they are for, and the receiving to another when its own reply is there. The others sleep
//! on a futex, so that a signal interrupts whichever thread it reaches. A thread that a signal
//! interrupts asks the kernel to cancel its call, and goes on waiting for the answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use syscall::error::{EIO, EMFILE, ENODEV, Error, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::proto::{MAGIC, Op, PAYLOAD_MAX, Reply, Request, VERSION, demux};
use crate::socket;

/// A connection that was greeted.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// The process that made it. A forked child must not use its parent's.
    pid: u32,
    uid: AtomicU32,
    gid: AtomicU32,
    desk: Mutex<Desk>,
    buffer: Mutex<Box<[u8]>>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Desk {
    /// Whether a thread is receiving.
    receiving: bool,
    /// Whether the other end is gone.
    broken: bool,
    /// The number of the last request.
    last: u32,
    waiting: HashMap<u32, Arc<Slot>>,
}

/// Where one thread waits.
#[derive(Debug, Default)]
struct Slot {
    /// Changes, under the desk's lock, whenever there is something to look at.
    turn: AtomicU32,
    answer: Mutex<Option<Answer>>,
}

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The result as the kernel's ABI has it.
    pub(crate) result: usize,
    /// The second result.
    pub(crate) value: u64,
    /// The bytes behind it.
    pub(crate) payload: Vec<u8>,
    /// Whether the client has to bring its own pages into what is beside it.
    pub(crate) adopts: bool,
    /// The file descriptor beside it.
    pub(crate) attached: Option<OwnedFd>,
}

impl Answer {
    /// The result: a number or an errno.
    pub(crate) fn result(&self) -> Result<usize> {
        demux(self.result)
    }
}

impl Connection {
    /// Connects to the daemon at `path` and greets it. ENODEV where nobody listens.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let socket = socket::connect_to(path).map_err(|errno| match errno {
            Errno::EMFILE | Errno::ENFILE => Error::new(EMFILE),
            _ => Error::new(ENODEV),
        })?;
        let connection = Self {
            socket,
            pid: std::process::id(),
            uid: AtomicU32::new(0),
            gid: AtomicU32::new(0),
            desk: Mutex::default(),
            buffer: Mutex::new(vec![0; size_of::<Reply>() + PAYLOAD_MAX].into_boxed_slice()),
        };
        let hello = Request::new(Op::Hello, 0, &[MAGIC, VERSION]);
        let answer = connection.call(hello, &[], None)?;
        answer.result()?;
        connection.set_identity(answer.value as u32, (answer.value >> 32) as u32);
        Ok(connection)
    }

    /// Whether this process made the connection.
    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// The number of the connection's socket.
    pub(crate) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// User and group of this process, as the kernel has them.
    pub(crate) fn identity(&self) -> (u32, u32) {
        (
            self.uid.load(Ordering::Relaxed),
            self.gid.load(Ordering::Relaxed),
        )
    }

    /// Notes user and group.
    pub(crate) fn set_identity(&self, uid: u32, gid: u32) {
        self.uid.store(uid, Ordering::Relaxed);
        self.gid.store(gid, Ordering::Relaxed);
    }

    /// Makes a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// ENODEV where the daemon is gone, EIO where Linux cannot send the request.
    pub(crate) fn call(
        &self,
        mut request: Request,
        payload: &[u8],
        attached: Option<BorrowedFd<'_>>,
    ) -> Result<Answer> {
        let slot = Arc::new(Slot::default());
        request.request = self.enter(&slot)?;
        match self.send(&request, payload, attached) {
            Ok(interrupted) => self.wait(request.request, &slot, interrupted),
            Err(error) => {
                self.desk().waiting.remove(&request.request);
                Err(error)
            }
        }
    }

    fn enter(&self, slot: &Arc<Slot>) -> Result<u32> {
        let mut desk = self.desk();
        if desk.broken {
            return Err(Error::new(ENODEV));
        }
        loop {
            desk.last = desk.last.wrapping_add(1);
            let number = desk.last;
            if let Entry::Vacant(free) = desk.waiting.entry(number) {
                free.insert(slot.clone());
                return Ok(number);
            }
        }
    }

    /// Sends a request; returns whether a signal came meanwhile.
    fn send(&self, request: &Request, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<bool> {
        let head = request.as_bytes();
        let mut interrupted = false;
        loop {
            match socket::send(self.socket.as_fd(), head, payload, fd, MsgFlags::empty()) {
                Ok(()) => return Ok(interrupted),
                // The kernel would have taken the request at once: it has to be sent.
                Err(Errno::EINTR) => interrupted = true,
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                    self.desk().breaks();
                    return Err(Error::new(ENODEV));
                }
                Err(_) => return Err(Error::new(EIO)),
            }
        }
    }

    fn cancel(&self, number: u32) {
        let mut cancel = Request::new(Op::Cancel, 0, &[]);
        cancel.request = number;
        // Where it cannot be sent the connection is broken, which shows next.
        let _ = self.send(&cancel, &[], None);
    }

    fn wait(&self, number: u32, slot: &Slot, mut interrupted: bool) -> Result<Answer> {
        loop {
            if interrupted {
                self.cancel(number);
            }
            let mut desk = self.desk();
            if let Some(answer) = slot.take() {
                desk.waiting.remove(&number);
                desk.pass_on();
                return Ok(answer);
            }
            if desk.broken {
                desk.waiting.remove(&number);
                return Err(Error::new(ENODEV));
            }
            interrupted = if desk.receiving {
                let turn = slot.turn.load(Ordering::Relaxed);
                drop(desk);
                sleep(&slot.turn, turn)
            } else {
                desk.receiving = true;
                drop(desk);
                self.receive()
            };
        }
    }

    /// Receives one reply and hands it over; returns whether a signal came instead.
    fn receive(&self) -> bool {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let received = socket::receive(self.socket.as_fd(), &mut buffer, MsgFlags::empty());
        let mut desk = self.desk();
        desk.receiving = false;
        match received {
            Err(Errno::EINTR) => return true,
            Ok(mut message) if message.length >= size_of::<Reply>() => {
                let bytes = buffer.get(..message.length).unwrap_or_default();
                desk.deliver(bytes, message.fds.pop());
            }
            _ => desk.breaks(),
        }
        false
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn deliver(&mut self, bytes: &[u8], attached: Option<OwnedFd>) {
        let Ok((reply, payload)) = Reply::read_from_prefix(bytes) else {
            return;
        };
        let Some(slot) = self.waiting.get(&reply.request) else {
            return;
        };
        slot.put(Answer {
            result: reply.result as usize,
            value: reply.value,
            payload: payload.to_vec(),
            adopts: reply.adopts != 0,
            attached,
        });
    }

    /// Lets another thread receive, if none does and one waits.
    fn pass_on(&self) {
        if let Some(slot) = self.waiting.values().next().filter(|_| !self.receiving) {
            slot.wake();
        }
    }

    /// The other end is gone: nobody needs to wait any more.
    fn breaks(&mut self) {
        self.broken = true;
        self.waiting.values().for_each(|slot| slot.wake());
    }
}

impl Slot {
    fn put(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.wake();
    }

    fn take(&self) -> Option<Answer> {
        self.answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn wake(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the word is alive; waking has no other precondition.
        unsafe {
            let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            libc::syscall(libc::SYS_futex, self.turn.as_ptr(), operation, 1);
        }
    }
}

/// Sleeps while `word` is `value`; returns whether a signal interrupted that.
fn sleep(word: &AtomicU32, value: u32) -> bool {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is alive for the call; no timeout is given.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, forever) };
    result == -1 && Errno::last() == Errno::EINTR
}

/// The answer to a call whose file descriptor is missing.
pub(crate) fn attached(answer: Answer) -> Result<OwnedFd> {
    answer.result()?;
    answer.attached.ok_or(Error::new(EIO))
}
