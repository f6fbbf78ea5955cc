//! Graphics memory from Rust: buffers that processes share, on Redox and on Linux.
//!
//! Open a node, make a buffer, map it, share it:
//!
//! ```no_run
//! use gem_client::{Card, Node, Rights};
//!
//! # fn main() -> Result<(), gem_client::Error> {
//! let card = Card::open(Node::Primary)?;
//! let buffer = card.create(64 * 1024)?;
//! let mapping = buffer.map()?;
//! mapping.write_at(0, b"hello")?;
//! // Somebody else opens it by name …
//! let name = buffer.flink()?;
//! let again = card.open_name(name)?;
//! // … or is given an fd on it.
//! let fd = buffer.export(Rights::ReadOnly)?;
//! assert_eq!(fd.size()?, again.size());
//! # Ok(())
//! # }
//! ```
//!
//! Everything is a thin, safe layer over libredox calls; what the calls mean stands in the
//! project's `docs/wire.md`. Calls have no payload where they can do without, because a payload
//! doubles what a call costs. A payload that there is stays below a page and never lies inside a
//! mapping of a GEM object; the kernel of August 2026 can be brought down by a program that
//! breaks the latter rule with raw calls.
//!
//! All types are `Send` and `Sync`: calls of several threads on one node are served side by side,
//! except that imports into a node and the closing of its handles wait for each other.
//!
//! After a fork both processes have the same open node: a handle that one closes is closed for
//! both. Let the child open its own, and pass object fds.
//!
//! On Linux the crate links `hosted`, which defines libredox's symbols and talks to a `gemd` on
//! a Unix socket (see [`linux`]).

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;
// Brings the symbols of libredox.
#[cfg(all(feature = "std", not(target_os = "redox")))]
use hosted as _;

mod buffer;
mod card;
pub mod drm;
mod error;
mod events;
mod handles;
#[cfg(all(feature = "std", not(target_os = "redox")))]
pub mod linux;
mod mapping;
mod object_fd;
pub mod picture;
#[cfg(feature = "png")]
mod png_file;
#[cfg(all(feature = "std", target_os = "redox"))]
mod redox;
pub mod text;
mod userptr;

pub use buffer::{Buffer, Dumb};
pub use card::{Card, Create, Magic, Name, Node};
pub use error::{Error, Result};
pub use events::Events;
pub use gem_wire::event::{Event, Pressure};
pub use gem_wire::limit::{Limit, Unit};
pub use gem_wire::native::{Advice, Features};
pub use mapping::Mapping;
pub use object_fd::{ObjectFd, Rights};
pub use userptr::{Register, Userptr};

/// Bytes in a page: sizes of buffers and offsets of mappings are multiples of it.
pub const PAGE_SIZE: usize = 4096;

/// What the documentation promises of threads.
const _: () = {
    const fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Card>();
    assert_shareable::<Buffer>();
    assert_shareable::<Mapping>();
    assert_shareable::<ObjectFd>();
    assert_shareable::<Events>();
    assert_shareable::<Userptr>();
};
