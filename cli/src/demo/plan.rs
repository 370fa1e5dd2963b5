//! What will be tried: drawn from the seed, so that a run can be repeated.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Customers: few enough that each key has many messages whose order can be wrong.
const CUSTOMERS: i64 = 40;
/// Kills of the process that relays and consumes.
pub const KILLS: usize = 6;
/// Out of 100 transactions, so many are rolled back by the program …
const DECLINED: u32 = 8;
/// … and so many lose their connection in the middle.
const ABANDONED: u32 = 4;
/// Out of 100, so many commit, but roll back to a savepoint after a second message.
const SAVEPOINT: u32 = 4;

/// How an order's transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It commits.
    Commit,
    /// It commits, and a second message that it enqueued behind a savepoint is rolled back.
    CommitWithoutCoupon,
    /// It is rolled back.
    Declined,
    /// It is dropped without a word.
    Abandoned,
}

/// One order to be tried.
#[derive(Clone, Copy, Debug)]
pub struct PlannedOrder {
    /// Its number among all that are tried.
    pub id: i64,
    /// Who orders: the message's key.
    pub customer: i64,
    /// For how much.
    pub cents: i64,
    /// The id of the message about it.
    pub message_id: Uuid,
    /// How its transaction ends.
    pub fate: Fate,
}

/// When the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// While it publishes the batch that brings the total to this many messages.
    pub after_messages: u64,
    /// Once the log has acknowledged the batch, before the relay hears of it; else before the log
    /// sees the batch.
    pub acknowledged: bool,
}

/// Everything that is left to chance.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The orders, in the order in which they are tried.
    pub orders: Vec<PlannedOrder>,
    /// The kills, soonest first.
    pub kills: Vec<Kill>,
}

impl Plan {
    /// Draws a plan for `count` orders.
    pub fn draw(count: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let orders = (1..=i64::from(count))
            .map(|id| draw_order(id, &mut rng))
            .collect();
        let count = u64::from(count);
        let mut kills: Vec<Kill> = (0..KILLS)
            .map(|n| Kill {
                // Not in the last tenth, so that the last relay has something left to do.
                after_messages: rng.random_range(0..=count * 9 / 10),
                acknowledged: n % 2 == 0,
            })
            .collect();
        kills.sort_by_key(|kill| kill.after_messages);
        Self { orders, kills }
    }
}

fn draw_order(id: i64, rng: &mut StdRng) -> PlannedOrder {
    const ABANDONED_FROM: u32 = DECLINED;
    const SAVEPOINT_FROM: u32 = ABANDONED_FROM + ABANDONED;
    const COMMIT_FROM: u32 = SAVEPOINT_FROM + SAVEPOINT;
    let fate = match rng.random_range(0..100_u32) {
        0..ABANDONED_FROM => Fate::Declined,
        ABANDONED_FROM..SAVEPOINT_FROM => Fate::Abandoned,
        SAVEPOINT_FROM..COMMIT_FROM => Fate::CommitWithoutCoupon,
        _ => Fate::Commit,
    };
    // The smaller of two draws: some customers order much more often than others.
    let customer = rng
        .random_range(1..=CUSTOMERS)
        .min(rng.random_range(1..=CUSTOMERS));
    PlannedOrder {
        id,
        customer,
        cents: rng.random_range(100..=99_999),
        message_id: Uuid::now_v7(),
        fate,
    }
}

/// The customers of every plan.
pub fn customers() -> std::ops::RangeInclusive<i64> {
    1..=CUSTOMERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_again() {
        let facts = |plan: Plan| {
            let orders: Vec<_> = plan
                .orders
                .iter()
                .map(|o| (o.id, o.customer, o.cents, o.fate))
                .collect();
            (orders, plan.kills)
        };
        assert_eq!(facts(Plan::draw(500, 7)), facts(Plan::draw(500, 7)));
        assert_ne!(facts(Plan::draw(500, 7)), facts(Plan::draw(500, 8)));
    }

    #[test]
    fn a_plan_holds_every_fate_and_both_kinds_of_kill() {
        let plan = Plan::draw(500, 1);
        for fate in [
            Fate::Commit,
            Fate::CommitWithoutCoupon,
            Fate::Declined,
            Fate::Abandoned,
        ] {
            assert!(
                plan.orders.iter().any(|order| order.fate == fate),
                "{fate:?}"
            );
        }
        assert_eq!(plan.kills.len(), KILLS);
        assert!(plan.kills.iter().any(|kill| kill.acknowledged));
        assert!(plan.kills.iter().any(|kill| !kill.acknowledged));
        assert!(plan.kills.is_sorted_by_key(|kill| kill.after_messages));
    }
}
