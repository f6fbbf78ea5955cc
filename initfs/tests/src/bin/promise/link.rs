//! The master's end of the links: a scheme whose clients are the puppets, one file each. The calls
//! are in `initfs_tests::link`. One thread serves it, whenever it waits for a puppet.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use gem_promises::command::{Command, Reply};
use gem_promises::{Carrier, Link};
use initfs_tests::link::{DUP_CARRIED, MORE, NEXT, REPLY};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::fd::Owned;
use rt::process::{Command as Program, Process};
use rt::protocol::{Ended, FIRST_HANDED_FD};
use rt::socket::{Socket, fill, invalid, payload, wants_answer};
use syscall::error::{ECANCELED, ENOENT, Error, Result};
use syscall::schemev2::{Opcode, Sqe};

/// What the master knows of a puppet.
#[derive(Default)]
struct Actor {
    /// Its request for the next order.
    waiting: Option<Sqe>,
    order: Vec<u8>,
    reply: Option<Vec<u8>>,
    /// An fd on its way from it or to it.
    carried: Option<Owned>,
}

/// All links.
pub struct Stage {
    socket: Socket,
    actors: RefCell<Actors>,
}

#[derive(Default)]
struct Actors {
    /// By file; a link that is closed is not there.
    open: BTreeMap<usize, Actor>,
    last: usize,
}

impl Stage {
    /// Without puppets.
    pub fn new() -> Result<Self> {
        let creation = Fd::open("/scheme/namespace/scheme-creation-cap", O_RDONLY, 0)?;
        Ok(Self {
            socket: Socket::new(creation.raw())?,
            actors: RefCell::default(),
        })
    }

    fn new_link(&self) -> Result<(usize, Owned)> {
        let mut actors = self.actors.borrow_mut();
        let id = actors.last + 1;
        let file = self.socket.file(id)?;
        actors.last = id;
        actors.open.insert(id, Actor::default());
        Ok((id, file))
    }

    /// Something of this puppet's. `None` where it is gone.
    fn with<T>(&self, id: usize, look: impl FnOnce(&mut Actor) -> T) -> Option<T> {
        self.actors.borrow_mut().open.get_mut(&id).map(look)
    }

    /// Serves until there is what `look` looks for. `None` where the puppet is gone.
    fn wait<T>(&self, id: usize, mut look: impl FnMut(&mut Actor) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = self.with(id, &mut look)? {
                return Some(found);
            }
            let sqe = self.socket.receive().expect("a request");
            self.handle(&sqe.expect("the socket waits"));
        }
    }

    /// Serves what has come, and does not wait.
    fn catch_up(&self) {
        self.socket.set_waiting(false).expect("a socket");
        while let Some(sqe) = self.socket.receive().expect("a request") {
            self.handle(&sqe);
        }
        self.socket.set_waiting(true).expect("a socket");
    }

    fn handle(&self, sqe: &Sqe) {
        let id = sqe.args[0] as usize;
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::Call) if sqe.args[3] == NEXT => {
                self.with(id, |actor| actor.waiting = Some(*sqe));
            }
            Some(Opcode::Call) if sqe.args[3] == MORE => {
                let copied = self.with(id, |actor| {
                    let rest = actor.order.get(sqe.args[4] as usize..).unwrap_or_default();
                    // SAFETY: the request is answered after this, and it is one to read.
                    unsafe { fill(sqe, rest) }
                });
                self.socket.answer(sqe.tag, Ok(copied.unwrap_or(0)));
            }
            Some(Opcode::Call) if sqe.args[3] == REPLY => {
                // SAFETY: the request is answered after this.
                let reply = unsafe { payload(sqe) }.to_vec();
                self.with(id, |actor| actor.reply = Some(reply));
                self.socket.answer(sqe.tag, Ok(0));
            }
            Some(Opcode::Sendfd) => {
                let sent = self.socket.sent_fd(sqe);
                let kept = sent.map(|fd| self.with(id, |actor| actor.carried = Some(fd)));
                self.socket.answer(sqe.tag, kept.map(|_| 0));
            }
            Some(Opcode::Dup) => {
                // SAFETY: the request is answered after this.
                let carried = if unsafe { payload(sqe) } == DUP_CARRIED {
                    self.with(id, |actor| actor.carried.take()).flatten()
                } else {
                    None
                };
                let carried = carried.ok_or(Error::new(ENOENT));
                self.socket.answer_fd(sqe.tag, carried);
            }
            Some(Opcode::Cancel) => self.cancel(sqe.tag),
            Some(Opcode::CloseMsg) => self.close(id),
            _ if wants_answer(sqe) => self.socket.answer(sqe.tag, invalid()),
            _ => {}
        }
    }

    /// A dead puppet's request is answered, too, so that its tag is free again.
    fn close(&self, id: usize) {
        let actor = self.actors.borrow_mut().open.remove(&id);
        if let Some(sqe) = actor.and_then(|actor| actor.waiting) {
            self.socket.answer(sqe.tag, Err(Error::new(ECANCELED)));
        }
    }

    /// Only requests for the next order are not answered at once.
    fn cancel(&self, tag: u32) {
        let mut actors = self.actors.borrow_mut();
        let waits = |actor: &&mut Actor| actor.waiting.is_some_and(|sqe| sqe.tag == tag);
        if let Some(actor) = actors.open.values_mut().find(waits) {
            actor.waiting = None;
            self.socket.answer(tag, Err(Error::new(ECANCELED)));
        }
    }
}

/// A client process, and the link to it.
pub struct Puppet {
    stage: Rc<Stage>,
    link: usize,
    process: Process,
}

impl Puppet {
    /// A process of this program, root's. It gets orders if it is one that asks for them.
    pub fn start(stage: Rc<Stage>, program: Program) -> Result<Self> {
        let (link, file) = stage.new_link()?;
        let process = program.hand(file.raw(), FIRST_HANDED_FD).spawn()?;
        Ok(Self {
            stage,
            link,
            process,
        })
    }

    /// Gives it an order; `None` where it is gone.
    fn order(&self, message: &[u8]) -> Option<()> {
        let sqe = self.stage.wait(self.link, |actor| actor.waiting.take())?;
        self.stage
            .with(self.link, |actor| actor.order = message.to_vec())?;
        // SAFETY: the request is answered after this, and it is one to read.
        unsafe { fill(&sqe, message) };
        self.stage.socket.answer(sqe.tag, Ok(message.len()));
        Some(())
    }
}

impl Link for Puppet {
    fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.order(message)?;
        self.hear()
    }

    fn send(&mut self, message: &[u8]) {
        self.order(message).expect("the client process is gone");
    }

    fn hear(&mut self) -> Option<Vec<u8>> {
        self.stage.wait(self.link, |actor| actor.reply.take())
    }

    fn kill(&mut self) {
        self.process.kill().expect("a process");
        self.process.wait().expect("a process");
        // Until its link is closed.
        self.stage.wait(self.link, |_| None::<()>);
    }

    fn wait(&mut self) -> bool {
        let ended = self.process.wait().expect("a process");
        ended == Ended::Exited(0)
    }

    fn give(&mut self, fd: u64, receiver: &mut dyn Link) -> u64 {
        let message = postcard::to_allocvec(&Command::Carry(fd)).expect("a command");
        value(self.ask(&message));
        let carried = self.stage.with(self.link, |actor| actor.carried.take());
        let carried = carried.flatten().expect("an fd");
        let number = Carrier::try_from(carried.into_raw()).expect("a small number");
        receiver.take(number)
    }

    fn take(&mut self, carrier: Carrier) -> u64 {
        let number = usize::try_from(carrier).expect("an fd");
        let carried = Owned::new(number);
        self.stage
            .with(self.link, |actor| actor.carried = Some(carried));
        let message = postcard::to_allocvec(&Command::Uncarry).expect("a command");
        value(self.ask(&message))
    }

    fn fork(&mut self) -> Box<dyn Link> {
        let (link, file) = self.stage.new_link().expect("a link");
        self.stage
            .with(self.link, |actor| actor.carried = Some(file));
        let message = postcard::to_allocvec(&Command::Fork).expect("a command");
        value(self.ask(&message));
        let carried = self.stage.with(self.link, |actor| actor.carried.take());
        let child = Self {
            stage: self.stage.clone(),
            link,
            process: Process::new(carried.flatten().expect("a process fd")),
        };
        let reply = self.stage.wait(link, |actor| actor.reply.take());
        assert_eq!(value(reply), 0);
        Box::new(child)
    }

    fn ask_amid_signals(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.order(message)?;
        loop {
            self.stage.catch_up();
            if let Some(reply) = self.stage.with(self.link, |actor| actor.reply.take())? {
                return Some(reply);
            }
            self.process.interrupt().expect("a process");
            let _ = syscall::sched_yield();
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.kill();
    }
}

fn value(reply: Option<Vec<u8>>) -> u64 {
    let reply = reply.expect("the client process is gone");
    let reply: Reply = postcard::from_bytes(&reply).expect("a reply");
    reply.expect("an fd is handed over").value
}
