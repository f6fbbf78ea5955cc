//! Event queues and what they watch: the tables.
//!
//! A watch is (file, queue, number): while the file is open, and the queue is, whatever its scheme
//! says of the file is entered into the queue under that number. The number is that of the
//! descriptor through which the watch was made, as in the kernel, and like there it says nothing
//! about whether that descriptor is still open.
//!
//! What is entered and not read is kept once for each watch, its flags together; the kernel keeps
//! every time. So a queue never has more in it than there are watches, however often a scheme or a
//! client makes something happen.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use super::files::Description;

/// A file: its scheme, and what that calls it.
pub(super) type File = (usize, u64);

/// The number of the scheme of event queues, which are files, too.
pub(super) const SCHEME: usize = syscall::data::GlobalSchemes::Event as usize;

/// So many watches are made before the first look for those whose file is closed.
const FIRST_PURGE: usize = 64;

/// An event as a client writes and reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    /// The descriptor through which the watch was made.
    pub(crate) id: u64,
    /// What is waited for, or has happened.
    pub(crate) flags: u64,
    /// The client's own.
    pub(crate) data: u64,
}

impl Event {
    /// Bytes of one.
    pub(crate) const SIZE: usize = size_of::<syscall::data::Event>();

    /// The event that these bytes are.
    pub(crate) fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |index: usize| {
            let words = bytes.as_chunks().0;
            words
                .get(index)
                .map_or(0, |word: &[u8; 8]| u64::from_ne_bytes(*word))
        };
        let [id, flags, data] = [0, 1, 2].map(word);
        Self { id, flags, data }
    }

    /// As it is written and read.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = bytes.as_chunks_mut().0;
        for (to, word) in words.iter_mut().zip([self.id, self.flags, self.data]) {
            *to = u64::to_ne_bytes(word);
        }
        bytes
    }
}

/// Which of a queue's watches: the file, and the number.
type Watch = (File, u64);

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Watches with something to tell, in the order in which it happened.
    order: VecDeque<Watch>,
    happened: HashMap<Watch, Event>,
    /// Tags of the reads that wait.
    pub(super) readers: VecDeque<usize>,
}

impl Queue {
    fn enter(&mut self, file: File, event: Event) {
        let watch = (file, event.id);
        let first = |order: &mut VecDeque<Watch>| {
            order.push_back(watch);
            Event { flags: 0, ..event }
        };
        let known = self.happened.entry(watch);
        let known = known.or_insert_with(|| first(&mut self.order));
        known.flags |= event.flags;
        known.data = event.data;
    }

    /// Takes the oldest events out, `most` at most.
    pub(super) fn take(&mut self, most: usize) -> Vec<Event> {
        let count = most.min(self.order.len());
        let watches = self.order.drain(..count);
        watches
            .filter_map(|watch| self.happened.remove(&watch))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Who watches one file.
#[derive(Debug)]
struct Watched {
    /// The file, which this does not keep open.
    file: Weak<Description>,
    /// By queue and number: which events, and the data that come with them.
    by: BTreeMap<(u64, u64), (u64, u64)>,
}

/// All queues and watches.
#[derive(Debug)]
pub(super) struct Events {
    queues: HashMap<u64, Queue>,
    last: u64,
    watched: HashMap<File, Watched>,
    /// How many watches there are, at most.
    count: usize,
    purge_at: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            last: 0,
            watched: HashMap::new(),
            count: 0,
            purge_at: FIRST_PURGE,
        }
    }
}

impl Events {
    /// A new queue's number.
    pub(super) fn create(&mut self) -> u64 {
        self.last += 1;
        self.queues.insert(self.last, Queue::default());
        self.last
    }

    /// Ends a queue. Its watches are found to be nobody's when somebody watches the same file, or
    /// at the next purge.
    pub(super) fn close(&mut self, queue: u64) -> Option<Queue> {
        self.queues.remove(&queue)
    }

    pub(super) fn queue(&mut self, queue: u64) -> Option<&mut Queue> {
        self.queues.get_mut(&queue)
    }

    /// Watches a file, or no longer where `event` has no flags. Returns all that anybody waits for
    /// of it.
    pub(super) fn watch(&mut self, file: &Arc<Description>, queue: u64, event: Event) -> u64 {
        let key = key(file);
        let watched = self.watched.entry(key).or_insert_with(|| Watched {
            file: Arc::downgrade(file),
            by: BTreeMap::new(),
        });
        if watched.file.strong_count() == 0 {
            // Its scheme has used the number again.
            *watched = Watched {
                file: Arc::downgrade(file),
                by: BTreeMap::new(),
            };
        }
        let queues = &self.queues;
        watched
            .by
            .retain(|(queue, _), _| queues.contains_key(queue));
        let watch = (queue, event.id);
        if event.flags == 0 {
            watched.by.remove(&watch);
        } else {
            watched.by.insert(watch, (event.flags, event.data));
            self.count += 1;
        }
        let all = watched.by.values().fold(0, |all, &(flags, _)| all | flags);
        if self.count >= self.purge_at {
            self.purge();
        }
        all
    }

    /// Enters what happened to a file into the queues that watch it, and that into those that watch
    /// those. Returns the queues that have more to read.
    pub(super) fn trigger(&mut self, file: File, flags: u64) -> Vec<u64> {
        let mut reached = Vec::new();
        let mut next = vec![(file, flags)];
        while let Some((file, flags)) = next.pop() {
            for queue in self.enter(file, flags) {
                if !reached.contains(&queue) {
                    reached.push(queue);
                    let read = syscall::flag::EVENT_READ.bits() as u64;
                    next.push(((SCHEME, queue), read));
                }
            }
        }
        reached
    }

    fn enter(&mut self, file: File, flags: u64) -> Vec<u64> {
        let Some(watched) = self.watched.get_mut(&file) else {
            return Vec::new();
        };
        if watched.file.strong_count() == 0 {
            self.watched.remove(&file);
            return Vec::new();
        }
        let mut reached = Vec::new();
        for (&(number, id), &(interest, data)) in &watched.by {
            let flags = flags & interest;
            if let Some(queue) = self.queues.get_mut(&number)
                && flags != 0
            {
                queue.enter(file, Event { id, flags, data });
                reached.push(number);
            }
        }
        reached
    }

    /// Forgets watches of closed files and of closed queues. It is done each time there are twice
    /// as many as the last time, so that it costs each watch little.
    fn purge(&mut self) {
        self.watched.retain(|_, watched| {
            watched
                .by
                .retain(|(queue, _), _| self.queues.contains_key(queue));
            watched.file.strong_count() > 0 && !watched.by.is_empty()
        });
        self.count = self.watched.values().map(|watched| watched.by.len()).sum();
        self.purge_at = (2 * self.count).max(FIRST_PURGE);
    }
}

fn key(file: &Description) -> File {
    (file.scheme().id(), file.number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::scheme::Scheme;
    use nix::sys::eventfd::EventFd;

    fn file(number: u64) -> Arc<Description> {
        let wake = Arc::new(EventFd::new().unwrap());
        let scheme = Arc::new(Scheme::new(99, wake));
        Arc::new(Description::new(scheme, number, 0, 0).unwrap())
    }

    fn event(id: u64, flags: u64, data: u64) -> Event {
        Event { id, flags, data }
    }

    fn take(events: &mut Events, queue: u64) -> Vec<Event> {
        events.queue(queue).unwrap().take(usize::MAX)
    }

    #[test]
    fn an_event_survives_its_bytes() {
        let event = event(1, 2, u64::MAX);
        assert_eq!(Event::from_bytes(&event.to_bytes()), event);
    }

    #[test]
    fn what_happens_is_entered_for_who_waits_for_it_once_until_it_is_read() {
        let mut events = Events::default();
        let (a, b) = (events.create(), events.create());
        let (first, second) = (file(1), file(2));
        assert_eq!(events.watch(&first, a, event(10, 1, 100)), 1);
        assert_eq!(events.watch(&first, b, event(11, 2, 101)), 3);
        events.watch(&second, a, event(12, 3, 102));
        assert_eq!(events.trigger((99, 2), 1), [a]);
        assert_eq!(events.trigger((99, 1), 1), [a]);
        events.trigger((99, 2), 2);
        assert_eq!(take(&mut events, a), [event(12, 3, 102), event(10, 1, 100)]);
        assert!(events.queue(b).unwrap().is_empty());
        events.trigger((99, 1), 1);
        assert_eq!(take(&mut events, a), [event(10, 1, 100)]);
    }

    #[test]
    fn a_watch_ends_with_its_file_and_not_before() {
        let mut events = Events::default();
        let queue = events.create();
        let first = file(1);
        let copy = first.clone();
        events.watch(&first, queue, event(10, 1, 0));
        drop(first);
        assert_eq!(events.trigger((99, 1), 1), [queue]);
        drop(copy);
        assert_eq!(events.trigger((99, 1), 1), []);
        let again = file(1);
        events.watch(&again, queue, event(11, 1, 0));
        take(&mut events, queue);
        events.trigger((99, 1), 1);
        assert_eq!(take(&mut events, queue), [event(11, 1, 0)]);
        events.watch(&again, queue, event(11, 0, 0));
        assert_eq!(events.trigger((99, 1), 1), []);
    }

    #[test]
    fn queues_can_be_watched_even_in_a_circle() {
        let mut events = Events::default();
        let wake = Arc::new(EventFd::new().unwrap());
        let scheme = Arc::new(Scheme::new(SCHEME, wake));
        let queues = [events.create(), events.create()];
        let files = queues.map(|number| {
            let file = Description::new(scheme.clone(), number, 0, 0);
            Arc::new(file.unwrap())
        });
        events.watch(&files[0], queues[1], event(20, 1, 0));
        events.watch(&files[1], queues[0], event(21, 1, 0));
        let start = file(1);
        events.watch(&start, queues[0], event(22, 1, 0));
        assert_eq!(events.trigger((99, 1), 1), queues);
        assert_eq!(take(&mut events, queues[0]).len(), 2);
        assert_eq!(take(&mut events, queues[1]).len(), 1);
    }

    #[test]
    fn watches_of_closed_files_and_queues_do_not_pile_up() {
        let mut events = Events::default();
        let queue = events.create();
        let stays = file(0);
        for number in 1..10_000 {
            events.watch(&file(number), queue, event(1, 1, 0));
            let other = events.create();
            events.watch(&stays, other, event(1, 1, 0));
            events.close(other);
        }
        assert!(events.count <= FIRST_PURGE, "{}", events.count);
        assert!(events.watched.len() <= FIRST_PURGE);
    }
}
