//! The memobuild command.
fn main() {}
