//! What is measured. The graphics-memory rows use the client library, as programs do; what has no
//! form of its own there is the bare call that the library would make.

use gem_client::drm::{self, cap};
use gem_client::{Buffer, Card, Node, Rights};
use syscall::CallFlags;

use super::{Meter, Row};
use crate::scheme::Gemd;
use crate::smoke::Daemon;
use crate::{Broken, Outcome};

const SMALL: u64 = 4 << 10;
const MEDIUM: u64 = 64 << 10;
const LARGE: u64 = 1 << 20;

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "null-call",
        measure: null_call,
    },
    Row {
        name: "null-payload-call",
        measure: null_payload_call,
    },
    Row {
        name: "gem-call",
        measure: gem_call,
    },
    Row {
        name: "drm-call",
        measure: drm_call,
    },
    Row {
        name: "create-close-4k",
        measure: create_close,
    },
    Row {
        name: "create-first-1m",
        measure: create_first,
    },
    Row {
        name: "cycle-64k",
        measure: cycle,
    },
    Row {
        name: "flink-open-close",
        measure: flink_open_close,
    },
    Row {
        name: "prime",
        measure: prime,
    },
    Row {
        name: "map-unmap-1m",
        measure: map_unmap,
    },
    Row {
        name: "map-touch-unmap-1m",
        measure: map_touch_unmap,
    },
];

/// A scheme that answers 0: what any call costs, whoever serves it.
fn null_call(meter: &Meter) -> Outcome {
    let daemon = Daemon::start()?;
    meter.measure(|| call(daemon.file.raw(), &mut [], &[0, 0, 0]))
}

/// The same with as many bytes as [`drm_call`] has.
fn null_payload_call(meter: &Meter) -> Outcome {
    let daemon = Daemon::start()?;
    let mut payload = [0; size_of::<drm::Cap>()];
    meter.measure(|| call(daemon.file.raw(), &mut payload, &[0, 0, 0]))
}

/// SIZE.
fn gem_call(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let buffer = create(&card, SMALL)?;
    let words = gem_wire::native::Call::Size {
        handle: buffer.handle(),
    }
    .encode();
    meter.measure(|| call(card.raw_fd(), &mut [], &words))
}

/// GET_CAP.
fn drm_call(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    meter.measure(|| drm::capability(&card, cap::PRIME).map_err(of_client))
}

fn create_close(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    meter.measure(|| close(create(&card, SMALL)?))
}

/// The first buffer of a user: there is no arena yet, and the worker makes one.
fn create_first(meter: &Meter) -> Outcome {
    let prepare = || {
        let gemd = Gemd::start(&[])?;
        let card = Card::open(Node::Primary).map_err(of_client)?;
        Ok((gemd, card))
    };
    meter.measure_with(prepare, |(gemd, card)| {
        let buffer = create(&card, LARGE)?;
        Ok((buffer, card, gemd))
    })
}

/// Create, map, write a word of every page, unmap, close.
fn cycle(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    meter.measure(|| {
        let buffer = create(&card, MEDIUM)?;
        map_and_touch(&buffer)?;
        close(buffer)
    })
}

/// A buffer with a name is opened by it once more.
fn flink_open_close(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let buffer = create(&card, SMALL)?;
    meter.measure(|| {
        let name = buffer.flink().map_err(of_client)?;
        close(card.open_name(name).map_err(of_client)?)
    })
}

/// A buffer of one open becomes another open's, and the fd between them goes.
fn prime(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let other = Card::open(Node::Render).map_err(of_client)?;
    let buffer = create(&card, SMALL)?;
    meter.measure(|| {
        let fd = buffer.export(Rights::ReadWrite).map_err(of_client)?;
        close(other.import(&fd).map_err(of_client)?)
    })
}

fn map_unmap(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let buffer = create(&card, LARGE)?;
    meter.measure(|| buffer.map().map(drop).map_err(of_client))
}

fn map_touch_unmap(meter: &Meter) -> Outcome {
    let (_gemd, card) = ready()?;
    let buffer = create(&card, LARGE)?;
    meter.measure(|| map_and_touch(&buffer))
}

/// A daemon, and a node of it. An arena is there before anything is measured.
fn ready() -> Result<(Gemd, Card), Broken> {
    let gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client)?;
    close(create(&card, LARGE)?)?;
    Ok((gemd, card))
}

fn create(card: &Card, size: u64) -> Result<Buffer, Broken> {
    card.create(size).map_err(of_client)
}

fn close(buffer: Buffer) -> Outcome {
    buffer.close().map_err(of_client)
}

/// Maps the buffer, writes a word of every page, and unmaps it.
fn map_and_touch(buffer: &Buffer) -> Outcome {
    let mapping = buffer.map().map_err(of_client)?;
    for page in (0..mapping.len()).step_by(gem_client::PAGE_SIZE) {
        mapping.write_at(page, &[1; 8]).map_err(of_client)?;
    }
    Ok(())
}

pub fn call(fd: usize, payload: &mut [u8], words: &[u64]) -> Outcome {
    libredox::call::call_rw(fd, payload, CallFlags::empty(), words)
        .map(drop)
        .map_err(|error| Broken::Call("call", error.into()))
}

pub fn of_client(error: gem_client::Error) -> Broken {
    Broken::Call(error.action(), syscall::Error::new(error.errno()))
}
