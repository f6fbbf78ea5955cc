//! The kernel's own steps of userptr and nothing else: what any server has to do that takes a
//! client's pages over. It checks nothing, keeps no books, and has one range at a time; benchmarks
//! measure gemd beside it. It serves the scheme `bare`; its calls are in `initfs_tests::bare`.

#![no_std]
#![no_main]

use initfs_tests::bare::{CLAIM, PAGES_BITS, RELEASE};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::fd::Owned;
use rt::protocol::{DUP_REGISTER, NAMESPACE_FD, THREAD_FD};
use rt::socket::{Socket, invalid, wants_answer};
use syscall::PAGE_SIZE;
use syscall::data::Map;
use syscall::error::{EBADF, Error, Result};
use syscall::flag::{ADDRSPACE_OP_TRANSFER, CallFlags, MapFlags};
use syscall::schemev2::{Opcode, Sqe};

rt::entry!(main);

const ROOT: usize = 0;
/// Where pages go: to where no client has any, because the kernel refuses to move pages to where they
/// are, whichever address spaces the two addresses are in. The page before it is always mapped, so
/// that the kernel need not look far for a page that is.
const WINDOW: usize = ANCHOR + PAGE_SIZE;
const ANCHOR: usize = 0x7000_0000_0000;

fn main() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            rt::say!("# bare-daemon: {error}");
            1
        }
    }
}

struct Daemon {
    socket: Socket,
    own: Owned,
    /// Where the pages are, and how many bytes.
    window: Option<(usize, usize)>,
}

fn serve() -> Result<()> {
    let creation = Fd::open("/scheme/namespace/scheme-creation-cap", O_RDONLY, 0)?;
    let socket = Socket::new(creation.raw())?;
    let anchor = Map {
        offset: 0,
        size: PAGE_SIZE,
        flags: MapFlags::PROT_READ | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE,
        address: ANCHOR,
    };
    // SAFETY: nothing is replaced.
    unsafe { syscall::fmap(!0, &anchor) }?;
    let root = socket.file(ROOT)?;
    let mut daemon = Daemon {
        socket,
        own: Owned::new(rt::fd::dup(THREAD_FD, b"addrspace")?),
        window: None,
    };
    let registration = rt::fd::dup(NAMESPACE_FD, &[DUP_REGISTER, b"bare"].concat())?;
    let registration = Owned::new(registration);
    let root = root.into_raw();
    syscall::call_wo(registration.raw(), &root.to_ne_bytes(), CallFlags::FD, &[])?;
    rt::fd::release(root);
    loop {
        if let Some(sqe) = daemon.socket.receive()? {
            daemon.handle(&sqe);
        }
    }
}

impl Daemon {
    fn handle(&mut self, sqe: &Sqe) {
        let answer = match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => return self.socket.answer_fd(sqe.tag, self.socket.file(1)),
            Some(Opcode::Sendfd) => self.take(sqe),
            Some(Opcode::MmapPrep) => self.window.map(|(base, _)| base).ok_or(Error::new(EBADF)),
            Some(Opcode::Call) if sqe.args[3] == CLAIM => Ok(0),
            Some(Opcode::Call) if sqe.args[3] == RELEASE => self.release(),
            Some(Opcode::Munmap) => self.release(),
            _ if wants_answer(sqe) => invalid(),
            _ => return,
        };
        self.socket.answer(sqe.tag, answer);
    }

    /// The fd is closed when this returns.
    fn take(&mut self, sqe: &Sqe) -> Result<usize> {
        let space = self.socket.sent_fd(sqe)?;
        let word = sqe.args[2] as usize;
        let pages = word & ((1 << PAGES_BITS) - 1);
        let size = pages * PAGE_SIZE;
        let words = [
            ADDRSPACE_OP_TRANSFER,
            space.raw(),
            (word >> PAGES_BITS) * PAGE_SIZE,
            WINDOW,
            size,
            (MapFlags::PROT_READ | MapFlags::MAP_FIXED_NOREPLACE).bits(),
        ];
        // SAFETY: any words are bytes.
        let bytes = unsafe {
            core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(&words))
        };
        let base = syscall::write(self.own.raw(), bytes)?;
        self.window = Some((base, size));
        Ok(0)
    }

    /// Gives the pages up, if they are there yet.
    fn release(&mut self) -> Result<usize> {
        if let Some((base, size)) = self.window.take() {
            // SAFETY: nothing here has ever looked at them.
            unsafe { syscall::funmap(base, size) }?;
        }
        Ok(0)
    }
}
