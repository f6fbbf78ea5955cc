//! Locks and queues between the threads of a process, over the kernel's futexes.
//!
//! Made for few threads that seldom meet: no fairness, no poisoning. Locks wait as long as it
//! takes; events and queues also until a moment. Nothing here allocates but a queue for what is
//! put into it.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU32, Ordering};

use lock_api::{GuardSend, RawMutex};
use syscall::flag::{FUTEX_WAIT, FUTEX_WAKE};

use crate::time::Instant;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody waits.
const CONTENDED: u32 = 2;

/// A mutex of one word that waits in the kernel (Drepper's "Futexes Are Tricky", mutex 2).
#[derive(Debug)]
pub struct RawFutex(AtomicU32);

// SAFETY: whoever makes the word go from free to held, with acquire ordering, has the lock until
// it releases it; everybody else waits or fails.
unsafe impl RawMutex for RawFutex {
    // The constant is how `lock_api` initialises; each use makes a lock of its own.
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicU32::new(FREE));

    type GuardMarker = GuardSend;

    fn lock(&self) {
        if self.try_lock() {
            return;
        }
        while self.0.swap(CONTENDED, Ordering::Acquire) != FREE {
            futex_wait(&self.0, CONTENDED, None);
        }
    }

    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == CONTENDED {
            futex_wake(&self.0);
        }
    }
}

/// A mutex whose waiters sleep in the kernel.
pub type Mutex<T> = lock_api::Mutex<RawFutex, T>;

/// A flag that is set once and that threads can wait for.
#[derive(Debug, Default)]
pub struct Event(AtomicU32);

impl Event {
    /// Not set.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Sets it and wakes everybody.
    pub fn set(&self) {
        self.0.store(1, Ordering::Release);
        futex_wake(&self.0);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Waits until it is set.
    pub fn wait(&self) {
        while !self.is_set() {
            futex_wait(&self.0, 0, None);
        }
    }

    /// Waits until it is set, or until `deadline`; whether it is set.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        while !self.is_set() {
            if Instant::now() >= deadline {
                return false;
            }
            futex_wait(&self.0, 0, Some(deadline));
        }
        true
    }
}

/// A queue without bound between threads.
#[derive(Debug)]
pub struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    /// Counts what was ever pushed, so that a push between a look and a sleep is noticed.
    pushed: AtomicU32,
    /// How many sleep, or are about to: who pushes for nobody need not ask the kernel.
    sleepers: AtomicU32,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            items: Mutex::new(VecDeque::new()),
            pushed: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
        }
    }

    /// Adds an item.
    pub fn push(&self, item: T) {
        self.items.lock().push_back(item);
        // Before the look: whoever is not seen there has not slept yet, and sees this.
        self.pushed.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            futex_wake(&self.pushed);
        }
    }

    /// The oldest item, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.items.lock().pop_front()
    }

    /// The oldest item; waits for one.
    pub fn pop(&self) -> T {
        loop {
            let seen = self.pushed.load(Ordering::Acquire);
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.sleep(seen, None);
        }
    }

    /// Sleeps unless something was pushed since `seen`.
    fn sleep(&self, seen: u32, deadline: Option<Instant>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        futex_wait(&self.pushed, seen, deadline);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// The oldest item; waits for one until `deadline`.
    pub fn pop_until(&self, deadline: Instant) -> Option<T> {
        loop {
            let seen = self.pushed.load(Ordering::Acquire);
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            if Instant::now() >= deadline {
                return None;
            }
            self.sleep(seen, Some(deadline));
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Sleeps while the word is `expected`, at most until `deadline`; may wake without reason.
fn futex_wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) {
    let address = word.as_ptr().cast::<i32>();
    let deadline = deadline.map(Instant::to_time_spec);
    let deadline = deadline
        .as_ref()
        .map_or(0, |time| core::ptr::from_ref(time) as usize);
    let unused = core::ptr::null_mut();
    // SAFETY: word and deadline outlive the call; the kernel reads them only. An error (the word
    // has changed, an interrupt, time is up) is a wake-up, and every caller looks again.
    let _ = unsafe { syscall::futex(address, FUTEX_WAIT, expected as i32, deadline, unused) };
}

/// Wakes everybody who waits on the word, and no fewer: the kernel keeps waiters in its list whose
/// time has run out or whose thread has ended, and each of those would use up a wake-up (kernel:
/// `src/syscall/futex.rs`).
fn futex_wake(word: &AtomicU32) {
    let (address, unused) = (word.as_ptr().cast::<i32>(), core::ptr::null_mut());
    // SAFETY: the kernel uses the address as a key and does not write there. Waking fails only
    // for an address that is not mapped.
    let _ = unsafe { syscall::futex(address, FUTEX_WAKE, i32::MAX, 0, unused) };
}
