//! The runtime of the test image's programs: what relibc is to a program on a full Redox, for
//! `no_std` programs on a bare Redox kernel. It exists for the test image only.
//!
//! It brings an entry point ([`entry!`]), a heap ([`heap`]), panics that end the process and no
//! more, lines on the serial port ([`say!`]), threads ([`thread`]) with locks and queues
//! ([`sync`]), processes ([`process`], [`fork`]), and the C symbols of `libredox` over raw system
//! calls ([`symbols`]), so that crates written for Redox link unchanged. Signals, environment variables
//! and thread-local storage are not there.
//!
//! A program is started by the image's bootstrap process, which it asks for threads and further
//! processes ([`protocol`]).

#![no_std]

extern crate alloc;

pub mod fd;
pub mod fork;
pub mod heap;
pub mod process;
pub mod protocol;
pub mod socket;
pub mod start;
pub mod symbols;
pub mod sync;
pub mod thread;
pub mod time;

mod debug;

pub use debug::{set_debug_fd, write_line};
pub use libredox;
pub use syscall;
