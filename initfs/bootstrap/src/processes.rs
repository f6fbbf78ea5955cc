//! The processes: who they are, their contexts, how they end. The protocol is in `rt::protocol`.
//!
//! One thread serves it and never waits for a program: answers that have to wait (for a process
//! to end) are kept as tags.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use libredox::protocol::{ProcCall, ProcMeta};
use rt::fd::{self, Owned};
use rt::protocol::{
    Call, DEBUG_FD, DUP_CHILD, DUP_EXEC, DUP_FORK, DUP_THREAD, Ended, FIRST_FREE_FD,
    FIRST_HANDED_FD, NAMESPACE_FD, PROCESS_FD, THREAD_FD,
};
use rt::say;
use syscall::data::Event;
use syscall::error::{EACCES, EBADF, EBUSY, EINVAL, EIO, ENOENT, EPERM, ESRCH, Error, Result};
use syscall::flag::{EventFlags, O_ACCMODE, O_RDONLY};
use syscall::schemev2::{Opcode, Sqe};

use crate::context::{self, Authority, Identity, Status};
use crate::program;
use rt::socket::{Socket, fill, invalid, payload, wants_answer};

/// The id of the scheme's root.
pub const ROOT: usize = 0;
/// The path under `/scheme/proc/` of what tells who is who; as in Redox's process manager.
const CREDENTIALS: &str = "proc-creds-capability";
/// The program that the image is for.
const INIT: &[u8] = b"init\0";
/// The event data of the socket; contexts have their key, from 1 up.
const SOCKET_EVENT: usize = 0;

/// What an fd of this scheme is.
#[derive(Clone, Copy)]
enum File {
    Root,
    Credentials,
    Process(u32),
}

struct Context {
    fd: Owned,
    pid: u32,
    /// What the process knows it by; nothing for its first.
    token: Option<u64>,
}

struct Process {
    identity: Identity,
    /// Who started it, and takes it along when it ends.
    parent: u32,
    name: String,
    /// Fds on it.
    files: usize,
    /// Contexts that have not ended.
    contexts: usize,
    /// Fds to start with.
    handed: Vec<(usize, Owned)>,
    started: bool,
    /// Said before the last context ended.
    ending: Option<Ended>,
    ended: Option<Ended>,
    waiting: Vec<u32>,
}

/// All processes but the bootstrap process itself.
pub struct Processes {
    socket: Socket,
    authority: Authority,
    own: Owned,
    namespace: Owned,
    debug: usize,
    events: Option<Owned>,
    files: BTreeMap<usize, File>,
    processes: BTreeMap<u32, Process>,
    contexts: BTreeMap<usize, Context>,
    next_file: usize,
    next_pid: u32,
    next_context: usize,
}

impl Processes {
    /// None yet.
    pub fn new(
        socket: Socket,
        authority: Authority,
        own: Owned,
        namespace: Owned,
        debug: usize,
    ) -> Self {
        Self {
            socket,
            authority,
            own,
            namespace,
            debug,
            events: None,
            files: BTreeMap::from([(ROOT, File::Root)]),
            processes: BTreeMap::new(),
            contexts: BTreeMap::new(),
            next_file: ROOT + 1,
            next_pid: 2,
            next_context: SOCKET_EVENT + 1,
        }
    }

    /// Starts `init` and serves until it has ended.
    ///
    /// # Errors
    ///
    /// What starting it or the kernel answered.
    pub fn run_init(&mut self, event_scheme: usize) -> Result<Ended> {
        let events = Owned::new(fd::open_at(event_scheme, "", 0)?);
        self.socket.set_waiting(false)?;
        watch(&events, self.socket.raw(), SOCKET_EVENT)?;
        self.events = Some(events);

        let init = self.new_process(crate::BOOTSTRAP, crate::BOOTSTRAP.pid);
        if let Some(process) = self.processes.get_mut(&init) {
            // Nobody else need remember how it ended, but this function does.
            process.files += 1;
        }
        self.exec(init, INIT)?;
        loop {
            if let Some(ended) = self.processes.get(&init).and_then(|process| process.ended) {
                return Ok(ended);
            }
            let event = self.next_event()?;
            if event == SOCKET_EVENT {
                while let Some(sqe) = self.socket.receive()? {
                    self.handle(&sqe);
                }
            } else {
                self.look_after(event);
            }
        }
    }

    fn next_event(&self) -> Result<usize> {
        let events = self.events.as_ref().ok_or(Error::new(EIO))?;
        let mut event = Event::default();
        while syscall::read(events.raw(), &mut event)? == 0 {}
        Ok(event.data)
    }

    fn handle(&mut self, sqe: &Sqe) {
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => {
                let opened = self.open(sqe);
                self.socket.answer_fd(sqe.tag, opened);
            }
            Some(Opcode::Dup) => {
                let made = self.dup(sqe);
                self.socket.answer_fd(sqe.tag, made);
            }
            Some(Opcode::Sendfd) => {
                let kept = self.keep_fd(sqe);
                self.socket.answer(sqe.tag, kept);
            }
            Some(Opcode::Call) => match self.call(sqe) {
                Ok(None) => {}
                Ok(Some(value)) => self.socket.answer(sqe.tag, Ok(value)),
                Err(error) => self.socket.answer(sqe.tag, Err(error)),
            },
            Some(Opcode::CloseMsg) => self.close(sqe.args[0] as usize),
            _ if wants_answer(sqe) => self.socket.answer(sqe.tag, invalid()),
            _ => {}
        }
    }

    fn file(&self, sqe: &Sqe) -> Result<File> {
        let id = sqe.args[0] as usize;
        self.files.get(&id).copied().ok_or(Error::new(EBADF))
    }

    /// The process that a request on its fd is about.
    fn target(&mut self, sqe: &Sqe) -> Result<(u32, &mut Process)> {
        let File::Process(pid) = self.file(sqe)? else {
            return invalid();
        };
        let process = self.processes.get_mut(&pid).ok_or(Error::new(ESRCH))?;
        Ok((pid, process))
    }

    fn new_file(&mut self, file: File) -> Result<Owned> {
        let id = self.next_file;
        let fd = self.socket.file(id)?;
        self.next_file += 1;
        self.files.insert(id, file);
        if let File::Process(pid) = file
            && let Some(process) = self.processes.get_mut(&pid)
        {
            process.files += 1;
        }
        Ok(fd)
    }

    /// \[id, path, length, flags, ..\].
    fn open(&mut self, sqe: &Sqe) -> Result<Owned> {
        // SAFETY: the request is answered after this.
        let path = unsafe { payload(sqe) };
        let File::Root = self.file(sqe)? else {
            return Err(Error::new(EACCES));
        };
        if path != CREDENTIALS.as_bytes() {
            return Err(Error::new(ENOENT));
        }
        if sqe.args[3] as usize & O_ACCMODE != O_RDONLY {
            return invalid();
        }
        self.new_file(File::Credentials)
    }

    /// \[id, request, length\].
    fn dup(&mut self, sqe: &Sqe) -> Result<Owned> {
        // SAFETY: the request is answered after this.
        let request = unsafe { payload(sqe) };
        let (pid, process) = self.target(sqe)?;
        let identity = process.identity;
        if let Some(token) = request.strip_prefix(DUP_THREAD) {
            let token = token.try_into().map_err(|_| Error::new(EINVAL))?;
            process.started = true;
            let context = self.new_context(pid, Some(u64::from_ne_bytes(token)))?;
            let fd = self.context_fd(context)?;
            return fd::dup(fd, &[]).map(Owned::new);
        }
        if let Some(line) = request.strip_prefix(DUP_EXEC) {
            return self.exec_again(pid, line);
        }
        let parent = match request {
            DUP_CHILD => pid,
            DUP_FORK => process.parent,
            _ => return invalid(),
        };
        let child = self.new_process(identity, parent);
        self.new_file(File::Process(child))
    }

    /// An fd that a process is to start with: \[id, flags, number, count\].
    fn keep_fd(&mut self, sqe: &Sqe) -> Result<usize> {
        let fd = self.socket.sent_fd(sqe)?;
        let number = sqe.args[2] as usize;
        let (_, process) = self.target(sqe)?;
        if process.started {
            return Err(Error::new(EBUSY));
        }
        if !(FIRST_HANDED_FD..FIRST_FREE_FD).contains(&number) {
            return invalid();
        }
        process.handed.push((number, fd));
        Ok(0)
    }

    /// \[id, payload, length, word 0, word 1, word 2\]; `None` where the answer comes later.
    fn call(&mut self, sqe: &Sqe) -> Result<Option<usize>> {
        let [number, first, second] = [sqe.args[3], sqe.args[4], sqe.args[5]];
        if let File::Credentials = self.file(sqe)? {
            let meta = self.credentials(number, first)?;
            // SAFETY: plain integers without padding.
            let bytes = unsafe { plain::as_bytes(&meta) };
            if (sqe.args[2] as usize) < bytes.len() {
                return invalid();
            }
            // SAFETY: the request is answered after this, and this call is for reading.
            return Ok(Some(unsafe { fill(sqe, bytes) }));
        }
        let call = Call::from_raw(number).ok_or(Error::new(EINVAL))?;
        let (pid, process) = self.target(sqe)?;
        match call {
            Call::Pid => return Ok(Some(pid as usize)),
            Call::Exit => self.end(pid, Ended::Exited(first as u8)),
            Call::Kill => self.end(pid, Ended::Killed),
            Call::Wait => match process.ended {
                Some(ended) => return Ok(Some(ended.to_raw())),
                None => {
                    process.waiting.push(sqe.tag);
                    return Ok(None);
                }
            },
            Call::SetIds => self.set_ids(pid, first as u32, second as u32)?,
            Call::Exec => {
                if process.started {
                    return Err(Error::new(EBUSY));
                }
                // SAFETY: the request is answered after this.
                let line = unsafe { payload(sqe) };
                self.exec(pid, line)?;
            }
            Call::EndThread => {
                let mut contexts = self.contexts.values();
                let ending = contexts
                    .find(|context| context.pid == pid && context.token == Some(first))
                    .ok_or(Error::new(ESRCH))?;
                self.authority.kill(&ending.fd)?;
            }
            Call::Interrupt => {
                for context in self.contexts.values().filter(|context| context.pid == pid) {
                    self.authority.interrupt(&context.fd)?;
                }
            }
        }
        Ok(Some(0))
    }

    fn set_ids(&mut self, pid: u32, uid: u32, gid: u32) -> Result<()> {
        let process = self.processes.get_mut(&pid).ok_or(Error::new(ESRCH))?;
        if process.identity.uid != 0 {
            return Err(Error::new(EPERM));
        }
        process.identity = Identity { pid, uid, gid };
        for context in self.contexts.values().filter(|context| context.pid == pid) {
            self.authority
                .set_identity(&context.fd, process.identity, &process.name)?;
        }
        Ok(())
    }

    /// Who a process is, as Redox's process manager answers it.
    fn credentials(&self, number: u64, pid: u64) -> Result<ProcMeta> {
        if number != ProcCall::GetProcCredentials as u64 {
            return invalid();
        }
        let identity = if pid == 1 {
            crate::BOOTSTRAP
        } else {
            let process = u32::try_from(pid)
                .ok()
                .and_then(|pid| self.processes.get(&pid));
            let process = process.filter(|process| process.ended.is_none());
            process.ok_or(Error::new(ESRCH))?.identity
        };
        Ok(ProcMeta {
            pid: identity.pid,
            pgid: identity.pid,
            ppid: 1,
            ruid: identity.uid,
            euid: identity.uid,
            suid: identity.uid,
            rgid: identity.gid,
            egid: identity.gid,
            sgid: identity.gid,
            ens: 0,
            rns: 0,
        })
    }

    fn close(&mut self, id: usize) {
        if let Some(File::Process(pid)) = self.files.remove(&id)
            && let Some(process) = self.processes.get_mut(&pid)
        {
            process.files -= 1;
            self.forget_if_done(pid);
        }
    }

    fn new_process(&mut self, identity: Identity, parent: u32) -> u32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        let process = Process {
            identity: Identity { pid, ..identity },
            parent,
            name: String::new(),
            files: 0,
            contexts: 0,
            handed: Vec::new(),
            started: false,
            ending: None,
            ended: None,
            waiting: Vec::new(),
        };
        self.processes.insert(pid, process);
        pid
    }

    /// Starts a program in a process that has none.
    fn exec(&mut self, pid: u32, line: &[u8]) -> Result<()> {
        let name = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let process = self.processes.get_mut(&pid).ok_or(Error::new(ESRCH))?;
        process.name = String::from_utf8_lossy(name).into_owned();
        process.started = true;
        let identity = process.identity;
        let handed = core::mem::take(&mut process.handed);

        let context = self.new_context(pid, None)?;
        let own_process = self.new_file(File::Process(pid))?;
        let fd = &self.contexts.get(&context).ok_or(Error::new(EIO))?.fd;
        let loaded = program::load(fd, &self.own, identity, line).and_then(|space| {
            drop(space);
            context::hand_fd(fd, self.debug, DEBUG_FD)?;
            context::hand_fd(fd, self.namespace.raw(), NAMESPACE_FD)?;
            context::hand_fd(fd, own_process.raw(), PROCESS_FD)?;
            context::hand_fd(fd, fd.raw(), THREAD_FD)?;
            for (number, handed) in &handed {
                context::hand_fd(fd, handed.raw(), *number)?;
            }
            context::start(fd)
        });
        if loaded.is_err() {
            self.end(pid, Ended::Killed);
        }
        loaded
    }

    /// What makes another program of a process with one context.
    fn exec_again(&mut self, pid: u32, line: &[u8]) -> Result<Owned> {
        let mut contexts = self.contexts.values().filter(|context| context.pid == pid);
        let context = contexts.next().ok_or(Error::new(ESRCH))?;
        if contexts.next().is_some() {
            return Err(Error::new(EBUSY));
        }
        let process = self.processes.get(&pid).ok_or(Error::new(ESRCH))?;
        program::load(&context.fd, &self.own, process.identity, line)
    }

    /// A context of this process, watched but not started.
    fn new_context(&mut self, pid: u32, token: Option<u64>) -> Result<usize> {
        let process = self.processes.get_mut(&pid).ok_or(Error::new(ESRCH))?;
        if process.ending.is_some() || process.ended.is_some() {
            return Err(Error::new(ESRCH));
        }
        let fd = self
            .authority
            .new_context(process.identity, &process.name)?;
        let key = self.next_context;
        self.next_context += 1;
        watch(self.events.as_ref().ok_or(Error::new(EIO))?, fd.raw(), key)?;
        process.contexts += 1;
        self.contexts.insert(key, Context { fd, pid, token });
        Ok(key)
    }

    fn context_fd(&self, key: usize) -> Result<usize> {
        let context = self.contexts.get(&key).ok_or(Error::new(EIO))?;
        Ok(context.fd.raw())
    }

    /// Ends all contexts of a process. How it ended counts the first time.
    fn end(&mut self, pid: u32, ended: Ended) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.ending.get_or_insert(ended);
        for context in self.contexts.values().filter(|context| context.pid == pid) {
            if let Err(error) = self.authority.kill(&context.fd) {
                say!("# cannot end a thread of process {pid}: {error}");
            }
        }
        self.finish_if_over(pid);
    }

    /// A context has changed its state.
    fn look_after(&mut self, key: usize) {
        let Some(context) = self.contexts.get(&key) else {
            return;
        };
        let pid = context.pid;
        match context::status(&context.fd) {
            Ok(Status::Alive) => return,
            Ok(Status::Crashed(exception, address)) => {
                self.contexts.remove(&key);
                self.crashed(pid, exception, address);
            }
            Ok(Status::Ended) | Err(_) => drop(self.contexts.remove(&key)),
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.contexts -= 1;
        }
        self.finish_if_over(pid);
    }

    fn crashed(&mut self, pid: u32, exception: u8, address: usize) {
        if let Some(process) = self.processes.get(&pid) {
            let name = &process.name;
            say!("# {name} (process {pid}) crashed: exception {exception} at {address:#x}");
        }
        self.end(pid, Ended::Crashed(exception));
    }

    /// When the last context is gone, answers who waits, and ends what the process has started.
    fn finish_if_over(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if process.contexts > 0 || process.ended.is_some() || !process.started {
            return;
        }
        let ended = process.ending.unwrap_or(Ended::Killed);
        process.ended = Some(ended);
        for tag in core::mem::take(&mut process.waiting) {
            self.socket.answer(tag, Ok(ended.to_raw()));
        }
        let children = self.processes.iter();
        let children = children.filter(|(_, child)| child.parent == pid && child.ended.is_none());
        let children: Vec<u32> = children.map(|(&child, _)| child).collect();
        self.forget_if_done(pid);
        for child in children {
            self.end(child, Ended::Killed);
        }
    }

    fn forget_if_done(&mut self, pid: u32) {
        let done = |process: &Process| process.files == 0 && process.contexts == 0;
        if self.processes.get(&pid).is_some_and(done) {
            self.processes.remove(&pid);
        }
    }
}

/// Has the event queue report when `fd` becomes readable, with `data`.
fn watch(events: &Owned, fd: usize, data: usize) -> Result<()> {
    let event = Event {
        id: fd,
        flags: EventFlags::EVENT_READ,
        data,
    };
    syscall::write(events.raw(), &event).map(drop)
}
