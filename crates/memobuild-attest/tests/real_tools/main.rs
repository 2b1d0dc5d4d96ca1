//! What is found is what the tools that own it say: dpkg, Python, Go's linker, rpm; and documents are what SPDX's and
//! in-toto's own libraries take. A tool that is not here is said to be skipped. `PYTHON` may name an interpreter with
//! PyPI's `spdx-tools`, `lib4sbom`, `jsonschema` and `in-toto-attestation`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod disk;
mod documents;
mod rpm;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
};

use disk::Disk;
use memobuild_attest::sbom::{self, Ecosystem, Scan};

/// What a command prints; `None`, and a word about it, if there is no such program.
fn output(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("skipped: no {}", command.get_program().display());
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn python() -> Command {
    Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| OsString::from("python3")))
}

/// Whether Python has a module.
fn python_has(module: &str) -> bool {
    let found = python().args(["-c", &format!("import {module}")]).output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: Python has no module {module}");
    }
    found
}

fn of(scan: &Scan, ecosystem: Ecosystem) -> BTreeSet<(String, String)> {
    let found = scan.packages.iter().filter(|p| p.ecosystem == ecosystem);
    found.map(|p| (p.name.clone(), p.version.clone())).collect()
}

#[test]
fn dpkg_lists_the_same_packages() {
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let Some(listed) = output(Command::new("dpkg-query").args(["-W", "-f", format])) else {
        return;
    };
    let expected: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (status, name, version) = (words.next()?, words.next()?, words.next()?);
            (!matches!(status, "config-files" | "not-installed")).then(|| (name.to_owned(), version.to_owned()))
        })
        .collect();
    let disk = Disk::new(Path::new("/")).only(&["/var/lib/dpkg/status", "/etc/os-release", "/usr/lib/os-release"]);
    let scan = sbom::scan(&disk).unwrap();
    assert!(!expected.is_empty());
    assert_eq!(of(&scan, Ecosystem::Deb), expected);
    assert_eq!(scan.warnings, []);
    let licensed = scan.packages.iter().filter(|p| p.license.expression().is_some()).count();
    println!("{} packages, {licensed} with licences", expected.len());
    assert!(scan.os.is_some());
}

#[test]
fn python_knows_the_same_distributions() {
    let script = "import importlib.metadata as m, json, sysconfig\n\
        d = sysconfig.get_path('purelib')\n\
        print(json.dumps([d, [[x.metadata['Name'], x.version] for x in m.distributions(path=[d])]]))";
    let Some(listed) = output(python().args(["-c", script])) else {
        return;
    };
    let (dir, expected): (String, BTreeSet<(String, String)>) = serde_json::from_str(&listed).unwrap();
    let scan = sbom::scan(&Disk::new(Path::new(&dir))).unwrap();
    // Distributions inside of others are in the image, although Python does not list them.
    let top = scan.packages.iter().filter(|p| p.ecosystem == Ecosystem::Python);
    let top = top.filter(|p| p.locations.iter().any(|l| l.matches('/').count() <= 2));
    let found: BTreeSet<_> = top.map(|p| (p.name.clone(), p.version.clone())).collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn crates_are_found_in_a_program_that_lists_them() {
    let dir = tempfile::tempdir().unwrap();
    let json = br#"{"packages":[{"name":"app","version":"0.1.0","source":"local","root":true}]}"#;
    let mut list = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    list.write_all(json).unwrap();
    fs::write(dir.path().join("list"), list.finish().unwrap()).unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    // A program of this machine's, with the section that `cargo auditable` makes the linker add.
    let mut objcopy = Command::new("objcopy");
    objcopy.current_dir(dir.path()).args(["--add-section", ".dep-v0=list", "/bin/true", "root/app"]);
    if output(&mut objcopy).is_none() {
        return;
    }
    let scan = sbom::scan(&Disk::new(&dir.path().join("root"))).unwrap();
    assert_eq!(of(&scan, Ecosystem::Cargo), BTreeSet::from([("app".to_owned(), "0.1.0".to_owned())]));
}

#[test]
fn a_go_program_of_debians_tells_what_it_is() {
    let program = Path::new("/usr/bin/docker-registry");
    let Ok(bytes) = fs::read(program) else {
        println!("skipped: no {}", program.display());
        return;
    };
    let scan = sbom::scan(&Disk::new(Path::new("/")).only(&["/usr/bin/docker-registry"])).unwrap();
    let found = of(&scan, Ecosystem::Go);
    // Debian builds without modules: the path of the main package is all there is, and Go's version.
    assert!(found.iter().any(|(name, _)| name == "github.com/docker/distribution/cmd/registry"), "{found:?}");
    let (_, version) = found.iter().find(|(name, _)| name == "stdlib").unwrap();
    let text = format!("go{version}");
    assert!(bytes.windows(text.len()).any(|w| w == text.as_bytes()), "{text} is not in the program");
}
