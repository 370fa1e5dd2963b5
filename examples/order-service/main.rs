//! An order service: a business row and the message about it commit together, or not at all.
//!
//! ```console
//! $ DATABASE_URL=postgres://localhost/shop cargo run -p outbox-examples --example order-service
//! $ curl -d '{"customer": "ann", "amount_cents": 1200}' \
//!        -H 'content-type: application/json' http://127.0.0.1:3000/orders
//! ```
//!
//! It knows nothing of brokers: what it enqueues is sent by a relay (see `order-consumer`, or run
//! `outbox relay` beside it). `LISTEN` (127.0.0.1:3000) says where it listens; port 0 takes a free
//! one and prints it.

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use outbox_core::{Admin, Message};
use outbox_examples::{log_to_stderr, or_default, required, shutdown};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row;
use sqlx::postgres::PgPool;

/// Every customer may owe this much.
const CREDIT_CENTS: i64 = 100_000;

/// The lock: two that start at the same time would both create the tables, and one of them fail.
const TABLES: &str = "select pg_advisory_xact_lock(hashtext('tables of order-service'));
    create table if not exists orders (
        id bigint generated always as identity primary key,
        customer text not null,
        amount_cents bigint not null constraint amount_is_positive check (amount_cents > 0)
    );
    create table if not exists credit (
        customer text primary key,
        left_cents bigint not null constraint credit_is_enough check (left_cents >= 0)
    )";

#[derive(Clone)]
struct Shop {
    pool: PgPool,
    outbox: Outbox,
}

#[derive(Deserialize)]
struct NewOrder {
    customer: String,
    amount_cents: i64,
}

/// An order, and the body of the message about it.
#[derive(Serialize)]
struct Order {
    id: i64,
    customer: String,
    amount_cents: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    log_to_stderr();
    let url = required("DATABASE_URL", "postgres://localhost/shop")?;
    // In production an operator runs `outbox migrate`; here the service brings its own schema.
    let options = PostgresOptions {
        url: url.clone(),
        ..PostgresOptions::default()
    };
    PostgresStore::connect(options).await?.migrate().await?;
    let pool = PgPool::connect(&url).await.context("connect")?;
    sqlx::raw_sql(TABLES)
        .execute(&pool)
        .await
        .context("create the tables")?;

    let shop = Shop {
        pool,
        outbox: Outbox::default(),
    };
    let routes = Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", get(show))
        .with_state(shop);
    let address = or_default("LISTEN", "127.0.0.1:3000");
    let listener = tokio::net::TcpListener::bind(&address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    say(&format!("listening on {}", listener.local_addr()?));
    let stop = shutdown()?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(())
}

/// The one transaction. Whatever fails in it, and wherever, takes the message back as well.
async fn place(
    State(shop): State<Shop>,
    Json(new): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), Problem> {
    let mut tx = shop.pool.begin().await?;

    // The customer's row is locked before anything is enqueued: so two orders of one customer
    // cannot pass each other on their way to the outbox, and their messages keep this order.
    sqlx::query(
        "insert into credit (customer, left_cents) values ($1, $2 - $3)
         on conflict (customer) do update set left_cents = credit.left_cents - $3",
    )
    .bind(&new.customer)
    .bind(CREDIT_CENTS)
    .bind(new.amount_cents.max(0))
    .execute(&mut *tx)
    .await?;

    let insert = "insert into orders (customer, amount_cents) values ($1, $2) returning id";
    let id = sqlx::query(insert)
        .bind(&new.customer)
        .bind(new.amount_cents)
        .fetch_one(&mut *tx)
        .await?
        .try_get(0)?;
    let order = Order {
        id,
        customer: new.customer,
        amount_cents: new.amount_cents,
    };

    let message = Message::json("orders.placed", &order)?.key(&order.customer);
    shop.outbox.enqueue(&mut tx, message).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(order)))
}

async fn show(State(shop): State<Shop>, Path(id): Path<i64>) -> Result<Json<Order>, Problem> {
    let row = sqlx::query("select id, customer, amount_cents from orders where id = $1")
        .bind(id)
        .fetch_one(&shop.pool)
        .await?;
    Ok(Json(Order {
        id: row.try_get(0)?,
        customer: row.try_get(1)?,
        amount_cents: row.try_get(2)?,
    }))
}

/// An error on its way to the client.
struct Problem(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self.0.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::RowNotFound) => (StatusCode::NOT_FOUND, "no such order".to_owned()),
            Some(sqlx::Error::Database(error)) if error.is_check_violation() => {
                let broken = error.constraint().unwrap_or("a constraint");
                (StatusCode::CONFLICT, format!("{broken} does not hold"))
            }
            _ if self.0.is::<outbox_core::StoreError>() => {
                (StatusCode::UNPROCESSABLE_ENTITY, self.0.to_string())
            }
            _ => {
                tracing::error!(error = format!("{:#}", self.0), "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "see the log".to_owned())
            }
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

#[expect(
    clippy::print_stdout,
    reason = "whoever started it waits for this line"
)]
fn say(line: &str) {
    println!("{line}");
}
