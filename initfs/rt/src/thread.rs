//! Threads: further contexts of the kernel in the same address space with the same files.
//!
//! A thread owns its stack, which goes when somebody joins it; one that nobody joins keeps it. A
//! panic of any thread ends the process (`start`).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use syscall::error::Result;
use syscall::flag::{CallFlags, ContextStatus};

use crate::fd::{self, Owned};
use crate::heap::map_anonymous;
use crate::protocol::{Call, DUP_THREAD, PROCESS_FD, THREAD_FD};
use crate::sync::Event;

const STACK: usize = 256 * 1024;

/// A running thread. Dropping it lets the thread go on, and its stack stay.
pub struct Thread {
    context: Owned,
    stack: usize,
    done: Arc<Event>,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Thread").field(&self.context.raw()).finish()
    }
}

/// What a new thread begins with.
struct Begin {
    body: Box<dyn FnOnce() + Send>,
    stack: usize,
    done: Arc<Event>,
}

/// Starts a thread.
///
/// # Errors
///
/// ENOMEM, EMFILE.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let stack = map_anonymous(STACK)?;
    let request = [DUP_THREAD, &stack.to_ne_bytes()].concat();
    let started = fd::dup(PROCESS_FD, &request)
        .and_then(|context| start_on(Owned::new(context), stack, THREAD_FD, body));
    started.inspect_err(|_| {
        // SAFETY: mapped above, and nothing runs on it.
        let _ = unsafe { syscall::funmap(stack, STACK) };
    })
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
    start_on(context, map_anonymous(STACK)?, own, body)
}

fn start_on(
    context: Owned,
    stack: usize,
    own: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread> {
    let done = Arc::new(Event::new());
    let begin = Box::new(Begin {
        body: Box::new(body),
        stack,
        done: done.clone(),
    });
    let begin = Box::into_raw(begin);
    // As after a call: 8 bytes below a 16-byte boundary.
    let top = stack + STACK - 8;
    share_and_start(&context, own, top, begin as usize).inspect_err(|_| {
        // SAFETY: the thread has not started, so the box is still only ours.
        drop(unsafe { Box::from_raw(begin) });
    })?;
    Ok(Thread {
        context,
        stack,
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
    let metadata = [Call::EndThread as u64, begin.stack as u64];
    loop {
        let _ = syscall::call_wo(PROCESS_FD, &[], CallFlags::empty(), &metadata);
    }
}

impl Thread {
    /// The fd of its context.
    pub fn context(&self) -> usize {
        self.context.raw()
    }

    /// Waits until it has ended.
    pub fn join(self) {
        self.done.wait();
        // It still needs its stack for its last call.
        while !is_over(&self.context) {
            let _ = syscall::sched_yield();
        }
        // SAFETY: nothing runs on it any more.
        let _ = unsafe { syscall::funmap(self.stack, STACK) };
    }
}

/// Whether a context will not run its program any more.
fn is_over(context: &Owned) -> bool {
    let Ok(status) = context.dup(b"status") else {
        return true;
    };
    let mut word = [0; size_of::<usize>()];
    let over = [ContextStatus::Dead, ContextStatus::ForceKilled];
    match syscall::read(status.raw(), &mut word) {
        Ok(_) => over
            .map(|over| over as usize)
            .contains(&usize::from_ne_bytes(word)),
        Err(_) => true,
    }
}
