use gem::pages::Extent;
use gem::units::PhysAddr;
use gem::user::UserAddr;

use super::*;

const USER: Uid = Uid(1000);

fn range(pages: u64) -> UserRange {
    UserRange::new(UserAddr::new(0x10_0000), PageCount::new(pages).unwrap()).unwrap()
}

fn private(window: Span) -> Taken {
    let sharing = Sharing::Private;
    Taken { window, sharing }
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

/// Begins to take something over; the ticket, whether it is cancelled, and where the pages go.
fn begin(books: &mut Books, pages: u64) -> (Ticket, Cancel, Span) {
    let ticket = books.acquire(USER, 9, range(pages)).unwrap();
    match jobs(books).pop() {
        Some(Job::Acquire {
            owner: USER,
            space: 9,
            ticket: same,
            cancel,
            window,
            ..
        }) if same == ticket && window.pages == pages => (ticket, cancel, window),
        other => panic!("{other:?}"),
    }
}

/// A set of private or shared pages.
fn set(books: &mut Books, pages: u64, sharing: Sharing) -> UserSet {
    let (ticket, _, window) = begin(books, pages);
    let outcome = Ok(Taken { window, sharing });
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    books.acquired(ticket).unwrap().unwrap()
}

/// All that there is room for, but for what is known to be used.
fn is_free(books: &mut Books, used: u64) {
    let all = WINDOWS.pages - 1 - used;
    assert_eq!(books.free.shortest(1), Some(all));
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

fn releases(jobs: &[Job]) -> Vec<(Span, Ticket)> {
    let release = |job: &Job| match job {
        Job::Release { taken, ticket, .. } => Some((taken.window, *ticket)),
        _ => None,
    };
    jobs.iter().filter_map(release).collect()
}

#[test]
fn an_outcome_is_told_once() {
    let mut books = Books::default();
    let (ticket, _, window) = begin(&mut books, 3);
    assert_eq!(books.acquired(ticket), None);
    let outcome = Ok(private(window));
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    let set = books.acquired(ticket).unwrap().unwrap();
    assert_eq!((set.key(), set.pages().get()), (window.first, 3));
    assert_eq!(books.acquired(ticket), None);
    assert_eq!(books.window(&set), Some(window));

    let (ticket, ..) = begin(&mut books, 1);
    let outcome = Err(UserFault::Hole);
    assert_eq!(
        books.finish(Done::Acquired { ticket, outcome }),
        Some(ticket)
    );
    assert_eq!(books.acquired(ticket), Some(Err(UserFault::Hole)));
    assert_eq!(books.acquired(ticket), None);
    assert!(books.acquiring.is_empty());
    is_free(&mut books, 3);
}

#[test]
fn what_is_abandoned_is_over_when_nothing_of_it_is_left() {
    // Under way, and undone in time.
    let mut books = Books::default();
    let (ticket, cancel, _) = begin(&mut books, 3);
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
    let (ticket, _, window) = begin(&mut books, 3);
    books.abandon(ticket);
    let outcome = Ok(private(window));
    assert_eq!(books.finish(Done::Acquired { ticket, outcome }), None);
    assert_eq!(releases(&jobs(&mut books)), [(window, ticket)]);
    is_free(&mut books, 3);
    let window = Some(window);
    let done = Done::Released { ticket, window };
    assert_eq!(books.finish(done), Some(ticket));
    is_free(&mut books, 0);

    // Finished.
    for fault in [None, Some(UserFault::Hole)] {
        let (ticket, _, window) = begin(&mut books, 3);
        let outcome = fault.map_or(Ok(private(window)), Err);
        assert_eq!(
            books.finish(Done::Acquired { ticket, outcome }),
            Some(ticket)
        );
        books.abandon(ticket);
        assert_eq!(books.acquired(ticket), None, "nobody asks");
        match jobs(&mut books).pop() {
            Some(Job::Release { ticket: same, .. }) if outcome.is_ok() => {
                assert_eq!(same, ticket);
                let window = Some(window);
                let done = Done::Released { ticket, window };
                assert_eq!(books.finish(done), Some(ticket));
            }
            Some(Job::Report(USER, same)) if outcome.is_err() => {
                assert_eq!(same, ticket);
                assert_eq!(books.finish(Done::Over(ticket)), Some(ticket));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(books.acquiring.is_empty() && books.sets.is_empty());
    is_free(&mut books, 0);
    // Never heard of.
    books.abandon(ticket);
    assert!(jobs(&mut books).is_empty());
}

#[test]
fn pages_are_looked_for_once() {
    let mut books = Books::default();
    let set = set(&mut books, 3, Sharing::Private);
    let (ticket, _) = asked(&mut books, &set);
    assert_eq!(books.locate(&set), Err(NotReady::Wait(ticket)));
    assert!(jobs(&mut books).is_empty());
    let outcome = Ok(extents(3));
    let taken = private(span_of(&set));
    let done = Done::Located {
        taken,
        ticket,
        outcome,
    };
    assert_eq!(books.finish(done), Some(ticket));
    assert_eq!(books.locate(&set), Ok(extents(3)));
    assert_eq!(books.release(&set), Release::Unmap(span_of(&set)));
    assert_eq!(books.window(&set), None);
}

#[test]
fn a_failed_search_is_told_once_and_begun_again() {
    let mut books = Books::default();
    let set = set(&mut books, 3, Sharing::Private);
    for (errno, reason) in [
        (ENOMEM, NotReady::OutOfMemory),
        (5, NotReady::Refused(PlatformError::Failed)),
    ] {
        let (ticket, _) = asked(&mut books, &set);
        let taken = private(span_of(&set));
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
fn who_still_looks_for_pages_that_were_let_go_of_is_not_listened_to() {
    let mut books = Books::default();
    let first = set(&mut books, 3, Sharing::Private);
    let (ticket, cancel) = asked(&mut books, &first);
    let window = span_of(&first);
    assert_eq!(books.release(&first), Release::Unmap(window));
    assert!(cancel.is_set());
    let failed = NotReady::Refused(PlatformError::Failed);
    assert_eq!(books.locate(&first), Err(failed));
    books.unmapped(window);
    // Others are in the same place by now.
    let second = set(&mut books, 3, Sharing::Private);
    assert_eq!(span_of(&second), window);
    let taken = private(window);
    let outcome = Ok(extents(3));
    let done = Done::Located {
        taken,
        ticket,
        outcome,
    };
    assert_eq!(books.finish(done), Some(ticket));
    asked(&mut books, &second);
}

#[test]
fn few_private_pages_are_unmapped_at_once_and_others_by_the_worker() {
    let mut books = Books::default();
    for (pages, sharing, at_once) in [
        (1, Sharing::Private, true),
        (AT_ONCE, Sharing::Private, true),
        (AT_ONCE + 1, Sharing::Private, false),
        (1, Sharing::Shared, false),
    ] {
        let set = set(&mut books, pages, sharing);
        let window = span_of(&set);
        let released = books.release(&set);
        if at_once {
            assert_eq!(released, Release::Unmap(window));
            assert!(jobs(&mut books).is_empty());
            books.unmapped(window);
        } else {
            let Some(Job::Release { taken, ticket, .. }) = jobs(&mut books).pop() else {
                panic!("no job");
            };
            assert_eq!(taken, Taken { window, sharing });
            assert_eq!(released, Release::Wait(ticket));
            is_free(&mut books, pages);
            let window = Some(window);
            let done = Done::Released { ticket, window };
            assert_eq!(books.finish(done), Some(ticket));
        }
        is_free(&mut books, 0);
    }
    // What could not be moved stays where it is.
    let set = set(&mut books, 1, Sharing::Shared);
    let Release::Wait(ticket) = books.release(&set) else {
        panic!("it is the worker's");
    };
    let window = None;
    let done = Done::Released { ticket, window };
    assert_eq!(books.finish(done), Some(ticket));
    is_free(&mut books, 1);
}

#[test]
fn a_set_from_elsewhere_is_left_alone() {
    let mut books = Books::default();
    let stray = UserSet::new(77, PageCount::new(1).unwrap());
    assert_eq!(books.release(&stray), Release::Nothing);
    assert!(jobs(&mut books).is_empty());
    assert_eq!(books.window(&stray), None);
}

#[test]
fn tickets_are_not_those_of_the_page_source() {
    let mut books = Books::default();
    let (first, ..) = begin(&mut books, 1);
    let (second, ..) = begin(&mut books, 1);
    assert!(first != second && first.0 > FIRST_TICKET);
}
