//! Protection against forks: every client and guard belongs to one process.
//!
//! A process that forks has a copy of everything: guards, clients, and the very same sockets, but
//! not the threads that keep leases alive. Two processes must not hold one lock, nor talk over one
//! connection. So all this belongs to the process that made it. In a forked process guards are
//! lost, nothing is asked and nothing is sent. Nothing is closed either: even closing a socket says
//! something to the coordinator, and takes it out of the poll that the two processes share.
//!
//! A fork is found by comparing process ids on use, because nothing announces it.

use std::mem;
use std::ops::{Deref, DerefMut};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The one that asks.
    pub(super) fn this() -> Self {
        Self(id())
    }

    /// Whether the one that asks is another.
    pub(super) fn is_another(self) -> bool {
        self != Self::this()
    }
}

#[cfg(not(test))]
fn id() -> u32 {
    std::process::id()
}

#[cfg(test)]
fn id() -> u32 {
    tests::PRETENDED.get().unwrap_or_else(std::process::id)
}

/// What may be dropped only by the process that made it. In another it is leaked, which costs that one
/// a descriptor until it ends, or executes something.
#[derive(Debug)]
pub(super) struct Own<Thing> {
    /// Taken only when dropped.
    thing: Option<Thing>,
    /// The process that made it.
    process: Process,
}

impl<Thing> Own<Thing> {
    pub(super) fn new(thing: Thing) -> Self {
        Self { thing: Some(thing), process: Process::this() }
    }
}

impl<Thing> Deref for Own<Thing> {
    type Target = Thing;

    fn deref(&self) -> &Thing {
        match &self.thing {
            Some(thing) => thing,
            None => unreachable!("it is taken only when dropped"),
        }
    }
}

impl<Thing> DerefMut for Own<Thing> {
    fn deref_mut(&mut self) -> &mut Thing {
        match &mut self.thing {
            Some(thing) => thing,
            None => unreachable!("it is taken only when dropped"),
        }
    }
}

impl<Thing> Drop for Own<Thing> {
    fn drop(&mut self) {
        if self.process.is_another() {
            mem::forget(self.thing.take());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    thread_local! {
        /// The id that this thread takes its process to have.
        pub(super) static PRETENDED: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Does `work` as if this process had forked from the one that it is.
    pub(crate) fn forked<T>(work: impl FnOnce() -> T) -> T {
        PRETENDED.set(Some(u32::MAX));
        let done = work();
        PRETENDED.set(None);
        done
    }

    #[test]
    fn what_is_of_another_process_is_not_dropped() {
        let thing = Rc::new(());
        let (own, others) = (Own::new(Rc::clone(&thing)), Own::new(Rc::clone(&thing)));
        forked(|| drop(others));
        assert_eq!(Rc::strong_count(&thing), 3);
        drop(own);
        assert_eq!(Rc::strong_count(&thing), 2);
    }
}
