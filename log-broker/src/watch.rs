//! Whoever waits for news of some partitions, and of no others.
//!
//! A log with thousands of waiting readers syncs thousands of groups a second: if each group woke
//! each reader, they would do nothing but look in vain.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A partition of a topic.
type Key = (Arc<str>, u32);

/// Some partitions of a log, watched until this is dropped.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    bell: Arc<Notify>,
    partitions: Vec<Key>,
}

impl Watch {
    /// Waits until something has become visible in one of the partitions, or a topic has changed,
    /// since the watch began or since this last returned. Look after it began, and then after each
    /// return, and nothing is missed.
    ///
    /// # Cancellation
    /// Safe: what came while nobody waited is told the next time.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut bells = self.watchers.bells();
        for partition in &self.partitions {
            let Some(held) = bells.get_mut(partition) else {
                continue;
            };
            held.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if held.is_empty() {
                bells.remove(partition);
            }
        }
    }
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<BTreeMap<Key, Vec<Arc<Notify>>>>);

impl Watchers {
    /// Begins to watch. Costs a look-up for each partition, and so does the end.
    pub fn watch(self: &Arc<Self>, partitions: Vec<Key>) -> Watch {
        let bell = Arc::new(Notify::new());
        let mut bells = self.bells();
        for partition in &partitions {
            let held = bells.entry(partition.clone()).or_default();
            held.push(bell.clone());
        }
        drop(bells);
        Watch {
            watchers: self.clone(),
            bell,
            partitions,
        }
    }

    /// Tells whoever watches one of these.
    pub fn ring<'a>(&self, partitions: impl Iterator<Item = &'a Key>) {
        let bells = self.bells();
        if bells.is_empty() {
            return;
        }
        for partition in partitions {
            let held = bells.get(partition).into_iter().flatten();
            held.for_each(|bell| bell.notify_one());
        }
    }

    /// Tells everybody.
    pub fn ring_all(&self) {
        let bells = self.bells();
        bells.values().flatten().for_each(|bell| bell.notify_one());
    }

    fn bells(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_dropped_leaves_nothing_behind() {
        let watchers = Arc::<Watchers>::default();
        let partition = |n: u32| (Arc::from("orders"), n);
        let first = watchers.watch(vec![partition(0), partition(1)]);
        let second = watchers.watch(vec![partition(1), partition(1)]);
        assert_eq!(watchers.bells().len(), 2);
        drop(first);
        assert_eq!(watchers.bells().len(), 1);
        drop(second);
        assert!(watchers.bells().is_empty());
    }
}
