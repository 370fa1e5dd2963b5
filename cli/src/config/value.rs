//! Values of the configuration that are more than a string: each checks itself while it is read,
//! so that a mistake is reported with its line and column.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{Start, limits};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A text that may be a secret: given as it is, or by reference to where it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The text itself.
    Plain(String),
    /// `{ env = "NAME" }`: the value of an environment variable.
    Env(String),
    /// `{ file = "path" }`: the content of a file, without the line end.
    File(PathBuf),
}

impl SecretRef {
    /// The text, fetched from where it is kept.
    ///
    /// # Errors
    /// Names the setting and the variable or file; never the value.
    pub fn resolve(
        &self,
        setting: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Secret, String> {
        let text = match self {
            Self::Plain(text) => text.clone(),
            Self::Env(name) => variable(name).ok_or_else(|| {
                format!("{setting} = {{ env = {name:?} }}: the variable {name} is not set")
            })?,
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|e| format!("{setting} = {{ file = {path:?} }}: {e}"))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
        };
        match text.is_empty() {
            true => Err(format!("{setting} is empty")),
            false => Ok(Secret(text)),
        }
    }
}

/// Never prints a secret, wherever it is printed.
impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRef")
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, { env = \"VARIABLE\" } or { file = \"path\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretRef, E> {
        Ok(SecretRef::Plain(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(de::Error::custom("expected { env = … } or { file = … }"));
        };
        let value = match kind.as_str() {
            "env" => SecretRef::Env(map.next_value()?),
            "file" => SecretRef::File(map.next_value()?),
            other => return Err(de::Error::unknown_field(other, &["env", "file"])),
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(_) => Err(de::Error::custom("expected one of env and file, not both")),
        }
    }
}

/// A text that is never printed: `Debug` and `Display` mask it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text with passwords masked: for URLs, whose other parts an operator wants to see.
    pub fn masked_url(&self) -> String {
        crate::redact::redact(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A length of time with a unit: `250ms`, `10s`, `5m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a length of time: write 250ms, 10s, 5m, 1h or 7d");
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..unit_at].parse().map_err(|_| wrong())?;
        let millis_each = match &text[unit_at..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let millis = number.checked_mul(millis_each).ok_or_else(wrong)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a length of time such as \"10s\"")
    }
}

/// A name of a destination or relay: 1 to 63 of `[a-z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bytes, limit) = (text.len(), limits::NAME_BYTES_MAX);
        if text.is_empty() || bytes > limit {
            return Err(format!(
                "name {text:?} is {bytes} bytes long, allowed are 1 to {limit}"
            ));
        }
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        match text.chars().find(|&c| !allowed(c)) {
            None => Ok(Self(text.to_owned())),
            Some(c) => Err(format!("name {text:?} has {c:?}: allowed are a-z 0-9 _ -")),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a name")
    }
}

/// Where a new destination starts: `beginning`, `end`, or a time (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartAt(pub Start);

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self(Start::Beginning)),
            "end" => Ok(Self(Start::End)),
            time => DateTime::parse_from_rfc3339(time)
                .map(|at| Self(Start::At(at.with_timezone(&Utc))))
                .map_err(|_| {
                    format!(
                        "{text:?} is not a start: write \"beginning\", \"end\", or a time such as \
                         \"2026-01-31T12:00:00Z\""
                    )
                }),
        }
    }
}

impl<'de> Deserialize<'de> for StartAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "\"beginning\", \"end\" or a time")
    }
}

/// Reads a string and parses it; the parser's text becomes the error, at the string's place.
pub fn from_text<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Text<T>(&'static str, std::marker::PhantomData<T>);
    impl<T: FromStr> Visitor<'_> for Text<T>
    where
        T::Err: fmt::Display,
    {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(de::Error::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_needs_a_unit() {
        assert_eq!("7d".parse(), Ok(Span(Duration::from_secs(604_800))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        for wrong in [
            "10",
            "s",
            "",
            "-1s",
            "1 s",
            "1.5s",
            "99999999999999999999d",
            "1w",
        ] {
            let error = wrong.parse::<Span>().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn a_name_says_what_is_wrong_with_it() {
        assert!("orders-eu_2".parse::<Name>().is_ok());
        assert!("Orders".parse::<Name>().unwrap_err().contains("'O'"));
        let long = "x".repeat(64);
        assert!(
            long.parse::<Name>()
                .unwrap_err()
                .contains("64 bytes long, allowed are 1 to 63")
        );
        assert!("".parse::<Name>().is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("postgres://app:hunter2@db/shop");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.masked_url(), "postgres://app:***@db/shop");
    }

    #[test]
    fn a_secret_reference_that_leads_nowhere_names_the_setting_and_the_place() {
        let by_env = SecretRef::Env("DATABASE_URL".to_owned());
        let error = by_env.resolve("store.url", |_| None).unwrap_err();
        assert!(
            error.contains("store.url") && error.contains("DATABASE_URL is not set"),
            "{error}"
        );
        let by_file = SecretRef::File("no/such/file".into());
        let error = by_file.resolve("store.url", |_| None).unwrap_err();
        assert!(error.contains("no/such/file"), "{error}");
    }
}
