//! The program that the image is for: tests the promises one by one and prints TAP. With
//! `test=<name>` on the kernel's command line, that one only; with `record=1`, those of the scheme,
//! and a trace of each; with `bench=<row>` or `bench=all`, measurements instead. Exit codes: 0 where
//! all promises are kept (all rows measured), 1 where one is not, 2 where there is none of that
//! name.

#![no_std]
#![no_main]

extern crate alloc;

mod bench;
mod frames;
mod kills;
mod machine;
mod pages;
mod scheme;
mod servers;
mod shortage;
mod smoke;
mod userptr;

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

/// A promise of the image's own, or of the scheme.
#[derive(Clone, Copy)]
enum Any {
    Own(&'static Promise),
    Scheme(&'static gem_promises::Promise),
}

impl Any {
    fn all() -> impl Iterator<Item = Self> {
        let own = [
            smoke::PROMISES,
            machine::PROMISES,
            pages::PROMISES,
            servers::PROMISES,
            shortage::PROMISES,
        ];
        let long = kills::PROMISES.iter().map(Self::Own);
        let own = own
            .into_iter()
            .flatten()
            .chain(userptr::promises())
            .map(Self::Own);
        own.chain(gem().map(Self::Scheme)).chain(long)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Own(promise) => promise.name,
            Self::Scheme(promise) => promise.name,
        }
    }

    fn is_recorded(self) -> bool {
        matches!(self, Self::Scheme(promise) if scheme::is_recorded(promise))
    }

    fn keep(self, record: bool) -> Outcome {
        match self {
            Self::Own(promise) => (promise.keep)(),
            Self::Scheme(promise) => scheme::keep(promise, record),
        }
    }
}

fn main() -> u8 {
    let environment = environment();
    if let Some(row) = value(&environment, "bench") {
        return bench::run(row);
    }
    let only = value(&environment, "test");
    let record = value(&environment, "record").is_some();
    let promises: Vec<_> = Any::all()
        .filter(|promise| only.is_none_or(|only| only == promise.name()))
        .filter(|promise| !record || promise.is_recorded())
        .collect();
    if promises.is_empty() {
        say!("# there are these:");
        Any::all().for_each(|promise| say!("#   {}", promise.name()));
        return 2;
    }
    say!("TAP version 14");
    say!("1..{}", promises.len());
    let mut kept = true;
    for (number, promise) in (1..).zip(promises) {
        let name = promise.name();
        match frames::kept_without_loss(|| promise.keep(record)) {
            Ok(()) => {
                say!("ok {number} - {name}");
                continue;
            }
            Err(Broken::Call(what, error)) => say!("# {what}: {error}"),
            Err(Broken::Differs(what, is)) => say!("# {what}: {is}"),
        }
        say!("not ok {number} - {name}");
        kept = false;
    }
    u8::from(!kept)
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

/// Turns the client library's error into why a promise is broken.
fn of_client(what: &'static str) -> impl Fn(gem_client::Error) -> Broken {
    move |error| Broken::Differs(what, alloc::format!("{error}"))
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
