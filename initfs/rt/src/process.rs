//! Processes, made and looked after by the bootstrap process.
//!
//! This end only asks (`protocol`): a process is a number and what the bootstrap process keeps
//! under it. Programs come from the image's archive, by name.

use alloc::string::String;
use alloc::vec::Vec;

use syscall::CallFlags;
use syscall::error::Result;

use crate::fd::{self, Owned};
use crate::protocol::{Call, DUP_CHILD, Ended, PROCESS_FD};
use crate::start;

/// A process to be: a program of the image and what it starts with.
#[derive(Clone, Debug)]
pub struct Command {
    line: String,
    ids: Option<(u32, u32)>,
    fds: Vec<(usize, usize)>,
}

impl Command {
    /// The program of this name.
    pub fn new(program: &str) -> Self {
        Self {
            line: String::new(),
            ids: None,
            fds: Vec::new(),
        }
        .argument(program)
    }

    /// With one more argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.line.push_str(argument);
        self.line.push('\0');
        self
    }

    /// As this user and group; only root can.
    pub fn ids(mut self, uid: u32, gid: u32) -> Self {
        self.ids = Some((uid, gid));
        self
    }

    /// With this fd of ours at number `at`, from [`crate::protocol::FIRST_HANDED_FD`] on.
    pub fn hand(mut self, fd: usize, at: usize) -> Self {
        self.fds.push((fd, at));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// ENOENT where the image has no such program, ENOEXEC, ENOMEM, EPERM.
    pub fn spawn(&self) -> Result<Process> {
        let process = Process::new(Owned::new(fd::dup(PROCESS_FD, DUP_CHILD)?));
        if let Some((uid, gid)) = self.ids {
            process.call(&[Call::SetIds as u64, uid.into(), gid.into()])?;
        }
        for &(fd, at) in &self.fds {
            let flags = CallFlags::FD | CallFlags::FD_CLONE;
            syscall::call_wo(process.fd.raw(), &fd.to_ne_bytes(), flags, &[at as u64])?;
        }
        syscall::call_wo(
            process.fd.raw(),
            self.line.as_bytes(),
            CallFlags::empty(),
            &[Call::Exec as u64],
        )?;
        Ok(process)
    }
}

/// A process. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Process {
    fd: Owned,
}

impl Process {
    /// The process that this process fd is on.
    pub fn new(fd: Owned) -> Self {
        Self { fd }
    }

    /// Its process fd.
    pub fn raw_fd(&self) -> usize {
        self.fd.raw()
    }

    /// Its number.
    ///
    /// # Errors
    ///
    /// None but of a failing image.
    pub fn pid(&self) -> Result<usize> {
        self.call(&[Call::Pid as u64])
    }

    /// Ends it at once. That it has ended already is fine.
    ///
    /// # Errors
    ///
    /// None but of a failing image.
    pub fn kill(&self) -> Result<()> {
        self.call(&[Call::Kill as u64]).map(drop)
    }

    /// Interrupts what its threads wait for.
    ///
    /// # Errors
    ///
    /// None but of a failing image.
    pub fn interrupt(&self) -> Result<()> {
        self.call(&[Call::Interrupt as u64]).map(drop)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// None but of a failing image.
    pub fn wait(&self) -> Result<Ended> {
        self.call(&[Call::Wait as u64]).map(Ended::from_raw)
    }

    fn call(&self, words: &[u64]) -> Result<usize> {
        syscall::call_wo(self.fd.raw(), &[], CallFlags::empty(), words)
    }
}

/// Makes the calling process this user's and group's, for good; only root can.
///
/// # Errors
///
/// EPERM.
pub fn become_user(uid: u32, gid: u32) -> Result<()> {
    let words = [Call::SetIds as u64, uid.into(), gid.into()];
    syscall::call_wo(PROCESS_FD, &[], CallFlags::empty(), &words)?;
    start::set_ids(uid, gid);
    Ok(())
}
