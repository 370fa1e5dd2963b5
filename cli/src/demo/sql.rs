//! The shop's SQL. The same text runs on PostgreSQL and SQLite.

use sqlx::{ColumnIndex, Database, Decode, Executor, IntoArguments, Pool, Type};

use super::ledger::Entry;

/// Takes the customer's row lock and the next number of their orders: whoever enqueues under it
/// is in order.
pub const NEXT_NUMBER: &str =
    "update customer set orders = orders + 1 where id = $1 returning orders";
/// The business row.
pub const INSERT_ORDER: &str = "insert into placed_order (id, message_id, customer, number, cents) \
     values ($1, $2, $3, $4, $5)";
/// The consumer's effect: the row that proves it …
pub const INSERT_APPLIED: &str =
    "insert into applied (message_id, customer, number, cents) values ($1, $2, $3, $4)";
/// … and the balance that a second effect would falsify.
pub const ADD_TO_BALANCE: &str = "insert into balance (customer, cents) values ($1, $2) \
     on conflict (customer) do update set cents = balance.cents + excluded.cents";
/// Says that an order will be tried.
pub const INSERT_ATTEMPT: &str = "insert into attempt (id) values ($1)";
/// Creates a customer.
pub const INSERT_CUSTOMER: &str = "insert into customer (id, orders) values ($1, 0)";

/// What was committed.
pub const COMMITTED: &str = "select message_id, customer, number, cents from placed_order \
     order by id";
/// What was applied, in the order of the effects.
pub const APPLIED: &str = "select message_id, customer, number, cents from applied \
     order by position";
/// Tried, and nothing came of it.
pub const ROLLED_BACK: &str = "select count(*) from attempt a \
     where not exists (select 1 from placed_order o where o.id = a.id)";
/// How many orders were committed.
pub const COUNT_COMMITTED: &str = "select count(*) from placed_order";
/// How many effects were made.
pub const COUNT_APPLIED: &str = "select count(*) from applied";
/// The sum of the balances.
pub const BALANCES: &str = "select cast(coalesce(sum(cents), 0) as bigint) from balance";

/// Rows of [`COMMITTED`] or [`APPLIED`].
pub async fn entries<DB>(pool: &Pool<DB>, sql: &'static str) -> Result<Vec<Entry>, sqlx::Error>
where
    DB: Database,
    for<'c> &'c Pool<DB>: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    usize: ColumnIndex<DB::Row>,
    for<'r> String: Decode<'r, DB> + Type<DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
{
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(sql).fetch_all(pool).await?;
    let entry = |(message_id, customer, number, cents)| Entry {
        message_id,
        customer,
        number,
        cents,
    };
    Ok(rows.into_iter().map(entry).collect())
}

/// The one number of `sql`.
pub async fn number<DB>(pool: &Pool<DB>, sql: &'static str) -> Result<i64, sqlx::Error>
where
    DB: Database,
    for<'c> &'c Pool<DB>: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    usize: ColumnIndex<DB::Row>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
{
    let (number,): (i64,) = sqlx::query_as(sql).fetch_one(pool).await?;
    Ok(number)
}
