//! Topics and the patterns that routes are made of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::message::{InvalidMessage, size};

/// Checks a topic's length and characters.
pub(crate) fn check_topic(topic: &str) -> Result<(), InvalidMessage> {
    if topic.is_empty() {
        return Err(InvalidMessage::Empty { field: "topic" });
    }
    size("topic", topic.len(), limits::TOPIC_BYTES_MAX)?;
    match topic.char_indices().find(|&(_, c)| !is_topic_char(c)) {
        None => Ok(()),
        Some((at, found)) => Err(InvalidMessage::TopicCharacter {
            topic: topic.to_owned(),
            found,
            at,
        }),
    }
}

fn is_topic_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// A topic, or a pattern with `*`, which stands for any run of characters, dots included:
/// `orders.*` covers `orders.placed` and `orders.eu.placed`; `*` covers everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(String);

impl TopicPattern {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this pattern covers every topic.
    pub fn is_all(&self) -> bool {
        self.0.bytes().all(|b| b == b'*')
    }

    /// Whether this pattern covers `topic`. Linear in both lengths for one star.
    pub fn matches(&self, topic: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = topic.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for middle in parts {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + middle.len()..],
                None => return false,
            }
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }

    /// The same pattern for SQL's `LIKE … ESCAPE '\'`.
    pub fn to_like(&self) -> String {
        self.0.replace('_', "\\_").replace('*', "%")
    }
}

impl FromStr for TopicPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidPattern(
                "is empty: give a topic, or * for all".to_owned(),
            ));
        }
        if text.len() > limits::TOPIC_BYTES_MAX {
            let (len, limit) = (text.len(), limits::TOPIC_BYTES_MAX);
            return Err(InvalidPattern(format!(
                "is {len} bytes long, the limit is {limit}"
            )));
        }
        match text.chars().find(|&c| c != '*' && !is_topic_char(c)) {
            None => Ok(Self(text.to_owned())),
            Some(c) => Err(InvalidPattern(format!(
                "{text:?} has {c:?}: allowed are A-Z a-z 0-9 . _ - and *"
            ))),
        }
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a topic pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic pattern {0}")]
pub struct InvalidPattern(String);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().expect("valid")
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        assert!(pattern("orders.*").matches("orders.placed"));
        assert!(pattern("orders.*").matches("orders.eu.placed"));
        assert!(!pattern("orders.*").matches("orders"));
        assert!(pattern("*.placed").matches("orders.placed"));
        assert!(pattern("a*b*c").matches("a-b-b-c"));
        assert!(!pattern("a*bc").matches("abcd"));
        assert!(!pattern("ab*b").matches("ab"));
        assert!(pattern("*").matches("x"));
        assert!(!pattern("orders").matches("orders.placed"));
    }

    #[test]
    fn like_escapes_the_underscore() {
        assert_eq!(pattern("a_b.*").to_like(), "a\\_b.%");
    }

    /// The obvious definition, exponential and short.
    fn naive(pattern: &[u8], topic: &[u8]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((b'*', rest)) => (0..=topic.len()).any(|i| naive(rest, &topic[i..])),
            Some((c, rest)) => topic.first() == Some(c) && naive(rest, &topic[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_obvious_definition(p in "[ab*]{1,8}", t in "[ab]{0,10}") {
            prop_assert_eq!(pattern(&p).matches(&t), naive(p.as_bytes(), t.as_bytes()));
        }
    }
}
