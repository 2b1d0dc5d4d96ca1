//! The file of tokens: a line each with a name, a scope, `blake3:` and the hash of the token, and perhaps `expires=` and a
//! time (RFC 3339).
//!
//! Tokens are 32 random bytes, so a fast hash keeps them as well as a slow one. Lines that begin with `#` are comments.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use memobuild_image::time::{parse_rfc3339, rfc3339};

use crate::{Scope, clock};

/// A file of tokens that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It can't be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// Read or write.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is not a name, a scope and a hash.
    #[error(
        "{path}:{line}: expected a name, one of read, write and admin, blake3: with 64 hexadecimal digits, and perhaps expires= with a time"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No such scope.
    #[error("no such scope: {0:?} (there are read, write and admin)")]
    Scope(String),
    /// A name that would not be one word of a line.
    #[error("not a token's name: {0:?} (expected letters, digits, -, _, . or @)")]
    Name(String),
    /// A name that another token has.
    #[error("there is a token {0:?} already")]
    Taken(String),
    /// A name that no token has.
    #[error("there is no token {0:?}")]
    Unknown(String),
}

impl AuthError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// What is known of a token: everything but the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// From when on it is refused, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
}

/// A line of the file.
pub(crate) struct Token {
    pub(crate) info: TokenInfo,
    pub(crate) hash: blake3::Hash,
}

impl Token {
    /// Whether its time is over, at this time in seconds since 1970.
    pub(crate) fn expired(&self, now: i64) -> bool {
        self.info.expires.is_some_and(|expires| expires <= now)
    }
}

/// Makes a token, adds its hash to the file (made if it is not there, readable by its owner only) and gives the token,
/// which is not kept anywhere. A server reads the file when it starts, and on SIGHUP.
///
/// # Errors
/// [`AuthError::Name`], [`AuthError::Taken`], and those of the file.
pub fn add_token(path: &Path, name: &str, scope: Scope) -> Result<String, AuthError> {
    add(path, name, scope, None)
}

/// As [`add_token`], for a token that is refused after this time.
///
/// # Errors
/// As [`add_token`].
pub fn add_expiring_token(path: &Path, name: &str, scope: Scope, valid: Duration) -> Result<String, AuthError> {
    let valid = i64::try_from(valid.as_secs()).unwrap_or(i64::MAX);
    // RFC 3339 has years of four digits.
    let last = 253_402_300_799;
    add(path, name, scope, Some(clock::now().saturating_add(valid).min(last)))
}

fn add(path: &Path, name: &str, scope: Scope, expires: Option<i64>) -> Result<String, AuthError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(AuthError::Name(name.chars().take(100).collect()));
    }
    let _lock = lock(path)?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(AuthError::file("read", path)(error)),
    };
    if parse(path, &text)?.iter().any(|token| token.info.name == name) {
        return Err(AuthError::Taken(name.to_owned()));
    }
    let mut random = [0; 32];
    let source = Path::new("/dev/urandom");
    File::open(source).and_then(|mut file| file.read_exact(&mut random)).map_err(AuthError::file("read", source))?;
    let token = format!("mb_{}", blake3::Hash::from_bytes(random).to_hex());
    let expires = expires.map(|at| format!(" expires={}", rfc3339(at, 0))).unwrap_or_default();
    // A file written by hand may lack its last line's end.
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let line = format!("{end}{name} {} blake3:{}{expires}\n", scope.name(), blake3::hash(token.as_bytes()).to_hex());
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(AuthError::file("write", path))?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(AuthError::file("write", path))?;
    Ok(token)
}

/// The file's tokens, in its order.
///
/// # Errors
/// Those of the file.
pub fn list_tokens(path: &Path) -> Result<Vec<TokenInfo>, AuthError> {
    Ok(read_tokens(path)?.into_iter().map(|token| token.info).collect())
}

/// Takes a token out of the file; comments and other lines stay as they are. A server refuses it from SIGHUP on.
///
/// # Errors
/// [`AuthError::Unknown`], and those of the file.
pub fn revoke_token(path: &Path, name: &str) -> Result<(), AuthError> {
    // What is replaced is the file, not a link to it.
    let path = &fs::canonicalize(path).map_err(AuthError::file("read", path))?;
    let _lock = lock(path)?;
    let text = fs::read_to_string(path).map_err(AuthError::file("read", path))?;
    if !parse(path, &text)?.iter().any(|token| token.info.name == name) {
        return Err(AuthError::Unknown(name.chars().take(100).collect()));
    }
    let is_its = |line: &&str| parse_token(line).is_some_and(|token| token.info.name == name);
    let rest: String = text.split_inclusive('\n').filter(|line| !is_its(line)).collect();
    let written = (|| {
        let mut file = tempfile::NamedTempFile::new_in(parent(path))?;
        file.write_all(rest.as_bytes())?;
        let old = fs::metadata(path)?;
        file.as_file().set_permissions(old.permissions())?;
        // The server may run as another user than this one.
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    })();
    written.map_err(AuthError::file("write", path))
}

/// Two commands at once must not lose a line of each other. The directory is what both have, whichever file is there.
fn lock(path: &Path) -> Result<File, AuthError> {
    let dir = parent(path);
    let lock = File::open(dir).map_err(AuthError::file("read", dir))?;
    lock.lock().map_err(AuthError::file("lock", dir))?;
    Ok(lock)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn read_tokens(path: &Path) -> Result<Vec<Token>, AuthError> {
    parse(path, &fs::read_to_string(path).map_err(AuthError::file("read", path))?)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Token>, AuthError> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    lines
        .map(|(at, line)| parse_token(line).ok_or_else(|| AuthError::Line { path: path.to_owned(), line: at + 1 }))
        .collect()
}

fn parse_token(line: &str) -> Option<Token> {
    let mut words = line.split_whitespace();
    let (name, scope, hash) = (words.next()?, words.next()?, words.next()?);
    let hash = blake3::Hash::from_hex(hash.strip_prefix("blake3:")?).ok()?;
    let expires = match words.next() {
        Some(word) => Some(parse_rfc3339(word.strip_prefix("expires=")?)?.0),
        None => None,
    };
    if name.starts_with('#') || words.next().is_some() {
        return None;
    }
    Some(Token { info: TokenInfo { name: name.to_owned(), scope: scope.parse().ok()?, expires }, hash })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_kept_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let token = add_token(&path, "ci", Scope::Write).unwrap();
        add_token(&path, "ops@home", Scope::Admin).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        // Neither the token nor its random part.
        assert!(!text.contains(&token) && !text.contains(token.strip_prefix("mb_").unwrap()));
        assert!(text.contains(blake3::hash(token.as_bytes()).to_hex().as_str()));
        assert!(matches!(add_token(&path, "ci", Scope::Read), Err(AuthError::Taken(_))));
        for bad in ["a b", "", "#a", "a\nb"] {
            assert!(matches!(add_token(&path, bad, Scope::Read), Err(AuthError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn lines_that_are_no_tokens_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let hash = "ab".repeat(32);
        fs::write(&path, format!("# people\n\nme read blake3:{hash}\n")).unwrap();
        assert_eq!(read_tokens(&path).unwrap().len(), 1);
        for bad in [
            "me",
            "me read",
            &format!("me root blake3:{hash}"),
            &format!("me read {hash}"),
            "me read blake3:ab",
            &format!("me read blake3:{hash} tomorrow"),
            &format!("me read blake3:{hash} expires=tomorrow"),
            &format!("me read blake3:{hash} expires=2030-01-01T00:00:00Z x"),
        ] {
            fs::write(&path, format!("# people\n{bad}\n")).unwrap();
            assert!(matches!(read_tokens(&path), Err(AuthError::Line { line: 2, .. })), "{bad}");
        }
    }

    #[test]
    fn expiry_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let before = clock::now();
        add_expiring_token(&path, "short", Scope::Read, Duration::from_secs(90)).unwrap();
        add_expiring_token(&path, "long", Scope::Read, Duration::MAX).unwrap();
        let tokens = read_tokens(&path).unwrap();
        let expires = tokens[0].info.expires.unwrap();
        assert!((before + 90..=clock::now() + 90).contains(&expires));
        assert!(!tokens[0].expired(expires - 1) && tokens[0].expired(expires));
        assert!(!tokens[1].expired(clock::now()));
    }

    #[test]
    fn one_is_revoked_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let hash = "ab".repeat(32);
        fs::write(&path, format!("# people\nme read blake3:{hash}\n\nyou admin blake3:{hash}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        add_token(&path, "ci", Scope::Write).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("tokens", &link).unwrap();
        revoke_token(&link, "me").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(
            fs::read_to_string(&path).unwrap().starts_with(&format!("# people\n\nyou admin blake3:{hash}\nci write"))
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let names: Vec<String> = list_tokens(&path).unwrap().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["you", "ci"]);
        assert!(matches!(revoke_token(&path, "me"), Err(AuthError::Unknown(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
