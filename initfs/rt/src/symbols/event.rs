//! Event queues, as relibc makes them of the kernel's event scheme.

use libredox::data::TimeSpec;
use syscall::data::Event;
use syscall::error::{EINVAL, EIO, Error, Result};
use syscall::flag::{EventFlags, O_CREAT, O_RDWR};

use super::{NAMESPACE, Raw, Relaxed, mux, open_at};
use crate::fd;

/// One event, as the crate `redox_event` takes it.
#[repr(C)]
struct RawEvent {
    fd: usize,
    user_data: usize,
    flags: u32,
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_create_v1(flags: u32) -> Raw {
    if flags != 0 {
        return mux(Err(Error::new(EINVAL)));
    }
    let flags = O_RDWR | O_CREAT;
    mux(open_at(NAMESPACE.load(Relaxed), b"/scheme/event", flags, 0))
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_destroy_v1(queue: usize) -> Raw {
    mux(fd::close(queue).map(|()| 0))
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_ctl_v1(queue: usize, fd: usize, flags: u32, data: usize) -> Raw {
    mux(control(queue, fd, flags, data))
}

fn control(queue: usize, fd: usize, flags: u32, data: usize) -> Result<usize> {
    let flags = EventFlags::from_bits(flags as usize).ok_or(Error::new(EINVAL))?;
    syscall::write(
        queue,
        &Event {
            id: fd,
            flags,
            data,
        },
    )?;
    Ok(0)
}

/// One event at a time. Time limit and signal mask are not looked at. Both as in relibc.
///
/// # Safety
///
/// `events` points to room for `count` events.
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_event_queue_get_events_v1(
    queue: usize,
    events: *mut RawEvent,
    count: usize,
    flags: u32,
    _timeout: *const TimeSpec,
    _signals: *const u64,
) -> Raw {
    if flags != 0 || count == 0 {
        return mux(Err(Error::new(EINVAL)));
    }
    let mut event = Event::default();
    let read = syscall::read(queue, &mut event).and_then(|length| match length {
        length if length == size_of::<Event>() => Ok(1),
        _ => Err(Error::new(EIO)),
    });
    if read.is_ok() {
        let event = RawEvent {
            fd: event.id,
            user_data: event.data,
            flags: event.flags.bits() as u32,
        };
        // SAFETY: by contract there is room for one.
        unsafe { events.write(event) };
    }
    mux(read)
}
