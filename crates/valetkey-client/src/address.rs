//! Where a broker is: `https://host:port`, `http://` over loopback, `unix:/path`.

use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;

use crate::connect::ConnectError;

/// The address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// In clear text, over loopback.
    Plain(Uri),
    /// With TLS.
    Tls {
        /// The whole.
        uri: Uri,
        /// What its certificate must be for.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket on this machine.
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` means the same.
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            return match path.is_empty() || path.contains('\0') {
                true => Err(ConnectError::BadAddress(printable(text))),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let bad = || ConnectError::BadAddress(printable(text));
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Credentials, a path or a query would be dropped in silence.
        let has_more = uri.path() != "/" || uri.query().is_some();
        if has_more || uri.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(bad());
        }
        match uri.scheme_str() {
            Some("http") if is_loopback(&host) => Ok(Self::Plain(uri)),
            Some("http") => Err(ConnectError::NotLoopback(printable(text))),
            Some("https") => {
                let port = uri.port_u16().unwrap_or(PORT_USUAL);
                Ok(Self::Tls { uri, host, port })
            }
            _ => Err(bad()),
        }
    }
}

/// A page that a person may be sent to: over TLS, or on this machine, and nothing in it that hides where it leads.
pub(crate) fn page(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let is_safe = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback(host),
        _ => false,
    };
    let is_plain = text.len() <= PAGE_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (is_safe && is_plain).then(|| text.to_owned())
}

/// `localhost` counts: resolvers must answer it with loopback (RFC 6761, section 6.3).
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address may hold a password before its `@`, and a broken one may hold anything.
pub(crate) fn printable(address: &str) -> String {
    let shown = address.rsplit('@').next().unwrap_or_default();
    shown.chars().filter(|c| !c.is_control()).take(128).collect()
}

const PAGE_LENGTH_MAX: usize = 2048;
/// What `https` means elsewhere.
const PORT_USUAL: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in
            ["http://127.0.0.1:7447", "http://localhost:7447/", "http://[::1]:1", "http://127.9.9.9:1"]
        {
            assert!(matches!(Address::parse(good), Ok(Address::Plain(_))), "{good}");
        }
        let tls = |text: &str| match Address::parse(text) {
            Ok(Address::Tls { uri: _, host, port }) => (host, port),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(tls("https://broker.example.com:7447"), ("broker.example.com".to_owned(), 7447));
        assert_eq!(tls("https://[::1]:1/"), ("::1".to_owned(), 1));
        assert_eq!(tls("https://10.0.0.1"), ("10.0.0.1".to_owned(), 443));
        for (unix, path) in [("unix:/run/b.sock", "/run/b.sock"), ("unix:///b", "/b"), ("unix:b", "b")] {
            assert_eq!(Address::parse(unix).ok(), Some(Address::Unix(path.into())), "{unix}");
        }
        for (bad, says) in [
            ("", "is no address"),
            ("unix:", "is no address"),
            ("127.0.0.1:7447", "is no address"),
            ("ftp://127.0.0.1", "is no address"),
            ("http://127.0.0.1:7447/path", "is no address"),
            ("https://broker.example.com/path", "is no address"),
            ("http://user:hunter2@127.0.0.1:7447", "is no address"),
            ("https://user:hunter2@127.0.0.1:7447", "is no address"),
            ("http://10.0.0.1:7447", "clear text"),
            ("http://127.0.0.1.example.com:7447", "clear text"),
            ("http://localhost.example.com", "clear text"),
        ] {
            let message = Address::parse(bad).map(drop).unwrap_err().to_string();
            assert!(message.contains(says), "{bad}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn pages() {
        for good in [
            "https://ok.example/a/vkl_1?x=1",
            "http://localhost:1/vkl_1",
            "http://127.0.0.1/",
            "https://[::1]/",
        ] {
            assert_eq!(page(good).as_deref(), Some(good));
        }
        let long = format!("https://ok.example/{}", "a".repeat(2048));
        for bad in [
            "",
            "vkl_1",
            "/vkl_1",
            "http://ok.example/vkl_1",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://ok.example@evil.example/",
            "https://evil.example\\.ok.example/",
            "https://ok.example/\u{1b}[2J",
            "https://ok.example/a b",
            "https://\u{43e}k.example/",
            "https:///vkl_1",
            &long,
        ] {
            assert_eq!(page(bad), None, "{bad}");
        }
    }
}
