//! A client process on strings: what `gem-promises` tells it to do comes over a link, an fd on a
//! scheme of its master's (`promise/link.rs` has the other end).

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

use gem_promises::command::{KernelCall, Outcome, Reply};
use gem_promises::puppet::{Platform, obey};
use initfs_tests::link::{DUP_CARRIED, MORE, NEXT, PART, REPLY};
use libredox::call;
use rt::fd::{self, Owned};
use rt::fork::Forked;
use rt::protocol::FIRST_HANDED_FD as LINK;
use syscall::data::Map;
use syscall::error::{EINTR, Result};
use syscall::flag::{CallFlags, MapFlags};
use syscall::{
    SYS_FEVENT, SYS_FLINK, SYS_FRENAME, SYS_FSTAT, SYS_FSYNC, SYS_MREMAP, SYS_OPENAT_INTO,
    SYS_READ2, SYS_UNLINKAT, SYS_WRITE2, syscall2, syscall3, syscall4, syscall5, syscall6,
};

rt::entry!(main);

fn main() -> u8 {
    while let Ok(message) = next() {
        let reply = obey(&message, &mut Strings);
        if again(|| call::call_wo(LINK, &reply, CallFlags::empty(), &[REPLY])).is_err() {
            break;
        }
    }
    0
}

/// The next order.
fn next() -> libredox::error::Result<Vec<u8>> {
    let mut message = vec![0; PART];
    let length = again(|| call::call_ro(LINK, &mut message, CallFlags::empty(), &[NEXT]))?;
    let mut there = length.min(PART);
    message.resize(length, 0);
    while there < length {
        let words = [MORE, there as u64];
        let end = length.min(there + PART);
        there += call::call_ro(LINK, &mut message[there..end], CallFlags::empty(), &words)?;
    }
    Ok(message)
}

/// Makes a call until no signal interrupts it.
fn again<T>(mut call: impl FnMut() -> libredox::error::Result<T>) -> libredox::error::Result<T> {
    loop {
        match call() {
            Err(error) if error.errno() == EINTR => {}
            result => return result,
        }
    }
}

/// What a puppet needs of this world.
struct Strings;

impl Platform for Strings {
    fn become_user(&mut self, uid: u32) -> core::result::Result<(), i32> {
        rt::process::become_user(uid, uid).map_err(|error| error.errno)
    }

    fn carry(&mut self, fd: usize) -> core::result::Result<(), i32> {
        let flags = CallFlags::FD | CallFlags::FD_CLONE;
        call::call_wo(LINK, &fd.to_ne_bytes(), flags, &[0])
            .map(drop)
            .map_err(|error| error.errno())
    }

    fn uncarry(&mut self) -> core::result::Result<usize, i32> {
        fd::dup(LINK, DUP_CARRIED).map_err(|error| error.errno)
    }

    fn fork(&mut self) -> core::result::Result<u64, i32> {
        let link = self.uncarry()?;
        // SAFETY: this program has one thread, and its files are the runtime's.
        let forked = unsafe { rt::fork::fork() }.map_err(|error| error.errno);
        let link = Owned::new(link);
        match forked? {
            Forked::Parent(child) => {
                // Whoever holds the link is to have power over it.
                self.carry(child.raw_fd())?;
                let pid = child.pid().map_err(|error| error.errno)?;
                Ok(pid as u64)
            }
            Forked::Child => {
                let replaced = syscall::dup2(link.raw(), LINK, &[]);
                replaced.map(|_| 0).map_err(|error| error.errno)
            }
        }
    }

    fn exec(&mut self) -> core::result::Result<Infallible, i32> {
        rt::fork::exec("puppet").map_err(|error| error.errno)
    }

    fn exit(&mut self) -> ! {
        rt::start::exit(0)
    }

    fn address_space(&mut self) -> core::result::Result<usize, i32> {
        fd::dup(rt::protocol::THREAD_FD, b"addrspace").map_err(|error| error.errno)
    }

    fn thread(&mut self, body: Box<dyn FnOnce() + Send>) -> core::result::Result<(), i32> {
        // It ends when it is told to, and keeps its stack.
        let spawned = rt::thread::spawn(body);
        spawned.map(drop).map_err(|error| error.errno)
    }

    fn pass(&mut self) {
        let _ = syscall::sched_yield();
    }

    fn kernel(&mut self, call: KernelCall) -> Reply {
        let mut bytes = Vec::new();
        let value = system_call(call, &mut bytes).map_err(|error| error.errno)? as u64;
        Ok(Outcome { value, bytes })
    }
}

/// The system call, with its arguments as they are.
fn system_call(call: KernelCall, bytes: &mut Vec<u8>) -> Result<usize> {
    let path = |path: &[u8]| (path.as_ptr() as usize, path.len());
    // SAFETY: the kernel reads or fills only the paths and buffers named here, which outlive the
    // calls; what is mapped goes where nothing is, or over the test's own mappings.
    unsafe {
        match call {
            KernelCall::OpenAt(fd, name, flags) => {
                let (base, length) = path(&name);
                fd::open_with(|number| {
                    let flags = flags as usize;
                    syscall6(SYS_OPENAT_INTO, fd as usize, base, length, flags, 0, number)
                })
            }
            KernelCall::Fstat(fd, length) => {
                bytes.resize(length as usize, 0);
                let base = bytes.as_mut_ptr() as usize;
                syscall3(SYS_FSTAT, fd as usize, base, bytes.len())
            }
            KernelCall::Fsync(fd) => syscall2(SYS_FSYNC, fd as usize, 0),
            KernelCall::Fevent(fd, events) => syscall3(SYS_FEVENT, fd as usize, events as usize, 0),
            KernelCall::Flink(fd, name) => {
                let (base, length) = path(&name);
                syscall3(SYS_FLINK, fd as usize, base, length)
            }
            KernelCall::Frename(fd, name) => {
                let (base, length) = path(&name);
                syscall3(SYS_FRENAME, fd as usize, base, length)
            }
            KernelCall::Unlinkat(fd, name, flags) => {
                let (base, length) = path(&name);
                syscall4(SYS_UNLINKAT, fd as usize, base, length, flags as usize)
            }
            KernelCall::ReadAt(fd, length, offset) => {
                bytes.resize(length as usize, 0);
                let base = bytes.as_mut_ptr() as usize;
                syscall5(
                    SYS_READ2,
                    fd as usize,
                    base,
                    bytes.len(),
                    offset as usize,
                    0,
                )
            }
            KernelCall::WriteAt(fd, data, offset) => {
                let (base, length) = path(&data);
                syscall5(SYS_WRITE2, fd as usize, base, length, offset as usize, 0)
            }
            KernelCall::Fmap(fd, offset, size, flags, address) => {
                let map = Map {
                    offset: offset as usize,
                    size: size as usize,
                    flags: MapFlags::from_bits_retain(flags as usize),
                    address: address as usize,
                };
                syscall::fmap(fd as usize, &map)
            }
            KernelCall::Remap(address, size, new_address, new_size, flags) => syscall5(
                SYS_MREMAP,
                address as usize,
                size as usize,
                new_address as usize,
                new_size as usize,
                flags as usize,
            ),
        }
    }
}
