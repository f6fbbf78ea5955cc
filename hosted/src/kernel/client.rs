//! A connected client process, as the kernel keeps it.
//!
//! Who it is comes from the socket, never from a message. What it may have unanswered is bounded
//! here; what it is owed and does not take is in its outbox.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscall::error::{EAGAIN, Error, Result};

use super::address_space::AddressSpace;
use super::call::Context;
use super::files::{Description, FdTable};
use super::reply::Outbox;

/// The most calls of one client that may be unanswered.
const CALLS_MAX: usize = 1024;

/// The most bytes of payload in a client's unanswered calls.
pub(crate) const PAYLOADS_MAX: usize = 4 << 20;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its process and who it is; the scheme is told so.
    pub(crate) context: Context,
    /// The connection.
    pub(crate) socket: OwnedFd,
    /// Whether it has said what it speaks.
    pub(crate) greeted: bool,
    /// Its file descriptors.
    pub(crate) fds: FdTable<Arc<Description>>,
    /// Its mappings.
    pub(crate) space: AddressSpace,
    /// Its userfaultfds, by epoll's numbers, the newest last.
    pub(crate) watches: Vec<u64>,
    /// Its unanswered calls, by its own numbers.
    pub(crate) calls: Ongoing,
    /// Replies that it has not taken.
    pub(crate) outbox: Outbox,
    /// Whether the kernel waits for it to take replies.
    pub(crate) congested: bool,
}

impl Client {
    /// A client that has just connected.
    pub(crate) fn new(context: Context, socket: OwnedFd) -> Self {
        Self {
            context,
            socket,
            greeted: false,
            fds: FdTable::default(),
            space: AddressSpace::default(),
            watches: Vec::new(),
            calls: Ongoing::default(),
            outbox: Outbox::default(),
            congested: false,
        }
    }
}

/// Where a client's call is: the scheme's number and the call's tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// Which scheme.
    pub(crate) scheme: usize,
    /// Which of its calls.
    pub(crate) tag: usize,
}

/// A client's unanswered calls.
#[derive(Debug, Default)]
pub(crate) struct Ongoing {
    places: HashMap<u32, (Place, usize)>,
    bytes: usize,
}

impl Ongoing {
    /// Whether a request of this number is unanswered.
    pub(crate) fn contains(&self, request: u32) -> bool {
        self.places.contains_key(&request)
    }

    /// Refuses (EAGAIN) one call more than a client may have, or `bytes` more of payload.
    pub(crate) fn check(&self, bytes: usize) -> Result<()> {
        if self.places.len() >= CALLS_MAX || self.bytes + bytes > PAYLOADS_MAX {
            return Err(Error::new(EAGAIN));
        }
        Ok(())
    }

    /// Enters a call, or its next step.
    pub(crate) fn enter(&mut self, request: u32, place: Place, bytes: usize) {
        self.leave(request);
        self.bytes += bytes;
        self.places.insert(request, (place, bytes));
    }

    /// Where a call is.
    pub(crate) fn place(&self, request: u32) -> Option<Place> {
        self.places.get(&request).map(|(place, _)| *place)
    }

    /// The call is answered.
    pub(crate) fn leave(&mut self, request: u32) {
        if let Some((_, bytes)) = self.places.remove(&request) {
            self.bytes -= bytes;
        }
    }

    /// Where all the calls are.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.places.values().map(|(place, _)| *place)
    }
}
