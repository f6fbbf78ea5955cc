//! The steps of the model's clients once more, as requests to the whole server: each is answered as
//! the model says, and what the server's memory manager counts then is the same.

use gem::{Device, Error, ObjectId, ObjectView, OpenId};
use gem_model::clients::{Call, Step, Witness, config, objects, run_beside};
use gem_model::world::{Gpu, Mood, Shared};
use gem_wire::native::{Advice, Call as Native, CreateFlags, VERSION};
use gemd::answer::{Answer, Errno};
use gemd::fds::FdId;
use syscall::error::ECANCELED;
use syscall::flag::{MapFlags, O_RDONLY, O_RDWR};
use syscall::schemev2::{Opcode, SqeFlags};

use crate::rig::{Failure, Rig};

/// Takes these steps with the model, and with a server beside it.
pub fn run(steps: &[Step]) {
    let mut server = ThroughServer {
        rig: Rig::with_config(config()),
        opens: Vec::new(),
        fds: Vec::new(),
        uses: Vec::new(),
    };
    run_beside(steps, &mut server);
    server.end();
}

/// A node that a process has open.
#[derive(Clone, Copy)]
struct Opened {
    node: FdId,
    pid: u64,
    id: OpenId,
    revoked: bool,
}

struct ThroughServer {
    rig: Rig,
    /// By the model's numbers; `None` where closed.
    opens: Vec<Option<Opened>>,
    /// Object fds, and who has them.
    fds: Vec<Option<(FdId, u64)>>,
    uses: Vec<ObjectId>,
}

/// The process of a user. User 0 is root.
fn pid(user: u32) -> u64 {
    100 + u64::from(user)
}

impl Witness for ThroughServer {
    fn saw(&mut self, call: Call, mood: Mood, outcome: Result<u64, Error>) {
        self.rig.world.borrow_mut().mood = match mood {
            Mood::Waits => Some(Failure::Later),
            Mood::OutOfMemory => Some(Failure::Exhausted),
            Mood::Scattered => Some(Failure::Scattered),
            _ => None,
        };
        self.take(call, outcome);
        self.rig.world.borrow_mut().mood = None;
        assert_eq!(self.rig.executor.waiting(), 0);
        self.rig.run();
    }

    fn stepped(&mut self, device: &Device<Shared, Gpu>) {
        // Where it lies is the one thing that two machines need not agree on.
        let view = |object: ObjectView| ObjectView {
            first: None,
            ..object
        };
        let sets = self.rig.world.borrow().live.len();
        self.rig.executor.with_device(|own| {
            assert_eq!(own.stats(), device.stats());
            assert!(objects(own).map(view).eq(objects(device).map(view)));
            for account in device.accounts() {
                assert_eq!(own.account_of(account.uid), Some(account));
            }
            assert_eq!(own.accounts().count(), device.accounts().count());
            let purged = objects(own).filter(|object| object.is_purged).count();
            assert_eq!(sets, own.stats().objects - purged);
        });
    }
}

impl ThroughServer {
    fn take(&mut self, call: Call, outcome: Result<u64, Error>) {
        match call {
            Call::Open { user } => self.open(user, outcome),
            Call::CloseOpen { open } => {
                let opened = self.opens[open].take().unwrap();
                self.rig.close(opened.node);
            }
            Call::Revoke { open } => self.revoke(open),
            Call::Create { open, size } => {
                let flags = CreateFlags::empty();
                self.native(open, Native::Create { size, flags }, outcome);
            }
            Call::Close { open, handle } => {
                let handle = handle.get();
                self.native(open, Native::Close { handle }, outcome);
            }
            Call::Flink { open, handle } => {
                let handle = handle.get();
                self.native(open, Native::Flink { handle }, outcome);
            }
            Call::OpenName { open, name } => {
                let name = name.get();
                self.native(open, Native::Open { name }, outcome);
            }
            Call::Offset { open, handle } => {
                let handle = handle.get();
                self.native(open, Native::Map { handle }, outcome);
            }
            Call::Advise {
                open,
                handle,
                unneeded,
            } => {
                let advice = match unneeded {
                    true => Advice::DontNeed,
                    false => Advice::WillNeed,
                };
                let handle = handle.get();
                self.native(open, Native::Advise { handle, advice }, outcome);
            }
            Call::Export {
                open,
                handle,
                write,
            } => {
                let path = format!("handle/{handle}{}", if write { "" } else { "/ro" });
                self.object_file(open, Opcode::Dup, &path, 0, outcome);
            }
            Call::ExportName { open, name, write } => {
                let flags = if write { O_RDWR } else { O_RDONLY };
                let path = format!("name/{name}");
                self.object_file(open, Opcode::OpenAt, &path, flags, outcome);
            }
            Call::Import { open, fd } => {
                let (object, _) = self.fds[fd].unwrap();
                let [number, ..] = Native::Import.encode();
                let args = [1 << 62, 0, number, 0, object.raw()];
                self.on_node(
                    open,
                    Opcode::Call,
                    SqeFlags::MULTIPLE_IDS,
                    args,
                    outcome.map(Some),
                );
            }
            Call::Map {
                open,
                offset,
                size,
                again,
            } => {
                let mut flags = MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE;
                flags.set(MapFlags::MAP_FIXED_NOREPLACE, again);
                let args = [size, flags.bits() as u64, offset, 0, 0];
                let anywhere = outcome.map(|_| None);
                self.on_node(open, Opcode::MmapPrep, SqeFlags::empty(), args, anywhere);
            }
            Call::Unmap { open, offset, size } => {
                let Opened { node, pid, .. } = self.opens[open].unwrap();
                self.rig.unmap(pid, node, offset, size);
            }
            Call::MapFd {
                user,
                fd,
                offset,
                size,
                write,
            } => {
                let fd = self.fds[fd].unwrap().0;
                let mut flags = MapFlags::MAP_SHARED | MapFlags::PROT_READ;
                flags.set(MapFlags::PROT_WRITE, write);
                let args = [fd.raw(), size, flags.bits() as u64, offset, 0, 0];
                let anywhere = outcome.map(|_| None);
                self.request(
                    pid(user),
                    Opcode::MmapPrep,
                    SqeFlags::empty(),
                    args,
                    anywhere,
                );
            }
            Call::UnmapFd { user, fd, size } => {
                self.rig.unmap(pid(user), self.fds[fd].unwrap().0, 0, size);
            }
            Call::CloseFd { fd } => {
                let (fd, _) = self.fds[fd].take().unwrap();
                self.rig.close(fd);
            }
            Call::BeginUse { open, handle } => {
                let id = self.opens[open].unwrap().id;
                let begun = |device: &mut Device<_>| device.begin_use(id, handle);
                let begun = self.rig.executor.with_device(begun);
                assert_eq!(begun.err(), outcome.err());
                self.uses.extend(begun);
            }
            Call::EndUse { work } => {
                let object = self.uses.remove(work);
                self.rig
                    .executor
                    .with_device(|device| device.end_use(object));
            }
            Call::Left(left) => {
                self.rig.world.borrow_mut().left = left;
                self.rig.kick();
            }
            Call::Limits(limits) => {
                self.rig
                    .executor
                    .with_device(|device| device.set_limits(limits));
            }
        }
    }

    fn open(&mut self, user: u32, outcome: Result<u64, Error>) {
        let pid = pid(user);
        self.rig.world.borrow_mut().users.insert(pid, user);
        let node = self.rig.open(pid, "card0");
        let [number, first, second] = Native::Hello { version: VERSION }.encode();
        let args = [node.raw(), 1 << 62, 0, number, first, second];
        let hello = outcome.map(|_| None);
        self.request(pid, Opcode::Call, SqeFlags::empty(), args, hello);
        if outcome.is_err() {
            self.rig.close(node);
            return;
        }
        // Everybody may use names: the model knows no master.
        let id = self.rig.executor.with_device(|device| {
            let (_, id) = device.clients(None, 0).last().unwrap();
            let magic = device.magic(id).unwrap();
            device.authenticate(magic).unwrap();
            id
        });
        self.opens.push(Some(Opened {
            node,
            pid,
            id,
            revoked: false,
        }));
    }

    /// By root, if it is there.
    fn revoke(&mut self, open: usize) {
        let id = self.opens[open].unwrap().id;
        let is_root =
            |open: &Option<Opened>| open.is_some_and(|open| open.pid == pid(0) && !open.revoked);
        match self.opens.iter().position(is_root) {
            Some(root) => {
                let stats = self
                    .rig
                    .executor
                    .with_device(|device| device.open_stats(id));
                let client = stats.unwrap().client;
                self.native(root, Native::Revoke { client }, Ok(0));
            }
            None => {
                let revoked = self.rig.executor.with_device(|device| device.revoke(id));
                assert_eq!(revoked, Ok(()));
            }
        }
        if let Some(opened) = &mut self.opens[open] {
            opened.revoked = true;
        }
    }

    fn native(&mut self, open: usize, call: Native, outcome: Result<u64, Error>) {
        let [number, first, second] = call.encode();
        let args = [1 << 62, 0, number, first, second];
        let outcome = outcome.map(Some);
        self.on_node(open, Opcode::Call, SqeFlags::empty(), args, outcome);
    }

    /// A request on a node, which was revoked or answers as the memory manager does.
    fn on_node(
        &mut self,
        open: usize,
        opcode: Opcode,
        flags: SqeFlags,
        args: [u64; 5],
        outcome: Result<Option<u64>, Error>,
    ) -> Option<FdId> {
        let opened = self.opens[open].unwrap();
        let [a, b, c, d, e] = args;
        let args = [opened.node.raw(), a, b, c, d, e];
        let outcome = if opened.revoked {
            assert!(outcome.is_err(), "{outcome:?}");
            Err(Error::Revoked)
        } else {
            outcome
        };
        self.request(opened.pid, opcode, flags, args, outcome)
    }

    fn object_file(
        &mut self,
        open: usize,
        opcode: Opcode,
        path: &str,
        flags: usize,
        outcome: Result<u64, Error>,
    ) {
        let args = [path.as_ptr() as u64, path.len() as u64, flags as u64, 0, 0];
        let outcome = outcome.map(|_| None);
        let pid = self.opens[open].unwrap().pid;
        if let Some(fd) = self.on_node(open, opcode, SqeFlags::empty(), args, outcome) {
            self.fds.push(Some((fd, pid)));
        }
    }

    /// Sends a request, which is answered like this (`None`: with any number, or a file). What has
    /// to be tried again is cancelled.
    fn request(
        &mut self,
        pid: u64,
        opcode: Opcode,
        flags: SqeFlags,
        args: [u64; 6],
        outcome: Result<Option<u64>, Error>,
    ) -> Option<FdId> {
        let tag = self.rig.post(pid, opcode, flags, args);
        let mut answer = self.rig.answer(tag);
        let errno = match outcome {
            Ok(number) => {
                match answer {
                    Some(Answer::File { id, .. }) if number.is_none() => return Some(id),
                    Some(Answer::Value(value)) if number.is_none_or(|number| number == value) => {}
                    _ => panic!("{answer:?} for {outcome:?}"),
                }
                return None;
            }
            Err(Error::NotReady(_) | Error::Unfinished) => {
                assert!(answer.is_none(), "{answer:?} for {outcome:?}");
                self.rig.cancel(tag);
                answer = self.rig.answer(tag);
                ECANCELED
            }
            Err(error) => error.errno().get(),
        };
        match answer {
            Some(Answer::Error(Errno(answered))) if answered == errno => None,
            _ => panic!("{answer:?} for {outcome:?}"),
        }
    }

    /// Everything is closed, and nothing is left.
    fn end(mut self) {
        for object in self.uses {
            self.rig
                .executor
                .with_device(|device| device.end_use(object));
        }
        for (fd, _) in self.fds.into_iter().flatten() {
            self.rig.close(fd);
        }
        for open in self.opens.into_iter().flatten() {
            self.rig.close(open.node);
        }
        assert!(self.rig.world.borrow().live.is_empty(), "pages are left");
        self.rig.executor.with_device(|device| {
            let stats = device.stats();
            assert_eq!((stats.opens, stats.objects, stats.object_fds), (0, 0, 0));
            assert_eq!(device.accounts().count(), 0);
        });
    }
}
