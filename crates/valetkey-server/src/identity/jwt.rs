//! Signed tokens (JWT) of issuers that the configuration names: Kubernetes, CI, a company's identity provider.
//!
//! Not here: which of them a request brings (`bearers.rs`).
//!
//! Invariants:
//! - Nothing of a token counts before its signature does, but for the choice of whose keys to try.
//! - The algorithm is one that the configuration allows, and of the type of the key; none is symmetric.
//! - No request waits for an issuer without a bound, and none has an issuer asked more than once in 30 s.

mod algorithm;
mod fetch;
mod keyring;
mod keys;
mod replay;
mod rule;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE32_DNSSEC;
use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use valetkey_core::{Behalf, Clock, Credential, Identity, Reason};

pub use self::algorithm::Algorithm;
pub(crate) use self::algorithm::PublicKey;
pub use self::fetch::ClientError;
pub use self::rule::Rule;
pub(crate) use self::rule::{Pattern, Piece};

use self::fetch::Source;
use self::keyring::Keyring;
use self::replay::Replays;
pub(crate) use self::token::Token;
use super::bearers::{Shown, Unshown};
use super::known::IdentityKind;

/// An issuer, as the configuration has it.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What stands in `iss`, letter by letter.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// What must stand in `aud`.
    pub audience: String,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Whom its tokens are of; the first that fits.
    pub rules: Vec<Rule>,
    /// The claims that policies see.
    pub claims: Vec<String>,
    /// Whether each token counts once.
    pub single_use: bool,
    /// Whether its tokens say on whose behalf, and never who calls.
    pub on_behalf_of: bool,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// At a URL; the file has the authorities that may vouch for the server, in place of the system's.
    Url(Url, Option<PathBuf>),
    /// In a file.
    File(PathBuf),
}

/// What a token is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To say who calls.
    Caller,
    /// To say on whose behalf.
    Behalf,
}

/// The issuers, and what is known of them.
pub(crate) struct Issuers {
    issuers: Vec<(Issuer, Arc<Keyring>)>,
    replays: Replays,
    clock: Arc<dyn Clock>,
}

impl Issuers {
    /// These issuers; none is asked yet.
    ///
    /// # Errors
    /// [`ClientError`] where one could never be.
    pub(crate) fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let with_keys = |issuer: Issuer| -> Result<_, ClientError> {
            let source = match &issuer.keys {
                KeySource::Url(url, ca_file) => Source::url(url.clone(), ca_file.as_deref())?,
                KeySource::File(path) => Source::File(path.clone()),
            };
            let ring = Keyring::new(issuer.issuer.clone(), source, Arc::clone(&clock));
            Ok((issuer, ring))
        };
        let issuers = issuers.into_iter().map(with_keys).collect::<Result<_, _>>()?;
        Ok(Self { issuers, replays: Replays::default(), clock })
    }

    /// Whether the keys that come from files can be read. No server is asked.
    ///
    /// # Errors
    /// A sentence about the first that cannot.
    pub(crate) async fn check_files(&self) -> Result<(), String> {
        for (issuer, ring) in &self.issuers {
            if let KeySource::File(path) = &issuer.keys {
                let wrong = |error| format!("the `jwks_file` `{}` cannot be used: {error}", path.display());
                ring.check().await.map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Keeps their keys fresh, for as long as the tasks run.
    pub(crate) fn keep(&self, tasks: &mut JoinSet<()>) {
        for (_, ring) in &self.issuers {
            tasks.spawn(Arc::clone(ring).keep());
        }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`Unshown`]. Whoever sent it is not told.
    pub(crate) async fn verify(&self, text: &str, shown_for: Use) -> Result<Shown, Unshown> {
        let token = Token::parse(text)?;
        let id = id_of(text);
        let unshown = |reason, signed| Unshown {
            reason,
            credential: Some(id.as_str().into()),
            said: Some(token.said(signed)),
        };
        let issuer =
            self.check_signature(&token, shown_for).await.map_err(|reason| unshown(reason, false))?;
        self.take(&token, issuer, &id).map_err(|reason| unshown(reason, true))
    }

    /// The entry whose issuer has signed the token.
    async fn check_signature(&self, token: &Token<'_>, shown_for: Use) -> Result<&Issuer, Reason> {
        let (issuer, ring) = self.issuer_of(token, shown_for)?;
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(Reason::JwtAlgorithm);
        }
        ring.keys_for(token.key_id.as_deref()).await?.verify(token)?;
        Ok(issuer)
    }

    /// Whom it shows. Its claims are the issuer's.
    fn take(&self, token: &Token<'_>, issuer: &Issuer, credential: &str) -> Result<Shown, Reason> {
        let left = self.check_times(token)?;
        let identity =
            issuer.rules.iter().find_map(|rule| rule.identity(&token.claims)).ok_or(Reason::JwtNoRule)?;
        let now = self.clock.monotonic();
        if issuer.single_use {
            let id = token.text("jti").ok_or(Reason::JwtReplayed)?;
            if !self.replays.is_first(&issuer.issuer, id, now, now + left) {
                return Err(Reason::JwtReplayed);
            }
        }
        Ok(Shown {
            identity,
            credential: Credential::new(credential.to_owned(), Some(now + left)),
            claims: rule::claims_for_policy(&token.claims, &issuer.claims).into(),
        })
    }

    /// The one entry that the token is meant for.
    fn issuer_of(&self, token: &Token<'_>, shown_for: Use) -> Result<&(Issuer, Arc<Keyring>), Reason> {
        let name = token.text("iss").ok_or(Reason::JwtIssuer)?;
        let mut of_issuer = self.issuers.iter().filter(|(issuer, _)| issuer.issuer == name).peekable();
        if of_issuer.peek().is_none() {
            return Err(Reason::JwtIssuer);
        }
        // A token for two entries would let its bearer choose what it says: who calls, or on whose behalf.
        let mut meant = of_issuer.filter(|(issuer, _)| token.is_for(&issuer.audience));
        let for_behalf = shown_for == Use::Behalf;
        match (meant.next(), meant.next()) {
            (Some(entry), None) if entry.0.on_behalf_of == for_behalf => Ok(entry),
            _ => Err(Reason::JwtAudience),
        }
    }

    /// How long the token still counts.
    fn check_times(&self, token: &Token<'_>) -> Result<Duration, Reason> {
        let now = self.clock.now().as_micros().div_euclid(1_000_000);
        let expires = token.moment("exp")?.ok_or(Reason::JwtLifeTooLong)?;
        let issued = token.moment("iat")?;
        for begin in [issued, token.moment("nbf")?].into_iter().flatten() {
            if begin > now.saturating_add(LEEWAY) {
                return Err(Reason::JwtNotYetValid);
            }
        }
        let left = expires.saturating_add(LEEWAY).saturating_sub(now);
        let left = u64::try_from(left).ok().filter(|left| *left > 0).ok_or(Reason::JwtExpired)?;
        if expires.saturating_sub(issued.unwrap_or(now)) > LIFE_MAX {
            return Err(Reason::JwtLifeTooLong);
        }
        Ok(Duration::from_secs(left))
    }
}

impl Issuer {
    /// Whether every rule of it makes a person.
    pub(crate) fn has_people_alone(&self) -> bool {
        self.rules.iter().all(|rule| rule.kind == IdentityKind::Person)
    }
}

/// What records call a token: `jwt_` and the beginning of its SHA-256. Nobody gets from there to the token.
fn id_of(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text).into();
    let begin = hash.first_chunk::<10>().map_or(&[][..], |begin| begin.as_slice());
    format!("jwt_{}", BASE32_DNSSEC.encode(begin))
}

/// The person who is shown; an agent acts for nobody else.
///
/// # Errors
/// [`Unshown`] with [`Reason::BehalfInvalid`].
pub(crate) fn person(shown: Shown) -> Result<Behalf, Unshown> {
    let Shown { identity, credential, claims: _ } = shown;
    match identity {
        Identity::Person(person) => Ok(Behalf { person, credential }),
        Identity::Agent(_) | Identity::Tool(_) => Err(Unshown {
            reason: Reason::BehalfInvalid,
            credential: Some(Arc::clone(credential.id())),
            said: Some(format!("its token is that of {identity}")),
        }),
    }
}

/// How far the clocks of an issuer and the broker may be apart, in seconds.
const LEEWAY: i64 = 30;
/// The longest life of a token, in seconds.
const LIFE_MAX: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;

    use super::*;
    use valetkey_core::testing::FakeClock;

    #[test]
    fn a_token_is_for_one_entry_or_for_none() {
        let entry = |audience: &str, on_behalf_of| Issuer {
            issuer: "https://idp".to_owned(),
            keys: KeySource::File("keys.json".into()),
            audience: audience.to_owned(),
            algorithms: Vec::new(),
            rules: Vec::new(),
            claims: Vec::new(),
            single_use: false,
            on_behalf_of,
        };
        let entries = vec![entry("agents", false), entry("people", true)];
        let issuers = Issuers::new(entries, Arc::new(FakeClock::default())).ok().unwrap();
        let check = |audience: &str, shown_for, expected: Result<&str, Reason>| {
            let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
            let claims = format!(r#"{{"iss":"https://idp","aud":{audience}}}"#);
            let text = format!("{}.{}.c2ln", encode(r#"{"alg":"ES256"}"#), encode(&claims));
            let token = Token::parse(&text).ok().unwrap();
            let found = issuers.issuer_of(&token, shown_for).map(|(issuer, _)| issuer.audience.as_str());
            assert_eq!(found, expected, "{audience} {shown_for:?}");
        };
        check(r#""agents""#, Use::Caller, Ok("agents"));
        check(r#"["people","another"]"#, Use::Behalf, Ok("people"));
        check(r#""people""#, Use::Caller, Err(Reason::JwtAudience));
        check(r#"["agents","people"]"#, Use::Caller, Err(Reason::JwtAudience));
        check(r#"["agents","people"]"#, Use::Behalf, Err(Reason::JwtAudience));
        check(r#""another""#, Use::Caller, Err(Reason::JwtAudience));
    }
}
