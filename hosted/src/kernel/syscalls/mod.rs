//! System calls on scheme files: what a process asks for becomes an SQE.
//!
//! The layouts are those of the kernel's `src/scheme/user.rs`, the checks before them those of
//! its `src/syscall/fs.rs`. A call either is over at once, or goes to the scheme and is finished
//! by `answer`. By kind: `files`, `call` (SYS_CALL), `memory`.

mod call;
mod files;
mod memory;

use std::sync::Arc;

use syscall::error::{EINVAL, ENAMETOOLONG, ENODEV, EOPNOTSUPP, EPERM, Error, Result};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};

use super::State;
use super::call::{After, Call, Caller, ClientId, Context};
use super::client::Place;
use super::files::Description;
use super::scheme::Scheme;
use crate::proto::{Op, PATH_MAX, Request};

/// How a system call goes on.
#[derive(Debug)]
pub(in crate::kernel) enum Step {
    /// It is over.
    Done(usize),
    /// The scheme is asked; the reply comes later.
    Asked,
}

/// Everything a system call is made with.
pub(in crate::kernel) struct Invocation<'a> {
    pub(in crate::kernel) caller: &'a Caller,
    pub(in crate::kernel) context: Context,
    pub(in crate::kernel) op: Op,
    pub(in crate::kernel) request: &'a Request,
    pub(in crate::kernel) payload: &'a [u8],
}

impl Invocation<'_> {
    fn fd(&self) -> usize {
        usize::try_from(self.request.fd).unwrap_or(usize::MAX)
    }

    fn arg(&self, index: usize) -> u64 {
        self.request.args.get(index).copied().unwrap_or(0)
    }

    fn path(&self) -> Result<&str> {
        if self.payload.len() > PATH_MAX {
            return Err(Error::new(ENAMETOOLONG));
        }
        std::str::from_utf8(self.payload).map_err(|_| Error::new(EINVAL))
    }

    fn call(&self, after: After) -> Call {
        Call::new(Some(self.caller.clone()), after)
    }
}

impl State {
    /// Makes a system call for a client or for a thread of the daemon.
    pub(in crate::kernel) fn system_call(&mut self, made: &Invocation<'_>) -> Result<Step> {
        match made.op {
            Op::Open => self.open(made),
            Op::OpenAt => self.open_at(made),
            Op::Dup => self.dup(made, None),
            Op::Dup2 => self.dup2(made),
            Op::Close => self.close(made),
            Op::Read | Op::Write => self.transfer(made),
            Op::Call => self.call(made),
            Op::Fcntl => self.fcntl(made),
            Op::Fchown => self.fchown(made),
            Op::Lseek => self.lseek(made),
            Op::Mmap => self.mmap(made),
            Op::Munmap => self.munmap(made),
            Op::SetIdentity => self.set_identity(made),
            Op::Fpath => self.fill(made, Opcode::Fpath, After::Value),
            Op::Fstat => self.fill(made, Opcode::Fstat, After::Stat),
            Op::Fsize => self.simple(made, Opcode::Fsize, After::Value),
            Op::Fsync => self.simple(made, Opcode::Fsync, After::Zero),
            Op::Fevent => self.simple(made, Opcode::Fevent, After::Value),
            Op::Flink => self.with_path(made, Opcode::Flink),
            Op::Frename => self.with_path(made, Opcode::Frename),
            Op::Unlinkat => self.with_path(made, Opcode::UnlinkAt),
            Op::Hello
            | Op::Cancel
            | Op::Parcel
            | Op::Unparcel
            | Op::Fork
            | Op::Adopt
            | Op::Space
            | Op::OfferSpace => Err(Error::new(EOPNOTSUPP)),
        }
    }

    /// Queues a request and enters the call; gives the call back where the scheme is gone.
    pub(in crate::kernel) fn issue(
        &mut self,
        scheme: &Arc<Scheme>,
        context: Context,
        opcode: Opcode,
        args: [u64; 5],
        call: Call,
    ) -> std::result::Result<(), Box<Call>> {
        let [a, b, c, d, e] = args;
        let sqe = Sqe {
            opcode: opcode as u8,
            args: [a, b, c, d, e, context.credentials()],
            caller: context.pid,
            ..Sqe::default()
        };
        self.issue_raw(scheme, sqe, call)
    }

    fn issue_raw(
        &mut self,
        scheme: &Arc<Scheme>,
        mut sqe: Sqe,
        call: Call,
    ) -> std::result::Result<(), Box<Call>> {
        let Ok(calls) = self.calls(scheme.id()) else {
            return Err(Box::new(call));
        };
        let caller = call.caller.clone();
        let bytes = call.payload.len();
        let tag = calls.insert(call);
        sqe.tag = tag as u32;
        if let Some(Caller::Client(id, request)) = caller
            && let Some(client) = self.clients.get_mut(&id)
        {
            let place = Place {
                scheme: scheme.id(),
                tag,
            };
            client.calls.enter(request, place, bytes);
        }
        scheme.send(sqe);
        Ok(())
    }

    fn ask(
        &mut self,
        description: &Description,
        context: Context,
        opcode: Opcode,
        args: [u64; 5],
        call: Call,
    ) -> Result<Step> {
        let asked = self.issue(description.scheme(), context, opcode, args, call);
        asked.map(|()| Step::Asked).map_err(|_| Error::new(ENODEV))
    }

    /// Passes a signal that reached the caller of request `request` on to the scheme, once.
    pub(in crate::kernel) fn cancel(&mut self, client: ClientId, request: u32) {
        let place = self
            .clients
            .get(&client)
            .and_then(|client| client.calls.place(request));
        let Some(place) = place else {
            return;
        };
        let Some(open) = self.schemes.get_mut(&place.scheme) else {
            return;
        };
        let Some(call) = open.calls.get_mut(place.tag) else {
            return;
        };
        if !call.canceling && call.cancelable {
            call.canceling = true;
            open.scheme.send(Sqe {
                opcode: Opcode::Cancel as u8,
                sqe_flags: SqeFlags::ONEWAY,
                tag: place.tag as u32,
                ..Sqe::default()
            });
        }
    }

    fn set_identity(&mut self, made: &Invocation<'_>) -> Result<Step> {
        if made.context.uid != 0 {
            return Err(Error::new(EPERM));
        }
        let context = &mut self.client_of(made.caller)?.context;
        (context.uid, context.gid) = (made.arg(0) as u32, made.arg(1) as u32);
        Ok(Step::Done(0))
    }
}
