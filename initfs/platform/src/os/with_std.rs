//! The interface of the image's runtime over std. A panic of one thread does not poison what it
//! shares: every value here is whole between any two steps.

use std::collections::VecDeque;
use std::sync::{Condvar, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use syscall::error::{EAGAIN, Error, Result};

/// A lock.
#[derive(Debug)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue without bound between threads.
#[derive(Debug)]
pub struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    pushed: Condvar,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            items: Mutex::new(VecDeque::new()),
            pushed: Condvar::new(),
        }
    }

    /// Adds an item.
    pub fn push(&self, item: T) {
        self.items.lock().push_back(item);
        self.pushed.notify_all();
    }

    /// The oldest item, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.items.lock().pop_front()
    }

    /// The oldest item; waits for one.
    pub fn pop(&self) -> T {
        let mut items = self.items.lock();
        loop {
            if let Some(item) = items.pop_front() {
                return item;
            }
            items = self
                .pushed
                .wait(items)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The oldest item; waits for one until `deadline`.
    pub fn pop_until(&self, deadline: Instant) -> Option<T> {
        let mut items = self.items.lock();
        loop {
            if let Some(item) = items.pop_front() {
                return Some(item);
            }
            let left = deadline.0.checked_sub(Instant::now().0)?;
            if left.is_zero() {
                return None;
            }
            let woken = self.pushed.wait_timeout(items, left);
            items = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A moment: time since the first one that this process asked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        Self(START.get_or_init(std::time::Instant::now).elapsed())
    }

    /// How long after the start.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The moment so long after the start.
    pub fn from_start(duration: Duration) -> Self {
        Self(duration)
    }
}

/// A running thread. Dropping it lets the thread go on.
#[derive(Debug)]
pub struct Thread(JoinHandle<()>);

impl Thread {
    /// Waits until it has ended.
    pub fn join(self) {
        // How it ended has been told where it panicked.
        let _ = self.0.join();
    }
}

/// Starts a thread.
///
/// # Errors
///
/// EAGAIN, ENOMEM.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let spawned = Builder::new().name("memory".into()).spawn(body);
    spawned
        .map(Thread)
        .map_err(|error| Error::new(error.raw_os_error().unwrap_or(EAGAIN)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn soon(milliseconds: u64) -> Instant {
        Instant(Instant::now().0 + Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_queue_keeps_the_order_and_wakes_who_waits() {
        let queue = Arc::new(Queue::new());
        let other = queue.clone();
        let thread = spawn(move || {
            for item in 0..100 {
                other.push(item);
            }
        });
        let popped: Vec<i32> = (0..100).map(|_| queue.pop()).collect();
        assert!(popped.is_sorted());
        thread.unwrap().join();
        assert_eq!(queue.try_pop(), None);
    }

    #[test]
    fn who_waits_until_a_moment_waits_until_then_and_no_longer() {
        let queue = Queue::<u8>::new();
        let deadline = soon(20);
        assert_eq!(queue.pop_until(deadline), None);
        assert!(Instant::now() >= deadline);
        // A moment that is over does not keep an item back.
        queue.push(7);
        assert_eq!(
            queue.pop_until(Instant::from_start(Duration::ZERO)),
            Some(7)
        );
    }

    #[test]
    fn a_panic_under_the_lock_leaves_it_usable() {
        let queue = Arc::new(Mutex::new(1));
        let other = queue.clone();
        let thread = spawn(move || {
            let _guard = other.lock();
            panic!("as the test wants it");
        });
        thread.unwrap().join();
        assert_eq!(*queue.lock(), 1);
    }
}
