//! What a driver adds: hooks where objects and handles come and go, and address spaces.
//!
//! Hooks are called with the device's state borrowed and must not block. One that fails undoes
//! the operation; hooks that had succeeded before it get their counterpart in reverse order.

use crate::ids::{ObjectId, OpenId};
use crate::pages::{Caching, NotReady, PageSet};
use crate::space::{AddressSpace, SpaceId, UserPages};
use crate::units::PageCount;

/// An object as a driver sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObjectInfo {
    /// Which one.
    pub id: ObjectId,
    /// Its size.
    pub pages: PageCount,
    /// How the CPU caches it.
    pub caching: Caching,
}

/// Hooks of a driver. All do nothing by default.
pub trait Driver {
    /// An object has been made and nobody sees it yet.
    fn object_init(&mut self, object: ObjectInfo) -> Result<(), NotReady> {
        let _ = object;
        Ok(())
    }

    /// The object ends. Its pages, unless they were purged, are about to be given back.
    fn object_free(&mut self, object: ObjectInfo) {
        let _ = object;
    }

    /// The object's pages are about to be given back, because nobody needs them. The object lives
    /// on without any.
    fn object_purge(&mut self, object: ObjectInfo) {
        let _ = object;
    }

    /// Pages that the driver supplied for a private object are its own again.
    fn take_back(&mut self, pages: PageSet) {
        let _ = pages;
    }

    /// An open is about to get a handle on the object.
    fn handle_open(&mut self, open: OpenId, object: ObjectInfo) -> Result<(), NotReady> {
        let _ = (open, object);
        Ok(())
    }

    /// The open's handle is no longer visible, its number still taken.
    fn handle_close(&mut self, open: OpenId, object: ObjectInfo) {
        let _ = (open, object);
    }

    /// What its devices can do with clients' own pages.
    fn user_pages(&self) -> UserPages {
        UserPages::WITHOUT_DEVICE
    }

    /// The address space of this number; `None` where there is none.
    fn space(&mut self, space: SpaceId) -> Option<&mut dyn AddressSpace> {
        let _ = space;
        None
    }
}

/// No driver: memory only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDriver;

impl Driver for NoDriver {}
