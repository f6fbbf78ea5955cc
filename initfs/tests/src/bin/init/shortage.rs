//! The promise about a machine whose memory others use up. What gemd's own clients use up is a
//! promise of the scheme (`gem_promises::exhaustion`).

use alloc::vec::Vec;

use gem_client::{Buffer, Card, Create, Node, Rights};
use rt::heap::map_anonymous;
use syscall::error::ENOMEM;

use crate::frames::free;
use crate::scheme::{ALL, Gemd};
use crate::{Broken, Outcome, Promise, expect, in_call, of_client};

/// All of them.
pub const PROMISES: &[Promise] = &[Promise {
    name: "a_server_lives_where_others_use_up_the_machines_memory",
    keep: live,
}];

const PAGE: u64 = 4096;
/// Frames that are left: less than gemd leaves to others. The kernel counts frames as free that it uses
/// itself, a thousand or two of them, and panics where there are no others.
const LEFT: u64 = 2048;
/// Bytes that gemd cannot have at hand.
const LARGE: u64 = 8 << 20;

fn live() -> Outcome {
    // Filling a large machine takes minutes in emulation.
    if free()? > 1 << 18 {
        return Ok(());
    }
    let gemd = Gemd::start(&ALL)?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    let own = card.create(PAGE).map_err(of_client("create a buffer"))?;
    let mapping = own.map().map_err(of_client("map it"))?;
    mapping.fill(7).map_err(of_client("write to it"))?;

    let others = Others::take_all_but(LEFT)?;
    let plain = Create::new;
    for create in [
        plain(),
        plain().write_combining(),
        plain().uncached(),
        plain().contiguous(),
    ] {
        let large = card.create_with(LARGE, create);
        expect("a large buffer", errno(large), Some(ENOMEM))?;
        // Of what it has at hand it gives away all, and no more.
        let mut small = Vec::new();
        let refused = loop {
            match card.create_with(PAGE, create) {
                Ok(buffer) => small.push(buffer),
                Err(error) => break error.errno(),
            }
        };
        expect("a small one after others", refused, ENOMEM)?;
    }

    // What takes no memory is done, and what there is stays.
    gemd.is_serving()?;
    let export = own.export(Rights::ReadWrite);
    let export = export.map_err(of_client("export a buffer"))?;
    let again = export.map(Rights::ReadWrite).map_err(of_client("map it"))?;
    let mut byte = [0];
    let read = again.read_at(PAGE as usize - 1, &mut byte);
    read.map_err(of_client("read it"))?;
    expect("what is in it", byte, [7])?;

    drop(others);
    let large = card.create(LARGE);
    expect("a large buffer afterwards", errno(large), None)
}

fn errno(created: gem_client::Result<Buffer>) -> Option<i32> {
    created.err().map(|error| error.errno())
}

/// Memory that somebody else has: this process.
struct Others {
    address: usize,
    size: usize,
}

impl Others {
    fn take_all_but(left: u64) -> Result<Self, Broken> {
        let size = (free()? * PAGE) as usize;
        let address = map_anonymous(size).map_err(in_call("map memory"))?;
        let others = Self { address, size };
        let pages = (address..address + size).step_by(PAGE as usize);
        for (number, page) in pages.enumerate() {
            if number % 64 == 0 && free()? <= left {
                return Ok(others);
            }
            // SAFETY: mapped above, and nobody else's. Volatile: the write is what takes a frame.
            unsafe { (page as *mut u8).write_volatile(1) };
        }
        Err(Broken::Differs("use up memory", "there is more".into()))
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        // SAFETY: mapped by `take_all_but`, and nothing refers to it.
        let _ = unsafe { syscall::funmap(self.address, self.size) };
    }
}
