//! The source against the genuine core, against a core of ours that misbehaves, and against files.

mod core;
mod genuine;
mod item;
mod library;
mod service;
mod token;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// The genuine library, or a line that says that `test` is skipped.
fn genuine(test: &str) -> Option<PathBuf> {
    valetkey_standin::sdk_library().map_err(|why| valetkey_standin::skip(test, &why)).ok()
}

/// A library that is made for one test, with its hash.
struct Stub {
    path: PathBuf,
    sha256: String,
    directory: TempDir,
}

/// A core of ours, compiled with `flags`; or a line that says that `test` is skipped.
fn stub(test: &str, flags: &[&str]) -> Option<Stub> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libstub.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sdk/tests/stub_core.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-pthread"]).args(flags).arg("-o").arg(&path).arg(source);
    compiler.arg(format!("-DTEST=\"{test}\""));
    match compiler.status() {
        Ok(status) => assert!(status.success(), "the stub does not compile"),
        Err(error) => {
            valetkey_standin::skip(test, &format!("no C compiler: {error}"));
            return None;
        }
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let sha256 = sha256_of(&path);
    Some(Stub { path, sha256, directory })
}

fn sha256_of(path: &Path) -> String {
    HEXLOWER.encode(&Sha256::digest(fs::read(path).unwrap()))
}

/// A token in the form of a service account's, that signs in at `address`. Nothing in it is anybody's.
fn fake_token(address: &str) -> String {
    token_of(&fake_token_json(address))
}

fn token_of(json: &serde_json::Value) -> String {
    format!("ops_{}", BASE64URL_NOPAD.encode(json.to_string().as_bytes()))
}

fn fake_token_json(address: &str) -> serde_json::Value {
    serde_json::json!({
        "signInAddress": address,
        "userAuth": {
            "method": "SRPg-4096", "alg": "PBES2g-HS256", "iterations": 650_000,
            "salt": BASE64URL_NOPAD.encode(&[0; 16]),
        },
        "email": "test@1passwordserviceaccounts.com",
        "srpX": "1".repeat(64),
        "muk": {
            "alg": "A256GCM", "ext": true, "k": BASE64URL_NOPAD.encode(&[0; 32]),
            "key_ops": ["encrypt", "decrypt"], "kty": "oct", "kid": "mp",
        },
        "secretKey": "A3-ABCDEF-GHJKLM-NPQRS-TVWXY-Z2345-67899",
        "deviceUuid": "a".repeat(26),
    })
}

fn here(token: &str) -> TokenSource {
    let environment = |name: &str| (name == "OP_SERVICE_ACCOUNT_TOKEN").then(|| token.into());
    TokenSource::find(&environment, crate::TokenNames::default()).unwrap()
}

/// A source that signs in on this machine.
fn source(library: PathBuf, pin: Option<String>, address: &str, timeout: Duration) -> SdkSource {
    open(library, pin, &fake_token(address), timeout)
}

fn open(library: PathBuf, pin: Option<String>, token: &str, timeout: Duration) -> SdkSource {
    let token = here(token);
    SdkSource::open(SdkOptions { library, pin, token, timeout, allow_loopback: true }).unwrap()
}

/// The failure of what must not succeed, without asking that its success can be printed.
fn error_of<T, E>(outcome: Result<T, E>) -> E {
    outcome.err().expect("this must fail")
}
