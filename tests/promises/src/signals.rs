//! Promises about signals: whatever a call was doing when one came, it is done or not done.

use gem_wire::native::{Call, CreateFlags, Sized};
use libredox::call::{MmapArgs, call_rw, close, dup, mmap, munmap};
use libredox::error::Error;
use libredox::flag::MAP_SHARED;
use syscall::CallFlags;
use syscall::error::EINTR;

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{World, count, promises};

promises![a_call_that_a_signal_interrupts_is_done_or_not_done];

fn a_call_that_a_signal_interrupts_is_done_or_not_done(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    // Where a server has to clear pages before it hands them out, making a large buffer is a call
    // that waits; where it has not, signals have to be quick.
    let storm = Command::Storm {
        node: card,
        interruptions: 50,
        size: count(&world.text("stats"), "limit-object-pages") * PAGE,
    };
    // An errno here means that a call was done although it said EINTR, or the other way round.
    a.tell_amid_signals(&storm).unwrap();
    let stats = world.text("stats");
    for key in [
        "objects",
        "handles",
        "object-fds",
        "memory-pages",
        "mapped-pages",
    ] {
        assert_eq!(count(&stats, key), 0, "{key}");
    }
    assert_eq!(
        a.create(card, PAGE),
        Ok(1),
        "the node works, and all its handles are free"
    );
}

/// In the client: a buffer's life, over and over, until this many calls were interrupted.
pub(crate) fn storm(node: usize, interruptions: u64, size: u64) -> Result<(), i32> {
    let mut weather = Weather { interrupted: 0 };
    while weather.interrupted < interruptions {
        weather
            .one_buffer(node, size)
            .map_err(|error| error.errno())?;
    }
    Ok(())
}

struct Weather {
    interrupted: u64,
}

impl Weather {
    fn one_buffer(&mut self, node: usize, size: u64) -> Result<(), Error> {
        let flags = CreateFlags::empty();
        let created = self.native(node, Call::Create { size, flags })?;
        let handle = Sized::unpack(created as u64).handle;
        let offset = self.native(node, Call::Map { handle })? as u64;
        let size = size as usize;
        let at = self.again(|| {
            let args = MmapArgs {
                addr: core::ptr::null_mut(),
                length: size,
                prot: READ_WRITE,
                flags: MAP_SHARED,
                fd: node,
                offset,
            };
            // SAFETY: the kernel chooses an address where nothing is.
            unsafe { mmap(args) }
        })?;
        // SAFETY: just mapped to be written, and used by nobody else.
        unsafe { at.cast::<u8>().write_volatile(1) };
        let object = self.again(|| dup(node, alloc::format!("handle/{handle}")))?;
        // SAFETY: what was mapped above, and is not used below.
        self.again(|| unsafe { munmap(at, size) })?;
        self.again(|| close(object))?;
        self.native(node, Call::Close { handle })?;
        Ok(())
    }

    fn native(&mut self, node: usize, call: Call) -> Result<usize, Error> {
        self.again(|| call_rw(node, &mut [], CallFlags::empty(), &call.encode()))
    }

    fn again<T>(&mut self, mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match call() {
                Err(error) if error.errno() == EINTR => self.interrupted += 1,
                result => return result,
            }
        }
    }
}
