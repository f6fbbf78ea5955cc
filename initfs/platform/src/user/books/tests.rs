use gem::pages::Extent;
use gem::units::{PageCount, PhysAddr};
use gem::user::UserAddr;

use super::*;

const USER: Uid = Uid(1000);

fn range(pages: u64) -> UserRange {
    UserRange::new(UserAddr::new(0x10_0000), PageCount::new(pages).unwrap()).unwrap()
}

fn taken(first: u64, pages: u64) -> Taken {
    Taken {
        window: Span { first, pages },
        sharing: Sharing::Private,
    }
}

fn extents(pages: u64) -> Extents {
    Extents::One(Extent {
        start: PhysAddr::new(0x5000),
        pages: PageCount::new(pages).unwrap(),
    })
}

fn jobs(books: &mut Books) -> Vec<Job> {
    books.take_jobs().collect()
}

/// Begins to take something over; the ticket, and whether it is cancelled.
fn begin(books: &mut Books, pages: u64) -> (Ticket, Cancel) {
    let ticket = books.acquire(USER, 9, range(pages));
    match jobs(books).pop() {
        Some(Job::Acquire {
            owner: USER,
            space: 9,
            ticket: same,
            cancel,
            ..
        }) if same == ticket => (ticket, cancel),
        other => panic!("{other:?}"),
    }
}

/// A set whose pages are from page `first` on.
fn set(books: &mut Books, first: u64, pages: u64) -> UserSet {
    let (ticket, _) = begin(books, pages);
    let outcome = Ok(taken(first, pages));
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    books.acquired(ticket).unwrap().unwrap()
}

fn asked(books: &mut Books, set: &UserSet) -> (Ticket, Cancel) {
    let waits = books.locate(set);
    match jobs(books).pop() {
        Some(Job::Locate {
            ticket,
            cancel,
            owner: USER,
            ..
        }) => {
            assert_eq!(waits, Err(NotReady::Wait(ticket)));
            (ticket, cancel)
        }
        other => panic!("{other:?}"),
    }
}

fn releases(jobs: &[Job]) -> Vec<(u64, Option<Ticket>)> {
    let release = |job: &Job| match job {
        Job::Release { taken, ticket, .. } => Some((taken.window.first, *ticket)),
        _ => None,
    };
    jobs.iter().filter_map(release).collect()
}

#[test]
fn an_outcome_is_told_once() {
    let mut books = Books::default();
    let (ticket, _) = begin(&mut books, 3);
    assert_eq!(books.acquired(ticket), None);
    let outcome = Ok(taken(50, 3));
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    let set = books.acquired(ticket).unwrap().unwrap();
    assert_eq!((set.key(), set.pages().get()), (50, 3));
    assert_eq!(books.acquired(ticket), None);
    assert_eq!(
        books.window(&set),
        Some(Span {
            first: 50,
            pages: 3
        })
    );

    let (ticket, _) = begin(&mut books, 1);
    let outcome = Err(UserFault::Hole);
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    assert_eq!(books.acquired(ticket), Some(Err(UserFault::Hole)));
    assert_eq!(books.acquired(ticket), None);
    assert!(books.acquiring.is_empty());
}

#[test]
fn what_is_abandoned_is_over_when_nothing_of_it_is_left() {
    // Under way, and undone in time.
    let mut books = Books::default();
    let (ticket, cancel) = begin(&mut books, 3);
    books.abandon(ticket);
    assert!(cancel.is_set());
    books.abandon(ticket);
    assert!(jobs(&mut books).is_empty());
    let outcome = Err(UserFault::Busy);
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );

    // Under way, and too late.
    let (ticket, _) = begin(&mut books, 3);
    books.abandon(ticket);
    let outcome = Ok(taken(50, 3));
    assert_eq!(books.finish(Done::Acquired { ticket, outcome }), None);
    assert_eq!(releases(&jobs(&mut books)), [(50, Some(ticket))]);
    assert_eq!(books.finish(Done::Over(ticket)), Some(ticket));

    // Finished.
    for outcome in [Ok(taken(50, 3)), Err(UserFault::Hole)] {
        let (ticket, _) = begin(&mut books, 3);
        assert_eq!(
            books.finish(Done::Acquired { ticket, outcome }),
            Some(ticket)
        );
        books.abandon(ticket);
        assert_eq!(books.acquired(ticket), None, "nobody asks");
        match jobs(&mut books).pop() {
            Some(Job::Release {
                ticket: Some(same), ..
            }) if outcome.is_ok() => {
                assert_eq!(same, ticket);
            }
            Some(Job::Report(USER, same)) if outcome.is_err() => assert_eq!(same, ticket),
            other => panic!("{other:?}"),
        }
        assert_eq!(books.finish(Done::Over(ticket)), Some(ticket));
    }
    assert!(books.acquiring.is_empty() && books.sets.is_empty());
    // Never heard of.
    books.abandon(ticket);
    assert!(jobs(&mut books).is_empty());
}

#[test]
fn pages_are_looked_for_once() {
    let mut books = Books::default();
    let set = set(&mut books, 50, 3);
    let (ticket, _) = asked(&mut books, &set);
    assert_eq!(books.locate(&set), Err(NotReady::Wait(ticket)));
    assert!(jobs(&mut books).is_empty());
    let outcome = Ok(extents(3));
    let taken = taken(50, 3);
    let done = Done::Located {
        taken,
        ticket,
        outcome,
    };
    assert_eq!(books.finish(done), Some(ticket));
    assert_eq!(books.locate(&set), Ok(extents(3)));
    books.release(&set);
    assert_eq!(releases(&jobs(&mut books)), [(50, None)]);
    assert_eq!(books.window(&set), None);
}

#[test]
fn a_failed_search_is_told_once_and_begun_again() {
    let mut books = Books::default();
    let set = set(&mut books, 50, 3);
    for (errno, reason) in [
        (ENOMEM, NotReady::OutOfMemory),
        (5, NotReady::Refused(PlatformError::Failed)),
    ] {
        let (ticket, _) = asked(&mut books, &set);
        let taken = taken(50, 3);
        let outcome = Err(errno);
        let done = Done::Located {
            taken,
            ticket,
            outcome,
        };
        assert_eq!(books.finish(done), Some(ticket));
        assert_eq!(books.locate(&set), Err(reason));
    }
    asked(&mut books, &set);
}

#[test]
fn pages_are_let_go_of_only_after_who_looks_for_them_has_stopped() {
    let mut books = Books::default();
    let set = set(&mut books, 50, 3);
    let (ticket, cancel) = asked(&mut books, &set);
    books.release(&set);
    assert!(cancel.is_set());
    assert!(jobs(&mut books).is_empty());
    assert_eq!(
        books.locate(&set),
        Err(NotReady::Refused(PlatformError::Failed))
    );
    let taken = taken(50, 3);
    let outcome = Err(5);
    let done = Done::Located {
        taken,
        ticket,
        outcome,
    };
    assert_eq!(books.finish(done), Some(ticket));
    assert_eq!(releases(&jobs(&mut books)), [(50, None)]);
    assert!(books.leaving.is_empty());
}

#[test]
fn a_set_from_elsewhere_is_left_alone() {
    let mut books = Books::default();
    let stray = UserSet::new(77, PageCount::new(1).unwrap());
    books.release(&stray);
    assert!(jobs(&mut books).is_empty());
    assert_eq!(books.window(&stray), None);
}

#[test]
fn tickets_are_not_those_of_the_page_source() {
    let mut books = Books::default();
    let (first, _) = begin(&mut books, 1);
    let (second, _) = begin(&mut books, 1);
    assert!(first != second && first.0 > FIRST_TICKET);
}
