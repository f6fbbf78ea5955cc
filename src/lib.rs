#![doc = "A GEM memory manager without an operating system."]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod pages;
pub mod units;
