//! How bodies, keys and items are sealed: AES-256-GCM and RSA-OAEP in JSON, the shape of a JWE.
//!
//! The RSA here is the textbook's, over plain big numbers: it seals test data under a published test key, and
//! would be wrong for anything else.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use anyhow::{Context as _, Result, anyhow, ensure};
use data_encoding::BASE64URL_NOPAD;
use num_bigint::BigUint;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use crate::world::text;

pub(super) type Key = [u8; 32];

/// Seals a JSON value under a symmetric key.
pub(super) fn seal(key: &Key, key_id: &str, plain: &Value) -> Result<Value> {
    let nonce = random::<12>()?;
    Ok(json!({
        "cty": CONTENT_TYPE,
        "enc": "A256GCM",
        "kid": key_id,
        "iv": BASE64URL_NOPAD.encode(&nonce),
        "data": BASE64URL_NOPAD.encode(&seal_bytes(key, &nonce, plain.to_string().as_bytes())?),
    }))
}

/// The bytes alone.
pub(super) fn seal_bytes(key: &Key, nonce: &[u8; 12], plain: &[u8]) -> Result<Vec<u8>> {
    Aes256Gcm::new(key.into()).encrypt(&Nonce::from(*nonce), plain).map_err(|_| anyhow!("cannot seal"))
}

/// Opens what [`seal`] has sealed.
pub(super) fn open(key: &Key, sealed: &Value) -> Result<Value> {
    let bytes = |pointer| BASE64URL_NOPAD.decode(text(sealed, pointer).as_bytes());
    let nonce: [u8; 12] = bytes("/iv")?.try_into().map_err(|_| anyhow!("the iv is not of 12 bytes"))?;
    let plain = Aes256Gcm::new(key.into())
        .decrypt(&Nonce::from(nonce), bytes("/data")?.as_slice())
        .map_err(|_| anyhow!("cannot open"))?;
    Ok(serde_json::from_slice(&plain)?)
}

/// Seals a JSON value for the owner of a private key, given as a JWK.
pub(super) fn seal_for(public: &Value, key_id: &str, plain: &Value) -> Result<Value> {
    let number = |pointer| {
        BASE64URL_NOPAD.decode(text(public, pointer).as_bytes()).map(|bytes| BigUint::from_bytes_be(&bytes))
    };
    let (modulus, exponent) = (number("/n")?, number("/e")?);
    let padded = oaep(plain.to_string().as_bytes(), modulus.to_bytes_be().len())?;
    let sealed = BigUint::from_bytes_be(&padded).modpow(&exponent, &modulus).to_bytes_be();
    let mut data = vec![0; padded.len().saturating_sub(sealed.len())];
    data.extend(sealed);
    Ok(json!({
        "cty": CONTENT_TYPE,
        "enc": "RSA-OAEP",
        "kid": key_id,
        "data": BASE64URL_NOPAD.encode(&data),
    }))
}

/// RFC 8017, 7.1.1, step 2, with SHA-1 and no label.
fn oaep(plain: &[u8], len: usize) -> Result<Vec<u8>> {
    let block_len = len.checked_sub(SHA1_LEN + 1).context("the modulus is too short")?;
    let filling = block_len.checked_sub(SHA1_LEN + 1 + plain.len()).context("too much for the modulus")?;
    let mut block = Sha1::digest([]).to_vec();
    block.resize(block.len() + filling, 0);
    block.push(1);
    block.extend(plain);
    let mut seed = random::<SHA1_LEN>()?.to_vec();
    mask(&mut block, &seed);
    mask(&mut seed, &block);
    let padded = [vec![0], seed, block].concat();
    ensure!(padded.len() == len, "the padding has the wrong length");
    Ok(padded)
}

/// RFC 8017, B.2.1, laid over `target`.
fn mask(target: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0_u32..).zip(target.chunks_mut(SHA1_LEN)) {
        let digest = Sha1::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
        for (byte, mask) in chunk.iter_mut().zip(digest) {
            *byte ^= mask;
        }
    }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

const CONTENT_TYPE: &str = "b5+jwk+json";

const SHA1_LEN: usize = 20;
