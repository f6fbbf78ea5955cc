//! The way from the daemon's thread to the one that makes memory files: work, fair between users.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gem::fair::FairQueue;
use gem::units::Uid;

/// Work for one thread, queued by another.
#[derive(Debug)]
pub(crate) struct Work<T> {
    /// `None` once closed.
    queue: Mutex<Option<FairQueue<T>>>,
    changed: Condvar,
}

impl<T> Work<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(Some(FairQueue::new())),
            changed: Condvar::new(),
        }
    }

    /// Queues a piece for this user.
    pub(crate) fn push(&self, user: Uid, piece: T) {
        if let Some(queue) = &mut *self.lock() {
            queue.push(user, piece);
        }
        self.changed.notify_one();
    }

    /// The next piece; waits for it. `None` once closed, whatever was queued.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut queue = self.lock();
        loop {
            if let Some((_, piece)) = queue.as_mut()?.pop() {
                return Some(piece);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        let queue = self.lock().take();
        // Not under the lock: a piece may have more to say when it goes.
        drop(queue);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<FairQueue<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_comes_while_it_waits_and_ends_when_closed() {
        let work = Work::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| std::iter::from_fn(|| work.pop()).sum::<u32>());
            for piece in 1..=100 {
                work.push(Uid(piece % 3), piece);
            }
            while !work.lock().as_ref().unwrap().is_empty() {
                std::thread::yield_now();
            }
            work.close();
            assert_eq!(reader.join().unwrap(), 5050);
        });
        work.push(Uid(1), 1);
        assert_eq!(work.pop(), None);
    }

    /// Queues another piece when it goes.
    struct Last(Option<std::sync::Arc<Work<Last>>>);

    impl Drop for Last {
        fn drop(&mut self) {
            if let Some(work) = self.0.take() {
                work.push(Uid(0), Last(None));
            }
        }
    }

    #[test]
    fn a_piece_that_is_never_done_may_queue_more_when_it_goes() {
        let work = std::sync::Arc::new(Work::new());
        work.push(Uid(0), Last(Some(work.clone())));
        work.close();
        assert!(work.pop().is_none());
    }
}
