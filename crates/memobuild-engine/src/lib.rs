//! Runs a plan: scheduling, single flight, memo look-up, step executors, events.
#![forbid(unsafe_code)]
