//! Moments on the command line: an age or a time.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::config::value::Span;

/// A moment: `1h` ago, or a time in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Span),
    /// Then.
    At(DateTime<Utc>),
}

impl Moment {
    /// The time itself.
    pub fn resolve(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            // An age beyond the calendar means "since ever".
            Self::Ago(span) => chrono::Duration::from_std(span.0)
                .ok()
                .and_then(|age| now.checked_sub_signed(age))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(time.with_timezone(&Utc)));
        }
        text.parse().map(Self::Ago).map_err(|_| {
            format!("{text:?} is neither an age such as 1h nor a time such as 2026-01-31T12:00:00Z")
        })
    }
}

/// A length of time for a person: `3s`, `4m`, `2h`, `5d`.
pub fn short(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        let now: DateTime<Utc> = "2026-01-31T12:00:00Z".parse().expect("a time");
        let hour: Moment = "1h".parse().expect("an age");
        assert_eq!(hour.resolve(now).to_rfc3339(), "2026-01-31T11:00:00+00:00");
        let then: Moment = "2026-01-30T12:00:00+02:00".parse().expect("a time");
        assert_eq!(then.resolve(now).to_rfc3339(), "2026-01-30T10:00:00+00:00");
        assert!(
            "yesterday"
                .parse::<Moment>()
                .unwrap_err()
                .contains("\"yesterday\"")
        );
        let ever: Moment = "99999999999d".parse().expect("an age");
        assert!(ever.resolve(now) < now);
    }
}
