//! What gemd needs of a machine, from a Redox kernel: pages from the memory scheme, and who is
//! who from the process manager.
//!
//! Pages come from arenas: pieces of the daemon's own address space that belong to one user and
//! one kind of memory. Handing out and taking back a piece of an arena is book-keeping
//! ([`books`]); whatever would make the socket's thread wait (mapping, touching, translating,
//! clearing, unmapping) is done by a worker thread ([`worker`]), in chunks, so that a large job
//! does not keep a small one waiting. [`Pages`] joins the two; [`Credentials`] knows who is who.
//!
//! It serves the test image and a full Redox: threads, locks and the clock come from the image's
//! runtime (feature `rt`) or from std (feature `std`), see `os`. It does not know gemd: a program
//! joins the two.

#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

pub mod books;
mod credentials;
mod free_map;
mod memory;
mod os;
mod pages;
mod shared;
pub mod user;
pub mod worker;

pub use credentials::Credentials;
pub use memory::machine_pages;
pub use pages::Pages;
