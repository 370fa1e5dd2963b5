//! Every bound of the server, with what it costs to raise it.

use std::time::Duration;

/// Default for the largest request, in bytes. A Produce request holds at least one whole batch for
/// each partition it names; each one being received takes so much memory.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Smallest value that may be configured for it.
pub const REQUEST_BYTES_MIN: usize = 64 * 1024;

/// Largest value that may be configured for it: a request says its length as an i32.
pub const REQUEST_BYTES_LIMIT: usize = i32::MAX as usize;

/// Largest request other than Produce, in bytes. The decoded form of a request may take a hundred
/// times its bytes, for an element of an array may be one byte on the wire.
pub const CONTROL_BYTES_MAX: usize = 1024 * 1024;

/// Most partitions of one Produce request: some 56 bytes of memory for each, which may be 6 bytes on
/// the wire.
pub const PRODUCE_PARTITIONS_MAX: usize = 16 * 1024;

/// Room for what one read of a socket brings. A connection has this only while something is being
/// received; more means fewer system calls for a client that pipelines small requests.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of requests larger than [`READ_BYTES`] that may be in reception at a time, of all
/// connections together; further ones wait. Raised to the largest request if that is more.
pub const RECEIVE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Produce requests of one connection that may wait for their sync; then it is read no further.
pub const PIPELINE_REQUESTS_MAX: usize = 128;

/// Bytes of those requests. The log bounds those of all connections together.
pub const PIPELINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of records in one answer to Fetch, but for a single larger batch. A reader that does
/// not take its answer holds so much memory.
pub const FETCH_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of records in memory, of all answers to Fetch that are not yet written to their sockets. Beyond it
/// an answer has at most [`FETCH_LEAN_BYTES`], so that readers who do not read slow nobody down.
pub const FETCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See [`FETCH_BYTES_MAX`].
pub const FETCH_LEAN_BYTES: usize = 64 * 1024;

/// Files that answers to Fetch hold open until they are sent. Beyond it the records are read into
/// memory, so that readers who do not read do not use up the process' descriptors.
pub const FETCH_FILES_MAX: usize = 256;

/// Most bytes that one call sends of a file, so that others get their turn.
pub const SEND_FILE_BYTES: usize = 1024 * 1024;

/// Bytes of a file that are read at a time when a connection needs to have them in memory.
pub const SEND_READ_BYTES: usize = 128 * 1024;

/// Longest wait of a Fetch for records, whatever the client asks for.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// Default for the number of connections. An idle one takes a few KiB and a file descriptor.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Largest value that may be configured for it; the operating system's own bound on open files is
/// met long before.
pub const CONNECTIONS_LIMIT: usize = 1_000_000;

/// A request that has begun to arrive must be whole after this.
pub const RECEIVE_TIME_MAX: Duration = Duration::from_secs(60);

/// A client that takes nothing of its answer for so long is cut off.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);

/// Default time after which a connection without requests is closed: Kafka's.
pub const IDLE_TIME: Duration = Duration::from_secs(600);

/// Silence after which the system probes whether the other side is still there, and how often.
pub const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a stop waits for answers that are under way.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which would otherwise fail again at once (no file descriptors).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest answer that the project's own client takes, in bytes.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest name of a client that is kept, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 255;

const _: () = assert!(READ_BYTES <= REQUEST_BYTES_MIN);
const _: () = assert!(CONTROL_BYTES_MAX <= RECEIVE_BYTES_MAX);
const _: () = assert!(FETCH_LEAN_BYTES <= FETCH_ANSWER_BYTES_MAX);
const _: () = assert!(FETCH_ANSWER_BYTES_MAX <= FETCH_BYTES_MAX);
