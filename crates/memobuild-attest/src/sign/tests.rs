//! Signatures against openssl, in both directions.

use std::{fs, path::Path, process::Command};

use super::*;

fn openssl(dir: &Path, args: &[&str]) -> Option<(bool, String)> {
    let output = match Command::new("openssl").args(args).current_dir(dir).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: openssl: {error}");
            return None;
        }
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn sign(key: &PrivateKey) -> Signature {
    let annotations = BTreeMap::from([("commit".to_owned(), "abc".to_owned())]);
    Signature::new(key, "example.org/app", &Sha256Digest::of(b"image"), &annotations).unwrap()
}

#[test]
fn openssl_verifies_our_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().unwrap();
    let signature = sign(&key);
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("key.pub", key.public().to_pem().unwrap().as_bytes());
    write("key.pem", key.to_pem().unwrap().as_bytes());
    write("payload", &signature.payload);
    write("other", b"other");
    write("sig", &STANDARD.decode(&signature.base64).unwrap());
    let verify = ["dgst", "-sha256", "-verify", "key.pub", "-signature", "sig"];
    let Some((valid, text)) = openssl(dir.path(), &[&verify[..], &["payload"]].concat()) else {
        return;
    };
    assert!(valid, "{text}");
    let (valid, _) = openssl(dir.path(), &[&verify[..], &["other"]].concat()).unwrap();
    assert!(!valid);
    let (valid, text) = openssl(dir.path(), &["pkey", "-in", "key.pem", "-pubout"]).unwrap();
    assert!(valid, "{text}");
    assert_eq!(text, key.public().to_pem().unwrap());
}

#[test]
fn openssls_keys_and_signatures_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let text = |name: &str| String::from_utf8(read(name)).unwrap();
    let run = |args: &str| openssl(dir.path(), &args.split(' ').collect::<Vec<_>>());
    // With a block of parameters before the key.
    let Some((made, why)) = run("ecparam -name prime256v1 -genkey -out sec1.pem") else {
        return;
    };
    assert!(made, "{why}");
    fs::write(dir.path().join("payload"), b"message").unwrap();
    for command in [
        "pkcs8 -topk8 -nocrypt -in sec1.pem -out pkcs8.pem",
        "pkey -in sec1.pem -pubout -out key.pub",
        "dgst -sha256 -sign sec1.pem -out sig payload",
        "ecparam -name secp384r1 -genkey -noout -out p384.pem",
        "genrsa -out rsa.pem 2048",
    ] {
        let (done, why) = run(command).unwrap();
        assert!(done, "{command}: {why}");
    }
    let public = PublicKey::from_pem(&text("key.pub")).unwrap();
    for name in ["sec1.pem", "pkcs8.pem"] {
        assert_eq!(PrivateKey::from_pem(&text(name), None).unwrap().public(), public);
    }
    assert_eq!(public.verify(b"message", &read("sig")), Ok(()));
    assert_eq!(public.verify(b"Message", &read("sig")), Err(VerifyError::Signature));
    for name in ["p384.pem", "rsa.pem"] {
        assert_eq!(PrivateKey::from_pem(&text(name), None).unwrap_err(), KeyError::Kind);
    }
}

#[test]
fn keys_survive_encryption() {
    let key = PrivateKey::generate().unwrap();
    let text = key.to_encrypted_pem(b"secret").unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
    assert!(text.lines().all(|line| line.len() <= 64));
    assert_eq!(PrivateKey::from_pem(&text, Some(b"secret")).unwrap().public(), key.public());
    let older = text.replace("SIGSTORE", "COSIGN");
    assert_eq!(PrivateKey::from_pem(&older, Some(b"secret")).unwrap().public(), key.public());
    assert_eq!(PrivateKey::from_pem(&text, None).unwrap_err(), KeyError::NoPassword);
    assert_eq!(PrivateKey::from_pem(&text, Some(b"")).unwrap_err(), KeyError::Password);
    assert_eq!(PrivateKey::from_pem("", None).unwrap_err(), KeyError::NoPrivateKey);
    assert_eq!(PublicKey::from_pem(&text).unwrap_err(), KeyError::NoPublicKey);
}

/// Cosign's key files as others make and read them: Python's scrypt (OpenSSL's) and libsodium's secretbox.
const KEY_FILES: &str = r#"
import base64, hashlib, json, os, subprocess, sys
import nacl.secret
def derive(n, salt):
    return hashlib.scrypt(b"pw", salt=salt, n=n, r=8, p=1, maxmem=1 << 28, dklen=32)
lines = open(sys.argv[1]).read().split("\n")
box = json.loads(base64.b64decode("".join(l for l in lines if "-----" not in l)))
key = derive(box["kdf"]["params"]["N"], base64.b64decode(box["kdf"]["salt"]))
nonce = base64.b64decode(box["cipher"]["nonce"])
der = nacl.secret.SecretBox(key).decrypt(base64.b64decode(box["ciphertext"]), nonce)
salt, nonce = os.urandom(32), os.urandom(24)
text = lambda data: base64.b64encode(data).decode()
sealed = nacl.secret.SecretBox(derive(32768, salt)).encrypt(der, nonce).ciphertext
again = {"kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": text(salt)},
         "cipher": {"name": "nacl/secretbox", "nonce": text(nonce)}, "ciphertext": text(sealed)}
label = "ENCRYPTED COSIGN PRIVATE KEY"
print(f"-----BEGIN {label}-----\n{text(json.dumps(again).encode())}\n-----END {label}-----")
"#;

#[test]
fn libsodium_reads_and_writes_the_same_key_files() {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().unwrap();
    fs::write(dir.path().join("key"), key.to_encrypted_pem(b"pw").unwrap().as_bytes()).unwrap();
    if !Command::new(&python).args(["-c", "import nacl.secret"]).output().is_ok_and(|o| o.status.success()) {
        println!("skipped: Python has no module nacl");
        return;
    }
    let output = Command::new(&python).args(["-c", KEY_FILES]).arg(dir.path().join("key")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(PrivateKey::from_pem(&theirs, Some(b"pw")).unwrap().public(), key.public());
}

#[test]
fn payloads_are_cosigns() {
    let key = PrivateKey::generate().unwrap();
    let digest = Sha256Digest::of(b"image");
    let signature = Signature::new(&key, "example.org/app", &digest, &BTreeMap::new()).unwrap();
    let expected = format!(
        concat!(
            r#"{{"critical":{{"identity":{{"docker-reference":"example.org/app"}},"#,
            r#""image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#
        ),
        digest
    );
    assert_eq!(String::from_utf8(signature.payload).unwrap(), expected);
    assert_eq!(sign(&key), sign(&key));
    assert_eq!(tag(&digest), format!("sha256-{}.sig", digest.hex()));
}

#[test]
fn signatures_hold_for_their_image_and_key_only() {
    let key = PrivateKey::generate().unwrap();
    let signature = sign(&key);
    let (image, other) = (Sha256Digest::of(b"image"), Sha256Digest::of(b"other"));
    let payload = signature.verify(&key.public(), &image).unwrap();
    assert_eq!(payload.optional.unwrap().get("commit"), Some(&json!("abc")));
    assert!(matches!(signature.verify(&key.public(), &other), Err(VerifyError::Digest { .. })));
    let stranger = PrivateKey::generate().unwrap().public();
    assert_eq!(signature.verify(&stranger, &image), Err(VerifyError::Signature));
    let mut changed = signature.clone();
    changed.payload.push(b' ');
    assert_eq!(changed.verify(&key.public(), &image), Err(VerifyError::Signature));
    let broken = Signature { base64: "?".into(), ..signature };
    assert_eq!(broken.verify(&key.public(), &image), Err(VerifyError::Form));
    // Signed, but something else.
    for payload in [
        &b"{}"[..],
        br#"{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":""},"type":"x"}}"#,
    ] {
        let odd = Signature { payload: payload.to_vec(), base64: STANDARD.encode(key.sign(payload).unwrap()) };
        assert!(matches!(odd.verify(&key.public(), &image), Err(VerifyError::Payload(_))));
    }
}

#[test]
fn manifests_gather_signatures() {
    let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let first = manifest(None, &[sign(&one)]).unwrap();
    let parsed: Manifest = serde_json::from_slice(&first.manifest).unwrap();
    let second = manifest(Some(&parsed), &[sign(&one), sign(&two)]).unwrap();
    let parsed: Manifest = serde_json::from_slice(&second.manifest).unwrap();
    assert_eq!(parsed.layers.len(), 2);
    // The config, and the one that is new.
    assert_eq!(second.blobs.len(), 2);
    let (layer, bytes) = second.blobs.last().unwrap();
    assert_eq!(layer.media_type, SIMPLE_SIGNING);
    let found = Signature::of_layer(layer, bytes.clone()).unwrap();
    assert!(found.verify(&two.public(), &Sha256Digest::of(b"image")).is_ok());
    let config: serde_json::Value = serde_json::from_slice(&second.blobs[0].1).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    let target = Descriptor::of(media::MANIFEST, b"image");
    let referrer = referrer(&target, &[sign(&one)]).unwrap();
    let parsed: Manifest = serde_json::from_slice(&referrer.manifest).unwrap();
    assert_eq!(parsed.subject.unwrap().digest, target.digest);
    assert_eq!(parsed.artifact_type.as_deref(), Some(SIGNATURE_ARTIFACT));
}
