//! Events: what a card is told without asking.

use alloc::sync::Arc;

use gem_wire::event::{Event, RECORD_SIZE, Record};
use libredox::call;
use syscall::error::{EAGAIN, EIO};
use syscall::flag::{F_GETFL, F_SETFL, O_NONBLOCK};
use zerocopy::{FromZeros, IntoBytes};

use crate::card::{Card, OpenNode};
use crate::error::{Error, Result};

/// How many records one read takes: far less than a page, of which the kernel would lend the server
/// as many as are whole, for as long as the read waits.
const AT_ONCE: usize = 16;

/// A card's events, oldest first. Each event is told once: of several readers of one open, here or
/// in another process, one gets it.
///
/// To wait for events and other things together, watch the card's fd ([`Card::raw_fd`]) for reading
/// in an event queue, and take events with [`Events::try_next`] until there are none whenever the
/// queue tells of it.
pub struct Events {
    node: Arc<OpenNode>,
    records: [Record; AT_ONCE],
    /// Those that were read and not given out.
    unread: core::ops::Range<usize>,
}

impl core::fmt::Debug for Events {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Events").field(&self.node.fd()).finish()
    }
}

impl Card {
    /// What this open is told: from its first call on, of itself and of what concerns all. Nobody
    /// else reads it.
    pub fn events(&self) -> Events {
        Events {
            node: self.node.clone(),
            records: FromZeros::new_zeroed(),
            unread: 0..0,
        }
    }

    /// Whether reading events may wait, for all who have this open: at first it may.
    ///
    /// # Errors
    ///
    /// ENODEV where the open was revoked or the server is gone.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        let failed = Error::of("set whether reading events waits");
        let flags = call::fcntl(self.raw_fd(), F_GETFL, 0).map_err(&failed)?;
        let flags = if nonblocking {
            flags | O_NONBLOCK
        } else {
            flags & !O_NONBLOCK
        };
        call::fcntl(self.raw_fd(), F_SETFL, flags).map_err(&failed)?;
        Ok(())
    }
}

impl Events {
    /// The next event; waits for one, unless the card does not block.
    ///
    /// # Errors
    ///
    /// EAGAIN where there is none and the card does not block; EINTR where a signal came; ENODEV
    /// where the open was revoked or the server is gone; EMFILE where too many calls wait.
    pub fn wait(&mut self) -> Result<Event> {
        loop {
            for index in self.unread.by_ref() {
                // Those of a newer server are stepped over.
                if let Some(event) = self.records.get(index).and_then(Record::event) {
                    return Ok(event);
                }
            }
            self.read()?;
        }
    }

    /// The next event, or `None` where there is none. The card must not block
    /// ([`Card::set_nonblocking`]), or this waits as [`Events::wait`] does.
    ///
    /// # Errors
    ///
    /// As [`Events::wait`], but for EAGAIN.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        match self.wait() {
            Ok(event) => Ok(Some(event)),
            Err(error) if error.errno() == EAGAIN => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self) -> Result<()> {
        const ACTION: &str = "read events";
        let length = call::read(self.node.fd(), self.records.as_mut_bytes());
        let length = length.map_err(Error::of(ACTION))?;
        self.unread = 0..length / RECORD_SIZE;
        if self.unread.is_empty() {
            return Err(Error::new(ACTION, EIO));
        }
        Ok(())
    }
}
