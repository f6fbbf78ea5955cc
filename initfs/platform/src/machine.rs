//! The machine as gemd sees it: who is who.

use alloc::vec::Vec;

use gem::pages::Ticket;
use gem::units::{Gid, Identity, Pid, Uid};
use gemd::platform::Platform;
use libredox::Fd;
use libredox::error::Result;
use libredox::flag::O_RDONLY;
use libredox::protocol::ProcMeta;

use crate::Pages;

/// Credentials from the process manager, pages from [`Pages`].
pub struct Machine {
    credentials: Fd,
}

impl Machine {
    /// Root only.
    ///
    /// # Errors
    ///
    /// What the process manager answers.
    pub fn new() -> Result<Self> {
        let credentials = Fd::open("/scheme/proc/proc-creds-capability", O_RDONLY, 0)?;
        Ok(Self { credentials })
    }
}

impl Platform for Machine {
    type Pages = Pages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        let number = usize::try_from(pid.0).ok()?;
        let mut bytes = [0; size_of::<ProcMeta>()];
        libredox::call::get_proc_credentials(self.credentials.raw(), number, &mut bytes).ok()?;
        // SAFETY: `ProcMeta` is plain integers, of which all bits are values.
        let meta = unsafe { bytes.as_ptr().cast::<ProcMeta>().read_unaligned() };
        Some(Identity {
            uid: Uid(meta.euid),
            gid: Gid(meta.egid),
            pid,
        })
    }

    fn finished(&mut self, pages: &mut Pages, tickets: &mut Vec<Ticket>) {
        pages.finished(tickets);
    }
}
