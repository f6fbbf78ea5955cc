//! Records as lines.

use alloc::string::String;
use core::fmt::Write;

use syscall::schemev2::{Cqe, Sqe};

use crate::payload::Memory;
use crate::{AGAIN, USER_PAGES};

/// Writes the lines of one trace, without [`HEAD`](crate::HEAD) and [`END`](crate::END).
#[derive(Debug, Default)]
pub struct Writer {
    memory: Memory,
    /// The last that was asked, as a line.
    asked: String,
}

// Writing to a string cannot fail.
impl Writer {
    /// A server has started with these limits: numbers and values.
    pub fn start(&mut self, limits: impl Iterator<Item = (u64, u64)>) -> String {
        let mut line = String::from("limits");
        for (number, value) in limits {
            let _ = write!(line, " {number}={value}");
        }
        line
    }

    /// The server can take over clients' own pages.
    pub fn user_pages(&mut self) -> String {
        USER_PAGES.into()
    }

    /// Who this process is: uid and gid, or that there is none.
    pub fn process(&mut self, pid: u64, who: Option<(u32, u32)>) -> String {
        let mut line = String::new();
        let _ = match who {
            Some((uid, gid)) => write!(line, "pid {pid:x} {uid} {gid}"),
            None => write!(line, "pid {pid:x} gone"),
        };
        line
    }

    /// The kernel has asked; `payload` is what args 1 and 2 tell of, if they do.
    pub fn asked(&mut self, sqe: &Sqe, payload: Option<&[u8]>) -> String {
        let mut args = sqe.args;
        if payload.is_some() {
            args[1] = 0;
        }
        let used = args
            .iter()
            .rposition(|&arg| arg != 0)
            .map_or(0, |at| at + 1);
        let mut line = String::new();
        let (tag, caller, opcode) = (sqe.tag, sqe.caller, sqe.opcode);
        let _ = write!(line, "> {tag:x} {caller:x} {opcode:x}");
        if !sqe.sqe_flags.is_empty() {
            let _ = write!(line, "/{:x}", sqe.sqe_flags.bits());
        }
        for arg in &args[..used] {
            let _ = write!(line, " {arg:x}");
        }
        self.payload(payload.filter(|bytes| !bytes.is_empty()), &mut line);
        if line == self.asked {
            return AGAIN.into();
        }
        self.asked.clone_from(&line);
        line
    }

    /// gemd has answered; `payload` is what the payload has become, if it is not as it was.
    pub fn answered(&mut self, cqe: &Cqe, payload: Option<&[u8]>) -> String {
        let mut line = String::new();
        let tag = cqe.tag;
        let _ = match cqe.result.wrapping_neg() {
            errno @ 1..4096 => write!(line, "< {tag:x} -{errno}"),
            _ => write!(line, "< {tag:x} {:x}", cqe.result),
        };
        if cqe.flags != 0 {
            let _ = write!(line, " f {:x}", cqe.flags);
        }
        let [first, second, third] = cqe.extra_raw;
        let extra = u32::from_le_bytes([first, second, third, 0]);
        if extra != 0 {
            let _ = write!(line, " x {extra:x}");
        }
        self.payload(payload, &mut line);
        line
    }

    fn payload(&mut self, payload: Option<&[u8]>, line: &mut String) {
        if let Some(bytes) = payload {
            line.push_str(" :");
            self.memory.encode(bytes, line);
        }
    }
}
