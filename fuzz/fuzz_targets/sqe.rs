//! Raw requests against the whole server.

#![no_main]

#[path = "../../scheme/tests/fuzz/requests.rs"]
mod requests;
#[path = "../../scheme/tests/rig/mod.rs"]
mod rig;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| requests::run(data));
