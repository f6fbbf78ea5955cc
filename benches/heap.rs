//! How much heap the memory manager takes for an object and for a handle, and how often it
//! allocates when nothing grows any more. Prints a table; gates nothing.

#[path = "world/mod.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gem::units::{Handle, Name};
use world::{PAGE, Ready};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A power of two, so that vectors have grown exactly as far as they need: the figure is what an
/// object takes, not where in its growth a vector happens to be.
const MANY: u32 = 1 << 20;

fn main() {
    let mut ready = Ready::with_objects(1);
    let name = name_of_first(&mut ready);
    let before = LIVE.load(Relaxed);
    for _ in 1..MANY {
        ready.create();
    }
    let objects = (LIVE.load(Relaxed) - before) as f64 / f64::from(MANY);
    let before = LIVE.load(Relaxed);
    for _ in 0..MANY {
        ready.device.open_name(ready.other, name).unwrap();
    }
    let handles = (LIVE.load(Relaxed) - before) as f64 / f64::from(MANY);
    println!("heap for a handle                {handles:7.1} bytes");
    println!(
        "heap for an object (no handle)   {:7.1} bytes",
        objects - handles
    );

    steady("look-up", || {
        let _ = ready.device.size(ready.open, Handle::new(77).unwrap());
    });
    steady("close and open again by name", || {
        let handle = Handle::new(1000).unwrap();
        ready.device.close_handle(ready.other, handle).unwrap();
        ready.device.open_name(ready.other, name).unwrap();
    });
    steady("close the highest and open again", || {
        let handle = Handle::new(MANY).unwrap();
        ready.device.close_handle(ready.other, handle).unwrap();
        ready.device.open_name(ready.other, name).unwrap();
    });
    let third = world::open(&mut ready.device, 3);
    let fourth = world::open(&mut ready.device, 4);
    ready.device.open_name(third, name).unwrap();
    steady("a fourth holder comes and goes", || {
        let (handle, _) = ready.device.open_name(fourth, name).unwrap();
        ready.device.close_handle(fourth, handle).unwrap();
    });
    steady("close and create again", || {
        let handle = Handle::new(1000).unwrap();
        ready.device.close_handle(ready.open, handle).unwrap();
        let info = gem::CreateInfo::default();
        ready.device.create(ready.open, PAGE, info).unwrap();
    });
}

fn name_of_first(ready: &mut Ready) -> Name {
    let first = Handle::new(1).unwrap();
    ready.device.flink(ready.open, first).unwrap()
}

fn steady(what: &str, mut operation: impl FnMut()) {
    const ROUNDS: usize = 10_000;
    // The first round may still make room for the free numbers.
    operation();
    let before = CALLS.load(Relaxed);
    for _ in 0..ROUNDS {
        operation();
    }
    let calls = CALLS.load(Relaxed) - before;
    println!("allocations in {ROUNDS} x {what:<30} {calls}");
}
