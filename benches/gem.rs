//! What operations of the memory manager cost, at 10, 10 thousand and a million live objects:
//! look-ups, creating, naming, mapping. The pages are made up, so this is the manager alone. Names
//! and offsets that are made on first use were made before, so that every round does the same.
//!
//! divan counts allocations too; in steady state there should be none for look-ups and for
//! handles and objects that come into used slots again.

#[path = "world/mod.rs"]
mod world;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use gem::units::Handle;

use world::{PAGE, Ready};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const LIVE: [u32; 3] = [10, 10_000, 1_000_000];

fn main() {
    divan::main();
}

fn handles(count: u32) -> impl Iterator<Item = Handle> {
    (1..=count).filter_map(Handle::new)
}

/// Objects that have a name each.
fn with_names(live: u32) -> Ready {
    let mut ready = Ready::with_objects(live);
    for handle in handles(live) {
        ready.device.flink(ready.open, handle).unwrap();
    }
    ready
}

/// Objects that have a fake offset each.
fn with_offsets(live: u32) -> Ready {
    let mut ready = Ready::with_objects(live);
    for handle in handles(live) {
        ready.device.map_offset(ready.open, handle).unwrap();
    }
    ready
}

#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn look_up(bencher: Bencher<'_, '_>, live: u32) {
    let ready = Ready::with_objects(live);
    let mut next = 0;
    bencher.bench_local(|| {
        // A stride that visits all handles, in no useful order.
        next = (next + 7919) % live;
        let handle = Handle::new(next + 1).unwrap();
        black_box(ready.device.size(ready.open, handle))
    });
}

/// The same among the same few objects: what is left is not the caches' doing.
#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn look_up_among_ten(bencher: Bencher<'_, '_>, live: u32) {
    let ready = Ready::with_objects(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % 10;
        let handle = Handle::new(next * (live / 10) + 1).unwrap();
        black_box(ready.device.size(ready.open, handle))
    });
}

#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn create_and_close(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = Ready::with_objects(live);
    bencher.bench_local(|| {
        let info = gem::CreateInfo::default();
        let (handle, _) = ready.device.create(ready.open, PAGE, info).unwrap();
        ready.device.close_handle(ready.open, handle).unwrap();
    });
}

#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn flink_open_and_close(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = with_names(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7919) % live;
        let handle = Handle::new(next + 1).unwrap();
        let name = ready.device.flink(ready.open, handle).unwrap();
        let (second, _) = ready.device.open_name(ready.other, name).unwrap();
        ready.device.close_handle(ready.other, second).unwrap();
    });
}

#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn flink_open_and_close_among_ten(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = with_names(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % 10;
        let handle = Handle::new(next * (live / 10) + 1).unwrap();
        let name = ready.device.flink(ready.open, handle).unwrap();
        let (second, _) = ready.device.open_name(ready.other, name).unwrap();
        ready.device.close_handle(ready.other, second).unwrap();
    });
}

#[divan::bench(args = LIVE, sample_size = 1000, sample_count = 100)]
fn map_and_unmap(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = with_offsets(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7919) % live;
        let handle = Handle::new(next + 1).unwrap();
        let offset = ready.device.map_offset(ready.open, handle).unwrap().get();
        let _ = black_box(ready.device.map(ready.open, offset, PAGE));
        ready.device.unmap(ready.open, offset, PAGE);
    });
}

/// A client that dies with this many objects mapped: the objects ended per second must not fall
/// with their number.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn close_with_everything_mapped(bencher: Bencher<'_, '_>, objects: u32) {
    bencher
        .with_inputs(|| {
            let mut ready = with_offsets(objects);
            for handle in handles(objects) {
                let offset = ready.device.map_offset(ready.open, handle).unwrap().get();
                ready.device.map(ready.open, offset, PAGE).unwrap();
            }
            ready
        })
        .input_counter(move |_| ItemsCount::new(objects))
        .bench_local_refs(|ready| ready.device.close(ready.open));
}
