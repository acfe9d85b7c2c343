//! Bytes that many threads may have out at a time, up to a bound.

use crate::sync::{AtomicUsize, Ordering};

/// A number of bytes that is shared by threads. It holds no memory: it only counts.
///
/// # Examples
/// ```
/// use hioload_pools::Budget;
///
/// let budget = Budget::new(100);
/// assert!(budget.take(250), "who finds all of it there gets any amount");
/// assert!(!budget.take(1));
/// budget.give_back(250);
/// assert!(budget.take(60) && !budget.take(60) && budget.take(40));
/// ```
#[derive(Debug)]
pub struct Budget {
    out: AtomicUsize,
    most: usize,
}

impl Budget {
    /// Of so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { out: AtomicUsize::new(0), most }
    }

    /// Takes so many, if they are there or nobody else has any. What is refused takes none, not
    /// even for a moment: others who ask meanwhile must not be refused because of it.
    #[inline]
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        // Relaxed: a number alone, which orders nothing.
        let taken = self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let after = before.checked_add(bytes)?;
            (before == 0 || after <= self.most).then_some(after)
        });
        taken.is_ok()
    }

    /// Gives back what was taken.
    #[inline]
    pub fn give_back(&self, bytes: usize) {
        self.out.fetch_sub(bytes, Ordering::Relaxed);
    }
}
