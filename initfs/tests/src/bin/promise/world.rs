//! The world of the promises: client processes of this image, and the gemd that is running, or one
//! of its own that ends when the promise wants it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use gem_promises::{Link, World};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::process::Command;
use syscall::error::Result;

use crate::link::{Puppet, Stage};

/// This image.
pub struct Here {
    stage: Rc<Stage>,
    /// A gemd of this world's own, which is told to leave by an order, whatever that says.
    server: Option<Puppet>,
}

/// The arguments of such a gemd: limits so large that making a buffer can be waited for.
const ARGUMENTS: [&str; 5] = ["--link", "--max-memory", "256", "--max-object", "32"];

impl Here {
    /// Without puppets.
    pub fn new() -> Result<Self> {
        let stage = Rc::new(Stage::new()?);
        let server = None;
        Ok(Self { stage, server })
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
