//! `memobuild sign`: signatures of images in registries, in cosign's format.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use memobuild_attest::sign::{KeyError, PrivateKey, PublicKey};
use memobuild_engine::sign;
use memobuild_image::Descriptor;
use memobuild_observe::FailureKind;
use memobuild_oci::{reference::Reference, registry::Registries};

use super::{CliResult, Failure, image, text};

/// Sign an image in a registry as cosign does, check signatures, or make a key
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SignArgs {
    /// Names of images in registries
    #[arg(value_name = "IMAGE", required_unless_present = "generate")]
    images: Vec<String>,

    /// Key to sign with, or (with --check) the public key
    #[arg(long, value_name = "FILE", required_unless_present = "generate")]
    key: Option<PathBuf>,

    /// Check that there is a signature that was made with the key's private half
    #[arg(long)]
    check: bool,

    /// Make a pair of keys: PREFIX.key and PREFIX.pub
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["images", "key", "check"])]
    generate: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  Make a key, sign with it, check:
    COSIGN_PASSWORD=... memobuild sign --generate cosign
    COSIGN_PASSWORD=... memobuild sign --key cosign.key registry.example/app:1
    memobuild sign --check --key cosign.pub registry.example/app:1

Keys and signatures are cosign's: each program reads those of the other.";

pub(crate) fn run(args: &SignArgs) -> CliResult {
    if let Some(prefix) = &args.generate {
        return generate(prefix);
    }
    let Some(key) = &args.key else { return Err(Failure::usage("--key FILE is missing")) };
    let registries = image::registries()?;
    if args.check {
        let key = read(key)?;
        let key = PublicKey::from_pem(&key).map_err(|e| unsound(args.key.as_deref(), &e))?;
        for name in &args.images {
            let (name, root) = resolve(&registries, name)?;
            let count = sign::check(&registries, &key, &name, &root.digest)?;
            let what = if count == 1 { "signature".to_owned() } else { format!("{count} signatures") };
            text::to_stdout(&format!("{}@{}: {what} verified\n", name.familiar(), root.digest))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let key = private_key(key)?;
    for name in &args.images {
        let (name, root) = resolve(&registries, name)?;
        sign::push(&registries, &key, std::slice::from_ref(&name), &root)?;
        text::to_stdout(&format!("{}@{}: signed\n", name.familiar(), root.digest))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a name stands for now.
fn resolve(registries: &Registries, name: &str) -> Result<(Reference, Descriptor), Failure> {
    let name: Reference = name.parse().map_err(|e| Failure::usage(format!("{e}")))?;
    let name = name.with_default_tag();
    let found = registries.manifest(&name).map_err(|e| image::failure(e.into()))?;
    Ok((name, Descriptor::new(&found.media_type, found.digest, found.bytes.len() as u64)))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))
}

fn unsound(path: Option<&Path>, error: &KeyError) -> Failure {
    let path = path.map(|p| p.display().to_string()).unwrap_or_default();
    Failure::new(FailureKind::Usage, format!("{path}: {error}"))
}

fn password() -> Option<Vec<u8>> {
    std::env::var_os("COSIGN_PASSWORD").map(std::ffi::OsString::into_encoded_bytes)
}

/// The key of a file, opened with `COSIGN_PASSWORD` if it is locked.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKey, Failure> {
    PrivateKey::from_pem(&read(path)?, password().as_deref())
        .map_err(|e| unsound(Some(path), &e).with_hint("COSIGN_PASSWORD holds the password of a locked key"))
}

fn generate(prefix: &Path) -> CliResult {
    let named = |ending: &str| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (private, public) = (named(".key"), named(".pub"));
    let failed = |e: KeyError| unsound(Some(&private), &e);
    let password = password().ok_or_else(|| {
        Failure::usage("there is no password for the new key").with_hint("set COSIGN_PASSWORD; an empty one will do")
    })?;
    let key = PrivateKey::generate().map_err(failed)?;
    let secret = key.to_encrypted_pem(&password).map_err(failed)?;
    let told = key.public().to_pem().map_err(failed)?;
    for (path, bytes, mode) in [(&private, secret.as_bytes(), 0o600), (&public, told.as_bytes(), 0o644)] {
        // A key that is there is not written over.
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let written = made.and_then(|mut file| file.write_all(bytes));
        written.map_err(|e| Failure::usage(format!("cannot write {}: {e}", path.display())))?;
    }
    text::to_stdout(&format!("{} and {} written\n", private.display(), public.display()))?;
    Ok(ExitCode::SUCCESS)
}
