//! The books without pages: everything that a page source decides, with made-up addresses.

use super::*;

const IDLE: Duration = Duration::from_secs(5);
const ROOT: Uid = Uid(0);
const USER: Uid = Uid(1000);

/// Books with a worker that does what it is told when the test says so.
struct Rig {
    books: Books,
    jobs: Vec<Job>,
    next_page: u64,
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
            unmapped: Vec::new(),
            now: Duration::ZERO,
            alarm: None,
            run: u64::MAX,
            full: false,
        }
    }

    fn ask(&mut self, owner: Uid, pages: u64) -> Result<PageSet, NotReady> {
        self.books.allocate(&PageRequest {
            owner,
            pages: PageCount::new(pages).unwrap(),
            caching: Caching::WriteBack,
            contiguous: false,
        })
    }

    /// Asks until it is there, working meanwhile.
    fn get(&mut self, owner: Uid, pages: u64) -> PageSet {
        loop {
            match self.ask(owner, pages) {
                Ok(set) => return set,
                Err(NotReady::Wait(ticket)) => assert!(self.work().contains(&ticket)),
                Err(other) => panic!("{other:?}"),
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
                Job::Clear { span, ticket, .. } => Done::Cleared { span, ticket },
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
    let mine = rig.get(ROOT, 1);
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
fn an_arena_goes_back_when_it_has_been_empty_for_a_while() {
    let mut rig = Rig::new();
    let set = rig.get(USER, 7);
    rig.work();
    rig.books.free(&set);
    rig.work();
    rig.pass(IDLE - Duration::from_millis(1));
    assert_eq!(rig.books.mapped(), ARENA_PAGES);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.books.mapped(), 0);
    let first = span_of(&set).first;
    let pages = ARENA_PAGES;
    assert_eq!(rig.unmapped, [Span { first, pages }]);
}

#[test]
fn an_arena_in_use_does_not_go_back() {
    let mut rig = Rig::new();
    let set = rig.get(USER, 7);
    rig.work();
    rig.books.free(&set);
    rig.work();
    rig.pass(IDLE / 2);
    let again = rig.get(USER, 1);
    rig.pass(IDLE);
    assert_eq!(rig.books.mapped(), ARENA_PAGES);
    rig.books.free(&again);
    rig.work();
    rig.pass(IDLE);
    assert_eq!(rig.books.mapped(), 0);
}

#[test]
fn a_growth_that_nobody_waits_for_any_more_goes_back_too() {
    let mut rig = Rig::new();
    rig.ask(USER, 7).unwrap_err();
    rig.work();
    rig.pass(IDLE);
    assert_eq!(rig.books.mapped(), 0);
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
fn where_memory_is_short_what_nobody_uses_goes_back_at_once() {
    let mut rig = Rig::new();
    let [used, unused] = [ROOT, USER].map(|user| rig.get(user, 7));
    rig.work();
    rig.books.free(&unused);
    assert_eq!(rig.books.give_back(), 0, "it is not clean yet");
    rig.work();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.books.give_back(), ARENA_PAGES);
    assert_eq!(rig.books.give_back(), 0);
    rig.work();
    let first = span_of(&unused).first;
    let pages = ARENA_PAGES;
    assert_eq!(rig.unmapped, [Span { first, pages }]);
    assert_eq!(rig.books.mapped(), ARENA_PAGES);
    rig.books.free(&used);
}

#[test]
fn a_new_arena_waits_for_who_asked_for_it() {
    let mut rig = Rig::new();
    rig.ask(USER, 7).unwrap_err();
    rig.work();
    assert_eq!(rig.books.give_back(), 0);
    let set = rig.ask(USER, 7).unwrap();
    rig.books.free(&set);
    rig.work();
    rig.pass(idle::PERIOD);
    assert_eq!(rig.books.give_back(), ARENA_PAGES, "not for ever");
}

#[test]
fn what_is_left_counts_what_is_on_its_way_back() {
    let mut rig = Rig::new();
    let look = |rig: &mut Rig, left| rig.books.finish(Done::Left(left), rig.now);
    look(&mut rig, 3000);
    assert_eq!(rig.books.left(), None, "none of it is here");
    let set = rig.get(USER, 7);
    rig.work();
    look(&mut rig, 2000);
    assert_eq!(rig.books.left(), Some(2000));
    rig.books.free(&set);
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES));
    rig.work();
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES));
    let again = rig.get(USER, 1);
    assert_eq!(rig.books.left(), Some(2000));
    let _other = rig.get(ROOT, 1);
    rig.books.free(&again);
    rig.work();
    rig.pass(IDLE);
    rig.books.give_back();
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES), "it has gone");
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
fn while_there_is_an_arena_the_machine_is_looked_at() {
    let mut rig = Rig::new();
    rig.work();
    assert_eq!(rig.alarm, None);
    let set = rig.get(USER, 7);
    rig.work();
    for _ in 0..20 {
        assert_eq!(rig.alarm, Some(rig.now + idle::PERIOD));
        rig.pass(idle::PERIOD);
    }
    rig.books.free(&set);
    rig.work();
    rig.pass(IDLE);
    assert_eq!(rig.alarm, None);
    assert_eq!(rig.books.mapped(), 0);
}
