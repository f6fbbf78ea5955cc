//! SYS_CALL: a message to one file or about two, and files on their way to and from a scheme.
//!
//! As in `src/syscall/fs.rs` of the Redox kernel: three metadata words with one file, two with two
//! files, which must be one scheme's, and of which only the first is held meanwhile.

use std::sync::Arc;

use syscall::error::{EBADF, EBUSY, EINVAL, ENODEV, EOPNOTSUPP, EXDEV, Error, Result};
use syscall::flag::{CallFlags, RecvFdFlags, SendFdFlags, StdFsCallKind};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};

use super::{Invocation, Step};
use crate::kernel::State;
use crate::kernel::call::{After, Buffer, Held};
use crate::kernel::fds::fd_numbers;

impl State {
    /// SYS_CALL, with its three kinds: files sent, files received, everything else.
    pub(super) fn call(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let flags = CallFlags::from_bits(made.arg(0) as usize & !0xff).ok_or(Error::new(EINVAL))?;
        let fds = made.arg(1) & 0xff;
        if fds == 0 || fds > 2 {
            return Err(Error::new(EINVAL));
        }
        let second = (fds == 2).then(|| usize::try_from(made.arg(2)).unwrap_or(usize::MAX));
        let count = usize::try_from(made.arg(1) >> 8).unwrap_or(usize::MAX);
        let words = made.request.args.get(3..).unwrap_or_default();
        let words = words.get(..count).unwrap_or(words);
        if flags.contains(CallFlags::WRITE | CallFlags::FD) {
            return match second {
                Some(_) => Err(Error::new(EINVAL)),
                None => self.send_fds(made, flags, words),
            };
        }
        if flags.contains(CallFlags::READ | CallFlags::FD) {
            return match second {
                Some(_) => Err(Error::new(EINVAL)),
                None => self.receive_fds(made, flags, words),
            };
        }
        self.call_normal(made, flags, second, words)
    }

    fn call_normal(
        &mut self,
        made: &Invocation<'_>,
        flags: CallFlags,
        second: Option<usize>,
        words: &[u64],
    ) -> Result<Step> {
        let consume = flags.contains(CallFlags::CONSUME);
        let target = self.get_or_remove(made, made.fd(), consume)?;
        let description = target.description().ok_or(Error::new(EBADF))?.clone();
        let scheme = description.scheme().clone();
        let number = description.number();
        drop(description);
        // The second file is not kept open while the scheme works: its id alone goes along.
        let second = match second {
            None => None,
            Some(fd) => {
                let other = self.get_or_remove(made, fd, consume)?;
                let other = other.description().ok_or(Error::new(EBADF))?;
                if !Arc::ptr_eq(other.scheme(), &scheme) {
                    return Err(Error::new(EXDEV));
                }
                Some(other.number())
            }
        };
        let standard = flags.contains(CallFlags::STD_FS);
        let (opcode, after, words) = if standard {
            let &[kind, one, two] = words else {
                return Err(Error::new(EINVAL));
            };
            let kind = StdFsCallKind::try_from_raw(kind as u8).ok_or(Error::new(EOPNOTSUPP))?;
            (Opcode::StdFsCall, After::StdFs, [kind as u64, one, two])
        } else {
            let mut all = [0; 3];
            all.iter_mut()
                .zip(words)
                .for_each(|(word, given)| *word = *given);
            (Opcode::Call, After::Value, all)
        };
        let call = made
            .call(after)
            .holding(target)
            .sharing(Buffer::copy(made.payload));
        let [a, b, c] = words;
        let sqe = Sqe {
            opcode: opcode as u8,
            sqe_flags: second.map_or(SqeFlags::empty(), |_| SqeFlags::MULTIPLE_IDS),
            args: [
                number,
                call.payload.address(),
                call.payload.len() as u64,
                a,
                b,
                second.unwrap_or(c),
            ],
            caller: made.context.pid,
            ..Sqe::default()
        };
        let asked = self.issue_raw(&scheme, sqe, call);
        asked.map(|()| Step::Asked).map_err(|_| Error::new(ENODEV))
    }

    fn get_or_remove(&mut self, made: &Invocation<'_>, fd: usize, remove: bool) -> Result<Held> {
        if remove {
            return Ok(Held::consumed(self.remove_fd(made.caller, fd)?));
        }
        Ok(Held::from(self.description(made.caller, fd)?))
    }

    fn send_fds(&mut self, made: &Invocation<'_>, flags: CallFlags, words: &[u64]) -> Result<Step> {
        let numbers = fd_numbers(made.payload);
        let target = self.description(made.caller, made.fd())?;
        let fds = self.take_fds(made.caller, &numbers, flags.contains(CallFlags::FD_CLONE))?;
        let mut send_flags = SendFdFlags::empty();
        if flags.contains(CallFlags::FD_EXCLUSIVE) {
            if fds
                .iter()
                .any(|description| Arc::strong_count(description) > 1)
            {
                return Err(Error::new(EBUSY));
            }
            send_flags |= SendFdFlags::EXCLUSIVE;
        }
        let sent = fds.into_iter();
        let fds: Vec<_> = sent.map(|file| self.as_sent(made.caller, file)).collect();
        let count = fds.len();
        let mut call = made.call(After::Sent(count)).holding(target.clone());
        call.fds = fds;
        let word = words.first().copied().unwrap_or(0);
        let args = [
            target.number(),
            send_flags.bits() as u64,
            word,
            count as u64,
            0,
        ];
        self.ask(&target, made.context, Opcode::Sendfd, args, call)
    }

    fn receive_fds(
        &mut self,
        made: &Invocation<'_>,
        flags: CallFlags,
        words: &[u64],
    ) -> Result<Step> {
        let target = self.description(made.caller, made.fd())?;
        if !made.payload.len().is_multiple_of(size_of::<usize>()) {
            return Err(Error::new(EINVAL));
        }
        let call = made.call(After::Received).holding(target.clone());
        let call = call.sharing(Buffer::copy(made.payload));
        let upper = RecvFdFlags::UPPER_TBL.bits() as u64;
        let flags = if flags.contains(CallFlags::FD_UPPER) {
            upper
        } else {
            0
        };
        let count = made.payload.len() / size_of::<usize>();
        let word = |index: usize| words.get(index).copied().unwrap_or(0);
        let args = [target.number(), flags, count as u64, word(0), word(1)];
        self.ask(&target, made.context, Opcode::Recvfd, args, call)
    }
}
