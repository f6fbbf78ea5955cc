//! The promise that nothing is lost over many clients' lives, however they end.

use gem_client::{Card, Mapping, Node, Rights};
use initfs_tests::victim::{BOARD, SIZE, Step};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::process::Command;

use crate::frames::{free, settle};
use crate::scheme::Gemd;
use crate::{Broken, Outcome, Promise, expect, in_call, of_client};

/// All of them.
pub const PROMISES: &[Promise] = &[Promise {
    name: "ten_thousand_clients_that_are_killed_leave_nothing",
    keep: kill_many,
}];

const CLIENTS: u32 = 10_000;
/// After these the daemon's tables, the bootstrap process and the kernel have what they keep.
const FIRST: u32 = 500;

fn kill_many() -> Outcome {
    let _gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    let board = card.create(SIZE).map_err(of_client("create the board"))?;
    let export = board.export(Rights::ReadWrite);
    let export = export.map_err(of_client("export the board"))?;
    let seen = board.map().map_err(of_client("map the board"))?;

    let stats = stats()?;
    for number in 0..FIRST {
        kill_one(number, export.raw_fd(), &seen)?;
    }
    let before = free()?;
    for number in 0..CLIENTS {
        kill_one(number, export.raw_fd(), &seen)?;
    }
    expect("frames lost", settle(before)?, 0)?;
    expect("gemd's stats afterwards", self::stats()?, stats)
}

/// Starts a client, and kills it when it has come as far as its number says.
fn kill_one(number: u32, board: usize, seen: &Mapping) -> Outcome {
    let target = Step::ALL[number as usize % Step::ALL.len()];
    seen.write_at(0, &[Step::Started as u8])
        .map_err(of_client("write to the board"))?;
    let victim = Command::new("victim").hand(board, BOARD).spawn();
    let victim = victim.map_err(in_call("start a client"))?;
    let mut step = [0];
    while step[0] < target as u8 {
        let _ = syscall::sched_yield();
        seen.read_at(0, &mut step)
            .map_err(of_client("read the board"))?;
    }
    victim.kill().map_err(in_call("kill the client"))?;
    victim.wait().map_err(in_call("wait for the client"))?;
    Ok(())
}

/// The daemon's totals, when it has heard of all that has ended: what is told to it comes in
/// order.
fn stats() -> Result<alloc::string::String, Broken> {
    let file = Fd::open("/scheme/gem/stats", O_RDONLY, 0);
    let mut bytes = alloc::vec![0; 4096];
    let length = file
        .and_then(|file| file.read(&mut bytes))
        .map_err(|error| Broken::Call("read gemd's stats", error.into()))?;
    bytes.truncate(length);
    Ok(alloc::string::String::from_utf8_lossy(&bytes).into_owned())
}
