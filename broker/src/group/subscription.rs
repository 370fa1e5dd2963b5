//! The topics in a consumer's protocol metadata.
//!
//! The coordinator hands metadata on as it is. Only who deletes a group's offsets wants to know
//! which topics it reads.

/// Topics of a consumer protocol's subscription (any version: what was added later stands behind
/// the topics); none when the bytes are something else.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // Each topic takes two bytes at least, so this bounds what is reserved below.
    if i16::from_be_bytes(*version) < 0 || count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let (bytes, tail) = rest.split_first_chunk::<2>()?;
        let bytes = usize::try_from(i16::from_be_bytes(*bytes)).ok()?;
        let (name, tail) = tail.split_at_checked(bytes)?;
        topics.push(str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription_are_read_whatever_stands_behind_them() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(
            subscribed_topics(bytes),
            Some(vec!["a".to_owned(), "bc".to_owned()])
        );
        assert_eq!(subscribed_topics(b"\0\0\0\0\0\0"), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_subscription_is_not_read() {
        let hostile = [
            &b""[..],
            b"\0\0\0\0\0\x01",
            b"\0\0\x7f\xff\xff\xff\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ];
        for bytes in hostile {
            assert_eq!(subscribed_topics(bytes), None, "{bytes:?}");
        }
    }
}
