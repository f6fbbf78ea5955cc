//! What the fuzz targets have found that reaches something new is sent to the server again.

mod clients;
mod requests;
#[path = "../rig/mod.rs"]
mod rig;

use gem_model::{Steps, each_of_corpus};

#[test]
fn every_request_of_the_corpus_is_answered_once() {
    each_of_corpus("sqe", requests::run);
}

#[test]
fn calls_of_the_corpus_are_answered_as_the_model_says() {
    each_of_corpus("clients", |bytes| clients::run(&Steps::of(bytes).0));
}
