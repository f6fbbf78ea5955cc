//! Buffers and who shares them: several opens of several users.
//!
//! [`run`] takes steps with a device and with the model. Of what comes to be in one step, the model
//! does not say which was first.

mod check;
mod fds;
mod handles;
mod maps;
mod memory;
mod opens;
mod step;
mod thing;
mod witness;

use std::collections::BTreeSet;

use gem::units::{FakeOffset, Name, PageCount};
use gem::{Config, Device, Error, Limits, NameMode, ObjectId, OpenId, Pressure};

use crate::nth;
use crate::world::{Gpu, Mood, Shared};

pub use step::Step;
use thing::{ObjectFile, Thing};
pub use witness::{Call, Witness, objects, sized};

/// Users that there are.
const USERS: u32 = 3;

/// Takes all these steps, and then ends everything.
///
/// # Panics
///
/// Where the device does not do what the model does.
pub fn run(steps: &[Step]) {
    Run::new(config(), None).run(steps);
}

/// The same, while somebody takes the same steps elsewhere, where no driver fails.
///
/// # Panics
///
/// As [`run`].
pub fn run_beside(steps: &[Step], witness: &mut dyn Witness) {
    Run::new(config(), Some(witness)).run(steps);
}

/// Of the device: limits that few steps reach.
pub fn config() -> Config {
    let mut limits = Limits::for_clients(PageCount::new(40).unwrap());
    limits.handles_per_open = 5;
    limits.handles_per_uid = 8;
    limits.objects_per_uid = 6;
    limits.opens_per_uid = 3;
    limits.object_fds_per_uid = 4;
    limits.object_fds_per_open = 3;
    limits.mapped_per_uid = PageCount::new(40).unwrap();
    limits.mapped_objects_per_uid = 3;
    limits.names_per_uid = 3;
    limits.offsets_per_uid = 3;
    limits.offset_space = PageCount::new(30).unwrap();
    limits.keep_free = PageCount::new(16).unwrap();
    Config {
        limits,
        names: NameMode::Random { seed: [3; 16] },
    }
}

struct Run<'a> {
    witness: Option<&'a mut dyn Witness>,
    world: Shared,
    device: Device<Shared, Gpu>,
    limits: Limits,
    /// By the model's number; `None` where closed.
    opens: Vec<Option<(OpenId, u32)>>,
    revoked: BTreeSet<usize>,
    fds: Vec<Option<ObjectFile>>,
    things: Vec<Thing>,
    names: Vec<Name>,
    offsets: Vec<FakeOffset>,
    /// What is at work, on which objects by number.
    uses: Vec<(ObjectId, u64)>,
    /// How many steps there were.
    time: usize,
    /// How short memory is.
    pressure: Pressure,
    /// Pages purged so far.
    lost: u64,
}

impl<'a> Run<'a> {
    fn new(config: Config, witness: Option<&'a mut dyn Witness>) -> Self {
        let world = Shared::default();
        Self {
            limits: config.limits,
            device: Device::new(config, world.clone(), Gpu::new(&world)),
            world,
            witness,
            opens: Vec::new(),
            revoked: BTreeSet::new(),
            fds: Vec::new(),
            things: Vec::new(),
            names: Vec::new(),
            offsets: Vec::new(),
            uses: Vec::new(),
            time: 0,
            pressure: Pressure::Eased,
            lost: 0,
        }
    }

    fn run(mut self, steps: &[Step]) {
        for user in 0..USERS {
            self.open(user);
        }
        for step in steps {
            self.time += 1;
            self.step(step);
            self.recount_users();
            self.date();
            self.compare();
            if let Some(witness) = &mut self.witness {
                witness.stepped(&self.device);
            }
        }
        self.end();
    }

    fn step(&mut self, step: &Step) {
        let number = |open| nth(&self.opens, open);
        let file = |fd| nth(&self.fds, fd);
        let raw = |handle| u32::from(handle % 9);
        let few = |pages| u64::from(pages % 13);
        match *step {
            Step::Open { user } => self.open(u32::from(user) % USERS),
            Step::CloseOpen { open } => self.close_open(number(open)),
            Step::Die { open } => self.die(number(open)),
            Step::Create { open, size, mood } => {
                let size = match size {
                    u16::MAX => u64::MAX,
                    size if size == u16::MAX - 1 => 1 << 20,
                    size => size.into(),
                };
                self.create(number(open), size, self.possible(mood));
            }
            Step::Close { open, handle } => self.close(number(open), raw(handle)),
            Step::Flink { open, handle } => self.flink(number(open), raw(handle)),
            Step::OpenName { open, name, mood } => {
                self.open_name(number(open), name, self.possible(mood))
            }
            Step::Export {
                open,
                handle,
                write,
            } => self.export(number(open), raw(handle), write),
            Step::ExportName { open, name, write } => self.export_name(number(open), name, write),
            Step::Import { open, fd, mood } => {
                self.import(number(open), file(fd), self.possible(mood))
            }
            Step::CloseFd { fd } => self.close_fd(file(fd)),
            Step::Offset { open, handle } => self.offset(number(open), raw(handle)),
            Step::Map {
                open,
                offset,
                pages,
                mood,
            } => self.map(number(open), offset, few(pages), self.possible(mood)),
            Step::MapAgain {
                open,
                offset,
                skip,
                pages,
            } => self.map_again(number(open), offset, few(skip), few(pages)),
            Step::Unmap {
                open,
                offset,
                skip,
                pages,
            } => self.unmap(number(open), offset, few(skip), few(pages)),
            Step::MapFd {
                fd,
                skip,
                pages,
                write,
                mood,
            } => self.map_fd(file(fd), few(skip), few(pages), write, self.possible(mood)),
            Step::UnmapFd { fd, pages } => self.unmap_fd(file(fd), few(pages)),
            Step::Revoke { open } => self.revoke(number(open)),
            Step::Advise {
                open,
                handle,
                unneeded,
            } => self.advise(number(open), raw(handle), unneeded),
            Step::BeginUse { open, handle } => self.begin_use(number(open), raw(handle)),
            Step::EndUse { work } => self.end_use(work),
            Step::Left { pages } => {
                let left = pages.map(u64::from);
                self.world.0.borrow_mut().left = left;
                assert_eq!(self.device.relieve(), Ok(()));
                self.tell(Call::Left(left));
                self.relieve();
            }
            Step::Limit { which, value } => self.limit(which, value),
        }
    }

    /// Drivers do not fail where a witness has none.
    fn possible(&self, mood: Mood) -> Mood {
        match mood {
            Mood::HandleFails | Mood::InitFails if self.witness.is_some() => Mood::Fine,
            mood => mood,
        }
    }

    /// Tells the witness of a call.
    fn saw(&mut self, call: Call, mood: Mood, outcome: Result<u64, Error>) {
        if let Some(witness) = &mut self.witness {
            witness.saw(call, mood, outcome);
        }
    }

    /// The same, of one that cannot fail.
    fn tell(&mut self, call: Call) {
        self.saw(call, Mood::Fine, Ok(0));
    }

    /// Makes a call while the platform and the driver are in this mood; `number` is what the
    /// witness is told of its result.
    fn ask<T: Copy>(
        &mut self,
        call: Call,
        mood: Mood,
        number: impl FnOnce(T) -> u64,
        ask: impl FnOnce(&mut Device<Shared, Gpu>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.world.0.borrow_mut().mood = mood;
        let result = ask(&mut self.device);
        self.world.0.borrow_mut().mood = Mood::Fine;
        self.saw(call, mood, result.map(number));
        result
    }

    /// Names go with the last handle, objects with whatever held them last.
    fn settle(&mut self) {
        for thing in &mut self.things {
            if thing.handles.is_empty() {
                thing.name = None;
            }
        }
        self.things.retain(Thing::is_held);
    }

    /// Who has let go of a thing is not among its users any more; who has come is the last one.
    fn recount_users(&mut self) {
        let of_open = |open: &usize| self.opens[*open].map(|(_, user)| user);
        for thing in &mut self.things {
            let handles = thing.handles.keys().map(|(open, _)| open);
            let mapped = thing.mapped.iter().filter(|(_, pages)| **pages > 0);
            let mapped = mapped.map(|(open, _)| open);
            let by_open = handles.chain(mapped).filter_map(of_open);
            let by_fd = thing.fds.iter().filter_map(|fd| Some(self.fds[*fd]?.user));
            let holding: BTreeSet<u32> = by_open.chain(by_fd).collect();
            let payer = thing.owner();
            // What is only worked on is still charged to whom it was charged to.
            if !holding.is_empty() {
                thing.users.retain(|user| holding.contains(user));
            }
            for user in holding {
                if !thing.users.contains(&user) {
                    thing.users.push(user);
                }
            }
            if thing.owner() != payer {
                thing.since_of_user = self.time;
            }
        }
    }

    /// Whether the payer of a thing has so many such things.
    fn is_at(&self, index: usize, limit: u32, such: fn(&Thing) -> bool) -> bool {
        let payer = self.things[index].owner();
        self.count_of(payer, such) >= limit
    }

    fn count_of(&self, payer: u32, such: fn(&Thing) -> bool) -> u32 {
        let of_payer = self.things.iter().filter(|thing| thing.owner() == payer);
        of_payer.filter(|thing| such(thing)).count() as u32
    }
}
