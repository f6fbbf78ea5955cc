//! Recording: an [`Observer`] that writes a trace (the format is `gem_traces`'s), and a platform
//! that notes who is who on the way.
//!
//! A recording has all payloads in it, so it is for tests. It tells what gemd did, not when: lines
//! are written one by one, where gemd came to an answer.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use gem::Limits;
use gem::pages::Ticket;
use gem::units::{Identity, Pid};
use gem::user::UserSource;
use gem_traces::Writer;
use gem_wire::limit::Limit;
use syscall::schemev2::{Cqe, Sqe};

use crate::observe::Observer;
use crate::payload::Payload;
use crate::platform::Platform;
use crate::server::get_limit;

/// Takes the lines of a trace, without their ends.
pub type Sink = Box<dyn FnMut(&str)>;

struct Trace {
    writer: Writer,
    sink: Sink,
    known: BTreeMap<Pid, Option<(u32, u32)>>,
}

impl Trace {
    fn write(&mut self, line: impl FnOnce(&mut Writer) -> String) {
        let line = line(&mut self.writer);
        (self.sink)(&line);
    }
}

/// A recording of what a server with these limits and pages does on `platform`, in two parts: what
/// observes the service, and the platform to be used in place of the other.
pub fn record<P: Platform>(
    limits: &Limits,
    platform: P,
    pages: &P::Pages,
    sink: Sink,
) -> (Recorder, Recorded<P>) {
    let mut trace = Trace {
        writer: Writer::default(),
        sink,
        known: BTreeMap::new(),
    };
    let limits = Limit::ALL
        .iter()
        .map(|&limit| (limit.number(), get_limit(limits, limit)));
    trace.write(|writer| writer.start(limits));
    if pages.takes_user_pages() {
        trace.write(Writer::user_pages);
    }
    let trace = Rc::new(RefCell::new(trace));
    let recorder = Recorder {
        trace: trace.clone(),
        lent: BTreeMap::new(),
    };
    (recorder, Recorded { platform, trace })
}

/// Records what was asked and answered.
pub struct Recorder {
    trace: Rc<RefCell<Trace>>,
    /// Payloads of requests that are not answered, and what was in them.
    lent: BTreeMap<u32, (Payload, Vec<u8>)>,
}

impl Observer for Recorder {
    fn asked(&mut self, sqe: &Sqe, payload: Payload) {
        let bytes = contents(&payload);
        let lent = crate::sqe::has_payload(sqe).then_some(bytes.as_slice());
        self.trace
            .borrow_mut()
            .write(|writer| writer.asked(sqe, lent));
        if !payload.is_empty() {
            self.lent.insert(sqe.tag, (payload, bytes));
        }
    }

    fn answered(&mut self, cqe: &Cqe) {
        let lent = if gem_traces::is_unasked(cqe) {
            None
        } else {
            self.lent.remove(&cqe.tag)
        };
        let changed = lent.and_then(|(payload, before)| {
            let now = contents(&payload);
            (now != before).then_some(now)
        });
        self.trace
            .borrow_mut()
            .write(|writer| writer.answered(cqe, changed.as_deref()));
    }
}

fn contents(payload: &Payload) -> Vec<u8> {
    let mut bytes = vec![0; payload.len()];
    payload.head(&mut bytes);
    bytes
}

/// A platform whose answers about processes are in the trace.
pub struct Recorded<P> {
    platform: P,
    trace: Rc<RefCell<Trace>>,
}

impl<P: Platform> Platform for Recorded<P> {
    type Pages = P::Pages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        let identity = self.platform.identity(pid);
        let who = identity
            .as_ref()
            .map(|identity| (identity.uid.0, identity.gid.0));
        let mut trace = self.trace.borrow_mut();
        if trace.known.insert(pid, who) != Some(who) {
            trace.write(|writer| writer.process(pid.0, who));
        }
        identity
    }

    fn finished(&mut self, pages: &mut P::Pages, tickets: &mut Vec<Ticket>) {
        self.platform.finished(pages, tickets);
    }
}
