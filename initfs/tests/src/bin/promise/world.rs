//! The world of the promises: client processes of this image, and the gemd that is running.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use gem_promises::{Link, World};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use syscall::error::Result;

use crate::link::{Puppet, Stage};

/// This image.
pub struct Here {
    stage: Rc<Stage>,
}

impl Here {
    /// Without puppets.
    pub fn new() -> Result<Self> {
        let stage = Rc::new(Stage::new()?);
        Ok(Self { stage })
    }
}

impl World for Here {
    fn start(&mut self) -> Box<dyn Link> {
        let puppet = Puppet::start(self.stage.clone()).expect("a process");
        Box::new(puppet)
    }

    fn text(&mut self, path: &str) -> String {
        read(path).expect("a text of gemd's")
    }

    fn pause(&mut self) {
        rt::time::sleep(Duration::from_millis(1));
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
