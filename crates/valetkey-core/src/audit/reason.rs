//! The reasons that records give: stable codes, listed in docs/audit.md.

/// Why, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A policy permits.
    PolicyPermit,
    /// No policy permits.
    PolicyNoPermit,
    /// A policy forbids.
    PolicyForbid,
    /// A policy could not be evaluated.
    PolicyError,
    /// Permitted, but for a shorter life than was asked for.
    PolicyTtl,
    /// Permitted, but a person has to approve it first.
    ApprovalRequired,
    /// Permitted, but a person has rejected it a while ago.
    ApprovalRejected,
    /// Whoever would approve is not in every group that the policies ask for.
    ApproverGroup,
    /// Whoever would approve is the one on whose behalf it was asked.
    ApproverOwn,
    /// A policy may permit, depending on what the reference means.
    PolicyPossible,
    /// The source could not be asked what the reference means.
    SourceFailed,
    /// The kind of caller has no business with this call.
    CallerKind,
    /// No `authorization` came.
    TokenMissing,
    /// What came is no token.
    TokenMalformed,
    /// The token is nobody's.
    TokenUnknown,
    /// The connection and the `authorization` stand for different identities, or two rules do.
    IdentityConflict,
    /// No client certificate came where one is required.
    CertificateMissing,
    /// The client certificate is signed by nobody we trust, or not for this use.
    CertificateUntrusted,
    /// The life of the client certificate is over.
    CertificateExpired,
    /// The life of the client certificate has not begun.
    CertificateNotYetValid,
    /// The client certificate is of another trust domain.
    CertificateTrustDomain,
    /// The client certificate does not have exactly one URI that is a SPIFFE id.
    CertificateSpiffeId,
    /// The client certificate is good, but nobody's.
    CertificateUnknown,
    /// There was no TLS handshake to speak of: not TLS, an old version, too slow.
    TlsHandshake,
    /// The user behind a Unix socket is nobody's.
    UserUnknown,
    /// The handle is bound to another key than the caller's certificate has, or the caller has none.
    HandleBinding,
    /// Permitted, but only to callers with a client certificate.
    PolicyBinding,
    /// A field of the message breaks its rules.
    FieldInvalid,
    /// The message is no message: wire format, size, method.
    MessageInvalid,
    /// The text is no handle.
    HandleMalformed,
    /// No such handle, or too long ago.
    HandleUnknown,
    /// All its uses are spent: a replay.
    HandleSpent,
    /// Its life is over.
    HandleExpired,
    /// It was revoked, or its lease has ended.
    HandleRevoked,
    /// The caller is not the one that can redeem it.
    HandleRedeemer,
    /// The secret part is not the handle's: somebody guesses.
    HandleForged,
    /// A bound of the lease table is reached.
    LeaseLimit,
    /// A bound of one identity is reached.
    IdentityLimit,
    /// Refused again and again, and no longer written down one by one: the detail begins with how often.
    Repeated,
    /// The broker is about to stop.
    Draining,
    /// The caller ended it.
    EndCaller,
    /// The stream closed.
    EndDisconnect,
    /// Policy no longer allows it.
    EndPolicy,
    /// Its life is over.
    EndExpiry,
    /// The broker stops.
    EndShutdown,
    /// The client did not read.
    EndStalled,
    /// It could not be renewed.
    EndUnavailable,
    /// Done.
    Done,
    /// Not done; the detail says why.
    Failed,
    /// What the caller showed was revoked.
    CredentialRevoked,
    /// What the caller showed has had its time.
    CredentialExpired,
    /// A signed token that cannot be read: too long, too deep, or not of that form.
    JwtMalformed,
    /// Signed by an algorithm that the issuer's entry does not list, or by none.
    JwtAlgorithm,
    /// From an issuer that the configuration does not name.
    JwtIssuer,
    /// Meant for somebody else.
    JwtAudience,
    /// Signed by a key that the issuer does not publish.
    JwtKeyUnknown,
    /// Its algorithm is not that of the key it names.
    JwtKeyMismatch,
    /// The issuer's keys are not at hand, or too old to be believed.
    JwtKeysUnavailable,
    /// The signature is not of that key.
    JwtSignature,
    /// Its time is over.
    JwtExpired,
    /// Its time has not come, or it claims to come from the future.
    JwtNotYetValid,
    /// It lives longer than a token may, or for ever.
    JwtLifeTooLong,
    /// No rule of its issuer makes it somebody.
    JwtNoRule,
    /// It is for one use, and was used or has no `jti`.
    JwtReplayed,
    /// It says on whose behalf, but not by one token of a person's.
    BehalfInvalid,
    /// It is on another person's behalf than the lease.
    BehalfMismatch,
    /// What it was opened with was revoked.
    EndCredential,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 67] = [
        Self::PolicyPermit,
        Self::PolicyNoPermit,
        Self::PolicyForbid,
        Self::PolicyError,
        Self::PolicyTtl,
        Self::CallerKind,
        Self::TokenMissing,
        Self::TokenMalformed,
        Self::TokenUnknown,
        Self::FieldInvalid,
        Self::MessageInvalid,
        Self::HandleMalformed,
        Self::HandleUnknown,
        Self::HandleSpent,
        Self::HandleExpired,
        Self::HandleRevoked,
        Self::HandleRedeemer,
        Self::HandleForged,
        Self::LeaseLimit,
        Self::Draining,
        Self::EndCaller,
        Self::EndDisconnect,
        Self::EndPolicy,
        Self::EndExpiry,
        Self::EndShutdown,
        Self::EndStalled,
        Self::EndUnavailable,
        Self::Done,
        Self::Failed,
        Self::PolicyPossible,
        Self::SourceFailed,
        Self::IdentityConflict,
        Self::CertificateMissing,
        Self::CertificateUntrusted,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateTrustDomain,
        Self::CertificateSpiffeId,
        Self::CertificateUnknown,
        Self::TlsHandshake,
        Self::UserUnknown,
        Self::HandleBinding,
        Self::PolicyBinding,
        Self::CredentialRevoked,
        Self::CredentialExpired,
        Self::JwtMalformed,
        Self::JwtAlgorithm,
        Self::JwtIssuer,
        Self::JwtAudience,
        Self::JwtKeyUnknown,
        Self::JwtKeyMismatch,
        Self::JwtKeysUnavailable,
        Self::JwtSignature,
        Self::JwtExpired,
        Self::JwtNotYetValid,
        Self::JwtLifeTooLong,
        Self::JwtNoRule,
        Self::JwtReplayed,
        Self::BehalfInvalid,
        Self::BehalfMismatch,
        Self::EndCredential,
        Self::IdentityLimit,
        Self::Repeated,
        Self::ApprovalRequired,
        Self::ApprovalRejected,
        Self::ApproverGroup,
        Self::ApproverOwn,
    ];

    /// The stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyPermit => "POLICY_PERMIT",
            Self::PolicyNoPermit => "POLICY_NO_PERMIT",
            Self::PolicyForbid => "POLICY_FORBID",
            Self::PolicyError => "POLICY_ERROR",
            Self::PolicyTtl => "POLICY_TTL",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
            Self::ApprovalRejected => "APPROVAL_REJECTED",
            Self::ApproverGroup => "APPROVER_GROUP",
            Self::ApproverOwn => "APPROVER_OWN",
            Self::PolicyPossible => "POLICY_POSSIBLE",
            Self::SourceFailed => "SOURCE_FAILED",
            Self::CallerKind => "CALLER_KIND",
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenMalformed => "TOKEN_MALFORMED",
            Self::TokenUnknown => "TOKEN_UNKNOWN",
            Self::IdentityConflict => "IDENTITY_CONFLICT",
            Self::CertificateMissing => "CERTIFICATE_MISSING",
            Self::CertificateUntrusted => "CERTIFICATE_UNTRUSTED",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::CertificateNotYetValid => "CERTIFICATE_NOT_YET_VALID",
            Self::CertificateTrustDomain => "CERTIFICATE_TRUST_DOMAIN",
            Self::CertificateSpiffeId => "CERTIFICATE_SPIFFE_ID",
            Self::CertificateUnknown => "CERTIFICATE_UNKNOWN",
            Self::TlsHandshake => "TLS_HANDSHAKE",
            Self::UserUnknown => "USER_UNKNOWN",
            Self::HandleBinding => "HANDLE_BINDING",
            Self::PolicyBinding => "POLICY_BINDING",
            Self::FieldInvalid => "FIELD_INVALID",
            Self::MessageInvalid => "MESSAGE_INVALID",
            Self::HandleMalformed => "HANDLE_MALFORMED",
            Self::HandleUnknown => "HANDLE_UNKNOWN",
            Self::HandleSpent => "HANDLE_SPENT",
            Self::HandleExpired => "HANDLE_EXPIRED",
            Self::HandleRevoked => "HANDLE_REVOKED",
            Self::HandleRedeemer => "HANDLE_REDEEMER",
            Self::HandleForged => "HANDLE_FORGED",
            Self::LeaseLimit => "LEASE_LIMIT",
            Self::IdentityLimit => "IDENTITY_LIMIT",
            Self::Repeated => "REPEATED",
            Self::Draining => "DRAINING",
            Self::EndCaller => "END_CALLER",
            Self::EndDisconnect => "END_DISCONNECT",
            Self::EndPolicy => "END_POLICY",
            Self::EndExpiry => "END_EXPIRY",
            Self::EndShutdown => "END_SHUTDOWN",
            Self::EndStalled => "END_STALLED",
            Self::EndUnavailable => "END_UNAVAILABLE",
            Self::Done => "DONE",
            Self::Failed => "FAILED",
            Self::CredentialRevoked => "CREDENTIAL_REVOKED",
            Self::CredentialExpired => "CREDENTIAL_EXPIRED",
            Self::JwtMalformed => "JWT_MALFORMED",
            Self::JwtAlgorithm => "JWT_ALGORITHM",
            Self::JwtIssuer => "JWT_ISSUER",
            Self::JwtAudience => "JWT_AUDIENCE",
            Self::JwtKeyUnknown => "JWT_KEY_UNKNOWN",
            Self::JwtKeyMismatch => "JWT_KEY_MISMATCH",
            Self::JwtKeysUnavailable => "JWT_KEYS_UNAVAILABLE",
            Self::JwtSignature => "JWT_SIGNATURE",
            Self::JwtExpired => "JWT_EXPIRED",
            Self::JwtNotYetValid => "JWT_NOT_YET_VALID",
            Self::JwtLifeTooLong => "JWT_LIFE_TOO_LONG",
            Self::JwtNoRule => "JWT_NO_RULE",
            Self::JwtReplayed => "JWT_REPLAYED",
            Self::BehalfInvalid => "BEHALF_INVALID",
            Self::BehalfMismatch => "BEHALF_MISMATCH",
            Self::EndCredential => "END_CREDENTIAL",
        }
    }
}
