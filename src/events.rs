//! What an open is told without asking: events, and the bounded places where they wait.
//!
//! There are two such places. An [`Inbox`] belongs to one open and keeps what concerns that open
//! alone, in order; its heap comes with the first event and goes with the last, and it never has
//! more than [`CAPACITY`] records. The last of these is kept for a record that says how many
//! events did not fit, so that a client that does not read loses events, but never without being
//! told. A [`Board`] belongs to the device and shows what concerns every open: states (a limit, the
//! memory that is left), of which only the newest counts. An announcement therefore replaces an
//! older one of its kind, costs the same however many opens there are, and is read by each open
//! when that open next looks.
//!
//! One sequence runs through all of it, so that an open reads its own events and the announcements
//! in the order in which they were made. Who may see an event, and who is woken for it, is the
//! device's and the server's business.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::units::{Handle, PageCount, Pid};

/// The most records that wait for one open: events, and one that counts those that did not fit.
pub const CAPACITY: usize = 64;

/// Something that an open is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// So many events did not fit between the one before this and the one after it.
    Lost {
        /// At least 1; stays at `u64::MAX`.
        count: u64,
    },
    /// The pages behind a user pointer are the object's no more.
    Revoked {
        /// This open's handle on the object.
        handle: Handle,
        /// The process that took them away, `None` where it was the server.
        by: Option<Pid>,
    },
    /// An object has lost its address in the GPU's address space.
    Evicted {
        /// This open's handle on the object.
        handle: Handle,
    },
    /// The memory of the machine runs short, or does so no longer.
    Pressure {
        /// How short.
        level: Pressure,
        /// What was free at that time.
        free: PageCount,
    },
    /// Root has set a limit.
    LimitChanged {
        /// Which: the server's number for it.
        limit: u32,
        /// What it is now.
        value: u64,
    },
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pressure {
    /// There is enough again.
    Eased,
    /// Let go of what can be made again.
    Low,
    /// Allocations are about to fail, or do.
    Critical,
}

impl Event {
    /// Whether both say the same thing at different times.
    fn is_about_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pressure { .. }, Self::Pressure { .. }) => true,
            (Self::LimitChanged { limit, .. }, Self::LimitChanged { limit: other, .. }) => {
                limit == other
            }
            _ => false,
        }
    }
}

/// When something happened, counted in events of the device.
type Sequence = u64;

/// What every open is told: the newest of each kind, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Board {
    last: Sequence,
    /// One for each limit and one for the memory, at most.
    shown: Vec<(Sequence, Event)>,
}

impl Board {
    /// The next event's place in the sequence.
    fn next(&mut self) -> Sequence {
        self.last += 1;
        self.last
    }

    /// Shows how short memory is.
    pub(crate) fn show_pressure(&mut self, level: Pressure, free: PageCount) {
        self.show(Event::Pressure { level, free });
    }

    /// Shows what a limit is now.
    pub(crate) fn show_limit(&mut self, limit: u32, value: u64) {
        self.show(Event::LimitChanged { limit, value });
    }

    /// Only for what there is a fixed number of: each kind stays until it is replaced.
    fn show(&mut self, event: Event) {
        let now = self.next();
        self.shown
            .retain(|(_, shown)| !shown.is_about_the_same(&event));
        self.shown.push((now, event));
    }

    fn after(&self, seen: Sequence) -> Option<(Sequence, Event)> {
        self.shown.iter().copied().find(|&(at, _)| at > seen)
    }

    fn has_after(&self, seen: Sequence) -> bool {
        self.shown.last().is_some_and(|&(at, _)| at > seen)
    }
}

/// What one open is told and has not read.
#[derive(Debug)]
pub(crate) struct Inbox {
    own: VecDeque<(Sequence, Event)>,
    /// How far the open has read the board.
    seen: Sequence,
}

impl Inbox {
    /// An empty one: what was announced before is no news.
    pub(crate) fn new(board: &Board) -> Self {
        Self {
            own: VecDeque::new(),
            seen: board.last,
        }
    }

    /// Adds an event of this open's, or counts it as lost. Whether the open had none of its own.
    pub(crate) fn put(&mut self, board: &mut Board, event: Event) -> bool {
        let now = board.next();
        let first = self.own.is_empty();
        if self.own.len() < CAPACITY - 1 {
            self.own.push_back((now, event));
        } else if let Some((_, Event::Lost { count })) = self.own.back_mut() {
            *count = count.saturating_add(1);
        } else {
            self.own.push_back((now, Event::Lost { count: 1 }));
        }
        first
    }

    /// The oldest event, which is then read.
    pub(crate) fn take(&mut self, board: &Board) -> Option<Event> {
        let announced = board.after(self.seen);
        let own = self.own.front().map(|&(at, _)| at);
        if let Some((at, event)) = announced
            && own.is_none_or(|own| at < own)
        {
            self.seen = at;
            return Some(event);
        }
        let (_, event) = self.own.pop_front()?;
        if self.own.is_empty() {
            self.own = VecDeque::new();
        }
        Some(event)
    }

    /// Whether there is anything to read.
    pub(crate) fn has_events(&self, board: &Board) -> bool {
        !self.own.is_empty() || board.has_after(self.seen)
    }

    /// Forgets everything, as if the open were new.
    pub(crate) fn clear(&mut self, board: &Board) {
        *self = Self::new(board);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(number: u32) -> Event {
        Event::Evicted {
            handle: Handle::new(number).unwrap(),
        }
    }

    fn read_all(inbox: &mut Inbox, board: &Board) -> Vec<Event> {
        core::iter::from_fn(|| inbox.take(board)).collect()
    }

    #[test]
    fn what_does_not_fit_is_counted_exactly() {
        for lost in 0..5 {
            let mut board = Board::default();
            let mut inbox = Inbox::new(&board);
            let fits = CAPACITY - 1;
            for number in 1..=fits + lost {
                inbox.put(&mut board, evicted(number as u32));
            }
            let events = read_all(&mut inbox, &board);
            let (kept, rest) = events.split_at(fits);
            assert!(kept.iter().copied().eq((1..=fits as u32).map(evicted)));
            let count = lost as u64;
            let expected = (lost > 0).then_some(Event::Lost { count });
            assert!(rest.iter().copied().eq(expected), "{rest:?}");
        }
    }

    #[test]
    fn the_count_of_lost_events_stays_at_its_end() {
        let mut board = Board::default();
        let mut inbox = Inbox::new(&board);
        for number in 1..=CAPACITY as u32 {
            inbox.put(&mut board, evicted(number));
        }
        let last = &mut inbox.own.back_mut().unwrap().1;
        *last = Event::Lost { count: u64::MAX };
        inbox.put(&mut board, evicted(1));
        let last = read_all(&mut inbox, &board).pop();
        assert_eq!(last, Some(Event::Lost { count: u64::MAX }));
    }

    #[test]
    fn what_comes_after_a_loss_is_read_after_it() {
        let mut board = Board::default();
        let mut inbox = Inbox::new(&board);
        for number in 1..=70 {
            inbox.put(&mut board, evicted(number));
        }
        assert_eq!(inbox.take(&board), Some(evicted(1)));
        // One place is free, and it is for counting only.
        inbox.put(&mut board, evicted(71));
        assert_eq!(inbox.take(&board), Some(evicted(2)));
        assert_eq!(inbox.take(&board), Some(evicted(3)));
        inbox.put(&mut board, evicted(72));
        let events = read_all(&mut inbox, &board);
        let (_, end) = events.split_at(60);
        assert_eq!(end, [Event::Lost { count: 8 }, evicted(72)]);
    }

    #[test]
    fn an_inbox_never_grows_beyond_its_capacity_and_gives_its_room_back() {
        let mut board = Board::default();
        let mut inbox = Inbox::new(&board);
        assert_eq!(inbox.own.capacity(), 0, "nothing before the first event");
        for _ in 0..10 * CAPACITY {
            inbox.put(&mut board, evicted(1));
        }
        assert_eq!(inbox.own.capacity(), CAPACITY);
        read_all(&mut inbox, &board);
        assert_eq!(inbox.own.capacity(), 0);
    }

    #[test]
    fn own_events_and_announcements_are_read_in_the_order_in_which_they_were_made() {
        let mut board = Board::default();
        let mut inbox = Inbox::new(&board);
        board.show_limit(1, 10);
        inbox.put(&mut board, evicted(1));
        board.show_limit(2, 20);
        inbox.put(&mut board, evicted(2));
        let limit = |limit, value| Event::LimitChanged { limit, value };
        assert_eq!(
            read_all(&mut inbox, &board),
            [limit(1, 10), evicted(1), limit(2, 20), evicted(2)]
        );
        assert!(!inbox.has_events(&board));
    }

    #[test]
    fn an_announcement_replaces_the_one_that_it_makes_untrue() {
        let mut board = Board::default();
        let mut inbox = Inbox::new(&board);
        let free = PageCount::new(7).unwrap();
        board.show_limit(1, 10);
        board.show_pressure(Pressure::Low, PageCount::ZERO);
        for value in 0..1000 {
            board.show_limit(1, value);
        }
        board.show_pressure(Pressure::Eased, free);
        assert_eq!(board.shown.len(), 2);
        let limit = Event::LimitChanged {
            limit: 1,
            value: 999,
        };
        let level = Pressure::Eased;
        let events = read_all(&mut inbox, &board);
        assert_eq!(events, [limit, Event::Pressure { level, free }]);
        board.show_limit(1, 5);
        assert!(inbox.has_events(&board), "what was read can be news again");
    }

    #[test]
    fn what_was_announced_before_is_no_news() {
        let mut board = Board::default();
        board.show_limit(1, 10);
        let mut inbox = Inbox::new(&board);
        assert!(!inbox.has_events(&board));
        assert_eq!(inbox.take(&board), None);
    }
}
