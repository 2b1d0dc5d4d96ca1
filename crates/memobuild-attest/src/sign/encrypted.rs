//! Private keys under a password, as cosign keeps them (secure-systems-lab/go-securesystemslib, `encrypted`): JSON that
//! names scrypt and NaCl's secretbox, with what they need.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memobuild_image::json;
use p256::elliptic_curve::{Generate as _, subtle::ConstantTimeEq as _, zeroize::Zeroizing};
use poly1305::{Poly1305, universal_hash::KeyInit as _};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use serde::{Deserialize, Serialize};

use super::KeyError;

/// The base-two logarithms of scrypt's cost that cosign takes; others could be made to cost any amount of memory.
const COSTS: [u8; 3] = [15, 16, 17];
/// What new keys get: 64 MiB, about 100 ms.
const COST: u8 = 16;
const BLOCK: u32 = 8;
const PARALLEL: u32 = 1;
const TAG: usize = 16;

#[derive(Serialize, Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

type Key = Zeroizing<[u8; 32]>;

fn derive(password: &[u8], salt: &[u8], cost: u8) -> Option<Key> {
    let params = scrypt::Params::new(cost, BLOCK, PARALLEL).ok()?;
    let mut key = Key::default();
    scrypt::scrypt(password, salt, &params, key.as_mut_slice()).ok()?;
    Some(key)
}

/// Encrypts under a password.
pub(super) fn encrypt(plain: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let salt = <[u8; 32]>::try_generate().map_err(|_| KeyError::Random)?;
    let nonce = <[u8; 24]>::try_generate().map_err(|_| KeyError::Random)?;
    let key = derive(password, &salt, COST).ok_or(KeyError::Encrypted)?;
    let encrypted = Encrypted {
        kdf: Kdf {
            name: "scrypt".into(),
            params: Params { n: 1 << COST, r: BLOCK, p: PARALLEL },
            salt: STANDARD.encode(salt),
        },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(seal(&key, &nonce, plain)),
    };
    json::compact(&encrypted).map_err(|_| KeyError::Encrypted)
}

/// Decrypts what [`encrypt`] or cosign encrypted.
pub(super) fn decrypt(text: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let encrypted: Encrypted = serde_json::from_slice(text).map_err(|_| KeyError::Encrypted)?;
    let Encrypted { kdf, cipher, ciphertext } = encrypted;
    let cost = COSTS.into_iter().find(|cost| kdf.params.n == 1 << cost).ok_or(KeyError::Encrypted)?;
    let params = (kdf.name.as_str(), cipher.name.as_str(), kdf.params.r, kdf.params.p);
    if params != ("scrypt", "nacl/secretbox", BLOCK, PARALLEL) {
        return Err(KeyError::Encrypted);
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| KeyError::Encrypted);
    let nonce: [u8; 24] = bytes(&cipher.nonce)?.try_into().map_err(|_| KeyError::Encrypted)?;
    let key = derive(password, &bytes(&kdf.salt)?, cost).ok_or(KeyError::Encrypted)?;
    open(&key, &nonce, &bytes(&ciphertext)?).ok_or(KeyError::Password)
}

/// NaCl's secretbox: XSalsa20 whose first 32 bytes are the key of a Poly1305 tag, which stands before the ciphertext.
fn seal(key: &Key, nonce: &[u8; 24], plain: &[u8]) -> Vec<u8> {
    let (mut cipher, mac) = start(key, nonce);
    let mut text = plain.to_vec();
    cipher.apply_keystream(&mut text);
    let tag = mac.compute_unpadded(&text);
    [tag.as_slice(), &text].concat()
}

fn open(key: &Key, nonce: &[u8; 24], boxed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, text) = boxed.split_at_checked(TAG)?;
    let (mut cipher, mac) = start(key, nonce);
    if !bool::from(mac.compute_unpadded(text).as_slice().ct_eq(tag)) {
        return None;
    }
    let mut plain = Zeroizing::new(text.to_vec());
    cipher.apply_keystream(&mut plain);
    Some(plain)
}

fn start(key: &Key, nonce: &[u8; 24]) -> (XSalsa20, Poly1305) {
    let mut cipher = XSalsa20::new((&**key).into(), nonce.into());
    let mut first = Key::default();
    cipher.apply_keystream(first.as_mut_slice());
    let mac = Poly1305::new((&*first).into());
    (cipher, mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of NaCl's own test (`tests/secretbox.c` and its expected output).
    #[test]
    fn boxes_are_nacls() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let key: [u8; 32] = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").try_into().unwrap();
        let nonce: [u8; 24] = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().unwrap();
        let plain = hex(concat!(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01",
            "233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd",
            "4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
        ));
        let boxed = hex(concat!(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c",
            "98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfea",
            "bd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
        ));
        let key = Key::new(key);
        assert_eq!(seal(&key, &nonce, &plain), boxed);
        assert_eq!(*open(&key, &nonce, &boxed).unwrap(), plain);
        let mut other = boxed;
        other[20] ^= 1;
        assert!(open(&key, &nonce, &other).is_none());
    }

    #[test]
    fn passwords_are_needed_and_costs_are_bounded() {
        let text = encrypt(b"key", b"secret").unwrap();
        assert_eq!(*decrypt(&text, b"secret").unwrap(), b"key");
        assert!(matches!(decrypt(&text, b"other"), Err(KeyError::Password)));
        let dear = String::from_utf8(text).unwrap().replace("65536", "1073741824");
        assert!(matches!(decrypt(dear.as_bytes(), b"secret"), Err(KeyError::Encrypted)));
        assert!(matches!(decrypt(b"{}", b""), Err(KeyError::Encrypted)));
    }
}
