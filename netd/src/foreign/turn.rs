//! Turns: who comes for a sandbox that is being changed waits until that is done. Others do not wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// The sandboxes that are being changed.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to change a sandbox; given back by dropping it.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    id: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for a sandbox's turn.
    pub async fn take(self: &Arc<Self>, id: &str) -> Turn {
        let lock = {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.entry(id.to_owned()).or_default().clone()
        };
        Turn { turns: self.clone(), id: id.to_owned(), guard: Some(lock.lock_owned().await) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Whoever waits holds the lock's other end, and came by way of the map.
        if taken.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            taken.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_and_nothing_is_left_behind() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("a").await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap());
        drop(other);
        assert_eq!(turns.len(), 0);
    }
}
