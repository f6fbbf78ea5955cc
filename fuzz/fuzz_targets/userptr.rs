//! Clients' own pages, registered, taken back and waited for, compared with the model after each
//! step.

#![no_main]

use gem_model::Steps;
use gem_model::userptr::{Step, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Steps<Step>| run(&steps.0));
