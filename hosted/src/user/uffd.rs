//! userfaultfd: a file that tells of another process's address space, and makes its writers wait.
//!
//! Only the system calls; what they are for is in the modules beside this one. Structures and
//! numbers are those of Linux's `include/uapi/linux/userfaultfd.h`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_REMAP, UFFD_EVENT_UNMAP, UFFD_FEATURE_EVENT_REMAP,
    UFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_FEATURE_WP_UNPOPULATED, UFFD_USER_MODE_ONLY, UFFDIO_REGISTER_MODE_WP, uffd_msg,
    uffdio_api, uffdio_range, uffdio_register, uffdio_writeprotect,
};
use linux_raw_sys::ioctl;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What is asked of it: writers of pages that have no memory yet wait, too (Linux 6.4).
const FEATURES: u32 = UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | UFFD_FEATURE_WP_UNPOPULATED
    | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | UFFD_FEATURE_EVENT_UNMAP
    | UFFD_FEATURE_EVENT_REMAP;

/// What such a file calls itself in `/proc/self/fd`.
const NAME: &str = "anon_inode:[userfaultfd]";

/// Said where userfaultfd may not be used.
const FORBIDDEN: &str = "this machine forbids userfaultfd: allow the system call in the \
     container's seccomp profile (or sysctl vm.unprivileged_userfaultfd=1)";
/// Said where userfaultfd lacks something.
const TOO_OLD: &str = "userfaultfd on this machine cannot do what is needed: Linux 6.4 can";

/// `_UFFDIO_WRITEPROTECT`'s mode bit that makes writers wait; without it they no longer do.
const WRITEPROTECT: u64 = 1;

/// A process's addresses, in bytes and whole pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    /// The first one.
    pub(crate) start: u64,
    /// The one behind the last.
    pub(crate) end: u64,
}

impl Span {
    /// What lies in both.
    pub(crate) fn overlap(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    fn raw(self) -> uffdio_range {
        uffdio_range {
            start: self.start,
            len: self.end - self.start,
        }
    }
}

/// A new one for this process, whatever it is then used for. Where this process may, it also makes
/// the kernel wait that writes for this process; else such a write fails.
///
/// # Errors
///
/// EPERM and ENOSYS where this machine forbids it.
pub(crate) fn create() -> nix::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    match call(flags) {
        Err(Errno::EPERM) => call(flags | UFFD_USER_MODE_ONLY as i32),
        made => made,
    }
}

/// Why this machine's cannot be used, in words that say what to do about it; `None` where it can.
pub(crate) fn hindrance() -> Option<&'static str> {
    let file = match create() {
        Ok(file) => file,
        Err(Errno::EPERM) => return Some(FORBIDDEN),
        Err(_) => return Some(TOO_OLD),
    };
    Uffd::adopt(file).err().map(|_| TOO_OLD)
}

fn call(flags: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes a number and makes a file.
    let made = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = Errno::result(made)? as i32;
    // SAFETY: the file was just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One that somebody sent.
#[derive(Debug)]
pub(crate) struct Uffd(OwnedFd);

/// What it tells: these addresses are mapped no more, or not here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// Unmapped, or mapped over.
    Gone(Span),
    /// Moved away: what was there is mapped somewhere else.
    Moved(Span),
    /// Something else, which is of no importance.
    Other,
}

impl Uffd {
    /// Takes `file` into use, which must be new. Only a file that is one gets a call: others could
    /// be of a kind that never answers.
    ///
    /// # Errors
    ///
    /// EINVAL where it is none, or not new; also where this Linux is too old (6.4 has all).
    pub(crate) fn adopt(file: OwnedFd) -> nix::Result<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let name = nix::fcntl::readlink(path.as_str())?;
        if name.to_str() != Some(NAME) {
            return Err(Errno::EINVAL);
        }
        let uffd = Self(file);
        let mut api = uffdio_api {
            api: u64::from(UFFD_API),
            features: u64::from(FEATURES),
            ioctls: 0,
        };
        uffd.ioctl(ioctl::UFFDIO_API, &mut api)?;
        Ok(uffd)
    }

    /// Has everything told that unmaps any of `span`, and [`Uffd::hold_writers`] possible. All of
    /// it must be memory without a file, or of a memory file.
    pub(crate) fn register(&self, span: Span) -> nix::Result<()> {
        let mut register = uffdio_register {
            range: span.raw(),
            mode: u64::from(UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        self.ioctl(ioctl::UFFDIO_REGISTER, &mut register)
    }

    /// Forgets `span`. Those who wait there go on.
    pub(crate) fn unregister(&self, span: Span) -> nix::Result<()> {
        self.ioctl(ioctl::UFFDIO_UNREGISTER, &mut span.raw())
    }

    /// Makes whoever writes to `span` wait from now on.
    pub(crate) fn hold_writers(&self, span: Span) -> nix::Result<()> {
        self.ioctl(
            ioctl::UFFDIO_WRITEPROTECT,
            &mut uffdio_writeprotect {
                range: span.raw(),
                mode: WRITEPROTECT,
            },
        )
    }

    /// Lets those who wait in `span` try again; those who find no memory there find out.
    pub(crate) fn wake(&self, span: Span) {
        // It cannot fail for a range of whole pages.
        let _ = self.ioctl(ioctl::UFFDIO_WAKE, &mut span.raw());
    }

    /// The next thing that it tells; whoever caused it goes on with this. `None` where there is
    /// nothing (any more).
    pub(crate) fn read(&self) -> Option<Event> {
        let mut message = [0_u64; size_of::<uffd_msg>() / size_of::<u64>()];
        let part = libc::iovec {
            iov_base: message.as_mut_ptr().cast(),
            iov_len: size_of_val(&message),
        };
        let fd = self.0.as_raw_fd();
        // Whoever sent the file may have kept a copy, and with it say whether a plain read waits.
        // SAFETY: the one part is `message`, with its true length, alive for the call.
        let mut length = unsafe { libc::preadv2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) };
        if length < 0 && Errno::last() == Errno::EOPNOTSUPP {
            // SAFETY: as above.
            length = unsafe { libc::read(fd, part.iov_base, part.iov_len) };
        }
        if length < size_of::<uffd_msg>() as isize {
            return None;
        }
        // `struct uffd_msg`: the event in the first byte, its arguments from the ninth on.
        let [head, first, second, third] = message;
        let [event, ..] = head.to_le_bytes();
        Some(match u32::from(event) {
            UFFD_EVENT_UNMAP => Event::Gone(Span {
                start: first,
                end: second,
            }),
            // From `first` to `second`, `third` bytes.
            UFFD_EVENT_REMAP => Event::Moved(Span {
                start: first,
                end: first.saturating_add(third),
            }),
            _ => Event::Other,
        })
    }

    /// Whether there is more to read.
    pub(crate) fn has_more(&self) -> bool {
        let mut file = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut file, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        let [file] = file;
        ready
            && file
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLIN))
    }

    fn ioctl<T>(&self, request: u32, argument: &mut T) -> nix::Result<()> {
        // SAFETY: `request` is one of userfaultfd's, the file is one, and each caller passes the
        // structure that the request is defined with; the kernel reads and writes just that.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request.into(), argument) };
        Errno::result(done).map(drop)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_is_refused_before_it_gets_a_call() {
        let other = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Uffd::adopt(other.into()).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn one_is_taken_into_use_once() {
        let file = create().unwrap();
        let copy = file.try_clone().unwrap();
        let uffd = Uffd::adopt(file).unwrap();
        assert_eq!(uffd.read(), None);
        assert_eq!(Uffd::adopt(copy).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn spans_overlap_where_both_are() {
        let span = |start, end| Span { start, end };
        assert_eq!(span(1, 4).overlap(span(3, 9)), Some(span(3, 4)));
        assert_eq!(span(1, 4).overlap(span(4, 9)), None);
    }
}
