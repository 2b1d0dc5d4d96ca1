//! From a parsed Dockerfile to a graph of steps.
#![forbid(unsafe_code)]
