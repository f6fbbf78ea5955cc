//! Lines on the serial port, through the fd of the kernel's debug scheme that every program has.
//! One line is one write, so that lines of several processes do not mix. Where a message has
//! several, all but the first are marked as comments of the test protocol.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::protocol::DEBUG_FD;

static DEBUG: AtomicUsize = AtomicUsize::new(DEBUG_FD);

/// Says which fd is the serial port; for the bootstrap process, which nobody hands one.
pub fn set_debug_fd(fd: usize) {
    DEBUG.store(fd, Relaxed);
}

/// What the kernel writes in one go.
const LINE: usize = 512;

struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Line {
    fn push(&mut self, text: &str) {
        let room = LINE - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
    }

    fn end(&mut self) {
        self.bytes[self.length] = b'\n';
        // Without a serial port there is nobody to tell.
        let _ = syscall::write(DEBUG.load(Relaxed), &self.bytes[..=self.length]);
        self.length = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split('\n');
        if let Some(first) = lines.next() {
            self.push(first);
        }
        for line in lines {
            self.end();
            self.push("# ");
            self.push(line);
        }
        Ok(())
    }
}

/// Writes a line; what is beyond 511 bytes is cut off. Needs no heap and no lock.
pub fn write_line(arguments: fmt::Arguments) {
    let mut line = Line {
        bytes: [0; LINE],
        length: 0,
    };
    // `Line` takes or cuts off; only a `Display` of an argument can fail, and then the line is
    // what it was up to there.
    let _ = line.write_fmt(arguments);
    line.end();
}

/// Writes a line on the serial port.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {
        $crate::write_line(::core::format_args!($($arguments)*))
    };
}
