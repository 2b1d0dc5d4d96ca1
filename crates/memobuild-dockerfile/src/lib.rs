//! Dockerfile text to a syntax tree with spans; word expansion; ignore patterns; lint checks. Pure: no I/O.
#![forbid(unsafe_code)]
