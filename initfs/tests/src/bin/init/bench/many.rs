//! What a registration of one page costs where the same client has many: the same, however many.

use alloc::vec::Vec;

use gem_client::{Card, Node, PAGE_SIZE, Register};
use gem_wire::limit::Limit;
use gem_wire::native::Call;

use super::{Meter, Row};
use crate::scheme::Gemd;
use crate::{Broken, Outcome, of_client};

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "userptr-among-1",
        measure: |meter| among(meter, 1),
    },
    Row {
        name: "userptr-among-100",
        measure: |meter| among(meter, 100),
    },
    Row {
        name: "userptr-among-10000",
        measure: |meter| among(meter, 10_000),
    },
];

/// Registers a page and unmaps it again, while so many others of this client's are registered.
fn among(meter: &Meter, others: usize) -> Outcome {
    let _gemd = Gemd::start(&["--max-handles", "100000"])?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    for limit in [Limit::UserPagesPerUid, Limit::UserRangesPerUid] {
        let value = limit.most();
        let words = Call::SetLimit { limit, value }.encode();
        let set =
            libredox::call::call_rw(card.raw_fd(), &mut [], syscall::CallFlags::empty(), &words);
        set.map_err(|error| Broken::Call("raise a limit", error.into()))?;
    }
    let register = || {
        let made = card.userptr_new(PAGE_SIZE, Register::new());
        made.map_err(of_client("register a page"))
    };
    let held = (0..others)
        .map(|_| register())
        .collect::<Result<Vec<_>, _>>()?;
    meter.measure(|| register().map(drop))?;
    drop(held);
    Ok(())
}
