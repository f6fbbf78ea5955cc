//! What the programs of the test image share.

#![no_std]

pub mod bare;
pub mod link;
pub mod promises;
pub mod user;
pub mod victim;
