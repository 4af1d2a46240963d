//! The one account of the stand-in: its token, its keys, its vaults' keys. All of it is made up and public.

use anyhow::Result;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::seal::{Key, seal, seal_for};

pub(super) const EMAIL: &str = "standin@1passwordserviceaccounts.com";
pub(super) const SECRET_KEY_ID: &str = "STAND2";
pub(super) const SALT: [u8; 16] = *b"a salt for tests";
pub(super) const USER: &str = "STANDINUSERXXXXXXXXXXXXXXX";

/// The exponent that signs in. In life it is derived from a password; a token has it ready.
pub(super) fn srp_x() -> Key {
    key("srp x", "")
}

/// A token that leads to `address`.
pub(super) fn token(address: &str) -> String {
    let token = json!({
        "signInAddress": address,
        "userAuth": user_auth(),
        "email": EMAIL,
        "srpX": HEXLOWER.encode(&srp_x()),
        "muk": jwk(&unlock_key(), UNLOCK_KEY_ID),
        "secretKey": format!("A3-{SECRET_KEY_ID}-STANDS-STAND-STAND-STAND-STAND"),
        // A key of zeros makes the core panic.
        "throttleSecret": { "seed": HEXLOWER.encode(&key("throttle", "")), "uuid": USER },
        "deviceUuid": "standindevicexxxxxxxxxxxxx",
    });
    format!("ops_{}", BASE64URL_NOPAD.encode(token.to_string().as_bytes()))
}

/// How the exponent is said to have been derived. The core checks that the numbers are serious.
pub(super) fn user_auth() -> Value {
    json!({
        "method": "SRPg-4096",
        "alg": DERIVATION,
        "iterations": ITERATIONS,
        "salt": BASE64URL_NOPAD.encode(&SALT),
    })
}

/// The key sets: the unlock key opens a symmetric key, that opens the private key, which opens vaults' keys.
pub(super) fn keysets() -> Result<Value> {
    let symmetric = key("symmetric", "");
    let mut sealed_symmetric = seal(&unlock_key(), UNLOCK_KEY_ID, &jwk(&symmetric, KEYSET_ID))?;
    if let Some(fields) = sealed_symmetric.as_object_mut() {
        fields.insert("alg".into(), DERIVATION.into());
        fields.insert("p2c".into(), ITERATIONS.into());
        fields.insert("p2s".into(), BASE64URL_NOPAD.encode(&SALT).into());
    }
    let private = private_key()?;
    Ok(json!({
        "version": 1,
        "keysets": [{
            "uuid": KEYSET_ID,
            "encryptedBy": UNLOCK_KEY_ID,
            "sn": 1,
            "encSymKey": sealed_symmetric,
            "encPriKey": seal(&symmetric, KEYSET_ID, &private)?,
            "pubKey": {
                "kty": "RSA",
                "alg": "RSA-OAEP",
                "ext": true,
                "key_ops": ["encrypt"],
                "kid": KEYSET_ID,
                "n": private.get("n"),
                "e": private.get("e"),
            },
            "encSPriKey": null,
            "spubKey": null,
        }],
    }))
}

/// A vault's key, sealed for the account.
pub(super) fn sealed_vault_key(vault_id: &str) -> Result<Value> {
    seal_for(&private_key()?, KEYSET_ID, &jwk(&vault_key(vault_id), vault_id))
}

pub(super) fn vault_key(vault_id: &str) -> Key {
    key("vault", vault_id)
}

/// A symmetric key that is the same in every run: nothing here is worth a better one.
pub(super) fn key(purpose: &str, of: &str) -> Key {
    Sha256::new().chain_update(purpose).chain_update([0]).chain_update(of).finalize().into()
}

/// A symmetric key as a JWK.
pub(super) fn jwk(key: &Key, id: &str) -> Value {
    json!({
        "kty": "oct",
        "alg": "A256GCM",
        "ext": true,
        "key_ops": ["encrypt", "decrypt"],
        "kid": id,
        "k": BASE64URL_NOPAD.encode(key),
    })
}

fn unlock_key() -> Key {
    key("unlock", "")
}

/// A key made for this file, as a JWK: making one takes too long for a test.
fn private_key() -> Result<Value> {
    let mut key: Value = serde_json::from_str(include_str!("key.json"))?;
    if let Some(fields) = key.as_object_mut() {
        fields.insert("kid".into(), KEYSET_ID.into());
    }
    Ok(key)
}

pub(super) const KEYSET_ID: &str = "standinkeysetxxxxxxxxxxxxx";

const UNLOCK_KEY_ID: &str = "mp";
const DERIVATION: &str = "PBES2g-HS256";
const ITERATIONS: u32 = 650_000;
