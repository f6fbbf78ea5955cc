//! Looking on while the server serves: what was asked and what was answered, in the order in
//! which it happened. For recordings; whoever serves without an observer pays nothing for it.

use syscall::schemev2::{Cqe, Sqe};

use crate::payload::Payload;

/// Who looks on. It is called on the socket's thread, while everybody waits.
pub trait Observer {
    /// The kernel has asked this, and nobody has looked at it yet. The payload is that of the
    /// request; it must be dropped when the request is answered.
    fn asked(&mut self, sqe: &Sqe, payload: Payload);

    /// This is an answer, or what the kernel is told unasked. What belongs into the payload is
    /// there, and the kernel does not know yet.
    fn answered(&mut self, cqe: &Cqe);
}

/// Nobody.
impl Observer for () {
    fn asked(&mut self, _: &Sqe, _: Payload) {}
    fn answered(&mut self, _: &Cqe) {}
}
