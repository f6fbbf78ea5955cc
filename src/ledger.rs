//! Who uses how much: one account per uid, checked before anything is allocated.
//!
//! The ledger counts and refuses; it owns nothing that it counts. Whoever charges also refunds,
//! with the same numbers. An account exists while anything is charged to it.

use core::fmt;

use hashbrown::HashMap;

use crate::slots::{Key, Slots};
use crate::units::{PageCount, Uid};

/// How much clients may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Memory in objects, all clients together.
    pub total: PageCount,
    /// Memory in objects of one uid.
    pub uid: PageCount,
    /// Memory in one object.
    pub object: PageCount,
    /// Memory that is to be left to the machine: below, what nobody needs is purged.
    pub keep_free: PageCount,
    /// Pages mapped by one uid, each mapping counted: what the kernel's page tables cost.
    pub mapped_per_uid: PageCount,
    /// Objects mapped by the opens of one uid, each open's counted: what the server keeps of them.
    pub mapped_objects_per_uid: u32,
    /// Opens, of all clients together.
    pub opens: u32,
    /// Opens of one uid.
    pub opens_per_uid: u32,
    /// Objects of one uid.
    pub objects_per_uid: u32,
    /// Handles of one uid, and free numbers below them: a table is as long as its highest number.
    pub handles_per_uid: u32,
    /// Handles of one open.
    pub handles_per_open: u32,
    /// Object fds made by one uid.
    pub object_fds_per_uid: u32,
    /// Object fds made through one open.
    pub object_fds_per_open: u32,
    /// Objects of one uid that have a global name: few of the two billion, so that guessing one
    /// stays hopeless.
    pub names_per_uid: u32,
    /// Objects of one uid that have a fake offset.
    pub offsets_per_uid: u32,
    /// Pages of clients of one uid that are taken over, or still mapped since they were.
    pub user_pages_per_uid: PageCount,
    /// Ranges of clients of one uid whose pages those are.
    pub user_ranges_per_uid: u32,
    /// Requests of one uid that wait at a time. Counted by the server.
    pub waiting_per_uid: u32,
    /// Requests of one user on one open file that wait at a time. Counted by the server.
    pub waiting_per_open: u32,
    /// The space of fake offsets, for all.
    pub offset_space: PageCount,
}

impl Limits {
    /// The limits on a machine with this much memory: half of it for all clients, and a sixteenth
    /// is to be left.
    pub fn for_memory(memory: PageCount) -> Self {
        Self::for_clients(half(memory))
    }

    /// The limits where clients may have this much memory: one uid may have half of it.
    pub fn for_clients(total: PageCount) -> Self {
        let uid = half(total);
        let most = PageCount::new(MAX_OBJECT_PAGES).unwrap_or(uid);
        Self {
            total,
            uid,
            object: uid.min(most),
            keep_free: PageCount::new((total.get() / 8).max(1)).unwrap_or(total),
            // Mapping costs the kernel page tables, one eight-byte entry a page.
            mapped_per_uid: PageCount::new(total.get().saturating_mul(16)).unwrap_or(total),
            mapped_objects_per_uid: 1 << 18,
            opens: 1 << 20,
            opens_per_uid: 1 << 14,
            objects_per_uid: 1 << 20,
            handles_per_uid: 1 << 21,
            handles_per_open: 1 << 20,
            object_fds_per_uid: 1 << 17,
            object_fds_per_open: 1 << 16,
            names_per_uid: 1 << 16,
            offsets_per_uid: 1 << 20,
            // Not memory of ours, but memory that its owner's process cannot be rid of alone.
            user_pages_per_uid: uid,
            user_ranges_per_uid: 1 << 14,
            waiting_per_uid: 1 << 10,
            waiting_per_open: 1 << 6,
            offset_space: OFFSET_SPACE,
        }
    }
}

/// The most pages an object can have: a signed 32-bit number, so that a handle and a size fit one
/// word below the errno range.
pub const MAX_OBJECT_PAGES: u64 = i32::MAX as u64;

/// 2^62 bytes of addresses: a million objects of one uid, however they lie, leave gaps of 4 TiB
/// between them, so that nobody can break the space into pieces too small for others. Not more,
/// so that an offset stays a positive signed number.
const OFFSET_SPACE: PageCount = match PageCount::new(1 << 50) {
    Some(pages) => pages,
    None => PageCount::ZERO,
};

fn half(pages: PageCount) -> PageCount {
    PageCount::new((pages.get() / 2).max(1)).unwrap_or(pages)
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LedgerError {
    /// All clients together would have more memory than this.
    Total(PageCount),
    /// One object would have more memory than this.
    Object(PageCount),
    /// All clients together would have more opens than this.
    Opens(u32),
    /// This uid would have more memory than this.
    Memory(Uid, PageCount),
    /// This uid would have more pages mapped than this.
    Mapped(Uid, PageCount),
    /// More pages of this uid's clients would be taken over than this.
    UserPages(Uid, PageCount),
    /// This uid would have more of these than this.
    Count(Uid, Counted, u32),
    /// An open would have more of these than this.
    OpenCount(Counted, u32),
}

/// What is counted one by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// Opens.
    Opens,
    /// Objects.
    Objects,
    /// Handles.
    Handles,
    /// Object fds.
    ObjectFds,
    /// Objects mapped through nodes.
    MappedObjects,
    /// Global names.
    Names,
    /// Fake offsets.
    Offsets,
    /// Ranges of clients' own pages.
    UserRanges,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opens => "opens",
            Self::Objects => "objects",
            Self::Handles => "handles",
            Self::ObjectFds => "object fds",
            Self::MappedObjects => "mapped objects",
            Self::Names => "names",
            Self::Offsets => "offsets",
            Self::UserRanges => "userptr ranges",
        })
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(limit) => write!(f, "all clients together may have {limit} pages"),
            Self::Object(limit) => write!(f, "one object may have {limit} pages"),
            Self::Opens(limit) => write!(f, "all clients together may have {limit} opens"),
            Self::Memory(uid, limit) => write!(f, "uid {uid} may have {limit} pages"),
            Self::Mapped(uid, limit) => write!(f, "uid {uid} may map {limit} pages"),
            Self::UserPages(uid, limit) => {
                write!(f, "uid {uid} may have {limit} pages of its own taken over")
            }
            Self::Count(uid, what, limit) => write!(f, "uid {uid} may have {limit} {what}"),
            Self::OpenCount(what, limit) => write!(f, "one open may have {limit} {what}"),
        }
    }
}

/// What one uid has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    /// Whose it is.
    pub uid: Uid,
    /// Opens bound to it.
    pub opens: u32,
    /// Objects charged to it: those that it has held longer than any other user.
    pub objects: u32,
    /// Memory in those objects.
    pub memory: PageCount,
    /// Handles in its opens, and free numbers below them.
    pub handles: u32,
    /// Object fds made by it.
    pub object_fds: u32,
    /// Pages mapped through its opens and object fds.
    pub mapped: PageCount,
    /// Objects mapped through its opens, each open's counted.
    pub mapped_objects: u32,
    /// Objects charged to it that have a global name.
    pub names: u32,
    /// Objects charged to it that have a fake offset.
    pub offsets: u32,
    /// Pages of its clients that are taken over, or still mapped since they were.
    pub user_pages: PageCount,
    /// The ranges that those pages make.
    pub user_ranges: u32,
}

impl Account {
    /// The account of a uid that has nothing.
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            opens: 0,
            objects: 0,
            memory: PageCount::ZERO,
            handles: 0,
            object_fds: 0,
            mapped: PageCount::ZERO,
            mapped_objects: 0,
            names: 0,
            offsets: 0,
            user_pages: PageCount::ZERO,
            user_ranges: 0,
        }
    }

    fn count(&self, what: Counted) -> u32 {
        match what {
            Counted::Opens => self.opens,
            Counted::Objects => self.objects,
            Counted::Handles => self.handles,
            Counted::ObjectFds => self.object_fds,
            Counted::MappedObjects => self.mapped_objects,
            Counted::Names => self.names,
            Counted::Offsets => self.offsets,
            Counted::UserRanges => self.user_ranges,
        }
    }

    fn counter(&mut self, what: Counted) -> &mut u32 {
        match what {
            Counted::Opens => &mut self.opens,
            Counted::Objects => &mut self.objects,
            Counted::Handles => &mut self.handles,
            Counted::ObjectFds => &mut self.object_fds,
            Counted::MappedObjects => &mut self.mapped_objects,
            Counted::Names => &mut self.names,
            Counted::Offsets => &mut self.offsets,
            Counted::UserRanges => &mut self.user_ranges,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::new(self.uid)
    }
}

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
        let limit = self.limits.opens_per_uid;
        let refused = LedgerError::Count(uid, Counted::Opens, limit);
        let key = match self.by_uid.get(&uid) {
            Some(&key) => key,
            None => {
                let account = Account::new(uid);
                let key = self.accounts.insert(account).map_err(|_| refused)?;
                self.by_uid.insert(uid, key);
                key
            }
        };
        match self.charge(AccountKey(key), Counted::Opens) {
            Ok(()) => Ok(AccountKey(key)),
            Err(error) => {
                self.close_if_empty(key);
                Err(error)
            }
        }
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
        self.close_if_empty(key.0);
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
        self.close_if_empty(key.0);
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
        self.close_if_empty(key.0);
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

    fn close_if_empty(&mut self, key: Key) {
        if self.accounts.get(key).is_some_and(Account::is_empty)
            && let Some(account) = self.accounts.remove(key)
        {
            self.by_uid.remove(&account.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(pages: u64) -> PageCount {
        PageCount::new(pages).unwrap()
    }

    fn load(size: u64) -> Load {
        Load::of(pages(size))
    }

    fn ledger() -> Ledger {
        let mut limits = Limits::for_clients(pages(100));
        limits.opens_per_uid = 2;
        limits.objects_per_uid = 3;
        limits.mapped_per_uid = pages(10);
        Ledger::new(limits)
    }

    #[test]
    fn a_machine_gives_half_to_clients_and_a_quarter_to_one_user() {
        let limits = Limits::for_memory(pages(1 << 20));
        assert_eq!(limits.total, pages(1 << 19));
        assert_eq!(limits.uid, pages(1 << 18));
        assert_eq!(limits.object, pages(1 << 18));
        let limits = Limits::for_memory(PageCount::MAX);
        assert_eq!(limits.object.get(), MAX_OBJECT_PAGES);
        assert_eq!(Limits::for_memory(pages(1 << 20)).keep_free, pages(1 << 16));
        let nothing = Limits::for_memory(PageCount::ZERO);
        assert!(!nothing.object.is_zero() && !nothing.keep_free.is_zero());
    }

    #[test]
    fn what_is_refused_is_not_charged() {
        let mut ledger = ledger();
        let (a, b) = (Uid(1), Uid(2));
        let account = ledger.charge_open(a).unwrap();
        let other = ledger.charge_open(b).unwrap();
        ledger.charge_object(account, pages(50)).unwrap();
        let before = *ledger.account(account).unwrap();
        let refused = ledger.charge_object(account, pages(1));
        assert_eq!(refused, Err(LedgerError::Memory(a, pages(50))));
        let refused = ledger.charge_mapped(account, pages(11), true);
        assert_eq!(refused, Err(LedgerError::Mapped(a, pages(10))));
        assert_eq!(*ledger.account(account).unwrap(), before);
        ledger.charge_object(other, pages(49)).unwrap();
        let refused = ledger.charge_object(other, pages(2));
        assert_eq!(refused, Err(LedgerError::Total(pages(100))));
        assert_eq!(ledger.memory(), pages(99));
        assert_eq!(ledger.mapped(), PageCount::ZERO);
        ledger.charge_object(other, pages(1)).unwrap();
        ledger.refund_object(other, load(1));
        ledger.refund_object(account, load(50));
        assert_eq!(ledger.memory(), pages(49));
    }

    #[test]
    fn what_is_too_much_is_told_for_the_user_and_for_all() {
        let mut ledger = ledger();
        let [a, b] = [1, 2].map(|uid| ledger.charge_open(Uid(uid)).unwrap());
        ledger.charge_object(a, pages(45)).unwrap();
        ledger.charge_object(b, pages(50)).unwrap();
        let excess = |ledger: &Ledger, size| {
            let Excess { own, all } = ledger.excess(a, pages(size));
            (own.get(), all.get())
        };
        assert_eq!(excess(&ledger, 5), (0, 0));
        assert_eq!(excess(&ledger, 9), (4, 4));
        ledger.refund_pages(b, pages(2));
        assert_eq!(excess(&ledger, 9), (4, 2));
        assert!(ledger.excess(a, PageCount::MAX).own > pages(50));
        // The object is charged still, and goes without pages.
        assert_eq!(ledger.account(b).unwrap().objects, 1);
        ledger.refund_object(b, load(0));
        ledger.refund_object(b, load(48));
        assert_eq!(ledger.memory(), pages(45));
    }

    #[test]
    fn objects_without_number_are_refused_even_if_they_are_small() {
        let mut ledger = ledger();
        let account = ledger.charge_open(Uid(1)).unwrap();
        for _ in 0..3 {
            ledger.charge_object(account, pages(1)).unwrap();
        }
        let refused = Err(LedgerError::Count(Uid(1), Counted::Objects, 3));
        assert_eq!(ledger.charge_object(account, pages(1)), refused);
        assert_eq!(ledger.memory(), pages(3));
    }

    #[test]
    fn pages_and_ranges_of_clients_have_limits_of_their_own() {
        let mut ledger = ledger();
        ledger.limits.user_pages_per_uid = pages(10);
        ledger.limits.user_ranges_per_uid = 2;
        let account = ledger.charge_open(Uid(1)).unwrap();
        let refused = Err(LedgerError::UserPages(Uid(1), pages(10)));
        assert_eq!(ledger.charge_user(account, pages(11)), refused);
        assert_eq!(ledger.charge_user(account, PageCount::MAX), refused);
        ledger.charge_user(account, pages(4)).unwrap();
        ledger.charge_user(account, pages(4)).unwrap();
        let refused = Err(LedgerError::Count(Uid(1), Counted::UserRanges, 2));
        assert_eq!(ledger.charge_user(account, pages(1)), refused);
        assert_eq!((ledger.user_pages(), ledger.user_ranges()), (pages(8), 2));
        assert_eq!(ledger.memory(), PageCount::ZERO, "no memory of ours");
        // The client maps them again, whatever it may map.
        ledger.count_mapped(account, pages(20));
        assert_eq!(ledger.mapped(), pages(20));
        ledger.refund_mapped(account, pages(20), true);
        ledger.refund_user(account, pages(4));
        ledger.refund_user(account, pages(4));
        ledger.refund(account, Counted::Opens, 1);
        assert_eq!((ledger.user_pages(), ledger.user_ranges()), (pages(0), 0));
        assert_eq!(ledger.accounts().count(), 0);
    }

    #[test]
    fn an_account_lasts_as_long_as_something_is_charged_to_it() {
        let mut ledger = ledger();
        let account = ledger.charge_open(Uid(1)).unwrap();
        assert_eq!(ledger.charge_open(Uid(1)), Ok(account));
        let refused = Err(LedgerError::Count(Uid(1), Counted::Opens, 2));
        assert_eq!(ledger.charge_open(Uid(1)), refused);
        ledger.charge_mapped(account, pages(1), true).unwrap();
        ledger.refund(account, Counted::Opens, 2);
        assert_eq!(ledger.uid(account), Uid(1));
        ledger.refund_mapped(account, pages(5), true);
        assert_eq!(ledger.account(account), None);
        assert_eq!(ledger.accounts().count(), 0);
        assert_eq!(ledger.mapped(), PageCount::ZERO);
        // Nor does one remain of an open that was refused.
        ledger.limits.opens_per_uid = 0;
        assert!(ledger.charge_open(Uid(1)).is_err());
        assert_eq!(ledger.accounts().count(), 0);
    }
}
