//! Promises about the machine: that it is the one that was asked for, and what its page tables
//! say about a client's memory.
//!
//! No kernel call tells how memory is cached. So the machine asks its host: it writes a line
//! `look ADDRESS` on the serial port, and the host (`cargo xtask boot`) answers there with what
//! the page tables of each processor have for this address.

use alloc::format;
use alloc::string::String;

use gem_client::{Buffer, Card, Create, Mapping, Node, Rights};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::say;
use syscall::error::EAGAIN;
use syscall::flag::{F_SETFL, O_NONBLOCK};

use crate::scheme::Gemd;
use crate::{Broken, Outcome, Promise, environment, expect, frames, of_client, pages, value};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "the_machine_has_the_processors_and_the_memory_that_were_asked_for",
        keep: size,
    },
    Promise {
        name: "a_clients_page_tables_say_what_its_buffers_are",
        keep: page_tables,
    },
];

const PAGE: u64 = 4096;

fn size() -> Outcome {
    let environment = environment();
    let processors = format!("CPUs: {}", value(&environment, "processors").unwrap_or("?"));
    let text = read("/scheme/sys/cpu")?;
    expect("processors", text.lines().next(), Some(&*processors))?;

    let memory = value(&environment, "memory").and_then(|memory| memory.parse().ok());
    let asked: u64 = memory.unwrap_or(0) * ((1 << 20) / PAGE);
    let there = frames::all()?;
    // The kernel takes some for itself before it counts, and the firmware has some.
    let most_of_it = asked - asked / 8..=asked;
    expect(
        "whether it has the memory",
        most_of_it.contains(&there),
        true,
    )
}

/// Bits of an entry of a page table.
mod bit {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITEABLE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const CACHE_DISABLED: u64 = 1 << 4;
    pub const ATTRIBUTE: u64 = 1 << 7;
    pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

/// How a page is cached, as the kernel has set up the processor's table of page attributes.
const WRITE_BACK: u64 = 0;
const UNCACHED: u64 = bit::CACHE_DISABLED;
const WRITE_COMBINING: u64 = bit::ATTRIBUTE;
const CACHING: u64 = bit::WRITE_THROUGH | bit::CACHE_DISABLED | bit::ATTRIBUTE;

fn page_tables() -> Outcome {
    let _gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    let plain = Create::new;
    for (create, caching) in [
        (plain(), WRITE_BACK),
        (plain().write_combining(), WRITE_COMBINING),
        (plain().uncached(), UNCACHED),
        (plain().contiguous(), WRITE_BACK),
        (plain().write_combining().contiguous(), WRITE_COMBINING),
        (plain().uncached().contiguous(), UNCACHED),
    ] {
        let buffer = card.create_with(3 * PAGE, create);
        look_at(&buffer.map_err(of_client("create a buffer"))?, caching)?;
    }
    Ok(())
}

/// Expects this of all mappings of the buffer, of every kind.
fn look_at(buffer: &Buffer, caching: u64) -> Outcome {
    let by_node = buffer.map().map_err(of_client("map a buffer"))?;
    expect_entries(&by_node, bit::WRITEABLE | caching)?;
    for (rights, writeable) in [(Rights::ReadWrite, bit::WRITEABLE), (Rights::ReadOnly, 0)] {
        let object = buffer
            .export(rights)
            .map_err(of_client("export a buffer"))?;
        let mapping = object.map(rights).map_err(of_client("map an object"))?;
        expect_entries(&mapping, writeable | caching)?;
    }
    Ok(())
}

fn expect_entries(mapping: &Mapping, expected: u64) -> Outcome {
    let expected = expected | bit::PRESENT | bit::USER;
    let mask = bit::PRESENT | bit::USER | bit::WRITEABLE | CACHING;
    for page in 0..mapping.len() as u64 / PAGE {
        let address = mapping.as_ptr() as u64 + page * PAGE;
        let place = pages::locate(address)?;
        let found = entry(address, place)?;
        if found & mask != expected {
            let what = format!("{found:#x}, expected {expected:#x}");
            return Err(Broken::Differs("what the page tables say", what));
        }
    }
    Ok(())
}

/// What this process's page tables have for `address`, where the page at `place` is.
fn entry(address: u64, place: u64) -> Result<u64, Broken> {
    let serial = Fd::open("/scheme/debug/no-preserve", O_RDONLY, 0)
        .and_then(|serial| {
            serial.fcntl(F_SETFL, O_NONBLOCK)?;
            Ok(serial)
        })
        .map_err(|error| Broken::Call("listen to the serial port", error.into()))?;
    // This process must be on a processor when the host looks. It may just have been interrupted.
    for _ in 0..100 {
        say!("look {address:x}");
        let answer = line(&serial)?;
        let entries = answer.split(' ');
        let entries = entries.filter_map(|entry| u64::from_str_radix(entry, 16).ok());
        // Another process on another processor can have another page there.
        if let Some(entry) = { entries }.find(|entry| entry & bit::ADDRESS == place) {
            return Ok(entry);
        }
    }
    Err(Broken::Differs(
        "look at page tables",
        "nothing is there".into(),
    ))
}

/// The next line of the serial port; does not sleep.
fn line(serial: &Fd) -> Result<String, Broken> {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        match serial.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => return Ok(line),
            Ok(1) => line.push(byte[0].into()),
            Ok(_) => {}
            Err(error) if error.errno() == EAGAIN => {}
            Err(error) => return Err(Broken::Call("read the serial port", error.into())),
        }
    }
}

fn read(path: &str) -> Result<String, Broken> {
    let mut bytes = alloc::vec![0; 4096];
    let length = Fd::open(path, O_RDONLY, 0)
        .and_then(|file| file.read(&mut bytes))
        .map_err(|error| Broken::Call("read a text of the kernel's", error.into()))?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
