//! Everything that can be counted, on both sides.

use std::collections::BTreeMap;

use gem::space::Access;
use gem::units::{PAGE_SIZE, PageCount, Uid};

use super::range::{Range, State};
use super::{Run, uid};
use crate::world::frame;

impl Run {
    pub(super) fn check(&mut self) {
        self.ranges.retain(Range::exists);
        let stats = self.device.stats();
        let count = |test: &dyn Fn(&Range) -> u64| self.ranges.iter().map(test).sum::<u64>();
        let charged = count(&|range| if range.is_charged() { range.pages() } else { 0 });
        assert_eq!(stats.user_pages.get(), charged);
        assert_eq!(
            u64::from(stats.user_ranges),
            count(&|range| range.is_charged().into())
        );
        assert_eq!(stats.objects, self.ranges.len());
        assert_eq!(stats.offsets, self.ranges.len());
        let visible = count(&|range| range.shares.len() as u64 + u64::from(range.handle.is_some()));
        assert_eq!(stats.handles, visible);
        assert_eq!(stats.mapped.get(), count(&|range| range.mapped));
        assert_eq!(
            stats.bindings as u64,
            count(&|range| range.bindings.len() as u64)
        );
        assert_eq!(stats.memory, PageCount::ZERO);
        for user in [Uid(0), Uid(1)] {
            let account = self.device.accounts().find(|account| account.uid == user);
            let has = account.map_or((0, 0), |it| (it.user_pages.get(), it.user_ranges));
            assert_eq!(has, self.charged(user), "{user:?}");
        }
        let world = self.world.0.borrow();
        let reserved = count(&|range| (range.registrar && range.handle.is_none()).into());
        assert_eq!(world.handles, (visible + reserved) as i64);
        assert_eq!(world.objects.len(), self.ranges.len());
        let out = self
            .ranges
            .iter()
            .filter(|range| matches!(range.state, State::Taken | State::Held));
        let out: BTreeMap<u64, Uid> = out.map(|range| (range.set, uid(range.open))).collect();
        assert_eq!(world.user_sets, out);
        for (id, found) in world.gpu.iter().enumerate() {
            let mut expected = BTreeMap::new();
            for range in &self.ranges {
                let access = if range.claim.read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                };
                let places = range.bindings.iter().filter(|it| it.space.0 as usize == id);
                for place in places {
                    expected.extend((0..range.pages()).map(|page| {
                        (
                            place.at.get() + page * PAGE_SIZE,
                            (frame(range.set, page), access),
                        )
                    }));
                }
            }
            assert_eq!(*found, expected);
        }
    }
}
