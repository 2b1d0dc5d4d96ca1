//! Times the import and export of one layer: `layers LAYER [CACHE_DIR]`.
//!
//! Prints a line for each: the import of the layer, then the export of what was imported as gzip and zstd, each with
//! seconds, seconds of processor time, and the peak memory of the process so far. Compare with `gzip -dc LAYER | sha256sum`, `pigz -p2 -6` and
//! `zstd -3 -T2` of the tar.

use std::{error::Error, fs::File, time::Instant};

use memobuild_oci::layer::{Compression, Expected, TimestampPolicy, export_layer, import_layer};
use memobuild_store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let layer = args.next().ok_or("usage: layers LAYER [CACHE_DIR]")?;
    let temporary = tempfile::tempdir()?;
    let dir = args.next().map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let store = Store::open(&dir)?;
    let (mut start, mut cpu) = (Instant::now(), cpu_seconds());
    let mut lap = |what: &str| {
        let (wall, used) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!("{what:<12} {wall:6.2} s  {used:6.2} s of processors  {:4} MiB", peak_mib());
        (start, cpu) = (Instant::now(), cpu_seconds());
    };
    let imported = import_layer(File::open(layer)?, &Expected::default(), false, &store)?;
    lap("import");
    for (what, compression) in [
        ("export tar", Compression::None),
        ("export gzip", Compression::Gzip { level: 6 }),
        ("export zstd", Compression::Zstd { level: 3 }),
        ("estargz", Compression::Estargz { level: 6 }),
        ("zstd:chunked", Compression::ZstdChunked { level: 3 }),
    ] {
        export_layer(&store, &imported.bundle, compression, TimestampPolicy::Keep)?;
        lap(what);
    }
    Ok(())
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// User and system time of the whole process; clock ticks are hundredths of a second on Linux.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}
