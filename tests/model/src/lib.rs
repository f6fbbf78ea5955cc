//! Reference models of the memory manager, and random steps to take with it and with them.
//!
//! A model is a list of what there is, with everybody's names written out. It knows nothing of
//! slots, bitmaps, lists or ledgers, and is slow on purpose. After each step every count is compared;
//! at the end nothing may be left. The property tests and the fuzz targets take the same steps.

pub mod clients;
pub mod userptr;
pub mod world;

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};

/// Steps that a fuzzer's bytes make: one after the other until there are no more bytes.
#[derive(Debug)]
pub struct Steps<S>(pub Vec<S>);

impl<'a, S: Arbitrary<'a>> Arbitrary<'a> for Steps<S> {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut steps = Vec::new();
        while !u.is_empty() {
            steps.push(u.arbitrary()?);
        }
        Ok(Self(steps))
    }
}

impl<S: for<'a> Arbitrary<'a>> Steps<S> {
    /// The steps that these bytes of a corpus make.
    pub fn of(bytes: &[u8]) -> Self {
        Self::arbitrary_take_rest(Unstructured::new(bytes)).expect("any bytes make steps")
    }
}

/// Reads what a fuzz target has found that reaches something new, file by file.
///
/// # Panics
///
/// Where there is nothing.
pub fn each_of_corpus(target: &str, run: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files: Vec<_> = fs::read_dir(corpus.join(target)).unwrap().collect();
    assert!(!files.is_empty(), "no corpus of {target}");
    for file in files {
        let path = file.unwrap().path();
        eprintln!("{}", path.display());
        run(&fs::read(path).unwrap());
    }
}

/// The place of the nth of what is still there, counted round and round, so that a late step
/// meets something too. Of nothing, none.
fn nth<T>(places: &[Option<T>], n: u8) -> usize {
    let there = || (0..places.len()).filter(|&place| places[place].is_some());
    there()
        .nth(usize::from(n) % there().count().max(1))
        .unwrap_or(usize::MAX)
}
