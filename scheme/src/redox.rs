//! gemd on Redox: pages from the kernel's memory scheme, credentials from the process manager, a
//! service of init's. Served until told to stop.
//!
//! Started by hand it stays in the foreground. Started by init it says that it is ready on the
//! pipe that init names in `INIT_NOTIFY`; the scheme is registered by then.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use gem::pages::Ticket;
use gem::units::{Identity, PageCount, Pid};
use gem::user::UserSource;
use gemd::answer::Errno;
use gemd::platform::Platform;
use gemd::serve::{Control, Service};
use gemd::server::Server;
use platform::{Credentials, Pages};
use redox_scheme::Socket;

use crate::args::Args;

/// The end of `gemd --help`.
pub const EXAMPLES: &str = "\
Examples:
  gemd                          serve /scheme/gem until Ctrl-C
  gemd --max-memory 512         with at most 512 MiB for all clients together
  gemctl put PICTURE.png        (in another terminal) put a picture into a buffer";

/// How long memory that nobody uses stays with the daemon, for the next one who asks.
const IDLE: Duration = Duration::from_secs(5);

/// The environment variable by which init says where it waits for a service.
const INIT_NOTIFY: &str = "INIT_NOTIFY";

/// A Redox kernel, and its process manager.
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

/// Serves until Ctrl-C or SIGTERM; then everything is answered and the scheme is gone.
pub fn run(args: &Args) -> Result<()> {
    let args = &args.serve;
    let init = init()?;
    let credentials = Credentials::new()
        .map_err(redox)
        .context("cannot ask who is who: only root can, in a name space with the scheme `proc`")?;
    let memory = platform::machine_pages().map_err(redox).context(
        "cannot ask for memory: only root can, in a name space with the scheme `memory`",
    )?;
    let memory = PageCount::new(memory).context("this machine says that it has no memory")?;
    let config = args.config(memory)?;
    let control = Arc::new(OnceLock::<Control>::new());
    let pages = pages(&control)?;
    if !pages.takes_user_pages() {
        log::warn!("no client can register its own pages (userptr): this kernel does not allow it");
    }
    let server = Server::new(config, Machine(credentials), pages);
    let service = Socket::create()
        .map_err(Errno::from)
        .and_then(|socket| Service::register(socket, &args.scheme, server))
        .map_err(|Errno(errno)| anyhow!(io::Error::from_raw_os_error(errno)))
        .context("cannot make the scheme")?;
    let own = service.control();
    control.get_or_init(|| own);
    ctrlc::set_handler(move || own.shut_down()).context("cannot listen for signals")?;
    // What it is asked to do from here on needs no file but what it has, and memory.
    libredox::call::setrens(0, 0)
        .map_err(redox)
        .context("cannot give up the name space")?;
    if let Some(mut init) = init {
        init.write_all(&[0]).context("init does not listen")?;
    }
    log::info!("gemd serves /scheme/{}", args.scheme);
    service.run().map_err(|Errno(errno)| {
        anyhow!(io::Error::from_raw_os_error(errno)).context("the scheme's socket failed")
    })
}

/// The pipe on which init waits, if it was init who started this process.
fn init() -> Result<Option<File>> {
    let Some(number) = env::var_os(INIT_NOTIFY) else {
        return Ok(None);
    };
    let number: RawFd = number
        .to_str()
        .and_then(|number| number.parse().ok())
        .filter(|&number| number >= 0)
        .with_context(|| format!("{INIT_NOTIFY} is no file descriptor: {number:?}"))?;
    // SAFETY: init made this fd for this process alone and for this use; nothing else here takes
    // it from the environment.
    Ok(Some(unsafe { File::from_raw_fd(number) }))
}

/// Pages whose worker wakes the socket's thread when it has finished something.
fn pages(control: &Arc<OnceLock<Control>>) -> Result<Pages> {
    let control = control.clone();
    let mut pages = Pages::new(IDLE)
        .map_err(|error| anyhow!(io::Error::from_raw_os_error(error.errno)))
        .context("cannot start the memory worker")?;
    pages.set_notify(Box::new(move || {
        if let Some(control) = control.get() {
            control.kick();
        }
    }));
    Ok(pages)
}

fn redox(error: libredox::error::Error) -> anyhow::Error {
    anyhow!(io::Error::from_raw_os_error(error.errno()))
}
