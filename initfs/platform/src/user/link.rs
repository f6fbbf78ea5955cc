//! Whose turn it is: what the threads for clients' pages and their owner share.
//!
//! Closing an address space can wait for a scheme that does not answer. So such a step is watched,
//! by the memory worker, which never waits for anybody; and where others wait and it takes too
//! long, another thread goes on with their work. The lost one finishes what it was at when it comes
//! back, if ever. A user with too many lost threads waits for them; nobody else does.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use gem::fair::FairQueue;
use gem::units::Uid;
use syscall::error::Result;

use super::books::{Done, Job};
use super::machine::Machine;
use super::worker::{Task, Worker};
use crate::os::{self, Instant, Mutex, Queue, Thread};
use crate::worker;

/// How long a step may keep others waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many threads that do not come back, and the user's jobs wait for one of them.
const LOST_PER_USER: usize = 4;

/// What the threads and the owner share.
pub struct Link {
    state: Mutex<State>,
    /// A token whenever there is something new.
    wake: Queue<()>,
    /// A token when there is nothing to do any more.
    ended: Queue<()>,
    /// What has been done.
    pub done: Queue<Done>,
    /// The memory worker.
    pages: Arc<worker::Link>,
}

#[derive(Default)]
struct State {
    tasks: FairQueue<Task>,
    /// The number of the thread that works.
    current: u64,
    thread: Option<Thread>,
    /// What it is at, where that may take for ever.
    step: Option<Step>,
    steps: u64,
    lost: BTreeMap<Uid, Lost>,
    ends: bool,
}

struct Step {
    owner: Uid,
    number: u64,
    is_watched: bool,
}

/// Threads that have not come back from a step for a user, and what waits for them.
#[derive(Default)]
struct Lost {
    threads: usize,
    waiting: Vec<Task>,
}

impl Link {
    /// Starts the first thread.
    ///
    /// # Errors
    ///
    /// ENOMEM, EMFILE; ENOSYS where this kernel does not allow it.
    pub fn start(pages: Arc<worker::Link>) -> Result<Arc<Self>> {
        let link = Arc::new(Self {
            state: Mutex::new(State::default()),
            wake: Queue::new(),
            ended: Queue::new(),
            done: Queue::new(),
            pages,
        });
        link.start_thread()?;
        Ok(link)
    }

    fn start_thread(self: &Arc<Self>) -> Result<()> {
        let machine = Machine::new(self.pages.clone())?;
        let worker = Worker {
            link: self.clone(),
            number: self.state.lock().current,
            machine,
        };
        let thread = os::spawn(move || worker.run())?;
        self.state.lock().thread = Some(thread);
        Ok(())
    }

    /// Gives it something to do.
    pub fn push(self: &Arc<Self>, job: Job) {
        let (owner, task) = Task::new(job);
        let mut state = self.state.lock();
        state.tasks.push(owner, task);
        self.watch(&mut state);
        drop(state);
        self.wake.push(());
    }

    /// Ends it when there is nothing to do any more; waits for that a while.
    pub fn end(&self) {
        self.state.lock().ends = true;
        self.wake.push(());
        let deadline = Instant::from_start(Instant::now().since_start() + PATIENCE);
        if self.ended.pop_until(deadline).is_some()
            && let Some(thread) = self.state.lock().thread.take()
        {
            thread.join();
        }
    }

    /// Tells the owner.
    pub fn report(&self, done: Done) {
        self.done.push(done);
        self.pages.notify();
    }

    /// What is to be done next by the thread of this number; `None` where it is not needed.
    pub fn next(&self, number: u64) -> Option<(Uid, Task)> {
        loop {
            let mut state = self.state.lock();
            if state.current != number {
                return None;
            }
            while let Some((owner, task)) = state.tasks.pop() {
                match state.lost.get_mut(&owner) {
                    Some(lost) if lost.threads >= LOST_PER_USER => lost.waiting.push(task),
                    _ => return Some((owner, task)),
                }
            }
            if state.ends {
                self.ended.push(());
                return None;
            }
            drop(state);
            self.wake.pop();
        }
    }

    /// Takes the rest of a task, which gets its turn again after others.
    pub fn put_back(&self, owner: Uid, rest: Task) {
        self.state.lock().tasks.push(owner, rest);
        self.wake.push(());
    }

    /// Begins a step that may take for ever.
    pub fn begin_step(self: &Arc<Self>, owner: Uid) {
        let mut state = self.state.lock();
        state.steps += 1;
        state.step = Some(Step {
            owner,
            number: state.steps,
            is_watched: false,
        });
        self.watch(&mut state);
    }

    /// Ends it, for the thread of this number, which may be a lost one.
    pub fn end_step(&self, owner: Uid, number: u64) {
        let mut state = self.state.lock();
        if state.current == number {
            state.step = None;
            return;
        }
        if let Some(lost) = state.lost.get_mut(&owner) {
            lost.threads -= 1;
            let waiting = core::mem::take(&mut lost.waiting);
            if lost.threads == 0 {
                state.lost.remove(&owner);
            }
            for task in waiting {
                state.tasks.push(owner, task);
            }
        }
        drop(state);
        self.wake.push(());
    }

    /// Has somebody look after the step under way, if others wait for it.
    fn watch(self: &Arc<Self>, state: &mut State) {
        if let Some(step) = &mut state.step
            && !step.is_watched
            && !state.tasks.is_empty()
        {
            step.is_watched = true;
            let (link, number) = (self.clone(), step.number);
            self.pages
                .call_after(PATIENCE, Box::new(move || link.look(number)));
        }
    }

    /// Looks whether the step of this number still is under way; if so, others wait no longer.
    fn look(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        if let Some(step) = state.step.take_if(|step| step.number == number) {
            state.lost.entry(step.owner).or_default().threads += 1;
            state.current += 1;
            // Its thread is not waited for.
            drop(state.thread.take());
            drop(state);
            self.replace();
        }
    }

    /// Starts a thread in place of a lost one, now or when that can be done.
    fn replace(self: &Arc<Self>) {
        if self.start_thread().is_err() {
            let link = self.clone();
            self.pages
                .call_after(PATIENCE, Box::new(move || link.replace()));
        }
    }
}
