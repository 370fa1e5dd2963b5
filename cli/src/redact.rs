//! Passwords never reach a terminal, a log or a JSON document.

/// What stands in place of a password.
const MASK: &str = "***";

/// `text` with the password of every URL in it masked: `postgres://app:***@db/shop`.
///
/// It covers `scheme://user:password@host` and `?password=…`, wherever they stand in the text.
/// A password with a raw `@` or `/` in it is masked up to the last `@` of the word.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(is_url_end).unwrap_or(after.len());
        out.push_str(before);
        out.push_str(&without_user_password(&after[..end]));
        rest = &after[end..];
    }
    out.push_str(rest);
    without_password_parameter(&out)
}

fn is_url_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')
}

/// `user:password@host` without the password.
fn without_user_password(authority: &str) -> String {
    let Some((user_info, host)) = authority.rsplit_once('@') else {
        return authority.to_owned();
    };
    match user_info.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}@{host}"),
        None => authority.to_owned(),
    }
}

fn without_password_parameter(text: &str) -> String {
    const PARAMETER: &str = "password=";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PARAMETER) {
        let (before, after) = rest.split_at(at + PARAMETER.len());
        let end = after
            .find(|c: char| c == '&' || is_url_end(c))
            .unwrap_or(after.len());
        out.push_str(before);
        out.push_str(MASK);
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_masked_wherever_it_stands() {
        assert_eq!(
            redact("reach postgres://app:se@cr/et@db:5432/shop now, and amqp://x:y@h"),
            "reach postgres://app:***@db:5432/shop now, and amqp://x:***@h"
        );
        assert_eq!(
            redact("\"postgres://db/shop?user=a&password=secret&sslmode=require\""),
            "\"postgres://db/shop?user=a&password=***&sslmode=require\""
        );
    }

    #[test]
    fn text_without_a_password_stays_as_it_is() {
        for text in [
            "log:./outbox-data/log",
            "postgres://app@db/shop",
            "",
            "a://b c@d",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
