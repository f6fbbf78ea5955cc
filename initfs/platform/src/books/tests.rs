//! The books without pages: everything that a page source decides, with made-up addresses.

mod hoarder;
mod unused;

use super::*;

const IDLE: Duration = Duration::from_secs(5);
const ROOT: Uid = Uid(0);
const USER: Uid = Uid(1000);
/// Pages that the worker clears.
const LARGE: u64 = CLEARED_AT_ONCE + 1;

fn request(owner: Uid, pages: u64) -> PageRequest {
    PageRequest {
        owner,
        pages: PageCount::new(pages).unwrap(),
        caching: Caching::WriteBack,
        contiguous: false,
        room: PageCount::MAX,
    }
}

/// Books with a worker that does what it is told when the test says so.
struct Rig {
    books: Books,
    jobs: Vec<Job>,
    next_page: u64,
    cleared: Vec<Span>,
    unmapped: Vec<Span>,
    now: Duration,
    alarm: Option<Duration>,
    /// Grown arenas have runs of so many pages.
    run: u64,
    /// Whether the machine has no memory.
    full: bool,
}

impl Rig {
    fn new() -> Self {
        Self {
            books: Books::new(IDLE),
            jobs: Vec::new(),
            next_page: 0x1000,
            cleared: Vec::new(),
            unmapped: Vec::new(),
            now: Duration::ZERO,
            alarm: None,
            run: u64::MAX,
            full: false,
        }
    }

    fn find(&mut self, owner: Uid, pages: u64, caching: Caching) -> Result<Found, NotReady> {
        self.books.allocate(&PageRequest {
            caching,
            ..request(owner, pages)
        })
    }

    /// Asks for pages, which are cleared if need be, and written to.
    fn ask(&mut self, owner: Uid, pages: u64) -> Result<PageSet, NotReady> {
        self.ask_as(&request(owner, pages))
    }

    fn ask_as(&mut self, request: &PageRequest) -> Result<PageSet, NotReady> {
        let (Found::Clean(set) | Found::Dirty(set)) = self.books.allocate(request)?;
        set.expose();
        Ok(set)
    }

    /// Asks until it is there, working meanwhile.
    fn get(&mut self, owner: Uid, pages: u64) -> PageSet {
        self.get_as(&request(owner, pages)).unwrap()
    }

    fn get_as(&mut self, request: &PageRequest) -> Result<PageSet, NotReady> {
        loop {
            match self.ask_as(request) {
                Err(NotReady::Wait(ticket)) => assert!(self.work().contains(&ticket)),
                result => return result,
            }
        }
    }

    fn pending(&mut self) -> &[Job] {
        self.jobs.extend(self.books.take_jobs());
        &self.jobs
    }

    /// Does all jobs and what comes of them; the finished tickets.
    fn work(&mut self) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while !self.pending().is_empty() {
            self.round(&mut tickets);
        }
        tickets
    }

    fn round(&mut self, tickets: &mut Vec<Ticket>) {
        self.books.begin_round();
        for job in core::mem::take(&mut self.jobs) {
            let done = match job {
                Job::Grow {
                    class,
                    pages,
                    least,
                    ticket,
                } => Done::Grown {
                    class,
                    least,
                    ticket,
                    arena: if self.full {
                        Err(ENOMEM)
                    } else {
                        Ok(self.map(pages))
                    },
                },
                Job::Clear { span, ticket, .. } => {
                    self.cleared.push(span);
                    Done::Cleared { span, ticket }
                }
                Job::Unmap(span) => {
                    self.unmapped.push(span);
                    continue;
                }
                Job::WakeAt(at) => {
                    self.alarm = Some(at);
                    continue;
                }
            };
            tickets.extend(self.books.finish(done, self.now));
        }
    }

    fn map(&mut self, pages: u64) -> NewArena {
        let first = self.next_page;
        self.next_page += pages;
        let mut extents = Vec::new();
        let mut left = pages;
        while left > 0 {
            let run = left.min(self.run);
            // Runs do not touch: twice the distance.
            let start = PhysAddr::new(2 * (first + pages - left) * PAGE_SIZE);
            extents.push(Extent {
                start,
                pages: PageCount::new(run).unwrap(),
            });
            left -= run;
        }
        NewArena {
            span: Span { first, pages },
            extents,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.alarm.is_some_and(|at| at <= self.now) {
            self.alarm = None;
            assert_eq!(self.books.finish(Done::Awake, self.now), None);
            self.work();
        }
    }
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_second_small_object_needs_no_work() {
    let mut rig = Rig::new();
    let first = rig.get(USER, 1);
    rig.work();
    let second = rig.ask(USER, 3).unwrap();
    assert!(rig.pending().is_empty());
    assert_eq!(second.key(), first.key() + PAGE_SIZE);
}

#[test]
fn one_growth_serves_all_who_wait() {
    let mut rig = Rig::new();
    let first = rig.ask(USER, 1).unwrap_err();
    assert_eq!(rig.ask(USER, 2).unwrap_err(), first);
    assert_eq!(rig.pending().len(), 1);
    rig.work();
    assert!(rig.ask(USER, 1).is_ok() && rig.ask(USER, 2).is_ok());
}

#[test]
fn users_share_no_arena() {
    let mut rig = Rig::new();
    let mine = rig.get(ROOT, LARGE);
    let yours = rig.get(USER, 1);
    let span = span_of(&mine);
    rig.books.free(&mine);
    rig.work();
    let again = rig.get(USER, ARENA_PAGES - 1);
    assert_ne!(span_of(&again).first, span.first);
    assert_eq!(again.key(), yours.key() + PAGE_SIZE);
}

#[test]
fn freed_pages_are_cleared_before_they_are_free() {
    let mut rig = Rig::new();
    let all = rig.get(USER, ARENA_PAGES);
    rig.work();
    rig.books.free(&all);
    let waits = rig.ask(USER, ARENA_PAGES).unwrap_err();
    assert!(matches!(rig.pending(), [Job::Clear { span, ticket, .. }]
        if *span == span_of(&all) && waits == NotReady::Wait(*ticket)));
    rig.work();
    assert_eq!(rig.ask(USER, ARENA_PAGES).unwrap().key(), all.key());
}

#[test]
fn pages_that_nobody_could_write_to_are_free_at_once() {
    let mut rig = Rig::new();
    let _first = rig.get(USER, 1);
    rig.work();
    for pages in [1, LARGE] {
        let Ok(Found::Clean(set)) = rig.find(USER, pages, Caching::WriteBack) else {
            panic!("an arena is clean");
        };
        rig.books.free(&set);
    }
    let all = rig.find(USER, ARENA_PAGES - 1, Caching::WriteBack);
    assert!(matches!(all, Ok(Found::Clean(_))));
    assert!(rig.pending().is_empty());
}

#[test]
fn a_few_pages_are_cleared_by_who_asks_for_them_next() {
    let mut rig = Rig::new();
    let set = rig.get(USER, CLEARED_AT_ONCE);
    rig.work();
    let first = span_of(&set).first;
    rig.books.free(&set);
    let found = rig.find(USER, CLEARED_AT_ONCE, Caching::WriteBack);
    assert!(matches!(found, Ok(Found::Dirty(set)) if span_of(&set).first == first));
    assert!(rig.pending().is_empty());
}

#[test]
fn uncached_pages_are_always_cleared_by_the_worker() {
    let mut rig = Rig::new();
    rig.find(USER, 1, Caching::Uncached).unwrap_err();
    rig.work();
    let Ok(Found::Clean(set)) = rig.find(USER, 1, Caching::Uncached) else {
        panic!("an arena is clean");
    };
    set.expose();
    rig.books.free(&set);
    assert!(matches!(rig.pending(), [Job::Clear { .. }]));
}

#[test]
fn who_wants_more_than_there_is_in_one_piece_has_the_pieces_joined() {
    let mut rig = Rig::new();
    let pieces: Vec<_> = (0..ARENA_PAGES / 8).map(|_| rig.get(USER, 8)).collect();
    rig.work();
    // Every other piece goes without having been written to: none of them touch.
    for (number, piece) in pieces.iter().enumerate() {
        let extents = Extents::One(piece.extents()[0]);
        let same = PageSet::new(piece.key(), extents).unwrap();
        if number % 2 == 0 {
            same.expose();
        }
        rig.books.free(&same);
    }
    assert!(matches!(rig.ask(USER, 16), Err(NotReady::Wait(_))));
    rig.work();
    let all = rig.find(USER, ARENA_PAGES, Caching::WriteBack);
    assert!(matches!(all, Ok(Found::Clean(_))));
    assert!(matches!(
        rig.find(USER, ARENA_PAGES, Caching::WriteBack),
        Ok(Found::Clean(_))
    ));
    assert!(rig.pending().is_empty());
}

#[test]
fn an_arena_goes_back_clean_or_not() {
    let mut rig = Rig::new();
    let [first, second] = [1, 2].map(|pages| rig.get(USER, pages));
    rig.work();
    rig.books.free(&first);
    rig.pass(idle::PERIOD);
    rig.books.free(&second);
    rig.pass(idle::PERIOD);
    assert_eq!(rig.books.mapped(), ARENA_PAGES);
    // Since when it is idle was known only at the last report.
    for _ in 0..IDLE.as_millis() / idle::PERIOD.as_millis() {
        rig.pass(idle::PERIOD);
    }
    assert_eq!(rig.books.mapped(), 0);
    assert_eq!(rig.unmapped.len(), 1);
    rig.ask(USER, 1).unwrap_err();
}

/// Every page that is handed out as clean is, whatever was done with it before: it is fresh, or
/// nobody could write to it, or it was cleared since.
#[test]
fn nobody_gets_what_somebody_left() {
    let mut rig = Rig::new();
    let mut written = BTreeSet::new();
    let mut sets: Vec<PageSet> = Vec::new();
    let mut random = Random(1);
    let mut next = |below| random.below(below);
    let pages_of = |span: Span| span.first..span.end();
    for _ in 0..20_000 {
        for page in rig.cleared.drain(..).flat_map(pages_of) {
            written.remove(&page);
        }
        match next(8) {
            0 => drop(rig.work()),
            1 => rig.pass(Duration::from_millis(next(2000))),
            2..5 if !sets.is_empty() => {
                let set = sets.swap_remove(next(sets.len() as u64) as usize);
                rig.books.free(&set);
            }
            _ => {
                let size = [1, 3, 16, 17, 100, 300][next(6) as usize];
                let found = rig.find(USER, size, Caching::WriteBack);
                let (set, clean) = match found {
                    Ok(Found::Clean(set)) => (set, true),
                    Ok(Found::Dirty(set)) => (set, false),
                    Err(_) => continue,
                };
                let pages = pages_of(span_of(&set));
                let is_taken = |other: &PageSet| {
                    let other = pages_of(span_of(other));
                    pages.start < other.end && other.start < pages.end
                };
                assert!(!sets.iter().any(is_taken));
                for page in pages.clone() {
                    assert!(!clean || !written.contains(&page), "page {page}");
                    written.remove(&page);
                }
                if next(2) == 0 {
                    set.expose();
                    written.extend(pages);
                }
                sets.push(set);
            }
        }
    }
}

#[test]
fn a_set_knows_where_its_pages_lie() {
    let mut rig = Rig::new();
    rig.run = 10;
    let _first = rig.get(USER, 5);
    let set = rig.get(USER, 12);
    let first = span_of(&set).first;
    let lengths: Vec<_> = set.extents().iter().map(|run| run.pages.get()).collect();
    assert_eq!(lengths, [5, 7]);
    let base = first - 5;
    let at = |run: u64| 2 * (base + run * 10) * PAGE_SIZE;
    assert_eq!(set.extents()[0].start.get(), at(0) + 5 * PAGE_SIZE);
    assert_eq!(set.extents()[1].start.get(), at(1));
}

#[test]
fn a_failed_growth_is_told_once_and_then_tried_again() {
    let mut rig = Rig::new();
    rig.ask(USER, 7).unwrap_err();
    let job = rig.books.take_jobs().next().unwrap();
    let Job::Grow {
        class,
        least,
        ticket,
        ..
    } = job
    else {
        panic!("{job:?}");
    };
    let arena = Err(ENOMEM);
    let done = Done::Grown {
        class,
        least,
        ticket,
        arena,
    };
    assert_eq!(rig.books.finish(done, rig.now), Some(ticket));
    assert!(matches!(rig.ask(USER, 3), Err(NotReady::Wait(_))));
    rig.books.take_jobs().for_each(drop);
    assert_eq!(rig.ask(USER, 7), Err(NotReady::OutOfMemory));
    assert!(matches!(rig.ask(USER, 7), Err(NotReady::Wait(_))));
}

#[test]
fn a_set_from_elsewhere_is_left_alone() {
    let mut rig = Rig::new();
    let set = rig.get(USER, 2);
    rig.work();
    let start = PhysAddr::new(0);
    let pages = PageCount::new(4).unwrap();
    let extent = Extents::One(Extent { start, pages });
    rig.books.free(&PageSet::new(0x10, extent.clone()).unwrap());
    rig.books.free(&PageSet::new(set.key(), extent).unwrap());
    assert!(rig.pending().is_empty());
}

#[test]
fn who_finds_no_memory_waits_for_what_is_on_its_way() {
    let mut rig = Rig::new();
    let [mine, yours] = [ROOT, USER].map(|user| rig.get(user, ARENA_PAGES));
    let more = rig.get(USER, ARENA_PAGES);
    rig.work();
    rig.full = true;
    // All but what is being cleared is done; that is in the queue.
    let no_memory = |rig: &mut Rig| {
        assert!(matches!(rig.ask(USER, 600), Err(NotReady::Wait(_))));
        rig.jobs.extend(rig.books.take_jobs());
        let is_growth = |job: &mut Job| matches!(job, Job::Grow { .. });
        let growth: Vec<_> = rig.jobs.extract_if(.., is_growth).collect();
        let rest = core::mem::replace(&mut rig.jobs, growth);
        rig.round(&mut Vec::new());
        rig.jobs = rest;
        rig.ask(USER, 600)
    };
    rig.books.free(&mine);
    let Err(NotReady::Wait(clean)) = no_memory(&mut rig) else {
        panic!("somebody else's memory goes back when it is clean");
    };
    assert_eq!(rig.work(), [clean]);
    assert_eq!(no_memory(&mut rig), Err(NotReady::OutOfMemory));
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.books.give_back(), ARENA_PAGES);
    rig.work();
    // One's own is of use where it is.
    rig.books.free(&yours);
    let Err(NotReady::Wait(clean)) = no_memory(&mut rig) else {
        panic!("one's own memory can be used when it is clean");
    };
    assert_eq!(rig.work(), [clean]);
    assert_eq!(no_memory(&mut rig), Err(NotReady::OutOfMemory));
    rig.books.free(&more);
}

#[test]
fn a_small_piece_does_not_wait_for_a_large_one() {
    let mut rig = Rig::new();
    let large = rig.ask(USER, 50 * ARENA_PAGES).unwrap_err();
    let small = rig.ask(USER, 3).unwrap_err();
    assert_ne!(small, large);
    assert_eq!(rig.ask(USER, 5).unwrap_err(), small, "others like it do");
    assert_eq!(rig.ask(USER, 40 * ARENA_PAGES).unwrap_err(), large);
    assert_eq!(rig.pending().len(), 2);
    rig.work();
    assert!(rig.ask(USER, 3).is_ok() && rig.ask(USER, 50 * ARENA_PAGES).is_ok());
}

#[test]
fn one_piece_that_cannot_be_had_is_refused() {
    let mut rig = Rig::new();
    rig.full = true;
    // What is asked for is less than what has to be there for it.
    let wanted = PageRequest {
        contiguous: true,
        ..request(USER, 511)
    };
    for _ in 0..3 {
        let mut answer = rig.books.allocate(&wanted);
        if answer.is_err() {
            rig.work();
            answer = rig.books.allocate(&wanted);
        }
        assert_eq!(answer, Err(NotReady::OutOfMemory));
    }
}
