//! Passwords and tokens while they are in memory.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

/// A password or token. It is overwritten when it is dropped, and `Debug` does not show it. What is made of it to be sent
/// (a header, a form) belongs to whoever sends it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, to be sent and not kept.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The value of an `Authorization` header with it as a bearer token (RFC 6750).
    pub fn bearer(&self) -> Self {
        Self::joined(&["Bearer ", self.reveal()])
    }

    /// Parts, one after the other.
    pub fn joined(parts: &[&str]) -> Self {
        // With its final size from the start: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| text.push_str(part));
        Self(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::joined(&[text])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_shown() {
        let secret = Secret::from("s3cret");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
        assert_eq!((secret.reveal(), secret.bearer().reveal()), ("s3cret", "Bearer s3cret"));
    }
}
