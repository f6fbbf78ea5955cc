//! What the daemon writes to its scheme's socket: completions (CQEs), in batches.
//!
//! As in the kernel, a completion that is refused stops the batch it is in: those before it
//! count, and only where it is the first does the write fail, with its errno.

use std::sync::Arc;

use syscall::error::{EBADFD, ECANCELED, EINTR, EINVAL, EIO, ENOENT, Error, Result};
use syscall::flag::{EventFlags, FobtainFdFlags, SchemeSocketCall};
use syscall::schemev2::{Cqe, CqeOpcode};

use super::State;
use super::answer::Response;
use super::call::Caller;
use super::daemon::File;
use super::files::Description;
use super::scheme::Scheme;
use crate::proto::demux;

/// The bits of a completion's flags that say what it is.
const OPCODE: u8 = 0b111;

impl State {
    /// Takes completions for `scheme`; returns how many bytes of `bytes` counted.
    pub(super) fn write_completions(
        &mut self,
        scheme: &Arc<Scheme>,
        bytes: &[u8],
    ) -> Result<usize> {
        let mut taken = 0;
        for raw in bytes.as_chunks::<{ size_of::<Cqe>() }>().0 {
            match self.completion(scheme, &parse(raw)) {
                Ok(()) => taken += size_of::<Cqe>(),
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.serve_events();
        Ok(taken)
    }

    fn completion(&mut self, scheme: &Arc<Scheme>, cqe: &Cqe) -> Result<()> {
        let opcode = CqeOpcode::try_from_raw(cqe.flags & OPCODE).ok_or(Error::new(EINVAL))?;
        let [extra, ..] = cqe.extra_raw;
        let regular = |notify_on_detach| Response::Regular {
            result: demux(cqe.result as usize),
            extra,
            notify_on_detach,
        };
        match opcode {
            CqeOpcode::RespondRegular => self.respond(scheme, cqe.tag, regular(false)),
            CqeOpcode::RespondAndNotifyOnDetach => self.respond(scheme, cqe.tag, regular(true)),
            CqeOpcode::RespondWithFd => {
                let fd = self.remove_own(cqe.result as usize);
                let response = Response::Fd(fd.map_err(|_| Error::new(EINVAL))?);
                self.respond(scheme, cqe.tag, response)
            }
            CqeOpcode::RespondWithMultipleFds => {
                self.respond(scheme, cqe.tag, Response::Fds(Vec::new()))
            }
            CqeOpcode::ObtainFd => {
                FobtainFdFlags::from_bits(cqe.extra() as usize).ok_or(Error::new(EINVAL))?;
                let fd = cqe.result as usize;
                let description = self.next_sent_fd(scheme, cqe.tag)?;
                // As in the kernel, a slot that is taken is not the sender's problem.
                let _ = self.files.insert_at(File::Scheme(description), fd);
                Ok(())
            }
            CqeOpcode::SendFevent => {
                let flags = EventFlags::from_bits(cqe.tag as usize);
                let flags = flags.ok_or(Error::new(EINVAL))?;
                self.trigger(scheme.id(), cqe.result, flags.bits() as u64);
                Ok(())
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        scheme: &Arc<Scheme>,
        tag: u32,
        response: Response,
    ) -> Result<()> {
        let calls = self.calls(scheme.id())?;
        let mut call = calls.try_remove(tag as usize).ok_or(Error::new(EBADFD))?;
        let response = match response {
            Response::Regular {
                result: Err(error),
                extra,
                notify_on_detach,
            } => Response::Regular {
                result: Err(Error::new(translate(error.errno, call.canceling))),
                extra,
                notify_on_detach,
            },
            Response::Fds(_) => Response::Fds(std::mem::take(&mut call.fds)),
            other => other,
        };
        self.complete(scheme, call, response);
        Ok(())
    }

    fn next_sent_fd(&mut self, scheme: &Arc<Scheme>, tag: u32) -> Result<Arc<Description>> {
        let call = self.calls(scheme.id())?.get_mut(tag as usize);
        let call = call.ok_or(Error::new(EINVAL))?;
        if call.fds.is_empty() {
            return Err(Error::new(ENOENT));
        }
        Ok(call.fds.remove(0))
    }

    /// A call on the scheme's socket that takes the files of the request `words[1]` over.
    pub(super) fn obtain_fds(
        &mut self,
        caller: &Caller,
        scheme: &Arc<Scheme>,
        words: &[u64],
        payload: &mut [u8],
    ) -> Result<usize> {
        let tag = socket_call(SchemeSocketCall::ObtainFd, words)?;
        let call = self.calls(scheme.id())?.get_mut(tag);
        let fds = std::mem::take(&mut call.ok_or(Error::new(EINVAL))?.fds);
        self.insert_fds(caller, fds, payload)
    }

    /// A call on the scheme's socket that gives the request `words[1]` files to be answered with.
    pub(super) fn move_fds(
        &mut self,
        scheme: &Arc<Scheme>,
        words: &[u64],
        fds: Vec<Arc<Description>>,
    ) -> Result<usize> {
        let tag = socket_call(SchemeSocketCall::MoveFd, words)?;
        let count = fds.len();
        let call = self.calls(scheme.id())?.get_mut(tag);
        call.ok_or(Error::new(EINVAL))?.fds = fds;
        Ok(count)
    }
}

/// EINTR is the answer to a call that was cancelled because of a signal, and to no other.
fn translate(errno: i32, canceling: bool) -> i32 {
    match errno {
        ECANCELED if canceling => EINTR,
        EINTR if !canceling => EIO,
        other => other,
    }
}

fn socket_call(wanted: SchemeSocketCall, words: &[u64]) -> Result<usize> {
    let &[verb, request] = words else {
        return Err(Error::new(EINVAL));
    };
    if SchemeSocketCall::try_from_raw(verb as usize) != Some(wanted) {
        return Err(Error::new(EINVAL));
    }
    Ok(request as usize)
}

fn parse(raw: &[u8; size_of::<Cqe>()]) -> Cqe {
    let mut cqe = Cqe::default();
    cqe.copy_from_slice(raw);
    cqe
}
