//! Objects of a client's own pages: registered, claimed, mapped again, and given back.
//!
//! Taking pages over is the platform's work, begun and waited for by the server; here is what it
//! means. [`Device::begin_userptr`] checks and charges everything before the client's memory is
//! touched, so that nothing but the taking itself can still fail; [`Device::take_userptr`] and
//! [`Device::fail_userptr`] say what came of it; [`Device::claim_userptr`] makes the handle visible;
//! [`Device::map_userptr`] answers the mapping by which the client makes the pages its own again.
//! From there on the kernel tells of every unmapping, and any of them ends it.
//!
//! The order of giving back is the same on every path: bindings are cleared to scratch, the GPU is
//! flushed, the daemon's access ends, and only then does whoever asked have an answer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::handles::Reserved;
use crate::ids::OpenId;
use crate::ledger::{Counted, LedgerError, Load};
use crate::object::{Backing, Object};
use crate::open::Unclaimed;
use crate::pages::{Caching, PageSource, Ticket};
use crate::slots::Key;
use crate::space::UserPages;
use crate::units::{FakeOffset, Handle, PageCount, Pid, Uid, WindowAddr};
use crate::user::{Registrar, User, UserAddr, UserRange, UserSet};

/// The highest handle of an object of a client's own pages, so that an answer has room for the
/// offset beside it and its low half is never an errno.
pub const MAX_USER_HANDLE: u32 = 0xff_ff00;

/// An acquisition that the server has the platform make. It finds its object as long as nothing
/// else has become of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Acquisition {
    object: Key,
    sequence: u64,
}

/// What is claimed: must be what was taken over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// From where the pages were taken.
    pub range: UserRange,
    /// Whether devices may only read them.
    pub read_only: bool,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// What devices can do with such pages.
    pub fn user_pages(&self) -> UserPages {
        self.driver.user_pages()
    }

    /// A new object of a client's own pages, and a handle on it that nobody sees yet. Everything
    /// is checked and charged; the platform is to take the range over.
    ///
    /// # Errors
    ///
    /// [`Error::Incoherent`], [`Error::NoReadOnly`] (ENODEV), [`Error::BeyondGpu`] (E2BIG),
    /// [`Error::InUse`] (EBUSY): the same range waits to be claimed; [`Error::Limit`] (ENOMEM,
    /// EMFILE), [`Error::NoSpace`] (ENOSPC), what the driver says.
    pub fn begin_userptr(
        &mut self,
        open: OpenId,
        pid: Pid,
        claim: Claim,
    ) -> Result<Acquisition, Error> {
        let (start, pages) = (claim.range.start(), claim.range.pages());
        self.check_device(pages, claim.read_only)?;
        let account = self.account(open)?;
        if self.active(open)?.unclaimed.contains_key(&start) {
            return Err(Error::InUse);
        }
        self.ledger.charge_user(account, pages)?;
        let registrar = Registrar { open, pid, account };
        let user = User::new(registrar, start, pages, claim.read_only);
        let sequence = user.sequence();
        let made = self.make_user_object(open, user);
        let (object, reserved) = made.inspect_err(|_| self.ledger.refund_user(account, pages))?;
        let number = reserved.handle().get();
        if let Some(state) = self.opens.get_mut(open.0) {
            state
                .unclaimed
                .insert(start, Unclaimed { object, reserved });
        }
        let acquisition = Acquisition { object, sequence };
        self.place_user_object(object, number)
            .inspect_err(|_| self.fail_userptr(acquisition))?;
        Ok(acquisition)
    }

    /// The range of an object whose pages were given back is to be taken over again, now from
    /// `start` on. Only its registrar can ask for that.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::NotUser`] (EINVAL), [`Error::NotOwner`] (EFAULT),
    /// [`Error::InUse`] (EBUSY): there are pages, or some of the last ones are mapped yet;
    /// [`Error::Range`]; [`Error::Limit`] (ENOMEM, EMFILE).
    pub fn begin_userptr_again(
        &mut self,
        open: OpenId,
        pid: Pid,
        handle: Handle,
        start: UserAddr,
    ) -> Result<(Acquisition, UserRange), Error> {
        self.active(open)?;
        let key = self.object_of(open, handle)?;
        let object = self
            .objects
            .get_mut(key)
            .ok_or(Error::NoSuchHandle(handle))?;
        let Backing::User(user) = &mut object.backing else {
            return Err(Error::NotUser);
        };
        let registrar = user.registrar;
        if registrar.open != open || registrar.pid != pid {
            return Err(Error::NotOwner);
        }
        let range = UserRange::new(start, user.pages)?;
        if !user.is_revoked() || user.charged {
            return Err(Error::InUse);
        }
        self.ledger.charge_user(registrar.account, user.pages)?;
        user.charged = true;
        user.acquire_again();
        let sequence = user.sequence();
        let acquisition = Acquisition {
            object: key,
            sequence,
        };
        Ok((acquisition, range))
    }

    /// Whether somebody still wants what comes of this: the registrar has its handle yet. If not,
    /// the platform is to undo it.
    pub fn is_userptr_wanted(&self, acquisition: Acquisition) -> bool {
        let Some((object, user)) = self.user(acquisition.object) else {
            return false;
        };
        let held = object.holders.get(user.registrar.open).handles > 0;
        held && user.is_acquiring_as(acquisition.sequence)
    }

    /// The platform has taken the pages over.
    pub fn take_userptr(&mut self, acquisition: Acquisition, set: UserSet) {
        let wanted = self.is_userptr_wanted(acquisition);
        let key = acquisition.object;
        let taken = self.recounting(key, |device| match device.user_mut(key) {
            Some(user) if wanted => user.take(acquisition.sequence, set),
            _ => Err(set),
        });
        let Err(set) = taken else { return };
        self.release_user(key, set);
        self.fail_userptr(acquisition);
    }

    /// Nothing came of it, and nothing of it is left: the object has no pages, and if it was never
    /// claimed, it ends.
    pub fn fail_userptr(&mut self, acquisition: Acquisition) {
        let key = acquisition.object;
        if self
            .user_mut(key)
            .is_some_and(|user| user.fail(acquisition.sequence))
        {
            self.withdraw_unclaimed(key);
            self.settle_user(key);
            self.end_if_unused(key);
        }
    }

    /// Whoever asked for this does not wait for it any more, and the platform undoes it. The
    /// handle that nobody has seen goes at once; the charge when [`Device::fail_userptr`] says that
    /// nothing is left.
    pub fn forget_userptr(&mut self, acquisition: Acquisition) {
        let key = acquisition.object;
        let user = self.user(key).map(|(_, user)| user);
        if user.is_some_and(|user| user.is_acquiring_as(acquisition.sequence)) {
            self.withdraw_unclaimed(key);
        }
    }

    /// The handle of pages that have been taken over, which is visible from now on, and the
    /// offset at which the client maps them again.
    ///
    /// # Errors
    ///
    /// [`Error::NothingTaken`] (EBADF): not from there, not of this size and kind, or not by this
    /// process.
    pub fn claim_userptr(
        &mut self,
        open: OpenId,
        pid: Pid,
        claim: Claim,
    ) -> Result<(Handle, FakeOffset), Error> {
        let start = claim.range.start();
        let state = self.active(open)?;
        let unclaimed = state.unclaimed.get(&start).ok_or(Error::NothingTaken)?;
        let key = unclaimed.object;
        let (object, user) = self.user(key).ok_or(Error::NothingTaken)?;
        let offset = object.offset.ok_or(Error::NothingTaken)?;
        let fits = user.pages == claim.range.pages()
            && user.read_only == claim.read_only
            && user.registrar.pid == pid;
        if !fits || user.taken().is_none() {
            return Err(Error::NothingTaken);
        }
        let state = self.active(open)?;
        let unclaimed = state.unclaimed.remove(&start).ok_or(Error::NothingTaken)?;
        let handle = self.publish_handle(open, unclaimed.reserved, key)?;
        if let Some(user) = self.user_mut(key) {
            user.unclaimed = None;
            user.handle = Some(handle);
        }
        Ok((handle, offset))
    }

    /// Where in the daemon's address space the kernel finds the pages that their client makes its
    /// own again: once, by the process that registered them, whole. From then on they are held.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] (EINVAL), [`Error::NotAllowed`] (EACCES), [`Error::Range`] (EINVAL):
    /// not the whole; [`Error::NotMappable`] (ENODEV): not this process, or not now; what the page
    /// source says.
    pub fn map_userptr(
        &mut self,
        open: OpenId,
        pid: Pid,
        offset: u64,
        size: u64,
    ) -> Result<WindowAddr, Error> {
        let key = self.mappable(open, offset)?;
        let object = self.objects.get(key).ok_or(Error::NoSuchOffset(offset))?;
        let Backing::User(user) = &object.backing else {
            return Err(Error::NoSuchOffset(offset));
        };
        let (registrar, pages) = (user.registrar, user.pages);
        let set = user.taken().filter(|_| user.unclaimed.is_none());
        let set = set.ok_or(Error::NotMappable)?;
        if registrar.open != open || registrar.pid != pid {
            return Err(Error::NotMappable);
        }
        if PageCount::covering(size) != Some(pages) {
            return Err(Error::Range { offset, size });
        }
        let window = self.source.user_window(set)?;
        self.ledger.count_mapped(registrar.account, pages);
        self.count_pages(open, key, pages);
        if let Some(user) = self.user_mut(key) {
            user.hold();
        }
        Ok(window)
    }

    /// What devices can do with such pages, before anything is charged.
    fn check_device(&self, pages: PageCount, read_only: bool) -> Result<(), Error> {
        let able = self.driver.user_pages();
        if !able.coherent {
            return Err(Error::Incoherent);
        }
        if pages > able.most {
            return Err(Error::BeyondGpu(able.most));
        }
        if read_only && !able.read_only {
            return Err(Error::NoReadOnly);
        }
        Ok(())
    }

    /// The object, and a handle that nobody sees. Its pages are charged already; on failure
    /// nothing else is.
    fn make_user_object(&mut self, open: OpenId, user: User) -> Result<(Key, Reserved), Error> {
        let account = user.registrar.account;
        let nothing = Load::of(PageCount::ZERO);
        self.check_handles(open)?;
        self.ledger.charge_object(account, nothing.pages)?;
        self.adopt(
            open,
            account,
            Backing::User(Box::new(user)),
            Caching::WriteBack,
        )
        .inspect_err(|_| self.ledger.refund_object(account, nothing))
    }

    /// Gives the object its offset, and sees whether its handle fits an answer.
    fn place_user_object(&mut self, key: Key, handle: u32) -> Result<(), Error> {
        if handle > MAX_USER_HANDLE {
            return Err(LedgerError::OpenCount(Counted::Handles, MAX_USER_HANDLE).into());
        }
        let object = self.objects.get_mut(key).ok_or(Error::NoSpace)?;
        self.ledger.check(object.owner, Counted::Offsets)?;
        let offset = self.offsets.allocate_user(object.pages(), key);
        object.offset = Some(offset.ok_or(Error::NoSpace)?);
        self.ledger.charge(object.owner, Counted::Offsets)?;
        Ok(())
    }

    /// The pages are their client's alone again: no device reaches them, and neither does the
    /// daemon. Where there are none, or the platform is at it yet, nothing happens.
    pub(super) fn give_pages_back(&mut self, key: Key) {
        if !self.user(key).is_some_and(|(_, user)| user.has_pages()) {
            return;
        }
        self.clear_bindings(key, None);
        let revoked = self.recounting(key, |device| device.user_mut(key).and_then(User::revoke));
        if let Some(set) = revoked {
            self.release_user(key, set);
        }
        self.settle_user(key);
    }

    fn release_user(&mut self, key: Key, set: UserSet) {
        let owner = self.user_payer(key);
        self.releases.extend(self.source.release_user(owner, set));
    }

    /// The tickets of pages that were given back since the last call, as far as the daemon reaches
    /// them yet: whoever took them back is not to be answered before they are finished.
    pub fn take_releases(&mut self) -> Vec<Ticket> {
        core::mem::take(&mut self.releases)
    }

    /// Tells the registrar that its pages were taken back, where it still has its handle.
    pub(super) fn tell_revoked(&mut self, key: Key, by: Option<Pid>) {
        let user = self.user(key).map(|(_, user)| user);
        if let Some(user) = user
            && let Some(handle) = user.handle
            && self.object_of(user.registrar.open, handle) == Ok(key)
        {
            let open = user.registrar.open;
            self.post_revoked(open, handle, by);
        }
    }

    /// Takes back the handle of an object that nobody has claimed, and its pages.
    fn withdraw_unclaimed(&mut self, key: Key) {
        let Some(user) = self.user_mut(key) else {
            return;
        };
        let (open, start) = (user.registrar.open, user.unclaimed.take());
        let state = self.opens.get_mut(open.0);
        let unclaimed = state
            .zip(start)
            .and_then(|(state, start)| state.unclaimed.remove(&start));
        self.give_pages_back(key);
        if let Some(Unclaimed { reserved, .. }) = unclaimed {
            self.withdraw_handle(open, reserved, key);
        }
    }

    /// Takes back everything that this open has not claimed.
    pub(super) fn withdraw_all_unclaimed(&mut self, open: OpenId) {
        let first = |device: &Self| {
            let unclaimed = &device.opens.get(open.0)?.unclaimed;
            Some(unclaimed.first_key_value()?.1.object)
        };
        while let Some(key) = first(self) {
            self.withdraw_unclaimed(key);
            self.end_if_unused(key);
        }
    }

    /// The registrar pays for its pages as long as they are taken, or mapped since they were.
    pub(super) fn settle_user(&mut self, key: Key) {
        if let Some(object) = self.objects.get_mut(key)
            && object.mapped.is_zero()
            && let Backing::User(user) = &mut object.backing
            && user.is_revoked()
            && core::mem::take(&mut user.charged)
        {
            self.ledger.refund_user(user.registrar.account, user.pages);
        }
    }

    /// An object, if it is one of a client's own pages.
    pub(super) fn user(&self, key: Key) -> Option<(&Object, &User)> {
        let object = self.objects.get(key)?;
        match &object.backing {
            Backing::User(user) => Some((object, user)),
            _ => None,
        }
    }

    fn user_mut(&mut self, key: Key) -> Option<&mut User> {
        match &mut self.objects.get_mut(key)?.backing {
            Backing::User(user) => Some(user),
            _ => None,
        }
    }

    /// Who the platform takes the pages to be.
    fn user_payer(&self, key: Key) -> Uid {
        let user = self.user(key);
        user.map_or(Uid(u32::MAX), |(_, user)| {
            self.ledger.uid(user.registrar.account)
        })
    }
}
