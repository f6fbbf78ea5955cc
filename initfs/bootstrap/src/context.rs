//! Contexts: the kernel's threads, made and filled through its proc scheme (kernel:
//! `src/scheme/proc.rs`).

use core::fmt::Write;

use arrayvec::ArrayString;
use rt::fd::{self, Owned};
use rt::thread::write_words;
use syscall::data::ProcSchemeAttrs;
use syscall::error::{EIO, Error, Result};
use syscall::flag::{
    ADDRSPACE_OP_MMAP, ADDRSPACE_OP_MPROTECT, ADDRSPACE_OP_TRANSFER, ContextStatus, ContextVerb,
};
use syscall::{CallFlags, MapFlags};

/// The right to make contexts and to say who they are: the root of the proc scheme.
#[derive(Clone, Copy, Debug)]
pub struct Authority(pub usize);

/// Who a context is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The process's number.
    pub pid: u32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
}

/// How a context does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// It has ended, or is about to.
    Ended,
    /// It has ended with a processor exception: its number and the address.
    Crashed(u8, usize),
    /// Anything else.
    Alive,
}

impl Authority {
    /// A context that has not been started, without memory or files.
    ///
    /// # Errors
    ///
    /// ENOMEM, EMFILE.
    pub fn new_context(self, identity: Identity, name: &str) -> Result<Owned> {
        let context = Owned::new(fd::dup(self.0, b"new-context")?);
        self.set_identity(&context, identity, name)?;
        Ok(context)
    }

    /// The context that calls.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn current_context(self) -> Result<Owned> {
        fd::dup(self.0, b"cur-context").map(Owned::new)
    }

    /// Says who a context is.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn set_identity(self, context: &Owned, identity: Identity, name: &str) -> Result<()> {
        let mut attributes = ProcSchemeAttrs {
            pid: identity.pid,
            euid: identity.uid,
            egid: identity.gid,
            prio: 20,
            debug_name: [0; 32],
        };
        for (target, byte) in attributes.debug_name.iter_mut().zip(name.bytes()) {
            *target = byte;
        }
        let file = self.open(context, "attrs")?;
        syscall::write(file.raw(), &attributes).map(drop)
    }

    /// Ends a context, wherever it is.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn kill(self, context: &Owned) -> Result<()> {
        let status = self.open(context, "status")?;
        write_words(&status, &[ContextVerb::ForceKill as usize])
    }

    /// Wakes a context as a signal would.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn interrupt(self, context: &Owned) -> Result<()> {
        let status = self.open(context, "status")?;
        write_words(&status, &[ContextVerb::Interrupt as usize])
    }

    fn open(self, context: &Owned, what: &str) -> Result<Owned> {
        let mut request = ArrayString::<48>::new();
        write!(request, "auth-{}-{what}", self.0).map_err(|_| Error::new(EIO))?;
        context.dup(request.as_bytes())
    }
}

/// How a context does.
///
/// # Errors
///
/// EMFILE.
pub fn status(context: &Owned) -> Result<Status> {
    let file = context.dup(b"status")?;
    let mut words = [0; 4];
    read_words(&file, &mut words)?;
    let [status, exception, _, address] = words;
    Ok(match status {
        ended if ended == ContextStatus::Dead as usize => Status::Ended,
        ended if ended == ContextStatus::ForceKilled as usize => Status::Ended,
        crashed if crashed == ContextStatus::UnhandledExcp as usize => {
            Status::Crashed(exception as u8, address)
        }
        _ => Status::Alive,
    })
}

fn read_words(file: &Owned, words: &mut [usize]) -> Result<()> {
    // SAFETY: any bytes are valid words.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), size_of_val(words))
    };
    syscall::read(file.raw(), bytes).map(drop)
}

/// An address space of a context that has not been started.
#[derive(Debug)]
pub struct AddressSpace {
    fd: Owned,
}

impl AddressSpace {
    /// A new, empty one.
    ///
    /// # Errors
    ///
    /// ENOMEM, EMFILE.
    pub fn new(own: &Owned) -> Result<Self> {
        let fd = own.dup(b"addrspace")?.dup(b"empty")?;
        Ok(Self { fd })
    }

    /// Maps zeroed memory at `address`, both whole pages.
    ///
    /// # Errors
    ///
    /// ENOMEM, EEXIST.
    pub fn map(&self, address: usize, size: usize, protection: MapFlags) -> Result<()> {
        let flags = protection | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        let words = [ADDRSPACE_OP_MMAP, !0, 0, address, size, flags.bits()];
        write_words(&self.fd, &words)
    }

    /// Moves pages of ours there. Every one of them has been written to: an untouched page is the
    /// kernel's one zero page, which must not become writeable elsewhere.
    ///
    /// # Errors
    ///
    /// ENOMEM, EEXIST.
    pub fn take(
        &self,
        own: &Owned,
        source: usize,
        address: usize,
        size: usize,
        protection: MapFlags,
    ) -> Result<()> {
        let from = own.dup(b"addrspace")?;
        let flags = protection | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        let op = ADDRSPACE_OP_TRANSFER;
        let words = [op, from.raw(), source, address, size, flags.bits()];
        write_words(&self.fd, &words)?;
        // The pages have their protection; what the kernel notes down for a copy of them has not.
        let words = [ADDRSPACE_OP_MPROTECT, address, size, protection.bits()];
        write_words(&self.fd, &words)
    }

    /// Makes it the context's when the fd that this returns is closed. The context goes on with
    /// this stack, here, and with `argument` in rsi.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn give_to(
        self,
        context: &Owned,
        stack: usize,
        entry: usize,
        argument: usize,
    ) -> Result<Owned> {
        let current = context.dup(b"current-addrspace")?;
        write_words(&current, &[self.fd.raw(), stack, entry, argument])?;
        Ok(current)
    }
}

/// Puts a copy of our `fd` into the context's table of files, at `number`.
///
/// # Errors
///
/// EBADF, EMFILE.
pub fn hand_fd(context: &Owned, fd: usize, number: usize) -> Result<()> {
    let files = context.dup(b"filetable")?;
    let flags = CallFlags::FD | CallFlags::FD_CLONE;
    syscall::call_wo(files.raw(), &fd.to_ne_bytes(), flags, &[number as u64]).map(drop)
}

/// Starts the context.
///
/// # Errors
///
/// EINVAL where it has been started.
pub fn start(context: &Owned) -> Result<()> {
    write_words(&context.dup(b"start")?, &[0])
}
