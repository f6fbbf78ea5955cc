//! A process that goes on as two, or as another program, built from the kernel's parts as relibc
//! builds them.
//!
//! [`fork`]: a new context with a copy of the table of files and a copy of the address space. The
//! kernel copies ordinary memory; what is mapped from a scheme it leaves out, so the parent maps
//! that once more, into the child, through the file that it was mapped from. [`exec`]: the bootstrap
//! process lays the program out in an address space of its own, which then takes the place of
//! this one; the files stay.
//!
//! Both are for processes of one thread: the child has the thread that called, and no other.

use alloc::format;
use core::arch::naked_asm;
use core::convert::Infallible;

use syscall::GrantFlags;
use syscall::data::GrantDesc;
use syscall::error::{EINTR, Error, Result};
use syscall::flag::{ADDRSPACE_OP_MMAP, CallFlags, MapFlags};

use crate::fd::{self, Owned};
use crate::process::Process;
use crate::protocol::{DUP_EXEC, DUP_FORK, DUP_THREAD, PROCESS_FD, THREAD_FD};
use crate::start;
use crate::thread::write_words;

/// Which of the two processes goes on.
#[derive(Debug)]
pub enum Forked {
    /// The one that called, with the other.
    Parent(Process),
    /// The other.
    Child,
}

/// Makes a second process of this one, with the same files and a copy of its memory; what is
/// mapped from schemes, both have.
///
/// # Errors
///
/// ENOMEM, EMFILE, and what a scheme answers that does not map again what it has mapped before;
/// then there is no second process.
///
/// # Safety
///
/// This process has one thread, and nobody in it keeps numbers of files that [`crate::fd`] does
/// not know.
pub unsafe fn fork() -> Result<Forked> {
    let process = fd::dup(PROCESS_FD, DUP_FORK).map(Owned::new)?;
    let thread = [DUP_THREAD, &0_u64.to_ne_bytes()].concat();
    let mut plan = Plan {
        context: process.dup(&thread)?,
        process,
        own_files: fd::dup(THREAD_FD, b"filetable").map(Owned::new)?,
        own_space: fd::dup(THREAD_FD, b"addrspace").map(Owned::new)?,
        files: None,
        space: Owned::new(fd::reserve()?),
    };
    // SAFETY: the plan outlives the call, in both processes.
    let returned = unsafe { split(&raw mut plan) };
    match Error::demux(returned) {
        Ok(CHILD) => {
            // What is left of the plan here are copies of files, and numbers that are not in use.
            drop(plan);
            start::find_own_number();
            Ok(Forked::Child)
        }
        Ok(_) => Ok(Forked::Parent(Process::new(plan.process))),
        Err(error) => {
            let _ = Process::new(plan.process).kill();
            Err(error)
        }
    }
}

/// What [`split`] returns in the child.
const CHILD: usize = 0;
/// And in the parent.
const PARENT: usize = 1;

/// Everything that is opened before the child's memory is copied: the child must let go of it,
/// too.
struct Plan {
    process: Owned,
    context: Owned,
    own_files: Owned,
    own_space: Owned,
    files: Option<Owned>,
    /// Only a number until the copy is made.
    space: Owned,
}

/// Returns twice: here what [`make`] returned, and in the child [`CHILD`].
///
/// # Safety
///
/// `plan` points to a plan that lives until both have returned.
#[unsafe(naked)]
unsafe extern "C" fn split(plan: *mut Plan) -> usize {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rsi, rsp",
        // Calls want the stack aligned.
        "sub rsp, 8",
        "call {make}",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        make = sym make,
    )
}

/// Where the child begins, with the stack as [`split`] has left it.
#[unsafe(naked)]
unsafe extern "C" fn begin() -> ! {
    naked_asm!(
        "xor eax, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Called by [`split`]: makes the child, which begins with this stack.
unsafe extern "C" fn make(plan: *mut Plan, stack: usize) -> usize {
    // SAFETY: `fork` passed it and waits; the child has a copy.
    let plan = unsafe { &mut *plan };
    Error::mux(plan.carry_out(stack).map(|()| PARENT))
}

impl Plan {
    fn carry_out(&mut self, stack: usize) -> Result<()> {
        let files = self.files.insert(self.own_files.dup(b"copy")?);
        // A change is made when the fd is closed, and the copy is the child's from then on.
        write_words(&self.context.dup(b"current-filetable")?, &[files.raw()])?;
        for (fd, number) in [(&self.process, PROCESS_FD), (&self.context, THREAD_FD)] {
            let flags = CallFlags::FD | CallFlags::FD_CLONE;
            let fd = fd.raw().to_ne_bytes();
            syscall::call_wo(files.raw(), &fd, flags, &[number as u64])?;
        }

        syscall::dup_into(self.own_space.raw(), self.space.raw(), b"exclusive")?;
        self.map_again()?;
        let current = self.context.dup(b"current-addrspace")?;
        let entry = begin as unsafe extern "C" fn() -> ! as usize;
        write_words(&current, &[self.space.raw(), stack, entry])?;
        drop(current);
        write_words(&self.context.dup(b"start")?, &[0])
    }

    /// Maps into the child what this process has mapped of schemes, at the same addresses.
    fn map_again(&self) -> Result<()> {
        // The kernel counts so many as read, however many there is room for.
        let mut grants = [GrantDesc::default(); 16];
        loop {
            // SAFETY: plain integers, and flags in which all bits may be set.
            let bytes = unsafe {
                core::slice::from_raw_parts_mut(
                    grants.as_mut_ptr().cast::<u8>(),
                    size_of_val(&grants),
                )
            };
            let length = syscall::read(self.own_space.raw(), bytes)?;
            if length == 0 {
                return Ok(());
            }
            for grant in grants.iter().take(length / size_of::<GrantDesc>()) {
                if grant.flags.contains(FROM_A_SCHEME) {
                    self.map_one_again(grant)?;
                }
            }
        }
    }

    fn map_one_again(&self, grant: &GrantDesc) -> Result<()> {
        let request = format!("grant-fd-{:x}", grant.base);
        let file = self.own_space.dup(request.as_bytes())?;
        let mut flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED_NOREPLACE;
        for (has, may) in [
            (GrantFlags::GRANT_READ, MapFlags::PROT_READ),
            (GrantFlags::GRANT_WRITE, MapFlags::PROT_WRITE),
            (GrantFlags::GRANT_EXEC, MapFlags::PROT_EXEC),
        ] {
            flags.set(may, grant.flags.contains(has));
        }
        let words = [
            ADDRSPACE_OP_MMAP,
            file.raw(),
            grant.offset as usize,
            grant.base,
            grant.size,
            flags.bits(),
        ];
        write_words(&self.space, &words)
    }
}

/// What is mapped from a scheme, shared.
const FROM_A_SCHEME: GrantFlags = GrantFlags::GRANT_SCHEME.union(GrantFlags::GRANT_SHARED);

/// Goes on as the program of this name, without arguments: the same process, with the same
/// files.
///
/// # Errors
///
/// ENOENT where the image has no such program, ENOEXEC, ENOMEM, EBUSY where this process has
/// several threads.
pub fn exec(program: &str) -> Result<Infallible> {
    let request = [DUP_EXEC, program.as_bytes(), &[0]].concat();
    let new_space = fd::dup(PROCESS_FD, &request)?;
    // Closing it is what puts the new address space into the place of this one.
    fd::close(new_space)?;
    // Not reached.
    Err(Error::new(EINTR))
}
