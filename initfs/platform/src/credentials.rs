//! Who is who: credentials of processes, from the process manager.

use gem::units::{Gid, Identity, Pid, Uid};
use libredox::Fd;
use libredox::error::Result;
use libredox::flag::{O_CLOEXEC, O_RDONLY};
use libredox::protocol::ProcMeta;

/// The right to ask for the credentials of any process.
pub struct Credentials {
    capability: Fd,
}

impl Credentials {
    /// Root only.
    ///
    /// # Errors
    ///
    /// What the process manager answers.
    pub fn new() -> Result<Self> {
        let path = "/scheme/proc/proc-creds-capability";
        let capability = Fd::open(path, O_RDONLY | O_CLOEXEC, 0)?;
        Ok(Self { capability })
    }

    /// Those of process `pid`, or `None` where it is gone.
    pub fn identity(&self, pid: Pid) -> Option<Identity> {
        let number = usize::try_from(pid.0).ok()?;
        let mut bytes = [0; size_of::<ProcMeta>()];
        libredox::call::get_proc_credentials(self.capability.raw(), number, &mut bytes).ok()?;
        // SAFETY: `ProcMeta` is plain integers, of which all bits are values.
        let meta = unsafe { bytes.as_ptr().cast::<ProcMeta>().read_unaligned() };
        Some(Identity {
            uid: Uid(meta.euid),
            gid: Gid(meta.egid),
            pid,
        })
    }
}
