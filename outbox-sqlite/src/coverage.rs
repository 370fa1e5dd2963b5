//! Which messages a destination covers, from which seq on.

use outbox_core::{Seq, StoreError, TopicPattern};
use sqlx::SqliteConnection;

use crate::error::{corrupt, failed};
use crate::row::get;

/// One pattern of one destination, in force for a stretch of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) destination: String,
    pub(crate) pattern: TopicPattern,
    pub(crate) from: Seq,
    pub(crate) to: Option<Seq>,
}

impl Route {
    fn covers(&self, topic: &str, seq: Seq) -> bool {
        self.from <= seq && self.to.is_none_or(|to| seq <= to) && self.pattern.matches(topic)
    }
}

/// The routes of all destinations that still matter behind some seq.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Routes {
    all: Vec<Route>,
    /// The destination that counts messages without a route.
    counter: Option<String>,
}

impl Routes {
    /// Reads those in force behind `after`.
    pub(crate) async fn read(tx: &mut SqliteConnection, after: Seq) -> Result<Self, StoreError> {
        const ROUTES: &str = "SELECT destination, pattern, from_seq, to_seq FROM outbox_route \
             WHERE to_seq IS NULL OR to_seq > ? ORDER BY id";
        const COUNTER: &str =
            "SELECT name FROM outbox_destination WHERE NOT paused ORDER BY id LIMIT 1";
        let rows = sqlx::query(ROUTES).bind(after).fetch_all(&mut *tx).await;
        let counter = sqlx::query(COUNTER).fetch_optional(tx).await;
        let counter = counter.map_err(|e| failed("read the routes", e))?;
        let mut all = Vec::new();
        for row in rows.map_err(|e| failed("read the routes", e))? {
            let pattern: &str = get(&row, 1)?;
            all.push(Route {
                destination: get(&row, 0)?,
                pattern: pattern
                    .parse()
                    .map_err(|_| corrupt("the pattern", pattern))?,
                from: get(&row, 2)?,
                to: get(&row, 3)?,
            });
        }
        let counter = counter.map(|row| get(&row, 0)).transpose()?;
        Ok(Self { all, counter })
    }

    /// Whether `destination` is the one that counts messages without a route.
    pub(crate) fn counts_unrouted(&self, destination: &str) -> bool {
        self.counter.as_deref() == Some(destination)
    }

    /// Whether any destination covers the message.
    pub(crate) fn cover(&self, topic: &str, seq: Seq) -> bool {
        self.all.iter().any(|r| r.covers(topic, seq))
    }

    /// Whether `destination` covers the message.
    pub(crate) fn cover_for(&self, destination: &str, topic: &str, seq: Seq) -> bool {
        let mut own = self.all.iter().filter(|r| r.destination == destination);
        own.any(|r| r.covers(topic, seq))
    }

    /// An SQL expression over `m` that is true where `destination` covers the message. Patterns
    /// and seqs stand in it as literals: a parsed pattern has no character that could leave them.
    pub(crate) fn condition(&self, destination: &str) -> String {
        let own = self.all.iter().filter(|r| r.destination == destination);
        let terms: Vec<String> = own.map(term).collect();
        match terms.is_empty() {
            true => "0".to_owned(),
            false => format!("({})", terms.join(" OR ")),
        }
    }
}

/// A star of a pattern and of GLOB mean the same; GLOB minds the case, LIKE does not.
fn term(route: &Route) -> String {
    let mut term = format!("(m.seq >= {}", route.from);
    if let Some(to) = route.to {
        term.push_str(&format!(" AND m.seq <= {to}"));
    }
    if !route.pattern.is_all() {
        term.push_str(&format!(" AND m.topic GLOB '{}'", route.pattern));
    }
    term + ")"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, pattern: &str, from: Seq, to: Option<Seq>) -> Route {
        Route {
            destination: destination.to_owned(),
            pattern: pattern.parse().expect("pattern"),
            from,
            to,
        }
    }

    #[tokio::test]
    async fn the_sql_condition_agrees_with_the_patterns() {
        let all = vec![
            route("d", "a.*", 1, Some(5)),
            route("d", "a_b", 3, None),
            route("e", "*", 1, None),
            route("f", "*x*y", 1, None),
        ];
        let routes = Routes { all, counter: None };
        let mut connection = <SqliteConnection as sqlx::Connection>::connect(":memory:")
            .await
            .expect("open");
        for topic in ["a.b", "a.", "a", "a_b", "aXb", "A.b", "x.y", "axbyc", "xy"] {
            for seq in 1..8 {
                for destination in ["d", "e", "f", "g"] {
                    let sql = format!(
                        "SELECT {} FROM (SELECT {seq} AS seq, '{topic}' AS topic) m",
                        routes.condition(destination)
                    );
                    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
                        .fetch_one(&mut connection)
                        .await;
                    let covered: bool = get(&row.expect("query"), 0).expect("bool");
                    let expected = routes.cover_for(destination, topic, seq);
                    assert_eq!(covered, expected, "{destination} {topic} {seq}");
                }
            }
        }
    }
}
