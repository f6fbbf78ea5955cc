//! What clients wait for: events of their opens, objects that become idle.
//!
//! This module turns what has happened into wake-ups: of requests that wait here, and of processes
//! that wait for a node in an event queue of the kernel's, which keeps whatever it is told until
//! it is read. So that nobody can make it keep much, it is told of a node once for each time that
//! somebody has looked: when there is something to read, it is told, and told again only after the
//! next read. A read that leaves something behind counts as such a time at once.
//!
//! What concerns all opens is passed on in steps, so that the socket has its turn in between,
//! however many opens there are.

use alloc::vec::Vec;
use core::mem::take;
use core::ops::Bound;

use gem::pages::Ticket;
use gem::{Event, ObjectFdId, OpenId, Pressure, Working};
use gem_wire::MAX_PAYLOAD;
use gem_wire::event::{self, RECORD_SIZE, Record};
use syscall::error::{EAGAIN, EBADF, EINVAL};
use syscall::flag::EVENT_READ;
use zerocopy::IntoBytes;

use super::{Cause, File, NodeFile, Reply, Server, Stop};
use crate::answer::{Answer, Errno};
use crate::fds::FdId;
use crate::platform::Platform;
use crate::sqe::{Operation, Request};

/// How many opens are told of an announcement before others have their turn.
const OPENS_PER_TURN: usize = 256;

/// Whether somebody waits for a node in the kernel.
#[derive(Clone, Copy, Default)]
pub(super) struct Watch {
    /// Somebody has asked once. Nobody can take that back: others may have the same file.
    watched: bool,
    /// The kernel knows that there is something to read.
    told: bool,
}

/// What has happened and was not taken by the executor.
#[derive(Default)]
pub(super) struct News {
    /// Work that the platform has finished.
    pub(super) finished: Vec<Ticket>,
    ended: Vec<(FdId, Errno)>,
    /// Nodes that the kernel is to be told of.
    readable: Vec<FdId>,
    sweep: Sweep,
}

/// How far an announcement has been passed on.
#[derive(Clone, Copy, Default)]
enum Sweep {
    #[default]
    Done,
    /// To the opens up to this one; `again`: there was another one since.
    To { last: Option<OpenId>, again: bool },
}

/// What has happened since this was last asked.
#[derive(Default)]
pub struct Happened {
    /// What waiting requests wait for.
    pub causes: Vec<Cause>,
    /// Files of which nothing more is to be had: what waits on them is answered so.
    pub ended: Vec<(FdId, Errno)>,
}

impl<P: Platform> Server<P> {
    /// What has happened since this was last asked.
    pub fn take_happened(&mut self) -> Happened {
        let device = self.device.take_news();
        let finished = take(&mut self.news.finished);
        let mut causes: Vec<Cause> = finished.into_iter().map(Cause::Finished).collect();
        causes.extend(device.idle.into_iter().map(Cause::Idle));
        for open in device.readable {
            if let Some(&fd) = self.nodes.get(&open) {
                causes.push(Cause::Readable(fd));
                self.tell(fd);
            }
        }
        if device.announced {
            self.news.sweep = match self.news.sweep {
                Sweep::Done => Sweep::To {
                    last: None,
                    again: false,
                },
                Sweep::To { last, .. } => Sweep::To { last, again: true },
            };
        }
        self.sweep(&mut causes);
        let ended = take(&mut self.news.ended);
        Happened { causes, ended }
    }

    /// Whether [`Server::take_happened`] would say anything.
    #[inline]
    pub fn has_happened(&self) -> bool {
        self.device.has_news()
            || !matches!(self.news.sweep, Sweep::Done)
            || !self.news.finished.is_empty()
            || !self.news.ended.is_empty()
    }

    /// A node that the kernel is to be told of, because somebody there waits for it to be readable;
    /// each one told once.
    #[inline]
    pub fn next_readable(&mut self) -> Option<FdId> {
        self.news.readable.pop()
    }

    /// The server is about to leave: whoever waits for a node in the kernel finds out that there
    /// is nothing more to wait for.
    pub fn say_farewell(&mut self) {
        let nodes: Vec<FdId> = self.nodes.values().copied().collect();
        nodes.into_iter().for_each(|fd| self.tell(fd));
    }

    /// Nothing more is to be had of a node.
    pub(super) fn ends(&mut self, fd: FdId, errno: Errno) {
        self.news.ended.push((fd, errno));
        self.tell(fd);
    }

    /// A file was opened, and others may have been dropped for it.
    pub(super) fn drops(&mut self) {
        let dropped = self.files.take_dropped();
        let dropped = dropped.into_iter().map(|fd| (fd, Errno(EBADF)));
        self.news.ended.extend(dropped);
    }

    /// The next step of passing an announcement on.
    fn sweep(&mut self, causes: &mut Vec<Cause>) {
        let Sweep::To { last, again } = self.news.sweep else {
            return;
        };
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.nodes.range((after, Bound::Unbounded));
        let step: Vec<(OpenId, FdId)> = rest
            .take(OPENS_PER_TURN)
            .map(|(&open, &fd)| (open, fd))
            .collect();
        self.news.sweep = match step.last() {
            Some(&(open, _)) if step.len() == OPENS_PER_TURN => Sweep::To {
                last: Some(open),
                again,
            },
            _ if again => Sweep::To {
                last: None,
                again: false,
            },
            _ => Sweep::Done,
        };
        for (open, fd) in step {
            if self.device.has_events(open) {
                causes.push(Cause::Readable(fd));
                self.tell(fd);
            }
        }
    }

    /// Has the kernel told that a node is readable, if somebody there waits and does not know.
    fn tell(&mut self, fd: FdId) {
        if let Some(File::Node(NodeFile { watch, .. })) = self.files.get_mut(fd)
            && watch.watched
            && !watch.told
        {
            watch.told = true;
            self.news.readable.push(fd);
        }
    }

    /// Somebody begins to wait for a node in the kernel: what is ready now.
    pub(super) fn watch(&mut self, fd: FdId, read: bool) -> Answer {
        let Some(File::Node(node)) = self.files.get_mut(fd) else {
            return Answer::DONE;
        };
        let has_events = node.open.is_some_and(|open| self.device.has_events(open));
        // What is answered here the kernel passes on to everybody who waits.
        node.watch.told = read && has_events;
        node.watch.watched |= read;
        let ready = if node.watch.told {
            EVENT_READ.bits()
        } else {
            0
        };
        Answer::Value(ready as u64)
    }

    /// Whole records, as many as are there and fit.
    pub(super) fn read_events(&mut self, wait: bool, request: &mut Request) -> Reply {
        if request.payload.len() < RECORD_SIZE {
            return Err(Errno(EINVAL).into());
        }
        // A kernel that has lent us whole pages keeps a client's memory until we answer. Of a client
        // that is killed while it waits, it would unmap everything in our answer, ask us about our
        // objects, and so wait for us for ever.
        if wait && request.payload.len() > MAX_PAYLOAD {
            return Err(Errno(EINVAL).into());
        }
        // Neither kernel says that who waits here was killed. The dead must not take an event that
        // another process with the same file would read.
        self.user(request.caller)?;
        let Some(File::Node(node)) = self.files.get_mut(request.fd) else {
            return Err(Errno(EBADF).into());
        };
        node.watch.told = false;
        let open = node.open;
        let mut length = 0;
        // Nobody's node has no events.
        if let Some(open) = open {
            while request.payload.len() - length >= RECORD_SIZE
                && let Some(event) = self.device.next_event(open)?
            {
                let record = Record::from(on_the_wire(event));
                length += request.payload.put(length, record.as_bytes());
            }
            if self.device.has_events(open) {
                self.tell(request.fd);
            }
        }
        match length {
            0 if wait => Err(Stop::Wait(Cause::Readable(request.fd))),
            0 => Err(Errno(EAGAIN).into()),
            length => Ok(Answer::Value(length as u64)),
        }
    }

    /// Waits until an object is idle, or was since the request came.
    pub(super) fn sync(
        &mut self,
        object: ObjectFdId,
        since: Option<Working>,
        request: &mut Request,
    ) -> Reply {
        match self.device.working(object)? {
            Some(working) if since.is_none_or(|since| since == working) => {
                let since = Some(working);
                request.operation = Operation::Sync { since };
                Err(Stop::Wait(Cause::Idle(working.object)))
            }
            _ => Ok(Answer::DONE),
        }
    }
}

fn on_the_wire(event: Event) -> event::Event {
    match event {
        Event::Lost { count } => event::Event::Lost { count },
        Event::Revoked { handle, by } => event::Event::Revoked {
            handle: handle.get(),
            pid: by.map_or(0, |pid| pid.0),
        },
        Event::Evicted { handle } => event::Event::Evicted {
            handle: handle.get(),
        },
        Event::Pressure { level, free } => event::Event::Pressure {
            level: match level {
                Pressure::Eased => event::Pressure::Eased,
                Pressure::Low => event::Pressure::Low,
                Pressure::Critical => event::Pressure::Critical,
            },
            free_pages: free.get(),
        },
        Event::LimitChanged { limit, value } => event::Event::LimitChanged { limit, value },
    }
}
