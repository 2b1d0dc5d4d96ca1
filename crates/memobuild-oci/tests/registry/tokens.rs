//! Tokens, names and passwords: what is asked for, what is shown to whom, and what a refusal says.

use std::{fs, time::Duration};

use memobuild_image::{Descriptor, media};
use memobuild_oci::{
    reference::Reference,
    registry::{Artifact, HostOptions, Login, Pushed, Registries, RegistryError, RegistryOptions},
};

use crate::{
    push::{opened, push_with},
    strict::{Auth, Options, Strict, TokenOptions, User},
    support::*,
};

fn ci() -> User {
    User {
        name: "ci",
        password: "secret",
        refresh: "r3fresh",
        rights: vec![("app/x", "pull,push"), ("base", "pull"), ("hub/base", "pull")],
    }
}

fn admin() -> User {
    User { name: "admin", password: "root", refresh: "", rights: vec![("*", "pull,push")] }
}

fn with_tokens(tokens: TokenOptions) -> Strict {
    let tokens = TokenOptions { users: vec![ci(), admin()], ..tokens };
    Strict::new(Options { auth: Auth::Token(tokens), ..Options::default() })
}

fn login(strict: &Strict, user: &User) -> RegistryOptions {
    let login = Login::Password { user: user.name.into(), password: user.password.into() };
    RegistryOptions { login: Some((strict.host.clone(), login)), ..nobody() }
}

fn at(strict: &Strict, name: &str) -> Reference {
    format!("{}/{name}", strict.host).parse().unwrap()
}

fn push_blob(registries: &Registries, to: &Reference, bytes: &[u8], from: &[&str]) -> Result<Pushed, RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, bytes).unwrap();
    let source = || fs::File::open(&path).map_err(|e| RegistryError::Source(e.into()));
    registries.push_blob(to, &Descriptor::of(media::LAYER, bytes), from, &source, &|_, _| ())
}

/// The scopes that tokens were asked for.
fn scopes(strict: &Strict) -> Vec<String> {
    let log = strict.log();
    let tokens = log.iter().filter(|l| l.target.starts_with("/token"));
    tokens
        .map(|l| {
            let query = l.target.split_once('?').map(|(_, q)| q).unwrap_or_default();
            let scopes = query.split('&').filter_map(|p| p.strip_prefix("scope="));
            scopes.map(|s| s.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[test]
fn one_token_does_for_a_push_and_one_for_what_is_taken_from_elsewhere() {
    for no_scope in [false, true] {
        let strict = with_tokens(TokenOptions { no_scope, ..TokenOptions::default() });
        let bytes = noise(5 << 20, 1);
        let registries = Registries::new(login(&strict, &admin()));
        assert_eq!(push_blob(&registries, &at(&strict, "base"), &bytes, &[]).unwrap(), Pushed::Sent);
        assert_eq!(scopes(&strict), ["repository:base:pull,push"]);
        strict.clear_log();
        let registries = Registries::new(login(&strict, &ci()));
        let app = at(&strict, "app/x:1");
        assert_eq!(push_blob(&registries, &app, &bytes, &["base"]).unwrap(), Pushed::Mounted);
        assert_eq!(push_blob(&registries, &app, b"more", &[]).unwrap(), Pushed::Sent);
        let both = "repository:app/x:pull,push repository:base:pull";
        assert_eq!(scopes(&strict), ["repository:app/x:pull,push", both]);
        // Who reads does not ask for the right to write.
        strict.clear_log();
        let blob = Descriptor::of(media::LAYER, &bytes);
        assert_eq!(registries.read_blob(&at(&strict, "base"), &blob, 8 << 20).unwrap(), bytes);
        assert_eq!(scopes(&strict), ["repository:base:pull"]);
    }
}

#[test]
fn what_may_not_be_read_elsewhere_is_sent() {
    for lenient in [false, true] {
        let strict = with_tokens(TokenOptions { lenient, ..TokenOptions::default() });
        let bytes = noise(5 << 20, 1);
        let registries = Registries::new(login(&strict, &admin()));
        push_blob(&registries, &at(&strict, "secret"), &bytes, &[]).unwrap();
        let registries = Registries::new(login(&strict, &ci()));
        assert_eq!(push_blob(&registries, &at(&strict, "app/x"), &bytes, &["secret"]).unwrap(), Pushed::Sent);
    }
}

/// Whole images, several requests at once: each token is used up or out of date after a few.
#[test]
fn tokens_that_end_in_the_middle_are_fetched_anew() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 5, 5_000_000);
    let few = |uses| TokenOptions { uses: Some(uses), ..TokenOptions::default() };
    let short = TokenOptions { life: Some(Duration::from_millis(150)), silent: true, ..TokenOptions::default() };
    for (options, abrupt) in [(few(3), false), (few(9), true), (short, false)] {
        let strict = with_tokens(options);
        strict.set(|o| (o.slow, o.abrupt) = (Duration::from_millis(60), abrupt));
        let (_keep, store) = store();
        let (base, root) = opened(layout.path(), &store);
        let name = format!("{}/app/x:1", strict.host);
        let report = push_with(&[&name], &base, &root, &store, login(&strict, &ci())).unwrap();
        assert_eq!(report.sent, 6);
        assert!(scopes(&strict).len() > 1, "{:?}", scopes(&strict));
        let (_other, fresh) = crate::support::store();
        let back = open_with(&name, &fresh, login(&strict, &ci())).unwrap();
        assert_eq!(back.tree(&|_, _| ()).unwrap(), tree);
    }
}

/// A token that says how long it holds is not shown afterwards: nothing is sent in vain.
#[test]
fn tokens_are_not_shown_after_their_time() {
    let strict = with_tokens(TokenOptions { life: Some(Duration::from_secs(1)), ..TokenOptions::default() });
    let registries = Registries::new(login(&strict, &ci()));
    let to = at(&strict, "app/x");
    push_blob(&registries, &to, b"1", &[]).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    push_blob(&registries, &to, b"2", &[]).unwrap();
    assert_eq!(scopes(&strict).len(), 2);
    let shown = |l: &crate::strict::Logged| l.status == 401 && l.authorization.is_some();
    assert!(!strict.log().iter().any(shown));
}

#[test]
fn several_at_once_fetch_one_token() {
    let strict = with_tokens(TokenOptions::default());
    strict.set(|o| o.slow = Duration::from_millis(50));
    let registries = Registries::new(login(&strict, &ci()));
    std::thread::scope(|scope| {
        for i in 0..6 {
            let (registries, to) = (&registries, at(&strict, "app/x"));
            scope.spawn(move || push_blob(registries, &to, &[i], &[]).unwrap());
        }
    });
    assert_eq!(scopes(&strict).len(), 1);
}

#[test]
fn a_refresh_token_is_sent_by_post() {
    let strict = with_tokens(TokenOptions::default());
    let dir = tempfile::tempdir().unwrap();
    let config = |token: &str| {
        let text = format!(r#"{{"auths":{{"{}":{{"identitytoken":"{token}"}}}}}}"#, strict.host);
        fs::write(dir.path().join("config.json"), text).unwrap();
        Registries::new(RegistryOptions { docker_config: Some(dir.path().into()), ..RegistryOptions::default() })
    };
    let to = at(&strict, "app/x");
    assert_eq!(push_blob(&config("r3fresh"), &to, b"1", &[]).unwrap(), Pushed::Sent);
    assert!(strict.asked().contains(&"POST /token".to_owned()));
    let error = push_blob(&config("old"), &to, b"2", &[]).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: access to app/x denied: the refresh token has expired", strict.host));
    assert!(error.hint().unwrap().contains("or have expired: docker login"), "{:?}", error.hint());
}

#[test]
fn a_login_beats_dockers_configuration_and_goes_to_its_registry_only() {
    let strict = with_tokens(TokenOptions::default());
    let dir = tempfile::tempdir().unwrap();
    // "user:secret", whom the registry does not know.
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, strict.host);
    fs::write(dir.path().join("config.json"), text).unwrap();
    let options = |login| RegistryOptions { docker_config: Some(dir.path().into()), ..login };
    let registries = Registries::new(options(login(&strict, &ci())));
    push_blob(&registries, &at(&strict, "app/x"), b"1", &[]).unwrap();
    let other = RegistryOptions {
        login: Some(("other.example".into(), Login::Token("t0k".into()))),
        ..options(RegistryOptions::default())
    };
    strict.clear_log();
    let error = push_blob(&Registries::new(other), &at(&strict, "app/x"), b"2", &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { with_credentials: true, login: false, .. }), "{error:?}");
    assert!(strict.log().iter().all(|l| l.authorization.as_ref().is_none_or(|a| !a.contains("t0k"))));

    let fixed = Strict::new(Options { auth: Auth::Fixed("t0k"), redirect: true, ..Options::default() });
    let token =
        |text: &str| RegistryOptions { login: Some((fixed.host.clone(), Login::Token(text.into()))), ..nobody() };
    let registries = Registries::new(token("t0k"));
    let (blob, _) = registries.push_bytes(&at(&fixed, "a"), media::LAYER, b"1").unwrap();
    // Where the blob lies nobody may be shown the token.
    assert_eq!(registries.read_blob(&at(&fixed, "a"), &blob, 9).unwrap(), b"1");
    assert!(fixed.log().iter().all(|l| l.storage != l.authorization.is_some()));
    let error = Registries::new(token("wrong")).tags(&at(&fixed, "a")).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: access to a denied: authentication required", fixed.host));
    let hint = format!("the login that memobuild was given for {} does not allow it, or has expired", fixed.host);
    assert_eq!(error.hint().unwrap(), hint);
    assert!(!format!("{registries:?} {error:?}").contains("t0k"));
}

#[test]
fn names_and_passwords_are_shown_where_they_are_asked_for() {
    let strict = Strict::new(Options { auth: Auth::Basic("ci", "secret"), ..Options::default() });
    let registries = Registries::new(login(&strict, &ci()));
    push_blob(&registries, &at(&strict, "a"), b"1", &[]).unwrap();
    assert_eq!(strict.log().iter().filter(|l| l.status == 401).count(), 1);
    let error = push_blob(&Registries::new(nobody()), &at(&strict, "a"), b"1", &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { with_credentials: false, .. }), "{error:?}");
}

#[test]
fn who_has_no_name_may_read_where_that_is_allowed() {
    let strict = with_tokens(TokenOptions { anonymous: vec![("base", "pull")], ..TokenOptions::default() });
    let artifact = Artifact { artifact_type: "a/b".into(), ..Artifact::default() };
    Registries::new(login(&strict, &admin())).put_artifact(&at(&strict, "base:1"), &artifact).unwrap();
    let registries = Registries::new(nobody());
    assert!(registries.find_manifest(&at(&strict, "base:1")).unwrap().is_some());
    let error = registries.put_artifact(&at(&strict, "base:2"), &artifact).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: access to base denied: no push in base", strict.host));
    assert!(error.hint().unwrap().ends_with(&format!("docker login {}", strict.host)));
    let error = registries.find_manifest(&at(&strict, "secret:1")).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: access to secret denied: no pull in secret", strict.host));
    // Who has a name, but not the right.
    let registries = Registries::new(login(&strict, &ci()));
    let error = registries.put_artifact(&at(&strict, "base:2"), &artifact).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { with_credentials: true, login: true, .. }), "{error:?}");
}

/// A mirror is another host, with credentials of its own.
#[test]
fn mirrors_get_their_own_credentials_and_a_path() {
    let (mirror, own) = (with_tokens(TokenOptions::default()), with_tokens(TokenOptions::default()));
    let artifact = Artifact { artifact_type: "a/b".into(), ..Artifact::default() };
    for (strict, name) in [(&mirror, "hub/base:1"), (&own, "base:1"), (&own, "base:2")] {
        Registries::new(login(strict, &admin())).put_artifact(&at(strict, name), &artifact).unwrap();
    }
    mirror.clear_log();
    own.clear_log();
    let dir = tempfile::tempdir().unwrap();
    // "ci:secret" for the mirror; the registry itself is given its own.
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"Y2k6c2VjcmV0"}}}}}}"#, mirror.host);
    fs::write(dir.path().join("config.json"), text).unwrap();
    let mirrors = vec![format!("127.0.0.1:{}", free_port()), format!("{}/hub", mirror.host)];
    let mut options = RegistryOptions { docker_config: Some(dir.path().into()), ..login(&own, &admin()) };
    options.hosts.insert(own.host.clone(), HostOptions { mirrors, ..HostOptions::default() });
    let registries = Registries::new(options);
    registries.manifest(&at(&own, "base:1")).unwrap();
    assert_eq!(own.log().len(), 0);
    assert_eq!(scopes(&mirror), ["repository:hub/base:pull"]);
    let shown = mirror.log().into_iter().filter_map(|l| l.authorization.filter(|a| a.starts_with("Basic ")));
    assert_eq!(shown.collect::<Vec<_>>(), ["Basic Y2k6c2VjcmV0"]);
    // What the mirror lacks is there.
    registries.manifest(&at(&own, "base:2")).unwrap();
    assert!(!own.log().is_empty());
    // What is pushed never goes there.
    mirror.clear_log();
    registries.put_artifact(&at(&own, "base:3"), &artifact).unwrap();
    assert_eq!(mirror.log().len(), 0);
}
