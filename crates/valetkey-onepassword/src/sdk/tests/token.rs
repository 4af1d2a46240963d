use std::collections::HashMap;
use std::ffi::OsString;

use super::*;
use crate::TokenNames;
use crate::token::ServiceAccountToken;

fn read(token: &str, hosts: Hosts) -> Result<ServiceAccountToken, TokenError> {
    here(token).read(hosts)
}

#[test]
fn where_a_token_may_be_sent() {
    let check = |address: &str, official: bool, with_loopback: bool| {
        let token = fake_token(address);
        assert_eq!(read(&token, Hosts::Official).is_ok(), official, "{address}");
        assert_eq!(read(&token, Hosts::OrLoopback).is_ok(), with_loopback, "{address} with loopback");
    };
    for address in [
        "1password.com",
        "my.1password.com",
        "https://my.1password.com",
        "https://team.1password.eu/",
        "example.1password.ca",
        "acme.ent.1password.com",
    ] {
        check(address, true, true);
    }
    for address in [
        "http://127.0.0.1:8080",
        "https://127.0.0.1:1/",
        "127.0.0.1",
        "http://localhost:80",
        "http://[::1]:80",
    ] {
        check(address, false, true);
    }
    for address in [
        "",
        "https://",
        "http://my.1password.com",
        "HTTPS://my.1password.com",
        "https:my.1password.com",
        "https:///my.1password.com",
        "https://https://my.1password.com",
        "ftp://my.1password.com",
        "//my.1password.com",
        "my1password.com",
        "evil-1password.com",
        "1password.com.evil.example",
        "my.1password.com.",
        "my..1password.com",
        ".1password.com",
        "-.1password.com",
        "my.1password.com:443",
        "my.1password.com:443@evil.example",
        "user@my.1password.com",
        "https://evil.example@my.1password.com",
        "https://my.1password.com@evil.example",
        "https://evil.example/my.1password.com",
        "https://evil.example?.1password.com",
        "https://evil.example#.1password.com",
        "https://evil.example\\.1password.com",
        "https://my.1password.com/path",
        "https://my.1password.com//",
        "my.1password.com?x",
        "MY.1PASSWORD.COM",
        "my.1passw\u{43e}rd.com",
        "my.1password\u{3002}com",
        "my.1password%2ecom",
        " my.1password.com",
        "my.1password.com\n",
        "my.1password.com\0",
        "1password.community",
        "my.b5dev.com",
        "127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.1:80@evil.example",
        "http://127.0.0.1:",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:+80",
        "http://127.0.0.1:80/path",
        "http://127.0.0.2:80",
        "http://localhost.evil.example",
        "ftp://127.0.0.1",
    ] {
        check(address, false, false);
    }
    check(&format!("{}1password.com", "a.".repeat(200)), false, false);
}

#[test]
fn what_is_no_token_is_refused_and_not_repeated() {
    let check = |token: &str, expected: &str| {
        let error = read(token, Hosts::OrLoopback).err().expect("this must fail");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected), "{shown}");
        assert!(!shown.contains("SECRETPART"), "{shown}");
    };
    let of = |json: &str| format!("ops_{}", BASE64URL_NOPAD.encode(json.as_bytes()));
    check(" \n", "is empty");
    check("SECRETPART", "does not start with `ops_`");
    check("OPS_SECRETPART", "does not start with `ops_`");
    check("ops_SECRETPART=", "is cut off or has characters of no token");
    check("ops_", "does not hold what tokens hold");
    check("ops_SECRETPARTSECRETPART", "does not hold");
    check(&of("{\"SECRETPART\":"), "does not hold");
    check(&of("[\"SECRETPART\"]"), "does not say where");
    check(&of("{\"SECRETPART\":1}"), "does not say where");
    check(&of("{\"signInAddress\":1}"), "does not say where");
    check(
        &of("{\"signInAddress\":\"1password.com\",\"signInAddress\":\"SECRETPART\"}"),
        "does not say where",
    );
    check(&of("{\"signInAddress\":\"SECRETPART\"}"), "no host of 1password.com");
    check(&format!("ops_{}", "SECRETPART".repeat(2_000)), "is too long");
}

/// A token of this machine, in the environment, in files and as a credential.
#[test]
fn where_a_token_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, format!("{}\n", fake_token("my.1password.com"))).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let check = |variables: &[(&str, &Path)], expected: Option<&str>| {
        let variables: HashMap<_, _> =
            variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        let found = TokenSource::find(&|name| variables.get(name).cloned(), TokenNames::default());
        let outcome = found.and_then(|source| source.read(Hosts::Official)).map(drop);
        match (outcome, expected) {
            (Ok(()), None) => {}
            (Ok(()), Some(expected)) => panic!("{variables:?} must fail: {expected}"),
            (Err(error), expected) => {
                let expected = expected.unwrap_or_else(|| panic!("{variables:?}: {error}"));
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
    };
    let (variable, file) = ("OP_SERVICE_ACCOUNT_TOKEN", "OP_SERVICE_ACCOUNT_TOKEN_FILE");
    let token = fake_token("my.1password.com");
    let token = Path::new(&token);
    check(&[(variable, token)], None);
    check(&[(file, &write("closed", 0o600))], None);
    check(&[(file, &write("read-only", 0o400))], None);
    for mode in [0o640, 0o604, 0o660, 0o620, 0o610, 0o644] {
        check(&[(file, &write(&format!("{mode:o}"), mode))], Some("is open to others"));
    }
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(write("behind", 0o644), &link).unwrap();
    check(&[(file, &link)], Some("is open to others"));
    check(&[(file, Path::new("/nowhere/at/all"))], Some("cannot read"));
    check(&[(file, directory.path())], Some("cannot read"));
    check(&[(variable, token), (file, &link)], Some("both `OP_SERVICE_ACCOUNT_TOKEN` and"));
    check(&[], Some("no service account token: set `OP_SERVICE_ACCOUNT_TOKEN_FILE`"));
    check(&[(variable, Path::new(""))], Some("no service account token"));
    check(&[("CREDENTIALS_DIRECTORY", directory.path())], Some("`onepassword-token`"));
    write("onepassword-token", 0o440);
    check(&[("CREDENTIALS_DIRECTORY", directory.path())], None);
    for variable in ["OP_SERVICE_ACCOUNT_TOKEN", "OP_SERVICE_ACCOUNT_TOKEN_FILE"] {
        let both = [(variable, directory.path()), ("CREDENTIALS_DIRECTORY", directory.path())];
        check(&both, Some("are there: keep one of them"));
    }
    write("onepassword-token", 0o444);
    check(&[("CREDENTIALS_DIRECTORY", directory.path())], Some("is open to others"));
}

#[test]
fn another_account_has_other_names() {
    let environment = |name: &str| (name == "SECOND_TOKEN").then(|| fake_token("my.1password.com").into());
    let names = TokenNames { variable: "SECOND_TOKEN", credential: "second" };
    assert!(TokenSource::find(&environment, names).is_ok_and(|source| source.read(Hosts::Official).is_ok()));
    assert!(matches!(
        TokenSource::find(&environment, TokenNames::default()),
        Err(TokenError::Missing { variable, .. }) if variable == "OP_SERVICE_ACCOUNT_TOKEN"
    ));
}

/// A pipe would hold the start up for ever.
#[test]
fn a_pipe_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(TokenSource::file(path).read(Hosts::Official), Err(TokenError::Read { .. })));
}

#[test]
fn no_piece_of_a_token_stays_in_a_text() {
    let token = "ops_abcdefghijklmnopqrstuvwxyz0123456789";
    let check = |text: &str, clean: &str| {
        assert_eq!(*crate::token::masked(text, token.as_bytes()), clean, "{text}");
    };
    check("nothing of it", "nothing of it");
    check(&format!("bad token {token}, sorry"), "bad token …, sorry");
    check("bad token ops_abcdefgh…", "bad token ……");
    check("ends in yz0123456789", "ends in …");
    check("abcdefghijkl is twelve", "… is twelve");
    check("abcdefghijk is eleven", "abcdefghijk is eleven");
    check("é abcdefghijklmn é 0123456789 uvwxyz012345", "é … é 0123456789 …");
    check("", "");
}
