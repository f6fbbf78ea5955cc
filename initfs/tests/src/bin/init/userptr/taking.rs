//! Promises about ordinary memory that is taken over.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use initfs_tests::user::{ADD, LOCATE, READ, TAKE_AND_ABANDON, UNMAPPED};
use syscall::PAGE_SIZE;
use syscall::error::EFAULT;

use super::{Daemon, Memory, clone_space, own_space, transfer};
use crate::{Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "pages_taken_over_and_mapped_again_are_the_same_frames",
        keep: same_frames,
    },
    Promise {
        name: "pages_never_written_to_get_a_frame_of_their_own_before_anybody_writes",
        keep: untouched,
    },
    Promise {
        name: "a_copy_on_write_sibling_sees_no_write_to_pages_taken_over",
        keep: sibling,
    },
    Promise {
        name: "six_thousand_aliased_pages_are_taken_over_while_threads_write",
        keep: aliased,
    },
    Promise {
        name: "shared_memory_is_taken_over_where_all_of_it_is_there",
        keep: shared,
    },
    Promise {
        name: "pages_that_nobody_asks_for_go_back",
        keep: abandoned,
    },
];

fn same_frames() -> Outcome {
    let daemon = Daemon::start()?;
    for pages in [1, 2, 256, 257, 1000] {
        let memory = Memory::new(pages)?;
        memory.fill(1);
        let frames: Vec<u64> = (0..pages)
            .map(|page| memory.frame(page))
            .collect::<Result<_, _>>()?;
        let set = daemon.take(memory.address, pages)?;
        daemon.map(set, memory.address, pages)?;
        memory.expect_filled(1)?;
        let mut some = Vec::from([0, pages / 2, pages - 1]);
        some.dedup();
        for page in some {
            expect("a page's frame", memory.frame(page)?, frames[page])?;
            let located = daemon.ask("locate a page", &[LOCATE, set, page as u64])?;
            expect("where the daemon finds it", located, frames[page])?;
            let offset = page * PAGE_SIZE + 5;
            let read = daemon.ask("read a byte", &[READ, set, offset as u64])?;
            expect("what the daemon reads", read, u64::from(1 + page as u8))?;
            daemon.ask("write a byte", &[ADD, set, offset as u64])?;
            expect(
                "what it wrote",
                memory.byte(offset).load(SeqCst),
                2 + page as u8,
            )?;
        }
        let before = daemon.ask("ask", &[UNMAPPED])?;
        daemon.release(set)?;
        let frame = frames[0];
        expect("the frame, released", memory.frame(0)?, frame)?;
        memory.byte(0).store(9, SeqCst);
        drop(memory);
        let unmapped = daemon.ask("ask", &[UNMAPPED])? - before;
        expect("pages the daemon was told of", unmapped, pages as u64)?;
    }
    Ok(())
}

fn untouched() -> Outcome {
    let daemon = Daemon::start()?;
    // The kernel's zero page.
    let fresh = Memory::new(1)?;
    let zero = fresh.frame(0)?;
    for located_first in [true, false] {
        let pages = 40;
        let memory = Memory::new(pages)?;
        expect("a fresh page's frame", memory.frame(0)?, zero)?;
        let set = daemon.take(memory.address, pages)?;
        if located_first {
            daemon.ask("locate a page", &[LOCATE, set, 0])?;
        }
        daemon.map(set, memory.address, pages)?;
        for page in 0..pages {
            let located = daemon.ask("locate a page", &[LOCATE, set, page as u64])?;
            expect("whether it is the zero page", located == zero, false)?;
            expect("the client's frame", memory.frame(page)?, located)?;
            daemon.ask("write", &[ADD, set, (page * PAGE_SIZE) as u64])?;
            expect(
                "what was written",
                memory.byte(page * PAGE_SIZE).load(SeqCst),
                1,
            )?;
        }
        expect("the zero page", fresh.byte(0).load(SeqCst), 0)?;
        daemon.release(set)?;
    }
    let other = Memory::new(1)?;
    expect("a fresh page", other.byte(0).load(SeqCst), 0)
}

fn sibling() -> Outcome {
    let daemon = Daemon::start()?;
    for (located_first, alias) in [(true, false), (false, false), (false, true)] {
        let memory = Memory::new(3)?;
        memory.fill(1);
        let sibling = clone_space()?;
        let source = if alias { Some(memory.alias()?) } else { None };
        let address = source
            .as_ref()
            .map_or(memory.address, |alias| alias.address);
        let set = daemon.take(address, 3)?;
        if located_first {
            daemon.ask("locate a page", &[LOCATE, set, 0])?;
            daemon.ask("write", &[ADD, set, 5])?;
        }
        daemon.map(set, memory.address, 3)?;
        if let Some(source) = source {
            source.forget();
        }
        for page in 0..3 {
            daemon.ask("write", &[ADD, set, page * PAGE_SIZE as u64 + 5])?;
            daemon.ask("locate a page", &[LOCATE, set, page])?;
            daemon.ask("write", &[ADD, set, page * PAGE_SIZE as u64 + 5])?;
        }
        memory.byte(6).store(77, SeqCst);
        let here = transfer(&own_space()?, &sibling, memory.address, 0, 3)?;
        let theirs = Memory {
            address: here,
            pages: 3,
        };
        theirs.expect_filled(1)?;
        expect("a byte written later", theirs.byte(6).load(SeqCst), 0)?;
        let more = u8::from(located_first);
        expect("the client's own", memory.byte(5).load(SeqCst), 3 + more)?;
        daemon.release(set)?;
    }
    Ok(())
}

fn aliased() -> Outcome {
    const PAGES: usize = 6000;
    let daemon = Daemon::start()?;
    let memory = Arc::new(Memory::new(PAGES)?);
    memory.fill(3);
    let stop = Arc::new(AtomicBool::new(false));
    let (shared, ends) = (memory.clone(), stop.clone());
    let writer = rt::thread::spawn(move || {
        let mut round = 0_u32;
        while !ends.load(SeqCst) {
            // A counter in each of some pages: none may lose an addition.
            for page in (0..PAGES).step_by(997) {
                shared.byte(page * PAGE_SIZE + 9).fetch_add(1, SeqCst);
            }
            round += 1;
            shared.byte(17).store(round as u8, SeqCst);
        }
    });
    let writer = writer.map_err(in_call("start a thread"))?;
    let alias = memory.alias()?;
    let set = daemon.take(alias.address, PAGES)?;
    alias.forget();
    daemon.map(set, memory.address, PAGES)?;
    daemon.ask("locate a page", &[LOCATE, set, 5999])?;
    stop.store(true, SeqCst);
    writer.join();
    let rounds = memory.byte(17).load(SeqCst);
    for page in (0..PAGES).step_by(997) {
        let count = memory.byte(page * PAGE_SIZE + 9).load(SeqCst);
        expect("additions in a page", count, rounds)?;
    }
    memory.expect_filled(3)?;
    daemon.release(set)
}

fn shared() -> Outcome {
    let daemon = Daemon::start()?;
    let memory = Memory::shared(300)?;
    daemon.refuses(
        "untouched shared memory",
        own_space()?,
        memory.address,
        EFAULT,
    )?;
    expect("an untouched byte", memory.byte(0).load(SeqCst), 0)?;
    memory.fill(5);
    let set = daemon.take(memory.address, 300)?;
    daemon.map(set, memory.address, 300)?;
    memory.expect_filled(5)?;
    let located = daemon.ask("locate a page", &[LOCATE, set, 299])?;
    expect("a page's frame", memory.frame(299)?, located)?;
    daemon.release(set)?;
    daemon.is_well()
}

fn abandoned() -> Outcome {
    let daemon = Daemon::start()?;
    for pages in [1, 600] {
        let memory = Memory::new(pages)?;
        memory.fill(1);
        for _ in 0..20 {
            daemon.send(own_space()?)?;
            let words = [TAKE_AND_ABANDON, memory.address as u64, pages as u64];
            daemon.ask("take and abandon", &words)?;
            memory.expect_filled(1)?;
        }
    }
    daemon.is_well()
}
