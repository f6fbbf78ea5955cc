//! Who uses how much: one account per uid, checked before anything is allocated.
//!
//! The ledger counts and refuses; it owns nothing that it counts. Whoever charges also refunds,
//! with the same numbers. An account exists while anything is charged to it.

mod account;
mod limits;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;

use crate::slots::{Key, Slots};
use crate::units::{PageCount, Uid};

pub use account::{Account, Counted};
pub use limits::{LedgerError, Limits, MAX_OBJECT_PAGES};

/// What one object is charged for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) pages: PageCount,
    pub(crate) has_name: bool,
    pub(crate) has_offset: bool,
}

impl Load {
    /// What a new object of so many pages of memory is charged for.
    pub(crate) fn of(pages: PageCount) -> Self {
        Self {
            pages,
            has_name: false,
            has_offset: false,
        }
    }
}

/// Pages too many for a new object.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Excess {
    /// Of the user whose it is to be.
    pub(crate) own: PageCount,
    /// Of all users together.
    pub(crate) all: PageCount,
}

/// Which account something is charged to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct AccountKey(Key);

/// All accounts of a device.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    accounts: Slots<Account>,
    by_uid: HashMap<Uid, Key>,
    memory: PageCount,
    mapped: PageCount,
    user_pages: PageCount,
    user_ranges: u32,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            accounts: Slots::new(),
            by_uid: HashMap::default(),
            memory: PageCount::ZERO,
            mapped: PageCount::ZERO,
            user_pages: PageCount::ZERO,
            user_ranges: 0,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// From now on these hold, for what is new.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(crate) fn memory(&self) -> PageCount {
        self.memory
    }

    pub(crate) fn mapped(&self) -> PageCount {
        self.mapped
    }

    pub(crate) fn user_pages(&self) -> PageCount {
        self.user_pages
    }

    pub(crate) fn user_ranges(&self) -> u32 {
        self.user_ranges
    }

    pub(crate) fn account(&self, key: AccountKey) -> Option<&Account> {
        self.accounts.get(key.0)
    }

    pub(crate) fn account_of(&self, uid: Uid) -> Option<&Account> {
        self.accounts.get(*self.by_uid.get(&uid)?)
    }

    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().map(|(_, account)| account)
    }

    pub(crate) fn uid(&self, key: AccountKey) -> Uid {
        self.accounts
            .get(key.0)
            .map_or(Uid(u32::MAX), |account| account.uid)
    }

    /// One more open of this uid; opens its account if that is the first.
    pub(crate) fn charge_open(&mut self, uid: Uid) -> Result<AccountKey, LedgerError> {
        let key = self.open_account(uid)?;
        let charged = self.charge(key, Counted::Opens);
        self.close_if_unused(key);
        charged.map(|()| key)
    }

    /// The account of this uid, for something that is about to be charged to it: see
    /// [`Ledger::close_if_unused`].
    pub(crate) fn open_account(&mut self, uid: Uid) -> Result<AccountKey, LedgerError> {
        if let Some(&key) = self.by_uid.get(&uid) {
            return Ok(AccountKey(key));
        }
        let limit = self.limits.opens_per_uid;
        let refused = LedgerError::Count(uid, Counted::Opens, limit);
        let account = Account::new(uid);
        let key = self.accounts.insert(account).map_err(|_| refused)?;
        self.by_uid.insert(uid, key);
        Ok(AccountKey(key))
    }

    /// Whether there may be one more of these.
    pub(crate) fn check(&self, key: AccountKey, what: Counted) -> Result<(), LedgerError> {
        let limit = match what {
            Counted::Opens => self.limits.opens_per_uid,
            Counted::Objects => self.limits.objects_per_uid,
            Counted::Handles => self.limits.handles_per_uid,
            Counted::ObjectFds => self.limits.object_fds_per_uid,
            Counted::MappedObjects => self.limits.mapped_objects_per_uid,
            Counted::Names => self.limits.names_per_uid,
            Counted::Offsets => self.limits.offsets_per_uid,
            Counted::UserRanges => self.limits.user_ranges_per_uid,
        };
        match self.accounts.get(key.0) {
            Some(account) if account.count(what) >= limit => {
                Err(LedgerError::Count(account.uid, what, limit))
            }
            _ => Ok(()),
        }
    }

    /// One more of these.
    pub(crate) fn charge(&mut self, key: AccountKey, what: Counted) -> Result<(), LedgerError> {
        self.check(key, what)?;
        if let Some(account) = self.accounts.get_mut(key.0) {
            *account.counter(what) += 1;
        }
        Ok(())
    }

    /// So many less.
    pub(crate) fn refund(&mut self, key: AccountKey, what: Counted, count: u32) {
        if let Some(account) = self.accounts.get_mut(key.0) {
            let counter = account.counter(what);
            *counter = counter.saturating_sub(count);
        }
        self.close_if_unused(key);
    }

    /// An object of this size.
    pub(crate) fn charge_object(
        &mut self,
        key: AccountKey,
        pages: PageCount,
    ) -> Result<(), LedgerError> {
        let limits = self.limits;
        let total = self
            .memory
            .checked_add(pages)
            .filter(|&total| total <= limits.total)
            .ok_or(LedgerError::Total(limits.total))?;
        let Some(account) = self.accounts.get_mut(key.0) else {
            return Ok(());
        };
        let refused = LedgerError::Memory(account.uid, limits.uid);
        let memory = account
            .memory
            .checked_add(pages)
            .filter(|&memory| memory <= limits.uid)
            .ok_or(refused)?;
        self.charge(key, Counted::Objects)?;
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.memory = memory;
        }
        self.memory = total;
        Ok(())
    }

    /// How many pages more this user may have, and a quarter of all that it may: so much may lie
    /// unused where it is kept for it.
    pub(crate) fn room(&self, key: AccountKey) -> PageCount {
        let limit = self.limits.uid;
        let used = self.accounts.get(key.0).map(|account| account.memory);
        let rest = limit.saturating_sub(used.unwrap_or_default());
        PageCount::new(limit.get() / 4)
            .and_then(|quarter| rest.checked_add(quarter))
            .unwrap_or(PageCount::MAX)
    }

    /// How much less there must be for an object of this size to be charged.
    pub(crate) fn excess(&self, key: AccountKey, pages: PageCount) -> Excess {
        let Some(account) = self.accounts.get(key.0) else {
            return Excess::default();
        };
        let beyond = |memory: PageCount, limit| {
            let sum = memory.checked_add(pages).unwrap_or(PageCount::MAX);
            sum.saturating_sub(limit)
        };
        Excess {
            own: beyond(account.memory, self.limits.uid),
            all: beyond(self.memory, self.limits.total),
        }
    }

    /// An object has these pages no more; it is charged to this account still, without them.
    pub(crate) fn refund_pages(&mut self, key: AccountKey, pages: PageCount) {
        self.memory = self.memory.saturating_sub(pages);
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.memory = account.memory.saturating_sub(pages);
        }
    }

    /// An object is no more.
    pub(crate) fn refund_object(&mut self, key: AccountKey, load: Load) {
        self.memory = self.memory.saturating_sub(load.pages);
        self.relieve(key, load);
    }

    fn relieve(&mut self, key: AccountKey, load: Load) {
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.objects = account.objects.saturating_sub(1);
            account.memory = account.memory.saturating_sub(load.pages);
            account.names = account.names.saturating_sub(load.has_name.into());
            account.offsets = account.offsets.saturating_sub(load.has_offset.into());
        }
        self.close_if_unused(key);
    }

    /// Another user pays for an object from now on, even beyond its limits: it holds the object,
    /// and what is held cannot be refused any more.
    pub(crate) fn move_object(&mut self, from: AccountKey, to: AccountKey, load: Load) {
        if let Some(account) = self.accounts.get_mut(to.0) {
            account.objects = account.objects.saturating_add(1);
            // The sum of all objects is bounded, and this is a part of it.
            account.memory = account
                .memory
                .checked_add(load.pages)
                .unwrap_or(self.memory);
            account.names = account.names.saturating_add(load.has_name.into());
            account.offsets = account.offsets.saturating_add(load.has_offset.into());
        }
        self.relieve(from, load);
    }

    /// This many more pages mapped, of one object more where `another`.
    pub(crate) fn charge_mapped(
        &mut self,
        key: AccountKey,
        pages: PageCount,
        another: bool,
    ) -> Result<(), LedgerError> {
        if another {
            self.check(key, Counted::MappedObjects)?;
        }
        let limit = self.limits.mapped_per_uid;
        let Some(account) = self.accounts.get_mut(key.0) else {
            return Ok(());
        };
        let refused = LedgerError::Mapped(account.uid, limit);
        let mapped = account.mapped.checked_add(pages);
        let total = self.mapped.checked_add(pages).ok_or(refused)?;
        account.mapped = mapped.filter(|&pages| pages <= limit).ok_or(refused)?;
        account.mapped_objects += u32::from(another);
        self.mapped = total;
        Ok(())
    }

    /// This many pages less, the last ones of an object where `last`.
    pub(crate) fn refund_mapped(&mut self, key: AccountKey, pages: PageCount, last: bool) {
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.mapped = account.mapped.saturating_sub(pages);
            account.mapped_objects = account.mapped_objects.saturating_sub(last.into());
        }
        self.mapped = self.mapped.saturating_sub(pages);
        self.close_if_unused(key);
    }

    /// These pages are mapped again by whom they were taken from: no more of the kernel's than
    /// before, so that no limit stands in the way.
    pub(crate) fn count_mapped(&mut self, key: AccountKey, pages: PageCount) {
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.mapped = account.mapped.checked_add(pages).unwrap_or(PageCount::MAX);
            account.mapped_objects = account.mapped_objects.saturating_add(1);
        }
        self.mapped = self.mapped.checked_add(pages).unwrap_or(PageCount::MAX);
    }

    /// A range of so many pages of a client's own.
    pub(crate) fn charge_user(
        &mut self,
        key: AccountKey,
        pages: PageCount,
    ) -> Result<(), LedgerError> {
        let limit = self.limits.user_pages_per_uid;
        let Some(account) = self.accounts.get_mut(key.0) else {
            return Ok(());
        };
        let refused = LedgerError::UserPages(account.uid, limit);
        let all = account
            .user_pages
            .checked_add(pages)
            .filter(|&pages| pages <= limit)
            .ok_or(refused)?;
        let total = self.user_pages.checked_add(pages).ok_or(refused)?;
        self.charge(key, Counted::UserRanges)?;
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.user_pages = all;
        }
        self.user_pages = total;
        self.user_ranges += 1;
        Ok(())
    }

    /// A range of so many pages is its client's alone again.
    pub(crate) fn refund_user(&mut self, key: AccountKey, pages: PageCount) {
        if let Some(account) = self.accounts.get_mut(key.0) {
            account.user_pages = account.user_pages.saturating_sub(pages);
        }
        self.user_pages = self.user_pages.saturating_sub(pages);
        self.user_ranges = self.user_ranges.saturating_sub(1);
        self.refund(key, Counted::UserRanges, 1);
    }

    /// Closes an account to which nothing is charged.
    pub(crate) fn close_if_unused(&mut self, AccountKey(key): AccountKey) {
        if self.accounts.get(key).is_some_and(Account::is_empty)
            && let Some(account) = self.accounts.remove(key)
        {
            self.by_uid.remove(&account.uid);
        }
    }
}
