//! The memory worker: a thread that does what would make the socket's thread wait. Jobs are done
//! in turns of a few hundred pages each, one user after the other, so that neither a large one nor
//! many of one user keep others waiting; nor does one program of a user that lets go of much keep
//! another one from getting something.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use gem::fair::FairQueue;
use gem::pages::{Extent, Ticket};
use gem::units::{PageCount, PhysAddr, Uid};
use syscall::error::{EIO, ENOMEM, Result};

use crate::books::{Class, Done, Job, NewArena, Span};
use crate::memory::{self, Memory};
use crate::os::{self, Instant, Mutex, Queue, Thread};

/// Pages to a turn.
const TURN: u64 = 256;

/// Called after something has been done.
pub type Notify = Box<dyn Fn() + Send>;

/// Something to be called later.
pub type Alarm = Box<dyn FnOnce() + Send>;

/// What the owner says to the worker.
pub enum Order {
    /// Do this.
    Do(Job),
    /// Call this when it is so long after the machine's start.
    At(Duration, Alarm),
    /// End, with what is not done yet left undone.
    End,
}

/// What worker and owner share.
pub struct Link {
    /// To do.
    pub orders: Queue<Order>,
    /// Done.
    pub done: Queue<Done>,
    /// Whom to tell.
    pub notify: Mutex<Option<Notify>>,
    /// Nobody is told any more.
    pub is_silent: AtomicBool,
    /// Pages that growths under way have not touched yet.
    pub promised: AtomicU64,
}

impl Link {
    fn report(&self, done: Done) {
        self.done.push(done);
        self.notify();
    }

    /// Tells whoever wants to know that something has been done.
    pub fn notify(&self) {
        if self.is_silent.load(Relaxed) {
            return;
        }
        if let Some(notify) = &*self.notify.lock() {
            notify();
        }
    }

    /// Has the worker, which never waits for anybody, call `alarm` after a while.
    pub fn call_after(&self, delay: Duration, alarm: Alarm) {
        let at = Instant::now().since_start().saturating_add(delay);
        self.orders.push(Order::At(at, alarm));
    }
}

/// Starts the worker.
///
/// # Errors
///
/// ENOMEM, EMFILE.
pub fn start() -> Result<(Arc<Link>, Thread)> {
    let link = Arc::new(Link {
        orders: Queue::new(),
        done: Queue::new(),
        notify: Mutex::new(None),
        is_silent: AtomicBool::new(false),
        promised: AtomicU64::new(0),
    });
    let own = link.clone();
    let thread = os::spawn(move || Worker::new(own).run())?;
    Ok((link, thread))
}

/// Whose turn it is, and for what.
type Turn = (Uid, For);

/// What a turn is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum For {
    /// What somebody waits for.
    Getting,
    /// What somebody let go of.
    LettingGo,
}

/// A job under way.
enum Task {
    Grow(Growth),
    Clear {
        whole: Span,
        left: Span,
        ticket: Ticket,
    },
}

struct Growth {
    class: Class,
    least: u64,
    ticket: Ticket,
    span: Span,
    extents: Vec<Extent>,
    located: u64,
}

struct Worker {
    link: Arc<Link>,
    memory: Memory,
    tasks: FairQueue<Task, Turn>,
    alarm: Option<Duration>,
    alarms: Vec<(Duration, Alarm)>,
}

impl Worker {
    fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            memory: Memory::default(),
            tasks: FairQueue::new(),
            alarm: None,
            alarms: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            while let Some(order) = self.next_order() {
                match order {
                    Order::Do(job) => self.begin(job),
                    Order::At(at, alarm) => self.alarms.push((at, alarm)),
                    Order::End => return,
                }
            }
            self.ring();
            if let Some((turn, task)) = self.tasks.pop() {
                self.turn(turn, task);
            }
        }
    }

    /// The next order; waits for one where there is nothing else to do. `None` when it is time
    /// for the next turn or the alarm.
    fn next_order(&self) -> Option<Order> {
        let orders = &self.link.orders;
        let alarms = self.alarms.iter().map(|&(at, _)| at);
        match alarms.chain(self.alarm).min() {
            _ if !self.tasks.is_empty() => orders.try_pop(),
            Some(alarm) => orders.pop_until(Instant::from_start(alarm)),
            None => Some(orders.pop()),
        }
    }

    fn ring(&mut self) {
        let now = Instant::now().since_start();
        if self.alarm.take_if(|alarm| *alarm <= now).is_some() {
            self.look();
            self.link.report(Done::Awake);
        }
        while let Some(due) = self.alarms.iter().position(|&(at, _)| at <= now) {
            let (_, alarm) = self.alarms.swap_remove(due);
            alarm();
        }
    }

    /// Adds to the next report what the machine has left that can be had.
    fn look(&mut self) {
        if let Ok(free) = self.memory.free_pages() {
            let left = free.saturating_sub(self.link.promised.load(Relaxed));
            self.link.done.push(Done::Left(left));
        }
    }

    fn begin(&mut self, job: Job) {
        match job {
            Job::WakeAt(at) => self.alarm = Some(at),
            // SAFETY: the books have forgotten these pages.
            Job::Unmap(span) => unsafe { memory::unmap(span) },
            Job::Clear {
                owner,
                span,
                ticket,
            } => {
                let task = Task::Clear {
                    whole: span,
                    left: span,
                    ticket,
                };
                self.tasks.push((owner, For::LettingGo), task);
            }
            Job::Grow {
                class,
                pages,
                least,
                ticket,
            } => match self.map(class, pages, least) {
                Ok(span) => {
                    self.link.promised.fetch_add(span.pages, Relaxed);
                    let growth = Growth {
                        class,
                        least,
                        ticket,
                        span,
                        extents: Vec::new(),
                        located: 0,
                    };
                    let turn = (class.owner(), For::Getting);
                    self.tasks.push(turn, Task::Grow(growth));
                }
                Err(errno) => {
                    self.look();
                    self.link.report(Done::Grown {
                        class,
                        least,
                        ticket,
                        arena: Err(errno),
                    });
                }
            },
        }
    }

    /// As many pages as asked for, or at least as many as needed.
    fn map(&mut self, class: Class, pages: u64, least: u64) -> core::result::Result<Span, i32> {
        let free = self.memory.free_pages().map_err(|error| error.errno())?;
        let free = free.saturating_sub(self.link.promised.load(Relaxed));
        let size = if pages <= free { pages } else { least };
        if size > free {
            return Err(ENOMEM);
        }
        match self.memory.map(class.kind(), size) {
            Err(error) if error.errno() == ENOMEM && size > least => {
                self.memory.map(class.kind(), least)
            }
            mapped => mapped,
        }
        .map_err(|error| error.errno())
    }

    fn turn(&mut self, turn: Turn, task: Task) {
        match task {
            Task::Clear {
                whole,
                mut left,
                ticket,
            } => {
                // SAFETY: the pages are the worker's until it reports them cleared.
                unsafe { memory::clear(next_turn(&mut left)) };
                if left.pages > 0 {
                    let task = Task::Clear {
                        whole,
                        left,
                        ticket,
                    };
                    self.tasks.push(turn, task);
                } else {
                    self.link.report(Done::Cleared {
                        span: whole,
                        ticket,
                    });
                }
            }
            Task::Grow(mut growth) => {
                let turned = growth.turn(&mut self.memory);
                let touched = turned.as_ref().copied().unwrap_or(0);
                self.link.promised.fetch_sub(touched, Relaxed);
                match turned {
                    Ok(_) if growth.located < growth.span.pages => {
                        self.tasks.push(turn, Task::Grow(growth));
                    }
                    Ok(_) => self.grown(growth, None),
                    Err(errno) => {
                        let untouched = growth.span.pages - growth.located;
                        self.link.promised.fetch_sub(untouched, Relaxed);
                        self.grown(growth, Some(errno));
                    }
                }
            }
        }
    }

    fn grown(&mut self, growth: Growth, errno: Option<i32>) {
        let arena = match errno {
            None => Ok(NewArena {
                span: growth.span,
                extents: growth.extents,
            }),
            Some(errno) => {
                // SAFETY: nobody has heard of these pages.
                unsafe { memory::unmap(growth.span) };
                Err(errno)
            }
        };
        self.look();
        self.link.report(Done::Grown {
            class: growth.class,
            least: growth.least,
            ticket: growth.ticket,
            arena,
        });
    }
}

impl Growth {
    /// Gives the next pages memory of their own and finds out where it is; how many.
    fn turn(&mut self, memory: &mut Memory) -> core::result::Result<u64, i32> {
        let mut left = Span {
            first: self.span.first + self.located,
            pages: self.span.pages - self.located,
        };
        let now = next_turn(&mut left);
        // SAFETY: mapped by the worker, and nobody has heard of these pages.
        unsafe { memory::clear(now) };
        for page in now.first..now.first + now.pages {
            let address = memory.locate(page).map_err(|error| error.errno())?;
            append(&mut self.extents, address).ok_or(EIO)?;
        }
        if self.class.kind().is_contiguous() && self.extents.len() > 1 {
            return Err(EIO);
        }
        self.located += now.pages;
        Ok(now.pages)
    }
}

/// Takes a turn's pages off the front.
pub fn next_turn(left: &mut Span) -> Span {
    let pages = left.pages.min(TURN);
    let turn = Span {
        first: left.first,
        pages,
    };
    left.first += pages;
    left.pages -= pages;
    turn
}

/// Adds a page to the last run if it follows it, else as a new run.
pub fn append(extents: &mut Vec<Extent>, address: PhysAddr) -> Option<()> {
    let one = PageCount::new(1)?;
    if let Some(last) = extents.last_mut()
        && last.start.checked_add(last.pages) == Some(address)
    {
        last.pages = last.pages.checked_add(one)?;
        return Some(());
    }
    extents.push(Extent {
        start: address,
        pages: one,
    });
    Some(())
}
