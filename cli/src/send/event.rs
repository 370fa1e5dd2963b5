//! One line of the input as a message.

use bytes::Bytes;
use outbox_core::Message;
use serde_json::Value;

use crate::args;

/// Which fields become topic and key.
#[derive(Clone, Debug)]
pub struct Mapping {
    topic: Topic,
    key_field: Option<String>,
    key_none: Option<String>,
}

#[derive(Clone, Debug)]
enum Topic {
    Fixed(String),
    Field {
        field: String,
        prefix: String,
        lowercase: bool,
    },
}

impl Mapping {
    /// As the command line says.
    pub fn new(args: &args::Send) -> Self {
        let topic = match (&args.topic, &args.topic_field) {
            (_, Some(field)) => Topic::Field {
                field: field.clone(),
                prefix: args.topic_prefix.clone().unwrap_or_default(),
                lowercase: args.topic_lowercase,
            },
            (topic, None) => Topic::Fixed(topic.clone().unwrap_or_default()),
        };
        Self {
            topic,
            key_field: args.key_field.clone(),
            key_none: args.key_none.clone(),
        }
    }

    /// The message of one line, without its end. The payload is the line's bytes as they are.
    ///
    /// # Errors
    /// What is wrong and where in the line.
    pub fn message(&self, line: &[u8]) -> Result<Message, String> {
        let text = std::str::from_utf8(line)
            .map_err(|e| format!("byte {}: invalid UTF-8", e.valid_up_to() + 1))?;
        let value: Value = serde_json::from_str(text).map_err(|e| json_error(&e))?;
        if !value.is_object() {
            return Err(format!("expected a JSON object, found {}", kind(&value)));
        }
        let topic = match &self.topic {
            Topic::Fixed(topic) => topic.clone(),
            Topic::Field {
                field,
                prefix,
                lowercase,
            } => {
                let text = scalar(&value, field, "topic")?
                    .ok_or_else(|| format!("topic field {field:?} is null"))?;
                let text = if *lowercase {
                    text.to_lowercase()
                } else {
                    text
                };
                format!("{prefix}{text}")
            }
        };
        let mut message =
            Message::bytes(topic, Bytes::copy_from_slice(line)).content_type("application/json");
        if let Some(field) = &self.key_field {
            message.key =
                scalar(&value, field, "key")?.filter(|k| Some(k) != self.key_none.as_ref());
        }
        message.validate().map_err(|e| e.to_string())?;
        Ok(message)
    }
}

/// A field's text; `None` when it is null.
fn scalar(value: &Value, field: &str, what: &str) -> Result<Option<String>, String> {
    let found = if field.starts_with('/') {
        value.pointer(field)
    } else {
        value.get(field)
    };
    match found {
        None => Err(format!("{what} field {field:?} is missing")),
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Some(other) => Err(format!(
            "{what} field {field:?} holds {}: it must be a string, a number or a boolean",
            kind(other)
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// serde_json's text without its line number, which would always be 1.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    format!("column {}: not valid JSON: {what}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping() -> Mapping {
        Mapping {
            topic: Topic::Field {
                field: "origin".to_owned(),
                prefix: "flights.".to_owned(),
                lowercase: true,
            },
            key_field: Some("tailnum".to_owned()),
            key_none: Some("NA".to_owned()),
        }
    }

    #[test]
    fn fields_become_topic_and_key_and_the_payload_is_the_line() {
        let line = br#"{"origin":"JFK", "tailnum":"N1"}"#;
        let message = mapping().message(line).expect("a message");
        assert_eq!(message.topic, "flights.jfk");
        assert_eq!(message.key.as_deref(), Some("N1"));
        assert_eq!(message.payload.as_ref(), line);
        assert_eq!(message.content_type, "application/json");
    }

    #[test]
    fn null_and_the_word_for_none_are_no_key() {
        for line in [
            r#"{"origin":"JFK","tailnum":null}"#,
            r#"{"origin":"JFK","tailnum":"NA"}"#,
        ] {
            assert_eq!(
                mapping().message(line.as_bytes()).expect("a message").key,
                None
            );
        }
    }

    #[test]
    fn nested_fields_are_named_by_a_pointer_and_numbers_are_keys() {
        let mapping = Mapping {
            topic: Topic::Fixed("t".to_owned()),
            key_field: Some("/order/id".to_owned()),
            key_none: None,
        };
        let message = mapping
            .message(br#"{"order":{"id":42}}"#)
            .expect("a message");
        assert_eq!(message.key.as_deref(), Some("42"));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong_and_where() {
        for (line, text) in [
            (&b"{\"a\":\xff}"[..], "byte 6: invalid UTF-8"),
            (
                b"{\"origin\":\"JFK\"",
                "column 15: not valid JSON: EOF while parsing an object",
            ),
            (b"[1]", "expected a JSON object, found an array"),
            (b"{\"origin\":\"JFK\"}", "key field \"tailnum\" is missing"),
            (
                b"{\"origin\":null,\"tailnum\":\"N\"}",
                "topic field \"origin\" is null",
            ),
            (
                b"{\"origin\":\"J/K\",\"tailnum\":\"N\"}",
                "has '/' at byte 9",
            ),
            (b"{\"origin\":\"JFK\",\"tailnum\":[]}", "holds an array"),
        ] {
            let error = mapping().message(line).expect_err("wrong");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_key_over_the_limit_names_its_size_and_the_limit() {
        let line = format!(r#"{{"origin":"JFK","tailnum":"{}"}}"#, "N".repeat(513));
        let error = mapping().message(line.as_bytes()).expect_err("too long");
        assert_eq!(error, "key is 513 bytes long, the limit is 512");
    }
}
