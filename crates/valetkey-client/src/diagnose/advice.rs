//! What to do about a step that fails.

use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use crate::address::Address;
use crate::error::CallError;

/// What the answer to the last call says: good, or what happened and what to do. Nothing but a broker that has taken
/// the caller for somebody says that the lease id is none.
pub(super) fn judge(
    answer: &Result<(), CallError>,
    address: &Address,
    token: bool,
    certificate: bool,
) -> Result<String, (String, &'static str)> {
    let (clear, tls) = (matches!(address, Address::Plain(_)), matches!(address, Address::Tls { .. }));
    let Err(error) = answer else { return Err(("it ended a lease that is none".to_owned(), STRANGE)) };
    match error {
        CallError::Invalid { reason, .. } if reason == "INVALID_LEASE_ID" => {
            Ok("the broker knows the caller".to_owned())
        }
        CallError::Denied { reason, .. } | CallError::LimitReached { reason, .. } if !reason.is_empty() => {
            Ok(format!("the broker knows the caller, but refuses the call: {error}"))
        }
        CallError::Unauthenticated => {
            let sent = match (token, certificate, tls) {
                (true, true, _) => "a token and a certificate",
                (true, false, _) => "a token",
                (false, true, _) => "a certificate",
                (false, false, true) => "neither a token nor a certificate",
                (false, false, false) => "no token",
            };
            let what = format!("the broker knows nobody by what it was sent: {sent}");
            Err((what, if tls { UNKNOWN_OVER_TLS } else { UNKNOWN }))
        }
        CallError::NoBroker { message } if clear => {
            Err((format!("it does not speak HTTP/2 in clear text: {message}"), CLEAR_TEXT))
        }
        CallError::Unavailable { reason, message, .. } if clear && reason.is_empty() => {
            Err((format!("it ends the connection: {message}"), CLEAR_TEXT))
        }
        CallError::Unavailable { reason, message, .. }
            if tls && reason.is_empty() && (certificate || !token) =>
        {
            Err((message.clone(), CLOSED))
        }
        CallError::Unavailable { .. } | CallError::TimedOut(_) | CallError::Internal { .. } => {
            Err((error.to_string(), "the broker is there, but does not serve; tell its operator"))
        }
        _ => Err((error.to_string(), STRANGE)),
    }
}

pub(super) fn unix_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "this user may not use the socket; see its mode and folder, and `id`"
        }
        io::ErrorKind::NotFound => {
            "there is no such file; is the broker running, with this path in `[unix]`?"
        }
        _ => "nobody listens there; is the broker running?",
    }
}

pub(super) fn tls_advice(error: &io::Error) -> &'static str {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match fault {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "we do not trust the broker's certificate: `VALETKEY_CA` must hold the authority that signed it"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the broker's certificate is for another name: use that in the address, or have it reissued"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the broker's certificate has expired, or this machine's clock is wrong; tell its operator"
            }
            _ => "the broker's certificate is not good; tell its operator",
        },
        Some(rustls::Error::AlertReceived(_)) => fault.map_or(CLOSED, alert_advice),
        Some(rustls::Error::InvalidMessage(_)) => {
            "what answers does not speak TLS; is it a broker without `[tls]`?"
        }
        _ => CLOSED,
    }
}

pub(super) fn alert_advice(fault: &rustls::Error) -> &'static str {
    match fault {
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the broker requires a client certificate: set `VALETKEY_CERT` and `VALETKEY_KEY`"
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the broker wants another version of TLS"
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateUnknown) => {
            "the broker does not accept the client certificate; a reviewer finds the reason in a record of kind \
             `unauthenticated`"
        }
        _ => CLOSED,
    }
}

pub(super) const CLEAR_TEXT: &str = "is it a broker with TLS? then use its `https://` address";
const STRANGE: &str = "no broker of this version says that; what answers there?";
const UNKNOWN: &str = "ask a reviewer for the record of kind `unauthenticated`: it says why; expired, revoked, or not \
                       in the configuration";
const UNKNOWN_OVER_TLS: &str = "ask a reviewer for the record of kind `unauthenticated`: it says why; expired, revoked, \
                                not in the configuration, or not the same identity as the certificate's";
const CLOSED: &str = "the broker ended the connection: it does not accept the client certificate, or requires one; a \
                      reviewer finds the reason in a record of kind `unauthenticated`";

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn only_a_broker_knows_the_caller() {
        let check = |address: &str, error: CallError, is_good: bool, says: &str| {
            let address = Address::parse(address).unwrap();
            let clear = !matches!(address, Address::Tls { .. });
            let (good, text) = match judge(&Err(error), &address, false, false) {
                Ok(what) => (true, what),
                Err((what, advice)) => (false, format!("{what} {advice}")),
            };
            assert!(good == is_good && text.contains(says), "{text}");
            assert!(!(clear && text.contains("certificate")), "{text}");
        };
        let invalid = |reason: &str| CallError::Invalid {
            reason: reason.to_owned(),
            message: String::new(),
            violations: Vec::new(),
            record_id: None,
        };
        let limit = |reason: &str| CallError::LimitReached {
            reason: reason.to_owned(),
            message: "too many".to_owned(),
            retry_after: None,
        };
        let (http, https, unix) = ("http://127.0.0.1:1", "https://localhost:1", "unix:/b.sock");
        for address in [http, https, unix] {
            check(address, invalid("INVALID_LEASE_ID"), true, "knows the caller");
            check(address, invalid("BAD"), false, "what answers there");
            check(address, limit("RATE_LIMITED"), true, "refuses the call: too many");
            check(address, limit(""), false, "what answers there");
            check(address, CallError::Unauthenticated, false, "ask a reviewer");
            check(address, Status::unimplemented("no").into(), false, "does not serve");
        }
        check(http, Status::internal("h2 protocol error").into(), false, "`https://`");
        check(http, Status::unavailable("closed").into(), false, "`https://`");
        check(https, Status::unavailable("closed").into(), false, "requires one");
        check(unix, Status::unavailable("closed").into(), false, "does not serve");
    }
}
