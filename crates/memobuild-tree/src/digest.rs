//! Every digest is a type of its own, so that a tree's digest can never stand where a file's is wanted.

use std::{fmt, str::FromStr};

/// A text that is not a digest of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {text:?} (expected {expected})")]
pub struct DigestError {
    kind: &'static str,
    expected: &'static str,
    text: String,
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?;
    }
    Some(out)
}

/// The hexadecimal digits. Digests are shown and recorded in thousands: not by way of formatting each byte.
fn to_hex(bytes: &[u8; 32]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut out = String::with_capacity(64);
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(half)));
        }
    }
    out
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 64 lower-case hexadecimal digits, without any prefix: for file names.
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }

            /// Reads 64 lower-case hexadecimal digits without a prefix.
            pub fn from_hex(text: &str) -> Result<Self, DigestError> {
                from_hex(text).map(Self).ok_or_else(|| DigestError {
                    kind: stringify!($name),
                    expected: "64 lower-case hexadecimal digits",
                    text: text.chars().take(100).collect(),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.strip_prefix($prefix).and_then(from_hex).map(Self).ok_or_else(|| DigestError {
                    kind: stringify!($name),
                    expected: $expected,
                    text: text.chars().take(100).collect(),
                })
            }
        }

        impl crate::hash::ContentHash for $name {
            fn hash(&self, h: &mut crate::hash::KeyHasher) {
                h.fixed(&self.0);
            }
        }
    };
}

digest!(
    /// BLAKE3 of one file's bytes.
    ContentDigest, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// The identity of a tree: what cache keys use. mtimes count only where a step set them on purpose.
    TreeDigest, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// The whole of a tree, every mtime included.
    FullDigest, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// BLAKE3 of a diff's canonical encoding ([`crate::codec`]): the name of the bundle that holds it.
    BundleId, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// A cache key, made by [`crate::KeyHasher`].
    KeyDigest, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// Names a [`crate::facts::PathSet`]: which paths were looked at, and how.
    PathSetDigest, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// Names a set of paths that are one file. Derived from the sorted paths of the group and its content, so that
    /// the same step gives the same id on every machine.
    LinkId, "", "64 lower-case hexadecimal digits"
);
digest!(
    /// SHA-256 as OCI writes it: `sha256:` and 64 hexadecimal digits (image-spec, descriptor.md, "Digests").
    Sha256Digest, "sha256:", "sha256: and 64 lower-case hexadecimal digits"
);

impl ContentDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for ContentDigest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl Sha256Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_bad_ones_are_refused() {
        let digest = Sha256Digest::of(b"hello");
        assert_eq!(digest.to_string(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Sha256Digest::from_hex(&digest.hex()), Ok(digest));
        for bad in ["", "sha256:", "sha512:00", &digest.hex(), &digest.to_string().to_uppercase()] {
            assert!(bad.parse::<Sha256Digest>().is_err(), "{bad}");
        }
    }
}
