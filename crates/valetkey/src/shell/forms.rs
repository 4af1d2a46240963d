//! The forms that programs give to values: what is looked for in their output.

use data_encoding::{BASE64, BASE64URL};
use zeroize::Zeroizing;

/// What is to be concealed: all forms of all values.
pub(crate) struct Forms(Vec<Zeroizing<Vec<u8>>>);

/// How a program percent-encodes.
pub(crate) struct Percent {
    /// What stays as it is, beside letters and digits.
    kept: &'static [u8],
    space: &'static [u8],
    upper: bool,
}

impl Forms {
    /// The forms of these values; empty ones have none.
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for value in values {
            // Programs print values line by line, and drop the blanks around them.
            let value = value.trim_ascii();
            if value.is_empty() {
                continue;
            }
            forms.push(Zeroizing::new(value.to_vec()));
            if value.len() < ENCODED_LENGTH_MIN {
                continue;
            }
            if value.contains(&b'\n') {
                forms.extend(long_pieces(value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)));
            }
            forms.extend(in_json(value));
            for encoding in [BASE64, BASE64URL] {
                forms.extend((0..3).map(|place| in_base64(value, place, &encoding)));
            }
            let from_start = in_base64(value, 0, &BASE64);
            for width in BASE64_WIDTHS {
                if from_start.len() > width {
                    forms.extend(long_pieces(from_start.chunks(width)));
                }
            }
            forms.extend(PERCENT.iter().map(|how| percent_encoded(value, how)));
        }
        forms.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        forms.dedup();
        Self(forms)
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|form| form.as_slice())
    }
}

/// Those that are long enough to be nothing else.
fn long_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
    pieces.filter(|piece| piece.len() >= PIECE_LENGTH_MIN).map(|piece| Zeroizing::new(piece.to_vec()))
}

/// As it stands within the quotes of a JSON string: with no more escapes than there must be; in ASCII, as Python has it,
/// and with `\/` too, as PHP; and with what means something in HTML escaped, as Go.
fn in_json(value: &[u8]) -> [Zeroizing<Vec<u8>>; 4] {
    let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
    let quoted = Zeroizing::new(serde_json::to_string(text.as_str()).unwrap_or_default());
    let plain = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
    let escaped = |wanted: fn(char) -> bool, slash: &str| {
        let mut json = Zeroizing::new(Vec::with_capacity(6 * plain.len()));
        for c in plain.chars() {
            match c {
                '/' => json.extend_from_slice(slash.as_bytes()),
                c if wanted(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        json.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                    }
                }
                c => json.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        json
    };
    let html = |c| ['<', '>', '&', '\u{2028}', '\u{2029}'].contains(&c);
    [
        Zeroizing::new(plain.as_bytes().to_vec()),
        escaped(|c| !c.is_ascii(), "/"),
        escaped(|c| !c.is_ascii(), "\\/"),
        escaped(html, "/"),
    ]
}

/// The characters of base64 that depend on the value alone, where it begins `place` bytes into a group of three.
fn in_base64(value: &[u8], place: usize, encoding: &data_encoding::Encoding) -> Zeroizing<Vec<u8>> {
    let mut group = Zeroizing::new(vec![0; place]);
    group.extend_from_slice(value);
    let encoded = Zeroizing::new(encoding.encode(&group));
    // Six bits a character: the first may hold bits of what comes before, the last of what comes after.
    let (first, end) = ((place * 8).div_ceil(6), group.len() * 8 / 6);
    Zeroizing::new(encoded.as_bytes().get(first..end).unwrap_or_default().to_vec())
}

/// As it stands in a URL or a form.
pub(crate) fn percent_encoded(value: &[u8], how: &Percent) -> Zeroizing<Vec<u8>> {
    let Percent { kept, space, upper } = how;
    let mut encoded = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    for byte in value {
        match byte {
            _ if byte.is_ascii_alphanumeric() || kept.contains(byte) => encoded.push(*byte),
            b' ' => encoded.extend_from_slice(space),
            _ if *upper => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => encoded.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    encoded
}

/// What must be encoded is, and nothing else.
pub(crate) const RFC_3986: &Percent = &Percent { kept: b"-._~", space: b"%20", upper: true };

const PERCENT: [&Percent; 11] = [
    RFC_3986,
    &Percent { kept: b"-._~", space: b"%20", upper: false },
    // Forms; Go's `QueryEscape`.
    &Percent { kept: b"-._~", space: b"+", upper: true },
    &Percent { kept: b"-._~", space: b"+", upper: false },
    // Python's `quote`, and paths.
    &Percent { kept: b"-._~/", space: b"%20", upper: true },
    // JavaScript's `encodeURIComponent`, `encodeURI` and `URLSearchParams`; the last is Java's `URLEncoder` too.
    &Percent { kept: b"-._~!'()*", space: b"%20", upper: true },
    &Percent { kept: b"-._~!'()*;/?:@&=+$,#", space: b"%20", upper: true },
    &Percent { kept: b"-._*", space: b"+", upper: true },
    // PHP's `urlencode`.
    &Percent { kept: b"-._", space: b"+", upper: true },
    // .NET's `UrlEncode`.
    &Percent { kept: b"-._!*()", space: b"+", upper: false },
    // A password in a URL, as Go writes it.
    &Percent { kept: b"-._~$&+,;=", space: b"%20", upper: true },
];
/// Of shorter values only the plain form is looked for: their encodings could be anything.
const ENCODED_LENGTH_MIN: usize = 4;
/// A line of a value, or of its base64.
const PIECE_LENGTH_MIN: usize = 16;
/// How long the lines are into which programs break base64: PEM's, and MIME's, which `base64` has too.
const BASE64_WIDTHS: [usize; 2] = [64, 76];
