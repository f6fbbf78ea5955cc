//! Arenas that nobody uses, what the machine has left, and the clock.

use super::*;
use crate::books::idle::PERIOD;

#[test]
fn an_arena_goes_back_when_it_has_been_empty_for_a_while() {
    let mut rig = Rig::new();
    let set = rig.get(USER, LARGE);
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
    let set = rig.get(USER, LARGE);
    rig.work();
    rig.books.free(&set);
    rig.work();
    rig.pass(IDLE / 2);
    let again = rig.get(USER, LARGE);
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
fn where_memory_is_short_what_nobody_uses_goes_back_at_once() {
    let mut rig = Rig::new();
    let [used, unused] = [ROOT, USER].map(|user| rig.get(user, LARGE));
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
    rig.ask(USER, LARGE).unwrap_err();
    rig.work();
    assert_eq!(rig.books.give_back(), 0);
    let set = rig.ask(USER, LARGE).unwrap();
    rig.books.free(&set);
    rig.work();
    rig.pass(PERIOD);
    assert_eq!(rig.books.give_back(), ARENA_PAGES, "not for ever");
}

#[test]
fn what_is_left_counts_what_is_on_its_way_back() {
    let mut rig = Rig::new();
    let look = |rig: &mut Rig, left| rig.books.finish(Done::Left(left), rig.now);
    look(&mut rig, 3000);
    assert_eq!(rig.books.left(), None, "none of it is here");
    let set = rig.get(USER, LARGE);
    rig.work();
    look(&mut rig, 2000);
    assert_eq!(rig.books.left(), Some(2000));
    rig.books.free(&set);
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES));
    rig.work();
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES));
    let again = rig.get(USER, LARGE);
    assert_eq!(rig.books.left(), Some(2000));
    let _other = rig.get(ROOT, 1);
    rig.books.free(&again);
    rig.work();
    rig.pass(IDLE);
    rig.books.give_back();
    assert_eq!(rig.books.left(), Some(2000 + ARENA_PAGES), "it has gone");
}

#[test]
fn while_there_is_an_arena_the_machine_is_looked_at() {
    let mut rig = Rig::new();
    rig.work();
    assert_eq!(rig.alarm, None);
    let set = rig.get(USER, LARGE);
    rig.work();
    for _ in 0..20 {
        assert_eq!(rig.alarm, Some(rig.now + PERIOD));
        rig.pass(PERIOD);
    }
    rig.books.free(&set);
    rig.work();
    rig.pass(IDLE);
    assert_eq!(rig.alarm, None);
    assert_eq!(rig.books.mapped(), 0);
}

#[test]
fn a_clock_that_goes_back_stops_nothing() {
    let mut rig = Rig::new();
    rig.now = Duration::from_secs(1_000_000);
    let [kept, unused] = [ROOT, USER].map(|user| rig.get(user, LARGE));
    rig.work();
    rig.books.free(&unused);
    rig.work();
    rig.now = Duration::from_secs(10);
    // The alarm was for the old time; whatever is done sets it anew.
    rig.books.finish(Done::Left(3000), rig.now);
    rig.work();
    assert_eq!(rig.alarm, Some(rig.now + PERIOD));
    for _ in 0..IDLE.as_millis() / PERIOD.as_millis() {
        assert_eq!(rig.books.mapped(), 2 * ARENA_PAGES);
        rig.pass(PERIOD);
    }
    assert_eq!(rig.books.mapped(), ARENA_PAGES);
    // What has been made just before does not count as new for the rest of its life.
    rig.now = Duration::from_secs(1_000_000);
    rig.ask(USER, LARGE).unwrap_err();
    rig.work();
    rig.now = Duration::from_secs(20);
    rig.books.finish(Done::Left(3000), rig.now);
    rig.pass(PERIOD);
    assert_eq!(rig.books.give_back(), ARENA_PAGES);
    rig.books.free(&kept);
}

#[test]
fn a_clock_that_leaps_ends_nothing_that_is_used() {
    let mut rig = Rig::new();
    let [kept, unused] = [ROOT, USER].map(|user| rig.get(user, LARGE));
    rig.work();
    rig.books.free(&unused);
    rig.work();
    rig.pass(Duration::MAX - rig.now);
    assert_eq!(rig.books.mapped(), ARENA_PAGES, "what nobody uses is due");
    // At the end of time there is still memory.
    let more = rig.get(USER, LARGE);
    assert_ne!(span_of(&more).first, span_of(&kept).first);
    for set in [kept, more] {
        rig.books.free(&set);
    }
    rig.work();
    assert!(rig.books.mapped() <= 2 * ARENA_PAGES);
}

/// The random walk of the other test, with a clock that goes anywhere.
#[test]
fn no_clock_loses_or_keeps_memory() {
    let mut rig = Rig::new();
    let mut sets: Vec<PageSet> = Vec::new();
    let mut random = Random(1);
    for _ in 0..20_000 {
        match random.below(8) {
            0 => drop(rig.work()),
            1 => {
                let times = [0, 1, 499, 5_000, 1 << 20, u64::MAX];
                rig.now = Duration::from_millis(times[random.below(6) as usize]);
                rig.pass(Duration::ZERO);
            }
            2..5 if !sets.is_empty() => {
                let set = sets.swap_remove(random.below(sets.len() as u64) as usize);
                rig.books.free(&set);
            }
            _ => sets.extend(rig.ask(USER, [1, 16, 100, 300][random.below(4) as usize])),
        }
    }
    for set in sets.drain(..) {
        rig.books.free(&set);
    }
    rig.work();
    rig.now = Duration::ZERO;
    rig.books.finish(Done::Left(0), rig.now);
    rig.work();
    for _ in 0..=IDLE.as_millis() / PERIOD.as_millis() {
        rig.pass(PERIOD);
    }
    assert_eq!(rig.books.mapped(), 0);
}
