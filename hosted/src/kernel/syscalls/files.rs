//! The system calls on one file, but for SYS_CALL and mappings.
//!
//! Each function is one system call: the kernel's own checks, in the kernel's order, then either
//! an answer at once or an SQE and what its answer will lead to.

use std::sync::Arc;

use syscall::error::{EACCES, EINVAL, ENODEV, ENOENT, EPERM, Error, Result};
use syscall::flag::{F_DUPFD, F_GETFD, F_SETFD, SEEK_CUR, SEEK_END, SEEK_SET};
use syscall::schemev2::Opcode;

use super::{Invocation, Step};
use crate::kernel::State;
use crate::kernel::answer::seek;
use crate::kernel::call::{After, Buffer, Call, Context};
use crate::kernel::files::Description;
use crate::proto::Op;

impl State {
    /// Opens by path: the name-space manager does it for the client, with its own credentials.
    pub(super) fn open(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let path = made.path()?;
        let path = path.strip_prefix("/scheme/").ok_or(Error::new(ENOENT))?;
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        if name == "namespace" {
            return Err(Error::new(EACCES));
        }
        let root = self.names.get(name).ok_or(Error::new(ENODEV))?.clone();
        let mut call = self.opening(made, rest);
        call.cancelable = false;
        self.ask_to_open(made, &root, Context::MANAGER, call)
    }

    pub(super) fn open_at(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let call = self.opening(made, made.path()?);
        let directory = self.description(made.caller, made.fd())?;
        let call = call.holding(directory.clone());
        self.ask_to_open(made, &directory, made.context, call)
    }

    fn opening(&self, made: &Invocation<'_>, path: &str) -> Call {
        let flags = made.arg(0) as u32;
        let after = After::NewFd {
            flags,
            replace: None,
        };
        made.call(after).lending(Buffer::copy(path.as_bytes()))
    }

    fn ask_to_open(
        &mut self,
        made: &Invocation<'_>,
        directory: &Description,
        context: Context,
        call: Call,
    ) -> Result<Step> {
        let path = &call.payload;
        let (flags, fcntl_flags) = (made.arg(0), made.arg(1));
        let args = [
            directory.number(),
            path.address(),
            path.len() as u64,
            flags,
            fcntl_flags,
        ];
        self.ask(directory, context, Opcode::OpenAt, args, call)
    }

    pub(super) fn dup(&mut self, made: &Invocation<'_>, replace: Option<usize>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        if made.payload.is_empty() {
            return Ok(Step::Done(match replace {
                None => self.insert_fd(made.caller, description, 0)?,
                Some(fd) => self.replace_fd(made.caller, description, fd)?,
            }));
        }
        let flags = description.flags();
        let call = made.call(After::NewFd { flags, replace });
        let call = call.lending(Buffer::copy(made.payload));
        let call = call.holding(description.clone());
        let name = &call.payload;
        let args = [
            description.number(),
            name.address(),
            name.len() as u64,
            0,
            0,
        ];
        self.ask(&description, made.context, Opcode::Dup, args, call)
    }

    pub(super) fn dup2(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let new = usize::try_from(made.arg(0)).unwrap_or(usize::MAX);
        if made.fd() == new && made.payload.is_empty() {
            self.description(made.caller, new)?;
            return Ok(Step::Done(new));
        }
        self.dup(made, Some(new))
    }

    pub(super) fn close(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.remove_fd(made.caller, made.fd())?;
        description.detach(made.context.pid);
        Ok(Step::Done(0))
    }

    /// read and write, at the file's own offset or at one that is given.
    pub(super) fn transfer(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let explicit = made.arg(1) != 0;
        let (offset, flags, after) = if explicit {
            let flags = made.arg(3).min(u64::from(u32::MAX)) as u32;
            (made.arg(2), flags, After::Value)
        } else {
            (
                description.implicit_offset(),
                description.flags(),
                After::Advance,
            )
        };
        let call = made.call(after).holding(description.clone());
        let (opcode, call) = match made.op {
            Op::Read => (
                Opcode::Read,
                call.sharing(Buffer::zeroed(made.arg(0) as usize)),
            ),
            _ => (Opcode::Write, call.lending(Buffer::copy(made.payload))),
        };
        let bytes = &call.payload;
        let length = bytes.len() as u64;
        let args = [
            description.number(),
            bytes.address(),
            length,
            offset,
            u64::from(flags),
        ];
        self.ask(&description, made.context, opcode, args, call)
    }

    /// An operation that fills a buffer.
    pub(super) fn fill(
        &mut self,
        made: &Invocation<'_>,
        opcode: Opcode,
        after: After,
    ) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let call = made.call(after).holding(description.clone());
        let call = call.sharing(Buffer::zeroed(made.arg(0) as usize));
        let (address, length) = (call.payload.address(), call.payload.len() as u64);
        let args = [description.number(), address, length, 0, 0];
        self.ask(&description, made.context, opcode, args, call)
    }

    /// An operation without a buffer and with one argument at most.
    pub(super) fn simple(
        &mut self,
        made: &Invocation<'_>,
        opcode: Opcode,
        after: After,
    ) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let call = made.call(after).holding(description.clone());
        let args = [description.number(), made.arg(0), 0, 0, 0];
        self.ask(&description, made.context, opcode, args, call)
    }

    pub(super) fn with_path(&mut self, made: &Invocation<'_>, opcode: Opcode) -> Result<Step> {
        let path = made.path()?;
        let description = self.description(made.caller, made.fd())?;
        let call = made
            .call(After::Zero)
            .lending(Buffer::copy(path.as_bytes()));
        let call = call.holding(description.clone());
        let (address, length) = (call.payload.address(), call.payload.len() as u64);
        let args = [description.number(), address, length, made.arg(0), 0];
        self.ask(&description, made.context, opcode, args, call)
    }

    pub(super) fn fcntl(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let (command, argument) = (made.arg(0), made.arg(1));
        match usize::try_from(command) {
            Ok(F_DUPFD) => {
                let least = usize::try_from(argument).unwrap_or(usize::MAX);
                return Ok(Step::Done(self.insert_fd(
                    made.caller,
                    description,
                    least,
                )?));
            }
            Ok(F_GETFD | F_SETFD) => return Ok(Step::Done(0)),
            _ => {}
        }
        let call = made.call(After::Fcntl { command, argument });
        let call = call.holding(description.clone());
        let args = [description.number(), command, argument, 0, 0];
        self.ask(&description, made.context, Opcode::Fcntl, args, call)
    }

    pub(super) fn fchown(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let (uid, gid) = (made.arg(0) as u32, made.arg(1) as u32);
        let context = made.context;
        if context.uid != 0 && (uid != context.uid || gid != context.gid) {
            return Err(Error::new(EPERM));
        }
        let call = made.call(After::Zero).holding(description.clone());
        let args = [description.number(), u64::from(uid), u64::from(gid), 0, 0];
        self.ask(&description, context, Opcode::Fchown, args, call)
    }

    pub(super) fn lseek(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let distance = made.arg(0) as i64;
        let from = match usize::try_from(made.arg(1)) {
            Ok(SEEK_SET) => 0,
            Ok(SEEK_CUR) => description.offset(),
            Ok(SEEK_END) => {
                return self.simple_with(made, &description, After::SeekEnd(distance));
            }
            _ => return Err(Error::new(EINVAL)),
        };
        seek(&description, from, distance).map(Step::Done)
    }

    fn simple_with(
        &mut self,
        made: &Invocation<'_>,
        description: &Arc<Description>,
        after: After,
    ) -> Result<Step> {
        let call = made.call(after).holding(description.clone());
        let args = [description.number(), 0, 0, 0, 0];
        self.ask(description, made.context, Opcode::Fsize, args, call)
    }
}
