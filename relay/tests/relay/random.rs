//! Anything may fail at any time: what must hold all the same, over many random runs.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::TimeDelta;
use outbox_core::{Capabilities, Clock, OnDead, RequestAction, RetryPolicy, Seq};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Bed, Fate, Running, ScriptedBroker, destination, message, pass};

/// Runs of each test.
const RUNS: u64 = 3;

/// What one run enqueued.
#[derive(Default)]
struct Book {
    committed: Vec<Seq>,
    open: Vec<Seq>,
    late: HashSet<Seq>,
    expires: HashSet<Seq>,
    discarded: HashSet<Seq>,
}

struct Run {
    bed: Bed,
    rng: StdRng,
    book: Book,
    relay: Option<Running>,
    started: u32,
}

impl Run {
    fn new(seed: u64, capabilities: Capabilities) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut config = destination("d");
        config.on_dead = match rng.random_bool(0.5) {
            true => OnDead::BlockKey,
            false => OnDead::Skip,
        };
        config.retry = RetryPolicy {
            initial: Duration::from_millis(50),
            max_attempts: Some(rng.random_range(2..5)),
            ..RetryPolicy::default()
        };
        let mut bed = Bed::with(ScriptedBroker::with(capabilities), &[config]);
        bed.seed = seed;
        let mut fates = StdRng::seed_from_u64(seed ^ 0xfeed);
        bed.broker
            .script(move |_| match fates.random_range(0..100) {
                0..6 => Fate::Transient,
                6..8 => Fate::Permanent,
                8..11 => Fate::Timeout,
                _ => Fate::Accept,
            });
        Self {
            bed,
            rng,
            book: Book::default(),
            relay: None,
            started: 0,
        }
    }

    fn key(&mut self) -> String {
        // A few hot keys and some cold ones.
        match self.rng.random_bool(0.5) {
            true => format!("hot{}", self.rng.random_range(0..3)),
            false => format!("cold{}", self.rng.random_range(0..50)),
        }
    }

    fn enqueue(&mut self) {
        let mut message = message(&self.key());
        let now = self.bed.clock.now();
        let seconds = self.rng.random_range(1..40);
        let kind = self.rng.random_range(0..40);
        match kind {
            0 => message = message.deliver_after(now + TimeDelta::seconds(seconds)),
            1 => message = message.expires_at(now + TimeDelta::seconds(seconds)),
            2 => message.key = None,
            _ => {}
        }
        let seq = self.bed.store.begin(message);
        if kind == 1 {
            self.book.expires.insert(seq);
        }
        match self.rng.random_range(0..20) {
            0 => self.bed.store.roll_back(seq),
            1 => {
                self.book.open.push(seq);
                self.book.late.insert(seq);
            }
            _ => {
                self.bed.store.commit(seq);
                self.book.committed.push(seq);
            }
        }
    }

    fn close_one(&mut self) {
        if self.book.open.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.book.open.len());
        let seq = self.book.open.swap_remove(at);
        match self.rng.random_bool(0.7) {
            true => {
                self.bed.store.commit(seq);
                self.book.committed.push(seq);
            }
            false => self.bed.store.roll_back(seq),
        }
    }

    fn dead(&self) -> Vec<Seq> {
        let tables = self.bed.store.tables();
        let rows = tables.destinations["d"].rows.values();
        let dead = rows.filter(|r| r.state == outbox_core::DeliveryState::Dead);
        dead.map(|r| r.seq).collect()
    }

    fn ask(&mut self) {
        let dead = self.dead();
        if dead.is_empty() {
            return;
        }
        let seq = dead[self.rng.random_range(0..dead.len())];
        let action = match self.rng.random_range(0..3) {
            0 => RequestAction::Resend,
            1 => RequestAction::Unblock,
            _ => {
                self.book.discarded.insert(seq);
                RequestAction::Discard
            }
        };
        self.bed.store.request("d", action, &[seq]);
    }

    async fn restart(&mut self) {
        if let Some(relay) = self.relay.take() {
            match self.rng.random_bool(0.5) {
                true => relay.stop().await,
                false => relay.kill().await,
            }
        }
        self.started += 1;
        self.relay = Some(self.bed.start(&format!("relay-{}", self.started)));
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..5 => self.restart().await,
            5..10 => self.bed.store.tables().broken = self.rng.random_range(1..3),
            10..20 => {
                let outage = !self.bed.broker.state().outage;
                self.bed.broker.state().outage = outage;
            }
            20..60 => self.close_one(),
            60..80 => self.ask(),
            80..90 => {
                let millis = self.rng.random_range(0..30);
                self.bed.broker.state().latency = Duration::from_millis(millis);
            }
            90..95 => {
                // Enough of one key for a marker, when it is blocked.
                for _ in 0..1_500 {
                    let seq = self.bed.enqueue("hot0");
                    self.book.committed.push(seq);
                }
            }
            95..200 => {
                let millis = self.rng.random_range(1..400);
                pass(Duration::from_millis(millis)).await;
            }
            _ => self.enqueue(),
        }
    }

    /// Everything heals: what was not given up must be there.
    async fn settle_down(&mut self) {
        while !self.book.open.is_empty() {
            self.close_one();
        }
        // A cursor does not pass rolled-back seqs before a later message is seen.
        let last = self.bed.enqueue("last");
        self.book.committed.push(last);
        self.bed.broker.state().outage = false;
        self.bed.broker.state().latency = Duration::ZERO;
        self.bed.broker.script(|_| Fate::Accept);
        self.bed.store.tables().broken = 0;
        self.restart().await;
        loop {
            pass(Duration::from_secs(60)).await;
            let dead = self.dead();
            if dead.is_empty() {
                break;
            }
            self.bed.store.request("d", RequestAction::Resend, &dead);
        }
        self.bed.done().await;
        if let Some(relay) = self.relay.take() {
            relay.stop().await;
        }
    }

    fn check(&self, seed: u64, ordered: bool) {
        let stored: BTreeSet<Seq> = self.bed.broker.seqs().into_iter().collect();
        let given_up =
            |seq: &Seq| self.book.discarded.contains(seq) || self.book.expires.contains(seq);
        let lost: Vec<_> = self
            .book
            .committed
            .iter()
            .filter(|seq| !stored.contains(seq) && !given_up(seq))
            .collect();
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
        let committed: HashSet<_> = self.book.committed.iter().copied().collect();
        let invented: Vec<_> = stored
            .iter()
            .filter(|seq| !committed.contains(seq))
            .collect();
        assert!(
            invented.is_empty(),
            "seed {seed}: never committed {invented:?}"
        );
        if ordered {
            let wrong = self.bed.broker.out_of_order_but(&self.book.late);
            assert!(wrong.is_empty(), "seed {seed}: out of order {wrong:?}");
        }
    }
}

async fn run(seed: u64, capabilities: Capabilities) -> Run {
    let mut run = Run::new(seed, capabilities);
    run.restart().await;
    for _ in 0..1_500 {
        run.step().await;
    }
    run.settle_down().await;
    run.check(seed, true);
    run
}

fn seeds() -> impl Iterator<Item = u64> {
    match std::env::var("OUTBOX_TEST_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("OUTBOX_TEST_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let first = rand::random::<u32>().into();
            first..first + RUNS
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_reordered_at_a_plain_broker() {
    for seed in seeds() {
        run(
            seed,
            Capabilities {
                ordered_batches: true,
                ..Capabilities::default()
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_reordered_at_a_broker_that_needs_waves() {
    for seed in seeds() {
        run(seed, Capabilities::default()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_believes_ranges_and_low_water_takes_nothing_for_a_duplicate() {
    for seed in seeds() {
        let run = run(
            seed,
            Capabilities {
                ordered_batches: true,
                fences: true,
                drops_duplicates: true,
            },
        )
        .await;
        let mut first = HashSet::new();
        let stored = run.bed.broker.state().stored.clone();
        let twice = stored
            .iter()
            .filter(|s| !first.insert((s.seq, s.redelivery)));
        assert_eq!(twice.count(), 0, "seed {seed}");
    }
}
