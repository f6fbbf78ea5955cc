//! The program that the image is for: runs the promises of `promises.txt` one by one and prints
//! TAP. With `test=<name>` on the kernel's command line, that one only; with `bench=1`, the
//! measurements instead.

#![no_std]
#![no_main]

extern crate alloc;

mod bench;
mod frames;
mod pages;
mod scheme;
mod smoke;

use alloc::string::String;
use alloc::vec::Vec;

use initfs_tests::promises::gem;
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::say;

rt::entry!(main);

/// Why a promise is not kept.
#[derive(Debug)]
enum Broken {
    /// A call that should have worked: which, and the errno.
    Call(&'static str, syscall::Error),
    /// What was expected, and what is.
    Differs(&'static str, String),
}

type Outcome = Result<(), Broken>;

/// A promise and the function that keeps it.
struct Promise {
    name: &'static str,
    keep: fn() -> Outcome,
}

/// The names that the runner expects, a line each.
const NAMES: &str = include_str!("../../../promises.txt");

fn main() -> u8 {
    let environment = environment();
    if value(&environment, "bench").is_some() {
        return bench::run();
    }
    let only = value(&environment, "test");
    let names: Vec<_> = NAMES
        .lines()
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    say!("TAP version 14");
    say!("1..{}", names.len());
    let mut kept = true;
    for promise in gem().filter(|promise| !NAMES.lines().any(|name| name == promise.name)) {
        say!("not ok - {} is not listed", promise.name);
        kept = false;
    }
    for (number, name) in (1..).zip(&names) {
        match frames::kept_without_loss(|| keep(name)) {
            Some(Ok(())) => {
                say!("ok {number} - {name}");
                continue;
            }
            Some(Err(Broken::Call(what, error))) => say!("# {what}: {error}"),
            Some(Err(Broken::Differs(what, is))) => say!("# {what}: {is}"),
            None => say!("# there is no such promise"),
        }
        say!("not ok {number} - {name}");
        kept = false;
    }
    u8::from(!kept)
}

/// Tests the promise of this name, if there is one.
fn keep(name: &str) -> Option<Outcome> {
    let mut own = smoke::PROMISES.iter().chain(pages::PROMISES);
    if let Some(promise) = own.find(|promise| promise.name == name) {
        return Some((promise.keep)());
    }
    let promise = gem().find(|promise| promise.name == name)?;
    Some(scheme::keep(promise))
}

/// The kernel's command line, a word a line.
fn environment() -> String {
    let mut bytes = alloc::vec![0; 4096];
    let read = Fd::open("/scheme/sys/env", O_RDONLY, 0).and_then(|file| file.read(&mut bytes));
    bytes.truncate(read.unwrap_or(0));
    String::from_utf8(bytes).unwrap_or_default()
}

/// Turns an errno into why a promise is broken.
fn in_call(what: &'static str) -> impl Fn(syscall::Error) -> Broken {
    move |error| Broken::Call(what, error)
}

fn expect<T: PartialEq + core::fmt::Debug>(what: &'static str, is: T, should: T) -> Outcome {
    if is == should {
        return Ok(());
    }
    Err(Broken::Differs(
        what,
        alloc::format!("{is:?}, not {should:?}"),
    ))
}

fn value<'a>(environment: &'a str, key: &str) -> Option<&'a str> {
    environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}
