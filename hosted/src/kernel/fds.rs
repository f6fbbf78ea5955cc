//! The file descriptors of whoever calls: a client, or the daemon itself.
//!
//! Both have a table; this is the one place that knows which. The tables are in `files`.

use std::sync::Arc;

use syscall::error::{EBADF, EBUSY, EINVAL, Error, Result};

use super::State;
use super::call::Caller;
use super::client::Client;
use super::daemon::File;
use super::files::Description;

impl State {
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

    pub(super) fn remove_fd(&mut self, caller: &Caller, fd: usize) -> Result<Arc<Description>> {
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
    fn insert_new_at(
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
pub(crate) fn fd_numbers(payload: &[u8]) -> Vec<usize> {
    payload
        .as_chunks()
        .0
        .iter()
        .map(|chunk| usize::from_ne_bytes(*chunk))
        .collect()
}
