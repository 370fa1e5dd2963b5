//! What happens in the demo, from the first order to the last record read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outbox_core::{
    Destination, DestinationStatus, OnDead, Order, RequestAction, RetryPolicy, Selection, Source,
    SourceError, Start,
};
use outbox_log_broker::Log;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Entry, Ledgers};
use super::place::LogPlace;
use super::plan::{Plan, PlannedOrder};
use super::process::{DESTINATION, Process};
use super::sabotage::Sabotage;
use super::shop::{Names, OrderPlaced, Shop};
use crate::exit::{Exit, Problem};
use crate::output::{Output, Unit};

/// A client thinks so long before the next order: without it, the one lock of a SQLite file would
/// never be free for the relay.
const THINK: Duration = Duration::from_millis(1);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Without any progress for so long the demo gives up, and the ledger shows what is missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for the last process to finish what is in flight.
const GRACE: Duration = Duration::from_secs(10);
/// One message out of so many is sent again at the end, to be recognised.
const RESEND_ONE_OF: usize = 100;
/// Most messages that are sent again.
const RESEND_MAX: usize = 1_000;
/// Bytes of the log read at a time.
const FETCH_BYTES: usize = 1 << 20;

/// Where the story takes place.
pub struct Story<'a> {
    /// The shop's clients and the onlookers; never killed.
    pub runtime: &'a Runtime,
    /// The business side.
    pub shop: &'a Arc<dyn Shop>,
    /// Where the log is.
    pub place: &'a Arc<LogPlace>,
    /// What things are called there.
    pub names: &'a Names,
    /// How it speaks.
    pub output: Output,
}

/// What became of it.
pub struct Told {
    /// What the stores hold.
    pub ledgers: Ledgers,
    /// Sum of the customers' balances.
    pub balance_cents: i64,
    /// How often the process was killed.
    pub kills: usize,
}

/// The process at work, and what tells how it goes.
struct Scene<'a> {
    story: &'a Story<'a>,
    /// Held open through all kills, when it is of this process.
    log: Option<Arc<Log>>,
    sabotage: Arc<Sabotage>,
    process: Option<Process>,
    interrupted: CancellationToken,
    kills: usize,
}

impl Story<'_> {
    /// Tells it to its end; `None` when a signal ended it early.
    pub fn tell(&self, plan: &Plan) -> Result<Option<Told>, Problem> {
        self.runtime.block_on(self.prepare(plan))?;
        let interrupted = self
            .runtime
            .block_on(async { crate::signals::shutdown() })?;
        let mut scene = Scene {
            story: self,
            log: self.runtime.block_on(self.place.open())?,
            sabotage: Sabotage::new(plan.kills.clone()),
            process: None,
            interrupted,
            kills: 0,
        };
        scene.start_process()?;
        if !scene.all_applied(plan)? || !scene.all_settled()? || !scene.some_again()? {
            return Ok(None);
        }
        let kills = scene.close()?;
        self.read_back(kills).map(Some)
    }

    async fn prepare(&self, plan: &Plan) -> Result<(), Problem> {
        self.place.check().await?;
        self.shop.prepare(&plan.orders).await?;
        let destination = Destination {
            name: DESTINATION.to_owned(),
            patterns: self.names.patterns(),
            broker: self.place.name(),
            order: Order::Key,
            on_dead: OnDead::BlockKey,
            retry: RetryPolicy::default(),
            start: Start::Beginning,
            paused: false,
        };
        Ok(self
            .shop
            .store()
            .await?
            .admin
            .declare(&[destination])
            .await?)
    }

    /// Reads all ledgers from the stores; the log from a fresh start, as its recovery left it.
    fn read_back(&self, kills: usize) -> Result<Told, Problem> {
        self.runtime.block_on(async {
            let books = self.shop.books().await?;
            let source = self.place.source(&self.names.onlooker).await?;
            let log = read_log(&*source, self.names).await.map_err(log_problem)?;
            let ledgers = Ledgers {
                committed: books.committed,
                rolled_back: books.rolled_back,
                log,
                applied: books.applied,
            };
            Ok(Told {
                ledgers,
                balance_cents: books.balance_cents,
                kills,
            })
        })
    }
}

impl Scene<'_> {
    fn start_process(&mut self) -> Result<(), Problem> {
        let shop = self.story.shop;
        let Story { place, names, .. } = self.story;
        let process = Process::start(shop, place, names, &self.sabotage)?;
        self.process = Some(process);
        Ok(())
    }

    /// The clients place all orders while the process is killed and started again, until every
    /// committed order is applied. `false`: interrupted.
    fn all_applied(&mut self, plan: &Plan) -> Result<bool, Problem> {
        let total = plan.orders.len() as u64;
        let bar = self.story.output.progress(total, "orders", Unit::Count);
        let mut clients = self
            .story
            .runtime
            .block_on(open_for_business(self.story.shop, plan));
        let shop = Arc::clone(self.story.shop);
        let mut served = false;
        let ended = self.until(|runtime| {
            runtime.block_on(async {
                while let Some(client) = clients.try_join_next() {
                    client
                        .map_err(|e| Problem::new(Exit::Failed, format!("place orders: {e}")))??;
                }
                served |= clients.is_empty();
                let counts = shop.counts().await?;
                bar.set_position(counts.applied);
                let all = served && counts.applied >= counts.committed;
                Ok(Progress {
                    done: all,
                    mark: (counts, served),
                })
            })
        });
        bar.finish_and_clear();
        ended
    }

    /// The relay has noted all it delivered: until then, asking for a message again only asks for
    /// one that is not known to be sent.
    fn all_settled(&mut self) -> Result<bool, Problem> {
        let shop = Arc::clone(self.story.shop);
        let admin = self.story.runtime.block_on(shop.store())?.admin;
        self.until(|runtime| {
            let status = runtime.block_on(admin.status())?;
            let waiting = |d: &DestinationStatus| d.pending + d.gaps + d.retrying + d.parked;
            let waiting: u64 = status.destinations.iter().map(waiting).sum();
            Ok(Progress {
                done: waiting == 0,
                mark: waiting,
            })
        })
    }

    /// An operator asks for some messages again; the inbox must recognise every one of them.
    fn some_again(&mut self) -> Result<bool, Problem> {
        let (shop, runtime) = (Arc::clone(self.story.shop), self.story.runtime);
        let names = self.story.names;
        let source = runtime.block_on(self.story.place.source(&names.onlooker))?;
        let expected = runtime.block_on(async {
            let books = shop.books().await?;
            let ids: Vec<_> = books
                .committed
                .iter()
                .step_by(RESEND_ONE_OF)
                .take(RESEND_MAX)
                .filter_map(|order| order.message_id.parse().ok())
                .collect();
            let admin = shop.store().await?.admin;
            let selection = Selection::Ids(ids);
            let asked = admin
                .request(DESTINATION, RequestAction::Resend, &selection)
                .await?;
            Ok::<u64, Problem>(books.committed.len() as u64 + asked)
        })?;
        self.until(|runtime| {
            let read = runtime.block_on(read_up_to(&*source, names));
            let read = read.map_err(log_problem)?;
            let done = read.caught_up && read.records >= expected;
            Ok(Progress {
                done,
                mark: read.records,
            })
        })
    }

    /// Looks again and again until it is done, killing the process when it is called for.
    /// `false`: interrupted. Gives up, as if it were done, when nothing moves any more.
    fn until<M: PartialEq>(
        &mut self,
        mut look: impl FnMut(&Runtime) -> Result<Progress<M>, Problem>,
    ) -> Result<bool, Problem> {
        let runtime = self.story.runtime;
        let mut last: Option<M> = None;
        let mut moved = Instant::now();
        loop {
            match runtime.block_on(self.next_event()) {
                Event::Look => {}
                Event::Interrupted => return Ok(false),
                Event::Problem(problem) => return Err(problem),
                Event::Kill => {
                    if let Some(process) = self.process.take() {
                        process.kill();
                        self.kills += 1;
                    }
                    self.start_process()?;
                    continue;
                }
            }
            let progress = look(runtime)?;
            if progress.done {
                return Ok(true);
            }
            if last.as_ref() != Some(&progress.mark) {
                (last, moved) = (Some(progress.mark), Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                tracing::error!(patience = ?PATIENCE, "nothing moves any more: giving up");
                return Ok(true);
            }
        }
    }

    /// All arms are cancel-safe.
    async fn next_event(&mut self) -> Event {
        let problem = async {
            match &mut self.process {
                Some(process) => process.problem().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.interrupted.cancelled() => Event::Interrupted,
            () = self.sabotage.called() => Event::Kill,
            problem = problem => Event::Problem(problem),
            () = tokio::time::sleep(LOOK) => Event::Look,
        }
    }

    /// Stops the process and closes the log, so that it can be opened as after a restart.
    fn close(mut self) -> Result<usize, Problem> {
        if let Some(process) = self.process.take() {
            process.stop(GRACE);
        }
        let Some(log) = self.log else {
            return Ok(self.kills);
        };
        let closed = Arc::downgrade(&log);
        drop(log);
        let deadline = Instant::now() + GRACE;
        // Tasks of killed processes are dropped by their own threads, which may take a moment.
        while closed.strong_count() > 0 {
            if Instant::now() > deadline {
                let text = format!("close the demo's log: still in use after {GRACE:?}");
                return Err(Problem::new(Exit::Failed, text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.kills)
    }
}

enum Event {
    Look,
    Kill,
    Interrupted,
    Problem(Problem),
}

struct Progress<M> {
    done: bool,
    /// Differs from the last one as long as something moves.
    mark: M,
}

/// Starts the clients; each takes the next order that nobody has taken.
async fn open_for_business(shop: &Arc<dyn Shop>, plan: &Plan) -> JoinSet<Result<(), Problem>> {
    let orders: Arc<[PlannedOrder]> = plan.orders.as_slice().into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..shop.clients() {
        let (shop, orders, next) = (Arc::clone(shop), Arc::clone(&orders), Arc::clone(&next));
        clients.spawn(async move {
            while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                shop.place(order).await?;
                tokio::time::sleep(THINK).await;
            }
            Ok(())
        });
    }
    clients
}

/// How far the consumer has read.
struct Read {
    /// It has read every record that the log holds.
    caught_up: bool,
    /// So many.
    records: u64,
}

async fn read_up_to(source: &dyn Source, names: &Names) -> Result<Read, SourceError> {
    let mut read = Read {
        caught_up: true,
        records: 0,
    };
    for partition in source.partitions(&names.patterns()).await? {
        let next = source.committed(&names.consumer, &partition).await?;
        read.records += next.unsigned_abs();
        read.caught_up &= source.fetch(&partition, next, 1).await?.is_empty();
    }
    Ok(read)
}

/// Every record of the log. Offsets order a partition, and a key is in one partition.
async fn read_log(source: &dyn Source, names: &Names) -> Result<Vec<Entry>, SourceError> {
    let mut entries = Vec::new();
    for partition in source.partitions(&names.patterns()).await? {
        let mut offset = 0;
        loop {
            let records = source.fetch(&partition, offset, FETCH_BYTES).await?;
            let Some(last) = records.last() else { break };
            offset = last.offset + 1;
            for record in &records {
                let order = OrderPlaced::read(record).map_err(|e| {
                    SourceError::Permanent(format!("record {}: {e}", record.offset))
                })?;
                entries.push(order.into());
            }
        }
    }
    Ok(entries)
}

fn log_problem(error: SourceError) -> Problem {
    Problem::new(Exit::Failed, format!("read the demo's log: {error}"))
}
