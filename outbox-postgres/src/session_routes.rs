//! Which topics are whose, and from which seq to which.

use std::sync::Arc;

use outbox_core::{Seq, StoreError, TopicPattern};
use sqlx::{PgConnection, Row};

use crate::error::{OrStoreError, damaged};
use crate::sql::{ROUTES, Statements};

/// One pattern of one destination for a stretch of the log, both ends included.
#[derive(Clone, Debug, PartialEq)]
struct Route {
    destination: Arc<str>,
    pattern: TopicPattern,
    from: Seq,
    to: Option<Seq>,
}

impl Route {
    fn holds_at(&self, seq: Seq) -> bool {
        self.from <= seq && self.to.is_none_or(|to| seq <= to)
    }

    fn overlaps(&self, from: Seq, through: Seq) -> bool {
        self.from <= through && self.to.is_none_or(|to| from <= to)
    }
}

/// The routes of every destination, as seen by one of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Routes {
    destination: Arc<str>,
    routes: Vec<Route>,
}

impl Routes {
    /// Reads all routes.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        statements: &Statements,
        destination: &str,
    ) -> Result<Self, StoreError> {
        let doing = "read the routes";
        let rows = statements
            .query(ROUTES)
            .fetch_all(connection)
            .await
            .or_store(doing)?;
        let routes = rows.iter().map(|row| {
            let pattern: &str = row.get(1);
            Ok(Route {
                destination: row.get::<&str, _>(0).into(),
                pattern: pattern
                    .parse()
                    .map_err(|e| damaged(doing, format!("{e}")))?,
                from: row.get(2),
                to: row.get(3),
            })
        });
        Ok(Self {
            destination: destination.into(),
            routes: routes.collect::<Result<_, StoreError>>()?,
        })
    }

    fn own(&self) -> impl Iterator<Item = &Route> {
        self.routes
            .iter()
            .filter(|route| route.destination == self.destination)
    }

    /// Our patterns at `seq`.
    pub(crate) fn patterns_at(&self, seq: Seq) -> Vec<TopicPattern> {
        self.own()
            .filter(|r| r.holds_at(seq))
            .map(|r| r.pattern.clone())
            .collect()
    }

    /// Whether a message is ours.
    pub(crate) fn ours(&self, seq: Seq, topic: &str) -> bool {
        self.own()
            .any(|r| r.holds_at(seq) && r.pattern.matches(topic))
    }

    /// Whether any destination covers `topic` somewhere in a stretch.
    pub(crate) fn anyones(&self, from: Seq, through: Seq, topic: &str) -> bool {
        self.routes
            .iter()
            .any(|r| r.overlaps(from, through) && r.pattern.matches(topic))
    }

    /// The last seq, from `from` on, up to which our patterns are the same.
    pub(crate) fn same_until(&self, from: Seq) -> Seq {
        let starts = self.own().map(|route| route.from);
        let ends = self.own().filter_map(|route| route.to).map(|to| to + 1);
        let next = starts.chain(ends).filter(|&boundary| boundary > from).min();
        next.map_or(Seq::MAX, |boundary| boundary - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str, Seq, Option<Seq>)]) -> Routes {
        let route = |&(destination, pattern, from, to): &(&str, &str, Seq, Option<Seq>)| Route {
            destination: destination.into(),
            pattern: pattern.parse().expect("valid"),
            from,
            to,
        };
        Routes {
            destination: "a".into(),
            routes: list.iter().map(route).collect(),
        }
    }

    #[test]
    fn a_change_of_patterns_takes_effect_at_its_seq() {
        let routes = routes(&[
            ("a", "old", 1, Some(9)),
            ("a", "new", 10, None),
            ("b", "*", 5, None),
        ]);
        assert_eq!(routes.same_until(1), 9);
        assert_eq!(routes.same_until(10), Seq::MAX);
        assert!(routes.ours(9, "old") && !routes.ours(10, "old"));
        assert!(!routes.ours(9, "new") && routes.ours(10, "new"));
        assert_eq!(routes.patterns_at(10), ["new".parse().unwrap()]);
    }

    #[test]
    fn a_topic_is_somebodys_when_any_route_overlaps_the_stretch() {
        let routes = routes(&[("b", "x", 5, Some(9))]);
        assert!(routes.anyones(9, 12, "x"));
        assert!(!routes.anyones(10, 12, "x"));
        assert!(!routes.anyones(9, 12, "y"));
    }
}
