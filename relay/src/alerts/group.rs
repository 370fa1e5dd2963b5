//! Grouping and rate limit, without time or tasks of its own.
//!
//! For each (kind, destination): the first event is said at once; what follows within the interval
//! is gathered and said at its end as one notice with the sum. A state that ends before its
//! beginning was said is not said at all.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{Alert, AlertKind, AlertState};

use crate::limits;

/// Something to tell, perhaps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub kind: AlertKind,
    pub state: AlertState,
    pub destination: Option<String>,
    pub count: u64,
    pub text: String,
}

impl Event {
    pub(crate) fn into_alert(self, at: DateTime<Utc>) -> Alert {
        let text = match self.count {
            0 | 1 => self.text,
            _ if self.kind == AlertKind::Dead => {
                format!("{} messages are dead; the last: {}", self.count, self.text)
            }
            _ => self.text,
        };
        Alert {
            kind: self.kind,
            state: self.state,
            destination: self.destination,
            text,
            count: self.count,
            at,
        }
    }
}

type Key = (AlertKind, Option<String>);

/// What one (kind, destination) said last, and what it has to say next.
#[derive(Debug)]
struct Group {
    said_at: Duration,
    said: AlertState,
    waiting: Option<Event>,
}

/// All groups. Times are since some fixed point.
#[derive(Debug)]
pub(crate) struct Groups {
    interval: Duration,
    groups: HashMap<Key, Group>,
    ready: Vec<Event>,
}

impl Groups {
    /// At most one notice for each kind and destination in `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            groups: HashMap::new(),
            ready: Vec::new(),
        }
    }

    /// Takes an event in.
    pub(crate) fn add(&mut self, event: Event, now: Duration) {
        let key = (event.kind, event.destination.clone());
        let Some(group) = self.groups.get_mut(&key) else {
            if event.state == AlertState::Firing {
                self.begin(key, event, now);
            }
            return;
        };
        let quiet = now.saturating_sub(group.said_at) >= self.interval;
        // The end of what was said is told at once: somebody is waiting for it.
        let ends = event.state == AlertState::Resolved && group.said == AlertState::Firing;
        match (&mut group.waiting, event.state) {
            (None, AlertState::Resolved) if group.said == AlertState::Resolved => {}
            (waiting @ Some(_), AlertState::Resolved) if !ends => *waiting = None,
            (waiting, _) if ends || (quiet && waiting.is_none()) => {
                *waiting = None;
                group.said_at = now;
                group.said = event.state;
                self.ready.push(event);
            }
            (Some(waiting), _) => {
                waiting.count = waiting.count.saturating_add(event.count);
                waiting.text = event.text;
            }
            (waiting, _) => *waiting = Some(event),
        }
    }

    fn begin(&mut self, key: Key, event: Event, now: Duration) {
        if self.groups.len() >= limits::ALERT_GROUPS_MAX {
            let silent = self.groups.iter().filter(|(_, g)| g.waiting.is_none());
            let oldest = silent
                .min_by_key(|(_, g)| g.said_at)
                .map(|(k, _)| k.clone());
            oldest.and_then(|k| self.groups.remove(&k));
        }
        let group = Group {
            said_at: now,
            said: event.state,
            waiting: None,
        };
        self.groups.insert(key, group);
        self.ready.push(event);
    }

    /// What is to be said now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Event> {
        for group in self.groups.values_mut() {
            if now.saturating_sub(group.said_at) >= self.interval
                && let Some(event) = group.waiting.take()
            {
                group.said_at = now;
                group.said = event.state;
                self.ready.push(event);
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// When something will be to be said.
    pub(crate) fn next(&self) -> Option<Duration> {
        let waiting = self.groups.values().filter(|g| g.waiting.is_some());
        waiting.map(|g| g.said_at + self.interval).min()
    }

    /// Everything that waits, at the end.
    pub(crate) fn flush(&mut self) -> Vec<Event> {
        let waiting = self.groups.values_mut().filter_map(|g| g.waiting.take());
        self.ready.extend(waiting);
        std::mem::take(&mut self.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn event(kind: AlertKind, state: AlertState, count: u64) -> Event {
        Event {
            kind,
            state,
            destination: Some("d".to_owned()),
            count,
            text: format!("{count}"),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_one_notice_at_once_and_one_with_the_sum() {
        let mut groups = Groups::new(MINUTE);
        for second in 0..50 {
            groups.add(event(AlertKind::Dead, AlertState::Firing, 2), at(second));
        }
        let first = groups.due(at(50));
        assert_eq!(first.iter().map(|e| e.count).collect::<Vec<_>>(), [2]);
        assert_eq!(groups.next(), Some(MINUTE));
        assert!(groups.due(at(59)).is_empty());
        let second = groups.due(at(60));
        assert_eq!(second.iter().map(|e| e.count).collect::<Vec<_>>(), [98]);
        assert_eq!(groups.next(), None);
    }

    #[test]
    fn kinds_and_destinations_do_not_hold_each_other_up() {
        let mut groups = Groups::new(MINUTE);
        groups.add(event(AlertKind::Dead, AlertState::Firing, 1), at(0));
        groups.add(event(AlertKind::Unrouted, AlertState::Firing, 1), at(0));
        let mut other = event(AlertKind::Dead, AlertState::Firing, 1);
        other.destination = None;
        groups.add(other, at(0));
        assert_eq!(groups.due(at(0)).len(), 3);
    }

    #[test]
    fn an_end_is_said_at_once_and_only_when_the_beginning_was() {
        let mut groups = Groups::new(MINUTE);
        groups.add(event(AlertKind::Outage, AlertState::Resolved, 1), at(0));
        assert!(groups.due(at(0)).is_empty());
        groups.add(event(AlertKind::Outage, AlertState::Firing, 1), at(1));
        groups.add(event(AlertKind::Outage, AlertState::Resolved, 1), at(2));
        let said: Vec<_> = groups.due(at(2)).iter().map(|e| e.state).collect();
        assert_eq!(said, [AlertState::Firing, AlertState::Resolved]);
    }

    #[test]
    fn flapping_is_said_once_in_an_interval() {
        let mut groups = Groups::new(MINUTE);
        let mut said = 0;
        for second in 0..120 {
            let state = match second % 2 {
                0 => AlertState::Firing,
                _ => AlertState::Resolved,
            };
            groups.add(event(AlertKind::Outage, state, 1), at(second));
            said += groups.due(at(second)).len();
        }
        assert!((2..=6).contains(&said), "{said}");
    }

    #[test]
    fn what_still_waits_at_the_end_is_not_lost() {
        let mut groups = Groups::new(MINUTE);
        groups.add(event(AlertKind::Dead, AlertState::Firing, 1), at(0));
        groups.due(at(0));
        groups.add(event(AlertKind::Dead, AlertState::Firing, 5), at(1));
        assert_eq!(groups.flush().len(), 1);
        assert!(groups.flush().is_empty());
    }

    #[test]
    fn the_number_of_groups_is_bounded() {
        let mut groups = Groups::new(MINUTE);
        for number in 0..limits::ALERT_GROUPS_MAX + 10 {
            let mut one = event(AlertKind::Dead, AlertState::Firing, 1);
            one.destination = Some(number.to_string());
            groups.add(one, at(number as u64));
        }
        assert!(groups.groups.len() <= limits::ALERT_GROUPS_MAX);
    }
}
