//! Promises of the image itself: runtime, bootstrap process and kernel do together what the tests
//! of the graphics-memory server build on.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use libredox::Fd;
use libredox::call::MmapArgs;
use libredox::flag::{MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE};
use rt::process::{Command, Process};
use rt::protocol::{Ended, FIRST_HANDED_FD};
use rt::sync::{Mutex, Queue};
use rt::thread::Thread;
use syscall::CallFlags;
use syscall::error::ENODEV;

use crate::{Broken, Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "threads_share_memory_and_wait_for_one_another",
        keep: threads,
    },
    Promise {
        name: "a_call_reaches_a_daemon_and_its_answer_comes_back",
        keep: call,
    },
    Promise {
        name: "a_page_of_a_daemon_can_be_mapped_and_unmapped",
        keep: map,
    },
    Promise {
        name: "a_process_that_is_killed_in_a_call_closes_its_files",
        keep: kill,
    },
    Promise {
        name: "a_daemon_learns_who_calls",
        keep: credentials,
    },
    Promise {
        name: "a_crash_ends_the_process_and_nothing_else",
        keep: crash,
    },
    Promise {
        name: "an_fd_can_be_handed_to_a_child",
        keep: hand,
    },
    Promise {
        name: "a_program_starts_while_others_wait_for_who_loads_it",
        keep: start_amid_calls,
    },
];

const PATH: &str = "/scheme/smoke/file";
/// Opening it takes until [`number::ANSWER_ALL`].
const LATE: &str = "/scheme/smoke/late";

/// The calls that the daemon knows: their first word.
pub mod number {
    pub const ECHO: u64 = 0;
    pub const OPEN_FILES: u64 = 2;
    pub const MAPPED_BYTES: u64 = 3;
    pub const UID_OF_CALLER: u64 = 4;
    pub const WAITING: u64 = 5;
    pub const KEEP_UNMAPPINGS: u64 = 6;
    pub const ANSWER_ALL: u64 = 7;
    pub const WAIT: u64 = 1;
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    process: Process,
    pub file: Fd,
}

impl Daemon {
    pub fn start() -> Result<Self, Broken> {
        let process = Command::new("smoke-daemon").spawn();
        let process = process.map_err(in_call("start the daemon"))?;
        loop {
            match Fd::open(PATH, O_RDWR, 0) {
                Ok(file) => return Ok(Self { process, file }),
                Err(error) if error.errno() == ENODEV => {
                    let _ = syscall::sched_yield();
                }
                Err(error) => return Err(Broken::Call("open the daemon's file", error.into())),
            }
        }
    }

    pub fn ask(&self, words: &[u64]) -> Result<usize, Broken> {
        ask(self.file.raw(), words)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask(fd: usize, words: &[u64]) -> Result<usize, Broken> {
    libredox::call::call_rw(fd, &mut [], CallFlags::empty(), words)
        .map_err(|error| Broken::Call("call the daemon", error.into()))
}

fn threads() -> Outcome {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 1000;
    let sum = Arc::new(Mutex::new(0));
    let ready = Arc::new(Queue::new());
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let (sum, ready) = (sum.clone(), ready.clone());
        let thread = rt::thread::spawn(move || {
            for _ in 0..ROUNDS {
                *sum.lock() += 1;
            }
            ready.push(number);
        });
        threads.push(thread.map_err(in_call("start a thread"))?);
    }
    let mut reported = 0;
    for _ in 0..THREADS {
        reported += ready.pop();
    }
    for thread in threads {
        thread.join();
    }
    expect("the sum of what the threads reported", reported, 6)?;
    expect("the sum under the lock", *sum.lock(), THREADS * ROUNDS)
}

fn call() -> Outcome {
    let daemon = Daemon::start()?;
    for value in [0, 1, 0x1234_5678] {
        let answer = daemon.ask(&[number::ECHO, value])?;
        expect("the echo", answer, value as usize)?;
    }
    Ok(())
}

fn map() -> Outcome {
    let daemon = Daemon::start()?;
    let args = MmapArgs {
        addr: core::ptr::null_mut(),
        length: 4096,
        prot: PROT_READ | PROT_WRITE,
        flags: MAP_SHARED,
        fd: daemon.file.raw(),
        offset: 0,
    };
    // SAFETY: nothing is at a null address that the kernel could replace.
    let page = unsafe { libredox::call::mmap(args) };
    let page = page.map_err(|error| Broken::Call("map", error.into()))?;
    // SAFETY: a page has just been mapped there.
    let first = unsafe { page.cast::<u64>().read_volatile() };
    expect(
        "the daemon's first word",
        first,
        u64::from_le_bytes(*b"daemon!!"),
    )?;
    expect("bytes mapped", daemon.ask(&[number::MAPPED_BYTES])?, 4096)?;
    // SAFETY: mapped above, and not used any more.
    let unmapped = unsafe { libredox::call::munmap(page, 4096) };
    unmapped.map_err(|error| Broken::Call("unmap", error.into()))?;
    expect("bytes mapped", daemon.ask(&[number::MAPPED_BYTES])?, 0)
}

fn kill() -> Outcome {
    let daemon = Daemon::start()?;
    expect("open files", daemon.ask(&[number::OPEN_FILES])?, 1)?;
    let client = Command::new("smoke-client").argument("never").spawn();
    let client = client.map_err(in_call("start the client"))?;
    while daemon.ask(&[number::WAITING])? == 0 {
        let _ = syscall::sched_yield();
    }
    expect("open files", daemon.ask(&[number::OPEN_FILES])?, 2)?;
    client.kill().map_err(in_call("kill the client"))?;
    let ended = client.wait().map_err(in_call("wait for the client"))?;
    expect("how the client ended", ended, Ended::Killed)?;
    expect("open files", daemon.ask(&[number::OPEN_FILES])?, 1)
}

fn credentials() -> Outcome {
    let daemon = Daemon::start()?;
    expect("root's uid", daemon.ask(&[number::UID_OF_CALLER])?, 0)?;
    let client = Command::new("smoke-client").argument("uid").ids(1000, 1000);
    let client = client.spawn().map_err(in_call("start the client"))?;
    let ended = client.wait().map_err(in_call("wait for the client"))?;
    expect("how the client ended", ended, Ended::Exited(0))
}

fn crash() -> Outcome {
    let client = Command::new("smoke-client").argument("crash").spawn();
    let client = client.map_err(in_call("start the client"))?;
    let ended = client.wait().map_err(in_call("wait for the client"))?;
    expect("how the client ended", ended, Ended::Crashed(14))?;
    let client = Command::new("smoke-client").argument("panic").spawn();
    let client = client.map_err(in_call("start the client"))?;
    let ended = client.wait().map_err(in_call("wait for the client"))?;
    expect(
        "how the client ended",
        ended,
        Ended::Exited(rt::start::PANICKED),
    )
}

fn hand() -> Outcome {
    let daemon = Daemon::start()?;
    let client = Command::new("smoke-client")
        .argument("handed")
        .hand(daemon.file.raw(), FIRST_HANDED_FD);
    let client = client.spawn().map_err(in_call("start the client"))?;
    let ended = client.wait().map_err(in_call("wait for the client"))?;
    expect("how the client ended", ended, Ended::Exited(0))?;
    expect("open files", daemon.ask(&[number::OPEN_FILES])?, 1)
}

/// The process that loads programs serves the name space, too: who waits for an open has the path
/// mapped there, where the kernel wants it. That must not be where programs are loaded.
fn start_amid_calls() -> Outcome {
    const CALLERS: u32 = 20;
    let daemon = Daemon::start()?;
    let open_after = |delay: Duration| {
        let thread = rt::thread::spawn(move || {
            rt::time::sleep(delay);
            let _ = Fd::open(LATE, O_RDWR, 0);
        });
        thread.map_err(in_call("start a thread"))
    };
    let mut callers = alloc::vec![open_after(Duration::ZERO)?];
    while daemon.ask(&[number::WAITING])? == 0 {
        let _ = syscall::sched_yield();
    }
    let started = (0..CALLERS).try_for_each(|_| {
        // It wakes up at a tick of the clock, amid a load.
        callers.push(open_after(Duration::from_millis(1))?);
        let large = Command::new("large").spawn();
        let large = large.map_err(in_call("start a program"))?;
        let ended = large.wait().map_err(in_call("wait for a program"))?;
        expect("how the program ended", ended, Ended::Exited(0))
    });
    // Those that come now are not kept waiting.
    daemon.ask(&[number::ANSWER_ALL])?;
    callers.into_iter().for_each(Thread::join);
    started
}
