//! `--secret` and `--ssh`.

use std::path::PathBuf;

use memobuild_engine::SecretSource;

use super::csv;

/// `id=ID[,src=FILE|,env=VARIABLE][,type=file|env]`. Without a source: the variable of that name if it is set, else the
/// file of that name.
pub(crate) fn secret(text: &str) -> Result<(String, SecretSource), String> {
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for field in csv::fields(text)? {
        let (key, value) = csv::key_value(&field)?;
        match key.as_str() {
            "id" => id = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(format!("type={value}: expected file or env")),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            _ => return Err(format!("unknown key {key:?}: expected id, src, env or type")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or("expected id=ID and src=FILE or env=VARIABLE")?;
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let source = match (file, variable) {
        (Some(_), Some(_)) => return Err("src and env exclude each other".into()),
        (Some(file), None) => SecretSource::File(file.into()),
        (None, Some(variable)) => SecretSource::Env(variable),
        (None, None) if kind.as_deref() != Some("file") && std::env::var_os(&id).is_some() => {
            SecretSource::Env(id.clone())
        }
        (None, None) => SecretSource::File(id.clone().into()),
    };
    if let SecretSource::File(path) = &source {
        std::fs::metadata(path).map_err(|e| format!("secret {id}: {}: {e}", path.display()))?;
    }
    Ok((id, source))
}

/// `ID[=SOCKET]`; without a socket, the agent that SSH_AUTH_SOCK names.
pub(crate) fn ssh(text: &str) -> Result<(String, PathBuf), String> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, PathBuf::from(socket)),
        None => {
            let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty());
            (text, socket.map(PathBuf::from).ok_or("SSH_AUTH_SOCK is not set: start ssh-agent, or give ID=SOCKET")?)
        }
    };
    let id = if id.is_empty() { "default" } else { id };
    let found = std::fs::metadata(&socket).map_err(|e| format!("{}: {e}", socket.display()))?;
    if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) {
        return Err(format!("{} is no socket: key files are not read, add the key to an ssh-agent", socket.display()));
    }
    Ok((id.to_owned(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_both_kinds() {
        assert_eq!(secret("id=a,src=/dev/null"), Ok(("a".into(), SecretSource::File("/dev/null".into()))));
        assert_eq!(secret("id=a,env=TOKEN"), Ok(("a".into(), SecretSource::Env("TOKEN".into()))));
        assert_eq!(secret("id=a,type=env,src=TOKEN"), Ok(("a".into(), SecretSource::Env("TOKEN".into()))));
        assert_eq!(secret("type=file,id=/dev/null"), Ok(("/dev/null".into(), SecretSource::File("/dev/null".into()))));
        assert_eq!(secret("id=PATH"), Ok(("PATH".into(), SecretSource::Env("PATH".into()))));
        for bad in ["", "src=x", "id=a,src=/no/such/file", "id=a,type=x", "id=a,src=a,env=b", "id=a,foo=b", "id="] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ssh_takes_sockets_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(ssh(&format!("default={}", path.display())), Ok(("default".into(), path)));
        assert!(ssh("default=/dev/null").unwrap_err().contains("no socket"));
        assert!(ssh("default=/no/such/socket").is_err());
    }
}
