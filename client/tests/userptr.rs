//! Memory of this process as a buffer, against a real gemd: nothing that threads write is lost, the
//! memory is what it was when anything fails, and nothing is left in the server.

mod daemon;

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::Daemon;
use gem_client::{
    Card, Error, Event, Features, Limit, Node, PAGE_SIZE, Register, Rights, Userptr, drm, text,
};
use libredox::call::{self, MmapArgs};
use libredox::flag::{MAP_PRIVATE, PROT_READ, PROT_WRITE};
use syscall::error::{E2BIG, EBUSY, EFAULT, EINVAL, EMFILE, ENODEV, ENOMEM};

/// Linux's value.
const MAP_FIXED: u32 = 0x10;

/// A gemd of the test's own. A process has one connection, so tests take turns.
struct Here {
    daemon: Daemon,
    _turn: MutexGuard<'static, ()>,
}

impl Here {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = Daemon::start(&[]);
        hosted::client::disconnect();
        gem_client::linux::set_socket(&daemon.socket());
        Self {
            daemon,
            _turn: turn,
        }
    }

    /// A card, where this machine lets clients register memory; loudly none where not.
    fn card(&self) -> Option<Card> {
        let card = Card::open(Node::Primary).unwrap();
        if card.features().unwrap().contains(Features::USERPTR) {
            return Some(card);
        }
        let refused = card.userptr_new(PAGE_SIZE, Register::new());
        assert!(refused.is_err());
        eprintln!("!! SKIPPED: this machine forbids userfaultfd");
        None
    }
}

fn errno<T>(result: Result<T, Error>) -> i32 {
    result.map(|_| ()).unwrap_err().errno()
}

fn stat(key: &str) -> u64 {
    text::stat(key).unwrap()
}

fn assert_nothing_is_left() {
    for key in [
        "objects",
        "handles",
        "mapped-pages",
        "userptr-pages",
        "userptr-ranges",
    ] {
        assert_eq!(stat(key), 0, "{key}");
    }
}

/// Memory of this process.
struct Pages {
    base: NonNull<u8>,
    size: usize,
}

impl Pages {
    fn new(pages: usize) -> Self {
        let size = pages * PAGE_SIZE;
        let args = MmapArgs {
            addr: ptr::null_mut(),
            length: size,
            prot: PROT_READ | PROT_WRITE,
            flags: MAP_PRIVATE,
            fd: usize::MAX,
            offset: 0,
        };
        // SAFETY: nothing is replaced.
        let base = unsafe { call::mmap(args) }.unwrap();
        let base = NonNull::new(base.cast()).unwrap();
        Self { base, size }
    }

    fn slice(&mut self) -> &mut [u8] {
        // SAFETY: mapped, and borrowed from the one owner.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.size) }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped, aligned, and never accessed as anything else while they are used.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.size / 8) }
    }

    fn raw(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.base, self.size)
    }

    fn unmap(&self, page: usize, pages: usize) {
        // SAFETY: tests do not touch what they have unmapped.
        unsafe {
            let at = self.base.as_ptr().add(page * PAGE_SIZE);
            call::munmap(at.cast(), pages * PAGE_SIZE).unwrap();
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.unmap(0, self.size / PAGE_SIZE);
    }
}

/// As threads may use it, whole.
fn register(card: &Card, pages: &Pages) -> Result<Userptr, Error> {
    // SAFETY: tests access the memory as atomics, or not at all, and let it be mapped.
    unsafe { card.userptr(pages.raw(), Register::new()) }
}

#[test]
fn borrowed_memory_is_a_buffer_for_a_while() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let mut pages = Pages::new(5);
    for (index, byte) in pages.slice().iter_mut().enumerate() {
        *byte = index as u8;
    }
    let answer = card.with_userptr(pages.slice(), Register::new(), |userptr| {
        let mut bytes = vec![0; 5 * PAGE_SIZE];
        userptr.memory().read_at(0, &mut bytes).unwrap();
        assert!((0..).zip(&bytes).all(|(index, byte)| *byte == index as u8));
        userptr.memory().write_at(PAGE_SIZE, b"written").unwrap();
        assert_eq!(stat("userptr-pages"), 5);
        assert_eq!(stat("memory-pages"), 0);
        let buffer = userptr.buffer();
        assert_eq!(buffer.size(), 5 * PAGE_SIZE);
        assert_eq!(errno(buffer.map()), ENODEV);
        assert_eq!(errno(buffer.export(Rights::ReadOnly)), EINVAL);
        let again = card.open_name(buffer.flink().unwrap()).unwrap();
        assert_eq!(again.size(), buffer.size());
        assert_eq!(errno(again.map()), ENODEV);
        42
    });
    assert_eq!(answer.unwrap(), 42);
    assert_eq!(&pages.slice()[PAGE_SIZE..][..7], b"written");
    assert_eq!(stat("handles"), 0);
    assert_eq!(stat("userptr-pages"), 5, "mapped yet");
    drop((pages, card));
    assert_nothing_is_left();
}

#[test]
fn new_memory_goes_with_its_buffer() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let userptr = card.userptr_new(3 * PAGE_SIZE, Register::new().read_only());
    let userptr = userptr.unwrap();
    let mut bytes = vec![1; 3 * PAGE_SIZE];
    userptr.memory().read_at(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    userptr.memory().fill(7).unwrap();
    assert_eq!(stat("userptr-ranges"), 1);
    drop(userptr);
    assert_nothing_is_left();
    let userptr = card.userptr_new(PAGE_SIZE, Register::new()).unwrap();
    userptr.release().unwrap();
    assert_nothing_is_left();
}

#[test]
fn threads_that_write_all_the_while_lose_nothing() {
    const WORDS: usize = PAGE_SIZE / size_of::<AtomicU64>();
    let here = Here::new();
    let Some(card) = here.card() else { return };
    for pages in [1, 16, 64].repeat(5) {
        let memory = Pages::new(pages);
        let words = memory.words();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let hammers = [0, 1, 2].map(|thread| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut written = 0;
                    while !stop.load(Relaxed) {
                        for page in 0..pages {
                            words[page * WORDS + thread].fetch_add(1, Relaxed);
                            written += 1;
                        }
                    }
                    written
                })
            });
            let userptr = register(&card, &memory).unwrap();
            userptr.memory().write_at(4000, &[1]).unwrap();
            userptr.release().unwrap();
            stop.store(true, Relaxed);
            for (thread, hammer) in hammers.into_iter().enumerate() {
                let written: u64 = hammer.join().unwrap();
                let found: u64 = (0..pages)
                    .map(|page| words[page * WORDS + thread].load(Relaxed))
                    .sum();
                assert_eq!(found, written, "thread {thread}, {pages} pages");
            }
        });
    }
    assert_nothing_is_left();
}

#[test]
fn memory_that_was_unmapped_can_be_registered_again_when_it_is_all_new() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let memory = Pages::new(4);
    let userptr = register(&card, &memory).unwrap();
    let again = || {
        // SAFETY: as in `register`.
        unsafe { userptr.register_again() }
    };
    assert_eq!(errno(again()), EBUSY, "there are pages");
    memory.unmap(1, 1);
    assert_eq!(errno(again()), EBUSY, "three are mapped yet");
    memory.unmap(0, 4);
    assert_eq!(errno(again()), EFAULT, "there is nothing");
    // Fresh memory in its place.
    let args = MmapArgs {
        addr: memory.base.as_ptr().cast(),
        length: memory.size,
        prot: PROT_READ | PROT_WRITE,
        flags: MAP_PRIVATE | MAP_FIXED,
        fd: usize::MAX,
        offset: 0,
    };
    // SAFETY: nothing is there.
    unsafe { call::mmap(args) }.unwrap();
    memory.words()[600].store(12, Relaxed);
    again().unwrap();
    assert_eq!(memory.words()[600].load(Relaxed), 12);
    assert_eq!(stat("userptr-pages"), 4);
    drop((userptr, memory));
    assert_nothing_is_left();
}

#[test]
fn who_loses_registered_pages_is_told_which_and_nobody_else() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let other = Card::open(Node::Primary).unwrap();
    let [mut events, mut others] = [&card, &other].map(|card| {
        card.set_nonblocking(true).unwrap();
        card.events()
    });
    let memory = Pages::new(4);
    let userptr = register(&card, &memory).unwrap();
    assert_eq!(events.try_next(), Ok(None));
    memory.unmap(1, 1);
    let pid = std::process::id().into();
    let revoked = |userptr: &Userptr| {
        let handle = userptr.buffer().handle();
        Event::Revoked { handle, pid }
    };
    assert_eq!(events.try_next(), Ok(Some(revoked(&userptr))));
    memory.unmap(0, 1);
    assert_eq!(events.try_next(), Ok(None), "once for all of it");
    drop((userptr, memory));
    assert_eq!(events.try_next(), Ok(None), "what was given up is no loss");

    // More than are kept for one who does not read.
    let lost: Vec<Userptr> = (0..70)
        .map(|_| {
            let memory = Pages::new(1);
            let userptr = register(&card, &memory).unwrap();
            drop(memory);
            userptr
        })
        .collect();
    for userptr in &lost[..63] {
        assert_eq!(events.try_next(), Ok(Some(revoked(userptr))));
    }
    assert_eq!(events.try_next(), Ok(Some(Event::Lost { count: 7 })));
    assert_eq!(events.try_next(), Ok(None));
    assert_eq!(others.try_next(), Ok(None));
    drop(lost);
    assert_nothing_is_left();
}

#[test]
fn four_gibibytes_less_a_page_are_one_range() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let pages = (1 << 20) - 1;
    card.set_limit(Limit::UserPagesPerUid, 1 << 20).unwrap();
    let memory = Pages::new(pages);
    let words = memory.words();
    let last = words.len() - 1;
    let some = [0, last / 3, last];
    for at in some {
        words[at].store(at as u64 + 1, Relaxed);
    }
    let userptr = register(&card, &memory).unwrap();
    assert_eq!(userptr.buffer().size(), memory.size);
    assert_eq!(stat("userptr-pages"), pages as u64);
    for at in some {
        assert_eq!(words[at].fetch_add(1, Relaxed), at as u64 + 1);
    }
    memory.unmap(pages / 2, 1);
    drop(userptr);
    assert_eq!(words[last].load(Relaxed), last as u64 + 2);
    drop(memory);
    assert_nothing_is_left();
}

#[test]
fn what_cannot_be_registered_is_as_it_was() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let memory = Pages::new(4);
    for word in memory.words() {
        word.store(5, Relaxed);
    }
    let part = |at: usize, size: usize| {
        let base = memory.base.as_ptr().wrapping_add(at);
        let part = NonNull::slice_from_raw_parts(NonNull::new(base).unwrap(), size);
        // SAFETY: refused, or as in `register`.
        unsafe { card.userptr(part, Register::new()) }
    };
    assert_eq!(errno(part(0, 0)), EINVAL);
    assert_eq!(errno(part(8, PAGE_SIZE)), EINVAL);
    assert_eq!(errno(part(0, PAGE_SIZE - 8)), EINVAL);
    assert_eq!(errno(part(0, 1 << 40)), E2BIG);
    // More than there is, a buffer's memory, what is registered already.
    assert!([EFAULT, ENOMEM].contains(&errno(part(0, 1 << 38))));
    let buffer = card.create(2 * PAGE_SIZE as u64).unwrap();
    let mapping = buffer.map().unwrap();
    let base = NonNull::new(mapping.as_ptr()).unwrap();
    let mapped = NonNull::slice_from_raw_parts(base, mapping.len());
    // SAFETY: it is refused.
    let refused = unsafe { card.userptr(mapped, Register::new()) };
    assert_eq!(errno(refused), EFAULT);
    mapping.fill(3).unwrap();
    let held = part(PAGE_SIZE, PAGE_SIZE).unwrap();
    for (at, size) in [(0, 4), (1, 1), (1, 2), (0, 2)] {
        assert_eq!(errno(part(at * PAGE_SIZE, size * PAGE_SIZE)), EFAULT);
    }
    // At the limits.
    for (limit, errno_at_it) in [
        (Limit::UserPagesPerUid, ENOMEM),
        (Limit::UserRangesPerUid, EMFILE),
    ] {
        let before = card.limit(limit).unwrap();
        card.set_limit(limit, 1).unwrap();
        assert_eq!(errno(part(2 * PAGE_SIZE, PAGE_SIZE)), errno_at_it);
        card.set_limit(limit, before).unwrap();
    }
    assert!(memory.words().iter().all(|word| word.load(Relaxed) == 5));
    drop((held, mapping, buffer, memory));
    assert_nothing_is_left();
}

#[test]
fn the_drm_call_registers_as_on_linux() {
    let here = Here::new();
    let Some(card) = here.card() else { return };
    let memory = Pages::new(3);
    memory.words()[1].store(9, Relaxed);
    let asked = |size, flags| drm::Userptr {
        user_ptr: memory.base.addr().get() as u64,
        user_size: size,
        flags,
        handle: 0,
    };
    let size = memory.size as u64;
    // SAFETY: as in `register`.
    let call = |asked| unsafe { drm::userptr(&card, asked) };
    for (asked, error) in [
        (asked(0, 0), EINVAL),
        (asked(size - 1, 0), EINVAL),
        (asked(size, 4), EINVAL),
        (asked(size, 1 << 31), ENODEV),
        (asked(1 << 62, 0), EFAULT),
    ] {
        assert_eq!(errno(call(asked)), error, "{asked:?}");
    }
    let handle = call(asked(size, 1)).unwrap().handle;
    assert_eq!(memory.words()[1].load(Relaxed), 9);
    assert_eq!(stat("userptr-pages"), 3);
    let close = drm::GemClose { handle, pad: 0 };
    drm::call(&card, "close", gem_wire::drm::GEM_CLOSE, close).unwrap();
    drop(memory);
    assert_nothing_is_left();
}

#[test]
fn a_server_that_is_gone_leaves_the_memory_alone() {
    let mut here = Here::new();
    let Some(card) = here.card() else { return };
    let (before, after) = (Pages::new(2), Pages::new(2));
    let userptr = register(&card, &before).unwrap();
    before.words()[1000].store(1, Relaxed);
    after.words()[1000].store(2, Relaxed);
    here.daemon.kill();
    assert!(register(&card, &after).is_err());
    assert_eq!(before.words()[1000].fetch_add(1, Relaxed), 1);
    assert_eq!(after.words()[1000].fetch_add(1, Relaxed), 2);
    assert!(userptr.release().is_err());
    assert_eq!(before.words()[1000].load(Relaxed), 2);
}
