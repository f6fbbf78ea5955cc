//! The scheme half of the Redox kernel on Linux: a scheme daemon and its clients run as they are.
//!
//! On Redox, a daemon that serves a scheme (`/scheme/gem`, say) reads requests from a socket that
//! the kernel gave it and writes answers back, and its clients make ordinary system calls. Both
//! do so through the C symbols of `libredox`. This crate defines these symbols on Linux, so that
//! daemon, clients, `libredox` and `redox-scheme` are compiled unchanged:
//!
//! ```text
//!   client process                               daemon process
//!   program                                      the scheme's server
//!   libredox                                     redox-scheme, libredox
//!   this crate: symbols, client                  this crate: symbols, kernel, pages
//!       └──── Unix socket: one system call a message ────┘
//!             (memory files and parcels beside them)
//! ```
//!
//! Which of the two a process is, is decided when it runs: [`start`] makes it a daemon; every
//! other process is a client, and connects when it first opens something.
//!
//! # Use
//!
//! A program that calls nothing of this crate must still name it, or its symbols are not linked:
//!
//! ```
//! use hosted as _;
//! ```
//!
//! A daemon:
//!
//! ```no_run
//! let kernel = hosted::start(hosted::Config::new(hosted::default_socket()))?;
//! // From here on as on Redox: redox_scheme::Socket::create(), register, read, write.
//! # drop(kernel);
//! # Ok::<(), hosted::StartError>(())
//! ```
//!
//! A client calls libredox: `libredox::call::open("/scheme/gem/card0", …)`. What is not in
//! libredox is in [`client`].
//!
//! # What is as on Redox
//!
//! Requests and answers are the kernel's byte for byte (`src/scheme/user.rs` and
//! `src/syscall/fs.rs` in the Redox kernel), with what a scheme has to live with there:
//!
//! - An open by path is made by the name-space manager: pid 2, user 0, not the client.
//! - A `Call` carries the caller's pid, and no user.
//! - A call on two files carries two ids of one scheme (EXDEV otherwise); the second file is not
//!   kept open meanwhile.
//! - `MmapPrep` says the size as the client does, `Munmap` whole pages, neither an address. A
//!   mapping over another: `MmapPrep` of the new one first, `Munmap` of what it replaces after.
//!   Pieces are unmapped one after the other, each when the one before is answered.
//! - `CloseMsg` comes when the last descriptor and the last mapping are gone, and wants no answer.
//! - A client that dies closes its descriptors first, then its mappings are unmapped. Its calls
//!   stay with the scheme until answered, without a `Cancel`.
//! - A signal sends `Cancel`, once, and the client waits on; ECANCELED becomes EINTR, and EINTR
//!   without a signal becomes EIO. (A handler installed with SA_RESTART interrupts nothing.)
//! - A bad completion stops the batch it is in. The lower half of a result decides whether it is
//!   an errno.
//! - A payload comes back to the client with errors, too. A payload or path stays where it is
//!   until the daemon has answered, and an empty one has the address 1 << 62.
//! - A scheme whose socket is closed answers ENODEV, and those who wait there go on waiting.
//!
//! # What is not
//!
//! - A client's own pages (userptr) are copied into a memory file and not moved, see
//!   [`client::address_space`]; unmapping them with Linux's own calls tells the scheme all the same.
//! - The daemon's memory is not shared: what it answers to `MmapPrep` must be a window that
//!   [`pages::MemfdPages`] gave out (EIO otherwise), and the client then maps a memory file.
//!   Caching attributes mean nothing. Payloads are copies, at most 64 KiB (EMSGSIZE).
//! - An id answered to an open or dup whose caller has died is closed. The kernel forgets it, and
//!   the scheme keeps it for good.
//! - A file that one thread closes while another's call on it waits is closed when that call is
//!   over. The kernel then sends no `CloseMsg` at all.
//! - A failed mapping with MAP_FIXED leaves the old one alone. The kernel has then removed it
//!   already, without a `Munmap`. MAP_FIXED_NOREPLACE over something fails before the scheme is
//!   asked, not after. There is no `mremap`.
//! - A page of a private mapping that is written to is copied by Linux; the kernel sends
//!   `RequestMmap`, which nobody can answer.
//! - File descriptors of schemes are numbers of their own, not Linux's: they do not survive exec,
//!   and fork takes [`client::fork`]. To pass one to another process, make it a parcel
//!   ([`client::to_parcel`]).
//! - Whoever runs the daemon is root (uid 0), other Linux users are themselves. Tests that need
//!   several users drop their identity ([`client::set_identity`]).
//! - One name space, without a manager process; paths begin with `/scheme/` and are taken as they
//!   are. One daemon a kernel, though it may make several schemes.
//! - An event queue (`/scheme/event`) keeps an event that happens again before it is read once, not
//!   each time, and has no time limit (an event of the number EVENT_TIMEOUT_ID is EINVAL). It takes
//!   files of schemes and other queues; a daemon cannot watch its scheme's socket.
//! - The daemon's own calls on its files cannot be interrupted, and end with ENODEV when it
//!   closes its scheme. One thread reads the socket of a scheme.
//!
//! # Limits
//!
//! No message of a client can stop the daemon or reach another client: one that is not what the
//! protocol says ends its sender's connection, as do replies that are never taken. A client has
//! at most 65,536 file descriptors and as many mappings, 1,024 calls and 4 MiB of payload in
//! flight (EAGAIN), and one connection. Clients, parcels and memory files share the process's
//! table of open files: the limit is raised as far as it goes, and each has a part of it.

pub mod client;
mod flags;
mod kernel;
mod left;
mod memfd;
pub mod pages;
mod proto;
mod socket;
mod symbols;
mod user;
mod work;

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gem::units::{Identity, Pid};

pub use socket::StartError;
pub use syscall::error::Error as Errno;

/// How a stand-in kernel is to be started.
#[derive(Clone, Debug)]
pub struct Config {
    socket: PathBuf,
}

impl Config {
    /// A kernel whose clients connect at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }
}

/// The stand-in kernel of this process. Dropping it ends it: clients are disconnected, and the
/// socket's file is gone.
#[must_use = "the kernel ends when this is dropped"]
pub struct Kernel {
    shared: Arc<kernel::Shared>,
}

/// Makes this process a daemon's: from here on libredox's calls in it are made on a stand-in
/// kernel of its own, where it is root.
///
/// # Errors
///
/// [`StartError`], which names the socket.
pub fn start(config: Config) -> Result<Kernel, StartError> {
    let shared = kernel::Shared::install(&config.socket)?;
    Ok(Kernel { shared })
}

impl Kernel {
    /// Serves connections for `time`, for a daemon that has closed its scheme and lives on:
    /// clients get ENODEV. While a scheme's socket is read, this is not needed.
    ///
    /// # Errors
    ///
    /// EINTR where a signal came.
    pub fn idle(&self, time: Duration) -> Result<(), Errno> {
        self.shared.idle(time)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        kernel::Shared::uninstall();
    }
}

/// Who process `pid` is: a connected client, the name-space manager, or this process. `None` for
/// everybody else, and in a process without a kernel.
pub fn credentials(pid: Pid) -> Option<Identity> {
    kernel::installed()?.credentials(pid)
}

/// Why clients' own pages cannot be taken over on this machine, in words that say what to do about
/// it; `None` where they can.
pub fn no_user_pages() -> Option<&'static str> {
    user::uffd::hindrance()
}

/// Where a daemon listens and its clients look for it, unless they are told otherwise:
/// `$XDG_RUNTIME_DIR/gem/gem.sock`, or `/tmp/gem-<uid>/gem.sock` without that variable.
pub fn default_socket() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.as_bytes().is_empty());
    let directory = match runtime {
        Some(runtime) => PathBuf::from(runtime).join("gem"),
        None => PathBuf::from(format!("/tmp/gem-{}", nix::unistd::geteuid())),
    };
    directory.join("gem.sock")
}
