//! What threads share is built from these: of the standard library and of crossbeam, or, in a build
//! with `--cfg loom`, stand-ins whose every interleaving loom tries (`tests/loom.rs`).

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use loom::sync::Arc;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use crossbeam_queue::{ArrayQueue, SegQueue};
#[cfg(not(loom))]
pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use self::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use self::queues::{ArrayQueue, SegQueue};

#[cfg(not(loom))]
mod cell {
    /// The cell of the standard library behind the interface of loom's.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            access(self.0.get())
        }
    }
}

/// The queues of crossbeam as their documentation has them: each call happens at one moment.
#[cfg(loom)]
mod queues {
    use std::collections::VecDeque;

    use loom::sync::{Mutex, MutexGuard};

    pub(crate) struct ArrayQueue<T> {
        inner: SegQueue<T>,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self { inner: SegQueue::new(), capacity }
        }

        pub(crate) fn push(&self, value: T) -> Result<(), T> {
            let mut values = self.inner.lock();
            if values.len() == self.capacity {
                return Err(value);
            }
            values.push_back(value);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.inner.pop()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.inner.is_empty()
        }

        pub(crate) fn len(&self) -> usize {
            self.inner.len()
        }
    }

    pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
            self.0.lock().expect("nobody panics under it")
        }

        pub(crate) fn push(&self, value: T) {
            self.lock().push_back(value);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.lock().pop_front()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.lock().is_empty()
        }

        pub(crate) fn len(&self) -> usize {
            self.lock().len()
        }
    }
}
