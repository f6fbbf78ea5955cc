//! What went wrong, and what to do about it.

use core::fmt;

use syscall::error as errno;

/// A call that did not work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error {
    action: &'static str,
    errno: i32,
}

/// `Ok`, or an [`Error`].
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(action: &'static str, errno: i32) -> Self {
        Self { action, errno }
    }

    /// For `map_err`: what was tried when libredox failed.
    pub(crate) fn of(action: &'static str) -> impl Fn(libredox::error::Error) -> Self {
        move |error| Self::new(action, error.errno())
    }

    /// The error number, positive, with Linux's values.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What was tried.
    pub fn action(&self) -> &'static str {
        self.action
    }

    fn explanation(&self) -> Option<(&'static str, &'static str)> {
        Some(match self.errno {
            errno::ENODEV => (
                "ENODEV",
                "no gemd is running (start one: gemd), it has no such memory, or root has revoked \
                 this open",
            ),
            errno::ENOENT => (
                "ENOENT",
                "there is nothing of this name or handle (any more)",
            ),
            errno::EACCES => (
                "EACCES",
                "this fd does not allow it: names need a card0 that is root's, the master's, or \
                 vouched for by the master; a read-only fd allows no writing; limits and other \
                 people's opens are root's",
            ),
            errno::EINVAL => ("EINVAL", "an argument is out of range"),
            errno::ENOMEM => (
                "ENOMEM",
                "no memory left, or none left of what one user may have (see stats)",
            ),
            errno::EMFILE => ("EMFILE", "one user may not have that many (see stats)"),
            errno::ENFILE => ("ENFILE", "the server cannot open more files (ulimit -n)"),
            errno::ENOSPC => ("ENOSPC", "no room left"),
            errno::EBADF => ("EBADF", "the fd is closed or of another kind"),
            errno::EBUSY => ("EBUSY", "another open is master, or it is in use yet"),
            errno::EFAULT => (
                "EFAULT",
                "a part of the memory is not mapped, or is no ordinary memory, or is another \
                 process's",
            ),
            errno::E2BIG => ("E2BIG", "it is larger than any device's address space"),
            errno::EPERM => (
                "EPERM",
                "this machine does not let processes watch their memory (userfaultfd): allow it \
                 (sysctl vm.unprivileged_userfaultfd=1), or, in a container, by its seccomp profile",
            ),
            errno::EXDEV => ("EXDEV", "the fd is not of the scheme that the node is of"),
            errno::EAGAIN => ("EAGAIN", "too many calls are waiting: try again"),
            errno::EPROTO => (
                "EPROTO",
                "the server is of another version than this program",
            ),
            errno::ECANCELED => ("ECANCELED", "the call was cancelled"),
            errno::EINTR => ("EINTR", "a signal came first"),
            errno::EOPNOTSUPP => ("EOPNOTSUPP", "this server cannot do that"),
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.explanation() {
            Some((name, text)) => write!(f, "cannot {}: {text} ({name})", self.action),
            None => write!(f, "cannot {}: error {}", self.action, self.errno),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_message_says_what_was_tried_what_to_do_and_the_errno() {
        let message = Error::new("open the node", errno::ENODEV).to_string();
        for part in ["open the node", "start one", "ENODEV"] {
            assert!(message.contains(part), "{message}");
        }
        let unexpected = Error::new("open the node", errno::EDOM).to_string();
        assert!(unexpected.contains("error 33"), "{unexpected}");
    }
}
