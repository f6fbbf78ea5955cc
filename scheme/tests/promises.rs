//! The scheme's promises on Linux: a gemd and real client processes for each.
//!
//! `gem-promises` says what is promised; this is the world that it is tried in. Each promise gets
//! a gemd of its own. A client is this binary again, on one end of a socket pair.

mod linux;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use gem_promises::command::Command;
use gem_promises::puppet::{Platform, obey};
use gem_promises::{Carrier, Link, Puppet, World};
use libtest_mimic::{Arguments, Trial};
use linux::{Daemon, ROLE};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// Small enough for the promises about limits to reach them.
const LIMITS: [&str; 6] = [
    "--max-memory",
    "64",
    "--max-object",
    "8",
    "--max-handles",
    "500",
];

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        be_puppet();
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let trial = |promise: &'static gem_promises::Promise| {
        Trial::test(promise.name, move || {
            let mut here = Here::new();
            gem_promises::check(promise, &mut here);
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, gem_promises::all().map(trial).collect()).exit_code()
}

/// A gemd, and a process that looks at it from outside.
struct Here {
    daemon: Daemon,
    observer: Option<Puppet>,
}

impl Here {
    fn new() -> Self {
        Self {
            daemon: Daemon::start(&LIMITS),
            observer: None,
        }
    }
}

impl World for Here {
    fn start(&mut self) -> Box<dyn Link> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let process = self
            .daemon
            .client("puppet")
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        Box::new(Process {
            process,
            socket: ours,
        })
    }

    fn text(&mut self, path: &str) -> String {
        let mut observer = match self.observer.take() {
            Some(observer) => observer,
            None => Puppet::new(self),
        };
        let text = observer.text(path).unwrap();
        self.observer = Some(observer);
        text
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client process on the other end of a socket.
struct Process {
    process: Child,
    socket: OwnedFd,
}

impl Link for Process {
    fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        send(self.socket.as_raw_fd(), message, None);
        Some(receive(self.socket.as_raw_fd())?.0)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn give(&mut self, fd: u64, receiver: &mut dyn Link) -> u64 {
        let message = postcard::to_stdvec(&Command::Carry(fd)).unwrap();
        send(self.socket.as_raw_fd(), &message, None);
        let (_, carrier) = receive(self.socket.as_raw_fd()).unwrap();
        let (reply, _) = receive(self.socket.as_raw_fd()).unwrap();
        value(&reply);
        receiver.take(carrier.expect("an fd").as_raw_fd())
    }

    fn take(&mut self, carrier: Carrier) -> u64 {
        let message = postcard::to_stdvec(&Command::Uncarry).unwrap();
        send(self.socket.as_raw_fd(), &message, None);
        send(self.socket.as_raw_fd(), b"fd", Some(carrier));
        let (reply, _) = receive(self.socket.as_raw_fd()).unwrap();
        value(&reply)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn value(reply: &[u8]) -> u64 {
    let reply: gem_promises::command::Reply = postcard::from_bytes(reply).unwrap();
    reply.unwrap().value
}

/// What the client process does.
fn be_puppet() {
    let socket = std::io::stdin().as_raw_fd();
    while let Some((message, _)) = receive(socket) {
        let reply = obey(&message, &mut Strings { socket });
        send(socket, &reply, None);
    }
}

/// The client's own side of the link.
struct Strings {
    socket: RawFd,
}

impl Platform for Strings {
    fn become_user(&mut self, uid: u32) -> Result<(), i32> {
        hosted::client::set_identity(uid, uid).map_err(|errno| errno.errno)
    }

    fn carry(&mut self, fd: usize) -> Result<(), i32> {
        let parcel = hosted::client::to_parcel(fd).map_err(|errno| errno.errno)?;
        send(self.socket, b"fd", Some(parcel.as_raw_fd()));
        Ok(())
    }

    fn uncarry(&mut self) -> Result<usize, i32> {
        let (_, parcel) = receive(self.socket).unwrap();
        hosted::client::from_parcel(parcel.unwrap()).map_err(|errno| errno.errno)
    }
}

fn send(socket: RawFd, message: &[u8], fd: Option<RawFd>) {
    let fds: Vec<RawFd> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let bytes = [IoSlice::new(message)];
    sendmsg::<()>(socket, &bytes, rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
}

/// A message and the fd that came with it; `None` where the other end is gone.
fn receive(socket: RawFd) -> Option<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; 64 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut bytes = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket, &mut bytes, Some(&mut space), flags).ok()?;
    let length = message.bytes;
    let mut fd = None;
    for control in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these fds for us.
            fd = fds.first().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    buffer.truncate(length);
    (length > 0).then_some((buffer, fd))
}
