//! Who may do what, and what no path may be.

use std::path::Path;

use memobuild_server::{Config, Scope, Server, ServerError, add_token};

use crate::client::Running;

fn with_tokens(path: &Path) -> [String; 3] {
    [Scope::Read, Scope::Write, Scope::Admin].map(|scope| {
        let token = add_token(path, scope.name(), scope).unwrap();
        format!("Authorization: Bearer {token}")
    })
}

#[test]
fn scopes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let [read, write, admin] = with_tokens(&file);
    let server = Running::with(|config| config.tokens = Some(file));
    let hex = blake3::hash(b"x").to_hex().to_string();
    let blob = format!("/cache/{hex}");
    let status = |method: &str, path: &str, auth: &str| server.send(method, path, &[auth], b"x").status;

    let reply = server.get(&blob);
    assert_eq!((reply.status, reply.error()), (401, "unauthorized".into()));
    assert!(reply.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer")));
    for bad in ["Authorization: Bearer mb_0", "Authorization: Basic eDp5", "Authorization: Bearer"] {
        assert_eq!(status("GET", &blob, bad), 401, "{bad}");
        assert_eq!(status("PUT", &blob, bad), 401, "{bad}");
    }
    assert_eq!(status("PUT", &blob, &read), 403);
    assert_eq!(status("GET", &blob, &read), 404);
    assert_eq!(status("PUT", &blob, &write), 201);
    assert_eq!(status("GET", &blob, &read), 200);
    assert_eq!(status("HEAD", &blob, &write), 200);
    assert_eq!(server.send("POST", "/cache/missing", &[&read], b"[]").status, 200);
    for path in ["/gc", "/gc?days=0"] {
        assert_eq!(status("POST", path, &read), 403);
        assert_eq!(status("POST", path, &write), 403);
    }
    assert_eq!(status("POST", "/gc?days=1", &admin), 200);
    assert_eq!(status("PUT", &blob, &admin), 200);
    // Balancers have no tokens; who scrapes metrics has.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.send("GET", "/metrics", &[&read], b"").status, 200);
    assert_eq!(server.get("/no/such/route").status, 401);
    // Whoever sends much without leave hears why it was refused.
    for _ in 0..10 {
        assert_eq!(server.put(&blob, &vec![0; 4_000_000]).status, 401);
    }
}

#[test]
fn open_to_the_network_only_if_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = Config::new(dir.path().join("data"));
    config.listen = ([0, 0, 0, 0], 0).into();
    let refused = runtime.block_on(Server::bind(config.clone()));
    assert!(matches!(refused, Err(ServerError::Open(_))));
    assert!(!dir.path().join("data").exists());
    config.allow_anonymous = true;
    assert!(runtime.block_on(Server::bind(config)).is_ok());
}

#[test]
fn paths_that_name_nothing() {
    let server = Running::new();
    let hex = "a".repeat(64);
    for (path, code) in [
        ("/cache/..%2f..%2fetc%2fpasswd".into(), "invalid_digest"),
        ("/cache/%00".into(), "invalid_digest"),
        ("/cache/%ff".into(), "invalid_path"),
        (format!("/cache/{}", hex.to_uppercase()), "invalid_digest"),
        (format!("/cache/{hex}a"), "invalid_digest"),
        (format!("/cache/sha256:{hex}"), "invalid_digest"),
        ("/cache/layer/x".into(), "invalid_digest"),
        (format!("/record/{hex}"), "invalid_key"),
        (format!("/record/UP:{hex}"), "invalid_key"),
        (format!("/record/a%2fb:{hex}"), "invalid_key"),
    ] {
        for method in ["GET", "PUT"] {
            let reply = server.send(method, &path, &[], if method == "PUT" { b"x" } else { b"" });
            assert_eq!((reply.status, reply.error()), (400, code.into()), "{method} {path}");
        }
    }
    for path in [
        "/assets/",
        "/assets/..%2findex.html",
        "/cache",
        "/cache/",
        "/cache/../gc",
        "/nothing",
        &format!("/cache/{hex}/x"),
    ] {
        assert_eq!(server.get(path).error(), "not_found", "{path}");
    }
    for (method, path) in [("DELETE", &*format!("/cache/{hex}")), ("GET", "/gc"), ("PUT", "/healthz")] {
        let reply = server.send(method, path, &[], b"");
        assert_eq!((reply.status, reply.error()), (405, "method_not_allowed".into()), "{method} {path}");
    }
    assert_eq!(server.files(), Vec::<String>::new());
}
