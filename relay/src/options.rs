//! What can be set, and what it is when it is not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outbox_core::{AlertSink, Clock, PageLimit, limits};

use crate::clock::BootClock;
use crate::error::RelayError;
use crate::schedule::Schedule;

/// Options of a [`crate::Relay`]. The defaults are meant for production.
#[derive(Clone)]
pub struct RelayOptions {
    /// Name of this relay, unique among those on the store: 1 to 63 bytes. Default: the host's
    /// name and a random part, new at each start, so that a restarted relay never takes itself
    /// for the one before.
    pub instance: String,
    /// How long a relay may be silent before others take its destinations. Default 5 s; at least
    /// 100 ms. Longer: a later take-over after a crash. Shorter: a relay that is merely slow loses
    /// its leases.
    pub lease_ttl: Duration,
    /// Where a page ends. Default [`PageLimit::default`]. A destination holds at most three pages.
    pub page: PageLimit,
    /// Shortest time between two settles that only move the cursor. Default 50 ms. After a crash
    /// up to so much is sent again. Zero: settle after each page.
    pub settle_interval: Duration,
    /// First wait of the poll after a message. Default 500 µs, which a timer makes about 1 ms.
    pub poll_busy: Duration,
    /// Longest wait of the idle poll. Default 50 ms.
    pub poll_idle: Duration,
    /// Longest publish of one batch before it counts as an outage. Default 30 s.
    pub publish_timeout: Duration,
    /// Waits between tries in an outage.
    pub outage_backoff: Backoff,
    /// How long a stopping relay finishes what is in flight. Default 10 s; then it is abandoned,
    /// and sent again by the next leader.
    pub shutdown_grace: Duration,
    /// Where `/livez`, `/readyz` and `/metrics` are served. Default `None`: nowhere.
    pub http: Option<HttpOptions>,
    /// Who is told what.
    pub alerts: AlertOptions,
    /// House-keeping of the store. Default on; `None`: somebody else does it.
    pub maintenance: Option<MaintenanceOptions>,
    /// Time. Default [`BootClock`].
    pub clock: Arc<dyn Clock>,
    /// Where random waits come from. Default `None`: another seed at each start, so that relays
    /// are never in step. A test sets it, so that a run can be repeated to the last wait.
    pub seed: Option<u64>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            instance: default_instance(),
            lease_ttl: Duration::from_secs(5),
            page: PageLimit::default(),
            settle_interval: Duration::from_millis(50),
            poll_busy: Duration::from_micros(500),
            poll_idle: Duration::from_millis(50),
            publish_timeout: Duration::from_secs(30),
            outage_backoff: Backoff::default(),
            shutdown_grace: Duration::from_secs(10),
            http: None,
            alerts: AlertOptions::default(),
            maintenance: Some(MaintenanceOptions::default()),
            clock: Arc::new(BootClock),
            seed: None,
        }
    }
}

impl fmt::Debug for RelayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOptions")
            .field("instance", &self.instance)
            .field("lease_ttl", &self.lease_ttl)
            .field("page", &self.page)
            .field("http", &self.http)
            .field("alerts", &self.alerts)
            .field("maintenance", &self.maintenance)
            .finish_non_exhaustive()
    }
}

impl RelayOptions {
    /// Time between two beats: three of them must be missed before a lease is over.
    pub(crate) fn beat_interval(&self) -> Duration {
        self.lease_ttl / 3
    }

    pub(crate) fn check(&self) -> Result<(), RelayError> {
        let refuse = |field, value: String, rule| Err(RelayError::Option { field, value, rule });
        if self.instance.is_empty() || self.instance.len() > limits::NAME_BYTES_MAX {
            return refuse(
                "instance",
                self.instance.clone(),
                "it must have 1 to 63 bytes",
            );
        }
        if self.lease_ttl < Duration::from_millis(100) {
            let value = format!("{:?}", self.lease_ttl);
            return refuse("lease_ttl", value, "it must be at least 100 ms");
        }
        if self.page.rows == 0 || self.page.bytes == 0 {
            let value = format!("{:?}", self.page);
            return refuse("page", value, "both limits must be at least 1");
        }
        if self.poll_busy.is_zero() || self.poll_busy > self.poll_idle {
            let value = format!("{:?} to {:?}", self.poll_busy, self.poll_idle);
            return refuse("poll", value, "it must grow from more than zero");
        }
        Ok(())
    }
}

/// Exponential waits: `initial`, doubled each time, at most `max`; up to half of each is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait. Default 100 ms.
    pub initial: Duration,
    /// The longest wait. Default 5 s: how late a recovery is noticed.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The wait after the n-th failure (n ≥ 1), without jitter.
    pub fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }
}

/// Where the relay answers HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address. Default `127.0.0.1:9187`; port 0 takes any.
    pub addr: SocketAddr,
    /// Allow an address that is reachable from outside. Default no: there is no authentication.
    pub allow_remote: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 9_187)),
            allow_remote: false,
        }
    }
}

/// Who is told what, and when.
#[derive(Clone)]
pub struct AlertOptions {
    /// Where alerts go. Default: the log.
    pub sinks: Vec<Arc<dyn AlertSink>>,
    /// At most one notice for each kind and destination in this time; what comes meanwhile is
    /// summed up. Default 60 s.
    pub interval: Duration,
    /// How long an outage lasts before it is an alert. Default 5 s: metrics and readiness show it
    /// at once. Zero: at once.
    pub outage_after: Duration,
    /// How long a gap stays open before it is an alert. Default 60 s.
    pub gap_after: Duration,
    /// How old the oldest unsent message is before it is an alert. Default 5 min; `None`: never.
    pub lag_after: Option<Duration>,
}

impl Default for AlertOptions {
    fn default() -> Self {
        Self {
            sinks: vec![Arc::new(crate::alerts::LogSink)],
            interval: Duration::from_secs(60),
            outage_after: Duration::from_secs(5),
            gap_after: Duration::from_secs(60),
            lag_after: Some(Duration::from_secs(300)),
        }
    }
}

impl fmt::Debug for AlertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self.sinks.iter().map(|s| s.name()).collect();
        f.debug_struct("AlertOptions")
            .field("sinks", &sinks)
            .field("interval", &self.interval)
            .field("outage_after", &self.outage_after)
            .field("gap_after", &self.gap_after)
            .field("lag_after", &self.lag_after)
            .finish()
    }
}

/// When the store's house is kept.
#[derive(Clone, Debug)]
pub struct MaintenanceOptions {
    /// Time between two rounds. Default 60 s; the first is at the start. Partitions must be
    /// attached well ahead, so this is not what to save on.
    pub interval: Duration,
    /// How long messages stay readable after every destination is done with them. Default 7 d.
    pub retention: Duration,
    /// When retention may empty partitions: in the first round after each time of this schedule.
    /// Default `None`: in every round.
    pub retention_at: Option<Schedule>,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            retention: Duration::from_secs(7 * 24 * 3600),
            retention_at: None,
        }
    }
}

fn default_instance() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let clean = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    let short: String = clean.take(40).collect();
    format!("{short}-{:012x}", rand::random::<u64>() >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted_and_name_each_relay_apart() {
        let (one, two) = (RelayOptions::default(), RelayOptions::default());
        one.check().expect("fine");
        assert_ne!(one.instance, two.instance);
    }

    #[test]
    fn an_option_without_sense_is_named_with_its_rule() {
        let options = RelayOptions {
            lease_ttl: Duration::from_millis(1),
            ..RelayOptions::default()
        };
        let error = options.check().expect_err("too short").to_string();
        assert_eq!(
            error,
            "start the relay: lease_ttl is 1ms, it must be at least 100 ms"
        );
    }

    #[test]
    fn a_backoff_doubles_up_to_its_cap_however_many_failures() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1), Duration::from_millis(100));
        assert_eq!(backoff.delay(3), Duration::from_millis(400));
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(5));
    }
}
