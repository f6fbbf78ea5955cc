//! The loop around the scheme's socket: requests in by the batch, answers out by the batch.
//!
//! Redox's scheme crate makes and registers the socket; the SQEs are read and the CQEs written
//! here, because its decoder asserts on lengths that clients choose, and its writer keeps a
//! refused response at the head of its queue for good.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::size_of;

use gem::user::Errand;
use libredox::call;
use redox_scheme::Socket;
use redox_scheme::scheme::register_scheme_inner;
use syscall::error::{EAGAIN, EINTR, EMFILE};
use syscall::flag::{CallFlags, F_SETFL, O_NONBLOCK, SchemeSocketCall};
use syscall::schemev2::{Cqe, Sqe};

use crate::answer::{self, Answer, Errno};
use crate::executor::{Answers, Executor};
use crate::observe::Observer;
use crate::platform::Platform;
use crate::server::Server;
use crate::sqe::{self, Tag};

/// How many requests are read at a time.
const BATCH: usize = 32;

/// How many batches are still served when the daemon has been told to leave.
const LAST_TURNS: usize = 64;

/// A scheme that clients can open, and the daemon's own file on it.
pub struct Service<P: Platform, O = ()> {
    /// Before the socket, because it goes first: what it has answered elsewhere is written by then.
    executor: Executor<P>,
    socket: Socket,
    control: usize,
    /// Where requests are read to: used again every time, because to clear it is as much work as to
    /// answer a request.
    batch: Box<[Sqe; BATCH]>,
    answers: Answers,
    cqes: Vec<Cqe>,
    observer: O,
}

/// What a turn has come to.
struct Turn {
    /// There were requests.
    received: bool,
    /// There is more to do without any.
    ready: bool,
}

impl<P: Platform + 'static> Service<P> {
    /// As [`Service::register_observed`], with nobody looking on.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn register(socket: Socket, name: &str, server: Server<P>) -> Result<Self, Errno> {
        Self::register_observed(socket, name, server, ())
    }
}

impl<P: Platform + 'static, O: Observer> Service<P, O> {
    /// Makes the scheme `name` and gives it to the name space: from here on clients can open it,
    /// and wait until [`Service::run`].
    ///
    /// # Errors
    ///
    /// What the kernel or the name space manager answered.
    pub fn register_observed(
        socket: Socket,
        name: &str,
        mut server: Server<P>,
        observer: O,
    ) -> Result<Self, Errno> {
        let control = server.control().map_err(|_| Errno(EMFILE))?;
        let root = server.root().map_err(|_| Errno(EMFILE))?;
        let requests = socket.inner().raw();
        server.set_obtain(Box::new(move |tag, numbers| obtain(requests, tag, numbers)));
        let control = socket.create_this_scheme_fd(0, control.raw() as usize, 0, 0)?;
        register_scheme_inner(&socket, name, root.raw() as usize)?;
        Ok(Self {
            executor: Executor::new(server),
            socket,
            control,
            batch: Box::new([Sqe::default(); BATCH]),
            answers: Answers::new(),
            cqes: Vec::new(),
            observer,
        })
    }

    /// A way for the daemon's other threads to wake this one.
    pub fn control(&self) -> Control {
        Control { fd: self.control }
    }

    /// Serves until told to leave, then answers everything that is still waiting.
    ///
    /// # Errors
    ///
    /// The socket failed; what waited has been answered as far as that was possible.
    pub fn run(mut self) -> Result<(), Errno> {
        let result = self.serve();
        let before = self.answers.len();
        self.executor.dismiss_all(&mut self.answers);
        show(&mut self.observer, &self.answers, before);
        self.reply();
        result
    }

    fn serve(&mut self) -> Result<(), Errno> {
        let mut waiting_for_requests = true;
        while !self.executor.is_leaving() {
            // With something to do without a request, only look what has come meanwhile.
            let block = !self.turn()?.ready;
            if block != waiting_for_requests {
                self.set_blocking(block)?;
                waiting_for_requests = block;
            }
        }
        // What was sent before the socket goes must not wait for ever. Clients that never stop
        // sending must not keep us from going, either.
        self.set_blocking(false)?;
        for _ in 0..LAST_TURNS {
            if !self.turn()?.received {
                break;
            }
        }
        Ok(())
    }

    /// Reads a batch, does it, answers it.
    fn turn(&mut self) -> Result<Turn, Errno> {
        let count = read(self.socket.inner().raw(), &mut self.batch)?;
        for sqe in self.batch.iter().take(count) {
            // SAFETY: the kernel has just delivered this SQE, and an observer drops the payload
            // when the request is answered, which is before its answer is written.
            self.observer.asked(sqe, unsafe { sqe::payload(sqe) });
            // SAFETY: as above, each SQE is decoded once, and the executor drops a request before
            // it lets its answer out.
            let message = unsafe { sqe::decode(sqe) };
            let before = self.answers.len();
            self.executor.message(message, &mut self.answers);
            show(&mut self.observer, &self.answers, before);
        }
        let before = self.answers.len();
        let ready = self.executor.run_ready(&mut self.answers);
        show(&mut self.observer, &self.answers, before);
        self.reply();
        let received = count > 0;
        Ok(Turn { received, ready })
    }

    fn reply(&mut self) {
        if log::log_enabled!(log::Level::Trace) {
            let answers = self.answers.iter();
            answers.for_each(|(tag, answer)| log::trace!("{tag:?}: {answer:?}"));
        }
        let socket = self.socket.inner().raw();
        for (tag, answer) in self.answers.drain(..) {
            let cqe = answer.cqe(tag);
            match answer {
                Answer::Unwanted(_, owner) => {
                    let errand = Errand::new(move || write(socket, &[cqe]));
                    self.executor.elsewhere(owner, errand);
                }
                _ => self.cqes.push(cqe),
            }
        }
        while let Some(fd) = self.executor.next_readable() {
            let told = answer::readable(fd);
            self.observer.answered(&told);
            self.cqes.push(told);
        }
        write(socket, &self.cqes);
        self.cqes.clear();
    }

    fn set_blocking(&self, blocking: bool) -> Result<(), Errno> {
        let flags = if blocking { 0 } else { O_NONBLOCK };
        call::fcntl(self.socket.inner().raw(), F_SETFL, flags)?;
        Ok(())
    }
}

/// The daemon's own fd on its scheme. Calls on it block until the socket's thread has answered, so
/// they are for other threads only.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    fd: usize,
}

impl Control {
    /// Says that the platform has finished work.
    pub fn kick(self) {
        self.call(sqe::KICK);
    }

    /// Asks the daemon to answer everything and leave.
    pub fn shut_down(self) {
        self.call(sqe::SHUTDOWN);
    }

    fn call(self, number: u64) {
        let flags = CallFlags::empty();
        // An error means that the service is gone, and with it whoever could wait for this.
        let _ = call::call_rw(self.fd, &mut [], flags, &[number]);
    }
}

/// Has the kernel put the fds of a request into the daemon's table, at numbers of its choice.
fn obtain(socket: usize, Tag(tag): Tag, numbers: &mut [usize]) -> Result<(), Errno> {
    let words = [SchemeSocketCall::ObtainFd as u64, tag.into()];
    // SAFETY: a slice of words is as many bytes, any of which may be read and written.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast::<u8>(), size_of_val(numbers))
    };
    call::call_ro(socket, bytes, CallFlags::FD, &words)?;
    Ok(())
}

/// Shows the observer what has been added to `answers` since there were `before`.
#[inline]
fn show(observer: &mut impl Observer, answers: &Answers, before: usize) {
    for &(tag, answer) in answers.get(before..).unwrap_or_default() {
        observer.answered(&answer.cqe(tag));
    }
}

/// Whole SQEs into `batch`; 0 where nothing has come and the socket does not block.
#[inline]
fn read(socket: usize, batch: &mut [Sqe; BATCH]) -> Result<usize, Errno> {
    // SAFETY: `Sqe` is 64 bytes of plain integers (`repr(C)`, no padding, `SqeFlags` is a `u8`
    // in which every bit pattern is a value), so any bytes are valid and may be written.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(batch.as_mut_ptr().cast::<u8>(), size_of_val(batch))
    };
    loop {
        match call::read(socket, bytes) {
            Ok(length) => return Ok(length / size_of::<Sqe>()),
            Err(error) if error.errno() == EINTR => {}
            Err(error) if error.errno() == EAGAIN => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

#[inline]
fn write(socket: usize, cqes: &[Cqe]) {
    write_each(cqes, |cqes| {
        // SAFETY: `Cqe` is 16 bytes of plain integers without padding (`repr(C)`).
        let bytes =
            unsafe { core::slice::from_raw_parts(cqes.as_ptr().cast::<u8>(), size_of_val(cqes)) };
        Ok(call::write(socket, bytes)?)
    });
}

/// Writes all CQEs. One that the kernel refuses (its caller is gone, say) stops the batch that it
/// is in: it is dropped, and the rest goes on.
#[inline]
fn write_each(mut cqes: &[Cqe], mut write: impl FnMut(&[Cqe]) -> Result<usize, Errno>) {
    while !cqes.is_empty() {
        let written = match write(cqes) {
            Ok(length) => length / size_of::<Cqe>(),
            Err(Errno(EINTR)) => continue,
            Err(error) => {
                log::debug!("the kernel refuses an answer: {error:?}");
                1
            }
        };
        // A write that takes nothing and reports no error has refused the first one.
        cqes = cqes.get(written.max(1)..).unwrap_or_default();
    }
}

impl From<libredox::error::Error> for Errno {
    fn from(error: libredox::error::Error) -> Self {
        Self(error.errno())
    }
}

impl From<syscall::error::Error> for Errno {
    fn from(error: syscall::error::Error) -> Self {
        Self(error.errno)
    }
}

#[cfg(test)]
mod tests {
    use syscall::error::{EBADFD, EINVAL};

    use super::*;
    use crate::answer::Answer;
    use crate::sqe::Tag;

    /// A kernel that knows the calls `known` and takes at most `most` answers at a time, as the
    /// real one does: a bad one ends a batch, and is an error where it is the first.
    fn taken(answers: &[u32], known: &[u32], most: usize, silent: bool) -> Vec<u32> {
        let cqes: Vec<Cqe> = answers
            .iter()
            .map(|&tag| Answer::DONE.cqe(Tag(tag)))
            .collect();
        let mut taken = Vec::new();
        let mut interrupted = false;
        write_each(&cqes, |batch| {
            // Every other time a signal comes first.
            interrupted = !interrupted;
            if interrupted {
                return Err(Errno(EINTR));
            }
            let before = taken.len();
            let good = batch.iter().take(most);
            taken.extend(
                good.map(|cqe| cqe.tag)
                    .take_while(|tag| known.contains(tag)),
            );
            match taken.len() - before {
                0 if silent => Ok(0),
                0 => Err(Errno(if batch[0].tag == 0 { EINVAL } else { EBADFD })),
                count => Ok(count * size_of::<Cqe>()),
            }
        });
        taken
    }

    #[test]
    fn an_answer_that_is_refused_takes_no_other_with_it() {
        let all: Vec<u32> = (0..8).collect();
        for bad in 0..1u32 << 8 {
            let known: Vec<u32> = (0..8).filter(|tag| bad & 1 << tag == 0).collect();
            for most in [1, 3, 32] {
                for silent in [false, true] {
                    let taken = taken(&all, &known, most, silent);
                    assert_eq!(taken, known, "{most} at a time, {silent}");
                }
            }
        }
        assert_eq!(taken(&[], &[], 1, false), []);
    }
}
