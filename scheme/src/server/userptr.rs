//! Clients' own pages: address spaces that clients send, and the handles on what was taken over.
//!
//! A `sendfd` to a node is the only request that begins something before it is answered: the
//! platform's acquisition, found again by the request's tag. One that nobody wants any more is
//! abandoned: its pages stay charged until the platform reports that nothing of it is left, and
//! whoever asked for it, and is not dead, has no answer before.
//!
//! The kernel closes fds that are left in a request on the thread that writes the answer. Closing the
//! last fd of an address space unmaps what is mapped there, and where that is something of ours,
//! the socket's thread would wait for itself. So a request whose fds nobody wants is answered by
//! another thread ([`Answer::Unwanted`]), however many they are; only a single one that is wanted
//! comes into our own table of files, which is everybody's.

use alloc::boxed::Box;

use gem::pages::Ticket;
use gem::units::{FakeOffset, Handle, PageCount, Pid, Uid};
use gem::user::{RangeError, SpaceFd, UserAddr, UserRange, UserSource};
use gem::{Acquisition, Claim, MAX_USER_HANDLE, OpenId};
use gem_wire::drm;
use gem_wire::userptr::{self, Claimed, Taking, UserptrFlags};
use syscall::error::{E2BIG, EACCES, EBADF, EINVAL, EIO, ENODEV, EOPNOTSUPP};

use super::{Cause, File, NodeFile, Reply, Server, Stop, handle};
use crate::answer::{Answer, Errno};
use crate::authority::Right;
use crate::platform::Platform;
use crate::sqe::{Request, Tag};

/// Puts the fds that came with the request of this tag into the daemon's table, as many as there
/// are places in the slice, and writes their numbers there.
pub type Obtain = Box<dyn FnMut(Tag, &mut [usize]) -> Result<(), Errno>>;

/// What a request has the platform do.
pub(super) struct Begun {
    ticket: Ticket,
    acquisition: Acquisition,
    /// The answer, where it is abandoned.
    end: Option<Errno>,
}

// What the wire promises is what the memory manager keeps.
const _: () = assert!(FakeOffset::USER_BASE == userptr::FIRST_OFFSET);
const _: () = assert!(FakeOffset::USER_PAGES <= 1 << 39);
const _: () = assert!(MAX_USER_HANDLE == userptr::MAX_HANDLE);

impl<P: Platform> Server<P> {
    /// How fds are obtained that clients send. Without it, none are.
    pub fn set_obtain(&mut self, obtain: Obtain) {
        self.obtain = Some(obtain);
    }

    /// Fds were sent to a file: an address space to a node, or what nobody wants.
    pub(super) fn on_sent(&mut self, request: &Request, word: u64, count: u64) -> Reply {
        if self.taking.contains_key(&request.tag.0) {
            return self.settle(request.tag);
        }
        if !self.device.source().takes_user_pages() {
            return Err(Errno(EOPNOTSUPP).into());
        }
        let begun = self.expects_space(request).and_then(|open| match count {
            1 => self.begin_taking(open, request.caller, word),
            _ => Err(Errno(EINVAL).into()),
        });
        let (acquisition, range, owner) = match begun {
            Err(Stop::Refused(errno)) => return Ok(self.turn_away(request.caller, errno)),
            begun => begun?,
        };
        let space = match self.obtain(request.tag) {
            Ok(space) => space,
            Err(errno) => {
                self.device.fail_userptr(acquisition);
                return Ok(self.turn_away(request.caller, errno));
            }
        };
        match self.device.source_mut().acquire(owner, space, range) {
            Ok(ticket) => {
                let begun = Begun {
                    ticket,
                    acquisition,
                    end: None,
                };
                self.taking.insert(request.tag.0, begun);
                Err(Stop::Wait(Cause::Finished(ticket)))
            }
            Err(fault) => {
                self.device.fail_userptr(acquisition);
                Err(gem::Error::from(fault).into())
            }
        }
    }

    /// What is said to who has sent fds that nobody has taken out of the request. A sender that is
    /// gone is nobody.
    pub fn turn_away(&mut self, sender: Pid, errno: Errno) -> Answer {
        if !self.device.source().takes_user_pages() {
            return Answer::Error(errno);
        }
        Answer::Unwanted(errno, self.user(sender).unwrap_or(Uid(u32::MAX)))
    }

    /// This request is to be answered with an errno. Whether something is to be finished or undone
    /// before: then it wakes up when that has happened.
    pub fn wind_up(&mut self, tag: Tag, errno: Errno) -> bool {
        if self.owes(tag) {
            return true;
        }
        let Some(begun) = self.taking.get_mut(&tag.0) else {
            return false;
        };
        if begun.end.replace(errno).is_none() {
            let (ticket, acquisition) = (begun.ticket, begun.acquisition);
            self.abandon(ticket, acquisition);
        }
        true
    }

    /// Nobody waits for this request any more. What it has begun and not finished is abandoned.
    pub fn forget(&mut self, tag: Tag) {
        self.forget_owed(tag);
        if let Some(begun) = self.taking.remove(&tag.0)
            && begun.end.is_none()
        {
            self.abandon(begun.ticket, begun.acquisition);
        }
    }

    /// Of what the platform has just finished, what was abandoned is charged no longer.
    pub(super) fn settle_abandoned(&mut self) {
        for ticket in &self.news.finished {
            if let Some(acquisition) = self.abandoned.remove(ticket) {
                self.device.fail_userptr(acquisition);
            }
        }
    }

    /// The handle on what was taken over, in the native form.
    pub(super) fn claim(
        &mut self,
        open: OpenId,
        pid: Pid,
        address: u64,
        pages: u64,
        flags: UserptrFlags,
    ) -> Result<u64, Stop> {
        let bytes = pages.checked_mul(gem::units::PAGE_SIZE);
        let bytes = bytes.ok_or(Errno(E2BIG))?;
        let (handle, offset) = self.claim_bytes(open, pid, address, bytes, flags)?;
        let claimed = Claimed {
            handle: handle.get(),
            offset: offset.get(),
        };
        claimed.pack().ok_or(Stop::Refused(Errno(EIO)))
    }

    /// The same in the DRM form: the client asks for the offset then.
    pub(super) fn claim_drm(
        &mut self,
        open: OpenId,
        pid: Pid,
        asked: drm::Userptr,
    ) -> Result<drm::Userptr, Stop> {
        let flags = UserptrFlags::from_drm(asked.flags).ok_or(Errno(EINVAL))?;
        let (address, bytes) = (asked.user_ptr, asked.user_size);
        let (handle, _) = self.claim_bytes(open, pid, address, bytes, flags)?;
        let handle = handle.get();
        Ok(drm::Userptr { handle, ..asked })
    }

    /// Checks in the order in which Linux does (`i915_gem_userptr_ioctl`), then claims.
    fn claim_bytes(
        &mut self,
        open: OpenId,
        pid: Pid,
        address: u64,
        bytes: u64,
        flags: UserptrFlags,
    ) -> Result<(Handle, FakeOffset), Stop> {
        let able = self.device.user_pages();
        if !self.device.source().takes_user_pages() || !able.coherent {
            return Err(Errno(ENODEV).into());
        }
        if bytes > able.most.bytes() {
            return Err(Errno(E2BIG).into());
        }
        let pages = PageCount::exact(bytes);
        let range = pages.ok_or(RangeError::Shape);
        let range = range.and_then(|pages| UserRange::new(UserAddr::new(address), pages));
        let range = range.map_err(gem::Error::from)?;
        let read_only = flags.contains(UserptrFlags::READ_ONLY);
        if flags.contains(UserptrFlags::UNSYNCHRONIZED) || read_only && !able.read_only {
            return Err(Errno(ENODEV).into());
        }
        let claim = Claim { range, read_only };
        Ok(self.device.claim_userptr(open, pid, claim)?)
    }

    /// The open, where the file is a node to which its owner may send an address space.
    fn expects_space(&mut self, request: &Request) -> Result<OpenId, Stop> {
        match self.files.get_mut(request.fd) {
            Some(&mut File::Node(NodeFile {
                rights,
                open: Some(open),
                ..
            })) => {
                self.refuse_if_revoked(open, request.operation)?;
                self.allowed(open, Right::Every)?;
                // What is taken over is to be mapped again, and written to.
                if rights.write {
                    Ok(open)
                } else {
                    Err(Errno(EACCES).into())
                }
            }
            // Whose it is, its first call says.
            Some(File::Node(NodeFile { open: None, .. })) => Err(Errno(EACCES).into()),
            Some(_) => Err(Errno(EOPNOTSUPP).into()),
            None => Err(Errno(EBADF).into()),
        }
    }

    /// Checks and charges what is to be taken over; what the platform has to know.
    fn begin_taking(
        &mut self,
        open: OpenId,
        pid: Pid,
        word: u64,
    ) -> Result<(Acquisition, UserRange, Uid), Stop> {
        let owner = self.device.identity(open).ok_or(Errno(EBADF))?.uid;
        match Taking::decode(word).map_err(|_| Errno(EINVAL))? {
            Taking::New {
                address,
                pages,
                read_only,
            } => {
                let pages = PageCount::new(pages).ok_or(Errno(EINVAL))?;
                let range = UserRange::new(UserAddr::new(address), pages);
                let range = range.map_err(gem::Error::from)?;
                let claim = Claim { range, read_only };
                let acquisition = self.device.begin_userptr(open, pid, claim)?;
                Ok((acquisition, range, owner))
            }
            Taking::Again {
                address,
                handle: raw,
            } => {
                let (handle, start) = (handle(raw)?, UserAddr::new(address));
                let begun = self.device.begin_userptr_again(open, pid, handle, start)?;
                let (acquisition, range) = begun;
                Ok((acquisition, range, owner))
            }
        }
    }

    /// What has come of an acquisition, once the platform knows. One that nobody wants any more is
    /// abandoned before its outcome is asked for, so that it is undone.
    fn settle(&mut self, tag: Tag) -> Reply {
        let begun = self.taking.get(&tag.0).ok_or(Errno(EIO))?;
        let (ticket, acquisition, end) = (begun.ticket, begun.acquisition, begun.end);
        let wait = Err(Stop::Wait(Cause::Finished(ticket)));
        if let Some(errno) = end {
            if self.abandoned.contains_key(&ticket) {
                return wait;
            }
            self.taking.remove(&tag.0);
            return Err(errno.into());
        }
        if !self.device.is_userptr_wanted(acquisition) {
            self.wind_up(tag, Errno(EBADF));
            return wait;
        }
        let Some(outcome) = self.device.source_mut().acquired(ticket) else {
            return wait;
        };
        self.taking.remove(&tag.0);
        match outcome {
            Ok(set) => {
                self.device.take_userptr(acquisition, set);
                Ok(Answer::DONE)
            }
            Err(fault) => {
                self.device.fail_userptr(acquisition);
                Err(gem::Error::from(fault).into())
            }
        }
    }

    fn abandon(&mut self, ticket: Ticket, acquisition: Acquisition) {
        self.device.forget_userptr(acquisition);
        self.nobody_waits();
        self.abandoned.insert(ticket, acquisition);
        self.device.source_mut().abandon(ticket);
    }

    /// Takes the one fd out of the request.
    fn obtain(&mut self, tag: Tag) -> Result<SpaceFd, Errno> {
        let obtain = self.obtain.as_mut().ok_or(Errno(EOPNOTSUPP))?;
        let mut number = [usize::MAX];
        obtain(tag, &mut number)?;
        let [number] = number;
        Ok(SpaceFd::new(number))
    }
}
