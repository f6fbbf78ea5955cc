use super::*;

fn pages(pages: u64) -> PageCount {
    PageCount::new(pages).unwrap()
}

fn load(size: u64) -> Load {
    Load::of(pages(size))
}

fn ledger() -> Ledger {
    let mut limits = Limits::for_clients(pages(100));
    limits.opens_per_uid = 2;
    limits.objects_per_uid = 3;
    limits.mapped_per_uid = pages(10);
    Ledger::new(limits)
}

#[test]
fn a_machine_gives_half_to_clients_and_a_quarter_to_one_user() {
    let limits = Limits::for_memory(pages(1 << 20));
    assert_eq!(limits.total, pages(1 << 19));
    assert_eq!(limits.uid, pages(1 << 18));
    assert_eq!(limits.object, pages(1 << 18));
    let limits = Limits::for_memory(PageCount::MAX);
    assert_eq!(limits.object.get(), MAX_OBJECT_PAGES);
    assert_eq!(Limits::for_memory(pages(1 << 20)).keep_free, pages(1 << 16));
    let nothing = Limits::for_memory(PageCount::ZERO);
    assert!(!nothing.object.is_zero() && !nothing.keep_free.is_zero());
}

#[test]
fn what_is_refused_is_not_charged() {
    let mut ledger = ledger();
    let (a, b) = (Uid(1), Uid(2));
    let account = ledger.charge_open(a).unwrap();
    let other = ledger.charge_open(b).unwrap();
    ledger.charge_object(account, pages(50)).unwrap();
    let before = *ledger.account(account).unwrap();
    let refused = ledger.charge_object(account, pages(1));
    assert_eq!(refused, Err(LedgerError::Memory(a, pages(50))));
    let refused = ledger.charge_mapped(account, pages(11), true);
    assert_eq!(refused, Err(LedgerError::Mapped(a, pages(10))));
    assert_eq!(*ledger.account(account).unwrap(), before);
    ledger.charge_object(other, pages(49)).unwrap();
    let refused = ledger.charge_object(other, pages(2));
    assert_eq!(refused, Err(LedgerError::Total(pages(100))));
    assert_eq!(ledger.memory(), pages(99));
    assert_eq!(ledger.mapped(), PageCount::ZERO);
    ledger.charge_object(other, pages(1)).unwrap();
    ledger.refund_object(other, load(1));
    ledger.refund_object(account, load(50));
    assert_eq!(ledger.memory(), pages(49));
}

#[test]
fn what_is_too_much_is_told_for_the_user_and_for_all() {
    let mut ledger = ledger();
    let [a, b] = [1, 2].map(|uid| ledger.charge_open(Uid(uid)).unwrap());
    ledger.charge_object(a, pages(45)).unwrap();
    ledger.charge_object(b, pages(50)).unwrap();
    let excess = |ledger: &Ledger, size| {
        let Excess { own, all } = ledger.excess(a, pages(size));
        (own.get(), all.get())
    };
    assert_eq!(excess(&ledger, 5), (0, 0));
    assert_eq!(excess(&ledger, 9), (4, 4));
    ledger.refund_pages(b, pages(2));
    assert_eq!(excess(&ledger, 9), (4, 2));
    assert!(ledger.excess(a, PageCount::MAX).own > pages(50));
    // The object is charged still, and goes without pages.
    assert_eq!(ledger.account(b).unwrap().objects, 1);
    ledger.refund_object(b, load(0));
    ledger.refund_object(b, load(48));
    assert_eq!(ledger.memory(), pages(45));
}

#[test]
fn objects_without_number_are_refused_even_if_they_are_small() {
    let mut ledger = ledger();
    let account = ledger.charge_open(Uid(1)).unwrap();
    for _ in 0..3 {
        ledger.charge_object(account, pages(1)).unwrap();
    }
    let refused = Err(LedgerError::Count(Uid(1), Counted::Objects, 3));
    assert_eq!(ledger.charge_object(account, pages(1)), refused);
    assert_eq!(ledger.memory(), pages(3));
}

#[test]
fn pages_and_ranges_of_clients_have_limits_of_their_own() {
    let mut ledger = ledger();
    ledger.limits.user_pages_per_uid = pages(10);
    ledger.limits.user_ranges_per_uid = 2;
    let account = ledger.charge_open(Uid(1)).unwrap();
    let refused = Err(LedgerError::UserPages(Uid(1), pages(10)));
    assert_eq!(ledger.charge_user(account, pages(11)), refused);
    assert_eq!(ledger.charge_user(account, PageCount::MAX), refused);
    ledger.charge_user(account, pages(4)).unwrap();
    ledger.charge_user(account, pages(4)).unwrap();
    let refused = Err(LedgerError::Count(Uid(1), Counted::UserRanges, 2));
    assert_eq!(ledger.charge_user(account, pages(1)), refused);
    assert_eq!((ledger.user_pages(), ledger.user_ranges()), (pages(8), 2));
    assert_eq!(ledger.memory(), PageCount::ZERO, "no memory of ours");
    // The client maps them again, whatever it may map.
    ledger.count_mapped(account, pages(20));
    assert_eq!(ledger.mapped(), pages(20));
    ledger.refund_mapped(account, pages(20), true);
    ledger.refund_user(account, pages(4));
    ledger.refund_user(account, pages(4));
    ledger.refund(account, Counted::Opens, 1);
    assert_eq!((ledger.user_pages(), ledger.user_ranges()), (pages(0), 0));
    assert_eq!(ledger.accounts().count(), 0);
}

#[test]
fn an_account_lasts_as_long_as_something_is_charged_to_it() {
    let mut ledger = ledger();
    let account = ledger.charge_open(Uid(1)).unwrap();
    assert_eq!(ledger.charge_open(Uid(1)), Ok(account));
    let refused = Err(LedgerError::Count(Uid(1), Counted::Opens, 2));
    assert_eq!(ledger.charge_open(Uid(1)), refused);
    ledger.charge_mapped(account, pages(1), true).unwrap();
    ledger.refund(account, Counted::Opens, 2);
    assert_eq!(ledger.uid(account), Uid(1));
    ledger.refund_mapped(account, pages(5), true);
    assert_eq!(ledger.account(account), None);
    assert_eq!(ledger.accounts().count(), 0);
    assert_eq!(ledger.mapped(), PageCount::ZERO);
    // Nor does one remain of an open that was refused.
    ledger.limits.opens_per_uid = 0;
    assert!(ledger.charge_open(Uid(1)).is_err());
    assert_eq!(ledger.accounts().count(), 0);
}
