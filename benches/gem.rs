//! What operations of the memory manager cost, at 10, 10 thousand and a million live objects:
//! look-ups, creating, naming. The pages are made up, so this is the manager alone.
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

#[divan::bench(args = LIVE)]
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
#[divan::bench(args = LIVE)]
fn look_up_among_ten(bencher: Bencher<'_, '_>, live: u32) {
    let ready = Ready::with_objects(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % 10;
        let handle = Handle::new(next * (live / 10) + 1).unwrap();
        black_box(ready.device.size(ready.open, handle))
    });
}

#[divan::bench(args = LIVE)]
fn create_and_close(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = Ready::with_objects(live);
    bencher.bench_local(|| {
        let info = gem::CreateInfo::default();
        let (handle, _) = ready.device.create(ready.open, PAGE, info).unwrap();
        ready.device.close_handle(ready.open, handle).unwrap();
    });
}

#[divan::bench(args = LIVE)]
fn flink_open_and_close(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = Ready::with_objects(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7919) % live;
        let handle = Handle::new(next + 1).unwrap();
        let name = ready.device.flink(ready.open, handle).unwrap();
        let (second, _) = ready.device.open_name(ready.other, name).unwrap();
        ready.device.close_handle(ready.other, second).unwrap();
    });
}

#[divan::bench(args = LIVE)]
fn flink_open_and_close_among_ten(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = Ready::with_objects(live);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % 10;
        let handle = Handle::new(next * (live / 10) + 1).unwrap();
        let name = ready.device.flink(ready.open, handle).unwrap();
        let (second, _) = ready.device.open_name(ready.other, name).unwrap();
        ready.device.close_handle(ready.other, second).unwrap();
    });
}

#[divan::bench(args = LIVE)]
fn map_and_unmap(bencher: Bencher<'_, '_>, live: u32) {
    let mut ready = Ready::with_objects(live);
    let mapper = gem::Mapper::Node(ready.open);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7919) % live;
        let handle = Handle::new(next + 1).unwrap();
        let offset = ready.device.map_offset(ready.open, handle).unwrap().get();
        let _ = black_box(ready.device.map(mapper, offset, PAGE, true));
        ready.device.unmap(mapper, offset, PAGE);
    });
}

/// A client that dies with this many objects mapped: the objects ended per second must not fall
/// with their number.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn close_with_everything_mapped(bencher: Bencher<'_, '_>, objects: u32) {
    bencher
        .with_inputs(|| {
            let mut ready = Ready::with_objects(objects);
            let mapper = gem::Mapper::Node(ready.open);
            for handle in (1..=objects).filter_map(Handle::new) {
                let offset = ready.device.map_offset(ready.open, handle).unwrap().get();
                ready.device.map(mapper, offset, PAGE, true).unwrap();
            }
            ready
        })
        .input_counter(move |_| ItemsCount::new(objects))
        .bench_local_refs(|ready| ready.device.close(ready.open));
}
