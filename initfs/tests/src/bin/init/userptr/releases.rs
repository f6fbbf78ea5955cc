//! Promises about what the daemon has let go of by the time that it says so.

use initfs_tests::user::TAKE;
use syscall::error::EFAULT;

use super::abuse::dead_space;
use super::{Daemon, Memory};
use crate::smoke::{self, number};
use crate::{Outcome, Promise, expect, frames, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[Promise {
    name: "pages_go_back_at_once_also_where_the_worker_waits_for_others",
    keep: release,
}];

/// Frames that others may take meanwhile: the kernel's heap, and what runs on another processor.
const OTHERS: u64 = 16;
const PAGES: usize = 400;

/// A frame is free when nobody maps it any more, the daemon neither. Its worker is closing the address
/// space of a process that is dead but for this fd, with a mapping of a daemon that does not answer when
/// it is told that it goes.
fn release() -> Outcome {
    let daemon = Daemon::start()?;
    let memory = Memory::new(PAGES)?;
    memory.fill(1);
    let set = daemon.take(memory.address, PAGES)?;
    daemon.map(set, memory.address, PAGES)?;
    drop(memory);

    let smoke = smoke::Daemon::start()?;
    let file = dead_space()?;
    smoke.ask(&[number::KEEP_UNMAPPINGS])?;
    let thread = rt::thread::spawn(move || {
        let refused = file.call(&[TAKE, 0x6000_0000_0000, 1]);
        assert_eq!(refused.map_err(|error| error.errno), Err(EFAULT));
    });
    let thread = thread.map_err(in_call("start a thread"))?;
    while smoke.ask(&[number::WAITING])? == 0 {
        let _ = syscall::sched_yield();
    }

    let before = frames::free()?;
    daemon.release(set)?;
    let freed = frames::free()?.saturating_sub(before);
    expect("unmappings that wait", smoke.ask(&[number::WAITING])?, 1)?;
    let all = freed + OTHERS >= PAGES as u64;
    expect("whether all frames are free", (all, freed), (true, freed))?;
    smoke.ask(&[number::ANSWER_ALL])?;
    thread.join();
    daemon.is_well()
}
