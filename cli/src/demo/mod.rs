//! `outbox demo`: a real little system in one process, with no services installed.
//!
//! An order service commits and rolls back transactions; a relay delivers to the bundled log; a
//! consumer bills each order once. Relay and consumer are killed at the worst instants on the
//! way. In the end three ledgers, all read back from the stores, are held against each other.
//!
//! - [`plan`]: everything that is left to chance.
//! - [`shop`], `shop_sqlite`, `shop_postgres`, [`sql`]: the business side.
//! - [`process`], [`sabotage`]: what runs, and what kills it. [`place`]: where the log is.
//! - [`ledger`], [`report`]: the verdict.

mod ledger;
mod place;
mod plan;
mod process;
mod report;
mod sabotage;
mod shop;
mod shop_postgres;
mod shop_sqlite;
mod sql;
mod story;

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::args;
use crate::config::{Secret, Setting, Settings};
use crate::exit::{Exit, Problem};
use crate::output::Output;
use crate::store::StoreUrl;
use ledger::verdict;
use place::LogPlace;
use plan::Plan;
use shop::{Names, Shop};
use story::Story;

/// Runs the demo: [`Exit::Failed`] when a promise was broken.
pub fn run(args: &args::Demo, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let started = Instant::now();
    let seed = args.seed.unwrap_or_else(rand::random);
    let plan = Plan::draw(args.orders, seed);
    let folder = tempfile::tempdir()
        .map_err(|e| Problem::new(Exit::Failed, format!("make a folder for the demo: {e}")))?;
    let runtime =
        Runtime::new().map_err(|e| Problem::new(Exit::Failed, format!("start a runtime: {e}")))?;
    let place = match &args.broker {
        Some(url) => LogPlace::at(Secret::new(url.as_str()))?,
        None => LogPlace::in_folder(folder.path())?,
    };
    let names = Names::new(place.is_shared());
    let shop = runtime.block_on(open_shop(settings, folder.path(), &names))?;
    let place = Arc::new(place);
    let story = Story {
        runtime: &runtime,
        shop: &shop,
        place: &place,
        names: &names,
        output,
    };
    let told = story.tell(&plan);
    // Whatever happened, the demo leaves nothing behind.
    let cleaned = runtime.block_on(async {
        let topic = place.clean_up(&names).await;
        shop.clean_up().await.and(topic)
    });
    let told = told?;
    cleaned?;
    let Some(told) = told else {
        return Ok(Exit::Interrupted);
    };
    let verdict = verdict(&told.ledgers, started.elapsed().as_secs_f64());
    let facts = report::Facts {
        seed,
        kills: told.kills,
        store: shop.name(),
        ordered_cents: told.ledgers.committed.iter().map(|order| order.cents).sum(),
        billed_cents: told.balance_cents,
    };
    let clean = verdict.is_clean() && facts.ordered_cents == facts.billed_cents;
    output.emit(&verdict, |verdict| report::human(verdict, &facts))?;
    Ok(if clean { Exit::Ok } else { Exit::Failed })
}

/// Only a database that the command line names is used: what `outbox.toml` names is not for playing.
async fn open_shop(
    settings: &Settings,
    folder: &std::path::Path,
    names: &Names,
) -> Result<Arc<dyn Shop>, Problem> {
    let origin = settings.origins.get(Setting::StoreUrl.key());
    let url = &settings.store.url;
    let named = origin.is_some_and(|origin| origin == "--store");
    match StoreUrl::parse(url.expose()).map_err(|e| Problem::new(Exit::Config, e))? {
        StoreUrl::Postgres(_) if named => Ok(Arc::new(
            shop_postgres::PostgresShop::open(url.clone(), names.clone()).await?,
        )),
        _ => Ok(Arc::new(
            shop_sqlite::SqliteShop::open(folder, names.clone()).await?,
        )),
    }
}
