//! Mappings: what a scheme is asked and told, in what order, and what a client can reach.

mod common;

use std::process::ExitCode;
use std::ptr;
use std::time::Duration;

use common::{Daemon, PAGE, entries, errno, open, tell_daemon, wait_for_daemon};
use gem::pages::{NotReady, PageSource};
use gem::units::Uid;
use libredox::call::{self, MmapArgs};
use syscall::data::Map;
use syscall::flag::{CallFlags, MapFlags};
use syscall::schemev2::Opcode;

fn main() -> ExitCode {
    common::main(
        entries![
            two_processes_share_the_pages,
            a_partial_unmap_tells_of_exactly_that_piece,
            the_file_stays_open_as_long_as_it_is_mapped,
            a_mapping_over_another_asks_first_and_tells_after,
            a_refused_mapping_leaves_the_old_one,
            a_read_only_mapping_has_a_read_only_file,
            an_answer_that_is_no_window_is_an_error,
            the_scheme_hears_of_absurd_sizes,
            pieces_are_told_one_after_the_other,
            a_mapping_that_was_asked_for_can_be_cancelled,
            a_new_mapping_is_never_taken_for_an_old_one,
            private_pages_are_the_clients,
            anonymous_memory_is_not_the_schemes,
        ],
        entries![
            writes_and_waits,
            reads_what_is_there,
            unmaps_the_middle,
            closes_then_unmaps,
            maps_over,
            maps_over_in_vain,
            reads_only,
            gets_no_pages,
            asks_for_absurd_sizes,
            unmaps_three_at_once,
            is_interrupted,
            maps_with_many_threads,
            writes_privately,
            maps_anonymously,
        ],
    )
}

const SHARED: u32 = libc::MAP_SHARED as u32;
const READ_WRITE: u32 = (libc::PROT_READ | libc::PROT_WRITE) as u32;

/// What a scheme sees of shared, readable, writeable.
fn shared_flags() -> u64 {
    (MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE).bits() as u64
}

fn map_with(
    fd: usize,
    size: usize,
    offset: u64,
    prot: u32,
    flags: u32,
    addr: usize,
) -> libredox::error::Result<usize> {
    let args = MmapArgs {
        addr: ptr::with_exposed_provenance_mut(addr),
        length: size,
        prot,
        flags,
        fd,
        offset,
    };
    // SAFETY: fixed addresses are only those of mappings made by the same test.
    unsafe { call::mmap(args) }.map(|address| address.expose_provenance())
}

fn map(fd: usize, pages: usize, offset: u64) -> usize {
    map_with(fd, pages * PAGE, offset, READ_WRITE, SHARED, 0).unwrap()
}

fn unmap(address: usize, pages: usize) {
    // SAFETY: the range is a mapping of the same test, which does not use it any more.
    unsafe { call::munmap(ptr::with_exposed_provenance_mut(address), pages * PAGE) }.unwrap();
}

fn peek(address: usize) -> u8 {
    // SAFETY: the address is in a mapping of the same test.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

fn poke(address: usize, byte: u8) {
    // SAFETY: the address is in a writeable mapping of the same test.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) };
}

/// Whether Linux has anything mapped at `address`.
fn is_mapped(address: usize) -> bool {
    let mut residency = 0;
    // SAFETY: mincore only looks; there is room for one page's answer.
    let result = unsafe {
        libc::mincore(
            ptr::with_exposed_provenance_mut(address),
            1,
            &raw mut residency,
        )
    };
    result == 0
}

/// Says to the scheme how far this client has come, and waits for its answer.
fn checkpoint(fd: usize) {
    call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
}

fn expect_checkpoint(daemon: &mut Daemon) {
    let call = daemon.expect(Opcode::Call);
    daemon.answer(&call, 0);
}

fn expect_unmap(daemon: &mut Daemon, id: u64, offset_pages: u64, pages: u64) {
    let unmap = daemon.expect(Opcode::Munmap);
    let page = PAGE as u64;
    assert_eq!(unmap.args[..4], [id, pages * page, 1, offset_pages * page]);
    daemon.answer(&unmap, 0);
}

fn serve_map(daemon: &mut Daemon, window: u64) {
    let prepare = daemon.expect(Opcode::MmapPrep);
    daemon.answer(&prepare, window);
}

fn two_processes_share_the_pages() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(3);
    let mut writer = daemon.client("writes_and_waits");
    daemon.serve_open(20);
    let prepare = daemon.expect(Opcode::MmapPrep);
    // The size is the client's, not rounded.
    let size = (2 * PAGE + 5) as u64;
    assert_eq!(prepare.args, [20, size, shared_flags(), PAGE as u64, 0, 0]);
    assert_eq!(prepare.caller, writer.pid());
    daemon.answer(&prepare, window);
    assert_eq!(writer.told(), "written");
    let mut byte = [0];
    daemon.pages.read(&set, 2 * PAGE as u64, &mut byte).unwrap();
    assert_eq!(byte, [42]);
    daemon.pages.write(&set, 7, &[43]).unwrap();

    let reader = daemon.client("reads_what_is_there");
    daemon.serve_open(21);
    serve_map(&mut daemon, window);
    expect_unmap(&mut daemon, 21, 0, 3);
    daemon.expect_close(21);
    daemon.finish(reader);
    drop(writer);
}

fn writes_and_waits() {
    let fd = open("x");
    let size = 2 * PAGE + 5;
    let address = map_with(fd, size, PAGE as u64, READ_WRITE, SHARED, 0).unwrap();
    poke(address + 2 * PAGE, 42);
    tell_daemon("written");
    wait_for_daemon();
}

fn reads_what_is_there() {
    let fd = open("y");
    let address = map(fd, 3, 0);
    assert_eq!(
        (peek(address + 2 * PAGE), peek(address + 7), peek(address)),
        (42, 43, 0)
    );
    unmap(address, 3);
    assert!(!is_mapped(address));
}

fn a_partial_unmap_tells_of_exactly_that_piece() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(10);
    let client = daemon.client("unmaps_the_middle");
    daemon.serve_open(20);
    serve_map(&mut daemon, window);
    expect_unmap(&mut daemon, 20, 7, 4);
    expect_checkpoint(&mut daemon);
    // What is left, when the client ends: both ends, by address.
    expect_unmap(&mut daemon, 20, 4, 3);
    expect_unmap(&mut daemon, 20, 11, 3);
    daemon.expect_close(20);
    client.finish();
}

fn unmaps_the_middle() {
    let fd = open("x");
    let address = map(fd, 10, 4 * PAGE as u64);
    unmap(address + 3 * PAGE, 4);
    assert!(is_mapped(address + 2 * PAGE) && is_mapped(address + 7 * PAGE));
    assert!(!is_mapped(address + 3 * PAGE) && !is_mapped(address + 6 * PAGE));
    // Where nothing is, nobody needs to be told.
    unmap(address + 4 * PAGE, 2);
    let null = ptr::null_mut();
    // SAFETY: both are refused.
    let refused = unsafe {
        [
            call::munmap(null, 0),
            call::munmap(null.wrapping_byte_add(1), PAGE),
        ]
    };
    assert_eq!(refused.map(errno), [libc::EINVAL; 2]);
    checkpoint(fd);
}

fn the_file_stays_open_as_long_as_it_is_mapped() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(2);
    let client = daemon.client("closes_then_unmaps");
    daemon.serve_open(20);
    daemon.serve_open(21);
    serve_map(&mut daemon, window);
    expect_checkpoint(&mut daemon);
    // The daemon may let go of the pages; who mapped them keeps them.
    daemon.pages.free(Uid(0), set);
    expect_checkpoint(&mut daemon);
    expect_unmap(&mut daemon, 20, 1, 1);
    expect_checkpoint(&mut daemon);
    let last = daemon.expect(Opcode::Munmap);
    assert!(
        daemon.next_within(Duration::from_millis(50)).is_none(),
        "not before the answer"
    );
    daemon.answer(&last, 0);
    daemon.expect_close(20);
    daemon.expect_close(21);
    daemon.finish(client);
}

fn closes_then_unmaps() {
    let (fd, other) = (open("x"), open("y"));
    let address = map(fd, 2, 0);
    call::close(fd).unwrap();
    checkpoint(other);
    checkpoint(other);
    poke(address, 1);
    unmap(address + PAGE, 1);
    checkpoint(other);
    unmap(address, 1);
}

fn a_mapping_over_another_asks_first_and_tells_after() {
    let mut daemon = Daemon::start();
    let (_, old) = daemon.object(4);
    let (new_set, new) = daemon.object(2);
    daemon.pages.write(&new_set, 0, b"new").unwrap();
    let client = daemon.client("maps_over");
    daemon.serve_open(20);
    daemon.serve_open(21);
    serve_map(&mut daemon, old);
    let prepare = daemon.expect(Opcode::MmapPrep);
    let flags = shared_flags() | MapFlags::MAP_FIXED.bits() as u64;
    assert_eq!(prepare.args[..4], [21, 2 * PAGE as u64, flags, 0]);
    daemon.answer(&prepare, new);
    expect_unmap(&mut daemon, 20, 1, 2);
    expect_checkpoint(&mut daemon);
    // At the end: the rests of the old one around the new one.
    expect_unmap(&mut daemon, 20, 0, 1);
    expect_unmap(&mut daemon, 21, 0, 2);
    daemon.expect_close(21);
    expect_unmap(&mut daemon, 20, 3, 1);
    daemon.expect_close(20);
    client.finish();
}

fn maps_over() {
    let (old, new) = (open("old"), open("new"));
    let address = map(old, 4, 0);
    poke(address, 9);
    let fixed = SHARED | libc::MAP_FIXED as u32;
    let over = map_with(new, 2 * PAGE, 0, READ_WRITE, fixed, address + PAGE).unwrap();
    assert_eq!(over, address + PAGE);
    assert_eq!((peek(address), peek(over), peek(over + 1)), (9, b'n', b'e'));
    checkpoint(old);
}

fn a_refused_mapping_leaves_the_old_one() {
    let mut daemon = Daemon::start();
    let (_, old) = daemon.object(1);
    let client = daemon.client("maps_over_in_vain");
    daemon.serve_open(20);
    serve_map(&mut daemon, old);
    let refused = daemon.expect(Opcode::MmapPrep);
    daemon.fail(&refused, libc::EACCES);
    expect_checkpoint(&mut daemon);
    expect_unmap(&mut daemon, 20, 0, 1);
    daemon.expect_close(20);
    client.finish();
}

fn maps_over_in_vain() {
    let fd = open("x");
    let address = map(fd, 1, 0);
    poke(address, 9);
    let fixed = SHARED | libc::MAP_FIXED as u32;
    assert_eq!(
        errno(map_with(fd, PAGE, 0, READ_WRITE, fixed, address)),
        libc::EACCES
    );
    let elsewhere = SHARED | libc::MAP_FIXED_NOREPLACE as u32;
    assert_eq!(
        errno(map_with(fd, PAGE, 0, READ_WRITE, elsewhere, address)),
        libc::EEXIST
    );
    assert_eq!(peek(address), 9);
    checkpoint(fd);
}

fn a_read_only_mapping_has_a_read_only_file() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(1);
    daemon.pages.write(&set, 0, b"r").unwrap();
    let client = daemon.client("reads_only");
    daemon.serve_open(20);
    serve_map(&mut daemon, window);
    let unmap = daemon.expect(Opcode::Munmap);
    assert_eq!(unmap.args[2], 0, "nothing to be synced");
    daemon.answer(&unmap, 0);
    daemon.expect_close(20);
    daemon.finish(client);
}

fn reads_only() {
    let fd = open("x");
    let address = map_with(fd, PAGE, 0, libc::PROT_READ as u32, SHARED, 0).unwrap();
    assert_eq!(peek(address), b'r');
    // SAFETY: Linux refuses it, as the file was opened for reading.
    let result = unsafe {
        let range = ptr::with_exposed_provenance_mut(address);
        libc::mprotect(range, PAGE, libc::PROT_READ | libc::PROT_WRITE)
    };
    assert_eq!(result, -1);
    unmap(address, 1);
}

fn an_answer_that_is_no_window_is_an_error() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(2);
    let client = daemon.client("gets_no_pages");
    daemon.serve_open(20);
    // Memory of the daemon's own; off its page; past the end; gone.
    let own = Box::new([0_u8; 2 * PAGE]);
    let address = (own.as_ptr() as u64).next_multiple_of(PAGE as u64);
    for base in [address, window + 8, window + PAGE as u64] {
        serve_map(&mut daemon, base);
    }
    daemon.pages.free(Uid(0), set);
    serve_map(&mut daemon, window);
    expect_checkpoint(&mut daemon);
    daemon.expect_close(20);
    client.finish();
}

fn gets_no_pages() {
    let fd = open("x");
    for expected in [libc::EIO, libc::EINVAL, libc::EIO, libc::EIO] {
        assert_eq!(
            errno(map_with(fd, 2 * PAGE, 0, READ_WRITE, SHARED, 0)),
            expected
        );
    }
    checkpoint(fd);
}

fn the_scheme_hears_of_absurd_sizes() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(1);
    let client = daemon.client("asks_for_absurd_sizes");
    daemon.serve_open(20);
    for size in [1 << 60, u64::MAX] {
        let prepare = daemon.expect(Opcode::MmapPrep);
        assert_eq!(prepare.args[1], size);
        daemon.fail(&prepare, libc::EINVAL);
    }
    let unknown = daemon.expect(Opcode::MmapPrep);
    assert_eq!(unknown.args[2..4], [1 << 40 | 1, u64::MAX - 0xfff]);
    daemon.answer(&unknown, window);
    let last = daemon.expect(Opcode::MmapPrep);
    daemon.answer(&last, window);
    for _ in 0..2 {
        let unmap = daemon.expect(Opcode::Munmap);
        assert_eq!(
            [unmap.args[1], unmap.args[3]],
            [PAGE as u64, u64::MAX - 0xfff]
        );
        daemon.answer(&unmap, 0);
    }
    daemon.expect_close(20);
    client.finish();
}

fn asks_for_absurd_sizes() {
    let fd = open("x");
    for size in [1 << 60, usize::MAX] {
        assert_eq!(
            errno(map_with(fd, size, 0, READ_WRITE, SHARED, 0)),
            libc::EINVAL
        );
    }
    for (size, offset, address) in [(0, 0, 0), (PAGE, 1, 0), (PAGE, 0, 1)] {
        let refused = map_with(fd, size, offset, READ_WRITE, SHARED, address);
        assert_eq!(errno(refused), libc::EINVAL);
    }
    assert_eq!(
        errno(map_with(77, PAGE, 0, READ_WRITE, SHARED, 0)),
        libc::EBADF
    );
    let offset = u64::MAX - 0xfff;
    let map = Map {
        offset: offset as usize,
        size: PAGE,
        flags: MapFlags::from_bits_retain(1 << 40 | 1),
        address: 0,
    };
    // SAFETY: at any address.
    unsafe { hosted::client::syscalls::fmap(fd, &map) }.unwrap();
    map_with(fd, PAGE, offset, READ_WRITE, SHARED, 0).unwrap();
    // SAFETY: ends this process without giving anything back.
    unsafe { libc::_exit(0) };
}

fn pieces_are_told_one_after_the_other() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(1);
    let mut client = daemon.client("unmaps_three_at_once");
    daemon.serve_open(20);
    for _ in 0..3 {
        serve_map(&mut daemon, window);
    }
    for _ in 0..3 {
        let unmap = daemon.expect(Opcode::Munmap);
        assert!(daemon.next_within(Duration::from_millis(20)).is_none());
        // An error is nobody's.
        daemon.fail(&unmap, libc::EIO);
    }
    assert_eq!(client.told(), "unmapped");
    daemon.expect_close(20);
    client.finish();
}

fn unmaps_three_at_once() {
    let fd = open("x");
    let range = map_with(usize::MAX, 5 * PAGE, 0, 0, libc::MAP_PRIVATE as u32, 0).unwrap();
    let fixed = SHARED | libc::MAP_FIXED as u32;
    for page in [0, 2, 4] {
        map_with(fd, PAGE, 0, READ_WRITE, fixed, range + page * PAGE).unwrap();
    }
    unmap(range, 5);
    assert!(!is_mapped(range + PAGE) && !is_mapped(range + 4 * PAGE));
    tell_daemon("unmapped");
}

fn a_mapping_that_was_asked_for_can_be_cancelled() {
    let mut daemon = Daemon::start();
    let client = daemon.client("is_interrupted");
    daemon.serve_open(20);
    let prepare = daemon.expect(Opcode::MmapPrep);
    let cancel = daemon.interrupt(&client);
    assert_eq!(cancel.tag, prepare.tag);
    daemon.fail(&prepare, libc::ECANCELED);
    expect_checkpoint(&mut daemon);
    daemon.expect_close(20);
    client.finish();
}

fn is_interrupted() {
    common::be_interruptible();
    let fd = open("x");
    assert_eq!(
        errno(map_with(fd, PAGE, 0, READ_WRITE, SHARED, 0)),
        libc::EINTR
    );
    checkpoint(fd);
}

fn a_new_mapping_is_never_taken_for_an_old_one() {
    let mut daemon = Daemon::start();
    let (_, window) = daemon.object(1);
    let client = daemon.client("maps_with_many_threads");
    let mut mapped = 0_i64;
    loop {
        let sqe = daemon.next();
        match Opcode::try_from_raw(sqe.opcode) {
            Some(Opcode::OpenAt) => daemon.answer(&sqe, 20),
            Some(Opcode::MmapPrep) => {
                mapped += 1;
                daemon.answer(&sqe, window);
            }
            Some(Opcode::Munmap) => {
                mapped -= 1;
                daemon.answer(&sqe, 0);
            }
            Some(Opcode::Call) => {
                assert_eq!(mapped, 0, "each mapping was unmapped once");
                daemon.answer(&sqe, 0);
            }
            _ => break,
        }
    }
    client.finish();
}

fn maps_with_many_threads() {
    let fd = open("x");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let address = map(fd, 1, 0);
                    poke(address, 1);
                    unmap(address, 1);
                }
            });
        }
    });
    checkpoint(fd);
}

fn private_pages_are_the_clients() {
    let mut daemon = Daemon::start();
    let (set, window) = daemon.object(1);
    let client = daemon.client("writes_privately");
    daemon.serve_open(20);
    let prepare = daemon.expect(Opcode::MmapPrep);
    assert_ne!(prepare.args[2] & MapFlags::MAP_PRIVATE.bits() as u64, 0);
    daemon.answer(&prepare, window);
    expect_checkpoint(&mut daemon);
    let mut byte = [7];
    daemon.pages.read(&set, 0, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    drop(client);
}

fn writes_privately() {
    let fd = open("x");
    let private = libc::MAP_PRIVATE as u32;
    let address = map_with(fd, PAGE, 0, READ_WRITE, private, 0).unwrap();
    poke(address, 1);
    checkpoint(fd);
}

fn anonymous_memory_is_not_the_schemes() {
    let mut daemon = Daemon::start();
    let client = daemon.client("maps_anonymously");
    daemon.serve_open(20);
    daemon.expect_close(20);
    client.finish();
    // A set's first use always has to wait.
    let request = gem::pages::PageRequest {
        owner: Uid(0),
        pages: gem::units::PageCount::new(1).unwrap(),
        caching: gem::pages::Caching::Uncached,
        contiguous: true,
        room: gem::units::PageCount::MAX,
    };
    let set = daemon.pages.allocate(request).unwrap();
    assert!(matches!(daemon.pages.window(&set), Err(NotReady::Wait(_))));
}

fn maps_anonymously() {
    let _fd = open("x");
    let private = libc::MAP_PRIVATE as u32;
    let address = map_with(usize::MAX, PAGE, 0, READ_WRITE, private, 0).unwrap();
    poke(address, 1);
    // SAFETY: the mapping is not used any more.
    let sent = std::thread::spawn(move || unmap_quietly(address));
    // The daemon answers nothing meanwhile but reads on.
    sent.join().unwrap();
}

fn unmap_quietly(address: usize) {
    unmap(address, 1);
    assert!(!is_mapped(address));
}
