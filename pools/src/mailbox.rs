//! Letters between threads: a bounded ring with many senders and one receiver.
//!
//! Comes in: values of any thread. Goes out: the same values on one thread, those of one sender in
//! the order in which it sent them. It never locks, never waits, and wakes nobody: who may sleep
//! while letters come needs a waker beside it. A full ring is an answer: the value comes back.
//!
//! It is the bounded queue of Dmitry Vyukov with one consumer. Every slot carries a turn: `p`
//! says that the slot waits for the letter of position `p`, `p + 1` that this letter is in it.
//! Senders take positions by compare-and-swap and publish by advancing the turn of the slot. So a
//! sender that is interrupted between the two hides later letters until it goes on, but stops no
//! other sender until the ring is full.

use std::fmt;
use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

/// The fewest slots: with a single one, a slot that waits for the next position would look like
/// one that holds the letter of this one.
const CAPACITY_MIN: usize = 2;

/// The most slots, so that rounding up cannot overflow.
const CAPACITY_MAX: usize = 1 << (usize::BITS - 2);

/// Makes a mailbox for at most `capacity` letters, rounded up to a power of two, at least 2. All
/// memory is taken now.
///
/// # Panics
/// The capacity is beyond a quarter of the address space.
///
/// # Examples
/// ```
/// use hioload_pools::mailbox;
///
/// let (sender, mut receiver) = mailbox::channel(2);
/// let elsewhere = sender.clone();
/// std::thread::spawn(move || elsewhere.try_send("hello")).join().expect("no panic")?;
/// sender.try_send("again")?;
/// assert_eq!(sender.try_send("too much"), Err("too much"));
/// assert_eq!(receiver.try_recv(), Some("hello"));
/// # Ok::<(), &str>(())
/// ```
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity <= CAPACITY_MAX, "{capacity} letters do not fit any memory");
    let capacity = capacity.max(CAPACITY_MIN).next_power_of_two();
    let slot = |turn| Slot {
        turn: AtomicUsize::new(turn),
        letter: UnsafeCell::new(MaybeUninit::uninit()),
    };
    let ring = Arc::new(Ring {
        tail: Line(AtomicUsize::new(0)),
        head: Line(AtomicUsize::new(0)),
        closed: Line(AtomicBool::new(false)),
        slots: (0..capacity).map(slot).collect(),
    });
    (Sender { ring: Arc::clone(&ring) }, Receiver { ring })
}

/// Where letters are put in. Every thread may have one.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
}

/// Where letters are taken out. There is one.
///
/// It moves between threads but is not shared by them:
///
/// ```compile_fail
/// fn needs_clone<T: Clone>() {}
/// needs_clone::<hioload_pools::mailbox::Receiver<u8>>();
/// ```
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<hioload_pools::mailbox::Receiver<std::rc::Rc<u8>>>();
/// ```
///
/// When it is dropped, the letters that are left are dropped with it, and senders get theirs back
/// from then on. One that is being sent at this moment is dropped with the last sender.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
}

/// Two cache lines: processors fetch them in pairs, and what senders write shall not take away
/// what the receiver writes.
#[repr(align(128))]
struct Line<T>(T);

struct Ring<T> {
    /// The position that the next sender takes.
    tail: Line<AtomicUsize>,
    /// The position that the receiver reads next; only the receiver writes it.
    head: Line<AtomicUsize>,
    /// The receiver is gone.
    closed: Line<AtomicBool>,
    /// A power of two of them.
    slots: Box<[Slot<T>]>,
}

struct Slot<T> {
    turn: AtomicUsize,
    letter: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: a letter moves from the thread that sends it to the one that receives it, and is
// accessed by only one of them at a time, as the turn of its slot says; letters are never shared.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Sender<T> {
    /// Puts a letter in.
    ///
    /// # Errors
    /// The mailbox is full, or the receiver is gone: the letter comes back.
    pub fn try_send(&self, letter: T) -> Result<(), T> {
        let ring = &*self.ring;
        if ring.closed.0.load(Ordering::Relaxed) {
            return Err(letter);
        }
        let mut position = ring.tail.0.load(Ordering::Relaxed);
        loop {
            let slot = ring.slot(position);
            // Acquire: the receiver has read the letter of the round before.
            let turn = slot.turn.load(Ordering::Acquire);
            let ahead = turn.wrapping_sub(position) as isize;
            if ahead < 0 {
                return Err(letter);
            }
            if ahead > 0 {
                // Somebody else took this position.
                position = ring.tail.0.load(Ordering::Relaxed);
                continue;
            }
            let next = position.wrapping_add(1);
            // Relaxed: the turn orders the letter, and the position is only a number.
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            match ring.tail.0.compare_exchange_weak(position, next, order.0, order.1) {
                Ok(_) => {
                    // SAFETY: the slot waits for this position, which is only ours.
                    slot.letter.with_mut(|place| unsafe { (*place).write(letter) });
                    slot.turn.store(next, Ordering::Release);
                    return Ok(());
                }
                Err(taken) => position = taken,
            }
        }
    }

    /// How many letters it takes at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.slots.len()
    }
}

impl<T> Receiver<T> {
    /// Takes the next letter out, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        self.ring.take()
    }

    /// Whether there is nothing to take out at this moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let position = self.ring.head.0.load(Ordering::Relaxed);
        self.ring.slot(position).turn.load(Ordering::Acquire) != position.wrapping_add(1)
    }

    /// How many letters it holds at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.slots.len()
    }
}

impl<T> Ring<T> {
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Takes the next letter out. Only for the receiver, and after it for the last owner.
    fn take(&self) -> Option<T> {
        let position = self.head.0.load(Ordering::Relaxed);
        let slot = self.slot(position);
        let next = position.wrapping_add(1);
        // Acquire: the sender has written the letter.
        if slot.turn.load(Ordering::Acquire) != next {
            return None;
        }
        // SAFETY: only we access the slot until its turn is advanced: it holds the letter of this
        // position, and only we take letters out.
        let letter = slot.letter.with_mut(|place| unsafe { place.read() });
        // SAFETY: it was written by the sender, and is never read again, because the position
        // moves on.
        let letter = unsafe { letter.assume_init() };
        self.head.0.store(next, Ordering::Relaxed);
        slot.turn.store(position.wrapping_add(self.slots.len()), Ordering::Release);
        Some(letter)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.ring.closed.0.store(true, Ordering::Relaxed);
        // At most one round: senders that do not see it yet must not keep us here.
        for _ in 0..self.capacity() {
            if self.try_recv().is_none() {
                return;
            }
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { ring: Arc::clone(&self.ring) }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
