//! Many clients at once that do whatever comes to them, and are killed one after the other.
//!
//! Each client draws operations by a number of its own, keeps account of what it has, and reports
//! any errno that it cannot explain on a board that all of them map. How many there are, and how
//! long it goes on, a world says ([`World::soak`]). Clients are killed at any time, or, where the world
//! wants it, at rest: between two operations, whatever they have by then. A Redox kernel as it is needs
//! that: it forgets the file of a client that is killed while its `open` or `dup` is answered.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use gem_wire::native::{Call, CreateFlags, Sized};
use libredox::Fd;
use libredox::call::{self, MmapArgs};
use libredox::error::Result;
use libredox::flag::{MAP_SHARED, O_RDWR};
use syscall::CallFlags;
use syscall::error::{EAGAIN, EINTR, EMFILE, ENFILE, ENOMEM, ENOSPC};

use crate::command::Command;
use crate::puppet::{PAGE, Platform, Puppet, READ_WRITE};
use crate::{Soak, World, promises};

promises![clients_that_do_anything_and_are_killed_leave_nothing];

/// Buffers of the board's owner: the board, and others that everybody may have.
const SHARED: usize = 5;
/// Where on the board: an errno that nobody could explain, and how many operations were done.
const UNEXPLAINED: u64 = 0;
const DONE: u64 = 8;
/// And from here on a byte for each client: whether it is to rest, and whether it does.
const PLACES: u64 = 16;
const TO_REST: u8 = 1;
const AT_REST: u8 = 2;
/// What a client has at most, of each kind.
const MOST: usize = 12;

fn clients_that_do_anything_and_are_killed_leave_nothing(world: &mut dyn World) {
    let mut crowd = Crowd::new(world);
    let mut all: Vec<_> = (0..crowd.soak.clients)
        .map(|place| crowd.start(world, PLACES + place as u64))
        .collect();
    let mut killed = 0;
    while world.soaks_on(killed) {
        world.pause();
        let victim = all.swap_remove(crowd.dice.below(all.len()));
        let place = victim.place;
        crowd.kill(world, victim);
        all.push(crowd.start(world, place));
        killed += 1;
        crowd.expect_no_error();
    }
    // Nobody has been kept from working.
    let done = crowd.done();
    while crowd.done() < done + 100 {
        world.pause();
    }
    for client in all {
        crowd.kill(world, client);
    }
    crowd.expect_no_error();
    crowd.expect_its_board();
}

/// The board's owner, and what it takes to start and kill the others.
struct Crowd {
    soak: Soak,
    owner: Puppet,
    card: u64,
    board: u64,
    names: Vec<u32>,
    dice: Dice,
}

struct Member {
    puppet: Puppet,
    place: u64,
}

impl Crowd {
    fn new(world: &mut dyn World) -> Self {
        let soak = world.soak();
        assert!(soak.clients > 0 && PLACES + soak.clients as u64 <= PAGE);
        let mut owner = Puppet::new(world);
        let card = owner.open("card0");
        let mut names = Vec::new();
        for _ in 0..SHARED {
            let handle = owner.create(card, 2 * PAGE).unwrap();
            names.push(owner.flink(card, handle).unwrap());
        }
        Self {
            soak,
            board: owner.map_handle(card, BOARD, 2 * PAGE).unwrap(),
            owner,
            card,
            names,
            dice: Dice(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn start(&mut self, world: &mut dyn World, place: u64) -> Member {
        self.owner.poke(self.board + place, 0);
        let mut puppet = Puppet::new(world);
        let (seed, names) = (self.dice.next(), self.names.clone());
        puppet.begin(Command::Soak { seed, place, names });
        Member { puppet, place }
    }

    fn kill(&mut self, world: &mut dyn World, member: Member) {
        let at = self.board + member.place;
        if self.soak.at_rest {
            self.owner.poke(at, TO_REST);
            while self.owner.peek(at) != AT_REST {
                world.pause();
            }
        }
        member.puppet.kill();
    }

    /// What the clients have done together.
    fn done(&mut self) -> u64 {
        let at = self.board + DONE;
        let bytes = (at..at + 8).map(|at| self.owner.peek(at));
        bytes
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(byte))
    }

    fn expect_no_error(&mut self) {
        // Each of them fits into a byte.
        assert_eq!(self.owner.peek(self.board + UNEXPLAINED), 0, "an errno");
    }

    fn expect_its_board(&mut self) {
        let handle = BOARD;
        assert_eq!(self.owner.call(self.card, Call::Size { handle }), Ok(2));
    }
}

/// The owner's handle of the board, its first.
const BOARD: u32 = 1;

/// Numbers that look random and are the same every time (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        let index = self.below(from.len());
        (!from.is_empty()).then(|| from.swap_remove(index))
    }
}

/// In the client process: goes on until killed. Returns where it cannot even begin.
pub(crate) fn run(
    seed: u64,
    place: u64,
    names: Vec<u32>,
    platform: &mut dyn Platform,
) -> Result<()> {
    let mut client = loop {
        match Client::new(seed, place, names.clone()) {
            Err(error) if is_shortage(error.errno()) => platform.pass(),
            client => break client?,
        }
    };
    loop {
        if client.board.place.load(Relaxed) == TO_REST {
            client.board.place.store(AT_REST, Relaxed);
            loop {
                platform.pass();
            }
        }
        if let Err(error) = client.act() {
            match error.errno() {
                errno if is_shortage(errno) => client.shrink(),
                errno => client.board.unexplained.store(errno as u64, Relaxed),
            }
        }
        client.board.done.fetch_add(1, Relaxed);
    }
}

/// Others have what there is, or a limit is reached.
fn is_shortage(errno: i32) -> bool {
    [ENOMEM, EMFILE, ENFILE, EAGAIN, EINTR].contains(&errno)
}

/// What a client sees of the board.
struct Board {
    unexplained: &'static AtomicU64,
    done: &'static AtomicU64,
    place: &'static AtomicU8,
}

struct Client {
    dice: Dice,
    names: Vec<u32>,
    board: Board,
    card: Fd,
    render: Fd,
    handles: Vec<(u32, u64)>,
    objects: Vec<(usize, u64)>,
    mappings: Vec<(usize, u64)>,
}

impl Client {
    fn new(seed: u64, place: u64, names: Vec<u32>) -> Result<Self> {
        let card = Fd::open("/scheme/gem/card0", O_RDWR, 0)?;
        let render = Fd::open("/scheme/gem/renderD128", O_RDWR, 0)?;
        let name = names[0];
        let handle = Sized::unpack(native(card.raw(), Call::Open { name })?).handle;
        let offset = native(card.raw(), Call::Map { handle })?;
        let at = map(card.raw(), offset, PAGE)?;
        // SAFETY: a page was mapped there, and is never unmapped; others use it as this does.
        let board = unsafe {
            Board {
                unexplained: AtomicU64::from_ptr((at + UNEXPLAINED as usize) as *mut u64),
                done: AtomicU64::from_ptr((at + DONE as usize) as *mut u64),
                place: AtomicU8::from_ptr((at + place as usize) as *mut u8),
            }
        };
        Ok(Self {
            dice: Dice(seed | 1),
            names,
            board,
            card,
            render,
            handles: Vec::new(),
            objects: Vec::new(),
            mappings: Vec::new(),
        })
    }

    fn act(&mut self) -> Result<()> {
        match self.dice.below(12) {
            0 | 1 => self.create(),
            2 => self.open_by_name(),
            3 => self.map_handle(),
            4 => self.export(),
            5 => self.import(),
            6 => self.copy(),
            7 => self.map_object(),
            8 => self.look(),
            9 => self.unmap(),
            10 => self.close_object(),
            _ => self.close_handle(),
        }
    }

    /// Lets go of one of everything.
    fn shrink(&mut self) {
        // What these answer shows in what comes next.
        let _ = self.unmap();
        let _ = self.close_object();
        let _ = self.close_handle();
    }

    fn keep(&mut self, packed: u64) -> Result<()> {
        let Sized { handle, pages } = Sized::unpack(packed);
        self.handles.push((handle, u64::from(pages) * PAGE));
        if self.handles.len() > MOST {
            self.close_handle()?;
        }
        Ok(())
    }

    fn create(&mut self) -> Result<()> {
        let size = (1 + self.dice.below(32) as u64) * PAGE;
        let flags = CreateFlags::empty();
        self.keep(native(self.card.raw(), Call::Create { size, flags })?)
    }

    fn open_by_name(&mut self) -> Result<()> {
        // Not the board itself, which would be written over.
        let name = self.names[1 + self.dice.below(self.names.len() - 1)];
        self.keep(native(self.card.raw(), Call::Open { name })?)
    }

    fn map_handle(&mut self) -> Result<()> {
        let Some(&(handle, size)) = self.handles.get(self.dice.below(MOST)) else {
            return Ok(());
        };
        let offset = native(self.card.raw(), Call::Map { handle })?;
        self.keep_mapping(map(self.card.raw(), offset, size)?, size)
    }

    fn map_object(&mut self) -> Result<()> {
        let Some(&(object, size)) = self.objects.get(self.dice.below(MOST)) else {
            return Ok(());
        };
        self.keep_mapping(map(object, size - PAGE, PAGE)?, PAGE)
    }

    fn keep_mapping(&mut self, address: usize, size: u64) -> Result<()> {
        let last = address + size as usize - 1;
        // SAFETY: mapped until `unmap` below, and any byte is one.
        unsafe { (last as *mut u8).write_volatile(1) };
        self.mappings.push((address, size));
        if self.mappings.len() > MOST {
            self.unmap()?;
        }
        Ok(())
    }

    fn unmap(&mut self) -> Result<()> {
        let Some((address, size)) = self.dice.take(&mut self.mappings) else {
            return Ok(());
        };
        let half = (size / 2).next_multiple_of(PAGE);
        let parts = [(address, half), (address + half as usize, size - half)];
        for (address, size) in parts.into_iter().filter(|(_, size)| *size > 0) {
            // SAFETY: nobody uses it any more.
            unsafe { call::munmap(address as *mut (), size as usize)? };
        }
        Ok(())
    }

    fn export(&mut self) -> Result<()> {
        let Some(&(handle, size)) = self.handles.get(self.dice.below(MOST)) else {
            return Ok(());
        };
        let object = call::dup(self.card.raw(), format!("handle/{handle}"))?;
        self.objects.push((object, size));
        if self.objects.len() > MOST {
            self.close_object()?;
        }
        Ok(())
    }

    fn import(&mut self) -> Result<()> {
        let Some(&(object, _)) = self.objects.get(self.dice.below(MOST)) else {
            return Ok(());
        };
        let words = Call::Import.encode();
        let fds: &[usize] = &[self.render.raw(), object];
        let empty = CallFlags::empty();
        let packed = call::call_rw(fds, &mut [], empty, &words[..2])? as u64;
        // The render node's handles are other numbers: this one is closed at once, but for some.
        if self.dice.below(2) == 0 {
            let handle = Sized::unpack(packed).handle;
            native(self.render.raw(), Call::Close { handle })?;
        }
        Ok(())
    }

    fn copy(&mut self) -> Result<()> {
        let Some(&(object, _)) = self.objects.get(self.dice.below(MOST)) else {
            return Ok(());
        };
        match call::write(object, &[2; 300]) {
            // Its position has come to its end.
            Err(error) if error.errno() == ENOSPC => return Ok(()),
            result => result?,
        };
        call::read(object, &mut [0; 300]).map(drop)
    }

    fn look(&mut self) -> Result<()> {
        let path = ["stats", "objects", "clients"][self.dice.below(3)];
        let file = call::open(String::from("/scheme/gem/") + path, 0, 0);
        let Ok(file) = file else {
            return Ok(());
        };
        if path != "clients" {
            call::read(file, &mut vec![0; 700])?;
        }
        call::close(file)?;
        Ok(())
    }

    fn close_object(&mut self) -> Result<()> {
        let object = self.dice.take(&mut self.objects);
        object.map_or(Ok(()), |(object, _)| call::close(object).map(drop))
    }

    fn close_handle(&mut self) -> Result<()> {
        let handle = self.dice.take(&mut self.handles);
        handle.map_or(Ok(()), |(handle, _)| {
            native(self.card.raw(), Call::Close { handle }).map(drop)
        })
    }
}

fn native(fd: usize, call: Call) -> Result<u64> {
    let answer = call::call_rw(fd, &mut [], CallFlags::empty(), &call.encode())?;
    Ok(answer as u64)
}

fn map(fd: usize, offset: u64, size: u64) -> Result<usize> {
    let args = MmapArgs {
        addr: core::ptr::null_mut(),
        length: size as usize,
        prot: READ_WRITE,
        flags: MAP_SHARED,
        fd,
        offset,
    };
    // SAFETY: the kernel chooses an address where nothing is.
    unsafe { call::mmap(args) }.map(|at| at as usize)
}
