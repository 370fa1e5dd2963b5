//! Bounds of who a client may say it is.

use std::num::NonZeroU32;
use std::time::Duration;

/// How often a password is hashed: Kafka's default. Clients do the same when they log in by SCRAM;
/// a log-in by PLAIN costs the broker so much.
pub(crate) const ITERATIONS: NonZeroU32 = ITERATIONS_MIN;

/// Least that a verifier made elsewhere may have: RFC 7677's. Fewer make guessing cheap.
pub(crate) const ITERATIONS_MIN: NonZeroU32 = NonZeroU32::new(4_096).unwrap();

/// Most: about a second of time for each log-in by PLAIN.
pub(crate) const ITERATIONS_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

/// Bytes of a salt that is made here.
pub(crate) const SALT_BYTES: usize = 16;

/// Longest salt of a verifier made elsewhere, in bytes.
pub(crate) const SALT_BYTES_MAX: usize = 64;

/// Random bytes of this side's part of a nonce.
pub(crate) const NONCE_BYTES: usize = 18;

/// Largest message of a log-in, in bytes. Names and passwords are shorter.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Largest request before a client has logged in, in bytes: so much memory takes somebody who is
/// nobody yet.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A client must have logged in after this.
pub(crate) const LOGIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Pause before a failed log-in is answered. Guessing is slowed down on each connection.
pub(crate) const FAILED_LOGIN_PAUSE: Duration = Duration::from_millis(100);

/// Passwords that are hashed at a time; further log-ins wait. Others keep their processors.
pub(crate) const HASHING_MAX: usize = 2;

const _: () = assert!(TOKEN_BYTES_MAX < REQUEST_BYTES_MAX);
