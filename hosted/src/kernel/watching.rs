//! Clients' address spaces that are watched (userptr): files that stand for them, and what their
//! userfaultfds tell.
//!
//! A userfaultfd that has something to tell is not read before the schemes know what is mapped no
//! more: until then, whoever unmapped it waits. It is watched for one event at a time, so that it
//! is not looked at again meanwhile.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use syscall::error::{EACCES, EBADF, EINVAL, ENFILE, ENOENT, Error, Result};

use super::call::{Caller, ClientId, Unmapping};
use super::daemon::File;
use super::files::{Description, Space};
use super::{Shared, State};
use crate::user::watch::{Gone, Watch};

/// What epoll waits for, once.
const READABLE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT);

impl State {
    /// A file that stands for the client's address space, as far as that is watched already and
    /// one more range can be. ENOENT where a userfaultfd has to be sent.
    pub(super) fn open_space(&mut self, id: ClientId, caller: &Caller) -> Result<usize> {
        let client = self.clients.get(&id).ok_or(Error::new(EBADF))?;
        let newest = client.watches.last();
        let watch = newest.and_then(|token| self.watches.get(token));
        let watch = watch.filter(|watch| watch.has_room());
        let watch = watch.ok_or(Error::new(ENOENT))?.clone();
        self.space_file(caller, watch)
    }

    /// The same, by a userfaultfd that the client has just made.
    pub(super) fn offer_space(
        &mut self,
        id: ClientId,
        caller: &Caller,
        file: OwnedFd,
    ) -> Result<usize> {
        // Nobody has more than are left for others.
        let own = self
            .clients
            .get(&id)
            .ok_or(Error::new(EBADF))?
            .watches
            .len();
        if own >= self.budget.spaces.saturating_sub(self.watches.len()) {
            return Err(Error::new(ENFILE));
        }
        let pid = self.clients.get(&id).ok_or(Error::new(EBADF))?.context.pid;
        let watch = Watch::new(id, pid, file).map_err(|errno| match errno {
            Errno::EACCES | Errno::EPERM => Error::new(EACCES),
            Errno::EMFILE | Errno::ENFILE => Error::new(ENFILE),
            _ => Error::new(EINVAL),
        })?;
        let watch = Arc::new(watch);
        let token = self.token();
        self.epoll
            .add(&*watch, EpollEvent::new(READABLE, token))
            .map_err(|_| Error::new(ENFILE))?;
        self.watches.insert(token, watch.clone());
        if let Some(client) = self.clients.get_mut(&id) {
            client.watches.push(token);
        }
        self.space_file(caller, watch)
    }

    /// What a scheme gets of a file that a client sends: an address space is its client's to send,
    /// also where others have files of it.
    pub(super) fn as_sent(&self, sender: &Caller, file: Arc<Description>) -> Arc<Description> {
        let is_anothers = match (file.space(), sender) {
            (Some(Space::Of(watch)), Caller::Client(id, _)) => watch.client() != *id,
            _ => false,
        };
        if is_anothers {
            let other = Description::of_space(self.spaces.clone(), Space::NotTheSenders);
            return Arc::new(other);
        }
        file
    }

    fn space_file(&mut self, caller: &Caller, watch: Arc<Watch>) -> Result<usize> {
        let file = Description::of_space(self.spaces.clone(), Space::Of(watch));
        self.insert_fd(caller, Arc::new(file), 0)
    }

    /// A userfaultfd has something to tell.
    pub(super) fn told(&mut self, token: u64) {
        let Some(watch) = self.watches.get(&token).cloned() else {
            return;
        };
        let gone = watch.look();
        self.unmap_gone(&watch, gone, Some(token));
    }

    /// The schemes know of all that was gone: whoever unmapped it goes on.
    pub(super) fn read_told(&mut self, token: u64) {
        let Some(watch) = self.watches.get(&token).cloned() else {
            return;
        };
        if let Some(lost) = watch.read() {
            self.unmap_gone(&watch, lost, None);
        }
        let rearmed = self
            .epoll
            .modify(&*watch, &mut EpollEvent::new(READABLE, token));
        if rearmed.is_err() {
            self.disconnect(watch.client(), "its address space cannot be watched");
        }
    }

    fn unmap_gone(&mut self, watch: &Watch, gone: Vec<Gone>, watched: Option<u64>) {
        let Some(client) = self.clients.get_mut(&watch.client()) else {
            return;
        };
        let mut pieces = VecDeque::new();
        for Gone { range, span } in gone {
            let bytes = span.end - span.start;
            pieces.extend(client.space.carve_range(&range, span.start, bytes));
        }
        let context = client.context;
        self.unmap_next(Unmapping {
            caller: None,
            context,
            current: None,
            pieces,
            watched,
        });
    }

    /// Ends the watching of a client that is gone.
    pub(super) fn unwatch(&mut self, tokens: Vec<u64>) {
        for token in tokens {
            if let Some(watch) = self.watches.remove(&token) {
                // It fails only where nothing watches.
                let _ = self.epoll.delete(&*watch);
                watch.end();
            }
        }
    }
}

impl Shared {
    /// The address space that the daemon's file `fd` stands for; the file is closed. `None` where
    /// it stands for none.
    pub(crate) fn take_space(&self, fd: usize) -> Option<Space> {
        let mut state = self.state();
        match state.files.remove(fd) {
            Ok(File::Scheme(description)) => {
                let space = description.space().cloned();
                description.detach(State::own_context().pid);
                space
            }
            Ok(other) => {
                state.drop_file(other);
                None
            }
            Err(_) => None,
        }
    }
}
