//! Names, object fds, and objects whose pages are a driver's.

use super::*;

#[test]
fn a_private_object_is_shared_and_never_mapped_and_goes_back_to_the_driver() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let set_of_two = set(9, pages(2));
    let handle = device
        .create_private(open, set_of_two, Caching::Uncached)
        .unwrap();
    assert_eq!(world.events(), [Init, HandleOpen]);
    assert_eq!(device.size(open, handle), Ok(pages(2)));
    assert_eq!(device.stats().memory, pages(2));
    let offset = device.map_offset(open, handle).unwrap().get();
    let mapped = device.map(open, offset, PAGE_SIZE);
    assert_eq!(mapped, Err(Error::NotMappable));
    let fd = device.export(open, handle, WRITE).unwrap();
    assert_eq!(device.read(fd, 0, &mut [0]), Err(Error::NotMappable));
    assert_eq!(device.write(fd, 0, &[0]), Err(Error::NotMappable));
    device.close(open);
    world.events();
    device.close_object_fd(fd);
    assert_eq!(world.events(), [ObjectFree, TakeBack]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn private_pages_go_back_to_the_driver_whatever_fails() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let stranger = device.open(Node::Render).unwrap();
    let make = |device: &mut TestDevice, open, size| {
        let made = device.create_private(open, set(9, pages(size)), Caching::WriteBack);
        (made.map(Handle::get), world.events())
    };
    let unbound = make(&mut device, stranger, 1);
    assert_eq!(unbound, (Err(Error::Binding), vec![TakeBack]));
    let (refused, events) = make(&mut device, open, 501);
    assert!(matches!(refused, Err(Error::Limit(_))));
    assert_eq!(events, [TakeBack]);
    world.fail(HandleOpen, NotReady::OutOfMemory);
    let failed = make(&mut device, open, 1);
    assert_eq!(failed.1, [Init, HandleOpen, ObjectFree, TakeBack]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn an_object_fd_is_charged_to_the_open_that_made_it_until_it_is_closed() {
    let mut limits = Limits::for_clients(pages(1000));
    limits.object_fds_per_open = 1;
    limits.object_fds_per_uid = 2;
    let (_, mut device) = device_with(limits);
    let opens = [
        open(&mut device, 1),
        open(&mut device, 1),
        open(&mut device, 1),
    ];
    let handles = opens.map(|open| create(&mut device, open, 1));
    let export = |device: &mut TestDevice, n: usize| device.export(opens[n], handles[n], READ);
    let first = export(&mut device, 0).unwrap();
    let refused = LedgerError::OpenCount(Counted::ObjectFds, 1).into();
    assert_eq!(export(&mut device, 0), Err(refused));
    export(&mut device, 1).unwrap();
    let refused = LedgerError::Count(Uid(1), Counted::ObjectFds, 2).into();
    assert_eq!(export(&mut device, 2), Err(refused));
    device.close_object_fd(first);
    assert_eq!(device.open_stats(opens[0]).unwrap().object_fds, 0);
    export(&mut device, 0).unwrap();
}

#[test]
fn a_name_dies_with_the_last_handle() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 3);
    let name = device.flink(a, handle).unwrap();
    assert_eq!(device.flink(a, handle), Ok(name));
    let fd = device.export_name(b, name, READ).unwrap();
    let (second, size) = device.open_name(b, name).unwrap();
    assert_eq!(size, pages(3));
    device.close_handle(a, handle).unwrap();
    let (third, _) = device.open_name(b, name).unwrap();
    assert_ne!(third, second, "always a new handle");
    device.close(b);
    assert_eq!(device.open_name(a, name), Err(Error::NoSuchName(name)));
    assert_eq!(device.object_fd(fd).unwrap().pages, pages(3));
    assert_eq!(device.stats().names, 0);
    device.close_object_fd(fd);
    assert_eq!(counts(&device), NOTHING);
    assert_eq!(Name::new(1), Some(name));
}

#[test]
fn import_gives_the_same_handle_until_that_is_closed() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 1);
    let fd = device.export(a, handle, WRITE).unwrap();
    assert_eq!(device.import(a, fd).unwrap().0, handle, "its own export");
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    let (first, _) = device.import(b, fd).unwrap();
    let (another, _) = device.open_name(b, name).unwrap();
    device.export(b, another, WRITE).unwrap();
    assert_eq!(device.import(b, fd).unwrap().0, first);
    device.close_handle(b, first).unwrap();
    create(&mut device, b, 1);
    let (again, _) = device.import(b, fd).unwrap();
    assert_ne!(again, first, "that number is another object's now");
    assert_eq!(device.import(b, fd).unwrap().0, again);
}

#[test]
fn a_read_only_fd_gives_no_way_to_write() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 1);
    let fd = device.export(a, handle, READ).unwrap();
    let map = |device: &mut TestDevice, write| device.map_fd(fd, identity(1), 0, 1, write);
    assert_eq!(device.write(fd, 0, &[1]), Err(Error::ReadOnly));
    assert_eq!(map(&mut device, true), Err(Error::ReadOnly));
    assert_eq!(device.import(b, fd), Err(Error::ReadOnly));
    assert!(map(&mut device, false).is_ok());
    assert_eq!(device.read(fd, 0, &mut [9]), Ok(1));
}

#[test]
fn an_object_fd_keeps_an_object_alive_and_its_maker_paying() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 2);
    let fd = device.export(open, handle, WRITE).unwrap();
    device
        .map_fd(fd, identity(1), PAGE_SIZE, PAGE_SIZE, true)
        .unwrap();
    device.close(open);
    let account = *device.accounts().next().unwrap();
    assert_eq!((account.uid, account.opens), (Uid(1), 0));
    assert_eq!((account.memory, account.mapped), (pages(2), pages(1)));
    assert_eq!((account.objects, account.object_fds), (1, 1));
    device.close_object_fd(fd);
    assert_eq!(device.accounts().count(), 0);
    assert_eq!(counts(&device), NOTHING);
}
