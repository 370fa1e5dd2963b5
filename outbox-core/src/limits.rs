//! Every bound of the message model, with what it costs to raise it.
//!
//! The SQL functions and the SQLite store enforce the same numbers; a test holds them together.

/// Longest topic, in bytes. Kafka's own limit, so that a topic can always become a Kafka topic.
pub const TOPIC_BYTES_MAX: usize = 249;

/// Longest key, in bytes. A key is repeated in each delivery row and in the relay's memory while
/// it is blocked.
pub const KEY_BYTES_MAX: usize = 512;

/// Largest payload, in bytes (1 MiB). A relay holds at most [`PAGE_BYTES_MAX`] of payload for each
/// page. Larger payloads belong in object storage, with the reference in the message.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 127;

/// Most headers of one message.
pub const HEADERS_MAX: usize = 64;

/// Sum of all header names and values of one message, in bytes (16 KiB).
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Longest destination, consumer or relay name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Most topic patterns of one destination.
pub const PATTERNS_MAX: usize = 64;

/// Default number of messages in a page. Larger pages spread the cost of a round trip and of the
/// broker's sync over more messages, and take more memory.
pub const PAGE_ROWS: usize = 8_192;

/// Default size of a page's payloads, in bytes (8 MiB): the relay's memory for each destination
/// is at most three such pages (one read ahead, one in flight, one being settled).
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Parked rows of one key after which the key becomes one marker `(key, from_seq)` whose
/// followers are re-read from the log: one poisoned key must not fill the delivery table.
pub const PARKED_ROWS_PER_KEY_MAX: usize = 1_000;

/// Longest error text kept with a delivery, in bytes. Longer texts are cut at a char boundary.
pub const ERROR_TEXT_BYTES_MAX: usize = 1_024;

const _: () = assert!(
    PAYLOAD_BYTES_MAX <= PAGE_BYTES_MAX,
    "a page must hold any one message"
);
const _: () = assert!(HEADERS_BYTES_MAX < PAYLOAD_BYTES_MAX);
