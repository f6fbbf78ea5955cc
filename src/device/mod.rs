//! The device: all state of one server, one method per state change.
//!
//! Every method either does what it says or changes nothing and says why. Nothing here blocks,
//! calls back, or walks all of anything on a client's request. Counts of an object change
//! together with what they count, and an object ends in one place, [`Device::end_if_unused`].
//!
//! Split by concern: opens and masters here, `create` for objects and handles, `share` for names
//! and object fds, `map` for mappings and bytes, `user` for clients' own pages, `vm` for GPU
//! address spaces, `advise` for what its users do not need and memory that runs short, `look` for
//! what is shown to people, `rule` for what root does to others, `tell`
//! for events and for what is busy.

mod advise;
mod create;
mod look;
mod map;
mod master;
mod rule;
mod share;
mod tell;
#[cfg(test)]
mod tests;
mod user;
mod vm;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem::take;

use crate::bindings::Bindings;
use crate::driver::{Driver, NoDriver, ObjectInfo};
use crate::error::Error;
use crate::events::{Board, Inbox, Pressure};
use crate::ids::{ObjectFdId, ObjectId, OpenId};
use crate::ledger::{AccountKey, Counted, Ledger, LedgerError, Limits};
use crate::names::{NameMode, Names};
use crate::object::{Backing, Holder, Object, ObjectFd};
use crate::offsets::Offsets;
use crate::open::{Magic, Node, Open, Owner};
use crate::pages::{PageSource, Ticket};
use crate::purgeable::Purgeable;
use crate::slots::{Key, Slots};
use crate::units::{Handle, Identity, PageCount, Uid};
use crate::usage::Usage;

pub use advise::Purges;
pub use create::{CreateInfo, Dumb};
pub use look::{ObjectCursor, ObjectView, OpenStats, Stats};
pub use share::ObjectFdInfo;
use tell::Use;
pub use tell::{News, Working};
pub use user::{Acquisition, Claim, MAX_USER_HANDLE};
pub use vm::Sequence;

/// How a device is to be.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How much clients may have.
    pub limits: Limits,
    /// How names are chosen.
    pub names: NameMode,
}

/// All state of one server.
#[derive(Debug)]
pub struct Device<S, D = NoDriver> {
    source: S,
    driver: D,
    opens: Slots<Open>,
    objects: Slots<Object>,
    object_fds: Slots<ObjectFd>,
    names: Names,
    offsets: Offsets,
    bindings: Bindings,
    ledger: Ledger,
    purgeable: Purgeable,
    purges: Purges,
    /// How short the machine's memory is.
    pressure: Pressure,
    /// Opens by their number for people.
    clients: BTreeMap<u64, OpenId>,
    /// The same by whose they are, so that nobody walks over other people's.
    clients_by_uid: BTreeMap<(Uid, u64), OpenId>,
    last_client: u64,
    last_object: u64,
    master: Option<OpenId>,
    magics: BTreeMap<Magic, OpenId>,
    last_magic: u32,
    handles: u64,
    /// Objects that something is at work on: few, however many objects there are.
    uses: BTreeMap<Key, Use>,
    last_use: u64,
    /// What every open is told.
    board: Board,
    /// What the server has not been told.
    news: News,
    /// Releases of clients' pages that go on, of which nobody has been told.
    releases: Vec<Ticket>,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// A device without objects.
    pub fn new(config: Config, source: S, driver: D) -> Self {
        let limits = rule::possible(config.limits);
        Self {
            source,
            driver,
            opens: Slots::new(),
            objects: Slots::new(),
            object_fds: Slots::new(),
            names: Names::new(config.names),
            offsets: Offsets::new(limits.offset_space),
            bindings: Bindings::default(),
            ledger: Ledger::new(limits),
            purgeable: Purgeable::new(),
            purges: Purges::default(),
            pressure: Pressure::Eased,
            clients: BTreeMap::new(),
            clients_by_uid: BTreeMap::new(),
            last_client: 0,
            last_object: 0,
            master: None,
            magics: BTreeMap::new(),
            last_magic: 0,
            handles: 0,
            uses: BTreeMap::new(),
            last_use: 0,
            board: Board::default(),
            news: News::default(),
            releases: Vec::new(),
        }
    }

    /// Ends every open and every object fd, and with them every object, and returns the source
    /// and the driver. Hardware must have stopped.
    pub fn tear_down(mut self) -> (S, D) {
        for index in 0..self.opens.slots() {
            if let Some(open) = self.opens.key_at(index) {
                self.close(OpenId(open));
            }
        }
        for index in 0..self.object_fds.slots() {
            if let Some(fd) = self.object_fds.key_at(index) {
                self.close_object_fd(ObjectFdId(fd));
            }
        }
        for index in 0..self.objects.slots() {
            if let Some(object) = self.objects.key_at(index) {
                self.uses.remove(&object);
                self.end_if_unused(object);
            }
        }
        (self.source, self.driver)
    }

    /// Where pages come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Where pages come from, to tell it something.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// A new open. It is nobody's and can do nothing that is charged until it is bound.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] (EMFILE) where all clients together have too many.
    pub fn open(&mut self, node: Node) -> Result<OpenId, Error> {
        let limit = self.ledger.limits().opens;
        if self.opens.len() >= limit as usize {
            return Err(LedgerError::Opens(limit).into());
        }
        let client = self.last_client + 1;
        let inbox = Inbox::new(&self.board);
        let key = self.opens.insert(Open::new(node, client, inbox));
        let open = OpenId(key.map_err(|_| Error::NoSpace)?);
        self.last_client = client;
        self.clients.insert(client, open);
        Ok(open)
    }

    /// Says whose the open is, once.
    ///
    /// # Errors
    ///
    /// [`Error::Binding`] (EACCES) where it is somebody's already, [`Error::Limit`] (EMFILE) where
    /// that uid has too many opens.
    pub fn bind(&mut self, open: OpenId, identity: Identity) -> Result<(), Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        if state.owner.is_some() {
            return Err(Error::Binding);
        }
        let account = self.ledger.charge_open(identity.uid)?;
        state.owner = Some(Owner { identity, account });
        self.clients_by_uid
            .insert((identity.uid, state.client), open);
        Ok(())
    }

    /// Whose the open is; `None` while it is nobody's.
    pub fn identity(&self, open: OpenId) -> Option<Identity> {
        let owner = self.opens.get(open.0)?.owner?;
        Some(owner.identity)
    }

    /// Which node was opened.
    pub fn node(&self, open: OpenId) -> Option<Node> {
        Some(self.opens.get(open.0)?.node)
    }

    /// Ends an open: whatever is mapped through it is no longer counted, its handles are closed.
    /// Object fds made through it live on. An open that does not exist is none the worse.
    pub fn close(&mut self, open: OpenId) {
        self.abdicate(open);
        let mapped = self
            .opens
            .get_mut(open.0)
            .map(|state| take(&mut state.mapped));
        for object in mapped.into_iter().flatten() {
            self.uncount_node_pages(open, object, PageCount::MAX, None);
        }
        self.close_handles(open);
        let Some(state) = self.opens.remove(open.0) else {
            return;
        };
        self.clients.remove(&state.client);
        if let Some(magic) = state.magic {
            self.magics.remove(&magic);
        }
        if let Some(owner) = state.owner {
            self.clients_by_uid
                .remove(&(owner.identity.uid, state.client));
            self.ledger.refund(owner.account, Counted::Opens, 1);
        }
    }

    fn close_handles(&mut self, open: OpenId) {
        self.withdraw_all_unclaimed(open);
        while let Some(handle) = self.highest_handle(open) {
            let _ = self.close_handle(open, handle);
        }
    }

    fn highest_handle(&self, open: OpenId) -> Option<Handle> {
        self.opens.get(open.0)?.handles.highest()
    }

    /// The account that pays for what this open does.
    fn account(&self, open: OpenId) -> Result<AccountKey, Error> {
        let state = self.opens.get(open.0).ok_or(Error::NoSuchOpen)?;
        Ok(state.owner.ok_or(Error::Binding)?.account)
    }

    fn object_of(&self, open: OpenId, handle: Handle) -> Result<Key, Error> {
        let state = self.opens.get(open.0).ok_or(Error::NoSuchOpen)?;
        let object = state.handles.get(handle);
        object.ok_or(Error::NoSuchHandle(handle))
    }

    fn info(&self, object: Key) -> Option<ObjectInfo> {
        let state = self.objects.get(object)?;
        Some(ObjectInfo {
            id: ObjectId(object),
            pages: state.pages(),
            caching: state.caching,
        })
    }

    /// Changes what an open has of an object. With the first and the last of it, the open and its
    /// user begin or cease to hold the object.
    fn update_holder(&mut self, open: OpenId, key: Key, change: impl FnOnce(&mut Holder)) {
        let Ok(account) = self.account(open) else {
            return;
        };
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        let (before, counted) = (object.holders.len(), object.usage());
        object.holders.update(open, change);
        let after = object.holders.len();
        if after == before {
            return;
        }
        let state = self.opens.get_mut(open.0);
        if after > before {
            object.join(account);
            // What it counted as, so that recounting makes no difference between opens.
            state.into_iter().for_each(|state| state.usage.add(counted));
            self.recount(key, counted);
        } else {
            state
                .into_iter()
                .for_each(|state| state.usage.remove(counted));
            self.recount(key, counted);
            self.leave(key, account);
        }
    }

    /// Does this, which may change what the object counts as for those who hold it.
    fn recounting<T>(&mut self, key: Key, act: impl FnOnce(&mut Self) -> T) -> T {
        let counted = self.objects.get(key).map(Object::usage);
        let result = act(self);
        if let Some(counted) = counted {
            self.recount(key, counted);
        }
        result
    }

    /// An object that counted as this for each open that holds it may count as something else
    /// now. Beyond [`FEW_HOLDERS`] it counts the same whatever happens, so few opens are touched.
    ///
    /// [`FEW_HOLDERS`]: crate::FEW_HOLDERS
    fn recount(&mut self, key: Key, counted: Usage) {
        let Some(object) = self.objects.get(key) else {
            return;
        };
        let counts = object.usage();
        if counts == counted {
            return;
        }
        object.holders.for_each(|open| {
            if let Some(state) = self.opens.get_mut(open.0) {
                state.usage.remove(counted);
                state.usage.add(counts);
            }
        });
    }

    /// A user holds the object once less. Where it paid and others hold it still, the oldest of
    /// those pays.
    fn leave(&mut self, key: Key, account: AccountKey) {
        let object = self.objects.get_mut(key);
        if let Some(object) = object
            && let Some((from, to)) = object.leave(account)
        {
            self.ledger.move_object(from, to, object.load());
            if let Some(place) = object.place {
                self.purgeable.change_account(place, to);
            }
        }
    }

    /// The one place where objects end: when nothing holds it any more, its name and its offset
    /// are free, the driver and the page source have it back, and its owner no longer pays.
    fn end_if_unused(&mut self, key: Key) {
        let is_unused = self.objects.get(key).is_some_and(Object::is_unused);
        if !is_unused || self.uses.contains_key(&key) {
            return;
        }
        let info = self.info(key);
        let Some(object) = self.objects.remove(key) else {
            return;
        };
        if let Some(name) = object.name {
            self.names.remove(name);
        }
        if let Some(offset) = object.offset {
            self.offsets.free(offset);
        }
        if let Some(place) = object.place {
            self.purgeable.remove(place);
        }
        if object.is_purged() {
            self.purges.objects -= 1;
        }
        if let Some(info) = info {
            self.driver.object_free(info);
        }
        let (owner, load) = (object.owner, object.load());
        self.give_back(object);
        self.ledger.refund_object(owner, load);
    }

    /// The pages go back where they came from.
    fn give_back(&mut self, object: Object) {
        match object.backing {
            Backing::Own(set) => self.source.free(object.allocated_for, set),
            Backing::Private(set) => self.driver.take_back(set),
            // Given back when it was revoked.
            Backing::User(_) => {}
            Backing::Purged(_) => {}
        }
    }
}
