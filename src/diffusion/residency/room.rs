//! Who leaves for whom. A pure function, so that the budget can be proved without a device.

/// A model that is on the device or on its way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant {
    /// Its place among the models of the settings.
    pub(super) place: usize,
    /// Bytes of its weights.
    pub(super) bytes: u64,
    /// Canvases use it.
    pub(super) is_busy: bool,
    /// It was to leave when this was last looked at.
    pub(super) is_leaving: bool,
    /// Rises with each use.
    pub(super) used: u64,
}

/// What must happen before a newcomer fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    /// These leave, and it fits.
    Free { evict: Vec<usize> },
    /// It will fit when these have left, of which some have canvases.
    Occupied { leaving: Vec<usize> },
}

/// Makes room for a newcomer of so many bytes: the least recently used models that nobody uses leave; busy ones are waited for, the least
/// recently used first, only where that does not suffice. Those that were to leave still are, whatever has been used since, so that a
/// newcomer's turn comes. A newcomer that is larger than the budget by itself has it for itself.
pub(super) fn make_room(tenants: &[Tenant], bytes: u64, budget: u64) -> Room {
    let mut order = tenants.to_vec();
    order.sort_by_key(|tenant| (tenant.is_busy, !tenant.is_leaving, tenant.used));
    let mut taken = tenants.iter().fold(bytes, |sum, tenant| sum.saturating_add(tenant.bytes));
    let (mut evict, mut is_occupied) = (Vec::new(), false);
    for tenant in order {
        if taken <= budget {
            break;
        }
        taken = taken.saturating_sub(tenant.bytes);
        is_occupied |= tenant.is_busy;
        evict.push(tenant.place);
    }
    if is_occupied { Room::Occupied { leaving: evict } } else { Room::Free { evict } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(place: usize, bytes: u64, is_busy: bool, used: u64) -> Tenant {
        Tenant { place, bytes, is_busy, is_leaving: false, used }
    }

    #[test]
    fn nobody_leaves_while_there_is_room() {
        let tenants = [tenant(0, 4, false, 1), tenant(1, 4, true, 2)];
        assert_eq!(make_room(&tenants, 2, 10), Room::Free { evict: vec![] });
    }

    #[test]
    fn the_least_recently_used_leaves_first_and_no_more_than_must() {
        let tenants = [tenant(0, 4, false, 7), tenant(1, 4, false, 3), tenant(2, 4, true, 1)];
        assert_eq!(make_room(&tenants, 4, 12), Room::Free { evict: vec![1] });
        assert_eq!(make_room(&tenants, 6, 12), Room::Free { evict: vec![1, 0] });
    }

    #[test]
    fn a_busy_model_is_waited_for_only_when_the_idle_ones_do_not_suffice() {
        let tenants = [tenant(0, 4, true, 9), tenant(1, 4, true, 3), tenant(2, 2, false, 8)];
        assert_eq!(make_room(&tenants, 6, 12), Room::Occupied { leaving: vec![2, 1] });
    }

    #[test]
    fn who_was_to_leave_still_is_though_it_was_used_last() {
        let tenants = [Tenant { is_leaving: true, ..tenant(0, 4, true, 9) }, tenant(1, 4, true, 3)];
        assert_eq!(make_room(&tenants, 4, 8), Room::Occupied { leaving: vec![0] });
        let tenants = [tenants[0], Tenant { is_busy: false, ..tenants[1] }];
        assert_eq!(make_room(&tenants, 4, 8), Room::Free { evict: vec![1] }, "but nobody waits who need not");
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_no_busy_model_is_evicted(
            models in prop::collection::vec((0..50_u64, any::<bool>(), 0..100_u64), 0..8),
            bytes in 0..60_u64,
            budget in 1..150_u64,
        ) {
            let tenants: Vec<Tenant> = (0..).zip(models).map(|(place, (bytes, is_busy, used))| tenant(place, bytes, is_busy, used)).collect();
            let gone = match make_room(&tenants, bytes, budget) {
                Room::Free { evict } => {
                    prop_assert!(evict.iter().all(|&place| !tenants[place].is_busy));
                    evict
                }
                Room::Occupied { leaving } => {
                    let idle = tenants.iter().filter(|tenant| !tenant.is_busy).map(|tenant| tenant.place);
                    prop_assert!(idle.clone().all(|place| leaving.contains(&place)), "somebody is waited for in vain");
                    prop_assert!(leaving.iter().any(|&place| tenants[place].is_busy));
                    leaving
                }
            };
            let stays: Vec<&Tenant> = tenants.iter().filter(|tenant| !gone.contains(&tenant.place)).collect();
            let taken = bytes + stays.iter().map(|tenant| tenant.bytes).sum::<u64>();
            prop_assert!(taken <= budget || stays.is_empty(), "{taken} of {budget}");
        }
    }
}
