//! Calls of several clients that share buffers, compared with the model after each.

#![no_main]

use gem_model::Steps;
use gem_model::clients::{Step, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Steps<Step>| run(&steps.0));
