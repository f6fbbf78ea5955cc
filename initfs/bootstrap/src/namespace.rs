//! The name space: `/scheme/<name>/<path>` for every program, on a thread of its own.
//!
//! It opens with its own credentials, not the client's, as a name space manager may; whoever
//! serves a scheme learns about its client from the client's first call. Opening waits for the
//! scheme's answer, so this thread waits with it: nothing else is done here.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use redox_path::RedoxPath;
use rt::fd::{self, Owned};
use rt::protocol::DUP_REGISTER;
use rt::sync::Queue;
use syscall::data::GlobalSchemes;
use syscall::error::{EACCES, EBADF, EEXIST, EINVAL, ENODEV, ENOENT, Error, Result};
use syscall::schemev2::{Opcode, Sqe};

use crate::kernel::Roots;
use rt::socket::{Socket, invalid, payload, wants_answer};

/// The id of the fd that programs open through.
const ROOT: usize = 0;
/// The path under `/scheme/namespace/` of what schemes are made with.
const CREATE_SCHEME: &str = "scheme-creation-cap";
/// The kernel's schemes that have a name here.
const KERNEL_SCHEMES: [GlobalSchemes; 5] = [
    GlobalSchemes::Debug,
    GlobalSchemes::Event,
    GlobalSchemes::Memory,
    GlobalSchemes::Sys,
    GlobalSchemes::Time,
];

/// A scheme's root, to be known under a name.
#[derive(Debug)]
pub struct Scheme {
    /// Its name.
    pub name: &'static str,
    /// Its root.
    pub root: Owned,
}

struct Namespace {
    socket: Socket,
    roots: Roots,
    schemes: BTreeMap<String, Owned>,
    /// The names of schemes whose root is still to come, by the fd that it will be sent to.
    announced: BTreeMap<usize, String>,
    next_id: usize,
}

/// Serves the name space, which begins with `first`, for ever. The fd that programs open through
/// goes to `ready`.
pub fn serve(roots: Roots, first: Scheme, ready: &Queue<Result<Owned>>) {
    let socket = match Socket::new(roots.create_scheme()) {
        Ok(socket) => socket,
        Err(error) => return ready.push(Err(error)),
    };
    ready.push(socket.file(ROOT));
    let mut namespace = Namespace {
        socket,
        roots,
        schemes: BTreeMap::from([(first.name.into(), first.root)]),
        announced: BTreeMap::new(),
        next_id: ROOT + 1,
    };
    while let Ok(Some(sqe)) = namespace.socket.receive() {
        namespace.handle(&sqe);
    }
}

impl Namespace {
    fn handle(&mut self, sqe: &Sqe) {
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => {
                let opened = self.open(sqe);
                self.socket.answer_fd(sqe.tag, opened);
            }
            Some(Opcode::Dup) => {
                let announced = self.announce(sqe);
                self.socket.answer_fd(sqe.tag, announced);
            }
            Some(Opcode::Sendfd) => {
                let registered = self.register(sqe);
                self.socket.answer(sqe.tag, registered);
            }
            Some(Opcode::CloseMsg) => drop(self.announced.remove(&(sqe.args[0] as usize))),
            _ if wants_answer(sqe) => self.socket.answer(sqe.tag, invalid()),
            _ => {}
        }
    }

    /// \[id, path, length, flags, fcntl flags, uid and gid\].
    fn open(&mut self, sqe: &Sqe) -> Result<Owned> {
        // SAFETY: the request is answered after this.
        let path = unsafe { payload(sqe) };
        let path = core::str::from_utf8(path).map_err(|_| Error::new(EINVAL))?;
        let path = RedoxPath::from_absolute(path).ok_or(Error::new(EINVAL))?;
        let (scheme, reference) = path.as_parts().ok_or(Error::new(ENOENT))?;
        let (scheme, reference) = (scheme.as_ref(), reference.as_ref());
        let caller_is_root = sqe.args[5] as u32 == 0;

        if scheme == "namespace" && reference == CREATE_SCHEME {
            return fd::dup(self.roots.create_scheme(), &[]).map(Owned::new);
        }
        // What tells who is who is for daemons.
        if scheme == "proc" && !caller_is_root {
            return Err(Error::new(EACCES));
        }
        let flags = sqe.args[3] as usize;
        let fcntl_flags = sqe.args[4] as usize;
        let root = self.root(scheme)?;
        fd::open_with(|number| syscall::openat_into(root, number, reference, flags, fcntl_flags))
            .map(Owned::new)
    }

    fn root(&self, scheme: &str) -> Result<usize> {
        if let Some(root) = self.schemes.get(scheme) {
            return Ok(root.raw());
        }
        let of_kernel = KERNEL_SCHEMES
            .into_iter()
            .find(|known| known.as_str() == scheme)
            .ok_or(Error::new(ENODEV))?;
        self.roots.get(of_kernel)
    }

    /// \[id, request, length\].
    fn announce(&mut self, sqe: &Sqe) -> Result<Owned> {
        // SAFETY: the request is answered after this.
        let request = unsafe { payload(sqe) };
        let name = request.strip_prefix(DUP_REGISTER);
        let name = name.and_then(|name| String::from_utf8(Vec::from(name)).ok());
        let name = name.filter(|name| !name.is_empty() && !name.contains('/'));
        let name = name.ok_or(Error::new(EINVAL))?;
        let id = self.next_id;
        self.next_id += 1;
        let file = self.socket.file(id)?;
        self.announced.insert(id, name);
        Ok(file)
    }

    /// A daemon's root takes the place of one that is dead; a living one stays.
    fn register(&mut self, sqe: &Sqe) -> Result<usize> {
        let id = sqe.args[0] as usize;
        let name = self.announced.get(&id).ok_or(Error::new(EBADF))?.clone();
        let root = self.socket.sent_fd(sqe)?;
        if self.schemes.get(&name).is_some_and(is_served) {
            return Err(Error::new(EEXIST));
        }
        self.schemes.insert(name, root);
        Ok(0)
    }
}

/// Whether a scheme still has somebody behind it. Any answer means that it has; the kernel itself
/// answers ENODEV for one that has not.
fn is_served(root: &Owned) -> bool {
    !matches!(
        syscall::fcntl(root.raw(), syscall::F_GETFL, 0),
        Err(error) if error.errno == ENODEV
    )
}
