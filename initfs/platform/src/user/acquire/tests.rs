use std::collections::BTreeMap;

use super::*;

/// Every address space and every page, and a step at which something goes wrong.
#[derive(Default)]
struct Fake {
    /// The client's pages.
    client: BTreeMap<u64, Page>,
    /// The daemon's.
    daemon: BTreeMap<u64, Page>,
    slot: Vec<Page>,
    room: u64,
    steps: usize,
    fails_at: Option<usize>,
    checked: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Page {
    content: u64,
    sharing: Sharing,
    is_ordinary: bool,
    is_backed: bool,
}

const SPACE: usize = 7;
const SOURCE: u64 = 100;

impl Fake {
    fn new(pages: u64, sharing: Sharing) -> Self {
        let page = |content| Page {
            content,
            sharing,
            is_ordinary: true,
            is_backed: sharing == Sharing::Shared,
        };
        let client = (0..pages).map(|page_| (SOURCE + page_, page(page_)));
        Self {
            client: client.collect(),
            room: 1 << 20,
            ..Self::default()
        }
    }

    /// Whether this step goes wrong.
    fn step(&mut self) -> Result<(), UserFault> {
        self.steps += 1;
        match self.fails_at {
            Some(step) if step == self.steps => Err(UserFault::NoMemory),
            _ => Ok(()),
        }
    }

    /// What the client had at first: contents in order.
    fn expect_whole(&self, pages: u64) {
        let contents: Vec<_> = self
            .client
            .iter()
            .map(|(at, page)| (*at, page.content))
            .collect();
        let first: Vec<_> = (0..pages).map(|page| (SOURCE + page, page)).collect();
        assert_eq!(contents, first);
        assert!(self.daemon.is_empty(), "nothing is left with the daemon");
        assert!(self.slot.is_empty(), "or under way");
    }
}

impl Mover for Fake {
    type Slot = usize;

    fn check(&mut self, space: usize) -> Result<(), UserFault> {
        assert_eq!(space, SPACE);
        self.checked = true;
        self.step()
    }

    fn room(&mut self) -> u64 {
        self.room
    }

    fn take(&mut self, space: usize, source: u64, pages: u64) -> (usize, Result<(), UserFault>) {
        assert!(self.checked && space == SPACE && pages <= STEP);
        assert!(self.slot.is_empty(), "one at a time");
        let taken = self.step();
        let whole = if taken.is_ok() { pages } else { pages / 2 };
        for page in source..source + whole {
            self.slot.push(self.client.remove(&page).expect("a page"));
        }
        (self.slot.len(), taken)
    }

    fn judge(&mut self, slot: usize) -> Result<Sharing, UserFault> {
        self.step()?;
        assert_eq!(slot, self.slot.len());
        match self.slot.iter().all(|page| page.is_ordinary) {
            true => Ok(self.slot[0].sharing),
            false => Err(UserFault::Foreign),
        }
    }

    fn place(&mut self, _: usize, window: u64) -> Result<(), UserFault> {
        self.step()?;
        for (at, page) in (window..).zip(self.slot.drain(..)) {
            assert!(self.daemon.insert(at, page).is_none());
        }
        Ok(())
    }

    fn is_backed(&mut self, span: Span) -> bool {
        let mut pages = self.daemon.range(span.first..span.first + span.pages);
        pages.all(|(_, page)| page.is_backed)
    }

    fn back(&mut self, span: Span) {
        for (_, page) in self.daemon.range_mut(span.first..span.first + span.pages) {
            assert_eq!(
                page.sharing,
                Sharing::Private,
                "shared pages are not faulted on"
            );
            page.is_backed = true;
        }
    }

    fn fetch(&mut self, span: Span) -> Option<usize> {
        assert!(self.slot.is_empty() && span.pages <= STEP);
        for page in span.first..span.first + span.pages {
            self.slot.push(self.daemon.remove(&page).expect("a page"));
        }
        Some(self.slot.len())
    }

    fn give_back(&mut self, _: usize, space: usize, source: u64) {
        assert_eq!(space, SPACE);
        for (at, page) in (source..).zip(self.slot.drain(..)) {
            assert!(self.client.insert(at, page).is_none());
        }
    }
}

const WINDOW: u64 = 5000;

fn acquisition(pages: u64) -> Acquisition {
    let first = WINDOW;
    Acquisition::new(SPACE, SOURCE, Span { first, pages })
}

fn run(fake: &mut Fake, pages: u64) -> Result<Taken, UserFault> {
    let mut acquisition = acquisition(pages);
    for _ in 0..1000 {
        if let Some(outcome) = acquisition.turn(fake) {
            return outcome;
        }
    }
    panic!("it never ends");
}

const SIZES: [u64; 6] = [1, 2, STEP, STEP + 1, 3 * STEP, 4 * STEP - 1];

#[test]
fn all_pages_arrive_in_order_each_with_a_frame_of_its_own() {
    for sharing in [Sharing::Private, Sharing::Shared] {
        for pages in SIZES {
            let mut fake = Fake::new(pages, sharing);
            let taken = run(&mut fake, pages).unwrap();
            let window = Span {
                first: WINDOW,
                pages,
            };
            assert_eq!((taken.window, taken.sharing), (window, sharing));
            assert!(fake.client.is_empty() && fake.slot.is_empty());
            for (content, (at, page)) in (0..).zip(&fake.daemon) {
                assert_eq!((*at, page.content), (WINDOW + content, content));
                assert!(page.is_backed);
            }
            assert_eq!(fake.daemon.len() as u64, pages);
        }
    }
}

#[test]
fn whatever_goes_wrong_at_whichever_step_everything_is_back() {
    for pages in SIZES {
        for step in 1.. {
            let mut fake = Fake::new(pages, Sharing::Private);
            fake.fails_at = Some(step);
            let outcome = run(&mut fake, pages);
            if fake.steps < step {
                assert!(outcome.is_ok(), "there is no such step");
                break;
            }
            assert_eq!(outcome, Err(UserFault::NoMemory));
            fake.expect_whole(pages);
        }
    }
}

#[test]
fn pages_that_are_not_ordinary_stop_it_wherever_they_are() {
    for pages in SIZES {
        for bad in [0, pages / 2, pages - 1] {
            let mut fake = Fake::new(pages, Sharing::Private);
            fake.client.get_mut(&(SOURCE + bad)).unwrap().is_ordinary = false;
            assert_eq!(run(&mut fake, pages), Err(UserFault::Foreign));
            fake.expect_whole(pages);
            let mut fake = Fake::new(pages, Sharing::Shared);
            fake.client.get_mut(&(SOURCE + bad)).unwrap().is_backed = false;
            assert_eq!(run(&mut fake, pages), Err(UserFault::Foreign));
            fake.expect_whole(pages);
        }
    }
}

#[test]
fn a_range_of_two_kinds_is_refused() {
    let pages = 2 * STEP;
    let mut fake = Fake::new(pages, Sharing::Private);
    for page in SOURCE + STEP..SOURCE + pages {
        fake.client.get_mut(&page).unwrap().sharing = Sharing::Shared;
    }
    assert_eq!(run(&mut fake, pages), Err(UserFault::Foreign));
    fake.expect_whole(pages);
}

#[test]
fn where_memory_is_short_nothing_is_taken() {
    let mut fake = Fake::new(2 * STEP, Sharing::Private);
    fake.room = STEP - 1;
    assert_eq!(run(&mut fake, 2 * STEP), Err(UserFault::NoMemory));
    fake.expect_whole(2 * STEP);
}

#[test]
fn it_can_be_stopped_between_any_two_turns() {
    for pages in SIZES {
        for turns in 0..20 {
            let mut fake = Fake::new(pages, Sharing::Private);
            let mut acquisition = acquisition(pages);
            for _ in 0..turns {
                let _ = acquisition.turn(&mut fake);
            }
            acquisition.fail(UserFault::Busy);
            // A second reason does not change the first.
            acquisition.fail(UserFault::Failed);
            let outcome = (0..100).find_map(|_| acquisition.turn(&mut fake));
            assert_eq!(outcome, Some(Err(UserFault::Busy)));
            fake.expect_whole(pages);
        }
    }
}

#[test]
fn what_signal_handlers_have_is_not_asked_for() {
    let mut fake = Fake::new(0, Sharing::Private);
    let (first, pages) = (WINDOW, 1);
    let mut acquisition = Acquisition::new(SPACE, 1, Span { first, pages });
    let outcome = (0..9).find_map(|_| acquisition.turn(&mut fake));
    assert_eq!(outcome, Some(Err(UserFault::Foreign)));
}

#[test]
fn steps_go_from_the_end_and_leave_little_of_a_table_to_the_last() {
    let steps = |first, mut left| {
        let mut steps = Vec::new();
        while left > 0 {
            let pages = last_step(first, left);
            assert!(pages > 0 && pages <= STEP.min(left));
            left -= pages;
            steps.push(pages);
        }
        steps
    };
    assert_eq!(steps(0, 1), [1]);
    assert_eq!(steps(500, 128), [116, 12]);
    assert_eq!(steps(512, 128), [128]);
    assert_eq!(steps(512, 256), [192, 64]);
    assert_eq!(steps(0, 1024), [256, 192, 64, 256, 192, 64]);
    assert_eq!(steps(1000, 30), [6, 24]);
    for first in 0..1024 {
        for pages in 1..1200 {
            steps(first, pages);
        }
    }
}
