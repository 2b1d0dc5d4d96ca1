//! Events on their way to the server: bounded, whatever a build writes and however slow the server is.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memobuild_observe::{Stream, TraceEvent};

/// Bytes of output that wait; of one step, its end.
const MOST_OUTPUT: usize = 1 << 20;
const STEP_OUTPUT: usize = 64 << 10;

/// Other events that wait. A build of 5000 steps has some 15,000 in all.
const MOST_EVENTS: usize = 50_000;

/// Events in one batch.
const BATCH: usize = 2000;

/// How long events are collected before they are sent.
const COLLECT: Duration = Duration::from_millis(250);

/// How often a server is told that the build goes on, where there is nothing else to tell.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The queue of one build.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<TraceEvent>,
    /// Bytes of output among them.
    output: usize,
    /// The number of the first of them among all of the build.
    first: u64,
    /// Nothing more comes.
    closed: bool,
    /// Nothing more is taken.
    ended: bool,
}

/// A batch.
pub(super) struct Taken {
    /// The number of its first event, from 0.
    pub(super) first: u64,
    /// None if there was nothing to tell for a while.
    pub(super) events: Vec<TraceEvent>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event if it is of use to a server and there is room.
    pub(super) fn push(&self, event: &TraceEvent) {
        match event {
            // Keys mean nothing there; transfers and exports are of the moment.
            TraceEvent::CacheHit { .. }
            | TraceEvent::CacheMiss { .. }
            | TraceEvent::RemoteSync { .. }
            | TraceEvent::Exporting { .. } => return,
            _ => {}
        }
        let mut state = self.state();
        if state.ended {
            return;
        }
        match event {
            TraceEvent::NodeOutput { step, stream, data } => state.push_output(*step, *stream, data),
            event => {
                if state.events.len() < MOST_EVENTS {
                    state.events.push_back(event.clone());
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for events, and a little for more of them. `None`: the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Taken> {
        let mut state = self.state();
        let heartbeat = Instant::now() + HEARTBEAT;
        while state.events.is_empty() && !state.closed {
            let left = heartbeat.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Taken { first: state.first, events: Vec::new() });
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let until = Instant::now() + COLLECT;
        while !state.closed && state.events.len() < BATCH {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = state.events.len().min(BATCH);
        if count == 0 {
            return None;
        }
        let events: Vec<_> = state.events.drain(..count).collect();
        let first = state.first;
        state.first += count as u64;
        state.output = state.events.iter().map(output_of).sum();
        Some(Taken { first, events })
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Nothing more is taken: what waits goes.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.events = VecDeque::new();
        drop(state);
        self.changed.notify_all();
    }

    /// Whether nothing more comes.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits before another attempt, until the build is over at most.
    pub(super) fn pause(&self, span: Duration) {
        drop(self.changed.wait_timeout_while(self.state(), span, |state| !state.closed));
    }

    /// Whether nothing more is taken, after at most this time.
    pub(super) fn wait_for_end(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), span, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

impl State {
    /// Joins what a step writes while nothing else happens; of too much the end stays.
    fn push_output(&mut self, step: usize, stream: Stream, more: &[u8]) {
        let more = more.get(more.len().saturating_sub(STEP_OUTPUT)..).unwrap_or_default();
        let room = self.events.len() < MOST_EVENTS;
        match self.events.back_mut() {
            Some(TraceEvent::NodeOutput { step: last, data, .. }) if *last == step => {
                let before = data.len();
                data.extend_from_slice(more);
                if data.len() > STEP_OUTPUT {
                    data.drain(..data.len() - STEP_OUTPUT);
                }
                self.output = self.output + data.len() - before;
            }
            _ if room => {
                self.output += more.len();
                self.events.push_back(TraceEvent::NodeOutput { step, stream, data: more.to_vec() });
            }
            _ => {}
        }
        // The oldest go; an event keeps its place without its bytes, so that the count holds.
        let mut above = self.output.saturating_sub(MOST_OUTPUT);
        if above == 0 {
            return;
        }
        for event in &mut self.events {
            if let TraceEvent::NodeOutput { data, .. } = event {
                above = above.saturating_sub(data.len());
                self.output -= data.len();
                *data = Vec::new();
                if above == 0 {
                    return;
                }
            }
        }
    }
}

fn output_of(event: &TraceEvent) -> usize {
    match event {
        TraceEvent::NodeOutput { data, .. } => data.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(step: usize, size: usize) -> TraceEvent {
        TraceEvent::NodeOutput { step, stream: Stream::Stdout, data: vec![b'x'; size] }
    }

    #[test]
    fn output_is_joined_and_bounded() {
        let queue = Queue::default();
        for _ in 0..10 {
            queue.push(&output(1, 10));
        }
        assert_eq!(queue.state().events.len(), 1);
        queue.push(&output(1, 10 << 20));
        assert_eq!(queue.state().output, STEP_OUTPUT);
        for step in 0..1000 {
            queue.push(&output(step, STEP_OUTPUT));
        }
        let state = queue.state();
        let bytes: usize = state.events.iter().map(output_of).sum();
        assert_eq!(bytes, state.output);
        assert!(bytes <= MOST_OUTPUT && bytes > MOST_OUTPUT / 2, "{bytes}");
        // The newest is whole.
        assert_eq!(output_of(state.events.back().unwrap()), STEP_OUTPUT);
    }

    #[test]
    fn events_are_counted_and_bounded() {
        let queue = Queue::default();
        queue.push(&TraceEvent::CacheHit { step: 1, key: "k".into() });
        for step in 0..MOST_EVENTS + 10 {
            queue.push(&TraceEvent::NodeCached { step });
        }
        assert_eq!(queue.state().events.len(), MOST_EVENTS);
        queue.close();
        let mut next = 0;
        while let Some(taken) = queue.take() {
            assert_eq!(taken.first, next);
            assert!(taken.events.len() <= BATCH);
            next += taken.events.len() as u64;
        }
        assert_eq!(next, MOST_EVENTS as u64);
        queue.end();
        queue.push(&TraceEvent::NodeCached { step: 1 });
        assert!(queue.state().events.is_empty() && queue.wait_for_end(Duration::ZERO));
    }

    #[test]
    fn the_end_is_not_waited_for_when_it_is_there() {
        let queue = Queue::default();
        assert!(!queue.wait_for_end(Duration::from_millis(1)));
        queue.pause(Duration::from_millis(1));
        assert!(!queue.is_closed());
        queue.close();
        queue.pause(Duration::from_secs(3600));
        assert!(queue.is_closed());
    }
}
