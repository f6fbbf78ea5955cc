//! Answers that are held back until pages are their client's alone.
//!
//! Whoever takes pages of its own back (unmaps them, closes the handle, revokes the open) is answered
//! when the daemon reaches none of them any more. Mostly that is so at once. Where the platform's
//! worker has to end the access, what the request came to is kept here, by its tag, with what it
//! waits for: the deed is done, and only the answer is to come. So it is neither attempted again nor
//! cancelled, and it waits however many others do.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use gem::pages::Ticket;

use super::{Cause, Reply, Server, Stop};
use crate::answer::{Answer, Errno};
use crate::platform::Platform;
use crate::sqe::Tag;

/// Releases under way, and the answers that wait for them.
#[derive(Default)]
pub(super) struct Releases {
    /// What the platform is at.
    unfinished: BTreeSet<Ticket>,
    owed: BTreeMap<u32, Owed>,
}

/// An answer, and what has to be finished before.
struct Owed {
    /// `None` where the request has to be attempted again.
    reply: Option<Result<Answer, Errno>>,
    releases: Vec<Ticket>,
}

impl<P: Platform> Server<P> {
    /// What the request of this tag is answered with when all is released that was taken back for
    /// it; `None` where it is to be attempted.
    #[inline]
    pub(super) fn owed(&mut self, tag: Tag) -> Option<Reply> {
        if self.releases.owed.is_empty() {
            return None;
        }
        self.next_owed(tag)
    }

    #[cold]
    fn next_owed(&mut self, tag: Tag) -> Option<Reply> {
        let Releases { unfinished, owed } = &mut self.releases;
        let answer = owed.get_mut(&tag.0)?;
        let reply = answer.reply?;
        answer
            .releases
            .retain(|release| unfinished.contains(release));
        if let Some(&release) = answer.releases.last() {
            return Some(Err(Stop::Wait(Cause::Finished(release))));
        }
        owed.remove(&tag.0);
        Some(reply.map_err(Stop::Refused))
    }

    /// What an attempt came to, or what it has to wait for first.
    #[inline]
    pub(super) fn hold_back(&mut self, tag: Tag, reply: Reply) -> Reply {
        let begun = self.device.take_releases();
        if begun.is_empty() && self.releases.owed.is_empty() {
            return reply;
        }
        self.owe(tag, begun, reply)
    }

    #[cold]
    fn owe(&mut self, tag: Tag, begun: Vec<Ticket>, reply: Reply) -> Reply {
        let Releases { unfinished, owed } = &mut self.releases;
        if begun.is_empty() && !owed.contains_key(&tag.0) {
            return reply;
        }
        unfinished.extend(&begun);
        let answer = owed.entry(tag.0).or_insert(Owed {
            reply: None,
            releases: Vec::new(),
        });
        answer.releases.extend(begun);
        answer.reply = match reply {
            Ok(answer) => Some(Ok(answer)),
            Err(Stop::Refused(errno)) => Some(Err(errno)),
            Err(stop) => return Err(stop),
        };
        self.next_owed(tag).unwrap_or(reply)
    }

    /// Whether this request is done, and only its answer is to come: then nothing else may answer
    /// it.
    pub fn owes(&self, tag: Tag) -> bool {
        let owed = self.releases.owed.get(&tag.0);
        owed.is_some_and(|owed| owed.reply.is_some())
    }

    /// Nobody waits for what is released now.
    pub(crate) fn nobody_waits(&mut self) {
        self.releases.unfinished.extend(self.device.take_releases());
    }

    /// The request is gone.
    pub(super) fn forget_owed(&mut self, tag: Tag) {
        self.releases.owed.remove(&tag.0);
    }

    /// Takes in what the platform has just finished.
    pub(super) fn settle_releases(&mut self) {
        for ticket in &self.news.finished {
            self.releases.unfinished.remove(ticket);
        }
    }
}
