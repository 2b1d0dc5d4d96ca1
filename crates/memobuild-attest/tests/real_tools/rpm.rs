//! Databases that rpm made. It is built with one or two of its backends at most: those that it lacks are skipped, and
//! Berkeley DB's is made with that one's own tool from the same headers.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use memobuild_attest::sbom::{self, Package};

use crate::{disk::Disk, output};

const SPEC: &str = "Name: one\nVersion: 1.2\nRelease: 3\nEpoch: 4\nSummary: The first\nLicense: MIT AND Zlib\n\
    Vendor: Example Org\nURL: https://example.org/one\nBuildArch: noarch\n%description\nText.\n%files\n";

fn rpm(program: &str, dir: &Path, backend: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in [("_topdir", "top"), ("_tmppath", "tmp"), ("_dbpath", "root/var/lib/rpm")] {
        command.arg("--define").arg(format!("{name} {}", dir.join(value).display()));
    }
    command.arg("--define").arg(format!("_db_backend {backend}"));
    command.current_dir(dir);
    command
}

fn check(dir: &Path) -> Package {
    let scan = sbom::scan(&Disk::new(&dir.join("root"))).unwrap();
    assert_eq!(scan.warnings, []);
    let [package] = scan.packages.as_slice() else { panic!("{:?}", scan.packages) };
    assert_eq!(package.purl, "pkg:rpm/rpm/one@1.2-3?arch=noarch&epoch=4&upstream=one-1.2-3.src.rpm");
    assert_eq!(package.license.expression(), Some("MIT AND Zlib"));
    assert_eq!(package.homepage.as_deref(), Some("https://example.org/one"));
    package.clone()
}

/// A database with one package in it; `None` if this rpm can't make one.
fn install(dir: &Path, backend: &str) -> Option<()> {
    fs::create_dir_all(dir.join("tmp")).unwrap();
    fs::create_dir_all(dir.join("root/var/lib/rpm")).unwrap();
    fs::write(dir.join("one.spec"), format!("{SPEC}%changelog\n")).unwrap();
    output(rpm("rpmbuild", dir, backend).args(["-bb", "one.spec"]))?;
    let package = dir.join("top/RPMS/noarch/one-1.2-3.noarch.rpm");
    let options = ["-i", "--justdb", "--nodeps", "--noscripts", "--force-debian"];
    let installed = rpm("rpm", dir, backend).args(options).arg(&package).output().unwrap();
    let installed = installed.status.success().then_some(()).or_else(|| {
        // Only Debian's rpm knows that option.
        let again = rpm("rpm", dir, backend).args(&options[..4]).arg(&package).output().unwrap();
        again.status.success().then_some(())
    });
    if installed.is_none() {
        println!("skipped: this rpm has no backend {backend}");
    }
    installed
}

#[test]
fn databases_of_sqlites_and_of_berkeley_dbs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if install(dir, "sqlite").is_none() {
        return;
    }
    let of_sqlite = check(dir);
    // The same header in Berkeley DB's hash, on pages so small that it needs several.
    let database = dir.join("root/var/lib/rpm/rpmdb.sqlite");
    let db = rusqlite::Connection::open(&database).unwrap();
    let header: Vec<u8> = db.query_row("SELECT blob FROM Packages", [], |row| row.get(0)).unwrap();
    drop(db);
    fs::remove_dir_all(dir.join("root/var/lib/rpm")).unwrap();
    fs::create_dir_all(dir.join("root/var/lib/rpm")).unwrap();
    for page in [512, 4096, 65536] {
        let hex = header.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        let items = format!(" 00000000\n 00000002\n 01000000\n {hex}\n");
        let text = format!("VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize={page}\nHEADER=END\n{items}DATA=END\n");
        fs::write(dir.join("dump"), text).unwrap();
        let target = dir.join("root/var/lib/rpm/Packages");
        let _ = fs::remove_file(&target);
        if output(Command::new("db5.3_load").arg("-f").arg(dir.join("dump")).arg(&target)).is_none() {
            return;
        }
        let mut of_bdb = check(dir);
        of_bdb.locations.clone_from(&of_sqlite.locations);
        assert_eq!(of_bdb, of_sqlite, "pages of {page} bytes");
    }
}

#[test]
fn databases_of_rpms_own() {
    let dir = tempfile::tempdir().unwrap();
    if install(dir.path(), "ndb").is_some() {
        check(dir.path());
    }
}
