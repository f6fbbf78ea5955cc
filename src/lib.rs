//! A GEM memory manager without an operating system.
//!
//! What Linux keeps in `drm_gem.c`: buffer objects, handles, global names, fake mmap offsets,
//! sharing by fd, mapped pages, and who pays for all that. A [`Device`] is the state of one
//! server; where its pages come from is a [`pages::PageSource`], what a driver adds a
//! [`Driver`]. Nothing here blocks, knows a wire format or decides who may do what: a server does,
//! and asks.
//!
//! The life of an object: [`Device::create`] makes it and a first handle; names
//! ([`Device::flink`]), object fds ([`Device::export`]) and mappings ([`Device::map`]) come and go;
//! one that nobody needs ([`Device::advise`]) may lose its pages; when the last handle, object fd
//! and mapped page is gone, it ends.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bindings;
mod device;
mod driver;
mod dumb;
mod error;
mod events;
pub mod fair;
mod fd_mappings;
mod handles;
mod ids;
mod ledger;
mod names;
mod object;
mod offsets;
mod open;
pub mod pages;
mod purgeable;
mod sharers;
mod shrink;
mod slots;
pub mod space;
pub mod units;
mod usage;
pub mod user;

pub use device::{
    Acquisition, Claim, Config, CreateInfo, Device, Dumb, MAX_USER_HANDLE, News, ObjectCursor,
    ObjectFdInfo, ObjectView, OpenStats, Purges, Sequence, Stats, Working,
};
pub use driver::{Driver, NoDriver, ObjectInfo};
pub use error::{Errno, Error};
pub use events::{CAPACITY as EVENT_CAPACITY, Event, Pressure};
pub use ids::{ObjectFdId, ObjectId, OpenId};
pub use ledger::{Account, Counted, LedgerError, Limits, MAX_OBJECT_PAGES};
pub use names::NameMode;
pub use object::{Advice, Rights};
pub use open::{Magic, Node};
pub use usage::{FEW_HOLDERS, Usage};
