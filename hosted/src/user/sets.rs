//! A daemon's side of clients' ranges: acquisitions under way, and the sets that came of them.
//!
//! What takes time is done by a thread of its own, fair between users: making a range's writers
//! wait, undoing that, giving memory back. Nothing here waits for a client.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use gem::pages::Ticket;
use gem::units::{Uid, WindowAddr};
use gem::user::{UserFault, UserRange};

use super::uffd::Span;
use super::watch::{Range, Watch};
use crate::kernel::Space;
use crate::memfd::{self, Memfd, Window};
use crate::pages::Notify;
use crate::work::Work;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Take a range over.
    Take {
        ticket: Ticket,
        owner: Uid,
        watch: Arc<Watch>,
        span: Span,
    },
    /// Give a range up, and say so if somebody wants to know.
    GiveUp {
        range: Arc<Range>,
        ticket: Option<Ticket>,
    },
    /// Say that nothing is left of this.
    Tell(Ticket),
    /// Give the memory of a range back that is no more.
    Empty {
        memory: Arc<Memfd>,
        offset: u64,
        bytes: u64,
    },
}

enum Done {
    Taken(Ticket, Result<Arc<Range>, UserFault>),
    GivenUp(Ticket),
}

/// An acquisition that nobody has fetched the outcome of.
enum Pending {
    Working,
    /// And nobody will.
    Abandoned,
    Over(Result<Arc<Range>, UserFault>),
}

/// See the module.
pub(crate) struct UserSets {
    work: Arc<Work<Job>>,
    done: Receiver<Done>,
    /// By ticket, with whose it is.
    pending: HashMap<Ticket, (Uid, Pending)>,
    sets: HashMap<u64, (WindowAddr, Arc<Range>)>,
}

impl UserSets {
    /// Starts the thread, which calls what `notify` holds after each thing that is done.
    pub(crate) fn new(notify: Arc<Mutex<Option<Notify>>>) -> io::Result<Self> {
        let work = Arc::new(Work::new());
        let (finished, done) = channel();
        let to_do = work.clone();
        thread::Builder::new()
            .name("user ranges".to_owned())
            .spawn(move || run(&to_do, &finished, &notify))?;
        Ok(Self {
            work,
            done,
            pending: HashMap::new(),
            sets: HashMap::new(),
        })
    }

    /// Begins to take over `range` of the address space that the daemon has as file `space`.
    pub(crate) fn acquire(
        &mut self,
        owner: Uid,
        space: usize,
        range: UserRange,
        ticket: Ticket,
    ) -> Result<(), UserFault> {
        let space = crate::kernel::installed().and_then(|kernel| kernel.take_space(space));
        let watch = match space.ok_or(UserFault::NotASpace)? {
            Space::Of(watch) => watch,
            Space::NotTheSenders => return Err(UserFault::Foreign),
        };
        self.pending.insert(ticket, (owner, Pending::Working));
        let span = Span::from(range);
        self.work.push(
            owner,
            Job::Take {
                ticket,
                owner,
                watch,
                span,
            },
        );
        Ok(())
    }

    /// The outcome of an acquisition, once.
    pub(crate) fn acquired(&mut self, ticket: Ticket) -> Option<Result<Arc<Range>, UserFault>> {
        match self.pending.remove(&ticket)? {
            (_, Pending::Over(outcome)) => Some(outcome),
            other => {
                self.pending.insert(ticket, other);
                None
            }
        }
    }

    /// Nobody will ask for the outcome.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        match self.pending.remove(&ticket) {
            Some((owner, Pending::Over(outcome))) => self.undo(owner, ticket, outcome),
            Some((owner, _)) => {
                self.pending.insert(ticket, (owner, Pending::Abandoned));
            }
            None => {}
        }
    }

    fn undo(&self, owner: Uid, ticket: Ticket, outcome: Result<Arc<Range>, UserFault>) {
        let job = match outcome {
            Ok(range) => Job::GiveUp {
                range,
                ticket: Some(ticket),
            },
            Err(_) => Job::Tell(ticket),
        };
        self.work.push(owner, job);
    }

    /// Gives a range up that cannot become a set.
    pub(crate) fn refuse(&self, range: Arc<Range>) {
        let (owner, ticket) = (range.owner(), None);
        self.work.push(owner, Job::GiveUp { range, ticket });
    }

    /// Lets a range be mapped by its client, as the set `key`, at `window`.
    pub(crate) fn publish(&mut self, key: u64, window: WindowAddr, range: Arc<Range>) {
        memfd::publish(window, Window::User(range.clone()));
        self.sets.insert(key, (window, range));
    }

    /// Where set `key` is.
    pub(crate) fn window(&self, key: u64) -> Option<WindowAddr> {
        self.sets.get(&key).map(|(window, _)| *window)
    }

    /// The daemon has no more use for set `key`. What its client maps it keeps.
    pub(crate) fn release(&mut self, owner: Uid, key: u64) {
        if let Some((window, range)) = self.sets.remove(&key) {
            memfd::withdraw(window);
            let ticket = None;
            self.work.push(owner, Job::GiveUp { range, ticket });
        }
    }

    /// Adds to `tickets` what was done since the last call.
    pub(crate) fn finished(&mut self, tickets: &mut Vec<Ticket>) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                Done::GivenUp(ticket) => tickets.push(ticket),
                Done::Taken(ticket, outcome) => match self.pending.remove(&ticket) {
                    Some((owner, Pending::Working)) => {
                        let over = Pending::Over(outcome);
                        self.pending.insert(ticket, (owner, over));
                        tickets.push(ticket);
                    }
                    Some((owner, _)) => self.undo(owner, ticket, outcome),
                    // Each ticket is worked on once.
                    None => {}
                },
            }
        }
    }
}

impl Drop for UserSets {
    fn drop(&mut self) {
        self.work.close();
        for (window, _) in self.sets.values() {
            memfd::withdraw(*window);
        }
    }
}

/// Works until the sets are gone.
fn run(to_do: &Arc<Work<Job>>, finished: &Sender<Done>, notify: &Mutex<Option<Notify>>) {
    while let Some(job) = to_do.pop() {
        let done = match job {
            Job::Take {
                ticket,
                owner,
                watch,
                span,
            } => Done::Taken(ticket, watch.take(span, (to_do.clone(), owner))),
            Job::GiveUp { range, ticket } => {
                range.give_up();
                match ticket {
                    Some(ticket) => Done::GivenUp(ticket),
                    None => continue,
                }
            }
            Job::Tell(ticket) => Done::GivenUp(ticket),
            Job::Empty {
                memory,
                offset,
                bytes,
            } => {
                // Where it cannot be emptied it is still nobody else's, and ends with its client.
                let _ = memory.empty(offset, bytes);
                continue;
            }
        };
        if finished.send(done).is_err() {
            return;
        }
        if let Some(notify) = &*notify.lock().unwrap_or_else(PoisonError::into_inner) {
            notify();
        }
    }
}
