//! The smallest daemon that takes over its clients' pages, on gemd's platform: see
//! `initfs_tests::user` for its calls. It serves the scheme `user`, and never waits for a client.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use core::time::Duration;

use gem::pages::{NotReady, PageSource, Ticket};
use gem::units::{PAGE_SIZE, PageCount, Uid};
use gem::user::{Errand, SpaceFd, UserAddr, UserFault, UserRange, UserSet, UserSource};
use initfs_tests::user::{
    ADD, DUP_OWN_SPACE, ECHO, LOCATE, READ, RELEASE, SET_OFFSET, TAKE, TAKE_AND_ABANDON, UNMAPPED,
};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use platform::Pages;
use rt::fd::Owned;
use rt::protocol::{DUP_REGISTER, NAMESPACE_FD, THREAD_FD};
use rt::socket::{Socket, invalid, payload, wants_answer};
use syscall::CallFlags;
use syscall::error::{EAGAIN, EBADF, EFAULT, EIO, ENODEV, ENOENT, ENOMEM, Error, Result};
use syscall::schemev2::{Opcode, Sqe};

rt::entry!(main);

const ROOT: usize = 0;

struct Daemon {
    socket: Socket,
    pages: Pages,
    /// Whose a file is: what it was opened as.
    files: BTreeMap<usize, Uid>,
    /// What was sent to a file.
    spaces: BTreeMap<usize, Owned>,
    sets: BTreeMap<u64, UserSet>,
    /// Who waits for a ticket: the request.
    waiting: BTreeMap<Ticket, Sqe>,
    next_file: usize,
    next_set: u64,
    unmapped: usize,
}

fn main() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            rt::say!("# user-daemon: {error}");
            1
        }
    }
}

fn serve() -> Result<()> {
    let creation = Fd::open("/scheme/namespace/scheme-creation-cap", O_RDONLY, 0)?;
    let socket = Socket::new(creation.raw())?;
    let root = socket.file(ROOT)?;
    let mut daemon = Daemon {
        socket,
        pages: Pages::new(Duration::from_millis(100))?,
        files: BTreeMap::new(),
        spaces: BTreeMap::new(),
        sets: BTreeMap::new(),
        waiting: BTreeMap::new(),
        next_file: ROOT + 1,
        next_set: 1,
        unmapped: 0,
    };
    let registration = rt::fd::dup(NAMESPACE_FD, &[DUP_REGISTER, b"user"].concat())?;
    let registration = Owned::new(registration);
    let root = root.into_raw();
    syscall::call_wo(registration.raw(), &root.to_ne_bytes(), CallFlags::FD, &[])?;
    rt::fd::release(root);
    loop {
        daemon.socket.set_waiting(daemon.waiting.is_empty())?;
        match daemon.socket.receive()? {
            Some(sqe) => daemon.handle(&sqe),
            None => {
                let _ = syscall::sched_yield();
            }
        }
        daemon.finish();
    }
}

impl Daemon {
    fn handle(&mut self, sqe: &Sqe) {
        let file = sqe.args[0] as usize;
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => {
                // SAFETY: the request is answered after this.
                let name = core::str::from_utf8(unsafe { payload(sqe) });
                let user = name.ok().and_then(|name| name.parse().ok()).map(Uid);
                let opened = user.ok_or(Error::new(ENOENT)).and_then(|user| {
                    let file = self.socket.file(self.next_file)?;
                    self.files.insert(self.next_file, user);
                    Ok(file)
                });
                self.next_file += 1;
                self.socket.answer_fd(sqe.tag, opened);
            }
            Some(Opcode::Dup) => {
                // SAFETY: the request is answered after this.
                let own = unsafe { payload(sqe) } == DUP_OWN_SPACE;
                let made = if own {
                    rt::fd::dup(THREAD_FD, b"addrspace").map(Owned::new)
                } else {
                    invalid()
                };
                self.socket.answer_fd(sqe.tag, made);
            }
            Some(Opcode::Sendfd) => {
                let sent = self.socket.sent_fd(sqe);
                let kept = sent.map(|fd| self.spaces.insert(file, fd));
                self.socket.answer(sqe.tag, kept.map(|_| 0));
            }
            Some(Opcode::Call) => {
                if let Some(answer) = self.call(file, sqe).transpose() {
                    self.socket.answer(sqe.tag, answer);
                }
            }
            Some(Opcode::MmapPrep) => {
                let window = self.window(sqe.args[3]);
                self.socket.answer(sqe.tag, window);
            }
            Some(Opcode::Munmap) => {
                self.unmapped += sqe.args[1] as usize / PAGE_SIZE as usize;
                self.socket.answer(sqe.tag, Ok(0));
            }
            Some(Opcode::CloseMsg) => {
                let user = self.files.remove(&file).unwrap_or(Uid(0));
                if let Some(space) = self.spaces.remove(&file) {
                    self.pages.elsewhere(user, Errand::new(move || drop(space)));
                }
            }
            _ if wants_answer(sqe) => self.socket.answer(sqe.tag, invalid()),
            _ => {}
        }
    }

    /// `None` where the answer comes later.
    fn call(&mut self, file: usize, sqe: &Sqe) -> Result<Option<usize>> {
        let [number, first, second] = [sqe.args[3], sqe.args[4], sqe.args[5]];
        match number {
            TAKE | TAKE_AND_ABANDON => {
                let space = self.spaces.remove(&file).ok_or(Error::new(EBADF))?;
                let pages = PageCount::new(second).ok_or(Error::new(EFAULT))?;
                let range = UserRange::new(UserAddr::new(first), pages);
                let range = range.map_err(|_| Error::new(EFAULT))?;
                let user = *self.files.get(&file).ok_or(Error::new(EBADF))?;
                let ticket = self
                    .pages
                    .acquire(user, SpaceFd::new(space.into_raw()), range);
                let ticket = ticket.map_err(errno)?;
                if number == TAKE_AND_ABANDON {
                    self.pages.abandon(ticket);
                }
                self.waiting.insert(ticket, *sqe);
                Ok(None)
            }
            RELEASE => {
                let set = self.sets.remove(&first).ok_or(Error::new(ENOENT))?;
                if let Some(ticket) = self.pages.release_user(Uid(0), set) {
                    self.waiting.insert(ticket, *sqe);
                    return Ok(None);
                }
                Ok(Some(0))
            }
            LOCATE => self.locate(sqe, first, second),
            UNMAPPED => Ok(Some(self.unmapped)),
            ECHO => Ok(Some(first as usize)),
            READ => Ok(Some(self.byte(first, second)?.load(SeqCst).into())),
            ADD => Ok(Some(self.byte(first, second)?.fetch_add(1, SeqCst).into())),
            _ => invalid(),
        }
    }

    fn locate(&mut self, sqe: &Sqe, set: u64, page: u64) -> Result<Option<usize>> {
        let set = self.sets.get(&set).ok_or(Error::new(ENOENT))?;
        let located = match self.pages.locate_user(set) {
            Ok(located) => located,
            Err(NotReady::Wait(ticket)) => {
                self.waiting.insert(ticket, *sqe);
                return Ok(None);
            }
            Err(NotReady::OutOfMemory) => return Err(Error::new(ENOMEM)),
            Err(_) => return Err(Error::new(EIO)),
        };
        let mut before = 0;
        for run in located.as_slice() {
            let end = before + run.pages.get();
            if page < end {
                let place = run.start.get() + (page - before) * PAGE_SIZE;
                return Ok(Some((place / PAGE_SIZE) as usize));
            }
            before = end;
        }
        invalid()
    }

    fn window(&mut self, offset: u64) -> Result<usize> {
        let set = self.sets.get(&(offset / SET_OFFSET));
        let set = set.ok_or(Error::new(ENOENT))?;
        let window = self.pages.user_window(set);
        let window = window.map_err(|_| Error::new(EIO))?;
        Ok(window.get() + (offset % SET_OFFSET) as usize)
    }

    fn byte(&mut self, set: u64, offset: u64) -> Result<&AtomicU8> {
        let address = self.window(set * SET_OFFSET)? + offset as usize;
        // SAFETY: the tests ask for bytes of the set, which is mapped, and which clients access
        // atomically.
        Ok(unsafe { AtomicU8::from_ptr(address as *mut u8) })
    }

    /// Answers who waits for what has been done.
    fn finish(&mut self) {
        let mut tickets = Vec::new();
        self.pages.finished(&mut tickets);
        for ticket in tickets {
            let Some(sqe) = self.waiting.remove(&ticket) else {
                continue;
            };
            let answer = match (sqe.args[3], self.pages.acquired(ticket)) {
                (TAKE, Some(Ok(set))) => {
                    self.sets.insert(self.next_set, set);
                    self.next_set += 1;
                    Ok(Some(self.next_set as usize - 1))
                }
                (TAKE, Some(Err(fault))) => Err(errno(fault)),
                (TAKE_AND_ABANDON | RELEASE, None) => Ok(Some(0)),
                (LOCATE, None) => self.locate(&sqe, sqe.args[4], sqe.args[5]),
                _ => Err(Error::new(EIO)),
            };
            if let Some(answer) = answer.transpose() {
                self.socket.answer(sqe.tag, answer);
            }
        }
    }
}

fn errno(fault: UserFault) -> Error {
    Error::new(match fault {
        UserFault::Hole | UserFault::Foreign => EFAULT,
        UserFault::NotASpace => EBADF,
        UserFault::NoMemory => ENOMEM,
        UserFault::Unsupported => ENODEV,
        UserFault::Busy => EAGAIN,
        UserFault::Failed => EIO,
    })
}
