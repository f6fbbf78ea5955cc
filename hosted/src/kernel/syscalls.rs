//! System calls on scheme files: what a process asks for becomes an SQE.
//!
//! The layouts are those of the kernel's `src/scheme/user.rs`, the checks before them those of
//! its `src/syscall/fs.rs`. A call either is over at once, or goes to the scheme and is finished
//! by `answer`.

use std::sync::Arc;

use syscall::data::NewFdParams;
use syscall::error::{
    EACCES, EBADF, EBUSY, EINVAL, ENAMETOOLONG, ENODEV, ENOENT, EOPNOTSUPP, EPERM, EXDEV, Error,
    Result,
};
use syscall::flag::{
    CallFlags, F_DUPFD, F_GETFD, F_SETFD, MapFlags, SEEK_CUR, SEEK_END, SEEK_SET, SendFdFlags,
    StdFsCallKind,
};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};

use super::address_space::USER_END;
use super::answer::seek;
use super::call::{
    After, AfterUnmapping, Buffer, Call, Caller, ClientId, Context, Held, MapRequest, Unmapping,
};
use super::client::Place;
use super::daemon::File;
use super::files::Description;
use super::scheme::Scheme;
use super::{State, client::Client};
use crate::proto::{Op, PATH_MAX, Request};

/// How a system call goes on.
#[derive(Debug)]
pub(super) enum Step {
    /// It is over.
    Done(usize),
    /// The scheme is asked; the reply comes later.
    Asked,
}

/// Everything a system call is made with.
pub(super) struct Invocation<'a> {
    pub(super) caller: &'a Caller,
    pub(super) context: Context,
    pub(super) op: Op,
    pub(super) request: &'a Request,
    pub(super) payload: &'a [u8],
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
    pub(super) fn system_call(&mut self, made: &Invocation<'_>) -> Result<Step> {
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
            Op::Hello | Op::Cancel | Op::Parcel | Op::Unparcel | Op::Fork | Op::Adopt => {
                Err(Error::new(EOPNOTSUPP))
            }
        }
    }

    /// Queues a request and enters the call; gives the call back where the scheme is gone.
    pub(super) fn issue(
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
    pub(super) fn cancel(&mut self, client: ClientId, request: u32) {
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

    /// Opens by path: the name-space manager does it for the client, with its own credentials.
    fn open(&mut self, made: &Invocation<'_>) -> Result<Step> {
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

    fn open_at(&mut self, made: &Invocation<'_>) -> Result<Step> {
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

    fn dup(&mut self, made: &Invocation<'_>, replace: Option<usize>) -> Result<Step> {
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

    fn dup2(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let new = usize::try_from(made.arg(0)).unwrap_or(usize::MAX);
        if made.fd() == new && made.payload.is_empty() {
            self.description(made.caller, new)?;
            return Ok(Step::Done(new));
        }
        self.dup(made, Some(new))
    }

    fn close(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.remove_fd(made.caller, made.fd())?;
        description.detach(made.context.pid);
        Ok(Step::Done(0))
    }

    /// read and write, at the file's own offset or at one that is given.
    fn transfer(&mut self, made: &Invocation<'_>) -> Result<Step> {
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
    fn fill(&mut self, made: &Invocation<'_>, opcode: Opcode, after: After) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let call = made.call(after).holding(description.clone());
        let call = call.sharing(Buffer::zeroed(made.arg(0) as usize));
        let (address, length) = (call.payload.address(), call.payload.len() as u64);
        let args = [description.number(), address, length, 0, 0];
        self.ask(&description, made.context, opcode, args, call)
    }

    /// An operation without a buffer and with one argument at most.
    fn simple(&mut self, made: &Invocation<'_>, opcode: Opcode, after: After) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let call = made.call(after).holding(description.clone());
        let args = [description.number(), made.arg(0), 0, 0, 0];
        self.ask(&description, made.context, opcode, args, call)
    }

    fn with_path(&mut self, made: &Invocation<'_>, opcode: Opcode) -> Result<Step> {
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

    fn fcntl(&mut self, made: &Invocation<'_>) -> Result<Step> {
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

    fn fchown(&mut self, made: &Invocation<'_>) -> Result<Step> {
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

    fn lseek(&mut self, made: &Invocation<'_>) -> Result<Step> {
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

    /// SYS_CALL, with its three kinds: files sent, files received, everything else.
    fn call(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let flags = CallFlags::from_bits(made.arg(0) as usize & !0xff).ok_or(Error::new(EINVAL))?;
        let fds = made.arg(1) & 0xff;
        if fds == 0 || fds > 2 {
            return Err(Error::new(EINVAL));
        }
        let second = (fds == 2).then(|| usize::try_from(made.arg(2)).unwrap_or(usize::MAX));
        let count = usize::try_from(made.arg(1) >> 8).unwrap_or(usize::MAX);
        let words = made.request.args.get(3..).unwrap_or_default();
        let words = words.get(..count).unwrap_or(words);
        if flags.contains(CallFlags::WRITE | CallFlags::FD) {
            return match second {
                Some(_) => Err(Error::new(EINVAL)),
                None => self.send_fds(made, flags, words),
            };
        }
        if flags.contains(CallFlags::READ | CallFlags::FD) {
            return match second {
                Some(_) => Err(Error::new(EINVAL)),
                None => self.receive_fds(made, flags, words),
            };
        }
        self.call_normal(made, flags, second, words)
    }

    fn call_normal(
        &mut self,
        made: &Invocation<'_>,
        flags: CallFlags,
        second: Option<usize>,
        words: &[u64],
    ) -> Result<Step> {
        let consume = flags.contains(CallFlags::CONSUME);
        let target = self.get_or_remove(made, made.fd(), consume)?;
        let description = target.description().ok_or(Error::new(EBADF))?.clone();
        let scheme = description.scheme().clone();
        let number = description.number();
        drop(description);
        // The second file is not kept open while the scheme works: its id alone goes along.
        let second = match second {
            None => None,
            Some(fd) => {
                let other = self.get_or_remove(made, fd, consume)?;
                let other = other.description().ok_or(Error::new(EBADF))?;
                if !Arc::ptr_eq(other.scheme(), &scheme) {
                    return Err(Error::new(EXDEV));
                }
                Some(other.number())
            }
        };
        let standard = flags.contains(CallFlags::STD_FS);
        let (opcode, after, words) = if standard {
            let &[kind, one, two] = words else {
                return Err(Error::new(EINVAL));
            };
            let kind = StdFsCallKind::try_from_raw(kind as u8).ok_or(Error::new(EOPNOTSUPP))?;
            (Opcode::StdFsCall, After::StdFs, [kind as u64, one, two])
        } else {
            let mut all = [0; 3];
            all.iter_mut()
                .zip(words)
                .for_each(|(word, given)| *word = *given);
            (Opcode::Call, After::Value, all)
        };
        let call = made
            .call(after)
            .holding(target)
            .sharing(Buffer::copy(made.payload));
        let [a, b, c] = words;
        let sqe = Sqe {
            opcode: opcode as u8,
            sqe_flags: second.map_or(SqeFlags::empty(), |_| SqeFlags::MULTIPLE_IDS),
            args: [
                number,
                call.payload.address(),
                call.payload.len() as u64,
                a,
                b,
                second.unwrap_or(c),
            ],
            caller: made.context.pid,
            ..Sqe::default()
        };
        let asked = self.issue_raw(&scheme, sqe, call);
        asked.map(|()| Step::Asked).map_err(|_| Error::new(ENODEV))
    }

    fn get_or_remove(&mut self, made: &Invocation<'_>, fd: usize, remove: bool) -> Result<Held> {
        if remove {
            return Ok(Held::consumed(self.remove_fd(made.caller, fd)?));
        }
        Ok(Held::from(self.description(made.caller, fd)?))
    }

    fn send_fds(&mut self, made: &Invocation<'_>, flags: CallFlags, words: &[u64]) -> Result<Step> {
        let numbers = fd_numbers(made.payload);
        let target = self.description(made.caller, made.fd())?;
        let fds = self.take_fds(made.caller, &numbers, flags.contains(CallFlags::FD_CLONE))?;
        let mut send_flags = SendFdFlags::empty();
        if flags.contains(CallFlags::FD_EXCLUSIVE) {
            if fds
                .iter()
                .any(|description| Arc::strong_count(description) > 1)
            {
                return Err(Error::new(EBUSY));
            }
            send_flags |= SendFdFlags::EXCLUSIVE;
        }
        let count = fds.len();
        let mut call = made.call(After::Sent(count)).holding(target.clone());
        call.fds = fds;
        let word = words.first().copied().unwrap_or(0);
        let args = [
            target.number(),
            send_flags.bits() as u64,
            word,
            count as u64,
            0,
        ];
        self.ask(&target, made.context, Opcode::Sendfd, args, call)
    }

    fn receive_fds(
        &mut self,
        made: &Invocation<'_>,
        flags: CallFlags,
        words: &[u64],
    ) -> Result<Step> {
        let target = self.description(made.caller, made.fd())?;
        if !made.payload.len().is_multiple_of(size_of::<usize>()) {
            return Err(Error::new(EINVAL));
        }
        let call = made.call(After::Received).holding(target.clone());
        let call = call.sharing(Buffer::copy(made.payload));
        let upper = syscall::flag::RecvFdFlags::UPPER_TBL.bits() as u64;
        let flags = if flags.contains(CallFlags::FD_UPPER) {
            upper
        } else {
            0
        };
        let count = made.payload.len() / size_of::<usize>();
        let word = |index: usize| words.get(index).copied().unwrap_or(0);
        let args = [target.number(), flags, count as u64, word(0), word(1)];
        self.ask(&target, made.context, Opcode::Recvfd, args, call)
    }

    fn mmap(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let [address, size, flags, offset] = [0, 1, 2, 3].map(|index| made.arg(index));
        let page = gem::units::PAGE_SIZE;
        if size == 0 || !address.is_multiple_of(page) || !offset.is_multiple_of(page) {
            return Err(Error::new(EINVAL));
        }
        let Caller::Client(..) = made.caller else {
            return Err(Error::new(EBUSY));
        };
        let bytes = size.checked_next_multiple_of(page);
        let end = bytes.and_then(|bytes| address.checked_add(bytes));
        let fits = address != 0 && end.is_some_and(|end| end <= USER_END);
        let writeable = flags as usize & MapFlags::PROT_WRITE.bits() != 0;
        let request = MapRequest {
            address: fits.then_some(address),
            bytes: bytes.unwrap_or(u64::MAX),
            offset,
            writeable,
        };
        let call = made.call(After::Map(request)).holding(description.clone());
        let args = [description.number(), size, flags, offset, 0];
        self.ask(&description, made.context, Opcode::MmapPrep, args, call)
    }

    fn munmap(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let (address, size) = (made.arg(0), made.arg(1));
        let page = gem::units::PAGE_SIZE;
        let bytes = size
            .checked_next_multiple_of(page)
            .ok_or(Error::new(EINVAL))?;
        let end = address.checked_add(bytes).filter(|end| *end <= USER_END);
        if bytes == 0 || !address.is_multiple_of(page) || end.is_none() {
            return Err(Error::new(EINVAL));
        }
        let context = made.context;
        let pieces = self.client_of(made.caller)?.space.carve(address, bytes);
        self.unmap_next(Unmapping {
            caller: Some((made.caller.clone(), AfterUnmapping::Nothing)),
            context,
            current: None,
            pieces,
        });
        Ok(Step::Asked)
    }

    fn set_identity(&mut self, made: &Invocation<'_>) -> Result<Step> {
        if made.context.uid != 0 {
            return Err(Error::new(EPERM));
        }
        let context = &mut self.client_of(made.caller)?.context;
        (context.uid, context.gid) = (made.arg(0) as u32, made.arg(1) as u32);
        Ok(Step::Done(0))
    }

    /// The client behind `caller`; EBUSY for the daemon itself, which has no mappings of schemes.
    pub(super) fn client_of(&mut self, caller: &Caller) -> Result<&mut Client> {
        match caller {
            Caller::Client(id, _) => self.clients.get_mut(id).ok_or(Error::new(EBADF)),
            Caller::Thread(_) => Err(Error::new(EBUSY)),
        }
    }

    /// What the caller's `fd` refers to.
    pub(super) fn description(&self, caller: &Caller, fd: usize) -> Result<Arc<Description>> {
        let found = match caller {
            Caller::Client(id, _) => self.clients.get(id).and_then(|client| client.fds.get(fd)),
            Caller::Thread(_) => match self.files.get(fd) {
                Some(File::Scheme(description)) => Some(description),
                _ => None,
            },
        };
        found.cloned().ok_or(Error::new(EBADF))
    }

    /// A new descriptor of the caller, `least` or above.
    pub(super) fn insert_fd(
        &mut self,
        caller: &Caller,
        description: Arc<Description>,
        least: usize,
    ) -> Result<usize> {
        match caller {
            Caller::Client(..) => self.client_of(caller)?.fds.insert(description, least),
            Caller::Thread(_) => self.files.insert(File::Scheme(description), least),
        }
    }

    fn remove_fd(&mut self, caller: &Caller, fd: usize) -> Result<Arc<Description>> {
        match caller {
            Caller::Client(..) => self.client_of(caller)?.fds.remove(fd),
            Caller::Thread(_) => self.remove_own(fd),
        }
    }

    /// Makes `fd` refer to `description`, whatever it was before.
    pub(super) fn replace_fd(
        &mut self,
        caller: &Caller,
        description: Arc<Description>,
        fd: usize,
    ) -> Result<usize> {
        if let Ok(old) = self.remove_fd(caller, fd) {
            let pid = match caller {
                Caller::Client(..) => self.client_of(caller)?.context.pid,
                Caller::Thread(_) => Self::own_context().pid,
            };
            old.detach(pid);
        }
        match caller {
            Caller::Client(..) => self.client_of(caller)?.fds.insert_at(description, fd),
            Caller::Thread(_) => self.files.insert_at(File::Scheme(description), fd),
        }
    }

    /// The descriptions behind `numbers`, which leave the caller's table unless `keep`. All or
    /// none.
    pub(super) fn take_fds(
        &mut self,
        caller: &Caller,
        numbers: &[usize],
        keep: bool,
    ) -> Result<Vec<Arc<Description>>> {
        let found: Result<Vec<_>> = numbers
            .iter()
            .map(|fd| self.description(caller, *fd))
            .collect();
        let found = found?;
        if keep {
            return Ok(found);
        }
        let mut unique = numbers.to_vec();
        unique.sort_unstable();
        unique.dedup();
        if unique.len() != numbers.len() {
            return Err(Error::new(EBADF));
        }
        drop(found);
        numbers
            .iter()
            .map(|fd| self.remove_fd(caller, *fd))
            .collect()
    }

    /// Puts descriptions into the caller's table, at the numbers in `payload`, or at free ones,
    /// which are then written there, where the first is `usize::MAX`.
    pub(super) fn insert_fds(
        &mut self,
        caller: &Caller,
        descriptions: Vec<Arc<Description>>,
        payload: &mut [u8],
    ) -> Result<usize> {
        let count = descriptions.len();
        if payload.len() != count * size_of::<usize>() {
            return Err(Error::new(EINVAL));
        }
        let anywhere = fd_numbers(payload).first() == Some(&usize::MAX);
        let slots = payload.chunks_exact_mut(size_of::<usize>());
        for (description, slot) in descriptions.into_iter().zip(slots) {
            let fd = if anywhere {
                self.insert_fd(caller, description, 0)?
            } else {
                let wanted = fd_numbers(slot).first().copied().unwrap_or(usize::MAX);
                self.insert_new_at(caller, description, wanted)?
            };
            slot.copy_from_slice(&fd.to_ne_bytes());
        }
        Ok(count)
    }

    /// Puts a description at a number that must be free.
    pub(super) fn insert_new_at(
        &mut self,
        caller: &Caller,
        description: Arc<Description>,
        fd: usize,
    ) -> Result<usize> {
        match caller {
            Caller::Client(..) => self.client_of(caller)?.fds.insert_at(description, fd),
            Caller::Thread(_) => self.files.insert_at(File::Scheme(description), fd),
        }
    }
}

/// The file descriptor numbers in a payload; a rest that is no whole number does not count.
pub(super) fn fd_numbers(payload: &[u8]) -> Vec<usize> {
    payload
        .as_chunks()
        .0
        .iter()
        .map(|chunk| usize::from_ne_bytes(*chunk))
        .collect()
}

/// A file of the daemon's own scheme, as `dup` of the scheme's socket describes it.
pub(super) fn own_file(scheme: Arc<Scheme>, params: &NewFdParams) -> Result<Arc<Description>> {
    let description = Description::at_offset(
        scheme,
        params.number as u64,
        params.flags as u32,
        params.internal_flags,
        params.offset,
    )?;
    Ok(Arc::new(description))
}
