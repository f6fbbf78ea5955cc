//! What each open holds, by what state it is in.

use super::*;
use crate::FEW_HOLDERS;

/// What an open holds, in pages: all, shared, active.
fn usage(device: &TestDevice, open: OpenId) -> [u64; 3] {
    let usage = device.open_stats(open).unwrap().usage;
    assert_eq!(usage.resident, usage.total);
    [usage.total, usage.shared, usage.active].map(PageCount::get)
}

#[test]
fn what_is_at_work_is_active_for_the_few_who_hold_it() {
    let (_, mut device) = device();
    let a = open(&mut device, 1);
    create(&mut device, a, 7);
    let handle = create(&mut device, a, 3);
    let name = device.flink(a, handle).unwrap();
    let object = device.begin_use(a, handle).unwrap();
    device.begin_use(a, handle).unwrap();
    assert_eq!(usage(&device, a), [10, 0, 3]);

    let mut others = Vec::new();
    for _ in 1..FEW_HOLDERS {
        let other = open(&mut device, 2);
        device.open_name(other, name).unwrap();
        device.open_name(other, name).unwrap();
        others.push(other);
    }
    assert_eq!(usage(&device, a), [10, 3, 3]);
    for &other in &others {
        assert_eq!(usage(&device, other), [3, 3, 3]);
    }
    // One too many, and it counts for nobody.
    let last = open(&mut device, 3);
    let too_many = device.open_name(last, name).unwrap().0;
    for &open in others.iter().chain([&last]) {
        assert_eq!(usage(&device, open), [3, 3, 0]);
    }
    assert_eq!(usage(&device, a), [10, 3, 0]);
    device.end_use(object);
    device.close_handle(last, too_many).unwrap();
    assert_eq!(usage(&device, a), [10, 3, 3], "the second use goes on");
    assert_eq!(usage(&device, last), [0, 0, 0]);

    // Whoever lets go has nothing of it any more, at work or not.
    for other in others {
        device.revoke(other).unwrap();
        assert_eq!(usage(&device, other), [0, 0, 0]);
    }
    assert_eq!(usage(&device, a), [10, 0, 3]);
    device.end_use(object);
    assert_eq!(usage(&device, a), [10, 0, 0]);
    device.close_handle(a, handle).unwrap();
    assert_eq!(usage(&device, a), [7, 0, 0]);
}
