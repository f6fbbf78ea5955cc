//! What nobody uses, and how much the machine has left.
//!
//! An arena of which nothing is used is kept for whoever asks next, and goes back to the kernel
//! after a while; at once where memory is short, which the books do not know, but are told. While
//! there is any arena, the worker reports every now and then what the machine has left.

use alloc::vec::Vec;
use core::time::Duration;

use gem::pages::Ticket;

use super::{Arena, Books, Class, Job};

/// Between two looks at what the machine has left.
pub(super) const PERIOD: Duration = Duration::from_millis(500);

impl Books {
    /// How many pages the machine has left, with those that are on their way back to it. `None`
    /// before it was looked at, and while nothing of it is here.
    pub fn left(&self) -> Option<u64> {
        let left = self.left.filter(|_| !self.arenas.is_empty())?;
        Some(left.saturating_add(self.unused))
    }

    /// Gives back at once what nobody uses; how many pages. An arena that has just been made is
    /// left to those who asked for it and have not come yet: they would have to ask again, and
    /// might never meet it.
    pub fn give_back(&mut self) -> u64 {
        let before = self.unused;
        self.retire_if(|arena, _| arena.awaited_until);
        before - self.unused
    }

    /// The same, of one user's. For that user itself, and so not even what has just been made is
    /// kept.
    pub(super) fn give_back_of(&mut self, owner: u32) {
        self.retire_if(|arena, _| {
            if arena.class.owner == owner {
                Duration::ZERO
            } else {
                Duration::MAX
            }
        });
    }

    /// What to wait for where there is no memory for this class: something is being cleared that
    /// it can use, or that goes back to the kernel then.
    pub(super) fn on_its_way(&self, class: Class) -> Option<Ticket> {
        let vacated = self
            .vacated
            .first()
            .and_then(|arena| self.arenas.get(arena));
        [Some(class), vacated.map(|arena| arena.class)]
            .into_iter()
            .flatten()
            .find_map(|class| self.classes.get(&class)?.clearing.last_key_value())
            .map(|(&ticket, _)| ticket)
    }

    /// Nothing of this arena is used any more. It is idle now, or when the worker has cleared what
    /// it is at. Since when, the worker's next report will tell.
    pub(super) fn note_unused(&mut self, arena: u64) {
        if self.is_idle(arena) {
            self.idle.insert(arena, None);
        } else {
            self.idle.remove(&arena);
            self.vacated.insert(arena);
        }
    }

    /// Whether nobody has anything to do with the arena, the worker included.
    fn is_idle(&self, arena: u64) -> bool {
        let arena = self.arenas.get(&arena);
        arena.is_some_and(|arena| arena.used == 0 && arena.clearing == 0)
    }

    /// Nothing of this arena is used, from now on.
    pub(super) fn note_idle(&mut self, arena: u64, now: Duration) {
        self.idle.insert(arena, Some(now));
        self.set_alarm(now, Some(now));
    }

    /// The alarm has rung: gives back what has been idle for long enough.
    pub(super) fn awake(&mut self, now: Duration) {
        self.alarm = None;
        for since in self.idle.values_mut() {
            since.get_or_insert(now);
        }
        let idle_for = self.idle_for;
        self.retire_if(|_, since| since.saturating_add(idle_for));
        self.set_alarm(now, self.idle.values().flatten().min().copied());
    }

    /// The clock went back to `now`. What was to come by the old time would be late by as much:
    /// memory would stay here, and nobody would look at what is left. All of it counts from now on.
    pub(super) fn clock_went_back(&mut self, now: Duration) {
        for since in self.idle.values_mut().flatten() {
            *since = now.min(*since);
        }
        for arena in self.arenas.values_mut() {
            arena.awaited_until = arena.awaited_until.min(now.saturating_add(PERIOD));
        }
        self.alarm = None;
        self.set_alarm(now, self.idle.values().flatten().min().copied());
    }

    /// Gives back the idle arenas that are due by now.
    fn retire_if(&mut self, due: impl Fn(&Arena, Duration) -> Duration) {
        let mut old = Vec::new();
        for (start, since) in &self.idle {
            let since = since.unwrap_or(self.now);
            let arena = self.arenas.get(start);
            if arena.is_some_and(|arena| due(arena, since) <= self.now) {
                old.push(*start);
            }
        }
        for arena in old {
            self.retire(arena);
        }
    }

    /// Gives an idle arena back. One that is used again is only forgotten here.
    fn retire(&mut self, start: u64) {
        self.idle.remove(&start);
        if !self.is_idle(start) {
            return;
        }
        let Some(Arena { class, span, .. }) = self.arenas.remove(&start) else {
            return;
        };
        let books = self.classes.entry(class).or_default();
        let bounds = (span.first, span.end());
        let pages = books.clean.take_within(bounds) + books.dirty.take_within(bounds);
        debug_assert_eq!(pages, span.pages);
        self.unused -= span.pages;
        self.used_by(class, span.pages);
        self.left = self.left.map(|left| left.saturating_add(span.pages));
        self.jobs.push(Job::Unmap(span));
    }

    /// Has the worker report when what is idle since then has been so for long enough, or when it
    /// is time to look at what is left. Of two alarms the earlier one rings.
    fn set_alarm(&mut self, now: Duration, idle_since: Option<Duration>) {
        if self.arenas.is_empty() {
            return;
        }
        let look = now.saturating_add(PERIOD);
        let due = idle_since.map(|since| since.saturating_add(self.idle_for));
        let next = due.map_or(look, |due| due.min(look));
        if self.alarm.is_none_or(|alarm| next < alarm) {
            self.alarm = Some(next);
            self.jobs.push(Job::WakeAt(next));
        }
    }
}
