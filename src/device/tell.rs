//! Events for opens, objects that are at work, and the list of what a server wants to hear about
//! both.
//!
//! Nothing is called back here: what happens goes on a list ([`News`]), which the server takes when
//! it has its turn, to wake whoever waits. The list has no more on it than was done since.

use alloc::vec::Vec;
use core::mem::take;

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::events::{Event, Pressure};
use crate::ids::{ObjectFdId, ObjectId, OpenId};
use crate::pages::PageSource;
use crate::slots::Key;
use crate::units::{Handle, PageCount, Pid};

/// What has happened that somebody may be waiting for.
#[derive(Debug, Default)]
pub struct News {
    /// Opens that had no events of their own and have some now. One may be closed meanwhile.
    pub readable: Vec<OpenId>,
    /// Whether something was announced to all opens.
    pub announced: bool,
    /// Objects that were at work and were idle for a moment at least. One may have ended.
    pub idle: Vec<ObjectId>,
}

/// An object that something is at work on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Working {
    /// Which.
    pub object: ObjectId,
    /// When it was idle last, counted in such beginnings of the device.
    since: u64,
}

/// How much is at work on an object.
#[derive(Debug)]
pub(super) struct Use {
    /// Never 0.
    count: u32,
    since: u64,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// What has happened since this was last asked.
    pub fn take_news(&mut self) -> News {
        take(&mut self.news)
    }

    /// Whether [`Device::take_news`] would say anything.
    #[inline]
    pub fn has_news(&self) -> bool {
        let News {
            readable,
            announced,
            idle,
        } = &self.news;
        !readable.is_empty() || *announced || !idle.is_empty()
    }

    /// Tells an open that the pages behind one of its user pointers were taken away by `by`
    /// (`None`: by the server). An open that is closed or revoked is told nothing.
    pub fn post_revoked(&mut self, open: OpenId, handle: Handle, by: Option<Pid>) {
        self.post(open, Event::Revoked { handle, by });
    }

    /// Tells an open that one of its objects has lost its address in the GPU's address space. An
    /// open that is closed or revoked is told nothing.
    pub fn post_evicted(&mut self, open: OpenId, handle: Handle) {
        self.post(open, Event::Evicted { handle });
    }

    fn post(&mut self, open: OpenId, event: Event) {
        let Some(state) = self.opens.get_mut(open.0) else {
            return;
        };
        if !state.revoked && state.inbox.put(&mut self.board, event) {
            self.news.readable.push(open);
        }
    }

    /// Tells every open how short memory is; only the newest level is kept.
    pub fn announce_pressure(&mut self, level: Pressure, free: PageCount) {
        self.board.show_pressure(level, free);
        self.news.announced = true;
    }

    /// Tells every open what a limit is now, by the server's number for it; only the newest value
    /// of each limit is kept.
    pub fn announce_limit(&mut self, limit: u32, value: u64) {
        self.board.show_limit(limit, value);
        self.news.announced = true;
    }

    /// The open's oldest event, which is then read. `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOpen`] (EBADF), [`Error::Revoked`] (ENODEV).
    pub fn next_event(&mut self, open: OpenId) -> Result<Option<Event>, Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        if state.revoked {
            return Err(Error::Revoked);
        }
        Ok(state.inbox.take(&self.board))
    }

    /// Whether the open has events to read.
    pub fn has_events(&self, open: OpenId) -> bool {
        let state = self.opens.get(open.0);
        state.is_some_and(|state| !state.revoked && state.inbox.has_events(&self.board))
    }

    /// A request or the hardware goes to work on an object of this open's. The object lives until
    /// [`Device::end_use`], whatever its client does meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::NoSpace`] (ENOSPC) where four billion are at work
    /// on it.
    pub fn begin_use(&mut self, open: OpenId, handle: Handle) -> Result<ObjectId, Error> {
        let key = self.object_of(open, handle)?;
        if let Some(working) = self.uses.get_mut(&key) {
            working.count = working.count.checked_add(1).ok_or(Error::NoSpace)?;
        } else {
            self.last_use += 1;
            let since = self.last_use;
            self.uses.insert(key, Use { count: 1, since });
            self.set_at_work(key, true);
            self.reconsider(key);
        }
        Ok(ObjectId(key))
    }

    /// The work that one [`Device::begin_use`] began is done.
    pub fn end_use(&mut self, object: ObjectId) {
        let Some(working) = self.uses.get_mut(&object.0) else {
            return;
        };
        working.count -= 1;
        if working.count == 0 {
            self.uses.remove(&object.0);
            self.set_at_work(object.0, false);
            self.news.idle.push(object);
            self.reconsider(object.0);
            self.end_if_unused(object.0);
        }
    }

    /// What is at work on the object behind an fd; `None` where it is idle. Who waits for it need
    /// not wait on once this is another one: it was idle in between.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchObjectFd`] (EBADF).
    pub fn working(&self, fd: ObjectFdId) -> Result<Option<Working>, Error> {
        let object = self
            .object_fds
            .get(fd.0)
            .ok_or(Error::NoSuchObjectFd)?
            .object;
        let working = self.uses.get(&object);
        Ok(working.map(|working| Working {
            object: ObjectId(object),
            since: working.since,
        }))
    }

    fn set_at_work(&mut self, key: Key, is_at_work: bool) {
        self.recounting(key, |device| {
            if let Some(object) = device.objects.get_mut(key) {
                object.is_at_work = is_at_work;
            }
        });
    }
}
