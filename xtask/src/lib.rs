//! What `cargo xtask` is made of: the image ([`image`], [`toolchain`]), the machine ([`qemu`], [`monitor`]), the
//! judgement over what it says ([`report`]), the traces in that ([`record`]), and the tasks themselves ([`boot`], [`mod@bench`]).

pub mod bench;
pub mod boot;
pub mod image;
pub mod monitor;
pub mod qemu;
pub mod record;
pub mod report;
pub mod summary;
pub mod toolchain;

use std::fmt;

/// What was asked for cannot be done; the message says what to do about it.
#[derive(Debug)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// An [`Unusable`] with this message.
fn unusable(message: impl Into<String>) -> anyhow::Error {
    Unusable(message.into()).into()
}
