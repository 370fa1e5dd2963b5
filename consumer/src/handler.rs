//! What a handler is given, and what it may answer.
//!
//! A handler is any `Fn(Arc<Record>, HandlerTx<Tx>) -> impl Future<Output = Result<(),
//! HandlerError>> + Send`, so that a plain closure with an `async move` block will do. It owns
//! its [`HandlerTx`], which hands the transaction back to the worker when it is dropped: there is
//! no lifetime in the signature, no boxing at the call site, and the compiler's messages about a
//! wrong handler are short.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outbox_core::{Class, Record};

/// The future of a handler.
pub(crate) type Applying = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

type Each<Tx> = Box<dyn Fn(Arc<Record>, HandlerTx<Tx>) -> Applying + Send + Sync>;
type Batch<Tx> = Box<dyn Fn(Vec<Arc<Record>>, HandlerTx<Tx>) -> Applying + Send + Sync>;

/// A handler of either kind.
pub(crate) enum Handler<Tx> {
    /// Called for each record.
    Each(Each<Tx>),
    /// Called for each run of records.
    Batch(Batch<Tx>),
}

/// The consumer's transaction, lent to a handler: what is written through it commits together
/// with the inbox row, or not at all.
///
/// It dereferences to the inbox's transaction, so that with sqlx `&mut **tx` is the connection.
/// Dropping it (at the end of the handler at the latest) hands the transaction back; a handler
/// that keeps it alive past its own end, in a spawned task say, has failed. Do not commit or roll
/// back through it.
pub struct HandlerTx<Tx> {
    /// `Some` until drop.
    tx: Option<Tx>,
    home: Arc<Mutex<Option<Tx>>>,
}

impl<Tx> Deref for HandlerTx<Tx> {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        self.tx.as_ref().expect("it is taken out by drop alone")
    }
}

impl<Tx> DerefMut for HandlerTx<Tx> {
    fn deref_mut(&mut self) -> &mut Tx {
        self.tx.as_mut().expect("it is taken out by drop alone")
    }
}

impl<Tx> Drop for HandlerTx<Tx> {
    fn drop(&mut self) {
        *lock(&self.home) = self.tx.take();
    }
}

impl<Tx: fmt::Debug> fmt::Debug for HandlerTx<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerTx").field(&self.tx).finish()
    }
}

/// Where a transaction comes back to.
pub(crate) struct Loan<Tx>(Arc<Mutex<Option<Tx>>>);

impl<Tx> Loan<Tx> {
    /// Lends `tx` out.
    pub(crate) fn new(tx: Tx) -> (Self, HandlerTx<Tx>) {
        let home = Arc::new(Mutex::new(None));
        let lent = HandlerTx {
            tx: Some(tx),
            home: home.clone(),
        };
        (Self(home), lent)
    }

    /// The transaction, if it came back.
    pub(crate) fn back(self) -> Option<Tx> {
        lock(&self.0).take()
    }
}

/// Nothing panics while it holds one of our locks, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a handler could not apply a record. `?` makes one of any error.
///
/// An error is **transient** (the record is tried again, and those of its key behind it wait)
/// unless it is made with [`HandlerError::permanent`] or is a `serde_json::Error` (a body that
/// cannot be read never will be), which is a dead letter at once. An error that the inbox knows
/// as its own outage ([`outbox_core::Inbox::is_outage`]) burns no attempt.
pub struct HandlerError {
    pub(crate) class: Class,
    pub(crate) source: Box<dyn StdError + Send + Sync>,
}

impl HandlerError {
    /// It will never pass: a dead letter at once.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            class: Class::Permanent,
            source: error.into(),
        }
    }

    /// It may pass later: tried again by the retry policy.
    pub fn transient(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            class: Class::Transient,
            source: error.into(),
        }
    }

    /// Something the handler depends on is away, and no record is to blame: the worker backs off
    /// and burns no attempt.
    pub fn outage(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            class: Class::Outage,
            source: error.into(),
        }
    }

    /// Transient, permanent or outage.
    pub fn class(&self) -> Class {
        self.class
    }
}

// `HandlerError` itself is no `std::error::Error`: this conversion would then overlap with the
// one of a type into itself.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let source = error.into();
        let class = match source.is::<serde_json::Error>() {
            true => Class::Permanent,
            false => Class::Transient,
        };
        Self { class, source }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.class)
    }
}

impl fmt::Display for HandlerError {
    /// The error with its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut last = self.source.to_string();
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors already print their cause.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

/// Runs a handler; a panic in it is a failed attempt, not the end of the worker.
pub(crate) async fn guarded(start: impl FnOnce() -> Applying) -> Result<(), HandlerError> {
    // The handler's captures are shared with later calls after a panic, as they would be across
    // threads: std's locks are poisoned then, and say so.
    let mut applying = catch_unwind(AssertUnwindSafe(start)).map_err(panicked)?;
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| applying.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| std::task::Poll::Ready(Err(panicked(panic))))
    })
    .await
}

fn panicked(panic: Box<dyn Any + Send>) -> HandlerError {
    let text = (panic.downcast_ref::<&str>().copied())
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    HandlerError::transient(format!("the handler panicked: {text}"))
}
