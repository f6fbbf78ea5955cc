//! The kernel's own scheme `event`: event queues as files, as `src/scheme/event.rs` of the Redox
//! kernel has them.
//!
//! Opening it makes a queue. Writing an event watches a file for it, and asks the file's scheme
//! what has happened already; reading waits until something has. Requests come like those to any
//! other scheme, as SQEs, but are served here, as soon as they are made: so descriptors, fork,
//! signals and the death of a client are what they are for all files.

use syscall::error::{EAGAIN, EBADF, ECANCELED, EINVAL, ENODEV, EOPNOTSUPP, Error, Result};
use syscall::flag::{EVENT_READ, EVENT_WRITE, O_NONBLOCK};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};

use super::State;
use super::answer::Response;
use super::call::{After, Buffer, Call, Caller, Context};
use super::events::{Event, SCHEME};

/// What the scheme calls its root directory.
pub(super) const ROOT: u64 = u64::MAX;
const PATH: &[u8] = b"/scheme/event/";

/// A write to a queue that is under way.
#[derive(Debug)]
pub(crate) struct Watching {
    queue: u64,
    context: Context,
    /// The events that were written.
    events: Buffer,
    /// How many of them were seen to.
    done: usize,
}

impl State {
    /// Serves what was asked of the event scheme.
    pub(super) fn serve_events(&mut self) {
        while let Some(sqe) = self.event_scheme.next() {
            let result = match self.serve_event(&sqe) {
                Ok(Some(result)) => Ok(result),
                // It waits, or nobody waits for it.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            self.answer_event(sqe.tag as usize, result);
        }
    }

    fn serve_event(&mut self, sqe: &Sqe) -> Result<Option<usize>> {
        let [queue, ..] = sqe.args;
        let tag = sqe.tag as usize;
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) if queue == ROOT => Ok(Some(self.events.create() as usize)),
            Some(Opcode::Read) => {
                let wait = sqe.args[4] & O_NONBLOCK as u64 == 0;
                self.read_queue(queue, tag, wait)
            }
            Some(Opcode::Write) => self.write_queue(queue, tag, sqe.caller),
            Some(Opcode::Fevent) => {
                let queue = self.events.queue(queue).ok_or(Error::new(EBADF))?;
                let mut ready = EVENT_WRITE;
                ready.set(EVENT_READ, !queue.is_empty());
                Ok(Some(ready.bits() & sqe.args[1] as usize))
            }
            Some(Opcode::Fpath) => {
                let room = self.calls(SCHEME)?.get_mut(tag).ok_or(Error::new(EBADF))?;
                let room = room.payload.bytes_mut();
                let length = room.len().min(PATH.len());
                room[..length].copy_from_slice(&PATH[..length]);
                Ok(Some(length))
            }
            Some(Opcode::Fcntl | Opcode::Fsync) => Ok(Some(0)),
            Some(Opcode::Cancel) => {
                self.stop_reading(tag);
                Ok(None)
            }
            Some(Opcode::CloseMsg) => {
                self.close_queue(queue);
                Ok(None)
            }
            Some(Opcode::Detach | Opcode::Msync) => Ok(None),
            _ if sqe.sqe_flags.contains(SqeFlags::ONEWAY) => Ok(None),
            _ => Err(Error::new(EOPNOTSUPP)),
        }
    }

    /// Answers a call on the event scheme, if there is one of this tag.
    fn answer_event(&mut self, tag: usize, result: Result<usize>) {
        let scheme = self.event_scheme.clone();
        let response = Response::Regular {
            result,
            extra: 0,
            notify_on_detach: false,
        };
        // A call that was answered already has left.
        let _ = self.respond(&scheme, tag as u32, response);
    }

    fn read_queue(&mut self, queue: u64, tag: usize, wait: bool) -> Result<Option<usize>> {
        let call = self.calls(SCHEME)?.get(tag).ok_or(Error::new(EBADF))?;
        let room = call.payload.len() / Event::SIZE;
        let found = self.events.queue(queue).ok_or(Error::new(EBADF))?;
        if room == 0 {
            return Err(Error::new(EINVAL));
        }
        if found.is_empty() && !wait {
            return Err(Error::new(EAGAIN));
        }
        found.readers.push_back(tag);
        self.feed_readers(queue);
        Ok(None)
    }

    /// A signal has reached a reader.
    fn stop_reading(&mut self, tag: usize) {
        let call = self.calls(SCHEME).ok().and_then(|calls| calls.get(tag));
        let file = call.and_then(|call| call.held.as_ref()?.description());
        let Some(number) = file.map(|file| file.number()) else {
            return;
        };
        if let Some(queue) = self.events.queue(number)
            && let Some(place) = queue.readers.iter().position(|&reader| reader == tag)
        {
            queue.readers.remove(place);
            self.answer_event(tag, Err(Error::new(ECANCELED)));
        }
    }

    /// Gives the events of a queue to the reads that wait, oldest first.
    fn feed_readers(&mut self, number: u64) {
        while let Some(queue) = self.events.queue(number)
            && !queue.is_empty()
            && let Some(tag) = queue.readers.pop_front()
        {
            let calls = self.calls(SCHEME).ok();
            let call = calls.and_then(|calls| calls.get(tag));
            // The dead take nothing.
            let Some(call) = call.filter(|call| call.caller.is_some()) else {
                self.answer_event(tag, Err(Error::new(ECANCELED)));
                continue;
            };
            let most = call.payload.len() / Event::SIZE;
            let queue = self.events.queue(number);
            let taken = queue.map_or(Vec::new(), |queue| queue.take(most));
            if let Ok(calls) = self.calls(SCHEME)
                && let Some(call) = calls.get_mut(tag)
            {
                let room = call.payload.bytes_mut().as_chunks_mut().0;
                for (to, event) in room.iter_mut().zip(&taken) {
                    *to = event.to_bytes();
                }
            }
            self.answer_event(tag, Ok(taken.len() * Event::SIZE));
        }
    }

    /// Something happened to a file: whoever watches it hears of it.
    pub(super) fn trigger(&mut self, scheme: usize, number: u64, flags: u64) {
        for queue in self.events.trigger((scheme, number), flags) {
            self.feed_readers(queue);
        }
    }

    fn close_queue(&mut self, number: u64) {
        let closed = self.events.close(number);
        for tag in closed.into_iter().flat_map(|queue| queue.readers) {
            self.answer_event(tag, Err(Error::new(ECANCELED)));
        }
    }

    /// A write takes its call along: the caller then waits for the schemes of the files that it
    /// watches, one after the other.
    fn write_queue(&mut self, queue: u64, tag: usize, pid: u64) -> Result<Option<usize>> {
        self.events.queue(queue).ok_or(Error::new(EBADF))?;
        let call = self.calls(SCHEME)?.try_remove(tag);
        let Some(Call {
            caller: Some(caller),
            payload: events,
            ..
        }) = call
        else {
            return Ok(None);
        };
        let Some(context) = self.context_of(pid) else {
            self.reply(&caller, Err(Error::new(EBADF)));
            return Ok(None);
        };
        let watching = Watching {
            queue,
            context,
            events,
            done: 0,
        };
        self.watch_next(caller, watching);
        Ok(None)
    }

    /// Makes the next watch of a write, or replies where there is none.
    fn watch_next(&mut self, caller: Caller, watching: Watching) {
        let events = watching.events.bytes().as_chunks().0;
        let Some(bytes) = events.get(watching.done) else {
            let written = events.len() * Event::SIZE;
            return self.reply(&caller, Ok(written));
        };
        let event = Event::from_bytes(bytes);
        if let Err(error) = self.watch(&caller, watching, event) {
            self.reply(&caller, Err(error));
        }
    }

    fn watch(&mut self, caller: &Caller, watching: Watching, event: Event) -> Result<()> {
        let fd = usize::try_from(event.id).unwrap_or(usize::MAX);
        if fd == syscall::EVENT_TIMEOUT_ID {
            return Err(Error::new(EINVAL));
        }
        let file = self.description(caller, fd)?;
        if file.scheme().id() == SCHEME && file.number() == watching.queue {
            return Err(Error::new(EBADF));
        }
        let all = self.events.watch(&file, watching.queue, event);
        let scheme = file.scheme().clone();
        let args = [file.number(), all, 0, 0, 0];
        let context = watching.context;
        let after = After::Watching(watching);
        let call = Call::new(Some(caller.clone()), after).holding(file);
        let asked = self.issue(&scheme, context, Opcode::Fevent, args, call);
        asked.map_err(|_| Error::new(ENODEV))
    }

    /// A scheme has said what has happened to a file that is watched from now on.
    pub(super) fn watched(
        &mut self,
        caller: Caller,
        mut watching: Watching,
        file: (usize, u64),
        response: Response,
    ) {
        match response.into_regular() {
            Ok(flags) => {
                if flags != 0 {
                    self.trigger(file.0, file.1, flags as u64);
                }
                watching.done += 1;
                self.watch_next(caller, watching);
            }
            Err(error) => self.reply(&caller, Err(error)),
        }
    }
}
