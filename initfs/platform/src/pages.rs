//! The page source: books and worker joined.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use gem::pages::{NotReady, PageRequest, PageSet, PageSource, PlatformError, Ticket};
use gem::units::{Uid, WindowAddr};
use syscall::error::Result;

use crate::books::{Books, span_of};
use crate::os::{Instant, Thread};
use crate::shared;
use crate::worker::{self, Link, Notify, Order};

/// Pages from the kernel's memory scheme.
pub struct Pages {
    books: Books,
    link: Arc<Link>,
    /// There until dropped.
    worker: Option<Thread>,
}

impl Pages {
    /// Starts the worker. Arenas of which nothing has been used for `idle_for` go back to the
    /// kernel.
    ///
    /// # Errors
    ///
    /// ENOMEM, EMFILE.
    pub fn new(idle_for: Duration) -> Result<Self> {
        let (link, worker) = worker::start()?;
        Ok(Self {
            books: Books::new(idle_for),
            link,
            worker: Some(worker),
        })
    }

    /// How many pages are mapped for clients, used or not.
    pub fn mapped(&self) -> u64 {
        self.books.mapped()
    }

    /// Has `notify` called, from another thread, after each piece of work that is finished.
    pub fn set_notify(&mut self, notify: Notify) {
        *self.link.notify.lock() = Some(notify);
    }

    /// Adds to `tickets` what was finished since the last call.
    pub fn finished(&mut self, tickets: &mut Vec<Ticket>) {
        self.books.begin_round();
        let now = Instant::now().since_start();
        while let Some(done) = self.link.done.try_pop() {
            tickets.extend(self.books.finish(done, now));
        }
        self.send();
    }

    fn send(&mut self) {
        for job in self.books.take_jobs() {
            self.link.orders.push(Order::Do(job));
        }
    }
}

impl Drop for Pages {
    /// Ends the worker, after what has been given back has reached the kernel. What is still in
    /// use stays mapped.
    fn drop(&mut self) {
        self.link.orders.push(Order::End);
        if let Some(worker) = self.worker.take() {
            worker.join();
        }
    }
}

impl PageSource for Pages {
    fn allocate(&mut self, request: PageRequest) -> core::result::Result<PageSet, NotReady> {
        let set = self.books.allocate(&request);
        self.send();
        set
    }

    fn window(&mut self, set: &PageSet) -> core::result::Result<WindowAddr, NotReady> {
        WindowAddr::new(span_of(set).address()).ok_or(NotReady::Refused(PlatformError::Failed))
    }

    fn read(
        &mut self,
        set: &PageSet,
        offset: u64,
        bytes: &mut [u8],
    ) -> core::result::Result<(), NotReady> {
        let source = span_of(set).address() + offset as usize;
        // SAFETY: the set's pages stay mapped until it is freed, and the caller has checked the
        // range.
        unsafe { shared::read(source, bytes) };
        Ok(())
    }

    fn write(
        &mut self,
        set: &PageSet,
        offset: u64,
        bytes: &[u8],
    ) -> core::result::Result<(), NotReady> {
        let target = span_of(set).address() + offset as usize;
        // SAFETY: as in `read`.
        unsafe { shared::write(target, bytes) };
        Ok(())
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        self.books.free(&set);
        self.send();
    }
}
