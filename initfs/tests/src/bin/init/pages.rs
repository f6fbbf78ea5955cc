//! Promises of the page source: what gemd builds its objects on.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use gem::pages::{Caching, NotReady, PageRequest, PageSet, PageSource};
use gem::units::{PAGE_SIZE, PageCount, Uid};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use platform::Pages;
use rt::time::{Instant, sleep};

use crate::frames::free;
use crate::{Broken, Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "pages_of_every_kind_read_as_zero_and_lie_where_they_are_said_to",
        keep: kinds,
    },
    Promise {
        name: "pages_that_come_back_are_cleared_and_used_again",
        keep: reuse,
    },
    Promise {
        name: "users_never_share_pages",
        keep: users,
    },
    Promise {
        name: "large_pieces_do_not_keep_small_ones_waiting",
        keep: fairness,
    },
    Promise {
        name: "more_memory_than_there_is_is_refused",
        keep: exhaustion,
    },
    Promise {
        name: "pages_that_nobody_uses_go_back_to_the_kernel",
        keep: giving_back,
    },
];

const USER: Uid = Uid(1000);
const IDLE: Duration = Duration::from_millis(100);
const KINDS: [(Caching, bool); 6] = [
    (Caching::WriteBack, false),
    (Caching::WriteBack, true),
    (Caching::WriteCombining, false),
    (Caching::WriteCombining, true),
    (Caching::Uncached, false),
    (Caching::Uncached, true),
];

/// A page source, and how a server would use it: ask, wait, ask again.
struct Source {
    pages: Pages,
}

impl Source {
    fn new() -> Result<Self, Broken> {
        let pages = Pages::new(IDLE).map_err(in_call("start the page source"))?;
        Ok(Self { pages })
    }

    fn get(&mut self, request: PageRequest) -> Result<PageSet, Broken> {
        let end = Instant::now().after(Duration::from_secs(120));
        while Instant::now() < end {
            match self.pages.allocate(request) {
                Ok(set) => return Ok(set),
                Err(NotReady::Wait(_)) => {
                    let _ = syscall::sched_yield();
                    self.pages.finished(&mut Vec::new());
                }
                Err(other) => return Err(Broken::Differs("allocate", format!("{other:?}"))),
            }
        }
        Err(Broken::Differs("allocate", "it takes too long".into()))
    }

    fn address(&mut self, set: &PageSet) -> Result<u64, Broken> {
        match self.pages.window(set) {
            Ok(window) => Ok(window.get() as u64),
            Err(other) => Err(Broken::Differs("window", format!("{other:?}"))),
        }
    }

    fn first_bytes(&mut self, set: &PageSet) -> Vec<u8> {
        let mut bytes = vec![0xAA; (set.pages().get() * PAGE_SIZE) as usize];
        if self.pages.read(set, 0, &mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    fn drain(&mut self, time: Duration) {
        let end = Instant::now().after(time);
        while Instant::now() < end {
            self.pages.finished(&mut Vec::new());
            sleep(Duration::from_millis(5));
        }
    }

    fn drain_until_unmapped(&mut self) {
        let end = Instant::now().after(Duration::from_secs(60));
        while self.pages.mapped() > 0 && Instant::now() < end {
            self.drain(IDLE);
        }
    }
}

impl Drop for Source {
    /// Gives everything back, so that the next promise finds the machine as this one did.
    fn drop(&mut self) {
        self.drain_until_unmapped();
    }
}

fn request(owner: Uid, pages: u64) -> PageRequest {
    PageRequest {
        owner,
        pages: PageCount::new(pages).unwrap_or_default(),
        caching: Caching::WriteBack,
        contiguous: false,
        room: PageCount::MAX,
    }
}

/// Where the kernel says that a page lies.
pub fn locate(address: u64) -> Result<u64, Broken> {
    let translation = Fd::open("/scheme/memory/translation", O_RDONLY, 0)
        .map_err(|error| Broken::Call("open the translation", error.into()))?;
    let mut word = address.to_ne_bytes();
    let flags = syscall::CallFlags::empty();
    libredox::call::call_rw(translation.raw(), &mut word, flags, &[])
        .map_err(|error| Broken::Call("translate", error.into()))?;
    Ok(u64::from_ne_bytes(word))
}

fn kinds() -> Outcome {
    let mut source = Source::new()?;
    for (caching, contiguous) in KINDS {
        let wanted = PageRequest {
            caching,
            contiguous,
            ..request(USER, 5)
        };
        let set = source.get(wanted)?;
        let zero = source.first_bytes(&set).iter().all(|&byte| byte == 0);
        expect("whether all is zero", zero, true)?;
        let mut address = source.address(&set)?;
        for run in set.extents() {
            for page in 0..run.pages.get() {
                let place = run.start.get() + page * PAGE_SIZE;
                expect("where a page lies", locate(address)?, place)?;
                address += PAGE_SIZE;
            }
        }
        if contiguous {
            expect("runs of a contiguous set", set.extents().len(), 1)?;
        }
        source.pages.free(USER, set);
    }
    Ok(())
}

fn reuse() -> Outcome {
    let mut source = Source::new()?;
    // Many are cleared when they come back, a few when they go out again.
    for pages in [512, 3] {
        let all = source.get(request(USER, pages))?;
        let key = all.key();
        let written = source.pages.write(&all, 3, b"secret");
        expect("writing", written, Ok(()))?;
        source.pages.free(USER, all);
        let again = source.get(request(USER, pages))?;
        expect("the address", again.key(), key)?;
        let zero = source.first_bytes(&again).iter().all(|&byte| byte == 0);
        expect("whether all is zero", zero, true)?;
        source.pages.free(USER, again);
    }
    Ok(())
}

fn users() -> Outcome {
    let mut source = Source::new()?;
    let mine = source.get(request(Uid(1), 3))?;
    let own = mine.extents().to_vec();
    source.pages.free(Uid(1), mine);
    source.drain(Duration::from_millis(20));
    let yours = source.get(request(Uid(2), 600))?;
    for run in yours.extents() {
        let apart = own.iter().all(|other| {
            let end = |run: &gem::pages::Extent| run.start.get() + run.pages.bytes();
            end(run) <= other.start.get() || end(other) <= run.start.get()
        });
        expect("whether frames are apart", apart, true)?;
    }
    source.pages.free(Uid(2), yours);
    Ok(())
}

fn fairness() -> Outcome {
    let mut source = Source::new()?;
    let large = request(Uid(1), 16_384);
    let asked = source.pages.allocate(large);
    expect("whether 64 MiB have to wait", asked.is_err(), true)?;
    let small = source.get(request(Uid(2), 1))?;
    let still = source.pages.allocate(large);
    expect("whether 64 MiB still wait", still.is_err(), true)?;
    let large = source.get(large)?;
    source.pages.free(Uid(1), large);
    source.pages.free(Uid(2), small);
    Ok(())
}

fn exhaustion() -> Outcome {
    let mut source = Source::new()?;
    let left = free()?;
    refused(&mut source, left + 1)?;
    // Filling a large machine takes minutes in emulation.
    if left > 1 << 18 {
        return Ok(());
    }
    let eighth = request(USER, left / 8);
    let kept: Vec<_> = (0..7)
        .map(|_| source.get(eighth))
        .collect::<Result<_, _>>()?;
    refused(&mut source, left / 8)?;
    let small = source.get(request(USER, 1))?;
    for set in kept.into_iter().chain([small]) {
        source.pages.free(USER, set);
    }
    Ok(())
}

fn refused(source: &mut Source, pages: u64) -> Outcome {
    match source.get(request(USER, pages)) {
        Err(Broken::Differs(_, reason)) if reason == "OutOfMemory" => Ok(()),
        Err(other) => Err(other),
        Ok(_) => Err(Broken::Differs("allocate", "there is always more".into())),
    }
}

fn giving_back() -> Outcome {
    let mut source = Source::new()?;
    let mut before = 0;
    // The first round leaves page tables and heap behind that the second one finds.
    for round in 0..3 {
        let now = free()?;
        if round == 2 {
            let lost = before - now.min(before);
            return expect("frames lost", lost, 0);
        }
        before = now;
        let sets: Vec<_> = (1..6)
            .map(|uid| source.get(request(Uid(uid), 700)))
            .collect::<Result<_, _>>()?;
        let taken = before - free()?.min(before);
        expect("whether pages are taken", taken >= 5 * 700, true)?;
        for (uid, set) in (1..).zip(sets) {
            source.pages.free(Uid(uid), set);
        }
        source.drain_until_unmapped();
        expect("pages mapped", source.pages.mapped(), 0)?;
    }
    Ok(())
}
