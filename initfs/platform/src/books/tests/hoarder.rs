//! Users that mean to have more than they pay for.

use super::*;

/// What one user may have, in pages.
const LIMIT: u64 = 64 * ARENA_PAGES;

/// A user at whose limit a server looks, as it would.
struct Hoarder {
    rig: Rig,
    used: u64,
}

impl Hoarder {
    fn new() -> Self {
        let rig = Rig::new();
        Self { rig, used: 0 }
    }

    fn get(&mut self, kind: (Caching, bool), pages: u64) -> Option<PageSet> {
        if self.used + pages > LIMIT {
            return None;
        }
        let room = LIMIT - self.used + LIMIT / 4;
        let (caching, contiguous) = kind;
        let wanted = PageRequest {
            caching,
            contiguous,
            room: PageCount::new(room).unwrap(),
            ..request(USER, pages)
        };
        let set = self.rig.get_as(&wanted).ok()?;
        self.used += pages;
        // Nobody who is patient has less.
        let most = LIMIT + LIMIT / 4 + (Kind::COUNT as u64 + 1) * ARENA_PAGES;
        assert!(
            self.rig.books.mapped() <= most,
            "{}",
            self.rig.books.mapped()
        );
        Some(set)
    }

    fn free(&mut self, set: &PageSet) {
        self.used -= set.pages().get();
        self.rig.books.free(set);
        self.rig.work();
    }
}

#[test]
fn nobody_has_the_machines_memory_in_pieces_that_it_does_not_pay_for() {
    let mut hoarder = Hoarder::new();
    let cachings = [
        Caching::WriteBack,
        Caching::WriteCombining,
        Caching::Uncached,
    ];
    for kind in cachings
        .into_iter()
        .flat_map(|how| [(how, false), (how, true)])
    {
        // One page of each arena is kept, and the rest let go.
        let mut rest = Vec::new();
        while let Some(_kept) = hoarder.get(kind, 1) {
            let Some(set) = hoarder.get(kind, ARENA_PAGES - 1) else {
                break;
            };
            rest.push(set);
        }
        rest.iter().for_each(|set| hoarder.free(set));
        // Or more than half of an arena that has to be twice as large.
        while hoarder.get(kind, ARENA_PAGES + 1).is_some() {}
    }
}

#[test]
fn who_asks_and_does_not_come_keeps_no_memory_from_others() {
    let mut rig = Rig::new();
    for size in 0..1000 {
        let wanted = PageRequest {
            room: PageCount::new(LIMIT + LIMIT / 4).unwrap(),
            ..request(USER, LIMIT - 1000 + size)
        };
        let _ = rig.books.allocate(&wanted);
        rig.work();
        let most = LIMIT + LIMIT / 4 + Kind::COUNT as u64 * ARENA_PAGES;
        assert!(rig.books.mapped() <= most, "{}", rig.books.mapped());
    }
}

#[test]
fn who_has_left_gaps_has_them_back_when_they_are_large_enough() {
    let mut hoarder = Hoarder::new();
    let kind = (Caching::WriteBack, false);
    let halves = |hoarder: &mut Hoarder| hoarder.get(kind, ARENA_PAGES / 2);
    let sets: Vec<_> = core::iter::from_fn(|| halves(&mut hoarder)).collect();
    assert_eq!(sets.len(), 128);
    for set in sets.iter().step_by(2) {
        hoarder.free(set);
    }
    let whole = |hoarder: &mut Hoarder| hoarder.get(kind, ARENA_PAGES);
    // A quarter more may lie unused, and no more than that.
    let more: Vec<_> = core::iter::from_fn(|| whole(&mut hoarder)).collect();
    assert!((16..32).contains(&more.len()), "{}", more.len());
    assert!(hoarder.used < LIMIT);
    assert!(halves(&mut hoarder).is_some(), "what fits the gaps does");
    // Arenas of which nothing is left are of use to any other kind.
    for set in sets.iter().skip(1).step_by(2) {
        hoarder.free(set);
    }
    let other = (Caching::Uncached, true);
    assert!(hoarder.get(other, ARENA_PAGES).is_some());
}
