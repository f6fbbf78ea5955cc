//! The steps of `clients` as requests to the whole server, which answers as the model says.

#![no_main]

#[path = "../../scheme/tests/fuzz/clients.rs"]
mod clients;
#[path = "../../scheme/tests/rig/mod.rs"]
mod rig;

use gem_model::Steps;
use gem_model::clients::Step;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Steps<Step>| clients::run(&steps.0));
