//! The memory manager against the model of clients' own pages: random steps of everybody.

use gem_model::userptr::{Step, run};
use gem_model::world::Mood;
use proptest::prelude::*;

fn mood(bad: &'static [Mood]) -> impl Strategy<Value = Mood> {
    prop_oneof![4 => Just(Mood::Fine), 1 => prop::sample::select(bad)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (open, range) = (0u8..4, 0u8..6);
    let failing = mood(&[Mood::HandleFails, Mood::InitFails]);
    let unready = mood(&[Mood::Waits, Mood::InsertFails]);
    let step = prop_oneof![
        1 => Just(Step::Open),
        1 => open.clone().prop_map(|open| Step::CloseOpen { open }),
        1 => open.clone().prop_map(|open| Step::RevokeOpen { open }),
        8 => (open.clone(), 0u8..4, 1u8..8, any::<bool>(), failing).prop_map(
            |(open, start, pages, read_only, mood)| Step::Begin { open, start, pages, read_only, mood }),
        9 => (range.clone(), prop::bool::weighted(0.8))
            .prop_map(|(range, fine)| Step::Finish { range, fine }),
        1 => range.clone().prop_map(|range| Step::Forget { range }),
        9 => (range.clone(), prop::bool::weighted(0.1))
            .prop_map(|(range, wrong)| Step::Claim { range, wrong }),
        9 => (range.clone(), 0u8..12).prop_map(|(range, wrong)| Step::Map { range, wrong }),
        5 => (range.clone(), 0u8..4, 1u8..9, prop::bool::weighted(0.3))
            .prop_map(|(range, skip, pages, child)| Step::Unmap { range, skip, pages, child }),
        2 => (range.clone(), 0u8..4, 0u8..9)
            .prop_map(|(range, skip, pages)| Step::Fork { range, skip, pages }),
        2 => range.clone().prop_map(|range| Step::CloseHandle { range }),
        2 => (range.clone(), open).prop_map(|(range, open)| Step::Share { range, open }),
        1 => range.clone().prop_map(|range| Step::CloseShare { range }),
        4 => (range.clone(), prop::bool::weighted(0.1))
            .prop_map(|(range, stranger)| Step::Again { range, stranger }),
        6 => (range.clone(), 0u8..3, 0u8..66, unready)
            .prop_map(|(range, space, page, mood)| Step::Bind { range, space, page, mood }),
        1 => range.clone().prop_map(|range| Step::BindShare { range }),
        2 => range.clone().prop_map(|range| Step::Unbind { range }),
        3 => range.prop_map(|range| Step::Wait { range }),
        3 => (0u8..8, 0u8..60).prop_map(|(waiter, page)| Step::Wake { waiter, page }),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn clients_own_pages_are_as_the_model_says(steps in steps()) {
        run(&steps);
    }
}
