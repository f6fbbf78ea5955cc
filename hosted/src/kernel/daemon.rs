//! The system calls of the daemon itself: making schemes, reading requests, writing completions,
//! and calls on its own scheme's files.
//!
//! The daemon has four kinds of files: the capability to make schemes, the name space, scheme
//! sockets, and files of schemes (its own). Its calls on the last are like a client's, but that
//! the calling thread waits here; the thread that reads the scheme's socket must not make any,
//! or it waits for itself, as on Redox. One thread reads a scheme's socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::epoll::EpollTimeout;
use syscall::data::NewFdParams;
use syscall::error::{EAGAIN, EBADF, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, Error, Result};
use syscall::flag::{CallFlags, F_DUPFD, F_GETFD, F_GETFL, F_SETFD, F_SETFL, O_NONBLOCK};
use syscall::schemev2::Sqe;

use super::call::{Caller, LocalAnswer, Waiter};
use super::fds::fd_numbers;
use super::files::Description;
use super::scheme::Scheme;
use super::syscalls::{Invocation, Step};
use super::{Shared, State};
use crate::proto::{Op, Request, demux};

const CAPABILITY_PATH: &str = "/scheme/namespace/scheme-creation-cap";
const CREATE_SCHEME: &[u8] = b"create-scheme";

/// An open file of the daemon.
#[derive(Clone, Debug)]
pub(crate) enum File {
    /// The right to make schemes.
    Capability,
    /// The name space.
    Namespace,
    /// A scheme's socket. The scheme is open as long as one of these is.
    Socket(Arc<SchemeSocket>),
    /// A file of a scheme.
    Scheme(Arc<Description>),
}

/// The daemon's end of a scheme.
#[derive(Debug)]
pub(crate) struct SchemeSocket {
    scheme: Arc<Scheme>,
    nonblocking: AtomicBool,
}

impl Shared {
    /// `open`.
    pub(crate) fn open(&self, request: Request, path: &[u8]) -> Result<LocalAnswer> {
        if path == CAPABILITY_PATH.as_bytes() {
            return value(self.state().files.insert(File::Capability, 0));
        }
        self.local(Op::Open, request, path)
    }

    /// `dup`, and what it makes of a capability and of a scheme's socket.
    pub(crate) fn dup(&self, request: Request, name: &[u8]) -> Result<LocalAnswer> {
        let file = self.file(request.fd as usize)?;
        if let File::Scheme(_) = file {
            return self.local(Op::Dup, request, name);
        }
        let mut state = self.state();
        let new = match file {
            File::Capability if name.starts_with(CREATE_SCHEME) => {
                File::Socket(Arc::new(SchemeSocket {
                    scheme: state.create_scheme(),
                    nonblocking: AtomicBool::new(false),
                }))
            }
            file if name.is_empty() => file,
            File::Socket(socket) => {
                File::Scheme(own_file(socket.scheme.clone(), &new_fd_params(name)?)?)
            }
            _ => return Err(Error::new(EINVAL)),
        };
        value(state.files.insert(new, 0))
    }

    /// `close`.
    pub(crate) fn close(&self, request: Request) -> Result<LocalAnswer> {
        if let File::Scheme(_) = self.file(request.fd as usize)? {
            return self.local(Op::Close, request, &[]);
        }
        let mut state = self.state();
        let closed = state.files.remove(request.fd as usize)?;
        state.drop_file(closed);
        value(Ok(0))
    }

    /// `read`: requests of a scheme's socket, whole ones, as many as are there and fit.
    pub(crate) fn read(&self, fd: usize, buffer: &mut [u8]) -> Result<usize> {
        let socket = match self.file(fd)? {
            File::Socket(socket) => socket,
            File::Scheme(_) => {
                let length = buffer.len().min(crate::proto::PAYLOAD_MAX);
                let request = Request::new(Op::Read, fd, &[length as u64]);
                let answer = self.local(Op::Read, request, &[])?;
                let bytes = demux(answer.result)?;
                buffer
                    .iter_mut()
                    .zip(answer.payload)
                    .for_each(|(to, from)| *to = from);
                return Ok(bytes);
            }
            _ => return Err(Error::new(EBADF)),
        };
        if buffer.len() < size_of::<Sqe>() {
            return Err(Error::new(EINVAL));
        }
        let scheme = &socket.scheme;
        let block = !socket.nonblocking.load(Ordering::Relaxed);
        let mut polled = false;
        loop {
            let bytes = scheme.take(buffer, block);
            if bytes > 0 {
                return Ok(bytes);
            }
            if !scheme.is_open() {
                return Err(Error::new(EBADF));
            }
            if polled && !block {
                return Err(Error::new(EAGAIN));
            }
            polled = true;
            let timeout = if block {
                EpollTimeout::NONE
            } else {
                EpollTimeout::ZERO
            };
            self.round(timeout, || scheme.awake())?;
        }
    }

    /// `write`: completions to a scheme's socket.
    pub(crate) fn write(&self, fd: usize, bytes: &[u8]) -> Result<usize> {
        match self.file(fd)? {
            File::Socket(socket) => self.state().write_completions(&socket.scheme, bytes),
            File::Scheme(_) => {
                let request = Request::new(Op::Write, fd, &[]);
                demux(self.local(Op::Write, request, bytes)?.result)
            }
            _ => Err(Error::new(EBADF)),
        }
    }

    /// `fcntl`.
    pub(crate) fn fcntl(&self, request: Request) -> Result<LocalAnswer> {
        let [command, argument, ..] = request.args;
        let socket = match self.file(request.fd as usize)? {
            File::Scheme(_) => return self.local(Op::Fcntl, request, &[]),
            file if command == F_DUPFD as u64 => {
                return value(self.state().files.insert(file, argument as usize));
            }
            File::Socket(socket) => Some(socket),
            _ => None,
        };
        let nonblocking = socket.as_ref().map(|socket| &socket.nonblocking);
        match command as usize {
            F_GETFD | F_SETFD => value(Ok(0)),
            F_GETFL => {
                let set = nonblocking.is_some_and(|flag| flag.load(Ordering::Relaxed));
                value(Ok(if set { O_NONBLOCK } else { 0 }))
            }
            F_SETFL => {
                if let Some(flag) = nonblocking {
                    flag.store(argument as usize & O_NONBLOCK != 0, Ordering::Relaxed);
                }
                value(Ok(0))
            }
            _ => Err(Error::new(EINVAL)),
        }
    }

    /// `SYS_CALL`: on a scheme's socket, files on their way; else as a client's.
    pub(crate) fn call(&self, request: Request, payload: &[u8]) -> Result<LocalAnswer> {
        let socket = match self.file(request.fd as usize)? {
            File::Socket(socket) => socket,
            File::Scheme(_) => return self.local(Op::Call, request, payload),
            _ => return Err(Error::new(EOPNOTSUPP)),
        };
        let flags = CallFlags::from_bits(request.args[0] as usize).ok_or(Error::new(EINVAL))?;
        let count = (request.args[1] >> 8) as usize;
        let words = request.args.get(3..3 + count).ok_or(Error::new(EINVAL))?;
        let caller = Caller::Thread(Arc::new(Waiter::default()));
        let mut state = self.state();
        let mut payload = payload.to_vec();
        let result = if flags.contains(CallFlags::FD | CallFlags::WRITE) {
            let keep = flags.contains(CallFlags::FD_CLONE);
            let fds = state.take_fds(&caller, &fd_numbers(&payload), keep)?;
            state.move_fds(&socket.scheme, words, fds)
        } else if flags.contains(CallFlags::FD | CallFlags::READ) {
            state.obtain_fds(&caller, &socket.scheme, words, &mut payload)
        } else {
            Err(Error::new(EOPNOTSUPP))
        };
        let result = Error::mux(Ok(result?));
        Ok(LocalAnswer { result, payload })
    }

    /// The name space, as a new file.
    pub(crate) fn namespace(&self) -> Result<usize> {
        self.state().files.insert(File::Namespace, 0)
    }

    /// Gives a scheme's root directory, which the daemon lets go of, to the name space.
    pub(crate) fn register(&self, namespace: usize, name: &str, root: usize) -> Result<usize> {
        let mut state = self.state();
        let Some(File::Namespace) = state.files.get(namespace) else {
            return Err(Error::new(EBADF));
        };
        if name.is_empty() || name.contains('/') {
            return Err(Error::new(EINVAL));
        }
        if state.names.contains_key(name) {
            return Err(Error::new(EEXIST));
        }
        let root = state.remove_own(root)?;
        state.names.insert(name.to_owned(), root);
        Ok(0)
    }

    /// A system call of one of the daemon's threads on a file of a scheme: waits for the answer.
    pub(crate) fn local(&self, op: Op, request: Request, payload: &[u8]) -> Result<LocalAnswer> {
        let waiter = Arc::new(Waiter::default());
        let caller = Caller::Thread(waiter.clone());
        let made = Invocation {
            caller: &caller,
            context: State::own_context(),
            op,
            request: &request,
            payload,
        };
        let step = {
            let mut state = self.state();
            let step = state.system_call(&made)?;
            state.serve_events();
            step
        };
        match step {
            Step::Done(done) => value(Ok(done)),
            Step::Asked => Ok(waiter.wait()),
        }
    }

    fn file(&self, fd: usize) -> Result<File> {
        self.state().files.get(fd).cloned().ok_or(Error::new(EBADF))
    }
}

impl State {
    /// Takes a scheme's file out of the daemon's table; another kind of file is EBADF.
    pub(super) fn remove_own(&mut self, fd: usize) -> Result<Arc<Description>> {
        let Some(File::Scheme(_)) = self.files.get(fd) else {
            return Err(Error::new(EBADF));
        };
        match self.files.remove(fd)? {
            File::Scheme(description) => Ok(description),
            _ => Err(Error::new(ENOENT)),
        }
    }

    pub(super) fn drop_file(&mut self, file: File) {
        let File::Socket(closed) = file else {
            return;
        };
        let is_open = self.files.iter().any(|file| match file {
            File::Socket(other) => Arc::ptr_eq(other, &closed),
            _ => false,
        });
        if !is_open {
            self.close_scheme(closed.scheme.id());
        }
    }
}

fn value(result: Result<usize>) -> Result<LocalAnswer> {
    result.map(|result| LocalAnswer {
        result,
        payload: Vec::new(),
    })
}

/// The bytes that a daemon describes a file of its own scheme with.
fn new_fd_params(bytes: &[u8]) -> Result<NewFdParams> {
    if bytes.len() != size_of::<NewFdParams>() {
        return Err(Error::new(EINVAL));
    }
    let word = |index: usize| {
        let words = bytes.as_chunks().0;
        words.get(index).map_or(0, |word| u64::from_ne_bytes(*word))
    };
    let [internal_flags, ..] = word(3).to_ne_bytes();
    Ok(NewFdParams {
        offset: word(0),
        number: word(1) as usize,
        flags: word(2) as usize,
        internal_flags,
    })
}

/// A file of the daemon's own scheme, as `dup` of the scheme's socket describes it.
fn own_file(scheme: Arc<Scheme>, params: &NewFdParams) -> Result<Arc<Description>> {
    let description = Description::at_offset(
        scheme,
        params.number as u64,
        params.flags as u32,
        params.internal_flags,
        params.offset,
    )?;
    Ok(Arc::new(description))
}
