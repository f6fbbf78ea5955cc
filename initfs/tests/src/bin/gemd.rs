//! The graphics-memory server on the test image: gemd's library on this image's platform. Its
//! arguments are a few of `gemd`'s flags, a name and a number each, and in front of them `--record`:
//! a trace of everything goes to the serial port, and names count up, so that a replay has the
//! same ones; and `--link`: it has been handed a link (`initfs_tests::link`), and leaves when there
//! is an order.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use gem::pages::Ticket;
use gem::units::{Identity, PageCount, Pid};
use gem::{Config, Limits, NameMode};
use gem_traces::serial::Parts;
use gemd::answer::Errno;
use gemd::observe::Observer;
use gemd::platform::Platform;
use gemd::record::record;
use gemd::serve::{Control, Service};
use gemd::server::Server;
use initfs_tests::link::{NEXT, PART};
use platform::{Credentials, Pages};
use redox_scheme::Socket;
use rt::protocol::FIRST_HANDED_FD as LINK;
use rt::say;
use rt::sync::Mutex;
use syscall::error::EINVAL;
use syscall::flag::CallFlags;

rt::entry!(main);

/// How long memory that nobody uses stays with the daemon.
const IDLE: Duration = Duration::from_millis(200);
const PAGES_PER_MIB: u64 = 256;

/// The image's kernel.
struct Machine(Credentials);

impl Platform for Machine {
    type Pages = Pages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        self.0.identity(pid)
    }

    fn finished(&mut self, pages: &mut Pages, tickets: &mut Vec<Ticket>) {
        pages.finished(tickets);
    }
}

fn main() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            say!("# gemd: errno {errno}");
            1
        }
    }
}

fn serve() -> Result<(), Errno> {
    let mut arguments = rt::start::arguments().skip(1).peekable();
    let recording = arguments.next_if_eq(&"--record").is_some();
    let has_link = arguments.next_if_eq(&"--link").is_some();
    let limits = limits(arguments).ok_or(Errno(EINVAL))?;
    let pages = Pages::new(IDLE)?;
    let machine = Machine(Credentials::new()?);
    if recording {
        let names = NameMode::Sequential;
        let mut parts = Parts::default();
        let sink = move |line: &str| parts.of(line, rt::write_line);
        let (recorder, machine) = record(&limits, machine, &pages, Box::new(sink));
        serve_on(machine, pages, Config { limits, names }, recorder, has_link)
    } else {
        let names = NameMode::Random { seed: seed() };
        serve_on(machine, pages, Config { limits, names }, (), has_link)
    }
}

fn serve_on<P>(
    machine: P,
    mut pages: Pages,
    config: Config,
    observer: impl Observer,
    has_link: bool,
) -> Result<(), Errno>
where
    P: Platform<Pages = Pages> + 'static,
{
    let socket = Socket::create()?;
    let control = Arc::new(Mutex::new(None::<Control>));
    let to_kick = control.clone();
    pages.set_notify(Box::new(move || {
        let control = *to_kick.lock();
        if let Some(control) = control {
            control.kick();
        }
    }));
    let server = Server::new(config, machine, pages);
    let service = Service::register_observed(socket, "gem", server, observer)?;
    let own = service.control();
    *control.lock() = Some(own);
    if has_link {
        rt::thread::spawn(move || leave_when_told(own))?;
    }
    service.run()
}

fn leave_when_told(control: Control) {
    let mut order = [0; PART];
    // However the call ends: there is nobody any more who could tell.
    let _ = syscall::call_ro(LINK, &mut order, CallFlags::empty(), &[NEXT]);
    control.shut_down();
}

/// The limits of a machine with 256 MiB, but for what the arguments say.
fn limits(mut arguments: impl Iterator<Item = &'static str>) -> Option<Limits> {
    let mut limits = Limits::for_memory(PageCount::new(256 * PAGES_PER_MIB)?);
    while let Some(name) = arguments.next() {
        let value: u32 = arguments.next()?.parse().ok()?;
        let pages = PageCount::new(u64::from(value) * PAGES_PER_MIB)?;
        match name {
            "--max-memory" => limits = Limits::for_clients(pages),
            "--max-object" => limits.object = pages,
            "--keep-free" => limits.keep_free = pages,
            "--max-handles" => limits.handles_per_open = value,
            _ => return None,
        }
    }
    Some(limits)
}

/// Different at every start: as much as names need on a machine without anybody to guess them.
fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    for half in seed.chunks_exact_mut(8) {
        // SAFETY: every x86-64 processor has the counter, and the kernel leaves it to user space.
        half.copy_from_slice(&unsafe { _rdtsc() }.to_ne_bytes());
    }
    seed
}
