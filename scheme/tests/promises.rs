//! The scheme's promises on Linux: a gemd and real client processes for each.
//!
//! `gem-promises` says what is promised; this is the world that it is tried in. Each promise gets
//! a gemd of its own. A client is this binary again, on one end of a socket pair.

mod linux;

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, ExitCode, Stdio};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use gem_promises::command::{Command, KernelCall, Outcome, Reply};
use gem_promises::puppet::{Platform, obey};
use gem_promises::{
    Carrier, Link, Puppet, Soak, World, forks, kernel, limits, registrars, signals, soak, userptr,
};
use hosted::client::{Fork, syscalls};
use libtest_mimic::{Arguments, Trial};
use linux::{Daemon, ROLE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::mman::{MRemapFlags, mremap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, dup2_stdin};
use syscall::data::Map;
use syscall::flag::MapFlags;

/// Small enough for the promises about limits to reach them.
const LIMITS: [&str; 8] = [
    "--keep-free",
    "1",
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
    let promises = gem_promises::all()
        .chain(forks::PROMISES)
        .chain(signals::PROMISES)
        .chain(kernel::PROMISES)
        .chain(limits::PROMISES)
        .chain(soak::PROMISES)
        .chain(userptr_promises());
    libtest_mimic::run(&arguments, promises.map(trial).collect()).exit_code()
}

/// Those about clients' own memory, where this machine lets processes watch theirs.
fn userptr_promises() -> Vec<&'static gem_promises::Promise> {
    match hosted::no_user_pages() {
        None => userptr::PROMISES
            .iter()
            .chain(registrars::PROMISES)
            .chain(registrars::LINUX)
            .collect(),
        Some(hindrance) => {
            eprintln!("!! SKIPPED: promises about clients' own memory: {hindrance}");
            Vec::new()
        }
    }
}

/// Long enough for a client to get something done.
const BETWEEN_SIGNALS: TimeSpec = TimeSpec::from_duration(Duration::from_micros(100));

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
        let (ours, theirs) = link();
        let process = self
            .daemon
            .client("puppet")
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        Box::new(Process {
            life: Life::Child(process),
            socket: ours,
        })
    }

    fn soak(&self) -> Soak {
        let (clients, _) = asked_soak();
        let at_rest = false;
        Soak { clients, at_rest }
    }

    fn soaks_on(&mut self, killed: u32) -> bool {
        let (_, kills) = asked_soak();
        killed < kills
    }

    /// `GEM_KILLS=KILLS`, for many.
    fn kills(&self) -> u32 {
        let kills = std::env::var("GEM_KILLS");
        kills.map_or(40, |kills| kills.parse().expect("GEM_KILLS=KILLS"))
    }

    fn linger(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    fn servers_files(&mut self) -> Option<usize> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.daemon.process.id()));
        Some(files.unwrap().count())
    }

    fn senders(&self) -> (usize, u64) {
        (3, 500)
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

/// How many clients, and how many are killed: `GEM_SOAK=CLIENTS,KILLS`, for a long one.
fn asked_soak() -> (usize, u32) {
    let Ok(value) = std::env::var("GEM_SOAK") else {
        return (6, 40);
    };
    let (clients, kills) = value.split_once(',').expect("GEM_SOAK=CLIENTS,KILLS");
    (clients.parse().unwrap(), kills.parse().unwrap())
}

fn link() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
}

/// A client process on the other end of a socket.
struct Process {
    life: Life,
    socket: OwnedFd,
}

/// What a process is to us.
enum Life {
    /// We have started it.
    Child(Child),
    /// A process of ours has forked it.
    Grandchild(Pid),
}

impl Process {
    fn pid(&self) -> Pid {
        match &self.life {
            Life::Child(child) => Pid::from_raw(child.id().try_into().unwrap()),
            Life::Grandchild(pid) => *pid,
        }
    }

    /// Kills it and waits until it is gone. Nothing happens where it has ended.
    fn end(&mut self) {
        match &mut self.life {
            Life::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Life::Grandchild(pid) => {
                let _ = kill(*pid, Signal::SIGKILL);
                // Its end of the link closes with it.
                while receive(self.socket.as_raw_fd()).is_some() {}
            }
        }
    }
}

impl Link for Process {
    fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        send(self.socket.as_raw_fd(), message, None);
        Some(receive(self.socket.as_raw_fd())?.0)
    }

    fn send(&mut self, message: &[u8]) {
        send(self.socket.as_raw_fd(), message, None);
    }

    fn hear(&mut self) -> Option<Vec<u8>> {
        Some(receive(self.socket.as_raw_fd())?.0)
    }

    fn kill(&mut self) {
        self.end();
    }

    fn wait(&mut self) -> bool {
        match &mut self.life {
            Life::Child(child) => child.wait().unwrap().success(),
            Life::Grandchild(_) => receive(self.socket.as_raw_fd()).is_none(),
        }
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

    fn fork(&mut self) -> Box<dyn Link> {
        let (ours, theirs) = link();
        let message = postcard::to_stdvec(&Command::Fork).unwrap();
        send(self.socket.as_raw_fd(), &message, None);
        send(self.socket.as_raw_fd(), b"link", Some(theirs.as_raw_fd()));
        drop(theirs);
        let (parents, _) = receive(self.socket.as_raw_fd()).unwrap();
        let (childs, _) = receive(ours.as_raw_fd()).unwrap();
        assert_eq!(value(&childs), 0);
        let pid = Pid::from_raw(value(&parents).try_into().unwrap());
        Box::new(Self {
            life: Life::Grandchild(pid),
            socket: ours,
        })
    }

    fn ask_amid_signals(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        send(self.socket.as_raw_fd(), message, None);
        loop {
            let mut answered = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if ppoll(&mut answered, Some(BETWEEN_SIGNALS), None).unwrap() > 0 {
                return Some(receive(self.socket.as_raw_fd())?.0);
            }
            kill(self.pid(), Signal::SIGUSR1).unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn value(reply: &[u8]) -> u64 {
    let reply: Reply = postcard::from_bytes(reply).unwrap();
    reply.unwrap().value
}

/// What the client process does.
fn be_puppet() {
    extern "C" fn nothing(_signal: i32) {}
    let interrupt = SigHandler::Handler(nothing);
    let interrupt = SigAction::new(interrupt, SaFlags::empty(), SigSet::empty());
    // SAFETY: the one handler does nothing, and this process has one thread. Ignoring the end of
    // children lets Linux forget those that were forked.
    unsafe {
        sigaction(Signal::SIGUSR1, &interrupt).unwrap();
        signal(Signal::SIGCHLD, SigHandler::SigIgn).unwrap();
    }
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

    fn fork(&mut self) -> Result<u64, i32> {
        let (_, link) = receive(self.socket).unwrap();
        // SAFETY: this process has one thread.
        match unsafe { hosted::client::fork() }.map_err(|errno| errno.errno)? {
            Fork::Parent(child) => Ok(child as u64),
            Fork::Child(adopted) => {
                // The link is where the parent has its own.
                dup2_stdin(link.unwrap()).unwrap();
                adopted.map(|()| 0).map_err(|errno| errno.errno)
            }
        }
    }

    fn exit(&mut self) -> ! {
        std::process::exit(0)
    }

    fn address_space(&mut self) -> Result<usize, i32> {
        hosted::client::address_space().map_err(|error| error.errno)
    }

    fn thread(&mut self, body: Box<dyn FnOnce() + Send>) -> Result<(), i32> {
        std::thread::spawn(body);
        Ok(())
    }

    fn pass(&mut self) {
        std::thread::yield_now();
    }

    fn kernel(&mut self, call: KernelCall) -> Reply {
        let mut bytes = Vec::new();
        let value = system_call(call, &mut bytes).map_err(|errno| errno.errno)? as u64;
        Ok(Outcome { value, bytes })
    }
}

fn system_call(call: KernelCall, bytes: &mut Vec<u8>) -> Result<usize, hosted::Errno> {
    match call {
        KernelCall::OpenAt(fd, path, flags) => {
            syscalls::openat(fd as usize, path, flags as usize, 0)
        }
        KernelCall::Fstat(fd, length) => {
            bytes.resize(length as usize, 0);
            syscalls::fstat(fd as usize, bytes)
        }
        KernelCall::Fsync(fd) => syscalls::fsync(fd as usize),
        KernelCall::Fevent(fd, events) => syscalls::fevent(fd as usize, events as usize),
        KernelCall::Flink(fd, path) => syscalls::flink(fd as usize, path),
        KernelCall::Frename(fd, path) => syscalls::frename(fd as usize, path),
        KernelCall::Unlinkat(fd, path, flags) => {
            syscalls::unlinkat(fd as usize, path, flags as usize)
        }
        KernelCall::ReadAt(fd, length, offset) => {
            bytes.resize(length as usize, 0);
            syscalls::read_at(fd as usize, bytes, offset, 0)
        }
        KernelCall::WriteAt(fd, data, offset) => syscalls::write_at(fd as usize, &data, offset, 0),
        KernelCall::Fmap(fd, offset, size, flags, address) => {
            let map = Map {
                offset: offset as usize,
                size: size as usize,
                flags: MapFlags::from_bits_retain(flags as usize),
                address: address as usize,
            };
            // SAFETY: nothing is replaced: tests pass no MAP_FIXED.
            unsafe { syscalls::fmap(fd as usize, &map) }
        }
        KernelCall::Remap(from, size, to, new_size, _) => {
            remap(from, size, to, new_size).map_err(|errno| hosted::Errno::new(errno as i32))
        }
    }
}

/// Linux's mremap to a certain address. Of registered memory it is told, of other mappings of a scheme
/// nobody hears.
fn remap(from: u64, size: u64, to: u64, new_size: u64) -> nix::Result<usize> {
    let place = |address: u64| NonNull::new(address as *mut c_void).ok_or(Errno::EINVAL);
    let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
    let (size, new_size) = (size as usize, new_size as usize);
    // SAFETY: the test names its own memory, of which nobody has references.
    let moved = unsafe { mremap(place(from)?, size, new_size, flags, Some(place(to)?)) };
    moved.map(|address| address.as_ptr() as usize)
}

fn send(socket: RawFd, message: &[u8], fd: Option<RawFd>) {
    let fds: Vec<RawFd> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let bytes = [IoSlice::new(message)];
    loop {
        match sendmsg::<()>(socket, &bytes, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            result => return assert!(result.is_ok(), "the other end is gone: {result:?}"),
        }
    }
}

/// A message and the fd that came with it; `None` where the other end is gone.
fn receive(socket: RawFd) -> Option<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; 64 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut bytes = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket, &mut bytes, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            result => break result.ok()?,
        }
    };
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
