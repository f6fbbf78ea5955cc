//! What gemd needs of a machine, from a Redox kernel: pages from the memory scheme, and who is
//! who from the process manager.
//!
//! Pages come from arenas: pieces of the daemon's own address space that belong to one user and
//! one kind of memory. Handing out and taking back a piece of an arena is book-keeping
//! ([`books`]); whatever would make the socket's thread wait (mapping, touching, translating,
//! clearing, unmapping) is done by a worker thread ([`worker`]), in chunks, so that a large job
//! does not keep a small one waiting. [`Pages`] joins the two; [`Machine`] adds credentials.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod books;
mod free_map;
mod machine;
mod memory;
mod pages;
mod shared;
pub mod worker;

pub use machine::Machine;
pub use pages::Pages;
