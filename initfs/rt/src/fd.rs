//! Numbers of open files. The Redox kernel leaves it to the process which numbers are in use: a
//! call that makes an fd names the number, and a taken one is refused. This module owns the books
//! for the lower table; everything in the process that opens or closes goes through it.

use syscall::error::{EMFILE, Error, Result};

use crate::protocol::{FIRST_FREE_FD, STARTING_FD, THREAD_FD};
use crate::sync::Mutex;

/// As many as the kernel allows a process.
const NUMBERS: usize = 65_536;
const WORDS: usize = NUMBERS / 64;

struct Numbers {
    used: [u64; WORDS],
    /// No word before this one has a free bit.
    first_word: usize,
}

static TABLE: Mutex<Numbers> = Mutex::new(Numbers {
    used: {
        let mut used = [0; WORDS];
        used[0] = (1 << FIRST_FREE_FD) - 1;
        used
    },
    first_word: 0,
});

impl Numbers {
    fn take(&mut self) -> Option<usize> {
        let words = self.used.get_mut(self.first_word..)?;
        let (index, word) = words
            .iter_mut()
            .enumerate()
            .find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        self.first_word += index;
        Some(self.first_word * 64 + bit as usize)
    }

    fn mark(&mut self, number: usize) {
        if let Some(word) = self.used.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    fn release(&mut self, number: usize) {
        let index = number / 64;
        if let Some(word) = self.used.get_mut(index) {
            *word &= !(1 << (number % 64));
            self.first_word = self.first_word.min(index);
        }
    }
}

/// Reserves a number that nothing uses.
///
/// # Errors
///
/// EMFILE.
pub fn reserve() -> Result<usize> {
    TABLE.lock().take().ok_or(Error::new(EMFILE))
}

/// Books a number that a call has used without asking for one.
pub fn mark_used(number: usize) {
    TABLE.lock().mark(number);
}

/// Says that nothing uses the number any more. For numbers outside the lower table it does
/// nothing.
pub fn release(number: usize) {
    TABLE.lock().release(number);
}

/// Books what is open already when a program begins: more than it is handed where another program
/// ran in this process before.
pub(crate) fn find_inherited() {
    // All others may be taken.
    if syscall::dup_into(THREAD_FD, STARTING_FD, b"filetable-binary").is_err() {
        return;
    }
    let mut part = [0; 64 * size_of::<u64>()];
    while let Ok(length @ 1..) = syscall::read(STARTING_FD, &mut part) {
        let (numbers, _) = part.as_chunks();
        for number in numbers.iter().take(length / size_of::<u64>()) {
            mark_used(u64::from_ne_bytes(*number) as usize);
        }
    }
    // SAFETY: closing touches no memory of ours.
    let _ = unsafe { syscall::syscall1(syscall::SYS_CLOSE, STARTING_FD) };
}

/// Reserves a number and makes an fd there with `open`; releases the number if that fails.
///
/// # Errors
///
/// EMFILE, and what `open` answers.
pub fn open_with(open: impl FnOnce(usize) -> Result<usize>) -> Result<usize> {
    let number = reserve()?;
    open(number).inspect_err(|_| release(number))?;
    Ok(number)
}

/// Opens `path` relative to `fd`.
///
/// # Errors
///
/// EMFILE, and what the scheme answers.
pub fn open_at(fd: usize, path: &str, flags: usize) -> Result<usize> {
    open_with(|number| syscall::openat_into(fd, number, path, flags, 0))
}

/// `dup` with a request.
///
/// # Errors
///
/// EMFILE, and what the scheme answers.
pub fn dup(fd: usize, request: &[u8]) -> Result<usize> {
    open_with(|number| syscall::dup_into(fd, number, request))
}

/// Closes the fd; its number is free afterwards, whatever the scheme answered.
///
/// # Errors
///
/// EBADF.
pub fn close(fd: usize) -> Result<()> {
    // SAFETY: closing touches no memory of ours.
    let closed = unsafe { syscall::syscall1(syscall::SYS_CLOSE, fd) };
    release(fd);
    closed.map(drop)
}

/// An fd that is closed when dropped.
#[derive(Debug)]
pub struct Owned(usize);

impl Owned {
    /// Takes an fd over.
    pub fn new(fd: usize) -> Self {
        Self(fd)
    }

    /// `dup` with a request.
    ///
    /// # Errors
    ///
    /// As [`dup`].
    pub fn dup(&self, request: &[u8]) -> Result<Self> {
        dup(self.0, request).map(Self)
    }

    /// Its number.
    pub fn raw(&self) -> usize {
        self.0
    }

    /// Gives it up without closing it.
    pub fn into_raw(self) -> usize {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The number was ours, so closing it cannot fail in a way that matters.
        let _ = close(self.0);
    }
}
