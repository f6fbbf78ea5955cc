//! Open files, and whose they are: a fair share of one table.
//!
//! Nobody knows whose a new file is: on a full Redox the name space manager opens it, for
//! whoever asked. It is nobody's until somebody uses it, which tells; then it counts for that
//! user, and a user may have as many files as are left for all others, so that the table
//! is never any user's alone. Files that are nobody's are few: one more, and the oldest of them
//! is dropped. Who uses a file soon after opening it, as every client does, never notices; who
//! opens files and does nothing with them loses them, and nobody else does.
//!
//! The server's own files are not counted and never dropped.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem::take;

use gem::units::Uid;

use crate::fds::{FdId, Fds, Full};

/// Whose a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner {
    Server,
    /// Since when, counted in files.
    Nobody(u64),
    User(Uid),
}

#[derive(Debug)]
struct Entry<T> {
    file: T,
    owner: Owner,
}

/// Open files by number.
#[derive(Debug)]
pub struct Files<T> {
    fds: Fds<Entry<T>>,
    /// Files that are nobody's, oldest first.
    nobodys: BTreeMap<u64, FdId>,
    nobodys_max: usize,
    /// Files that were dropped since somebody asked.
    dropped: Vec<FdId>,
    opened: u64,
    /// How many files each user has; never 0.
    of_user: BTreeMap<Uid, usize>,
}

impl<T> Files<T> {
    /// An empty table for at most `limit` files, `nobodys_max` of them nobody's.
    pub fn new(limit: usize, nobodys_max: usize) -> Self {
        Self {
            fds: Fds::new(limit),
            nobodys: BTreeMap::new(),
            nobodys_max,
            dropped: Vec::new(),
            opened: 0,
            of_user: BTreeMap::new(),
        }
    }

    /// How many files are open.
    pub fn count(&self) -> usize {
        self.fds.count()
    }

    /// The file of this number, and whether it is somebody's.
    #[inline]
    pub fn look(&mut self, id: FdId) -> Option<(&mut T, bool)> {
        let entry = self.fds.get_mut(id)?;
        let owned = !matches!(entry.owner, Owner::Nobody(_));
        Some((&mut entry.file, owned))
    }

    /// The file of this number.
    pub fn get_mut(&mut self, id: FdId) -> Option<&mut T> {
        Some(&mut self.fds.get_mut(id)?.file)
    }

    /// A file of the server's own.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn insert_own(&mut self, file: T) -> Result<FdId, Full> {
        let owner = Owner::Server;
        self.fds.insert(Entry { file, owner })
    }

    /// A file that is nobody's yet. Where there are too many such files, the oldest one's number
    /// means nothing from then on.
    ///
    /// # Errors
    ///
    /// [`Full`] where all files are somebody's.
    pub fn insert(&mut self, file: T) -> Result<FdId, Full> {
        if self.nobodys.len() >= self.nobodys_max {
            self.drop_oldest();
        }
        self.make_room();
        self.opened += 1;
        let owner = Owner::Nobody(self.opened);
        let id = self.fds.insert(Entry { file, owner })?;
        self.nobodys.insert(self.opened, id);
        Ok(id)
    }

    /// A file of this user's.
    ///
    /// # Errors
    ///
    /// [`Full`] where the user has as many files as are left.
    pub fn insert_for(&mut self, user: Uid, file: T) -> Result<FdId, Full> {
        self.check(user)?;
        self.make_room();
        let owner = Owner::User(user);
        let id = self.fds.insert(Entry { file, owner })?;
        *self.of_user.entry(user).or_default() += 1;
        Ok(id)
    }

    /// The file is this user's from now on, if it was nobody's.
    ///
    /// # Errors
    ///
    /// [`Full`] where the user has as many files as are left.
    pub fn bind(&mut self, id: FdId, user: Uid) -> Result<(), Full> {
        let owner = self.fds.get_mut(id).map(|entry| entry.owner);
        let Some(Owner::Nobody(since)) = owner else {
            return Ok(());
        };
        self.check(user)?;
        if let Some(entry) = self.fds.get_mut(id) {
            entry.owner = Owner::User(user);
        }
        self.nobodys.remove(&since);
        *self.of_user.entry(user).or_default() += 1;
        Ok(())
    }

    /// Takes the file out; its number means nothing from then on.
    pub fn remove(&mut self, id: FdId) -> Option<T> {
        let Entry { file, owner } = self.fds.remove(id)?;
        match owner {
            Owner::Server => {}
            Owner::Nobody(since) => {
                self.nobodys.remove(&since);
            }
            Owner::User(user) => {
                if let Some(count) = self.of_user.get_mut(&user) {
                    *count -= 1;
                    if *count == 0 {
                        self.of_user.remove(&user);
                    }
                }
            }
        }
        Some(file)
    }

    /// Files that were dropped since this was last asked: nobody has closed them.
    pub fn take_dropped(&mut self) -> Vec<FdId> {
        take(&mut self.dropped)
    }

    /// A file that is nobody's gives way where there is no room.
    fn make_room(&mut self) {
        if self.fds.left() == 0 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, oldest)) = self.nobodys.pop_first() {
            self.fds.remove(oldest);
            self.dropped.push(oldest);
        }
    }

    fn check(&self, user: Uid) -> Result<(), Full> {
        let own = self.of_user.get(&user).copied().unwrap_or(0);
        // What is nobody's gives way.
        if own < self.fds.left() + self.nobodys.len() {
            Ok(())
        } else {
            Err(Full)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Uid = Uid(1000);
    const BOB: Uid = Uid(1001);
    const CAROL: Uid = Uid(1002);

    /// Files of this user until there are no more; the last one's number.
    fn fill(files: &mut Files<u32>, user: Uid) -> Vec<FdId> {
        core::iter::from_fn(|| files.insert_for(user, user.0).ok()).collect()
    }

    #[test]
    fn the_table_is_never_one_users_alone() {
        let mut files = Files::new(64, 8);
        let alices = fill(&mut files, ALICE);
        assert_eq!(alices.len(), 32);
        assert_eq!(fill(&mut files, BOB).len(), 16);
        assert_eq!(fill(&mut files, CAROL).len(), 8);
        assert!(files.insert_for(Uid(7), 7).is_ok(), "who comes late");
        for id in alices {
            assert_eq!(files.remove(id), Some(1000));
        }
        assert_eq!(files.insert_for(BOB, 1).map(|_| ()), Ok(()));
    }

    #[test]
    fn of_files_that_are_nobodys_the_oldest_is_dropped_and_no_other() {
        let mut files = Files::new(64, 3);
        let own = files.insert_own(0).unwrap();
        let used = files.insert(1).unwrap();
        files.bind(used, ALICE).unwrap();
        let [first, second, third, fourth] = [2, 3, 4, 5].map(|file| files.insert(file).unwrap());
        assert!(files.look(first).is_none());
        assert_eq!(files.remove(first), None);
        assert_eq!(files.take_dropped(), [first]);
        for (id, owned) in [(own, true), (used, true), (second, false), (fourth, false)] {
            assert_eq!(files.look(id).map(|(_, owned)| owned), Some(owned));
        }
        // One that was closed meanwhile makes room.
        files.remove(third);
        files.insert(6).unwrap();
        assert!(files.look(second).is_some());
        assert_eq!(files.count(), 5);
    }

    #[test]
    fn a_file_is_the_first_users_and_counts_once() {
        let mut files = Files::new(8, 8);
        let id = files.insert(1).unwrap();
        files.bind(id, ALICE).unwrap();
        files.bind(id, BOB).unwrap();
        assert_eq!(files.of_user, BTreeMap::from([(ALICE, 1)]));
        files.remove(id);
        assert!(files.of_user.is_empty() && files.nobodys.is_empty());
        files.bind(id, ALICE).unwrap();
        assert!(files.of_user.is_empty(), "a closed file is nobody's");
    }

    #[test]
    fn files_that_are_nobodys_give_way_and_those_of_users_do_not() {
        let mut files = Files::new(4, 4);
        let unused = [1, 2, 3, 4].map(|file| files.insert(file).unwrap());
        let fresh = files.insert(5).unwrap();
        assert!(files.look(unused[0]).is_none());
        files.bind(fresh, ALICE).unwrap();
        for id in &unused[1..] {
            files.bind(*id, BOB).ok();
        }
        assert_eq!(files.of_user[&BOB], 2, "one is left for others");
        assert!(files.insert(6).is_ok());
        assert_eq!(files.count(), 4);
        assert!(files.insert_for(CAROL, 7).is_ok());
        assert_eq!(files.count(), 4);
        assert_eq!(files.insert(8), Err(Full), "all four are somebody's");
    }
}
