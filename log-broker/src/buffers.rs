//! Buffers for reads, used again: a fresh one costs as much to zero as to fill.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::limits::{FETCH_COPY_BYTES, FETCH_POOL_BYTES};

/// Buffers that nobody holds.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer that is filled from its front, and goes back when it is dropped.
pub(crate) struct Buffer {
    pool: Arc<Buffers>,
    /// All of it is initialised; what counts is up to `filled`.
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffers {
    /// An empty buffer.
    pub fn take(self: &Arc<Self>) -> Buffer {
        Buffer {
            bytes: self.free().pop().unwrap_or_default(),
            pool: self.clone(),
            filled: 0,
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Has `read` fill its first `len` bytes, and keeps as many as that says.
    pub fn fill<E>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if self.bytes.len() < len {
            self.bytes = vec![0; len];
        }
        self.filled = read(&mut self.bytes[..len])?.min(len);
        Ok(())
    }

    /// What it was filled with.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// A part of what it was filled with. A small part is copied, so that it does not hold a large
    /// buffer.
    pub fn into_bytes(self, range: std::ops::Range<usize>) -> Bytes {
        if range.len() <= FETCH_COPY_BYTES {
            return Bytes::copy_from_slice(&self.filled()[range]);
        }
        Bytes::from_owner(self).slice(range)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.pool.free();
        let held: usize = free.iter().map(Vec::len).sum();
        if held + self.bytes.len() <= FETCH_POOL_BYTES {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_shows_what_it_was_filled_with_last_and_is_used_again() {
        let pool = Arc::new(Buffers::default());
        let write = |with: u8, count: usize| {
            move |buf: &mut [u8]| {
                buf.fill(with);
                Ok::<_, std::io::Error>(count)
            }
        };
        let mut buffer = pool.take();
        buffer.fill(1 << 20, write(1, 1 << 20)).expect("filled");
        let large = buffer.into_bytes(10..900_000);
        assert!(pool.free().is_empty(), "still held");
        assert_eq!(large.len(), 899_990);
        drop(large);
        assert_eq!(pool.free().len(), 1);
        let mut buffer = pool.take();
        buffer.fill(100, write(2, 7)).expect("filled");
        assert_eq!(buffer.filled(), [2; 7]);
        let small = buffer.into_bytes(0..7);
        assert_eq!(pool.free().len(), 1, "a small part is a copy");
        assert_eq!(small[..], [2; 7]);
    }
}
