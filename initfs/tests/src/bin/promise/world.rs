//! The world of the promises: client processes of this image, and the gemd that is running, or one
//! of its own that ends when the promise wants it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use gem_promises::{Link, Soak, World};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::process::Command;
use rt::time::Instant;
use syscall::error::{EINVAL, Error, Result};

use crate::link::{Puppet, Stage};

/// This image.
pub struct Here {
    stage: Rc<Stage>,
    soak: Soak,
    /// How long it goes on, and until when: once it has begun.
    soak_time: Duration,
    soak_end: Option<Instant>,
    /// A gemd of this world's own, which is told to leave by an order, whatever that says.
    server: Option<Puppet>,
}

/// The arguments of such a gemd: limits so large that making a buffer can be waited for.
const ARGUMENTS: [&str; 5] = ["--link", "--max-memory", "256", "--max-object", "32"];

impl Here {
    /// Without puppets. `soak` is how many clients and seconds a soak has, `16,5` for example.
    pub fn new(soak: &str) -> Result<Self> {
        let (clients, seconds) = soak.split_once(',').ok_or(Error::new(EINVAL))?;
        let soak = Soak {
            clients: clients.parse().map_err(|_| Error::new(EINVAL))?,
            // The kernel forgets files of clients that are killed at other times.
            at_rest: true,
        };
        let seconds = seconds.parse().map_err(|_| Error::new(EINVAL))?;
        Ok(Self {
            stage: Rc::new(Stage::new()?),
            soak,
            soak_time: Duration::from_secs(seconds),
            soak_end: None,
            server: None,
        })
    }
}

impl World for Here {
    fn start(&mut self) -> Box<dyn Link> {
        let program = Command::new("puppet");
        let puppet = Puppet::start(self.stage.clone(), program).expect("a process");
        Box::new(puppet)
    }

    fn text(&mut self, path: &str) -> String {
        read(path).expect("a text of gemd's")
    }

    fn pause(&mut self) {
        rt::time::sleep(Duration::from_millis(1));
    }

    fn soak(&self) -> Soak {
        self.soak
    }

    fn soaks_on(&mut self, killed: u32) -> bool {
        let now = Instant::now();
        let end = self.soak_end.get_or_insert(now.after(self.soak_time));
        let goes_on = now < *end;
        if !goes_on {
            rt::say!("# {killed} clients have been killed");
        }
        goes_on
    }

    fn start_server(&mut self) {
        let program = ARGUMENTS
            .into_iter()
            .fold(Command::new("gemd"), Command::argument);
        let server = Puppet::start(self.stage.clone(), program).expect("a process");
        self.server = Some(server);
        while read("stats").is_err() {
            self.pause();
        }
    }

    fn kill_server(&mut self) {
        self.server.take().expect("a server").kill();
    }

    fn dismiss_server(&mut self) -> bool {
        let mut server = self.server.take().expect("a server");
        server.send(b"leave");
        server.wait()
    }
}

fn read(path: &str) -> libredox::error::Result<String> {
    let file = Fd::open(&alloc::format!("/scheme/gem/{path}"), O_RDONLY, 0)?;
    let mut text = String::new();
    let mut part = vec![0; 4096];
    loop {
        let length = file.read(&mut part)?;
        if length == 0 {
            return Ok(text);
        }
        text.push_str(&String::from_utf8_lossy(&part[..length]));
    }
}
