//! Which users hold an object beside the one who pays for it, oldest first.
//!
//! The payer is the user who has held the object longest: first who made it, then, when that one
//! lets go, the oldest of the others. Only those others are kept here, with how many times each
//! holds the object (opens and object fds); what is left of all is the payer's own. So an object
//! that one user has costs nothing here, and one that two have (who draws, who shows) no heap.
//! A search looks at every user who holds the object, not at every open.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ledger::AccountKey;

/// A user, and how many times it holds the object: never 0.
type Share = (AccountKey, u32);

/// The users who hold an object and do not pay for it.
#[derive(Debug)]
pub(crate) enum Sharers {
    None,
    One(Share),
    /// Two or more, oldest first. Boxed, because it is rare and objects are many.
    #[allow(clippy::box_collection, reason = "an object has room for one word")]
    Many(Box<Vec<Share>>),
}

impl Sharers {
    /// This user holds the object once more.
    pub(crate) fn add(&mut self, account: AccountKey) {
        match self {
            Self::None => *self = Self::One((account, 1)),
            Self::One((present, count)) if *present == account => *count += 1,
            Self::One(first) => *self = Self::Many(Box::new(Vec::from([*first, (account, 1)]))),
            Self::Many(shares) => match shares.iter_mut().find(|(user, _)| *user == account) {
                Some((_, count)) => *count += 1,
                None => shares.push((account, 1)),
            },
        }
    }

    /// This user holds the object once less.
    pub(crate) fn remove(&mut self, account: AccountKey) {
        match self {
            Self::One((present, count)) if *present == account => {
                *count -= 1;
                if *count == 0 {
                    *self = Self::None;
                }
            }
            Self::Many(shares) => {
                if let Some(place) = shares.iter().position(|(user, _)| *user == account)
                    && let Some((_, count)) = shares.get_mut(place)
                {
                    *count -= 1;
                    if *count == 0 {
                        shares.remove(place);
                        self.pull_in();
                    }
                }
            }
            Self::None | Self::One(_) => {}
        }
    }

    /// How many times they all hold the object.
    pub(crate) fn holds(&self) -> usize {
        let shares = match self {
            Self::None => &[],
            Self::One(share) => core::slice::from_ref(share),
            Self::Many(shares) => shares.as_slice(),
        };
        shares.iter().map(|&(_, count)| count as usize).sum()
    }

    /// Takes out the one who has held the object longest.
    pub(crate) fn take_oldest(&mut self) -> Option<AccountKey> {
        match self {
            Self::None => None,
            &mut Self::One((account, _)) => {
                *self = Self::None;
                Some(account)
            }
            Self::Many(shares) => {
                let (account, _) = shares.remove(0);
                self.pull_in();
                Some(account)
            }
        }
    }

    /// One that is left needs no heap.
    fn pull_in(&mut self) {
        if let Self::Many(shares) = self
            && let &[share] = shares.as_slice()
        {
            *self = Self::One(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Limits};
    use crate::units::{PageCount, Uid};

    fn accounts() -> [AccountKey; 4] {
        let mut ledger = Ledger::new(Limits::for_memory(PageCount::MAX));
        [1, 2, 3, 4].map(|uid| ledger.charge_open(Uid(uid)).unwrap())
    }

    #[test]
    fn the_oldest_that_still_holds_comes_first() {
        let [a, b, c, d] = accounts();
        let mut sharers = Sharers::None;
        for account in [a, b, a, c, d] {
            sharers.add(account);
        }
        assert_eq!(sharers.holds(), 5);
        sharers.remove(a);
        sharers.remove(b);
        sharers.add(b);
        assert_eq!(sharers.take_oldest(), Some(a), "a held it twice");
        assert_eq!(sharers.take_oldest(), Some(c), "b let go in between");
        assert_eq!(sharers.take_oldest(), Some(d));
        assert_eq!(sharers.take_oldest(), Some(b));
        assert_eq!(sharers.take_oldest(), None);
    }

    #[test]
    fn one_sharer_needs_no_heap() {
        let [a, b, c, _] = accounts();
        let mut sharers = Sharers::None;
        sharers.add(a);
        sharers.add(a);
        assert!(matches!(sharers, Sharers::One((_, 2))));
        sharers.add(b);
        sharers.add(c);
        sharers.remove(a);
        sharers.remove(a);
        assert!(matches!(sharers, Sharers::Many(_)));
        sharers.remove(c);
        assert!(matches!(sharers, Sharers::One((user, 1)) if user == b));
        sharers.remove(c);
        assert_eq!(
            sharers.holds(),
            1,
            "who does not hold it takes nothing away"
        );
        sharers.remove(b);
        assert!(matches!(sharers, Sharers::None));
    }
}
