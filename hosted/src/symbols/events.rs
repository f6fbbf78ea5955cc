//! Event queues, as relibc makes them of the event scheme.

use libc::timespec;
use syscall::error::{EINVAL, Error, Result};
use syscall::flag::{EventFlags, O_CREAT, O_RDWR};

use super::{RawResult, fill, number};
use crate::kernel::Event;
use crate::proto::{Op, PAYLOAD_MAX};

/// One event, as the crate `redox_event` takes it.
#[repr(C)]
struct RawEvent {
    fd: usize,
    user_data: usize,
    flags: u32,
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_create_v1(flags: u32) -> RawResult {
    Error::mux(create(flags))
}

fn create(flags: u32) -> Result<usize> {
    if flags != 0 {
        return Err(Error::new(EINVAL));
    }
    let flags = (O_RDWR | O_CREAT) as u64;
    number(Op::Open, 0, &[flags, 0], b"/scheme/event")
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_destroy_v1(queue: usize) -> RawResult {
    Error::mux(number(Op::Close, queue, &[], &[]))
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_ctl_v1(
    queue: usize,
    fd: usize,
    flags: u32,
    user_data: usize,
) -> RawResult {
    let flags = EventFlags::from_bits(flags as usize).ok_or(Error::new(EINVAL));
    let written = flags.and_then(|flags| {
        let event = Event {
            id: fd as u64,
            flags: flags.bits() as u64,
            data: user_data as u64,
        };
        number(Op::Write, queue, &[], &event.to_bytes())
    });
    Error::mux(written.map(|_| 0))
}

/// Time limit and signal mask are not looked at, as in relibc.
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_event_queue_get_events_v1(
    queue: usize,
    events: *mut RawEvent,
    count: usize,
    flags: u32,
    _timeout: *const timespec,
    _signals: *const u64,
) -> RawResult {
    let mut room = vec![0; count.min(PAYLOAD_MAX / Event::SIZE) * Event::SIZE];
    if flags != 0 || room.is_empty() {
        return Error::mux(Err(Error::new(EINVAL)));
    }
    let read = fill(Op::Read, queue, &mut room);
    let read = read.map(|bytes| {
        let read = room.get(..bytes).unwrap_or_default().as_chunks().0;
        for (index, event) in read.iter().map(Event::from_bytes).enumerate() {
            let event = RawEvent {
                fd: event.id as usize,
                user_data: event.data as usize,
                flags: event.flags as u32,
            };
            // SAFETY: the module's rule; no more are read than there is room for.
            unsafe { events.add(index).write(event) };
        }
        read.len()
    });
    Error::mux(read)
}
