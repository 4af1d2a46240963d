//! Whom the token is sent to, and where it comes from.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// A server with TLS, whose certificate is for `name`, and a file with its authority.
async fn tls(name: &str) -> (ConnectServer, TempDir) {
    let server = ConnectServer::start_tls(World::conformance().unwrap(), name).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), server.ca().unwrap()).unwrap();
    (server, dir)
}

#[tokio::test]
async fn whom_tls_trusts() {
    let ((server, dir), (_, other)) = (tls("127.0.0.1").await, tls("127.0.0.1").await);
    let with = |host: String, ca: &TempDir| {
        Connect::new(ConnectOptions { ca_file: Some(ca.path().join("ca.pem")), ..options(host) }).unwrap()
    };
    ask(&with(server.host(), &dir), Question::Item).await.expect("its own authority");
    let check = async |connect: &Connect, detail: &str| {
        let (error, text) = failure(ask(connect, Question::Item).await);
        assert!(error == ResolveError::Unavailable && text.contains(detail), "{error:?}: {text}");
    };
    check(&with(server.host(), &other), "certificate").await;
    let by_name = format!("https://localhost:{}", server.port());
    check(&with(by_name, &dir), "not valid for name").await;
    match Connect::new(options(server.host())) {
        Ok(connect) => check(&connect, "certificate").await,
        Err(error) => assert!(matches!(error, ConnectError::SystemRoots(_)), "{error}"),
    }
    assert_eq!(server.count("/"), 1, "the token went to nobody else");
}

#[test]
fn where_a_token_may_be_sent() {
    let check = |host: &str, expected: &str| {
        let found = Connect::new(options(host.into())).err().map(|error| error.to_string());
        assert!(found.as_ref().is_some_and(|text| text.contains(expected)), "{host}: {found:?}");
        assert!(!found.unwrap().contains("hunter2"));
    };
    check("", "is no URL");
    check("connect.example", "is no URL");
    check("connect.example:8443", "neither `https` nor `http`");
    check("ftp://127.0.0.1", "neither `https` nor `http`");
    check("http://connect.example:8080", "reach `connect.example` by `https`");
    check("http://localhost.example", "reach `localhost.example` by `https`");
    check("http://128.0.0.1", "by `https`");
    check("http://[::2]", "by `https`");
    check("https://me:hunter2@connect.example", "has a user or a password");
    check("https://connect.example?token=hunter2", "has a query");
    for host in ["http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:8080", "http://localhost/prefix/"]
    {
        assert!(Connect::new(options(host.into())).is_ok(), "{host}");
    }
}

#[test]
fn authorities_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let check = |expected: &str| {
        let options = options("https://connect.example".into());
        let found = Connect::new(ConnectOptions { ca_file: Some(path.clone()), ..options }).err().unwrap();
        assert!(found.to_string().contains(expected), "{found}");
    };
    check("cannot read");
    std::fs::write(&path, "").unwrap();
    check("has no certificate");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    check("has no certificate");
}

#[tokio::test]
async fn where_a_token_comes_from() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let file = path.to_str().unwrap();
    let made = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        ConnectOptions::find(None, None, &|name| variables.get(name).map(|text| (*text).into()))
    };
    let check = |variables: &[(&str, &str)], expected: &str| {
        let text = made(variables).err().unwrap().to_string();
        assert!(text.contains(expected) && !text.contains("canary"), "{text}");
    };
    let host = ("OP_CONNECT_HOST", &*server.host());
    check(&[], "no Connect server is named");
    check(&[host], "`token_file` or in `OP_CONNECT_TOKEN_FILE`");
    check(&[host, ("OP_CONNECT_TOKEN", "")], "there is no token");
    check(&[("OP_CONNECT_TOKEN", "canary")], "no Connect server is named");
    check(&[host, ("OP_CONNECT_TOKEN", "canary"), ("OP_CONNECT_TOKEN_FILE", file)], "two tokens");
    check(&[host, ("OP_CONNECT_TOKEN", "canary canary")], "malformed");
    check(&[host, ("OP_CONNECT_TOKEN", "canary\r\nX: y")], "malformed");
    check(&[host, ("OP_CONNECT_TOKEN", &"canary".repeat(2_000))], "malformed");
    check(&[host, ("OP_CONNECT_TOKEN_FILE", "/nowhere/token")], "cannot read the file `/nowhere/token`");
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        check(&[host, ("OP_CONNECT_TOKEN_FILE", file)], "`chmod 600` it");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let from_file = made(&[host, ("OP_CONNECT_TOKEN_FILE", file)]).ok().unwrap();
    assert!(
        !format!("{:?}", from_file.token.read().unwrap().header()).contains(TOKEN),
        "marked as sensitive"
    );
    let from_text = made(&[host, ("OP_CONNECT_TOKEN", TOKEN)]).ok().unwrap();
    let configured =
        ConnectOptions::find(Some(server.host()), Some(&path), &|_| Some("http://no.example".into()));
    for options in [from_file, from_text, configured.ok().unwrap()] {
        ask(&Connect::new(options).unwrap(), Question::Vaults).await.ok().unwrap();
    }
}
