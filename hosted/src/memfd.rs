//! Memory files and the made-up addresses that stand for them in answers to the kernel.
//!
//! Owns the table from window addresses to memory files, one a process, and the count of open
//! files against the process's limit. A memory file has the pages of one object and is never
//! used for another, since whoever it was sent to keeps it. Its size is sealed. Window addresses
//! lie outside of every address space, are never used twice, and are never dereferenced.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use gem::units::{PageCount, WindowAddr};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::ftruncate;

/// How many memory files are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The memory files by the address of their first page.
static WINDOWS: RwLock<BTreeMap<usize, Arc<Memfd>>> = RwLock::new(BTreeMap::new());

/// The pages of one object.
#[derive(Debug)]
pub(crate) struct Memfd {
    file: OwnedFd,
    pages: PageCount,
}

impl Memfd {
    /// `pages` zero pages, none of which takes memory before it is written to.
    pub(crate) fn new(pages: PageCount) -> nix::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"gem", flags)?;
        OPEN.fetch_add(1, Ordering::Relaxed);
        let memfd = Self { file, pages };
        let size = i64::try_from(pages.bytes()).map_err(|_| Errno::EFBIG)?;
        ftruncate(&memfd.file, size)?;
        // Whoever gets a read-only descriptor must not simply open the file again for writing.
        fchmod(&memfd.file, Mode::S_IRUSR)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memfd.file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(memfd)
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

/// Lets `memfd` be found at `window`.
pub(crate) fn publish(window: WindowAddr, memfd: Arc<Memfd>) {
    let mut windows = WINDOWS.write().unwrap_or_else(PoisonError::into_inner);
    windows.insert(window.get(), memfd);
}

/// Forgets what is at `window`.
pub(crate) fn withdraw(window: WindowAddr) {
    let mut windows = WINDOWS.write().unwrap_or_else(PoisonError::into_inner);
    windows.remove(&window.get());
}

/// The memory file with all of `bytes` from `address` on, and where in it they begin. `None`
/// where any of them belongs to no window.
pub(crate) fn resolve(address: u64, bytes: u64) -> Option<(Arc<Memfd>, u64)> {
    let address = usize::try_from(address).ok()?;
    let windows = WINDOWS.read().unwrap_or_else(PoisonError::into_inner);
    let (start, memfd) = windows.range(..=address).next_back()?;
    let offset = (address - start) as u64;
    let end = offset.checked_add(bytes)?;
    (end <= memfd.pages.bytes()).then(|| (memfd.clone(), offset))
}

/// How the process's table of open files is shared out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FdBudget {
    /// Connections of clients.
    pub(crate) clients: usize,
    /// Parcels.
    pub(crate) parcels: usize,
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
        Self {
            clients,
            parcels,
            memfds: files.saturating_sub(clients + parcels + Self::RESERVE),
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
            let used = budget.clients + budget.parcels + budget.memfds;
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
