//! What `gemctl` prints: to a standard output that can be full or closed, which `println!` answers
//! with a panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

use anyhow::{Context, Error, Result};

/// Prints one line.
pub fn line(text: impl Display) -> Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("cannot print")
}

/// Whether this is because nobody reads any more (`gemctl objects | head -1`), which is no failure.
pub fn is_unread(error: &Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
