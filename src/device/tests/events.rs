//! Who is told what, and what lives while something is at work on it.

use super::*;
use crate::{EVENT_CAPACITY, Event, Pressure};

fn read_all(device: &mut TestDevice, open: OpenId) -> Vec<Event> {
    core::iter::from_fn(|| device.next_event(open).unwrap()).collect()
}

#[test]
fn an_event_reaches_its_open_and_no_other() {
    let (_, mut device) = device();
    let [a, b] = [1, 1].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 1);
    create(&mut device, b, 1);
    let by = Some(Pid(7));
    device.post_revoked(a, handle, by);
    device.post_evicted(a, handle);
    assert!(device.has_events(a) && !device.has_events(b));
    let news = device.take_news();
    assert_eq!(news.readable, [a], "once, until it has read everything");
    assert!(!news.announced);
    assert_eq!(
        read_all(&mut device, a),
        [Event::Revoked { handle, by }, Event::Evicted { handle }]
    );
    assert_eq!(read_all(&mut device, b), []);
    device.post_evicted(a, handle);
    assert_eq!(device.take_news().readable, [a]);
}

#[test]
fn an_announcement_reaches_every_open_that_was_there() {
    let (_, mut device) = device();
    let before = [1, 2].map(|uid| open(&mut device, uid));
    device.announce_limit(9, 100);
    device.announce_pressure(Pressure::Critical, pages(3));
    assert!(device.take_news().announced);
    let later = open(&mut device, 1);
    let limit = Event::LimitChanged {
        limit: 9,
        value: 100,
    };
    let pressure = Event::Pressure {
        level: Pressure::Critical,
        free: pages(3),
    };
    for open in before {
        assert!(device.has_events(open));
        assert_eq!(read_all(&mut device, open), [limit, pressure]);
    }
    assert!(!device.has_events(later));
    assert!(!device.take_news().announced, "told once");
}

#[test]
fn opens_that_never_read_cost_no_more_for_being_told_more() {
    let (_, mut device) = device();
    let opens = [1; 10].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, opens[0], 1);
    for value in 0..1000 {
        device.announce_limit(1, value);
        device.post_evicted(opens[0], handle);
    }
    let events = read_all(&mut device, opens[0]);
    // The newest announcement beside them.
    assert_eq!(events.len(), EVENT_CAPACITY + 1);
    let lost = 1000 - (EVENT_CAPACITY as u64 - 1);
    assert!(events.contains(&Event::Lost { count: lost }));
    assert_eq!(read_all(&mut device, opens[1]).len(), 1);
    assert_eq!(device.take_news().readable, [opens[0]]);
}

#[test]
fn a_closed_or_revoked_open_is_told_nothing() {
    let (_, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 1);
    device.post_evicted(a, handle);
    device.post_evicted(b, handle);
    device.revoke(a).unwrap();
    device.close(b);
    device.take_news();
    device.post_evicted(a, handle);
    device.post_evicted(b, handle);
    device.announce_limit(1, 1);
    assert!(device.take_news().readable.is_empty());
    assert!(!device.has_events(a) && !device.has_events(b));
    assert_eq!(device.next_event(a), Err(Error::Revoked));
    assert_eq!(device.next_event(b), Err(Error::NoSuchOpen));
}

#[test]
fn an_object_lives_while_something_is_at_work_on_it() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 2);
    let fd = device.export(open, handle, READ).unwrap();
    assert_eq!(device.working(fd), Ok(None));
    let object = device.begin_use(open, handle).unwrap();
    assert_eq!(device.begin_use(open, handle), Ok(object));
    let working = device.working(fd).unwrap();
    assert_eq!(working.map(|working| working.object), Some(object));
    device.close(open);
    device.end_use(object);
    assert_eq!(device.working(fd), Ok(working));
    assert_eq!(device.take_news().idle, []);
    device.close_object_fd(fd);
    assert_eq!(counts(&device), (1, 0, 0, 0, 0, 2, 0));
    device.end_use(object);
    assert_eq!(device.take_news().idle, [object]);
    assert_eq!(counts(&device), NOTHING);
    device.end_use(object);
    assert_eq!(device.take_news().idle, [], "it is no more");
}

#[test]
fn who_waits_for_an_object_can_tell_that_it_was_idle_meanwhile() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 1);
    let fd = device.export(open, handle, READ).unwrap();
    let object = device.begin_use(open, handle).unwrap();
    let first = device.working(fd).unwrap();
    device.end_use(object);
    device.begin_use(open, handle).unwrap();
    let second = device.working(fd).unwrap();
    assert!(second.is_some() && second != first);
    device.tear_down();
}

#[test]
fn nothing_is_left_when_a_device_ends_amid_work() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 1);
    device.begin_use(open, handle).unwrap();
    device.tear_down();
    assert!(world.0.borrow().bytes.is_empty());
}
