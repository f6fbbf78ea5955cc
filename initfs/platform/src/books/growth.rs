//! New arenas: how large, and for whom none is made.
//!
//! What a user leaves unused in its arenas nobody else can have, and nobody is charged for. So
//! there is no more of it than the user could still ask for, plus what the server grants and one
//! arena of each kind; beyond, an arena is made only when the user's own have come back. Of each
//! kind a user has one small arena and one large one in the making at a time, so that what is
//! small does not wait for what is large.

use gem::pages::{NotReady, Ticket};

use super::{ARENA_PAGES, Books, Class, Job, Kind};

/// What a user may always have unused.
const GRANTED: u64 = Kind::COUNT as u64 * ARENA_PAGES;

impl Books {
    /// Has an arena made for a request of `pages` pages, or says what has to come first.
    pub(super) fn grow(&mut self, class: Class, pages: u64, room: u64) -> NotReady {
        let size = class.arena_for(pages.max(ARENA_PAGES));
        let Some((size, least)) = size.zip(class.arena_for(pages)) else {
            return NotReady::OutOfMemory;
        };
        let books = self.classes.entry(class).or_default();
        let is_small = |size: u64| size <= ARENA_PAGES;
        let mut growing = books.growing.iter();
        let alike = growing.find(|&(_, &other)| is_small(other) == is_small(size));
        if let Some((&ticket, _)) = alike {
            return NotReady::Wait(ticket);
        }
        // Pieces that are not clean join those that are: for the next one, or for this one where
        // no arena is made.
        self.clear_dirty(class);
        let most = room.saturating_add(GRANTED);
        let fits = |books: &Self, size: u64| {
            let unused = books.unused_of.get(&class.owner).copied().unwrap_or(0);
            unused.saturating_add(size) <= most
        };
        if !fits(self, least) {
            self.give_back_of(class.owner);
        }
        let size = match fits(self, size) {
            true => size,
            false if fits(self, least) => least,
            false => {
                let coming = self.coming_back(class.owner);
                return coming.map_or(NotReady::Scattered, NotReady::Wait);
            }
        };
        let ticket = self.next_ticket();
        self.unused_by(class, size);
        let books = self.classes.entry(class).or_default();
        books.growing.insert(ticket, size);
        self.jobs.push(Job::Grow {
            class,
            pages: size,
            least,
            ticket,
        });
        NotReady::Wait(ticket)
    }

    /// A growth has ended, with an arena of so many pages or with none.
    pub(super) fn grown(&mut self, class: Class, ticket: Ticket, pages: u64) {
        let books = self.classes.entry(class).or_default();
        let expected = books.growing.remove(&ticket).unwrap_or(0);
        self.used_by(class, expected);
        self.unused_by(class, pages);
    }

    /// The owner has so many pages more that are unused.
    pub(super) fn unused_by(&mut self, class: Class, pages: u64) {
        *self.unused_of.entry(class.owner).or_default() += pages;
    }

    /// The owner has so many pages less that are unused.
    pub(super) fn used_by(&mut self, class: Class, pages: u64) {
        if let Some(unused) = self.unused_of.get_mut(&class.owner) {
            *unused = unused.saturating_sub(pages);
            if *unused == 0 {
                self.unused_of.remove(&class.owner);
            }
        }
    }

    /// A ticket with which some of this owner's unused pages may be of use, or come back: something
    /// is being cleared, or made for another request.
    fn coming_back(&self, owner: u32) -> Option<Ticket> {
        let first = Class::first_of(owner);
        let classes = self.classes.range(first..);
        let mut own = classes.take_while(|(class, _)| class.owner == owner);
        own.find_map(|(_, books)| {
            let clearing = books.clearing.last_key_value().map(|(&ticket, _)| ticket);
            clearing.or_else(|| books.growing.first_key_value().map(|(&ticket, _)| ticket))
        })
    }
}
