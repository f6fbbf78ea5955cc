//! The connections: accepting clients, their messages, their end.
//!
//! Done by whichever thread of the daemon reads a scheme's socket, in rounds: wait, then take at
//! most one message of each client that has some. Nothing here waits for a client. A message
//! that is not what `proto` says ends its sender's connection, and nothing else.
//!
//! A client ends when its connection does: its calls stay without a caller, its descriptors are
//! closed, then its mappings are unmapped one by one, in the order in which the kernel ends a
//! process.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, getsockopt, sockopt};
use syscall::error::{EINTR, EIO, EPROTO, Error, Result};
use zerocopy::FromBytes;

use super::call::{After, Caller, ClientId, Context, Unmapping};
use super::client::Client;
use super::reply::Attachment;
use super::syscalls::{Invocation, Step};
use super::{Shared, State};
use crate::proto::{MAGIC, Op, PAYLOAD_MAX, Reply, Request, VERSION};
use crate::socket::{self, Listener, Received};

const LISTENER: u64 = 0;
const WAKE: u64 = 1;
/// The first number that epoll gets for a client or a parcel.
pub(super) const FIRST_TOKEN: u64 = 16;

/// How many ready files one round takes.
const ROUND: usize = 64;

/// A message that no honest client sends.
struct Violation(&'static str);

/// Room for the longest message.
pub(super) fn inbox() -> Box<[u8]> {
    vec![0; size_of::<Request>() + PAYLOAD_MAX].into_boxed_slice()
}

/// A descriptor to be given up when no other is free.
pub(super) fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Watches what is there from the start.
pub(super) fn register(epoll: &Epoll, listener: &Listener, wake: &EventFd) -> nix::Result<()> {
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    epoll.add(wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
}

impl Shared {
    /// One round of I/O: waits as long as `timeout` says, `awake`s, and does what is to be done.
    ///
    /// # Errors
    ///
    /// EINTR where a signal came first.
    pub(super) fn round(&self, timeout: EpollTimeout, awake: impl FnOnce()) -> Result<()> {
        let mut events = [EpollEvent::empty(); ROUND];
        let waited = self.epoll.wait(&mut events, timeout);
        awake();
        let count = match waited {
            Ok(count) => count,
            Err(Errno::EINTR) => return Err(Error::new(EINTR)),
            Err(_) => return Err(Error::new(EIO)),
        };
        let mut state = self.state();
        for event in events.iter().take(count) {
            state.event(event.data(), event.events());
        }
        Ok(())
    }

    /// Runs the I/O for up to `timeout`, for a daemon that has no scheme to read from: its
    /// clients get answers such as ENODEV.
    pub(crate) fn idle(&self, timeout: std::time::Duration) -> Result<()> {
        let end = std::time::Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let timeout = EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX);
            self.round(timeout, || ())?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }
}

impl State {
    fn event(&mut self, token: u64, events: EpollFlags) {
        match token {
            LISTENER => self.accept(),
            WAKE => self.woken(),
            _ if self.clients.contains_key(&ClientId(token)) => {
                self.client_event(ClientId(token), events);
            }
            _ if self.watches.contains_key(&token) => self.told(token),
            _ => self.parcels.hang_up(token),
        }
        self.serve_events();
    }

    /// Readers of several schemes share the event file: whoever takes a wake-up passes it on.
    fn woken(&mut self) {
        // It is not blocking: an empty counter is as good as a read one.
        let _ = self.wake.read();
        for open in self.schemes.values() {
            open.scheme.wake_again();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = match accept4(listener.as_fd().as_raw_fd(), flags) {
            // SAFETY: accept4 has just made this descriptor, for us alone.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
            Err(error) => {
                log::warn!("cannot accept a client: {error}");
                return self.turn_away();
            }
        };
        if self.clients.len() >= self.budget.clients {
            return log::debug!("a client was refused: there are enough");
        }
        if let Err(reason) = self.admit(socket) {
            log::debug!("a client was refused: {reason}");
        }
    }

    /// Takes a client off the listening socket and lets it go, where no descriptor is free: it
    /// would be reported as ready for ever.
    fn turn_away(&mut self) {
        self.spare = None;
        if let Some(listener) = &self.listener {
            let flags = SockFlag::SOCK_CLOEXEC;
            if let Ok(fd) = accept4(listener.as_fd().as_raw_fd(), flags) {
                // SAFETY: accept4 has just made this descriptor, for us alone.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        self.spare = spare();
    }

    fn admit(&mut self, socket: OwnedFd) -> std::result::Result<(), &'static str> {
        let peer = getsockopt(&socket, sockopt::PeerCredentials).map_err(|_| "no credentials")?;
        let pid = u64::try_from(peer.pid()).map_err(|_| "no pid")?;
        if pid == 0 {
            return Err("its pid cannot be seen from here");
        }
        if let Some(old) = self.pids.get(&pid).copied() {
            // A process that calls exec comes back before its old connection's end was seen.
            if !self.has_hung_up(old) {
                return Err("its process is connected");
            }
            self.disconnect(old, "its process has a new program");
        }
        let own = nix::unistd::geteuid().as_raw();
        let context = Context {
            pid,
            // Whoever runs the daemon is root here, as in a user name space.
            uid: if peer.uid() == own { 0 } else { peer.uid() },
            gid: if peer.uid() == own { 0 } else { peer.gid() },
        };
        let token = self.token();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll
            .add(&socket, event)
            .map_err(|_| "cannot be watched")?;
        self.pids.insert(pid, ClientId(token));
        self.clients
            .insert(ClientId(token), Client::new(context, socket));
        log::debug!("process {pid} has connected");
        Ok(())
    }

    fn has_hung_up(&self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(&id) else {
            return true;
        };
        let mut polled = [PollFd::new(client.socket.as_fd(), PollFlags::empty())];
        let ready = poll(&mut polled, PollTimeout::ZERO);
        let [polled] = &polled;
        let events = polled.revents().unwrap_or(PollFlags::empty());
        ready.is_ok_and(|ready| ready > 0) && events.contains(PollFlags::POLLHUP)
    }

    fn client_event(&mut self, id: ClientId, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush(id);
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            let mut inbox = std::mem::take(&mut self.inbox);
            self.take_message(id, &mut inbox);
            self.inbox = inbox;
        }
    }

    fn take_message(&mut self, id: ClientId, inbox: &mut [u8]) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let received = socket::receive(client.socket.as_fd(), inbox, MsgFlags::MSG_DONTWAIT);
        let received = match received {
            Ok(Received { length: 0, .. }) => return self.disconnect(id, "it has left"),
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => return self.disconnect(id, "its connection is broken"),
        };
        let message = inbox.get(..received.length).unwrap_or_default();
        if let Err(Violation(what)) = self.message(id, message, received.fds, received.cut) {
            self.disconnect(id, what);
        }
    }

    fn message(
        &mut self,
        id: ClientId,
        message: &[u8],
        mut fds: Vec<OwnedFd>,
        cut: bool,
    ) -> std::result::Result<(), Violation> {
        if cut {
            return Err(Violation("its message is too long"));
        }
        let Ok((request, payload)) = Request::read_from_prefix(message) else {
            return Err(Violation("its message is too short"));
        };
        let op = Op::from_raw(request.op).ok_or(Violation("it asks for nothing known"))?;
        if fds.len() != usize::from(op.carries_fd()) {
            return Err(Violation("it sends files that nobody asked for"));
        }
        if !payload.is_empty() && !op.has_payload() {
            return Err(Violation("its message has a payload without a use"));
        }
        let [length, ..] = request.args;
        if matches!(op, Op::Read | Op::Fpath | Op::Fstat) && length > PAYLOAD_MAX as u64 {
            return Err(Violation("it asks for more bytes than a message can hold"));
        }
        let client = self
            .clients
            .get_mut(&id)
            .ok_or(Violation("it is unknown"))?;
        if client.greeted == (op == Op::Hello) {
            return Err(Violation("it does not begin with one greeting"));
        }
        if op == Op::Cancel {
            self.cancel(id, request.request);
            return Ok(());
        }
        if client.calls.contains(request.request) {
            return Err(Violation("it uses the number of a call twice"));
        }
        let context = client.context;
        let bytes = payload.len().max(match op {
            Op::Read | Op::Fpath | Op::Fstat => length as usize,
            _ => 0,
        });
        let caller = Caller::Client(id, request.request);
        if let Err(error) = client.calls.check(bytes) {
            self.reply(&caller, Err(error));
            return Ok(());
        }
        match op {
            Op::Hello => self.hello(id, &caller, &request),
            Op::Parcel | Op::Fork => self.make_parcel(id, &caller, op, &request),
            Op::Space => {
                let result = self.open_space(id, &caller);
                self.reply(&caller, result);
            }
            Op::OfferSpace => {
                let file = fds.pop().ok_or(Violation("it sends no file"))?;
                let result = self.offer_space(id, &caller, file);
                self.reply(&caller, result);
            }
            Op::Unparcel | Op::Adopt => {
                let parcel = fds.pop().ok_or(Violation("it sends no file"))?;
                let result = self.open_parcel(id, &parcel, op);
                self.reply(&caller, result);
            }
            _ => {
                let made = Invocation {
                    caller: &caller,
                    context,
                    op,
                    request: &request,
                    payload,
                };
                match self.system_call(&made) {
                    Ok(Step::Asked) => {}
                    Ok(Step::Done(value)) => self.reply(&caller, Ok(value)),
                    Err(error) => self.reply(&caller, Err(error)),
                }
            }
        }
        Ok(())
    }

    fn hello(&mut self, id: ClientId, caller: &Caller, request: &Request) {
        let [magic, version, ..] = request.args;
        if (magic, version) != (MAGIC, VERSION) {
            self.reply(caller, Err(Error::new(EPROTO)));
            return self.disconnect(id, "it speaks another protocol");
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.greeted = true;
            let credentials = client.context.credentials();
            self.reply_with(caller, Ok(0), credentials, &[], None);
        }
    }

    /// Sends a reply, or keeps it until the client takes it.
    pub(super) fn send(
        &mut self,
        id: ClientId,
        reply: Reply,
        payload: &[u8],
        attachment: Option<Attachment>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let socket = client.socket.as_fd();
        match client.outbox.send(socket, reply, payload, attachment) {
            Ok(()) => self.watch_for_room(id),
            Err(_) => self.disconnect(id, "it does not take its replies"),
        }
    }

    fn flush(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match client.outbox.flush(client.socket.as_fd()) {
            Ok(()) => self.watch_for_room(id),
            Err(_) => self.disconnect(id, "it does not take its replies"),
        }
    }

    fn watch_for_room(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let congested = !client.outbox.is_empty();
        if client.congested == congested {
            return;
        }
        client.congested = congested;
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, congested);
        let mut event = EpollEvent::new(flags, id.0);
        if self.epoll.modify(&client.socket, &mut event).is_err() {
            self.disconnect(id, "it cannot be watched");
        }
    }

    /// Ends a client, as the kernel ends a process.
    pub(super) fn disconnect(&mut self, id: ClientId, reason: &str) {
        let Some(mut client) = self.clients.remove(&id) else {
            return;
        };
        let context = client.context;
        log::debug!("process {} is gone: {reason}", context.pid);
        self.pids.remove(&context.pid);
        for place in client.calls.places() {
            let calls = self.calls(place.scheme);
            let Some(call) = calls.ok().and_then(|calls| calls.get_mut(place.tag)) else {
                continue;
            };
            call.caller = None;
            call.held = None;
            if let After::Unmapped(unmapping) = &mut call.after {
                unmapping.caller = None;
            }
        }
        for description in client.fds.drain() {
            description.detach(context.pid);
        }
        self.unwatch(std::mem::take(&mut client.watches));
        let pieces = client.space.drain();
        self.unmap_next(Unmapping {
            caller: None,
            context,
            current: None,
            pieces,
            watched: None,
        });
    }
}
