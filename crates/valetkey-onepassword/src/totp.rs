//! One-time passwords: RFC 6238 codes from an `otpauth` URI, or from a bare base32 secret.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use valetkey_core::{ResolveError, SecretValue, Timestamp};
use zeroize::{Zeroize, Zeroizing};

/// The code of `seed` at the time `now`.
///
/// # Errors
/// [`ResolveError::UnableToGenerateTotpCode`] for a seed of any other form.
pub(crate) fn code(seed: &str, now: Timestamp) -> Result<SecretValue, ResolveError> {
    let code = Seed::parse(seed).and_then(|seed| seed.code(now));
    code.map(SecretValue::new).ok_or(ResolveError::UnableToGenerateTotpCode)
}

struct Seed {
    key: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: usize,
    /// How long a code lasts, in seconds.
    period: u64,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Seed {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(uri) = text.strip_prefix("otpauth://") else {
            return Some(Self { key: base32(text)?, algorithm: Algorithm::Sha1, digits: 6, period: 30 });
        };
        let (_label, query) = uri.strip_prefix("totp/")?.split_once('?')?;
        let value = |key: &str| unique(query, key);
        // Such as Steam's, which writes codes in letters: digits would be a wrong code.
        if value("encoder")?.is_some() {
            return None;
        }
        let algorithm = match value("algorithm")?.map(str::to_ascii_uppercase).as_deref() {
            None | Some("SHA1") => Algorithm::Sha1,
            Some("SHA256") => Algorithm::Sha256,
            Some("SHA512") => Algorithm::Sha512,
            Some(_) => return None,
        };
        let digits = value("digits")?.map_or(Some(6), |digits| digits.parse().ok())?;
        let period = value("period")?.map_or(Some(30), |period| period.parse().ok())?;
        let in_bounds = (6..=8).contains(&digits) && (1..=PERIOD_MAX).contains(&period);
        in_bounds.then_some(Self {
            key: base32(&percent_decoded(value("secret")??)?)?,
            algorithm,
            digits,
            period,
        })
    }

    fn code(&self, now: Timestamp) -> Option<Vec<u8>> {
        let seconds = u64::try_from(now.as_micros()).ok()? / 1_000_000;
        let counter = (seconds / self.period).to_be_bytes();
        let tag = match self.algorithm {
            Algorithm::Sha1 => tag::<Hmac<Sha1>>(&self.key, &counter),
            Algorithm::Sha256 => tag::<Hmac<Sha256>>(&self.key, &counter),
            Algorithm::Sha512 => tag::<Hmac<Sha512>>(&self.key, &counter),
        }?;
        // RFC 4226, section 5.3: four bytes from where the last half byte says, without the sign bit.
        let offset = usize::from(tag.last()? & 0x0f);
        let number = u32::from_be_bytes(*tag.get(offset..)?.first_chunk()?) & 0x7fff_ffff;
        let digits = self.digits;
        Some(format!("{:0digits$}", number % 10_u32.checked_pow(digits.try_into().ok()?)?).into_bytes())
    }
}

fn tag<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    mac.update(message);
    let mut output = mac.finalize().into_bytes();
    let tag = Zeroizing::new(output.to_vec());
    output.as_mut_slice().zeroize();
    Some(tag)
}

/// The value of `key`, where the query has it once; the outer `None` where it has it more often.
fn unique<'a>(query: &'a str, key: &str) -> Option<Option<&'a str>> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|pair| pair.0 == key);
    let first = values.next().map(|pair| pair.1);
    values.next().is_none().then_some(first)
}

fn percent_decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut decoded = Zeroizing::new(String::with_capacity(text.len()));
    let mut pieces = text.split('%');
    decoded.push_str(pieces.next()?);
    for piece in pieces {
        decoded.push(char::from(u8::from_str_radix(piece.get(..2)?, 16).ok()?));
        decoded.push_str(piece.get(2..)?);
    }
    Some(decoded)
}

/// Decodes base32 as people keep it: any case, in groups, padded or not. Left-over bits are dropped, as
/// authenticator apps do, so the strict decoders of a library will not do.
fn base32(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // Full size from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut buffer, mut bits) = (0_u16, 0_u32);
    for c in text.trim_end_matches('=').bytes().filter(|c| !b" -".contains(c)) {
        let value = match c.to_ascii_uppercase() {
            c @ b'A'..=b'Z' => c - b'A',
            c @ b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        buffer = (buffer << 5) | u16::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// A day; nobody means more.
const PERIOD_MAX: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE32;
    use proptest::prelude::*;

    fn at(seed: &str, seconds: i64) -> Result<String, ResolveError> {
        let value = code(seed, Timestamp::from_micros(seconds * 1_000_000))?;
        Ok(String::from_utf8(value.expose_secret().into()).unwrap())
    }

    /// RFC 6238, appendix B.
    #[test]
    fn the_vectors_of_the_rfc() {
        let digits = b"1234567890";
        let secret =
            |length: usize| BASE32.encode(&digits.iter().copied().cycle().take(length).collect::<Vec<_>>());
        let vectors = [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ];
        for (seconds, sha1, sha256, sha512) in vectors {
            for (algorithm, length, code) in
                [("SHA1", 20, sha1), ("SHA256", 32, sha256), ("SHA512", 64, sha512)]
            {
                let uri =
                    format!("otpauth://totp/a:b?secret={}&algorithm={algorithm}&digits=8", secret(length));
                assert_eq!(at(&uri, seconds).as_deref(), Ok(code), "{algorithm} at {seconds}");
            }
        }
    }

    #[test]
    fn forms_of_a_seed() {
        let check = |seed: &str| assert_eq!(at(seed, 59).as_deref(), Ok("287082"), "{seed}");
        check("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        check("gezd gnbv gy3t qojq gezd gnbv gy3t qojq");
        check(" GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ==\n");
        check("otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        check(
            "otpauth://totp/x%3Ay?issuer=x&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ%3d%3D&period=30&algorithm=sha1",
        );
        assert_eq!(
            at("otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&period=60", 119).as_deref(),
            Ok("287082")
        );
    }

    #[test]
    fn malformed_seeds() {
        let query = |query: &str| format!("otpauth://totp/x?{query}");
        let secret = "secret=GEZDGNBVGY3TQOJQ";
        for bad in [
            String::new(),
            "=".into(),
            "GEZD1".into(),
            "ÄÄÄÄ".into(),
            "otpauth://hotp/x?secret=GEZDGNBVGY3TQOJQ&counter=1".into(),
            "otpauth://totp/x".into(),
            query(""),
            query("secret="),
            query("secret=%"),
            query("secret=%ff"),
            query(&format!("{secret}&{secret}")),
            query(&format!("{secret}&digits=5")),
            query(&format!("{secret}&digits=9")),
            query(&format!("{secret}&digits=x")),
            query(&format!("{secret}&period=0")),
            query(&format!("{secret}&period=86401")),
            query(&format!("{secret}&algorithm=MD5")),
            query(&format!("{secret}&encoder=steam")),
            query(&format!("encoder=Steam&{secret}")),
        ] {
            assert_eq!(at(&bad, 59), Err(ResolveError::UnableToGenerateTotpCode), "{bad}");
        }
        assert_eq!(at("GEZDGNBVGY3TQOJQ", -1), Err(ResolveError::UnableToGenerateTotpCode));
    }

    proptest! {
        #[test]
        fn base32_decodes_what_a_library_encodes(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
            let decoded = base32(&BASE32.encode(&bytes)).unwrap();
            prop_assert_eq!(&*decoded, &bytes);
        }

        #[test]
        fn any_text_gives_six_digits_or_an_error(text in ".{0,60}", seconds in 0..i64::from(u32::MAX)) {
            if let Ok(code) = at(&text, seconds) {
                prop_assert!(code.len() == 6 && code.bytes().all(|c| c.is_ascii_digit()));
            }
        }
    }
}
