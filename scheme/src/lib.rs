//! The graphics-memory server of Redox: a scheme daemon that owns GEM buffer objects.
//!
//! The way of a request, one module after the other: [`serve`] reads SQEs from the scheme's
//! socket → [`sqe`] makes typed requests of them → [`server`] asks [`authority`] and does it with
//! a [`gem::Device`] → [`answer`] makes CQEs. What has to wait does so in [`executor`]. An
//! [`observe::Observer`] can look on.
//!
//! The library needs no operating system but a [`platform`]; the program `gemd` brings one for
//! Linux (over `hosted`) or Redox.

#![no_std]

extern crate alloc;

pub mod answer;
pub mod authority;
pub mod executor;
pub mod fds;
pub mod files;
pub mod observe;
pub mod payload;
pub mod platform;
#[cfg(feature = "record")]
pub mod record;
pub mod serve;
pub mod server;
pub mod sqe;
