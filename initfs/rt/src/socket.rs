//! A scheme of a program's own: requests in, answers out, one at a time. The bootstrap process and
//! the tests' links use it; gemd brings its own.

use syscall::data::NewFdParams;
use syscall::error::{EAGAIN, EINTR, EINVAL, Error, Result};
use syscall::flag::{CallFlags, F_SETFL, O_NONBLOCK, SchemeSocketCall};
use syscall::schemev2::{Cqe, CqeOpcode, Sqe, SqeFlags};

use crate::fd::{self, Owned};

/// The kernel's end of a scheme. Made on the thread that serves it: the kernel maps payloads into
/// that thread's address space, and gives the scheme up when that thread ends.
#[derive(Debug)]
pub struct Socket {
    fd: Owned,
}

impl Socket {
    /// A new scheme without a name.
    ///
    /// # Errors
    ///
    /// EMFILE, ENOMEM.
    pub fn new(create_scheme: usize) -> Result<Self> {
        let fd = Owned::new(fd::dup(create_scheme, b"create-scheme")?);
        Ok(Self { fd })
    }

    /// Whether [`Socket::receive`] waits from now on; at first it does.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel.
    pub fn set_waiting(&self, waits: bool) -> Result<()> {
        let flags = if waits { 0 } else { O_NONBLOCK };
        syscall::fcntl(self.fd.raw(), F_SETFL, flags).map(drop)
    }

    /// Its fd, for an event queue.
    pub fn raw(&self) -> usize {
        self.fd.raw()
    }

    /// An fd on this scheme, which it will know as `id`.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn file(&self, id: usize) -> Result<Owned> {
        let params = NewFdParams {
            offset: 0,
            number: id,
            flags: 0,
            internal_flags: 0,
        };
        let mut bytes = [0; size_of::<NewFdParams>()];
        // SAFETY: the structure is plain integers, written over zeroes so that its padding has a
        // value.
        unsafe {
            bytes
                .as_mut_ptr()
                .cast::<NewFdParams>()
                .write_unaligned(params)
        };
        self.fd.dup(&bytes)
    }

    /// The next request; `None` where none has come and this socket does not wait.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel.
    pub fn receive(&self) -> Result<Option<Sqe>> {
        let mut sqe = Sqe::default();
        loop {
            match syscall::read(self.fd.raw(), &mut sqe) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(sqe)),
                Err(error) if error.errno == EINTR => {}
                Err(error) if error.errno == EAGAIN => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The fd that came with a sendfd request.
    ///
    /// # Errors
    ///
    /// EMFILE, ENOENT.
    pub fn sent_fd(&self, sqe: &Sqe) -> Result<Owned> {
        let metadata = [SchemeSocketCall::ObtainFd as u64, sqe.tag.into()];
        let number = fd::open_with(|number| {
            let mut slot = number.to_ne_bytes();
            syscall::call_ro(self.fd.raw(), &mut slot, CallFlags::FD, &metadata)
        })?;
        Ok(Owned::new(number))
    }

    /// Answers with a value or an errno.
    pub fn answer(&self, tag: u32, result: Result<usize>) {
        self.write(tag, CqeOpcode::RespondRegular, Error::mux(result));
    }

    /// Answers with an fd, or an errno. The kernel takes the fd.
    pub fn answer_fd(&self, tag: u32, result: Result<Owned>) {
        match result {
            Ok(file) => {
                let number = file.into_raw();
                if self.write(tag, CqeOpcode::RespondWithFd, number) {
                    fd::release(number);
                } else {
                    let _ = fd::close(number);
                }
            }
            Err(error) => self.answer(tag, Err(error)),
        }
    }

    /// Whether the kernel took it; it does not where the caller is gone.
    fn write(&self, tag: u32, kind: CqeOpcode, result: usize) -> bool {
        let cqe = Cqe {
            flags: kind as u8,
            extra_raw: [0; 3],
            tag,
            result: result as u64,
        };
        matches!(syscall::write(self.fd.raw(), &cqe), Ok(written) if written > 0)
    }
}

/// The bytes that came with a request of the form \[id, address, length, ..\].
///
/// # Safety
///
/// The request has not been answered, nor will be while the bytes are used.
pub unsafe fn payload(sqe: &Sqe) -> &[u8] {
    let length = sqe.args[2] as usize;
    if length == 0 {
        return &[];
    }
    // SAFETY: the kernel has mapped the caller's bytes for as long as the request is open.
    unsafe { core::slice::from_raw_parts(sqe.args[1] as *const u8, length) }
}

/// Copies `bytes` to the caller of a request of the form \[id, address, length, ..\]; how many
/// there were room for.
///
/// # Safety
///
/// As [`payload`], and the caller asked to read.
pub unsafe fn fill(sqe: &Sqe, bytes: &[u8]) -> usize {
    let length = bytes.len().min(sqe.args[2] as usize);
    // SAFETY: the kernel has mapped the caller's bytes for as long as the request is open, and
    // `bytes` are ours.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), sqe.args[1] as *mut u8, length) };
    length
}

/// Whether an answer is due.
pub fn wants_answer(sqe: &Sqe) -> bool {
    !sqe.sqe_flags.contains(SqeFlags::ONEWAY)
}

/// EINVAL, for what a caller should not have sent.
pub fn invalid<T>() -> Result<T> {
    Err(Error::new(EINVAL))
}
