//! Waiting for what nobody announces: a condition in another process, or in its database.
//!
//! Where there is a signal (a channel, an exit, a line of output) a test waits for that instead.

use std::time::{Duration, Instant};

use anyhow::ensure;

/// Time between two looks: short for a person, long for a server that is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `holds` says so.
///
/// # Errors
/// What `holds` could not do; or that it did not hold within `patience`.
pub async fn until(
    what: &str,
    patience: Duration,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds().await? {
        ensure!(
            began.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Looks until `count` has come to `goal`, however long that takes.
///
/// # Errors
/// What `count` could not do; or that it stood still for `patience`.
pub async fn reaches(
    what: &str,
    goal: u64,
    patience: Duration,
    mut count: impl AsyncFnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    let (mut seen, mut moved) = (count().await?, Instant::now());
    while seen < goal {
        ensure!(
            moved.elapsed() < patience,
            "{what}: stuck at {seen} of {goal} for {patience:?}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
        let now = count().await?;
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_may_take_its_time_but_not_stand_still() {
        let mut counts = [0, 1, 1, 2, 3].into_iter();
        let next = async || Ok(counts.next().unwrap_or(3));
        reaches("it grows", 3, Duration::from_secs(9), next)
            .await
            .unwrap();
        let none = Duration::ZERO;
        let stuck = reaches("rows", 9, none, async || Ok(4)).await.unwrap_err();
        assert_eq!(stuck.to_string(), "rows: stuck at 4 of 9 for 0ns");
    }

    #[tokio::test]
    async fn what_never_holds_is_named() {
        let never = until("rain", Duration::ZERO, async || Ok(false)).await;
        assert_eq!(never.unwrap_err().to_string(), "not within 0ns: rain");
    }
}
