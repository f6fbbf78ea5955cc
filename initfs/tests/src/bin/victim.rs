//! A client that says on a board, a shared byte, how far it has come, until it is killed.

#![no_std]
#![no_main]

use core::convert::Infallible;

use gem_client::{Card, Node, ObjectFd, Result, Rights};
use initfs_tests::victim::{BOARD, SIZE, Step};
use libredox::Fd;

rt::entry!(main);

fn main() -> u8 {
    match live() {
        Err(_) => 1,
    }
}

fn live() -> Result<Infallible> {
    let board = ObjectFd::from_fd(Fd::new(BOARD));
    let board = board.map(Rights::ReadWrite)?;
    let card = Card::open(Node::Render)?;
    board.write_at(0, &[Step::Opened as u8])?;
    let buffer = card.create(SIZE)?;
    board.write_at(0, &[Step::Created as u8])?;
    let mapping = buffer.map()?;
    board.write_at(0, &[Step::Mapped as u8])?;
    mapping.fill(1)?;
    board.write_at(0, &[Step::Touched as u8])?;
    loop {
        let _ = syscall::sched_yield();
    }
}
