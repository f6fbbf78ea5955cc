//! Promises about bad input: each gets its errno, and changes nothing.

use alloc::vec;
use alloc::vec::Vec;

use gem_wire::drm::{self, CreateDumb, DestroyDumb, GemClose, GemFlink, MapDumb};
use gem_wire::native::{BASE, Call};
use libredox::flag::{O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR};
use syscall::CallFlags;
use syscall::error::{
    EACCES, EBADF, EEXIST, EINVAL, EISDIR, ENODEV, ENOENT, ENOMEM, ENOTDIR, EOPNOTSUPP,
};
use zerocopy::IntoBytes;

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{ALICE, World, count, promises};

promises![
    calls_that_are_not_in_the_table_are_refused,
    payloads_of_the_wrong_length_are_refused,
    two_fd_calls_are_for_importing_only,
    bad_handles_are_refused,
    sizes_that_cannot_be_are_refused,
    more_than_a_limit_allows_is_refused_before_anything_is_made,
    paths_that_do_not_parse_are_refused,
    operations_that_files_do_not_have_are_refused,
    a_stat_that_does_not_fit_is_refused,
    a_closed_fd_is_no_fd,
];

/// Everything that could have changed.
fn state(world: &mut dyn World) -> Vec<u64> {
    let stats = world.text("stats");
    let keys = [
        "opens",
        "objects",
        "handles",
        "object-fds",
        "names",
        "offsets",
    ];
    let pages = ["memory-pages", "mapped-pages"];
    keys.iter()
        .chain(&pages)
        .map(|key| count(&stats, key))
        .collect()
}

fn calls_that_are_not_in_the_table_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    a.create(card, PAGE).unwrap();
    let before = state(world);
    for number in [
        0x03,
        0x2d,
        0x40,
        0xa0,
        0xff,
        BASE + 0x1f,
        BASE + 1000,
        1 << 63,
        u64::MAX,
    ] {
        assert_eq!(a.words(&[card], &[number]), Err(EINVAL), "{number:#x}");
    }
    let [create, ..] = Call::GetMagic.encode();
    assert_eq!(
        a.words(&[card], &[create, 1, 0]),
        Err(EINVAL),
        "a word that must be zero"
    );
    assert_eq!(
        a.words(&[card], &[BASE + 1, PAGE, 1 << 3]),
        Err(EINVAL),
        "an unknown flag"
    );
    assert_eq!(
        a.words(&[card], &[BASE + 1, PAGE, 3]),
        Err(EINVAL),
        "flags that exclude"
    );
    assert_eq!(a.words(&[card], &[]), Err(EINVAL), "no words at all");
    let native = Call::GetMagic.encode().to_vec();
    let with_payload = Command::Call {
        fds: vec![card],
        flags: 0,
        words: native,
        payload: vec![0; 8],
    };
    assert_eq!(
        a.tell(with_payload).map(|_| ()),
        Err(EINVAL),
        "a payload where none is"
    );
    assert_eq!(state(world), before);
}

fn payloads_of_the_wrong_length_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    for (number, length) in [
        (drm::VERSION, 40),
        (drm::GEM_CLOSE, 8),
        (drm::GEM_OPEN, 16),
        (drm::GET_CAP, 16),
        (drm::MODE_CREATE_DUMB, 32),
        (drm::MODE_MAP_DUMB, 16),
    ] {
        for wrong in [0, 1, length - 1, length + 1, 4095, 4096, 8192] {
            let reply = a.drm_bytes(card, number, vec![0; wrong]);
            assert_eq!(
                reply.map(|_| ()),
                Err(EINVAL),
                "{number:#x} with {wrong} bytes"
            );
        }
    }
    // An array length that wraps around.
    let mut version = vec![0u8; 40];
    version[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    version[24..32].copy_from_slice(&1u64.to_le_bytes());
    assert_eq!(
        a.drm_bytes(card, drm::VERSION, version).map(|_| ()),
        Err(EINVAL)
    );
}

fn two_fd_calls_are_for_importing_only(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let fd = a.dup(card, "handle/1").unwrap();
    let [close, ..] = Call::Close { handle }.encode();
    assert_eq!(a.words(&[card, fd], &[close, handle.into()]), Err(EINVAL));
    assert_eq!(a.words(&[card, fd], &[drm::SET_MASTER]), Err(EINVAL));
    let [import, ..] = Call::Import.encode();
    assert_eq!(
        a.words(&[card, fd], &[import, 1]),
        Err(EINVAL),
        "a word that must be zero"
    );
    assert_eq!(a.words(&[card], &[import, 0, 0]), Err(EINVAL), "one fd");
    assert_eq!(a.words(&[card, card], &[import, 0]), Err(EINVAL));
    assert_eq!(a.call(card, Call::Size { handle }), Ok(1));
}

fn bad_handles_are_refused(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    for _ in 0..3 {
        b.create(other, PAGE).unwrap();
    }
    let closed = a.create(card, PAGE).unwrap();
    a.call(card, Call::Close { handle: closed }).unwrap();
    let before = state(world);
    for handle in [0, closed, 3, 1 << 20, u32::MAX] {
        assert_eq!(a.flink(card, handle), Err(ENOENT));
        assert_eq!(a.call(card, Call::Map { handle }), Err(ENOENT));
        assert_eq!(a.call(card, Call::Size { handle }), Err(ENOENT));
        assert_eq!(a.call(card, Call::Close { handle }), Err(EINVAL));
        assert_eq!(a.dup(card, &alloc::format!("handle/{handle}")), Err(ENOENT));
        assert_eq!(
            a.drm(card, drm::GEM_FLINK, GemFlink { handle, name: 0 }),
            Err(ENOENT)
        );
        let map = MapDumb {
            handle,
            ..MapDumb::default()
        };
        assert_eq!(a.drm(card, drm::MODE_MAP_DUMB, map), Err(ENOENT));
        assert_eq!(
            a.drm(card, drm::GEM_CLOSE, GemClose { handle, pad: 0 }),
            Err(EINVAL)
        );
        let destroy = DestroyDumb { handle };
        assert_eq!(a.drm(card, drm::MODE_DESTROY_DUMB, destroy), Err(EINVAL));
    }
    assert_eq!(state(world), before);
}

fn sizes_that_cannot_be_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    for size in [0, u64::MAX, u64::MAX - PAGE + 2] {
        assert_eq!(a.create(card, size), Err(EINVAL), "{size:#x}");
    }
    for (width, height, bpp, flags) in [
        (0, 1, 32, 0),
        (1, 0, 32, 0),
        (1, 1, 0, 0),
        (1, 1, 33, 0),
        (u32::MAX, u32::MAX, 32, 0),
        (u32::MAX, 1, 8, 0),
        (1 << 30, 1 << 30, 32, 0),
        (1, 1, 32, 1),
    ] {
        let asked = CreateDumb {
            width,
            height,
            bpp,
            flags,
            ..CreateDumb::default()
        };
        let reply = a.drm_bytes(card, drm::MODE_CREATE_DUMB, asked.as_bytes().to_vec());
        assert_eq!(
            reply.map(|_| ()),
            Err(EINVAL),
            "{width}x{height}@{bpp} {flags}"
        );
    }
    assert_eq!(count(&world.text("stats"), "objects"), 0);
}

fn more_than_a_limit_allows_is_refused_before_anything_is_made(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let node = a.open("renderD128");
    let stats = world.text("stats");
    let object = count(&stats, "limit-object-pages");
    let uid = count(&stats, "limit-memory-pages-per-uid");
    for pages in [object + 1, 1 << 31, u64::MAX / PAGE] {
        assert_eq!(a.create(node, pages * PAGE), Err(ENOMEM), "{pages} in one");
    }
    let mut used = 0;
    while used + object <= uid {
        a.create(node, object * PAGE).unwrap();
        used += object;
    }
    let before = state(world);
    assert_eq!(a.create(node, (uid - used + 1) * PAGE), Err(ENOMEM));
    assert_eq!(state(world), before);
    // Another open of the same user has the same account; another user has its own.
    let second = a.open("renderD128");
    assert_eq!(a.create(second, (uid - used + 1) * PAGE), Err(ENOMEM));
    let mut b = Puppet::of_user(world, crate::BOB);
    let other = b.open("renderD128");
    assert!(b.create(other, PAGE).is_ok());
}

fn paths_that_do_not_parse_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    for path in [
        "card1",
        "card0/",
        "objects/1",
        "clients/0",
        "clients/-1",
        "name",
        "../card0",
    ] {
        assert_eq!(a.open_as(path, O_RDONLY), Err(ENOENT), "{path}");
    }
    let long = alloc::string::String::from_utf8(vec![b'x'; 1000]).unwrap();
    assert_eq!(a.open_as(&long, O_RDONLY), Err(ENOENT));
    assert_eq!(a.open_as("stats", O_RDWR), Err(EACCES));
    assert_eq!(a.open_as("objects", O_RDWR), Err(EACCES));
    assert_eq!(a.open_as("card0", O_RDWR | O_CREAT | O_EXCL), Err(EEXIST));
    assert_eq!(a.open_as("card0", O_RDONLY | O_DIRECTORY), Err(ENOTDIR));
    let directory = a.open_as("clients", O_RDONLY | O_DIRECTORY).unwrap();
    assert_eq!(a.tell(Command::Read(directory, 10)), Err(EISDIR));
    let card = a.open("card0");
    assert_eq!(a.open_at(card, b"\xff\xfe\xfd", O_RDWR), Err(EINVAL));
    assert_eq!(
        a.open_at(card, b"name/99999999999999999999", O_RDWR),
        Err(ENOENT)
    );
    for path in ["handle/", "handle/x", "handle/01", "xyz"] {
        assert_eq!(a.dup(card, path), Err(EINVAL), "{path}");
    }
}

fn operations_that_files_do_not_have_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    assert_eq!(a.tell(Command::Read(card, 10)), Err(EINVAL));
    assert_eq!(a.tell(Command::Write(card, vec![1])), Err(EINVAL));
    let stats = a.open_as("stats", O_RDONLY).unwrap();
    assert_eq!(a.tell(Command::Write(stats, vec![1])), Err(EACCES));
    assert_eq!(a.map(stats, 0, PAGE, READ_WRITE), Err(ENODEV));
    assert_eq!(a.call(stats, Call::GetMagic), Err(EOPNOTSUPP));
    let handle = a.create(card, PAGE).unwrap();
    let fd = a.dup(card, &alloc::format!("handle/{handle}")).unwrap();
    assert_eq!(a.call(fd, Call::GetMagic), Err(EOPNOTSUPP));
    // Sending a node an fd: nothing here takes one.
    let send = Command::Call {
        fds: vec![card],
        flags: (CallFlags::FD | CallFlags::WRITE).bits() as u64,
        words: vec![0],
        payload: fd.to_le_bytes().to_vec(),
    };
    assert!(a.tell(send).is_err());
    assert_eq!(a.call(card, Call::Size { handle }), Ok(1));
}

fn a_stat_that_does_not_fit_is_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    // relibc's form of fstat, with a buffer of one byte.
    let kind = 4;
    let stat = Command::Call {
        fds: vec![card],
        flags: (CallFlags::STD_FS | CallFlags::READ).bits() as u64,
        words: vec![kind, 0, 0],
        payload: vec![0],
    };
    assert_eq!(a.tell(stat).map(|_| ()), Err(EINVAL));
    assert!(a.tell(Command::Fstat(card)).is_ok());
}

fn a_closed_fd_is_no_fd(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    a.close(card).unwrap();
    assert_eq!(a.create(card, PAGE), Err(EBADF));
    assert_eq!(a.map(card, 1 << 32, PAGE, READ_WRITE), Err(EBADF));
    assert_eq!(a.close(card), Err(EBADF));
    assert_eq!(a.create(12345, PAGE), Err(EBADF));
}
