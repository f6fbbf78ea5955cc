//! The page source with real memory files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gem::pages::Caching;

use super::*;

fn request(pages: u64) -> PageRequest {
    PageRequest {
        owner: Uid(1000),
        pages: PageCount::new(pages).unwrap(),
        caching: Caching::WriteBack,
        contiguous: false,
        room: PageCount::MAX,
    }
}

/// Repeats `operation` until it no longer waits.
fn finish<T>(
    pages: &mut MemfdPages,
    mut operation: impl FnMut(&mut MemfdPages) -> Result<T, NotReady>,
) -> T {
    loop {
        match operation(pages) {
            Ok(value) => return value,
            Err(NotReady::Wait(ticket)) => {
                let mut tickets = Vec::new();
                while !tickets.contains(&ticket) {
                    pages.finished(&mut tickets);
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

#[test]
fn an_object_that_nobody_touched_has_no_file_and_reads_as_zero() {
    let mut pages = MemfdPages::new().unwrap();
    let set = pages.allocate(request(4)).unwrap();
    let mut bytes = [7; 100];
    pages.read(&set, 5000, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
    assert!(matches!(pages.sets[&set.key()].state, SetState::Untouched));
    pages.free(Uid(1000), set);
    assert_eq!(pages.live_sets(), 0);
}

#[test]
fn what_is_written_is_read_and_found_through_the_window() {
    let mut pages = MemfdPages::new().unwrap();
    let set = pages.allocate(request(2)).unwrap();
    finish(&mut pages, |pages| {
        pages.write(&set, 4090, b"across the pages")
    });
    let mut bytes = [0; 16];
    finish(&mut pages, |pages| pages.read(&set, 4090, &mut bytes));
    assert_eq!(&bytes, b"across the pages");
    let window = finish(&mut pages, |pages| pages.window(&set)).get() as u64;
    let (_, offset) = memfd::resolve(window + 4096, 4096).unwrap();
    assert_eq!(offset, 4096);
    assert!(memfd::resolve(window + 4096, 4097).is_none());
    pages.free(Uid(1000), set);
    assert!(memfd::resolve(window, 1).is_none());
}

#[test]
fn a_set_freed_while_its_file_is_made_leaves_nothing() {
    let mut pages = MemfdPages::new().unwrap();
    let set = pages.allocate(request(1)).unwrap();
    let Err(NotReady::Wait(ticket)) = pages.window(&set) else {
        panic!("the first use must wait");
    };
    pages.free(Uid(1000), set);
    let mut tickets = Vec::new();
    while tickets.is_empty() {
        pages.finished(&mut tickets);
    }
    assert_eq!(tickets, [ticket]);
    assert_eq!(pages.live_sets(), 0);
}

#[test]
fn the_hook_is_called_after_the_work() {
    let mut pages = MemfdPages::new().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    pages.set_notify(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let set = pages.allocate(request(1)).unwrap();
    let Err(NotReady::Wait(ticket)) = pages.window(&set) else {
        panic!("the first use must wait");
    };
    // It is also called to look at the memory that is left: only calls lead on.
    let (mut tickets, mut seen) = (Vec::new(), 0);
    while tickets.is_empty() {
        while calls.load(Ordering::SeqCst) == seen {
            thread::yield_now();
        }
        seen = calls.load(Ordering::SeqCst);
        pages.finished(&mut tickets);
    }
    assert_eq!(tickets, [ticket]);
}

#[test]
fn while_there_are_sets_it_is_known_what_the_machine_has_left() {
    let mut pages = MemfdPages::new().unwrap();
    let (told, heard) = channel();
    pages.set_notify(Box::new(move || told.send(()).unwrap_or_default()));
    assert_eq!(pages.left(), None);
    let set = pages.allocate(request(1)).unwrap();
    while pages.left().is_none() {
        heard.recv().unwrap();
        pages.finished(&mut Vec::new());
    }
    assert!(pages.left() < Some(pages.capacity()));
    pages.free(Uid(1000), set);
    assert_eq!(pages.left(), None);
}

#[test]
fn a_full_file_table_is_refused_and_said() {
    let mut pages = MemfdPages::new().unwrap();
    pages.memfds_max = 0;
    let set = pages.allocate(request(1)).unwrap();
    let full = NotReady::Refused(PlatformError::FileTableFull);
    assert_eq!(pages.window(&set), Err(full));
    pages.free(Uid(1000), set);
}

#[test]
fn no_user_has_more_files_than_are_left_for_others() {
    let mut pages = MemfdPages::new().unwrap();
    let mut sets = Vec::new();
    // Other tests of this process have files open, and windows, at the same time.
    pages.next_page = 1 << 20;
    pages.memfds_max = memfd::open_count() + 300;
    let full = NotReady::Refused(PlatformError::FileTableFull);
    let refused = loop {
        let set = pages.allocate(request(1)).unwrap();
        match pages.window(&set) {
            Err(NotReady::Wait(_)) => finish(&mut pages, |pages| pages.window(&set)),
            result => break (set, result),
        };
        sets.push(set);
    };
    assert_eq!(refused.1, Err(full));
    assert!((50..250).contains(&sets.len()), "{}", sets.len());
    let mut other = request(1);
    other.owner = Uid(2000);
    let theirs = pages.allocate(other).unwrap();
    finish(&mut pages, |pages| pages.window(&theirs));
    for set in sets.drain(..) {
        pages.free(Uid(1000), set);
    }
    finish(&mut pages, |pages| pages.window(&refused.0));
    pages.free(Uid(1000), refused.0);
    pages.free(Uid(2000), theirs);
    assert!(pages.files.is_empty());
}

#[test]
fn addresses_are_never_used_twice() {
    let mut pages = MemfdPages::new().unwrap();
    let first = pages.allocate(request(3)).unwrap();
    let end = first.extents()[0].start.get() + 3 * 4096;
    pages.free(Uid(1000), first);
    let second = pages.allocate(request(1)).unwrap();
    assert_eq!(second.extents()[0].start.get(), end);
}

#[test]
fn more_than_the_machine_has_is_out_of_memory() {
    let mut pages = MemfdPages::new().unwrap();
    let more = pages.capacity().get() + 1;
    assert_eq!(pages.allocate(request(more)), Err(NotReady::OutOfMemory));
    assert_eq!(pages.live_sets(), 0);
}
