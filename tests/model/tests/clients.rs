//! The memory manager against the model of buffers: random steps by several opens of several users.

use gem_model::clients::{Step, run};
use gem_model::world::Mood;
use proptest::prelude::*;

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![7 => Just(Mood::Fine), 5 => prop::sample::select(&Mood::BAD[..5])]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let open = 0u8..6;
    // Most handles are small numbers.
    let handle = prop_oneof![3 => 1u8..3, 1 => 0u8..8];
    let index = 0u8..8;
    let size = prop_oneof![Just(0), 1u16..40_000, Just(u16::MAX - 1), Just(u16::MAX)];
    let step = prop_oneof![
        2 => (0u8..3).prop_map(|user| Step::Open { user }),
        1 => open.clone().prop_map(|open| Step::CloseOpen { open }),
        1 => open.clone().prop_map(|open| Step::Die { open }),
        8 => (open.clone(), size, mood())
            .prop_map(|(open, size, mood)| Step::Create { open, size, mood }),
        4 => (open.clone(), handle.clone())
            .prop_map(|(open, handle)| Step::Close { open, handle }),
        9 => (open.clone(), handle.clone(), prop::bool::weighted(0.8))
            .prop_map(|(open, handle, unneeded)| Step::Advise { open, handle, unneeded }),
        2 => (open.clone(), handle.clone())
            .prop_map(|(open, handle)| Step::BeginUse { open, handle }),
        2 => index.clone().prop_map(|work| Step::EndUse { work }),
        3 => prop::option::of(0u8..30).prop_map(|pages| Step::Left { pages }),
        3 => (open.clone(), handle.clone())
            .prop_map(|(open, handle)| Step::Flink { open, handle }),
        4 => (open.clone(), index.clone(), mood())
            .prop_map(|(open, name, mood)| Step::OpenName { open, name, mood }),
        4 => (open.clone(), handle.clone(), any::<bool>())
            .prop_map(|(open, handle, write)| Step::Export { open, handle, write }),
        2 => (open.clone(), index.clone(), any::<bool>())
            .prop_map(|(open, name, write)| Step::ExportName { open, name, write }),
        4 => (open.clone(), index.clone(), mood())
            .prop_map(|(open, fd, mood)| Step::Import { open, fd, mood }),
        3 => index.clone().prop_map(|fd| Step::CloseFd { fd }),
        3 => (open.clone(), handle).prop_map(|(open, handle)| Step::Offset { open, handle }),
        4 => (open.clone(), index.clone(), 0u8..12, mood())
            .prop_map(|(open, offset, pages, mood)| Step::Map { open, offset, pages, mood }),
        2 => (open.clone(), index.clone(), 0u8..6, 0u8..12)
            .prop_map(|(open, offset, skip, pages)| Step::MapAgain { open, offset, skip, pages }),
        4 => (open.clone(), index.clone(), 0u8..12, 0u8..12)
            .prop_map(|(open, offset, skip, pages)| Step::Unmap { open, offset, skip, pages }),
        3 => (index.clone(), 0u8..6, 0u8..12, any::<bool>(), mood())
            .prop_map(|(fd, skip, pages, write, mood)| Step::MapFd { fd, skip, pages, write, mood }),
        3 => (index, 0u8..12).prop_map(|(fd, pages)| Step::UnmapFd { fd, pages }),
        1 => open.prop_map(|open| Step::Revoke { open }),
        2 => (0u8..14, 1u8..9).prop_map(|(which, value)| Step::Limit { which, value }),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_manager_does_what_the_model_does(steps in steps()) {
        run(&steps);
    }
}
