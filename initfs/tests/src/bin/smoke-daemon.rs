//! The smallest scheme daemon: a socket by redox-scheme, SQEs in, CQEs out.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use libredox::Fd;
use libredox::flag::O_RDONLY;
use libredox::protocol::ProcMeta;
use redox_scheme::Socket;
use redox_scheme::scheme::register_scheme_inner;
use syscall::error::{EINVAL, Error, Result};
use syscall::schemev2::{Cqe, CqeOpcode, Opcode, Sqe, SqeFlags};

rt::entry!(main);

const ROOT: usize = 0;

/// A page to map.
#[repr(align(4096))]
struct Page([u8; 4096]);

struct Daemon {
    credentials: Fd,
    page: alloc::boxed::Box<Page>,
    next_file: usize,
    open_files: usize,
    mapped_bytes: usize,
    /// Requests that are answered when somebody asks for it.
    waiting: Vec<u32>,
    keeps_unmappings: bool,
    opens_late_files: bool,
    answers_all: bool,
}

fn main() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            rt::say!("# smoke-daemon: {error}");
            1
        }
    }
}

fn serve() -> Result<()> {
    let socket = Socket::create()?;
    let credentials = Fd::open("/scheme/proc/proc-creds-capability", O_RDONLY, 0)?;
    register_scheme_inner(&socket, "smoke", ROOT)?;
    let mut page = alloc::boxed::Box::new(Page([0; 4096]));
    page.0[..8].copy_from_slice(b"daemon!!");
    let mut daemon = Daemon {
        credentials,
        page,
        next_file: ROOT + 1,
        open_files: 0,
        mapped_bytes: 0,
        waiting: Vec::new(),
        keeps_unmappings: false,
        opens_late_files: false,
        answers_all: false,
    };
    let mut sqe = Sqe::default();
    loop {
        libredox::call::read(socket.inner().raw(), &mut sqe)?;
        let Some(result) = daemon.handle(&sqe) else {
            continue;
        };
        answer(&socket, sqe.tag, result);
        if daemon.answers_all {
            daemon.answers_all = false;
            for tag in daemon.waiting.drain(..) {
                answer(&socket, tag, Ok(0));
            }
        }
    }
}

fn answer(socket: &Socket, tag: u32, result: Result<usize>) {
    let cqe = Cqe {
        flags: CqeOpcode::RespondRegular as u8,
        extra_raw: [0; 3],
        tag,
        result: Error::mux(result) as u64,
    };
    // Refused where the caller is gone.
    let _ = libredox::call::write(socket.inner().raw(), &cqe);
}

/// Whether this file is opened when somebody asks for it only.
fn is_late(sqe: &Sqe) -> bool {
    // SAFETY: the kernel has mapped the path until the request is answered.
    let path =
        unsafe { core::slice::from_raw_parts(sqe.args[1] as *const u8, sqe.args[2] as usize) };
    path == b"late"
}

impl Daemon {
    /// The answer, if one is due now.
    fn handle(&mut self, sqe: &Sqe) -> Option<Result<usize>> {
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => {
                self.open_files += 1;
                if !self.opens_late_files && is_late(sqe) {
                    self.waiting.push(sqe.tag);
                    return None;
                }
                self.next_file += 1;
                Some(Ok(self.next_file))
            }
            Some(Opcode::Call) => self.call(sqe),
            Some(Opcode::MmapPrep) => {
                self.mapped_bytes += sqe.args[1] as usize;
                Some(Ok((&raw const self.page.0) as usize))
            }
            Some(Opcode::Munmap) => {
                self.mapped_bytes -= sqe.args[1] as usize;
                if self.keeps_unmappings {
                    self.waiting.push(sqe.tag);
                    return None;
                }
                Some(Ok(0))
            }
            Some(Opcode::CloseMsg) => {
                self.open_files -= 1;
                None
            }
            _ if sqe.sqe_flags.contains(SqeFlags::ONEWAY) => None,
            _ => Some(Err(Error::new(EINVAL))),
        }
    }

    fn call(&mut self, sqe: &Sqe) -> Option<Result<usize>> {
        Some(match sqe.args[3] {
            0 => Ok(sqe.args[4] as usize),
            1 => {
                self.waiting.push(sqe.tag);
                return None;
            }
            2 => Ok(self.open_files),
            3 => Ok(self.mapped_bytes),
            4 => self.uid_of(sqe.caller as usize),
            5 => Ok(self.waiting.len()),
            // Keep unmappings waiting from now on.
            6 => {
                self.keeps_unmappings = true;
                Ok(0)
            }
            // Answer whoever waits, and open at once from now on what was opened late.
            7 => {
                self.opens_late_files = true;
                self.keeps_unmappings = false;
                self.answers_all = true;
                Ok(0)
            }
            _ => Err(Error::new(EINVAL)),
        })
    }

    fn uid_of(&self, pid: usize) -> Result<usize> {
        let mut bytes = [0; size_of::<ProcMeta>()];
        libredox::call::get_proc_credentials(self.credentials.raw(), pid, &mut bytes)?;
        // SAFETY: plain integers, of which all bits are values.
        let meta: ProcMeta = unsafe { bytes.as_ptr().cast::<ProcMeta>().read_unaligned() };
        Ok(meta.euid as usize)
    }
}
