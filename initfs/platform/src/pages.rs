//! The page source: books and worker joined.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use gem::pages::{Extents, NotReady, PageRequest, PageSet, PageSource, PlatformError, Ticket};
use gem::units::{PageCount, Uid, WindowAddr};
use gem::user::{Errand, SpaceFd, UserFault, UserRange, UserSet, UserSource};
use syscall::error::Result;

use crate::books::{Books, Found, Span, span_of};
use crate::memory;
use crate::os::{Instant, Thread};
use crate::shared;
use crate::user;
use crate::worker::{self, Link, Notify, Order};

/// Pages from the kernel's memory scheme.
pub struct Pages {
    books: Books,
    link: Arc<Link>,
    /// To be waited for when dropped; not where it may be waiting itself, in a notice.
    worker: Option<Thread>,
    users: user::books::Books,
    /// Where this kernel can do it.
    user_worker: Option<Arc<user::link::Link>>,
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
            user_worker: user::link::Link::start(link.clone()).ok(),
            link,
            worker: Some(worker),
            users: user::books::Books::default(),
        })
    }

    /// How many pages are mapped for clients, used or not.
    pub fn mapped(&self) -> u64 {
        self.books.mapped()
    }

    /// Has `notify` called, from another thread, after each piece of work that is finished. It may
    /// wait there for the thread that calls this one.
    pub fn set_notify(&mut self, notify: Notify) {
        *self.link.notify.lock() = Some(notify);
        self.worker = None;
    }

    /// Adds to `tickets` what was finished since the last call.
    pub fn finished(&mut self, tickets: &mut Vec<Ticket>) {
        self.books.begin_round();
        let now = Instant::now().since_start();
        while let Some(done) = self.link.done.try_pop() {
            tickets.extend(self.books.finish(done, now));
        }
        if let Some(worker) = &self.user_worker {
            while let Some(done) = worker.done.try_pop() {
                tickets.extend(self.users.finish(done));
            }
        }
        self.send();
    }

    fn send(&mut self) {
        for job in self.books.take_jobs() {
            self.link.orders.push(Order::Do(job));
        }
        for job in self.users.take_jobs() {
            // Without a worker no client sends anything.
            if let Some(worker) = &self.user_worker {
                worker.push(job);
            }
        }
    }
}

impl Drop for Pages {
    /// Ends the workers, and waits until they have ended where nobody is notified; and, a while, for
    /// pages that are being taken over to be back with their clients. What is still in use stays
    /// mapped.
    fn drop(&mut self) {
        // It would wait for this thread.
        self.link.is_silent.store(true, Relaxed);
        self.users.abandon_all();
        self.send();
        if let Some(worker) = &self.user_worker {
            worker.end();
        }
        self.link.orders.push(Order::End);
        if let Some(worker) = self.worker.take() {
            worker.join();
        }
    }
}

impl UserSource for Pages {
    fn takes_user_pages(&self) -> bool {
        self.user_worker.is_some()
    }

    fn acquire(
        &mut self,
        owner: Uid,
        space: SpaceFd,
        range: UserRange,
    ) -> core::result::Result<Ticket, UserFault> {
        if self.user_worker.is_none() {
            return Err(UserFault::Unsupported);
        }
        let space = space.into_raw();
        let Some(ticket) = self.users.acquire(owner, space, range) else {
            let close = Errand::new(move || {
                // Whatever it was, it is not ours any more.
                let _ = libredox::call::close(space);
            });
            self.elsewhere(owner, close);
            return Err(UserFault::NoMemory);
        };
        self.send();
        Ok(ticket)
    }

    fn acquired(&mut self, ticket: Ticket) -> Option<core::result::Result<UserSet, UserFault>> {
        self.users.acquired(ticket)
    }

    fn abandon(&mut self, ticket: Ticket) {
        self.users.abandon(ticket);
        self.send();
    }

    fn elsewhere(&mut self, owner: Uid, errand: Errand) {
        self.users.elsewhere(owner, errand);
        self.send();
    }
}

impl PageSource for Pages {
    fn allocate(&mut self, request: PageRequest) -> core::result::Result<PageSet, NotReady> {
        let found = self.books.allocate(&request);
        self.send();
        found.map(|found| match found {
            Found::Clean(set) => set,
            Found::Dirty(set) => {
                // SAFETY: the pages are mapped, and nobody's yet.
                unsafe { memory::clear(span_of(&set)) };
                set
            }
        })
    }

    fn window(&mut self, set: &PageSet) -> core::result::Result<WindowAddr, NotReady> {
        set.expose();
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
        set.expose();
        let target = span_of(set).address() + offset as usize;
        // SAFETY: as in `read`.
        unsafe { shared::write(target, bytes) };
        Ok(())
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        self.books.free(&set);
        self.send();
    }

    fn left(&self) -> Option<PageCount> {
        self.books.left().and_then(PageCount::new)
    }

    fn give_back(&mut self) -> PageCount {
        let pages = self.books.give_back();
        self.send();
        PageCount::new(pages).unwrap_or(PageCount::MAX)
    }

    fn user_window(&mut self, set: &UserSet) -> core::result::Result<WindowAddr, NotReady> {
        let failed = NotReady::Refused(PlatformError::Failed);
        let window = self.users.window(set).ok_or(failed)?;
        WindowAddr::new(window.address()).ok_or(failed)
    }

    fn locate_user(&mut self, set: &UserSet) -> core::result::Result<Extents, NotReady> {
        let located = self.users.locate(set);
        self.send();
        located
    }

    /// Private pages are unmapped here, on the socket's thread, as long as they are few: nobody is
    /// asked for that and nobody waited for (see [`Sharing`](user::grants::Sharing)). Others are the
    /// worker's, because to let go of them can mean to wait.
    fn release_user(&mut self, _: Uid, set: UserSet) -> Option<Ticket> {
        match self.users.release(&set) {
            user::books::Release::Nothing => None,
            user::books::Release::Unmap(window) => {
                let mut left = window.pages;
                while left > 0 {
                    let pages = user::acquire::last_step(window.first, left);
                    left -= pages;
                    let first = window.first + left;
                    // SAFETY: the books have forgotten these pages.
                    unsafe { memory::unmap(Span { first, pages }) };
                }
                self.users.unmapped(window);
                None
            }
            user::books::Release::Wait(ticket) => {
                self.send();
                Some(ticket)
            }
        }
    }
}
