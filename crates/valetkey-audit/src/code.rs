//! The numbers that stand in the database for kinds, rulings, reasons, results and redeemers.
//!
//! Fixed for ever: a number is never given to another meaning. A new variant takes the next free one; the
//! compiler asks for it here.

use rusqlite::Row;
use rusqlite::types::FromSqlError;
use valetkey_core::{OutcomeResult, Reason, RecordKind, Redeemer, Ruling};

/// A word of the domain that is stored as a number.
pub(crate) trait Code: Copy + Sized + 'static {
    /// Every word.
    const ALL: &'static [Self];

    /// Its number.
    fn code(self) -> i64;

    /// The word of a number.
    fn of(code: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.code() == code)
    }
}

impl Code for RecordKind {
    const ALL: &'static [Self] = &Self::ALL;

    fn code(self) -> i64 {
        match self {
            // The schema knows that 1 to 3 have outcomes.
            Self::Acquire => 1,
            Self::Renew => 2,
            Self::Redeem => 3,
            Self::Check => 4,
            Self::EndLease => 5,
            Self::ReadAudit => 6,
            Self::Operate => 7,
            Self::Unauthenticated => 8,
            Self::Malformed => 9,
            Self::LeaseEnd => 10,
            Self::HandleExpire => 11,
            Self::HandleRevoke => 12,
            Self::PolicyLoad => 13,
            Self::Start => 14,
            Self::Stop => 15,
            Self::Locate => 16,
            Self::TlsLoad => 17,
            Self::Limit => 30,
            Self::TokenCreate => 40,
            Self::TokenList => 41,
            Self::TokenRevoke => 42,
            Self::ApprovalList => 60,
            Self::Approve => 61,
            Self::Reject => 62,
            Self::Retire => 50,
            Self::FindValue => 51,
            Self::ConfigLoad => 52,
        }
    }
}

impl Code for Ruling {
    const ALL: &'static [Self] = &[Self::Allow, Self::Deny, Self::Event];

    fn code(self) -> i64 {
        match self {
            // The schema knows that 1 allows.
            Self::Allow => 1,
            Self::Deny => 2,
            Self::Event => 3,
        }
    }
}

impl Code for Reason {
    const ALL: &'static [Self] = &Self::ALL;

    fn code(self) -> i64 {
        match self {
            // The schema knows that 1 is the only reason to allow.
            Self::PolicyPermit => 1,
            Self::PolicyNoPermit => 2,
            Self::PolicyForbid => 3,
            Self::PolicyError => 4,
            Self::PolicyTtl => 5,
            Self::CallerKind => 6,
            Self::TokenMissing => 7,
            Self::TokenMalformed => 8,
            Self::TokenUnknown => 9,
            Self::FieldInvalid => 10,
            Self::MessageInvalid => 11,
            Self::HandleMalformed => 12,
            Self::HandleUnknown => 13,
            Self::HandleSpent => 14,
            Self::HandleExpired => 15,
            Self::HandleRevoked => 16,
            Self::HandleRedeemer => 17,
            Self::HandleForged => 18,
            Self::LeaseLimit => 19,
            Self::Draining => 20,
            Self::EndCaller => 21,
            Self::EndDisconnect => 22,
            Self::EndPolicy => 23,
            Self::EndExpiry => 24,
            Self::EndShutdown => 25,
            Self::EndStalled => 26,
            Self::EndUnavailable => 27,
            Self::Done => 28,
            Self::Failed => 29,
            Self::PolicyPossible => 30,
            Self::SourceFailed => 31,
            Self::IdentityConflict => 32,
            Self::CertificateMissing => 33,
            Self::CertificateUntrusted => 34,
            Self::CertificateExpired => 35,
            Self::CertificateNotYetValid => 36,
            Self::CertificateTrustDomain => 37,
            Self::CertificateSpiffeId => 38,
            Self::CertificateUnknown => 39,
            Self::TlsHandshake => 40,
            Self::UserUnknown => 41,
            Self::HandleBinding => 42,
            Self::PolicyBinding => 43,
            Self::CredentialRevoked => 60,
            Self::CredentialExpired => 61,
            Self::JwtMalformed => 62,
            Self::JwtAlgorithm => 63,
            Self::JwtIssuer => 64,
            Self::JwtAudience => 65,
            Self::JwtKeyUnknown => 66,
            Self::JwtKeyMismatch => 67,
            Self::JwtKeysUnavailable => 68,
            Self::JwtSignature => 69,
            Self::JwtExpired => 70,
            Self::JwtNotYetValid => 71,
            Self::JwtLifeTooLong => 72,
            Self::JwtNoRule => 73,
            Self::JwtReplayed => 74,
            Self::BehalfInvalid => 75,
            Self::BehalfMismatch => 76,
            Self::EndCredential => 77,
            Self::IdentityLimit => 90,
            Self::Repeated => 91,
            Self::ApprovalRequired => 100,
            Self::ApprovalRejected => 101,
            Self::ApproverGroup => 102,
            Self::ApproverOwn => 103,
        }
    }
}

impl Code for OutcomeResult {
    const ALL: &'static [Self] =
        &[Self::Issued, Self::Released, Self::Failed, Self::Withheld, Self::Interrupted];

    fn code(self) -> i64 {
        match self {
            Self::Issued => 1,
            Self::Released => 2,
            Self::Failed => 3,
            Self::Withheld => 4,
            Self::Interrupted => 5,
        }
    }
}

impl Code for Redeemer {
    const ALL: &'static [Self] = &[Self::Tool, Self::Agent];

    fn code(self) -> i64 {
        match self {
            Self::Tool => 1,
            Self::Agent => 2,
        }
    }
}

/// Reads a word from a column.
pub(crate) fn word<T: Code>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let code = row.get(column)?;
    T::of(code).ok_or_else(|| FromSqlError::OutOfRange(code).into())
}

/// What queries and answers call a ruling.
pub(crate) fn ruling_name(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::Allow => "allow",
        Ruling::Deny => "deny",
        Ruling::Event => "event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    /// The list is in the order of the numbers, each of which is given once. Blocks of them may be left out.
    fn check<T: Code + PartialEq + Debug>() {
        let mut last = 0;
        for word in T::ALL {
            assert!(word.code() > last, "{word:?} is out of order, or has another's number");
            assert_eq!(T::of(word.code()), Some(*word));
            last = word.code();
        }
        assert_eq!(T::of(0), None);
        assert_eq!(T::of(last + 1), None);
    }

    #[test]
    fn every_word_has_its_own_number_and_comes_back() {
        check::<RecordKind>();
        check::<Ruling>();
        check::<Reason>();
        check::<OutcomeResult>();
        check::<Redeemer>();
    }

    #[test]
    fn the_schema_knows_which_kinds_have_outcomes() {
        for kind in RecordKind::ALL {
            assert_eq!(kind.has_outcome(), kind.code() <= 3, "{kind:?}");
        }
    }
}
