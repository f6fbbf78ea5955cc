//! Work in turns: each user's own work first come, first served; between users one piece each.
//!
//! For platforms, whose worker does what the device does not wait for. However much work one user
//! has queued, another one's next piece comes after at most one piece of each user.

use alloc::collections::{BTreeMap, VecDeque};

use crate::units::Uid;

/// A queue that is fair between users, or between whatever else takes turns.
#[derive(Debug)]
pub struct FairQueue<T, K = Uid> {
    /// What is queued; no user without any.
    work: BTreeMap<K, VecDeque<T>>,
    /// The users who have something queued, in the order of their turns.
    turns: VecDeque<K>,
}

impl<T, K: Copy + Ord> FairQueue<T, K> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            work: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Queues a piece of work behind this user's other pieces.
    pub fn push(&mut self, user: K, piece: T) {
        let own = self.work.entry(user).or_default();
        if own.is_empty() {
            self.turns.push_back(user);
        }
        own.push_back(piece);
    }

    /// The next piece, and whose it is. That user's turn comes again after all others'.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let user = self.turns.pop_front()?;
        let own = self.work.get_mut(&user)?;
        let piece = own.pop_front()?;
        if own.is_empty() {
            self.work.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        Some((user, piece))
    }
}

impl<T, K: Copy + Ord> Default for FairQueue<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_thousand_pieces_of_one_user_delay_nobody_else() {
        let mut queue = FairQueue::new();
        for piece in 0..1000 {
            queue.push(Uid(1), piece);
        }
        queue.push(Uid(2), 5000);
        queue.push(Uid(3), 6000);
        queue.push(Uid(2), 5001);
        let first: Vec<_> = (0..6).filter_map(|_| queue.pop()).collect();
        let expected = [(1, 0), (2, 5000), (3, 6000), (1, 1), (2, 5001), (1, 2)];
        assert_eq!(first, expected.map(|(user, piece)| (Uid(user), piece)));
        // Who comes late waits for one piece at most.
        queue.push(Uid(4), 7000);
        let next: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        assert_eq!(next, [(Uid(1), 3), (Uid(4), 7000)]);
    }

    #[test]
    fn every_piece_comes_once_and_an_empty_queue_keeps_no_user() {
        let mut queue = FairQueue::new();
        for piece in 0..100 {
            queue.push(Uid(piece % 7), piece);
        }
        let mut pieces: Vec<_> = core::iter::from_fn(|| queue.pop()).collect();
        for user in 0..7 {
            let own = pieces.iter().filter(|(whose, _)| *whose == Uid(user));
            assert!(own.is_sorted_by_key(|(_, piece)| *piece), "in order");
        }
        pieces.sort_by_key(|(_, piece)| *piece);
        assert_eq!(pieces.len(), 100);
        assert!(queue.is_empty() && queue.work.is_empty() && queue.turns.is_empty());
    }
}
