//! Puppets: client processes on strings.
//!
//! [`Puppet`] is the hand, in the test; [`obey`] is what the client process does with a message.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

use gem_wire::native::{Call, CreateFlags, Features, Hello, Sized, VERSION};
use libredox::call::MmapArgs;
use libredox::error::Error;
use libredox::flag::{MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE};
use syscall::CallFlags;
use syscall::error::ENOSYS;
use syscall::flag::StdFsCallKind;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::command::{Command, Foreign, KernelCall, Memory, Outcome, Reply};
use crate::{Link, World, memory, signals, soak};

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Both directions.
pub const READ_WRITE: u32 = PROT_READ | PROT_WRITE;

/// A client process that does what it is told.
pub struct Puppet {
    link: Box<dyn Link>,
}

impl Puppet {
    /// A new process, root's.
    pub fn new(world: &mut dyn World) -> Self {
        Self {
            link: world.start(),
        }
    }

    /// A new process of this user's.
    pub fn of_user(world: &mut dyn World, uid: u32) -> Self {
        let mut puppet = Self::new(world);
        puppet.tell(Command::Become(uid)).unwrap();
        puppet
    }

    /// Does this, and says what came of it.
    pub fn tell(&mut self, command: Command) -> Reply {
        let message = postcard::to_allocvec(&command).expect("a command can be written");
        let answer = self.link.ask(&message).expect("the client process is gone");
        postcard::from_bytes(&answer).expect("a reply can be read")
    }

    fn value(&mut self, command: Command) -> Result<u64, i32> {
        self.tell(command).map(|outcome| outcome.value)
    }

    /// Has the process do this over and over, until it is killed.
    pub fn begin(&mut self, command: Command) {
        self.start(&Command::Forever(Box::new(command)));
    }

    /// Has the process begin anew, as another program with the same files.
    pub fn exec(&mut self) {
        self.start(&Command::Exec);
    }

    /// Has the process exit, and leave to the kernel what it has open and mapped.
    pub fn exit(mut self) {
        self.start(&Command::Exit);
        assert!(self.link.wait(), "the process has not exited");
    }

    /// Has the process touch memory that it does not have.
    pub fn crash(mut self) {
        let nowhere = 1;
        self.start(&Command::Poke(nowhere, 0));
        assert!(!self.link.wait(), "the process has not crashed");
    }

    /// Has the process do this, of which it dies.
    pub fn dies_of(mut self, command: &Command) {
        self.start(command);
        assert!(self.link.hear().is_none(), "the process goes on");
    }

    /// Has the process do this, which may take until something else is done;
    /// [`Puppet::finish`] says what came of it.
    pub fn start(&mut self, command: &Command) {
        let message = postcard::to_allocvec(command).expect("a command can be written");
        self.link.send(&message);
    }

    /// What came of what was started.
    pub fn finish(&mut self) -> Reply {
        let answer = self.link.hear().expect("the client process is gone");
        postcard::from_bytes(&answer).expect("a reply can be read")
    }

    /// Kills the process.
    pub fn kill(mut self) {
        self.link.kill();
    }

    /// Gives a copy of an fd to another process; its number there.
    pub fn give(&mut self, fd: u64, receiver: &mut Puppet) -> u64 {
        self.link.give(fd, &mut *receiver.link)
    }

    /// A second process with the same open files.
    pub fn fork(&mut self) -> Self {
        Self {
            link: self.link.fork(),
        }
    }

    /// As [`Puppet::tell`], while the process gets signals.
    pub fn tell_amid_signals(&mut self, command: &Command) -> Reply {
        let message = postcard::to_allocvec(command).expect("a command can be written");
        let answer = self.link.ask_amid_signals(&message);
        let answer = answer.expect("the client process is gone");
        postcard::from_bytes(&answer).expect("a reply can be read")
    }

    /// A system call in a form that libredox does not have.
    pub fn kernel(&mut self, call: KernelCall) -> Result<u64, i32> {
        self.value(Command::Kernel(call))
    }

    /// Opens a path of the scheme.
    pub fn open_as(&mut self, path: &str, flags: i32) -> Result<u64, i32> {
        let mut absolute = String::from("/scheme/gem");
        if !path.is_empty() {
            absolute.push('/');
            absolute.push_str(path);
        }
        self.value(Command::Open(absolute, flags))
    }

    /// Opens a node.
    pub fn open(&mut self, node: &str) -> u64 {
        self.open_as(node, O_RDWR).unwrap()
    }

    /// Opens a path relative to an fd.
    pub fn open_at(&mut self, fd: u64, path: &[u8], flags: i32) -> Result<u64, i32> {
        self.value(Command::OpenAt(fd, path.to_vec(), flags))
    }

    /// Duplicates an fd.
    pub fn dup(&mut self, fd: u64, path: &str) -> Result<u64, i32> {
        self.value(Command::Dup(fd, path.as_bytes().to_vec()))
    }

    /// Closes an fd.
    pub fn close(&mut self, fd: u64) -> Result<u64, i32> {
        self.value(Command::Close(fd))
    }

    /// Any words, on one fd or two.
    pub fn words(&mut self, fds: &[u64], words: &[u64]) -> Result<u64, i32> {
        self.value(Command::Call {
            fds: fds.to_vec(),
            flags: 0,
            words: words.to_vec(),
            payload: Vec::new(),
        })
    }

    /// A native call.
    pub fn call(&mut self, fd: u64, call: Call) -> Result<u64, i32> {
        self.words(&[fd], &call.encode())
    }

    /// What the server can do.
    pub fn features(&mut self, fd: u64) -> Features {
        let hello = Call::Hello { version: VERSION };
        Hello::unpack(self.call(fd, hello).unwrap()).features
    }

    /// A DRM call with this struct.
    pub fn drm<T>(&mut self, fd: u64, number: u64, argument: T) -> Result<T, i32>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let payload = argument.as_bytes().to_vec();
        let bytes = self.drm_bytes(fd, number, payload)?.bytes;
        Ok(T::read_from_bytes(&bytes).expect("the payload keeps its size"))
    }

    /// A DRM call with any payload.
    pub fn drm_bytes(&mut self, fd: u64, number: u64, payload: Vec<u8>) -> Reply {
        self.tell(Command::Call {
            fds: vec![fd],
            flags: 0,
            words: vec![number],
            payload,
        })
    }

    /// A buffer of this many bytes: its handle.
    pub fn create(&mut self, fd: u64, size: u64) -> Result<u32, i32> {
        let flags = CreateFlags::empty();
        let value = self.call(fd, Call::Create { size, flags })?;
        Ok(Sized::unpack(value).handle)
    }

    /// The name of a buffer.
    pub fn flink(&mut self, fd: u64, handle: u32) -> Result<u32, i32> {
        let value = self.call(fd, Call::Flink { handle })?;
        Ok(value as u32)
    }

    /// A handle by name.
    pub fn open_name(&mut self, fd: u64, name: u32) -> Result<u32, i32> {
        let value = self.call(fd, Call::Open { name })?;
        Ok(Sized::unpack(value).handle)
    }

    /// A handle by object fd.
    pub fn import(&mut self, fd: u64, object: u64) -> Result<u32, i32> {
        let value = self.words(&[fd, object], &Call::Import.encode()[..2])?;
        Ok(Sized::unpack(value).handle)
    }

    /// Maps shared.
    pub fn map(&mut self, fd: u64, offset: u64, size: u64, prot: u32) -> Result<u64, i32> {
        self.value(Command::Map {
            fd,
            offset,
            size,
            prot,
            flags: MAP_SHARED,
            fixed: None,
        })
    }

    /// Maps a buffer through its node, by handle.
    pub fn map_handle(&mut self, fd: u64, handle: u32, size: u64) -> Result<u64, i32> {
        let offset = self.call(fd, Call::Map { handle })?;
        self.map(fd, offset, size, READ_WRITE)
    }

    /// Unmaps.
    pub fn unmap(&mut self, address: u64, size: u64) -> Result<u64, i32> {
        self.value(Command::Unmap(address, size))
    }

    /// Something with memory of its own.
    pub fn memory(&mut self, command: Memory) -> Result<u64, i32> {
        self.value(Command::Memory(command))
    }

    /// A byte of memory.
    pub fn peek(&mut self, address: u64) -> u8 {
        self.value(Command::Peek(address)).unwrap() as u8
    }

    /// Writes a byte of memory.
    pub fn poke(&mut self, address: u64, byte: u8) {
        self.tell(Command::Poke(address, byte)).unwrap();
    }

    /// A whole text of the scheme, as this process sees it.
    pub fn text(&mut self, path: &str) -> Result<String, i32> {
        let fd = self.open_as(path, libredox::flag::O_RDONLY)?;
        let mut bytes = Vec::new();
        loop {
            let part = self.tell(Command::Read(fd, 1000))?.bytes;
            if part.is_empty() {
                self.close(fd)?;
                return Ok(String::from_utf8(bytes).expect("texts are UTF-8"));
            }
            bytes.extend(part);
        }
    }

    /// Names in a directory.
    pub fn entries(&mut self, path: &str) -> Result<Vec<String>, i32> {
        let fd = self.open_as(path, libredox::flag::O_RDONLY)?;
        let bytes = self.tell(Command::Entries(fd))?.bytes;
        self.close(fd)?;
        let names = bytes.split(|&byte| byte == b'\n');
        let names = names.map(|name| String::from_utf8_lossy(name).to_string());
        Ok(names.filter(|name| !name.is_empty()).collect())
    }
}

/// In the client process: does what the message says. `carry` and `uncarry` and `become_user` are
/// the platform's; everything else is libredox's.
pub fn obey(message: &[u8], platform: &mut dyn Platform) -> Vec<u8> {
    let reply: Reply = match postcard::from_bytes(message) {
        Ok(command) => act(command, platform),
        Err(_) => Err(syscall::error::EINVAL),
    };
    postcard::to_allocvec(&reply).unwrap_or_default()
}

/// What a puppet needs of its platform besides libredox.
pub trait Platform {
    /// Ceases to be root.
    fn become_user(&mut self, uid: u32) -> Result<(), i32>;
    /// Hands an fd to whoever holds the link.
    fn carry(&mut self, fd: usize) -> Result<(), i32>;
    /// Takes an fd that came over the link.
    fn uncarry(&mut self) -> Result<usize, i32>;
    /// Returns in two processes: in this one with a number of the other, and in the other, which
    /// has a link of its own, with 0.
    fn fork(&mut self) -> Result<u64, i32> {
        Err(ENOSYS)
    }
    /// Goes on as a new program.
    fn exec(&mut self) -> Result<Infallible, i32> {
        Err(ENOSYS)
    }
    /// Ends the process, as a program that is done.
    fn exit(&mut self) -> !;
    /// An fd of the process's address space.
    fn address_space(&mut self) -> Result<usize, i32> {
        Err(ENOSYS)
    }
    /// Runs this on another thread.
    fn thread(&mut self, _body: Box<dyn FnOnce() + Send>) -> Result<(), i32> {
        Err(ENOSYS)
    }
    /// Lets other threads run.
    fn pass(&mut self) {}
    /// Makes a system call.
    fn kernel(&mut self, _call: KernelCall) -> Reply {
        Err(ENOSYS)
    }
}

fn act(command: Command, platform: &mut dyn Platform) -> Reply {
    let value = match command {
        Command::Become(uid) => return platform.become_user(uid).map(|()| Outcome::default()),
        Command::Carry(fd) => return platform.carry(fd as usize).map(|()| Outcome::default()),
        Command::Uncarry => platform.uncarry().map(|fd| fd as u64)?,
        Command::Peek(address) => {
            // SAFETY: the test says that this is mapped memory of this process, and nothing but
            // the test uses it; other processes write bytes at the same time, which any value is.
            u64::from(unsafe { core::ptr::read_volatile(address as *const u8) })
        }
        Command::Poke(address, byte) => {
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(address as *mut u8, byte) };
            0
        }
        Command::Fork => platform.fork()?,
        Command::Exec => match platform.exec()? {},
        Command::Exit => platform.exit(),
        Command::Kernel(call) => return platform.kernel(call),
        Command::Memory(command) => memory::act(command, platform)?,
        Command::Storm {
            node,
            interruptions,
            size,
        } => {
            signals::storm(node as usize, interruptions, size)?;
            0
        }
        Command::Soak { seed, place, names } => {
            soak::run(seed, place, names, platform).map_err(|error| error.errno())?;
            0
        }
        Command::Foreign(fd, operation) => foreign(fd as usize, operation)
            .map(|()| 0)
            .map_err(|error| error.errno())?,
        Command::Forever(command) => loop {
            act((*command).clone(), platform)?;
        },
        Command::NewQueue | Command::Watch { .. } | Command::NextEvent(_) => {
            return queue(command).map_err(|error| error.errno());
        }
        Command::Refused { fd, words, payload } => return Ok(refused(fd, &words, payload)),
        command => return libredox_call(command).map_err(|error| error.errno()),
    };
    Ok(Outcome {
        value,
        bytes: Vec::new(),
    })
}

/// What the crate `redox_event` does, whose queues cannot be kept from one order to the next.
fn queue(command: Command) -> Result<Outcome, Error> {
    use event::raw::{
        RawEventV1, redox_event_queue_create_v1, redox_event_queue_ctl_v1,
        redox_event_queue_get_events_v1,
    };
    let mut event = RawEventV1::default();
    let mut bytes = Vec::new();
    // SAFETY: there is room for the one event that is asked for, and no time limit or signal mask.
    let result = unsafe {
        match command {
            Command::Watch {
                queue,
                fd,
                flags,
                data,
            } => redox_event_queue_ctl_v1(queue as usize, fd as usize, flags, data as usize),
            Command::NextEvent(queue) => {
                let (time, signals) = (core::ptr::null(), core::ptr::null());
                let event = &raw mut event;
                redox_event_queue_get_events_v1(queue as usize, event, 1, 0, time, signals)
            }
            _ => redox_event_queue_create_v1(0),
        }
    };
    let value = Error::demux(result)? as u64;
    if let Command::NextEvent(_) = command {
        for word in [event.fd, event.user_data, event.flags as usize] {
            bytes.extend((word as u64).to_le_bytes());
        }
    }
    Ok(Outcome { value, bytes })
}

/// The errno of a call (0 where it succeeds), and its payload afterwards.
fn refused(fd: u64, words: &[u64], mut bytes: Vec<u8>) -> Outcome {
    let result = libredox::call::call_rw(fd as usize, &mut bytes, CallFlags::empty(), words);
    let value = result.map_or_else(|error| error.errno() as u64, |_| 0);
    Outcome { value, bytes }
}

fn foreign(fd: usize, operation: Foreign) -> Result<(), Error> {
    use libredox::call;
    match operation {
        Foreign::Chmod => call::fchmod(fd, 0o600),
        Foreign::Chown => {
            let (user, group) = (call::geteuid()?, call::getegid()?);
            call::fchown(fd, user as u32, group as u32)
        }
        Foreign::Truncate => call::ftruncate(fd, 0),
        Foreign::Times => {
            let never = libredox::data::TimeSpec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            call::futimens(fd, &[never, never])
        }
        Foreign::StatVfs => call::fstatvfs(fd).map(|_| ()),
        Foreign::Fcntl(command) => call::fcntl(fd, command as usize, 0).map(|_| ()),
        Foreign::Send => {
            let flags = CallFlags::FD | CallFlags::FD_CLONE;
            call::call_wo(fd, &fd.to_ne_bytes(), flags, &[0]).map(|_| ())
        }
        Foreign::Receive => {
            let mut anywhere = usize::MAX.to_ne_bytes();
            call::call_ro(fd, &mut anywhere, CallFlags::FD, &[0]).map(|_| ())
        }
        Foreign::Lock => {
            let words = [StdFsCallKind::Lock as u64, 0, 0];
            call::call_rw(fd, &mut [], CallFlags::STD_FS, &words).map(|_| ())
        }
    }
}

fn libredox_call(command: Command) -> Result<Outcome, Error> {
    use libredox::call;
    let mut bytes = Vec::new();
    let value = match command {
        Command::Open(path, flags) => call::open(path, flags, 0)?,
        Command::OpenAt(fd, path, flags) => call::openat(fd as usize, path, flags, 0)?,
        Command::Dup(fd, path) => call::dup(fd as usize, path)?,
        Command::Close(fd) => {
            call::close(fd as usize)?;
            0
        }
        Command::Call {
            fds,
            flags,
            words,
            payload,
        } => {
            bytes = payload;
            let flags = CallFlags::from_bits_retain(flags as usize);
            let fds: Vec<usize> = fds.into_iter().map(|fd| fd as usize).collect();
            match fds.as_slice() {
                &[fd] => call::call_rw(fd, &mut bytes, flags, &words)?,
                fds => call::call_rw(fds, &mut bytes, flags, &words)?,
            }
        }
        Command::Map {
            fd,
            offset,
            size,
            prot,
            flags,
            fixed,
        } => {
            let fixed_flag = if fixed.is_some() { MAP_FIXED } else { 0 };
            let args = MmapArgs {
                addr: fixed.unwrap_or(0) as *mut (),
                length: size as usize,
                prot,
                flags: flags | fixed_flag,
                fd: fd as usize,
                offset,
            };
            // SAFETY: the kernel chooses an address where nothing is, or the test names one where
            // nothing but its own mappings is.
            unsafe { call::mmap(args)? as usize }
        }
        Command::Unmap(address, size) => {
            // SAFETY: the test names its own mappings.
            unsafe { call::munmap(address as *mut (), size as usize)? };
            0
        }
        Command::Read(fd, length) => {
            bytes = vec![0; length as usize];
            let length = call::read(fd as usize, &mut bytes)?;
            bytes.truncate(length);
            length
        }
        Command::Write(fd, data) => call::write(fd as usize, &data)?,
        Command::Fpath(fd) => {
            bytes = vec![0; 200];
            let length = call::fpath(fd as usize, &mut bytes)?;
            bytes.truncate(length);
            length
        }
        Command::Fstat(fd) => {
            let stat = call::fstat(fd as usize)?;
            bytes = stat.st_ino.to_le_bytes().to_vec();
            stat.st_size as usize
        }
        Command::Fsync(fd) => {
            call::fsync(fd as usize)?;
            0
        }
        Command::SetFlags(fd, flags) => {
            call::fcntl(fd as usize, syscall::flag::F_SETFL, flags as usize)?
        }
        Command::Entries(fd) => {
            bytes = names_in(fd as usize)?;
            0
        }
        Command::Become(_)
        | Command::Carry(_)
        | Command::Uncarry
        | Command::Fork
        | Command::Exec
        | Command::Exit
        | Command::Storm { .. }
        | Command::Soak { .. }
        | Command::Forever(_)
        | Command::Refused { .. }
        | Command::NewQueue
        | Command::Watch { .. }
        | Command::NextEvent(_)
        | Command::Foreign(..)
        | Command::Kernel(_)
        | Command::Memory(_)
        | Command::Peek(_)
        | Command::Poke(..) => return Err(Error::new(syscall::error::EINVAL)),
    };
    Ok(Outcome {
        value: value as u64,
        bytes,
    })
}

/// Linux's value and relibc's, which libredox does not export.
const MAP_FIXED: u32 = if cfg!(target_os = "redox") { 0x4 } else { 0x10 };

/// Names in a directory, a line each.
fn names_in(fd: usize) -> Result<Vec<u8>, Error> {
    let mut names = Vec::new();
    let mut after = 0;
    loop {
        let mut buffer = [0; 200];
        let length = libredox::call::getdents(fd, &mut buffer, after)?;
        if length == 0 {
            return Ok(names);
        }
        for entry in syscall::dirent::DirentIter::new(&buffer[..length]) {
            let (header, name) = entry.map_err(|_| Error::new(syscall::error::EIO))?;
            after = header.next_opaque_id;
            names.extend(name.iter().take_while(|&&byte| byte != 0));
            names.push(b'\n');
        }
    }
}
