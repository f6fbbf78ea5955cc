//! Threads: further contexts of the kernel in the same address space with the same files.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use syscall::error::Result;
use syscall::flag::{ContextStatus, ContextVerb};

use crate::fd::{self, Owned};
use crate::heap::map_anonymous;
use crate::protocol::{DUP_THREAD, PROCESS_FD, THREAD_FD};
use crate::sync::Event;

const STACK: usize = 256 * 1024;

/// A running thread. Dropping it lets the thread go on.
pub struct Thread {
    context: usize,
    done: Arc<Event>,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Thread").field(&self.context).finish()
    }
}

/// What a new thread begins with.
struct Begin {
    body: Box<dyn FnOnce() + Send>,
    context: usize,
    stack: usize,
    done: Arc<Event>,
}

/// Starts a thread.
///
/// # Errors
///
/// ENOMEM, EMFILE.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let context = Owned::new(fd::dup(PROCESS_FD, DUP_THREAD)?);
    spawn_on(context, THREAD_FD, body)
}

/// Starts a thread on a context that has not been started, with address space and files of the
/// context `own`.
///
/// # Errors
///
/// ENOMEM, EMFILE; then the context is as it was, but for its address space.
pub fn spawn_on(
    context: Owned,
    own: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread> {
    let done = Arc::new(Event::new());
    let stack = map_anonymous(STACK)?;
    let begin = Box::new(Begin {
        body: Box::new(body),
        context: context.raw(),
        stack,
        done: done.clone(),
    });
    let begin = Box::into_raw(begin);
    // As after a call: 8 bytes below a 16-byte boundary.
    let top = stack + STACK - 8;
    share_and_start(&context, own, top, begin as usize).inspect_err(|_| {
        // SAFETY: the thread has not started, so the box is still only ours.
        drop(unsafe { Box::from_raw(begin) });
        // SAFETY: mapped above, and nothing runs on it.
        let _ = unsafe { syscall::funmap(stack, STACK) };
    })?;
    Ok(Thread {
        context: context.into_raw(),
        done,
    })
}

fn share_and_start(context: &Owned, own: usize, top: usize, argument: usize) -> Result<()> {
    let address_space = Owned::new(fd::dup(own, b"addrspace")?);
    let entry = run as extern "C" fn(usize, *mut Begin) -> ! as usize;
    // The change is made when the fd is closed.
    write_words(
        &context.dup(b"current-addrspace")?,
        &[address_space.raw(), top, entry, argument],
    )?;
    let files = Owned::new(fd::dup(own, b"filetable")?);
    write_words(&context.dup(b"current-filetable")?, &[files.raw()])?;
    write_words(&context.dup(b"start")?, &[0])
}

/// Writes words to one of the proc scheme's files.
///
/// # Errors
///
/// What the kernel answers.
pub fn write_words(file: &Owned, words: &[usize]) -> Result<()> {
    // SAFETY: any initialised words are bytes.
    let bytes =
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) };
    syscall::write(file.raw(), bytes).map(drop)
}

/// The first function of a thread: the kernel passes the argument in rsi.
extern "C" fn run(_: usize, begin: *mut Begin) -> ! {
    // SAFETY: `spawn_on` passed it, and this thread is its only user.
    let begin = *unsafe { Box::from_raw(begin) };
    (begin.body)();
    begin.done.set();
    drop(begin.done);
    end(begin.context, begin.stack)
}

/// Ends this context and unmaps the stack that it runs on; the kernel does both.
fn end(context: usize, stack: usize) -> ! {
    let words = [ContextVerb::ForceKill as usize, stack, STACK];
    loop {
        // SAFETY: three words are 24 bytes.
        let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), 24) };
        let _ = syscall::write(context, bytes);
    }
}

impl Thread {
    /// The fd of its context.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Waits until it has ended.
    pub fn join(self) {
        self.done.wait();
        // It still needs its fd for its last call.
        while !is_dead(self.context) {
            let _ = syscall::sched_yield();
        }
        let _ = fd::close(self.context);
    }
}

fn is_dead(context: usize) -> bool {
    let Ok(status) = fd::dup(context, b"status").map(Owned::new) else {
        return true;
    };
    let mut word = [0; size_of::<usize>()];
    match syscall::read(status.raw(), &mut word) {
        Ok(_) => usize::from_ne_bytes(word) == ContextStatus::Dead as usize,
        Err(_) => true,
    }
}
