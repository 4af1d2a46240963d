//! Everybody who may call, and what they are known by.
//!
//! The rule: what shows nothing is refused; what is shown and wrong is refused, whatever else is shown beside it;
//! and where a header and the connection both stand for somebody, it must be the same one.

use std::collections::HashMap;

use valetkey_core::{
    AgentId, Credential, Identity, KeyThumbprint, Name, NameError, PersonId, Reason, SpiffeId, SpiffePattern,
    Timestamp, ToolId,
};

use super::bearers::Shown;
use super::evidence::Peer;
use crate::token::TokenDigest;

/// Somebody who may call, and one thing that they are known by.
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// What they show.
    pub shows: Proof,
}

/// What somebody is known by.
#[derive(Clone)]
pub enum Proof {
    /// The digest of their token.
    Token(TokenDigest),
    /// The id in their client certificate.
    Spiffe(SpiffeId),
    /// Their user on this machine, at the other end of a Unix socket.
    User(u32),
}

/// Many who may call, each under the name that stands in their SPIFFE id.
#[derive(Debug, Clone)]
pub struct SpiffeRule {
    /// Which ids.
    pub pattern: SpiffePattern,
    /// What they are.
    pub kind: IdentityKind,
    /// What comes before the name.
    pub prefix: String,
    /// What comes after it.
    pub suffix: String,
}

/// The kinds of identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityKind {
    /// An agent.
    Agent,
    /// A tool.
    Tool,
    /// A person.
    Person,
}

/// Everybody.
pub(crate) struct Known {
    certificates: HashMap<SpiffeId, Identity>,
    rules: Vec<SpiffeRule>,
    users: HashMap<u32, Identity>,
}

impl Known {
    /// Those of a configuration. Of two with one proof the later would win; the configuration refuses them.
    /// And the tokens among what they are known by, which a header brings.
    pub(crate) fn new(members: Vec<Member>, rules: Vec<SpiffeRule>) -> (Self, Vec<(TokenDigest, Identity)>) {
        let (mut tokens, mut certificates, mut users) = (Vec::new(), HashMap::new(), HashMap::new());
        for Member { identity, shows } in members {
            match shows {
                Proof::Token(digest) => tokens.push((digest, identity)),
                Proof::Spiffe(id) => drop(certificates.insert(id, identity)),
                Proof::User(uid) => drop(users.insert(uid, identity)),
            }
        }
        (Self { certificates, rules, users }, tokens)
    }

    /// Who shows this: `by_header` is whom the request's header stands for. With the key of the certificate, where
    /// that stands for the caller too: one that stands for nobody binds nothing to whoever has it.
    ///
    /// # Errors
    /// The [`Reason`] for the record. The caller is not told.
    pub(crate) fn identify(
        &self,
        by_header: Option<Shown>,
        peer: Option<&Peer>,
        now: Timestamp,
    ) -> Result<(Shown, Option<KeyThumbprint>), Reason> {
        let key = peer.and_then(|peer| peer.certificate.as_ref()).map(|certificate| certificate.key);
        match (by_header, peer.map_or(Ok(None), |peer| self.by_connection(peer, now))?) {
            (Some(one), Some(other)) if one.identity != other.identity => Err(Reason::IdentityConflict),
            (Some(shown), None) => Ok((shown, None)),
            (Some(shown), Some(_)) | (None, Some(shown)) => Ok((shown, key)),
            (None, None) => Err(match peer {
                Some(peer) if peer.certificate.is_some() => Reason::CertificateUnknown,
                Some(peer) if peer.uid().is_some() => Reason::UserUnknown,
                Some(_) | None => Reason::TokenMissing,
            }),
        }
    }

    /// Whom the connection stands for, if for anybody.
    fn by_connection(&self, peer: &Peer, now: Timestamp) -> Result<Option<Shown>, Reason> {
        // What a connection proves is looked at again with each request, and ends nothing by itself.
        let shown = |identity, credential: String| Shown {
            identity,
            credential: Credential::new(credential, None),
            claims: [].into(),
        };
        if let Some(certificate) = &peer.certificate {
            certificate.check_life(now)?;
            let identity = self.by_id(&certificate.id)?;
            return Ok(identity.map(|identity| shown(identity, certificate.credential_id())));
        }
        let user = peer.uid().and_then(|uid| Some((uid, self.users.get(&uid)?)));
        Ok(user.map(|(uid, identity)| shown(identity.clone(), format!("uid:{uid}"))))
    }

    /// An entry for the id itself goes before rules; rules must agree.
    fn by_id(&self, id: &SpiffeId) -> Result<Option<Identity>, Reason> {
        if let Some(identity) = self.certificates.get(id) {
            return Ok(Some(identity.clone()));
        }
        let mut found = self.rules.iter().filter_map(|rule| rule.identity(id));
        let first = found.next();
        match found.any(|other| Some(&other) != first.as_ref()) {
            true => Err(Reason::IdentityConflict),
            false => Ok(first),
        }
    }
}

impl SpiffeRule {
    /// Whom the rule makes of an id, where it is one of its own and the name is one.
    fn identity(&self, id: &SpiffeId) -> Option<Identity> {
        let Self { pattern, kind, prefix, suffix } = self;
        kind.named(&format!("{prefix}{}{suffix}", pattern.name(id)?)).ok()
    }
}

impl IdentityKind {
    /// The identity of that name.
    ///
    /// # Errors
    /// [`NameError`] where it is no name.
    pub fn named(self, name: &str) -> Result<Identity, NameError> {
        let name = Name::parse(name)?;
        Ok(match self {
            Self::Agent => Identity::Agent(AgentId(name)),
            Self::Tool => Identity::Tool(ToolId(name)),
            Self::Person => Identity::Person(PersonId(name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::evidence::{ClientCertificate, Origin};
    use crate::token::TOKEN_PREFIX;
    use valetkey_core::Bearer;

    const NOW: Timestamp = Timestamp::from_micros(1_000);

    fn identity(text: &str) -> Identity {
        let (kind, name) = text.split_once(':').unwrap();
        let kind = match kind {
            "agent" => IdentityKind::Agent,
            "tool" => IdentityKind::Tool,
            _ => IdentityKind::Person,
        };
        kind.named(name).unwrap()
    }

    fn rule(pattern: &str, kind: IdentityKind, prefix: &str) -> SpiffeRule {
        let pattern = SpiffePattern::parse(pattern).unwrap();
        SpiffeRule { pattern, kind, prefix: prefix.to_owned(), suffix: String::new() }
    }

    /// By address, by certificate of an id, and by user.
    fn peer(id: Option<&str>, uid: Option<u32>) -> Peer {
        let origin = match uid {
            None => Origin::Address("127.0.0.1:1".parse().unwrap()),
            Some(uid) => Origin::Process { uid, gid: 1, pid: None },
        };
        let certificate = id.map(|id| {
            Arc::new(ClientCertificate {
                id: SpiffeId::parse(id).unwrap(),
                thumbprint: [1; 32],
                key: KeyThumbprint([2; 32]),
                not_before: Timestamp::from_micros(500),
                not_after: Timestamp::from_micros(2_000),
            })
        });
        Peer::new(origin, certificate, Arc::default())
    }

    #[test]
    fn everybody_is_known_by_what_they_show() {
        let token = TokenDigest::of(&Bearer::random(TOKEN_PREFIX));
        let of = |who, shows| Member { identity: identity(who), shows };
        let (known, tokens) = Known::new(
            vec![
                of("agent:bot", Proof::Token(token)),
                of("tool:t", Proof::Spiffe(SpiffeId::parse("spiffe://d/exact").unwrap())),
                of("person:ana", Proof::User(7)),
            ],
            vec![
                rule("spiffe://d/agent/{name}", IdentityKind::Agent, ""),
                rule("spiffe://d/agent/{name}", IdentityKind::Agent, ""),
                rule("spiffe://d/{name}", IdentityKind::Tool, "x-"),
                rule("spiffe://d/two/{name}", IdentityKind::Agent, ""),
                rule("spiffe://d/two/{name}", IdentityKind::Agent, "other-"),
            ],
        );
        assert_eq!(
            tokens.into_iter().map(|(it, who)| (it.id(), who)).collect::<Vec<_>>(),
            [(token.id(), identity("agent:bot"))]
        );
        let check = |header: Option<&str>, peer: Peer, who: Result<&str, Reason>| {
            let credential = Credential::new("token", None);
            let by_header =
                header.map(|who| Shown { identity: identity(who), credential, claims: [].into() });
            let shown = known.identify(by_header, Some(&peer), NOW).map(|(shown, _)| shown.identity);
            assert_eq!(shown, who.map(identity), "{header:?} {:?} {:?}", peer.origin, peer.certificate);
        };
        let token = Some("agent:bot");
        check(None, peer(None, None), Err(Reason::TokenMissing));
        check(token, peer(None, None), Ok("agent:bot"));
        check(None, peer(Some("spiffe://d/exact"), None), Ok("tool:t"));
        check(None, peer(Some("spiffe://d/other"), None), Ok("tool:x-other"));
        check(None, peer(Some("spiffe://d/agent/mail-bot"), None), Ok("agent:mail-bot"));
        check(None, peer(Some("spiffe://d/nobody/x"), None), Err(Reason::CertificateUnknown));
        check(None, peer(Some("spiffe://d/two/x"), None), Err(Reason::IdentityConflict));
        check(None, peer(None, Some(7)), Ok("person:ana"));
        check(None, peer(None, Some(8)), Err(Reason::UserUnknown));
        // Both at once: the same one, or nobody.
        check(token, peer(Some("spiffe://d/agent/bot"), None), Ok("agent:bot"));
        check(token, peer(Some("spiffe://d/agent/mail-bot"), None), Err(Reason::IdentityConflict));
        check(token, peer(Some("spiffe://d/nobody/x"), None), Ok("agent:bot"));
        check(token, peer(None, Some(7)), Err(Reason::IdentityConflict));
        check(token, peer(None, Some(8)), Ok("agent:bot"));

        let has_key = |header: Option<&str>, id: &str| {
            let credential = Credential::new("token", None);
            let by_header =
                header.map(|who| Shown { identity: identity(who), credential, claims: [].into() });
            known.identify(by_header, Some(&peer(Some(id), None)), NOW).map(|(_, key)| key.is_some())
        };
        assert_eq!(has_key(None, "spiffe://d/exact"), Ok(true));
        assert_eq!(has_key(token, "spiffe://d/agent/bot"), Ok(true));
        assert_eq!(has_key(token, "spiffe://d/nobody/x"), Ok(false), "that key may be anybody's");
    }

    #[test]
    fn a_certificate_is_good_for_its_life_only() {
        let (known, _) = Known::new(Vec::new(), vec![rule("spiffe://d/{name}", IdentityKind::Agent, "")]);
        let peer = peer(Some("spiffe://d/bot"), None);
        let at = |micros| known.identify(None, Some(&peer), Timestamp::from_micros(micros)).err();
        assert_eq!(at(499), Some(Reason::CertificateNotYetValid));
        assert_eq!((at(500), at(2_000)), (None, None));
        assert_eq!(at(2_001), Some(Reason::CertificateExpired));
    }
}
