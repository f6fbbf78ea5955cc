//! Which handles of a node are in use by how many [`Buffer`](crate::Buffer)s.
//!
//! Importing an object that this node holds gives the handle that it has: two buffers, one
//! handle. The server closes a handle once, so the last buffer closes it. Only an import is made
//! under the lock: no other call brings a handle that a buffer already has.

use alloc::collections::BTreeMap;

#[cfg(not(feature = "std"))]
use spin::Mutex;
#[cfg(feature = "std")]
use std::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<BTreeMap<u32, usize>>);

impl Handles {
    /// Counts the first buffer with a handle that a call has just made.
    pub(crate) fn add(&self, handle: u32) {
        self.locked(|handles| *handles.entry(handle).or_default() += 1);
    }

    /// Counts one more buffer with the handle that `import` brings. It runs under the lock of
    /// [`Handles::release`]: a handle that it brings again is not closed meanwhile.
    pub(crate) fn import<E>(
        &self,
        import: impl FnOnce() -> Result<(u32, u32), E>,
    ) -> Result<(u32, u32), E> {
        self.locked(|handles| {
            let (handle, pages) = import()?;
            *handles.entry(handle).or_default() += 1;
            Ok((handle, pages))
        })
    }

    /// Counts one buffer less, and closes the handle with `call` if that was the last.
    pub(crate) fn release<E>(
        &self,
        handle: u32,
        call: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.locked(|handles| match handles.get_mut(&handle) {
            Some(count) if *count > 1 => {
                *count -= 1;
                Ok(())
            }
            _ => {
                handles.remove(&handle);
                call()
            }
        })
    }

    fn locked<T>(&self, change: impl FnOnce(&mut BTreeMap<u32, usize>) -> T) -> T {
        #[cfg(feature = "std")]
        let mut handles = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        #[cfg(not(feature = "std"))]
        let mut handles = self.0.lock();
        change(&mut handles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn a_handle_is_closed_with_its_last_buffer() {
        let handles = Handles::default();
        let closed = Cell::new(0);
        let close = || {
            closed.set(closed.get() + 1);
            Ok::<_, ()>(())
        };
        handles.add(7);
        handles.import(|| Ok::<_, ()>((7, 1))).unwrap();
        handles.release(7, close).unwrap();
        assert_eq!(closed.get(), 0);
        handles.release(7, close).unwrap();
        assert_eq!(closed.get(), 1);
    }

    #[test]
    fn an_import_that_fails_counts_nothing() {
        let handles = Handles::default();
        handles.add(7);
        assert_eq!(handles.import(|| Err(())), Err(()));
        let mut closed = false;
        let close = || {
            closed = true;
            Ok::<_, ()>(())
        };
        handles.release(7, close).unwrap();
        assert!(closed);
    }
}
