//! gemd on Linux: the stand-in kernel of `hosted` as platform, served until told to stop.
//!
//! Joins the library with that platform, and knows nothing of either's inside. The socket is made
//! and removed by `hosted`; what is printed first says where it is.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow};
use gem::pages::Ticket;
use gem::units::{Identity, Pid};
use gemd::answer::Errno;
use gemd::platform::Platform;
use gemd::serve::{Control, Service};
use gemd::server::Server;
use hosted::pages::MemfdPages;
use redox_scheme::Socket;

use crate::args::{Args, Serve};
use crate::demo::{self, Command};

/// The end of `gemd --help`.
pub const EXAMPLES: &str = "\
Examples:
  gemd                          serve on the default socket until Ctrl-C
  gemd --socket /tmp/my.sock    serve there
  gemd demo                     two processes share a picture through a private gemd
  gemctl put PICTURE.png        (in another terminal) put a picture into a buffer";

/// The machine that `hosted` makes of this one.
struct Hosted;

impl Platform for Hosted {
    type Pages = MemfdPages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        hosted::credentials(pid)
    }

    fn finished(&mut self, pages: &mut MemfdPages, tickets: &mut Vec<Ticket>) {
        pages.finished(tickets);
    }
}

/// Does what the command line says.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        None => serve(&args.serve),
        Some(Command::Demo(demo)) => demo::run(demo),
        Some(Command::DemoRole(role)) => demo::run_role(role),
    }
}

/// Serves until Ctrl-C or SIGTERM; then everything is answered and the socket is gone.
fn serve(args: &Serve) -> Result<()> {
    let socket = match &args.socket {
        Some(path) => path.clone(),
        None => hosted::default_socket(),
    };
    let kernel = hosted::start(hosted::Config::new(socket.clone()))?;
    let control = Arc::new(OnceLock::<Control>::new());
    let pages = pages(&control)?;
    if let Some(hindrance) = pages.no_user_pages() {
        log::warn!("no client can register its own pages (userptr): {hindrance}");
    }
    let config = args.config(pages.capacity())?;
    let service = Socket::create()
        .map_err(Errno::from)
        .and_then(|scheme| {
            Service::register(scheme, &args.scheme, Server::new(config, Hosted, pages))
        })
        .map_err(|Errno(errno)| anyhow!("{}", std::io::Error::from_raw_os_error(errno)))
        .context("cannot make the scheme")?;
    let own = service.control();
    control.get_or_init(|| own);
    ctrlc::set_handler(move || own.shut_down()).context("cannot listen for signals")?;

    // Whoever listened to us may have gone; that is no reason to go, too.
    let _ = writeln!(
        std::io::stdout(),
        "gemd serves /scheme/{} on {socket}\nconnect with:  gemctl --socket {socket} stats",
        args.scheme,
        socket = socket.display(),
    );
    let result = service.run();
    drop(kernel);
    result.map_err(|Errno(errno)| {
        anyhow!(std::io::Error::from_raw_os_error(errno)).context("the scheme's socket failed")
    })
}

/// Pages whose worker wakes the socket's thread when it has finished something.
fn pages(control: &Arc<OnceLock<Control>>) -> Result<MemfdPages> {
    let control = control.clone();
    let mut pages = MemfdPages::new().context("cannot set up memory files")?;
    pages.set_notify(Box::new(move || {
        if let Some(control) = control.get() {
            control.kick();
        }
    }));
    Ok(pages)
}
