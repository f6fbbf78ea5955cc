//! Replies to a client, sent without ever waiting for it.
//!
//! What a client's socket does not take at once waits in its outbox; a client that lets that
//! grow beyond what an honest one can leave unread is disconnected.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use zerocopy::IntoBytes;

use crate::memfd::Memfd;
use crate::proto::Reply;
use crate::socket;

/// The most bytes that may wait for a client to read: what all its calls in flight together can
/// be answered with.
pub(crate) const OUTBOX_MAX: usize = super::client::PAYLOADS_MAX + (1 << 20);

/// A file descriptor to be sent beside a reply.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// A memory file, to read and write.
    Shared(Arc<Memfd>),
    /// A memory file, to read only: a descriptor of its own, which is open while it is sent and
    /// not while it waits. A client that takes no replies would hold as many as it likes.
    ReadOnly(Arc<Memfd>, Option<OwnedFd>),
    /// A file that only the client will have.
    Owned(OwnedFd),
}

impl Attachment {
    /// `memfd`, to read only.
    pub(crate) fn read_only(memfd: Arc<Memfd>) -> nix::Result<Self> {
        let open = memfd.reopen_read_only()?;
        Ok(Self::ReadOnly(memfd, Some(open)))
    }

    /// What is sent.
    fn open(&mut self) -> nix::Result<BorrowedFd<'_>> {
        match self {
            Self::Shared(memfd) => Ok(Memfd::as_fd(memfd)),
            Self::ReadOnly(memfd, open) => {
                if open.is_none() {
                    *open = Some(memfd.reopen_read_only()?);
                }
                open.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
            }
            Self::Owned(fd) => Ok(OwnedFd::as_fd(fd)),
        }
    }

    /// It is sent later.
    fn put_aside(&mut self) {
        if let Self::ReadOnly(_, open) = self {
            *open = None;
        }
    }
}

/// Replies that a client has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Vec<u8>, Option<Attachment>)>,
    bytes: usize,
}

impl Outbox {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends a reply, or keeps it for later. An error means that the client is past helping.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        reply: Reply,
        payload: &[u8],
        mut attachment: Option<Attachment>,
    ) -> nix::Result<()> {
        if self.is_empty() {
            let fd = attachment.as_mut().map(Attachment::open).transpose()?;
            let sent = socket::send(
                socket,
                reply.as_bytes(),
                payload,
                fd,
                MsgFlags::MSG_DONTWAIT,
            );
            match sent {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                done => return done,
            }
        }
        if let Some(attachment) = &mut attachment {
            attachment.put_aside();
        }
        let message = [reply.as_bytes(), payload].concat();
        self.bytes += message.len();
        self.waiting.push_back((message, attachment));
        if self.bytes > OUTBOX_MAX {
            return Err(Errno::ENOBUFS);
        }
        Ok(())
    }

    /// Sends what the socket takes of what waits.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        while let Some((message, attachment)) = self.waiting.front_mut() {
            let fd = attachment.as_mut().map(Attachment::open).transpose()?;
            match socket::send(socket, message, &[], fd, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    if let Some(attachment) = attachment {
                        attachment.put_aside();
                    }
                    return Ok(());
                }
                sent => sent?,
            }
            self.bytes -= message.len();
            self.waiting.pop_front();
        }
        Ok(())
    }
}
