//! What a program and the bootstrap process say to each other: how a program starts, and the
//! calls on process fds and on the name space.
//!
//! A *process fd* stands for a process and gives all power over it. Each program has one on
//! itself. `dup` of it with [`DUP_THREAD`] gives a new context of that process, not started; with
//! [`DUP_CHILD`] or [`DUP_FORK`] a process fd on a new process without contexts; with [`DUP_EXEC`]
//! what makes another program of it. Calls on it are [`Call`]s.
//! Sending an fd on a process that has not been started puts it into that process's table, at the
//! number in the metadata word.
//!
//! A process that ends takes along those that it has started; one that was forked counts as started
//! by who started the other.
//!
//! The *name space fd* opens absolute paths. `dup` with [`DUP_REGISTER`] and a name gives an fd to
//! which the root of a scheme of that name is sent.

use core::mem::size_of;

/// The serial port.
pub const DEBUG_FD: usize = 1;
/// The name space.
pub const NAMESPACE_FD: usize = 3;
/// The program's own process.
pub const PROCESS_FD: usize = 4;
/// The program's first thread.
pub const THREAD_FD: usize = 5;
/// Used by the runtime while a program begins.
pub const STARTING_FD: usize = 6;
/// The lowest number that a program is handed further fds at.
pub const FIRST_HANDED_FD: usize = 8;
/// The lowest number that a program uses for what it opens.
pub const FIRST_FREE_FD: usize = 32;

/// `dup` of a process fd, followed by eight bytes that the process knows it by: a new context of
/// that process.
pub const DUP_THREAD: &[u8] = b"thread/";
/// `dup` of a process fd: a new process.
pub const DUP_CHILD: &[u8] = b"child";
/// `dup` of a process fd: a new process, started by who has started this one.
pub const DUP_FORK: &[u8] = b"fork";
/// `dup` of a process fd, followed by the name and the arguments of a program, each ended by NUL: an
/// fd with which, when it is closed, the process's one context begins that program in a new address
/// space.
pub const DUP_EXEC: &[u8] = b"exec/";
/// `dup` of the name space fd, followed by the name: an fd to send the scheme's root to.
pub const DUP_REGISTER: &[u8] = b"register/";

/// A call on a process fd: the first metadata word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum Call {
    /// Ends the process with the exit code in the second word. No answer.
    Exit = 1,
    /// Waits until the process has ended; answers how ([`Ended`]).
    Wait = 2,
    /// Ends the process at once.
    Kill = 3,
    /// The process's number.
    Pid = 4,
    /// While it is root's: effective uid and gid (second and third word).
    SetIds = 5,
    /// Starts the program whose name and arguments, each ended by NUL, are the payload.
    Exec = 6,
    /// Wakes the process's contexts as a signal would.
    Interrupt = 7,
    /// Ends the context that was made with the second word. A context could end itself, but the
    /// kernel would keep it for ever, stack and all: it ends inside a write to its own fd, and the
    /// reference that the write holds on that file is never given back (kernel: `sys_write` and
    /// `exit_this_context`).
    EndThread = 8,
}

impl Call {
    /// The call with this number.
    pub fn from_raw(raw: u64) -> Option<Self> {
        [
            Self::Exit,
            Self::Wait,
            Self::Kill,
            Self::Pid,
            Self::SetIds,
            Self::Exec,
            Self::Interrupt,
            Self::EndThread,
        ]
        .into_iter()
        .find(|&call| call as u64 == raw)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(u8),
    /// Somebody killed it.
    Killed,
    /// A processor exception with this number that nothing handled.
    Crashed(u8),
}

impl Ended {
    /// As the answer to a call.
    pub fn to_raw(self) -> usize {
        match self {
            Self::Exited(code) => code.into(),
            Self::Killed => 0x100,
            Self::Crashed(exception) => 0x200 | usize::from(exception),
        }
    }

    /// From the answer to a call.
    pub fn from_raw(raw: usize) -> Self {
        let low = raw as u8;
        match raw & 0x300 {
            0 => Self::Exited(low),
            0x100 => Self::Killed,
            _ => Self::Crashed(low),
        }
    }
}

/// What a program finds when it starts: this, and behind it the arguments, each ended by NUL. The
/// first is the program's name.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartInfo {
    /// The process's number.
    pub pid: u32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// Bytes of arguments.
    pub argument_bytes: u32,
}

impl StartInfo {
    /// How far behind the structure's beginning the arguments begin.
    pub const ARGUMENTS: usize = size_of::<Self>();
}
