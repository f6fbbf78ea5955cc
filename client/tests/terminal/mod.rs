//! A terminal of 80 columns and 24 rows to run programs in, and somebody who looks at it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

const ROWS: NonZeroU16 = NonZeroU16::new(24).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(80).unwrap();

/// A pseudo terminal, and what it shows.
pub struct Terminal {
    keyboard: File,
    programs: OwnedFd,
    screen: vt100::Parser,
    before: Termios,
    was_a_screen: bool,
}

impl Terminal {
    pub fn new() -> Self {
        let size = Winsize {
            ws_row: ROWS.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        Self {
            before: tcgetattr(&pty.slave).unwrap(),
            keyboard: pty.master.into(),
            programs: pty.slave,
            was_a_screen: false,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Runs a program that has this terminal, and no other.
    pub fn run(&self, mut command: Command) -> Child {
        let copy = || self.programs.try_clone().unwrap();
        command.stdin(copy()).stdout(copy()).stderr(copy());
        // SAFETY: setsid may be called between fork and exec.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        command.spawn().unwrap()
    }

    /// Types.
    #[allow(dead_code, reason = "not every program is typed to")]
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Looks at the screen until it shows this.
    pub fn wait_for(&mut self, what: &str) -> String {
        self.wait(what, |screen| screen.contents().contains(what))
    }

    /// Looks at the screen until this is true of it. `what` is for the message where it never is.
    pub fn wait(&mut self, what: &str, is: impl Fn(&vt100::Screen) -> bool) -> String {
        while !is(self.screen.screen()) {
            let mut ready = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(20_000).unwrap();
            let seen = self.screen.screen().contents();
            assert_ne!(poll(&mut ready, patience).unwrap(), 0, "no {what}:\n{seen}");
            let mut bytes = [0; 4096];
            let length = self.keyboard.read(&mut bytes).unwrap();
            for byte in &bytes[..length] {
                self.screen.process(&[*byte]);
                self.was_a_screen |= self.screen.screen().alternate_screen();
            }
        }
        self.screen.screen().contents()
    }

    /// Panics where a program had no screen here, or the terminal is not as it was before.
    /// Returns what it shows.
    pub fn check_that_it_is_as_it_was(&mut self) -> String {
        let seen = self.wait("end of the screen", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        });
        assert!(self.was_a_screen, "no screen:\n{seen}");
        assert_eq!(tcgetattr(&self.programs).unwrap(), self.before);
        seen
    }
}
