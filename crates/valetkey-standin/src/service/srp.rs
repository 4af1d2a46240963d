//! The server's side of the sign-in: SRP-6a in the group of 4096 bits, with SHA-256.
//!
//! What is hashed, and in which form, is as in `1Password/srp` (Apache-2.0); how the parties' names go into
//! the proof, and that the key is the digest of a number's hexadecimal text, as in
//! `detunized/password-manager-access` (MIT).

use anyhow::{Context as _, Result, ensure};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use num_bigint::BigUint;
use sha2::{Digest as _, Sha256};

use super::account::{EMAIL, SALT, SECRET_KEY_ID, srp_x};
use super::seal::{Key, random};

/// What both sides know once they have exchanged their public numbers.
pub(super) struct Exchange {
    client_public: BigUint,
    server_public: BigUint,
    key: Key,
}

impl Exchange {
    /// Answers the client's public number, `userA`, which is hexadecimal.
    pub(super) fn answer(user_a: &str) -> Result<Self> {
        let prime = prime()?;
        let generator = BigUint::from(GENERATOR);
        let client_public = BigUint::parse_bytes(user_a.as_bytes(), 16).context("userA is no number")?;
        ensure!(&client_public % &prime != BigUint::ZERO, "userA is a multiple of the prime");
        let secret = BigUint::from_bytes_be(&random::<32>()?);
        let verifier = generator.modpow(&BigUint::from_bytes_be(&srp_x()), &prime);
        let multiplier = number(&[&prime.to_bytes_be(), &padded(&generator)]);
        let server_public = (multiplier * &verifier + generator.modpow(&secret, &prime)) % &prime;
        let scrambler = number(&[&padded(&client_public), &padded(&server_public)]);
        let shared = (&client_public * verifier.modpow(&scrambler, &prime) % &prime).modpow(&secret, &prime);
        let key = digest(&[shared.to_str_radix(16).as_bytes()]);
        Ok(Self { client_public, server_public, key })
    }

    /// The server's public number, `userB`. The core reads an even number of digits only.
    pub(super) fn user_b(&self) -> String {
        HEXLOWER.encode(&self.server_public.to_bytes_be())
    }

    /// The key of the session and the server's proof, if the client's is right.
    pub(super) fn confirm(&self, client_verify_hash: &str) -> Result<(Key, String)> {
        let proof = proof(&self.client_public, &self.server_public, &self.key)?;
        ensure!(client_verify_hash == BASE64URL_NOPAD.encode(&proof), "the client has another key");
        let server_proof = digest(&[&self.client_public.to_bytes_be(), &proof, &self.key]);
        Ok((self.key, BASE64URL_NOPAD.encode(&server_proof)))
    }
}

/// That the key is known, of the session whose public numbers these are.
fn proof(client_public: &BigUint, server_public: &BigUint, key: &Key) -> Result<[u8; 32]> {
    let prime = digest(&[&prime()?.to_bytes_be()]);
    let group: Vec<_> =
        prime.iter().zip(digest(&[&[GENERATOR]])).map(|(prime, other)| prime ^ other).collect();
    let identity = digest(&[&digest(&[SECRET_KEY_ID.as_bytes()]), &digest(&[EMAIL.as_bytes()])]);
    Ok(digest(&[
        &group,
        &digest(&[BASE64URL_NOPAD.encode(&identity).as_bytes()]),
        &SALT,
        &client_public.to_bytes_be(),
        &server_public.to_bytes_be(),
        key,
    ]))
}

fn prime() -> Result<BigUint> {
    BigUint::parse_bytes(PRIME.as_bytes(), 16).context("the prime")
}

fn number(parts: &[&[u8]]) -> BigUint {
    BigUint::from_bytes_be(&digest(parts))
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// At the length of the prime, with leading zeros.
fn padded(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let mut padded = vec![0; (PRIME.len() / 2).saturating_sub(bytes.len())];
    padded.extend(bytes);
    padded
}

const GENERATOR: u8 = 5;

/// RFC 3526, group 16.
const PRIME: &str = "\
FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The client's side.
    pub(in super::super) struct Client {
        secret: BigUint,
        public: BigUint,
    }

    impl Client {
        pub(in super::super) fn new() -> Self {
            let secret = BigUint::from_bytes_be(&random::<32>().unwrap());
            let public = BigUint::from(GENERATOR).modpow(&secret, &prime().unwrap());
            Self { secret, public }
        }

        pub(in super::super) fn user_a(&self) -> String {
            self.public.to_str_radix(16)
        }

        /// The key, and the proof that it is known.
        pub(in super::super) fn prove(&self, srp_x: &[u8], user_b: &str) -> (Key, String) {
            let (prime, generator) = (prime().unwrap(), BigUint::from(GENERATOR));
            let server_public = BigUint::parse_bytes(user_b.as_bytes(), 16).unwrap();
            let exponent = BigUint::from_bytes_be(srp_x);
            let multiplier = number(&[&prime.to_bytes_be(), &padded(&generator)]);
            let scrambler = number(&[&padded(&self.public), &padded(&server_public)]);
            let masked = multiplier * generator.modpow(&exponent, &prime) % &prime;
            let base = (&server_public + &prime - masked) % &prime;
            let shared = base.modpow(&(&self.secret + scrambler * exponent), &prime);
            let key = digest(&[shared.to_str_radix(16).as_bytes()]);
            let proof = proof(&self.public, &server_public, &key).unwrap();
            (key, BASE64URL_NOPAD.encode(&proof))
        }
    }
}
