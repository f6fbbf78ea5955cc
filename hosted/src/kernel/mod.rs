//! The stand-in kernel, in the daemon's process.
//!
//! [`Shared`] is all of it. The state is behind one lock, which is never held over a system call
//! that could block; the daemon's thread that reads the scheme's socket does the I/O with the
//! clients meanwhile (`io`), so that there is no other thread. The modules, one way:
//!
//! `io` (sockets, messages) → `syscalls` (a client's request → an SQE) → `scheme` (queue), and
//! back: `cqe` (the daemon's answers) → `answer` (what an answer leads to) → `reply`.
//!
//! `files`, `address_space`, `parcel` and `events` are the tables, `fds` whose they are; `call` is
//! what a waiting call is; `watching` hears of clients' own ranges; `daemon` is the system calls of
//! the daemon itself, `event_scheme` the scheme that the kernel serves itself.

mod address_space;
mod answer;
mod call;
mod client;
mod cqe;
mod daemon;
mod event_scheme;
mod events;
mod fds;
mod files;
mod io;
mod parcel;
mod reply;
mod scheme;
mod syscalls;
mod watching;

use std::collections::{BTreeMap, HashMap};
use std::io as stdio;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gem::units::{Gid, Identity, Pid, Uid};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use slab::Slab;
use syscall::error::{ENODEV, Error, Result};

use crate::memfd::FdBudget;
use crate::socket::{Listener, StartError};
use crate::user::watch::Watch;

use answer::Response;
pub(crate) use call::ClientId;
use call::{Call, Context};
use client::Client;
use daemon::File;
pub(crate) use events::Event;
use events::Events;
pub(crate) use files::Space;
use files::{Description, FdTable};
use parcel::Parcels;
use scheme::Scheme;

/// The kernel of this process, if it runs one.
static KERNEL: RwLock<Option<Arc<Shared>>> = RwLock::new(None);

/// The kernel of this process, if it runs one.
pub(crate) fn installed() -> Option<Arc<Shared>> {
    KERNEL
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// A running stand-in kernel.
pub(crate) struct Shared {
    epoll: Arc<Epoll>,
    state: Mutex<State>,
}

impl Shared {
    /// Starts the kernel of this process at `socket`.
    pub(crate) fn install(socket: &Path) -> std::result::Result<Arc<Self>, StartError> {
        let mut kernel = KERNEL.write().unwrap_or_else(PoisonError::into_inner);
        if kernel.is_some() {
            return Err(StartError::AlreadyRunning);
        }
        let listener = Listener::bind(socket)?;
        let shared =
            Self::start(listener).map_err(|error| StartError::Failed(socket.to_owned(), error))?;
        Ok(kernel.insert(Arc::new(shared)).clone())
    }

    /// Ends the kernel of this process: every connection is closed, every wait of the daemon's
    /// own threads ends with ENODEV.
    pub(crate) fn uninstall() {
        let kernel = KERNEL
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(kernel) = kernel {
            kernel.state().shut_down();
        }
    }

    fn start(listener: Listener) -> stdio::Result<Self> {
        let budget = FdBudget::claim()?;
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        io::register(&epoll, &listener, &wake)?;
        let event_scheme = Arc::new(Scheme::new(events::SCHEME, wake.clone()));
        let root = Description::new(event_scheme.clone(), event_scheme::ROOT, 0, 0)
            .map_err(|_| stdio::Error::from(stdio::ErrorKind::InvalidInput))?;
        let events = OpenScheme {
            scheme: event_scheme.clone(),
            calls: Slab::new(),
        };
        let state = State {
            epoll: epoll.clone(),
            wake: wake.clone(),
            listener: Some(listener),
            budget,
            schemes: HashMap::from([(events::SCHEME, events)]),
            next_scheme: FIRST_SCHEME,
            names: BTreeMap::from([("event".to_owned(), Arc::new(root))]),
            event_scheme,
            events: Events::default(),
            clients: HashMap::new(),
            pids: HashMap::new(),
            next_token: io::FIRST_TOKEN,
            parcels: Parcels::default(),
            spaces: Arc::new(Scheme::closed(SPACES, wake.clone())),
            watches: HashMap::new(),
            files: FdTable::default(),
            spare: io::spare(),
            inbox: io::inbox(),
        };
        Ok(Self {
            epoll,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who process `pid` is, if it is connected (or the daemon, or the name-space manager).
    pub(crate) fn credentials(&self, pid: Pid) -> Option<Identity> {
        let context = self.state().context_of(pid.0)?;
        Some(Identity {
            uid: Uid(context.uid),
            gid: Gid(context.gid),
            pid,
        })
    }
}

/// The number of the scheme whose files stand for address spaces: on Redox the kernel's.
const SPACES: usize = 1;
/// The first number of a user-space scheme: those below belong to the kernel's own.
const FIRST_SCHEME: usize = 17;

/// A scheme with its unanswered calls.
struct OpenScheme {
    scheme: Arc<Scheme>,
    calls: Slab<Call>,
}

/// All that the kernel knows.
struct State {
    epoll: Arc<Epoll>,
    wake: Arc<EventFd>,
    listener: Option<Listener>,
    budget: FdBudget,
    schemes: HashMap<usize, OpenScheme>,
    next_scheme: usize,
    /// The name space: the root directory of each scheme.
    names: BTreeMap<String, Arc<Description>>,
    /// The scheme that the kernel serves itself.
    event_scheme: Arc<Scheme>,
    events: Events,
    clients: HashMap<ClientId, Client>,
    pids: HashMap<u64, ClientId>,
    /// The next number for whatever epoll watches; never used twice.
    next_token: u64,
    parcels: Parcels,
    /// Whose files stand for address spaces. Nobody serves it.
    spaces: Arc<Scheme>,
    /// Watched address spaces, by epoll's number.
    watches: HashMap<u64, Arc<Watch>>,
    /// The daemon's own file descriptors.
    files: FdTable<File>,
    /// See [`io::spare`].
    spare: Option<OwnedFd>,
    /// Where messages are received.
    inbox: Box<[u8]>,
}

impl State {
    /// The daemon's own credentials: it is root.
    fn own_context() -> Context {
        Context {
            pid: u64::from(std::process::id()),
            uid: 0,
            gid: 0,
        }
    }

    fn context_of(&self, pid: u64) -> Option<Context> {
        if pid == Context::MANAGER_PID {
            return Some(Context::MANAGER);
        }
        if pid == u64::from(std::process::id()) {
            return Some(Self::own_context());
        }
        let client = self.pids.get(&pid)?;
        Some(self.clients.get(client)?.context)
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Makes a scheme.
    fn create_scheme(&mut self) -> Arc<Scheme> {
        let id = self.next_scheme;
        self.next_scheme += 1;
        let scheme = Arc::new(Scheme::new(id, self.wake.clone()));
        let calls = Slab::with_capacity(32);
        self.schemes.insert(
            id,
            OpenScheme {
                scheme: scheme.clone(),
                calls,
            },
        );
        scheme
    }

    /// The scheme's socket is closed: new calls get ENODEV, mappings live on, and who waits goes
    /// on waiting, but for threads of the daemon, which could never be killed apart.
    fn close_scheme(&mut self, id: usize) {
        let Some(closed) = self.schemes.remove(&id) else {
            return;
        };
        closed.scheme.close();
        self.names.retain(|_, root| root.scheme().id() != id);
        for (_, call) in closed.calls {
            if let Some(caller @ call::Caller::Thread(_)) = call.caller {
                self.reply(&caller, Response::error(ENODEV).into_regular());
            }
            // Linux would have whoever unmapped something wait where no signal reaches it.
            if let call::After::Unmapped(unmapping) = call.after
                && let Some(token) = unmapping.watched
            {
                self.read_told(token);
            }
        }
    }

    fn shut_down(&mut self) {
        let open: Vec<usize> = self.schemes.keys().copied().collect();
        for id in open {
            self.close_scheme(id);
        }
        self.listener = None;
        self.names.clear();
        self.parcels = Parcels::default();
        self.files = FdTable::default();
        self.pids.clear();
        self.clients.clear();
        self.watches.clear();
    }

    /// The calls of an open scheme.
    fn calls(&mut self, scheme: usize) -> Result<&mut Slab<Call>> {
        let open = self.schemes.get_mut(&scheme);
        Ok(&mut open.ok_or(Error::new(ENODEV))?.calls)
    }
}
