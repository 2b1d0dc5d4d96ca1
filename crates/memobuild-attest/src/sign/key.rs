//! Keys: ECDSA over P-256, in the files that openssl and cosign write.

use std::fmt;

use p256::{
    SecretKey,
    ecdsa::{
        DerSignature, SigningKey, VerifyingKey,
        signature::{Signer as _, Verifier as _},
    },
    elliptic_curve::Generate as _,
    elliptic_curve::zeroize::Zeroizing,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _},
};

use super::{VerifyError, encrypted, pem};

const PKCS8: &str = "PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
const SIGSTORE: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
const COSIGN: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// What is wrong with a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// No block that is understood.
    #[error("no private key is in the file (expected PEM with PRIVATE KEY, EC PRIVATE KEY or {SIGSTORE})")]
    NoPrivateKey,
    /// No block that is understood.
    #[error("no public key is in the file (expected PEM with PUBLIC KEY)")]
    NoPublicKey,
    /// Another curve or kind, or damaged.
    #[error("the key is not an ECDSA key over P-256, or is damaged")]
    Kind,
    /// Encrypted, but no password was given.
    #[error("the private key is encrypted: a password is needed")]
    NoPassword,
    /// A wrong password, or damaged.
    #[error("the private key can't be decrypted: wrong password?")]
    Password,
    /// Not in cosign's format, or with parameters that cosign does not use.
    #[error("the private key is encrypted in a way that is not known")]
    Encrypted,
    /// The system gives no random bytes.
    #[error("no random numbers can be had")]
    Random,
    /// Signing failed.
    #[error("the key can't sign")]
    Sign,
}

/// The half that signs. Wiped from memory when it is dropped; never shown.
pub struct PrivateKey(SigningKey);

/// The half that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        SigningKey::try_generate().map(Self).map_err(|_| KeyError::Random)
    }

    /// Reads a key file: PKCS#8, SEC1 or cosign's. The password is for the latter; cosign's may be empty.
    ///
    /// # Errors
    /// Says what is wrong with the file or the password.
    pub fn from_pem(text: &str, password: Option<&[u8]>) -> Result<Self, KeyError> {
        let (label, bytes) = pem::find(text, &[PKCS8, SEC1, SIGSTORE, COSIGN]).ok_or(KeyError::NoPrivateKey)?;
        let key = match label {
            SEC1 => SecretKey::from_sec1_der(&bytes).map_err(|_| KeyError::Kind)?,
            SIGSTORE | COSIGN => {
                let der = encrypted::decrypt(&bytes, password.ok_or(KeyError::NoPassword)?)?;
                SecretKey::from_pkcs8_der(&der).map_err(|_| KeyError::Kind)?
            }
            _ => SecretKey::from_pkcs8_der(&bytes).map_err(|_| KeyError::Kind)?,
        };
        Ok(Self(key.into()))
    }

    /// A key file in the clear, in PKCS#8.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.0.to_pkcs8_der().map_err(|_| KeyError::Kind)?;
        Ok(pem::write(PKCS8, der.as_bytes()))
    }

    /// A key file under a password, as `cosign generate-key-pair` writes it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn to_encrypted_pem(&self, password: &[u8]) -> Result<Zeroizing<String>, KeyError> {
        let der = self.0.to_pkcs8_der().map_err(|_| KeyError::Kind)?;
        Ok(pem::write(SIGSTORE, &encrypted::encrypt(der.as_bytes(), password)?))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs the SHA-256 of a message: ASN.1 DER. The same message gives the same signature (RFC 6979).
    ///
    /// # Errors
    /// Never in practice.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature: DerSignature = self.0.try_sign(message).map_err(|_| KeyError::Sign)?;
        Ok(signature.as_bytes().to_vec())
    }
}

impl PublicKey {
    /// Reads a key file: SubjectPublicKeyInfo, as `cosign.pub` is.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (_, der) = pem::find(text, &[PUBLIC]).ok_or(KeyError::NoPublicKey)?;
        VerifyingKey::from_public_key_der(&der).map(Self).map_err(|_| KeyError::Kind)
    }

    /// A key file.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der = self.0.to_public_key_der().map_err(|_| KeyError::Kind)?;
        Ok(pem::write(PUBLIC, der.as_bytes()).to_string())
    }

    /// Whether the signature (ASN.1 DER) is of the SHA-256 of that message.
    ///
    /// # Errors
    /// When it is not, or no signature at all.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let signature = DerSignature::from_bytes(signature).map_err(|_| VerifyError::Form)?;
        self.0.verify(message, &signature).map_err(|_| VerifyError::Signature)
    }
}
