//! Single flight: what several threads want at once is asked for once, and what was learnt is kept.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Answers by key. A failure is not kept.
pub(super) struct Flights<K, V>(Mutex<HashMap<K, Slot<V>>>);

type Slot<V> = Arc<Mutex<Option<V>>>;

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Flights<K, V> {
    fn slot(&self, key: K) -> Slot<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// What is known, else what `ask` says. Others who want the same wait for it.
    pub(super) fn get<E>(&self, key: K, ask: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let slot = self.slot(key);
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let answer = ask()?;
        *known = Some(answer.clone());
        Ok(answer)
    }

    /// What is known, without waiting for anybody.
    pub(super) fn peek(&self, key: &K) -> Option<V> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()?;
        slot.try_lock().ok()?.clone()
    }

    /// From now on this is known.
    pub(super) fn set(&self, key: K, value: V) {
        *self.slot(key).lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    /// From now on nothing is.
    pub(super) fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn many_ask_once_and_failures_are_asked_again() {
        let (flights, asked) = (Flights::<u8, u32>::default(), AtomicU32::new(0));
        assert_eq!(flights.get(1, || Err::<u32, _>("no")), Err("no"));
        assert_eq!(flights.peek(&1), None);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let answer = flights.get(1, || {
                        thread::sleep(Duration::from_millis(20));
                        Ok::<_, ()>(asked.fetch_add(1, Ordering::Relaxed))
                    });
                    assert_eq!(answer, Ok(0));
                });
            }
        });
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        flights.set(1, 7);
        assert_eq!(flights.peek(&1), Some(7));
        flights.forget(&1);
        assert_eq!(flights.peek(&1), None);
    }
}
