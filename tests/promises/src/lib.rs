//! What the gem scheme promises, as tests that run wherever there are client processes.
//!
//! A promise is a script over a few [`Puppet`]s: real client processes that do what they are
//! told, one libredox call at a time, and report what came of it. How processes are made, killed
//! and talked to is the [`World`]'s business; there is one for Linux and one for the Redox boot
//! image, and the promises are the same. After each promise everything is closed, and the server
//! must be empty again: that is a promise, too.

#![no_std]

extern crate alloc;

pub mod abuse;
pub mod advice;
pub mod command;
pub mod events;
pub mod exhaustion;
pub mod forks;
pub mod kernel;
pub mod lifetimes;
pub mod limits;
pub mod mappings;
mod memory;
pub mod puppet;
pub mod quotas;
pub mod registrars;
pub mod remaps;
pub mod restarts;
pub mod sharing;
pub mod signals;
pub mod soak;
pub mod stats;
pub mod userptr;

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

pub use puppet::Puppet;

/// A way to a puppet's process: messages there and back, one at a time.
pub trait Link {
    /// Sends a message to the process and waits for its answer. `None` where the process is gone.
    fn ask(&mut self, message: &[u8]) -> Option<alloc::vec::Vec<u8>>;

    /// Sends a message to a process that takes its time to answer, or will not live to.
    fn send(&mut self, message: &[u8]);

    /// Waits for the answer to what was sent. `None` where the process is gone.
    fn hear(&mut self) -> Option<alloc::vec::Vec<u8>>;

    /// Kills the process without a warning, and waits until it is gone.
    fn kill(&mut self);

    /// Waits until the process has ended by itself: whether it has exited as a program should.
    fn wait(&mut self) -> bool;

    /// Gives a file of this process to another one, as fds are given between processes here: the
    /// fd's number there.
    fn give(&mut self, fd: u64, receiver: &mut dyn Link) -> u64;

    /// The other half of [`Link::give`]: takes what the platform uses to carry an fd.
    fn take(&mut self, carrier: Carrier) -> u64;

    /// A second process with the same open files, as after fork, and with the same mappings or
    /// none. Only [`forks`] asks for it.
    fn fork(&mut self) -> Box<dyn Link> {
        panic!("no processes are forked in this world");
    }

    /// As [`Link::ask`], while one signal after the other reaches the process, which handles them
    /// and goes on. Only [`signals`] and [`events`] ask for it.
    fn ask_amid_signals(&mut self, _message: &[u8]) -> Option<alloc::vec::Vec<u8>> {
        panic!("no signals are sent in this world");
    }
}

/// What [`soak`] does in a world.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// How many clients there are at a time.
    pub clients: usize,
    /// Whether clients are killed between two operations only.
    pub at_rest: bool,
}

/// What carries an fd between processes, on this platform.
pub type Carrier = i32;

/// Where promises are kept or broken.
pub trait World {
    /// A new client process, of the user who runs the server (root).
    fn start(&mut self) -> Box<dyn Link>;

    /// A text of the server's, read by root.
    fn text(&mut self, path: &str) -> String;

    /// Waits a moment for the kernel to tell the server about what has ended.
    fn pause(&mut self);

    /// What [`soak`] does here.
    fn soak(&self) -> Soak;

    /// Whether [`soak`] goes on, where it has killed so many clients.
    fn soaks_on(&mut self, killed: u32) -> bool;

    /// How many clients [`userptr`] kills while they register memory, one after the other.
    fn kills(&self) -> u32 {
        40
    }

    /// Waits for about so long, or where this world cannot do that, for another moment.
    fn linger(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.pause();
        }
    }

    /// How many files the server's process has open, where it can be seen from outside.
    fn servers_files(&mut self) -> Option<usize> {
        None
    }

    /// How many processes send files without end, and how many at a time: together more than a
    /// table of files holds, where the server has one of the kernel's.
    fn senders(&self) -> (usize, u64) {
        (9, 8000)
    }

    /// Starts a server, where there is none. Only [`restarts`] asks for it, and then there is none at
    /// first.
    fn start_server(&mut self) {
        panic!("the server of this world is always there");
    }

    /// Kills the server without a warning, and waits until it is gone. Only [`restarts`] asks for
    /// it.
    fn kill_server(&mut self) {
        panic!("the server of this world is always there");
    }

    /// Tells the server to leave, and waits until it has: whether it has exited as a program should.
    /// Only [`restarts`] asks for it.
    fn dismiss_server(&mut self) -> bool {
        panic!("the server of this world is always there");
    }
}

/// A user that is not root.
pub const ALICE: u32 = 1000;
/// Another one.
pub const BOB: u32 = 1001;

/// A promise: what it says, and the test of it.
pub struct Promise {
    /// What is promised.
    pub name: &'static str,
    /// Panics where the promise is broken.
    pub test: fn(&mut dyn World),
    /// Whether the server must be empty again when all clients are gone.
    pub leaves_nothing: bool,
}

/// A list of promises out of test functions: each promises what its name says.
macro_rules! promises {
    ($($test:ident),* $(,)?) => {
        $crate::promises! {
            /// The promises of this module.
            PROMISES: $($test),*
        }
    };
    ($(#[$attribute:meta])* $list:ident: $($test:ident),* $(,)?) => {
        $(#[$attribute])*
        pub const $list: &[$crate::Promise] = &[
            $($crate::Promise {
                name: stringify!($test),
                test: $test,
                leaves_nothing: true,
            },)*
        ];
    };
}
pub(crate) use promises;

/// The promises that need no more than client processes. Beside them there are those of [`forks`],
/// [`signals`], [`kernel`], [`limits`], [`exhaustion`], [`remaps`] and [`restarts`], for worlds that have
/// such things.
pub fn all() -> impl Iterator<Item = &'static Promise> {
    [
        sharing::PROMISES,
        mappings::PROMISES,
        lifetimes::PROMISES,
        abuse::PROMISES,
        quotas::PROMISES,
        stats::PROMISES,
        advice::PROMISES,
        events::PROMISES,
    ]
    .into_iter()
    .flatten()
}

/// Tests a promise, and that nothing is left behind.
///
/// # Panics
///
/// Where it is broken.
pub fn check(promise: &Promise, world: &mut dyn World) {
    (promise.test)(world);
    if promise.leaves_nothing {
        wait_until_empty(world);
    }
}

/// What must be zero when all clients are gone.
const COUNTS: [&str; 10] = [
    "opens",
    "waiting",
    "objects",
    "handles",
    "object-fds",
    "names",
    "memory-pages",
    "mapped-pages",
    "userptr-ranges",
    "userptr-pages",
];

/// Waits until the server holds nothing.
///
/// # Panics
///
/// Where it still does after a while.
pub fn wait_until_empty(world: &mut dyn World) {
    for _ in 0..2000 {
        let text = world.text("stats");
        if COUNTS.iter().all(|key| count(&text, key) == 0) {
            return;
        }
        world.pause();
    }
    panic!("the server is not empty:\n{}", world.text("stats"));
}

/// A number out of a `key: value` text.
///
/// # Panics
///
/// Where it is not there.
pub fn count(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim().parse().ok())?
    });
    found.unwrap_or_else(|| panic!("no `{key}` in:\n{text}"))
}
