//! The steps that the fuzz targets have found to reach something new are taken again.

use gem_model::{Steps, clients, each_of_corpus, userptr};

#[test]
fn buffers_are_as_the_model_says_for_the_whole_corpus() {
    each_of_corpus("clients", |bytes| clients::run(&Steps::of(bytes).0));
}

#[test]
fn clients_own_pages_are_as_the_model_says_for_the_whole_corpus() {
    each_of_corpus("userptr", |bytes| userptr::run(&Steps::of(bytes).0));
}
