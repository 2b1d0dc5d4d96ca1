//! The memobuild command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // The sandbox server is this program run again, once for each build: it must start before anything else does.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == memobuild_sandbox::SANDBOX_INIT_ARG) {
        memobuild_sandbox::init_main();
    }
    memobuild::cli::main()
}
