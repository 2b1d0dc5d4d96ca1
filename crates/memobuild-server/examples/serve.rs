//! The server alone, for `scripts/bench-server`: `serve DIR [ADDR]`. Built in a fraction of the time of the whole program.
#![allow(clippy::print_stdout, reason = "whoever starts it reads where it listens")]

use std::{error::Error, io::Write as _};

use memobuild_server::{Config, serve_with};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut config = Config::new(args.next().ok_or("usage: serve DIR [ADDR]")?);
    if let Some(addr) = args.next() {
        config.listen = addr.parse()?;
    }
    serve_with(config, |addr| {
        println!("listening on http://{addr}");
        let _ = std::io::stdout().flush();
    })?;
    Ok(())
}
