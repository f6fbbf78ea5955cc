//! Clients' own pages: registrations, mappings, unmappings, shares, bindings, waiters and
//! cancellations; every set that is out and every page that a GPU finds are what the model says.

mod check;
mod hold;
mod range;
mod register;
mod step;

use std::collections::BTreeSet;

use gem::units::{Gid, Handle, Identity, PageCount, Pid, Uid};
use gem::{Config, Device, Limits, NameMode, Node, OpenId, Sequence};

use crate::nth;
use crate::world::{Gpu, Mood, Shared};

use range::Range;
pub use step::Step;

/// Opens at the start, and at most.
const OPENS: usize = 4;
const MOST_OPENS: usize = 8;
/// Pages and ranges that a user may have.
const MOST_PAGES: u64 = 20;
const MOST_RANGES: u32 = 4;

/// Takes all these steps; closes everything then, and lets the platform finish its work.
///
/// # Panics
///
/// Where the device does not do what the model does.
pub fn run(steps: &[Step]) {
    let mut run = Run::new();
    for _ in 0..OPENS {
        run.open();
    }
    for step in steps {
        run.step(step);
        run.check();
    }
    for open in 0..run.opens.len() {
        run.close_open(open);
        run.check();
    }
    for range in 0..run.ranges.len() {
        run.finish(range, range % 2 == 0);
    }
    run.check();
    assert_eq!(run.device.stats().objects, 0);
    assert_eq!(run.device.accounts().count(), 0);
    run.device.tear_down();
    run.world.0.borrow().assert_empty();
}

/// A request that looked at an open's handle when it meant these pages.
struct Waiter {
    open: usize,
    handle: Handle,
    sequence: Option<Sequence>,
    epoch: u64,
}

struct Run {
    world: Shared,
    device: Device<Shared, Gpu>,
    /// By the model's number; `None` where closed.
    opens: Vec<Option<OpenId>>,
    revoked: BTreeSet<usize>,
    ranges: Vec<Range>,
    waiters: Vec<Waiter>,
}

fn pages(pages: u64) -> PageCount {
    PageCount::new(pages).unwrap()
}

fn pid(open: usize) -> Pid {
    Pid(100 + open as u64)
}

fn uid(open: usize) -> Uid {
    Uid(open as u32 % 2)
}

impl Run {
    fn new() -> Self {
        let world = Shared::default();
        let mut limits = Limits::for_clients(pages(1000));
        limits.user_pages_per_uid = pages(MOST_PAGES);
        limits.user_ranges_per_uid = MOST_RANGES;
        let names = NameMode::Sequential;
        let config = Config { limits, names };
        Self {
            device: Device::new(config, world.clone(), Gpu::new(&world)),
            world,
            opens: Vec::new(),
            revoked: BTreeSet::new(),
            ranges: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn id(&self, open: usize) -> Option<OpenId> {
        self.opens.get(open).copied().flatten()
    }

    fn open(&mut self) {
        if self.opens.iter().flatten().count() < MOST_OPENS {
            let id = self.device.open(Node::Primary).unwrap();
            let open = self.opens.len();
            let (uid, gid, pid) = (uid(open), Gid(0), pid(open));
            self.device.bind(id, Identity { uid, gid, pid }).unwrap();
            self.opens.push(Some(id));
        }
    }

    fn close_open(&mut self, open: usize) {
        if let Some(id) = self.opens.get_mut(open).and_then(Option::take) {
            self.device.close(id);
            self.drop_handles(open, true);
        }
    }

    fn revoke_open(&mut self, open: usize) {
        if let Some(id) = self.id(open) {
            self.device.revoke(id).unwrap();
            self.revoked.insert(open);
            self.drop_handles(open, false);
        }
    }

    /// What becomes of ranges when an open has no handles any more.
    fn drop_handles(&mut self, open: usize, mapped_too: bool) {
        for range in &mut self.ranges {
            range.shares.retain(|(sharer, _)| *sharer != open);
            if range.open == open {
                range.give_back();
                range.registrar = false;
                range.handle = None;
                if mapped_too {
                    range.mapped = 0;
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let number = |open| nth(&self.opens, open);
        let ranges = self.ranges.len();
        // Without ranges there is nothing to do with one.
        let the = |range| usize::from(range) % ranges.max(1);
        match *step {
            Step::Open => self.open(),
            Step::CloseOpen { open } => self.close_open(number(open)),
            Step::RevokeOpen { open } => self.revoke_open(number(open)),
            Step::Begin {
                open,
                start,
                pages,
                read_only,
                mood,
            } => {
                let (start, pages) = (u64::from(start % 4), u64::from(pages % 8).max(1));
                self.begin(number(open), start, pages, read_only, mood);
            }
            Step::Wake { waiter, page } => self.wake(waiter, (page % 64).into()),
            _ if ranges == 0 => {}
            Step::Finish { range, fine } => self.finish(the(range), fine),
            Step::Forget { range } => self.forget(the(range)),
            Step::Claim { range, wrong } => self.claim(the(range), wrong),
            Step::Map { range, wrong } => self.map(the(range), wrong),
            Step::Unmap {
                range,
                skip,
                pages,
                child,
            } => {
                let (skip, pages) = (u64::from(skip % 8), u64::from(pages % 10).max(1));
                self.unmap(the(range), skip, pages, child);
            }
            Step::Fork { range, skip, pages } => {
                self.fork(the(range), (skip % 8).into(), (pages % 10).into());
            }
            Step::CloseHandle { range } => self.close_handle(the(range)),
            Step::Share { range, open } => self.share(the(range), number(open)),
            Step::CloseShare { range } => self.close_share(the(range)),
            Step::Again { range, stranger } => self.again(the(range), stranger),
            Step::Bind {
                range,
                space,
                page,
                mood,
            } => {
                let (range, space, page) = (the(range), u32::from(space % 3), page % 66);
                if let Some(handle) = self.ranges[range].handle {
                    self.bind(range, handle, space, page.into(), None, mood);
                }
            }
            Step::BindShare { range } => self.bind_share(the(range)),
            Step::Unbind { range } => self.unbind(the(range)),
            Step::Wait { range } => self.wait(the(range)),
        }
    }

    /// Calls the device while its platform and driver are in this mood.
    fn moody<T>(&mut self, mood: Mood, call: impl FnOnce(&mut Device<Shared, Gpu>) -> T) -> T {
        self.world.0.borrow_mut().mood = mood;
        let result = call(&mut self.device);
        self.world.0.borrow_mut().mood = Mood::Fine;
        result
    }
}
