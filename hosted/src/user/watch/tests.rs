//! A userfaultfd and the process that it is said to be of.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};

use super::super::uffd;
use super::*;

const PAGES: u64 = 4;
const BYTES: u64 = PAGES * gem::units::PAGE_SIZE;

fn memory() -> Span {
    // SAFETY: a new mapping.
    let made = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), BYTES as usize, protection, kind, -1, 0)
    };
    assert_ne!(made, libc::MAP_FAILED);
    let start = made.expose_provenance() as u64;
    Span {
        start,
        end: start + BYTES,
    }
}

fn first_word(span: Span) -> &'static AtomicU64 {
    // SAFETY: mapped above, for good, and accessed atomically only.
    unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(span.start as usize)) }
}

fn take(watch: &Arc<Watch>, span: Span) -> Result<Arc<Range>, UserFault> {
    watch.take(span, (Arc::new(Work::new()), Uid(1000)))
}

#[test]
fn a_userfaultfd_of_another_process_takes_nothing_over_and_holds_nobody_up() {
    let span = memory();
    first_word(span).store(1, Relaxed);
    let own = uffd::create().unwrap();
    // SAFETY: the child does nothing but wait to be killed.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => loop {
            pause();
        },
    };
    // It has the same memory at the same addresses, and this userfaultfd is not of it.
    let pid = u64::try_from(child.as_raw()).unwrap();
    let watch = Arc::new(Watch::new(ClientId(1), pid, own).unwrap());
    for _ in 0..3 {
        assert_eq!(take(&watch, span).unwrap_err(), UserFault::Foreign);
        // It would wait for good.
        first_word(span).fetch_add(1, Relaxed);
    }
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    assert_eq!(first_word(span).load(Relaxed), 4);
}

#[test]
fn a_userfaultfd_of_its_own_takes_memory_over_whether_it_was_written_to_or_not() {
    for written in [true, false] {
        let span = memory();
        if written {
            first_word(span).store(1, Relaxed);
        }
        let own = uffd::create().unwrap();
        let pid = u64::from(std::process::id());
        let watch = Arc::new(Watch::new(ClientId(1), pid, own).unwrap());
        let range = take(&watch, span).unwrap();
        assert_eq!(first_word(span).load(Relaxed), written.into());
        range.give_up();
        first_word(span).store(2, Relaxed);
    }
}
