//! What is mapped through one object fd: by which processes, and who pays.
//!
//! An fd can be in many hands. Whoever maps through it pays for what it maps: else whoever was
//! given it could use up what its maker may map, and the maker could not end that. The kernel names
//! the process that maps. When something is unmapped it names who did that, which can be another
//! process (whoever closes the last fd on a dead one's address space, say). What such a one unmaps
//! is taken from somebody who has it mapped: the sum is right, and what is left ends with the fd.

use alloc::vec::Vec;

use crate::ledger::AccountKey;
use crate::shrink;
use crate::units::{PageCount, Pid};

/// Pages mapped through an object fd.
#[derive(Debug, Default)]
pub(crate) struct FdMappings {
    /// By process and account, never none: one, as a rule. A process that gets another user pays
    /// with both accounts.
    mapped: Vec<(Pid, AccountKey, PageCount)>,
}

impl FdMappings {
    /// So many pages more, of this process.
    pub(crate) fn add(&mut self, pid: Pid, account: AccountKey, pages: PageCount) {
        let same = |it: &&mut (Pid, AccountKey, PageCount)| (it.0, it.1) == (pid, account);
        match self.mapped.iter_mut().find(same) {
            // The ledger's sums bound it.
            Some((.., sum)) => *sum = sum.checked_add(pages).unwrap_or(PageCount::MAX),
            None => self.mapped.push((pid, account, pages)),
        }
    }

    /// Up to `pages` pages fewer: those of this process, and where it has not so many, of whoever
    /// came last. Tells each account how many; returns how many in all.
    pub(crate) fn take(
        &mut self,
        pid: Pid,
        pages: PageCount,
        mut refund: impl FnMut(AccountKey, PageCount),
    ) -> PageCount {
        let mut left = pages;
        let its = |(of, ..): &(Pid, AccountKey, PageCount)| *of == pid;
        while !left.is_zero()
            && let Some(index) = self
                .mapped
                .iter()
                .position(its)
                .or(self.mapped.len().checked_sub(1))
            && let Some((_, account, sum)) = self.mapped.get_mut(index)
        {
            let taken = left.min(*sum);
            refund(*account, taken);
            left = left.saturating_sub(taken);
            *sum = sum.saturating_sub(taken);
            if sum.is_zero() {
                self.mapped.remove(index);
                shrink::vec(&mut self.mapped);
            }
        }
        pages.saturating_sub(left)
    }

    /// All pages.
    pub(crate) fn sum(&self) -> PageCount {
        let add = |sum: PageCount, pages| sum.checked_add(pages).unwrap_or(PageCount::MAX);
        self.by_account()
            .map(|(_, pages)| pages)
            .fold(PageCount::ZERO, add)
    }

    /// Who pays for how many; an account can come more than once.
    pub(crate) fn by_account(&self) -> impl Iterator<Item = (AccountKey, PageCount)> + '_ {
        self.mapped
            .iter()
            .map(|&(_, account, pages)| (account, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Limits};
    use crate::units::Uid;

    fn pages(pages: u64) -> PageCount {
        PageCount::new(pages).unwrap()
    }

    fn accounts() -> [AccountKey; 2] {
        let mut ledger = Ledger::new(Limits::for_clients(pages(100)));
        [1, 2].map(|uid| ledger.charge_open(Uid(uid)).unwrap())
    }

    /// Takes pages; to whom they went back, and how many.
    fn take(mapped: &mut FdMappings, pid: u64, count: u64) -> (Vec<(AccountKey, u64)>, u64) {
        let mut refunds = Vec::new();
        let refund = |account, pages: PageCount| refunds.push((account, pages.get()));
        let taken = mapped.take(Pid(pid), pages(count), refund);
        (refunds, taken.get())
    }

    #[test]
    fn each_gets_back_what_it_has_unmapped() {
        let [alice, bob] = accounts();
        let mut mapped = FdMappings::default();
        mapped.add(Pid(1), alice, pages(5));
        mapped.add(Pid(2), bob, pages(7));
        mapped.add(Pid(1), alice, pages(1));
        assert_eq!(mapped.sum(), pages(13));
        assert_eq!(take(&mut mapped, 1, 2), (Vec::from([(alice, 2)]), 2));
        assert_eq!(take(&mut mapped, 2, 7), (Vec::from([(bob, 7)]), 7));
        let left: Vec<_> = mapped.by_account().collect();
        assert_eq!(left, [(alice, pages(4))]);
    }

    #[test]
    fn what_a_stranger_unmaps_is_somebodys_and_no_more_than_there_is() {
        let [alice, bob] = accounts();
        let mut mapped = FdMappings::default();
        mapped.add(Pid(1), alice, pages(3));
        mapped.add(Pid(2), bob, pages(2));
        assert_eq!(take(&mut mapped, 9, 1), (Vec::from([(bob, 1)]), 1));
        // More than it has.
        let all = (Vec::from([(bob, 1), (alice, 3)]), 4);
        assert_eq!(take(&mut mapped, 2, u32::MAX.into()), all);
        assert_eq!(take(&mut mapped, 1, 1), (Vec::new(), 0));
        assert!(mapped.sum().is_zero());
    }

    #[test]
    fn a_process_that_becomes_another_users_has_both_pay() {
        let [alice, bob] = accounts();
        let mut mapped = FdMappings::default();
        mapped.add(Pid(1), alice, pages(1));
        mapped.add(Pid(1), bob, pages(1));
        let both = (Vec::from([(alice, 1), (bob, 1)]), 2);
        assert_eq!(take(&mut mapped, 1, 2), both);
    }
}
