//! Memory files and the made-up addresses that stand for them in answers to the kernel.
//!
//! Owns the table from window addresses to memory files, one a process, and the count of open
//! files against the process's limit. A memory file has the pages of one object, or of ranges of
//! one client, and is never used for others, since whoever it was sent to keeps it. An object's has
//! a sealed size. Window addresses
//! lie outside of every address space, are never used twice, and are never dereferenced.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use gem::units::{PageCount, WindowAddr};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::ftruncate;

use crate::user::maps::FileId;
use crate::user::watch::Range;

/// How many memory files are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The memory files by the address of their first page.
static WINDOWS: RwLock<BTreeMap<usize, Window>> = RwLock::new(BTreeMap::new());

/// What is at a window's address.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    /// All of a memory file.
    Object(Arc<Memfd>),
    /// A client's own range, which that client may map once.
    User(Arc<Range>),
}

impl Window {
    fn pages(&self) -> PageCount {
        match self {
            Self::Object(memfd) => memfd.pages,
            Self::User(range) => range.pages(),
        }
    }
}

/// The pages of one object, or of some ranges of one client.
#[derive(Debug)]
pub(crate) struct Memfd {
    file: OwnedFd,
    /// How long it is, where it does not grow.
    pages: PageCount,
    id: FileId,
}

impl Memfd {
    /// `pages` zero pages, none of which takes memory before it is written to.
    pub(crate) fn new(pages: PageCount) -> nix::Result<Self> {
        let memfd = Self::create(pages)?;
        memfd.grow(pages.bytes())?;
        // Whoever gets a read-only descriptor must not simply open the file again for writing.
        fchmod(&memfd.file, Mode::S_IRUSR)?;
        memfd.seal(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
        Ok(memfd)
    }

    /// A memory file that is empty and grows: for the ranges of one client, which may well grow it
    /// itself.
    pub(crate) fn growing() -> nix::Result<Self> {
        let memfd = Self::create(PageCount::ZERO)?;
        memfd.seal(SealFlag::F_SEAL_SHRINK)?;
        Ok(memfd)
    }

    fn create(pages: PageCount) -> nix::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"gem", flags)?;
        let status = fstat(&file)?;
        OPEN.fetch_add(1, Ordering::Relaxed);
        let id = FileId {
            major: libc::major(status.st_dev),
            minor: libc::minor(status.st_dev),
            inode: status.st_ino,
        };
        Ok(Self { file, pages, id })
    }

    fn seal(&self, seals: SealFlag) -> nix::Result<()> {
        let seals = FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL);
        fcntl(&self.file, seals).map(drop)
    }

    /// Makes it `bytes` long, which is not less than it is.
    pub(crate) fn grow(&self, bytes: u64) -> nix::Result<()> {
        let size = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
        ftruncate(&self.file, size)
    }

    /// Gives the memory of `bytes` from `offset` on back: they read as zero.
    pub(crate) fn empty(&self, offset: u64, bytes: u64) -> nix::Result<()> {
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |number| i64::try_from(number).map_err(|_| Errno::EFBIG);
        fallocate(&self.file, how, signed(offset)?, signed(bytes)?)
    }

    /// What tells it from other files.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Another descriptor of the file, for reading only.
    pub(crate) fn reopen_read_only(&self) -> nix::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        open(
            path.as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Memfd {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many memory files are open.
pub(crate) fn open_count() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Lets `pages` be found at `window`.
pub(crate) fn publish(window: WindowAddr, pages: Window) {
    let mut windows = WINDOWS.write().unwrap_or_else(PoisonError::into_inner);
    windows.insert(window.get(), pages);
}

/// Forgets what is at `window`.
pub(crate) fn withdraw(window: WindowAddr) {
    let mut windows = WINDOWS.write().unwrap_or_else(PoisonError::into_inner);
    windows.remove(&window.get());
}

/// The window with all of `bytes` from `address` on, and where in it they begin. `None` where any
/// of them belongs to no window.
pub(crate) fn resolve(address: u64, bytes: u64) -> Option<(Window, u64)> {
    let address = usize::try_from(address).ok()?;
    let windows = WINDOWS.read().unwrap_or_else(PoisonError::into_inner);
    let (start, window) = windows.range(..=address).next_back()?;
    let offset = (address - start) as u64;
    let end = offset.checked_add(bytes)?;
    (end <= window.pages().bytes()).then(|| (window.clone(), offset))
}

/// How the process's table of open files is shared out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FdBudget {
    /// Connections of clients.
    pub(crate) clients: usize,
    /// Parcels.
    pub(crate) parcels: usize,
    /// Watched address spaces, two files each.
    pub(crate) spaces: usize,
    /// Memory files.
    pub(crate) memfds: usize,
}

impl FdBudget {
    /// For the files kept open besides, and those open only for a moment.
    const RESERVE: usize = 64;

    /// Raises the limit on open files as far as this user may, and shares it out.
    pub(crate) fn claim() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(Self::of(usize::try_from(hard).unwrap_or(usize::MAX)))
    }

    fn of(files: usize) -> Self {
        let clients = (files / 4).min(4096);
        let parcels = (files / 8).min(4096);
        let spaces = (files / 16).min(4096);
        let others = clients + parcels + 2 * spaces + Self::RESERVE;
        Self {
            clients,
            parcels,
            spaces,
            memfds: files.saturating_sub(others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_leave_a_reserve() {
        for files in [256, 1024, 20_000, 1 << 20] {
            let budget = FdBudget::of(files);
            let spaces = 2 * budget.spaces;
            let used = budget.clients + budget.parcels + spaces + budget.memfds;
            assert_eq!(used + FdBudget::RESERVE, files);
        }
        assert_eq!(FdBudget::of(40).memfds, 0);
    }

    #[test]
    fn the_limit_on_open_files_is_raised_as_far_as_it_goes() {
        FdBudget::claim().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }

    #[test]
    fn nobody_can_resize_a_memory_file() {
        let memfd = Memfd::new(PageCount::new(2).unwrap()).unwrap();
        assert_eq!(ftruncate(&memfd, 4096), Err(Errno::EPERM));
        assert_eq!(ftruncate(&memfd, 3 * 4096), Err(Errno::EPERM));
    }

    #[test]
    fn a_read_only_descriptor_does_not_write() {
        let memfd = Memfd::new(PageCount::new(1).unwrap()).unwrap();
        let read_only = memfd.reopen_read_only().unwrap();
        assert_eq!(nix::unistd::write(&read_only, &[1]), Err(Errno::EBADF));
        assert_eq!(nix::unistd::write(&memfd, &[1]), Ok(1));
    }
}
