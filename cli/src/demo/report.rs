//! The ledger as a person reads it.

use std::fmt::Write;

use super::ledger::Verdict;
use crate::output::thousands;

/// What a person wants to know besides the verdict.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Repeats the run.
    pub seed: u64,
    /// How often relay and consumer were killed.
    pub kills: usize,
    /// What the store is called.
    pub store: &'static str,
    /// Sum of the committed orders.
    pub ordered_cents: i64,
    /// Sum of the customers' balances.
    pub billed_cents: i64,
}

/// The ledger.
pub fn human(verdict: &Verdict, facts: &Facts) -> String {
    let mut text = format!(
        "{} order transactions on {}; relay and consumer killed {} times (--seed {})\n\n",
        thousands(verdict.committed + verdict.rolled_back),
        facts.store,
        facts.kills,
        facts.seed,
    );
    let rows = [
        ("committed", verdict.committed, "orders in the shop's table"),
        (
            "rolled back",
            verdict.rolled_back,
            "transactions that left no order",
        ),
        (
            "delivered",
            verdict.delivered,
            "of these messages are in the log",
        ),
        ("applied", verdict.applied, "orders billed"),
        (
            "duplicates absorbed",
            verdict.duplicates_absorbed,
            "sent again on request, recognised",
        ),
        ("lost", verdict.lost, ""),
        ("out of order", verdict.out_of_order, ""),
        ("applied twice", verdict.applied_twice, ""),
        ("never committed", verdict.never_committed, ""),
    ];
    for (what, count, note) in rows {
        let line = format!("  {what:<20}{:>12}   {note}", thousands(count));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(
        text,
        "\n  ordered {}, billed {}",
        money(facts.ordered_cents),
        money(facts.billed_cents)
    );
    let clean = verdict.is_clean() && facts.ordered_cents == facts.billed_cents;
    let ending = match clean {
        true => "every committed order was delivered in order and billed once",
        false => "A PROMISE WAS BROKEN",
    };
    let _ = writeln!(text, "  {ending} ({:.1} s)", verdict.seconds);
    text
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", thousands(cents / 100), cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_names_a_broken_promise() {
        let facts = Facts {
            seed: 7,
            kills: 3,
            store: "SQLite",
            ordered_cents: 123_456,
            billed_cents: 5,
        };
        let text = human(
            &Verdict {
                committed: 2,
                ..Verdict::default()
            },
            &facts,
        );
        assert!(text.contains("ordered 1,234.56, billed 0.05"), "{text}");
        assert!(text.contains("A PROMISE WAS BROKEN"), "{text}");
        let facts = Facts {
            billed_cents: 123_456,
            ..facts
        };
        let text = human(&Verdict::default(), &facts);
        assert!(text.contains("every committed order"), "{text}");
    }
}
