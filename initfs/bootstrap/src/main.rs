//! The first process of the test image. It exists for the test image only: a full Redox has
//! its own bootstrap, process manager and name space manager.
//!
//! It starts the program `init` as root, serves the name space ([`namespace`], on a thread of its
//! own) and the processes ([`processes`], here), and when `init` has ended, says so on the serial
//! port and powers the machine off.

#![no_std]
#![no_main]

extern crate alloc;

mod archive;
mod context;
mod kernel;
mod namespace;
mod processes;
mod program;

use alloc::sync::Arc;
use core::arch::global_asm;

use rt::fd::{self, Owned};
use rt::say;
use rt::sync::Queue;
use syscall::data::GlobalSchemes;
use syscall::error::Result;

use crate::context::{Authority, Identity};
use crate::kernel::Roots;
use crate::namespace::Scheme;
use crate::processes::Processes;
use rt::socket::Socket;

global_asm!(include_str!("start.s"), options(att_syntax));

/// Who the bootstrap process is.
const BOOTSTRAP: Identity = Identity {
    pid: 1,
    uid: 0,
    gid: 0,
};

/// Called by `start.s`, once, on the machine's first user stack.
#[unsafe(no_mangle)]
extern "C" fn bootstrap_main() -> ! {
    let roots = Roots::read();
    match run(roots) {
        Ok(ended) => say!("gem-boot: init ended: {ended:?}"),
        Err(error) => say!("gem-boot: bootstrap failed: {error}"),
    }
    power_off(roots)
}

fn run(roots: Roots) -> Result<rt::protocol::Ended> {
    let debug = fd::open_at(roots.get(GlobalSchemes::Debug)?, "no-preserve", 0)?;
    rt::set_debug_fd(debug);
    let authority = Authority(roots.get(GlobalSchemes::Proc)?);
    let own = authority.current_context()?;
    authority.set_identity(&own, BOOTSTRAP, "bootstrap")?;
    program::keep_place(&own)?;

    let socket = Socket::new(roots.create_scheme())?;
    let first = Scheme {
        name: "proc",
        root: socket.file(processes::ROOT)?,
    };
    let namespace = start_namespace(roots, authority, &own, first)?;
    let mut processes = Processes::new(socket, authority, own, namespace, debug);
    processes.run_init(roots.get(GlobalSchemes::Event)?)
}

/// Starts the thread that serves the name space; the fd that programs open through.
fn start_namespace(
    roots: Roots,
    authority: Authority,
    own: &Owned,
    first: Scheme,
) -> Result<Owned> {
    let ready = Arc::new(Queue::new());
    let context = authority.new_context(BOOTSTRAP, "namespace")?;
    let reply = ready.clone();
    rt::thread::spawn_on(context, own.raw(), move || {
        namespace::serve(roots, first, &reply)
    })?;
    ready.pop()
}

fn power_off(roots: Roots) -> ! {
    loop {
        let stop = roots
            .get(GlobalSchemes::Sys)
            .and_then(|sys| fd::open_at(sys, "kstop", syscall::O_WRONLY));
        if let Ok(stop) = stop {
            let _ = syscall::write(stop, b"shutdown");
        }
        let _ = syscall::sched_yield();
    }
}
