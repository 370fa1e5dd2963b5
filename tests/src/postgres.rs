//! Real PostgreSQL servers for tests: never a mock, never something to install by hand.
//!
//! A tour, in reading order:
//!
//! - [`TestDb`]: a fresh database of a test's own, dropped when the test ends.
//! - [`Server`]: the shared server ([`Server::shared`]), or a private one that a test may kill,
//!   restart, copy as a standby and promote ([`Server::start`]).
//! - `binaries`: where the machine's own `initdb` and `postgres` are found, or come from.
//! - `process`: a server as a child process, gone when its owner is gone, however it went.
//! - `docker`: a server as a container.
//! - [`PgBouncer`]: a pooler in transaction mode in front of a server.
//! - [`embedded`]: the binaries of another major version, from npm.
//!
//! Where a server comes from, first match wins:
//!
//! 1. `OUTBOX_TEST_POSTGRES_URL` (shared server only): a superuser URL, as `with_postgres` sets it;
//! 2. `OUTBOX_TEST_POSTGRES_BIN`: a folder with `initdb` and `postgres`;
//! 3. a Docker daemon that answers (a private server looks for the machine's own binaries first);
//! 4. `initdb` and `postgres` on `PATH` or where the distributions put them, newest first;
//! 5. on Debian and Ubuntu as root: the distribution's package, installed without a cluster.

mod binaries;
mod database;
mod docker;
pub mod embedded;
mod pgbouncer;
mod process;
mod server;

pub use binaries::{BIN_VARIABLE, Binaries};
pub use database::TestDb;
pub use pgbouncer::PgBouncer;
pub use server::{Server, ServerOptions, URL_VARIABLE};
