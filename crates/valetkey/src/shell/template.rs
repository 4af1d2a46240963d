//! Templates as `op inject` reads them: `{{ op://vault/item/field }}`, references that stand bare, variables, and
//! `{{ "literal" }}`.
//!
//! Source: 1Password's page on the template syntax of its CLI. Where it is silent: a variable that is not set and has no
//! default stays as it is written, but is an error inside of a reference; what a variable holds is text and not looked
//! at again; `=` belongs to a bare reference behind `?attribute` and `?ssh-format`.

use valetkey_core::SecretReference;

use crate::output::inline;

/// A template, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text as it is.
    Text(String),
    /// Where the value of a reference goes.
    Reference(String),
}

/// What is wrong in a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub(crate) struct TemplateError {
    line: usize,
    fault: String,
}

/// What a variable of the environment holds.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Takes a template apart.
///
/// # Errors
/// [`TemplateError`] for a reference between braces that is none, and for one with a variable that is not set.
pub(crate) fn parse(template: &str, variables: Lookup<'_>) -> Result<Vec<Part>, TemplateError> {
    let mut scanner = Scanner { template, at: 0, variables, parts: Vec::new(), text: String::new() };
    while let Some(next) = scanner.rest().chars().next() {
        if scanner.literal() || scanner.enclosed()? || scanner.bare()? || scanner.variable() {
            continue;
        }
        scanner.text.push(next);
        scanner.at += next.len_utf8();
    }
    scanner.flush();
    Ok(scanner.parts)
}

/// A text that is one reference, with its variables filled in; `None` where it is something else.
///
/// # Errors
/// What is wrong with it, likewise.
pub(crate) fn reference(text: &str, variables: Lookup<'_>) -> Result<Option<String>, String> {
    if !text.starts_with(PREFIX) {
        return Ok(None);
    }
    filled(text, variables).and_then(|text| checked(&text)).map(Some)
}

/// A variable of this process's environment; names count in any case, where the exact one is not set.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .or_else(|| variables().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// The variables of this process's environment. What is no text can neither hold a reference nor be named in one.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

struct Scanner<'a> {
    template: &'a str,
    at: usize,
    variables: Lookup<'a>,
    parts: Vec<Part>,
    /// Text that has not become a part yet.
    text: String,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.template.get(self.at..).unwrap_or_default()
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(Part::Text(std::mem::take(&mut self.text)));
        }
    }

    fn push(&mut self, reference: String, length: usize) {
        self.flush();
        self.parts.push(Part::Reference(reference));
        self.at += length;
    }

    fn fault(&self, fault: String) -> TemplateError {
        let before = self.template.get(..self.at).unwrap_or_default();
        TemplateError { line: before.matches('\n').count() + 1, fault }
    }

    /// `{{ "text" }}`, with `\"` inside.
    fn literal(&mut self) -> bool {
        let Some(inner) = self.rest().strip_prefix("{{") else { return false };
        let Some(quoted) = inner.trim_start_matches(' ').strip_prefix('"') else { return false };
        let mut text = String::new();
        let mut chars = quoted.char_indices();
        while let Some((place, c)) = chars.next() {
            match c {
                '\\' if quoted.get(place + 1..).is_some_and(|rest| rest.starts_with('"')) => {
                    text.push('"');
                    chars.next();
                }
                '"' => {
                    let behind = quoted.get(place + 1..).unwrap_or_default();
                    let Some(after) = behind.trim_start_matches(' ').strip_prefix("}}") else { return false };
                    self.text.push_str(&text);
                    self.at = self.template.len() - after.len();
                    return true;
                }
                c => text.push(c),
            }
        }
        false
    }

    /// `{{ op://… }}`.
    fn enclosed(&mut self) -> Result<bool, TemplateError> {
        let Some(inner) = self.rest().strip_prefix("{{") else { return Ok(false) };
        if !inner.trim_start_matches(' ').starts_with(PREFIX) {
            return Ok(false);
        }
        let Some(end) = inner.find("}}") else {
            return Err(self.fault("`{{ op://` has no `}}`".to_owned()));
        };
        let text = inner.get(..end).unwrap_or_default().trim_matches(' ');
        let reference = filled(text, self.variables).and_then(|text| checked(&text));
        let reference = reference.map_err(|fault| self.fault(fault))?;
        self.push(reference, "{{".len() + end + "}}".len());
        Ok(true)
    }

    /// `op://…` by itself. What cannot be a reference is text.
    fn bare(&mut self) -> Result<bool, TemplateError> {
        let before = self.template.get(..self.at).and_then(|before| before.chars().next_back());
        if !self.rest().starts_with(PREFIX)
            || before.is_some_and(|c| c.is_alphanumeric() || ['-', '+', '\\', '.'].contains(&c))
        {
            return Ok(false);
        }
        let length = bare_length(self.rest());
        let text = self.rest().get(..length).unwrap_or_default();
        match filled(text, self.variables) {
            Ok(reference) if checked(&reference).is_ok() => {
                self.push(reference, length);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn variable(&mut self) -> bool {
        let Some(variable) = Variable::parse(self.rest()) else { return false };
        let Some(value) = variable.value(self.variables) else { return false };
        self.text.push_str(&value);
        self.at += variable.length;
        true
    }
}

/// `$name`, `${ name }` or `${name:-default}`.
struct Variable<'a> {
    name: &'a str,
    default: Option<&'a str>,
    /// Of the whole tag, in bytes.
    length: usize,
}

impl<'a> Variable<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let behind = text.strip_prefix('$')?;
        let (name, default, length) = match behind.strip_prefix('{') {
            Some(inner) => {
                let inner = inner.get(..inner.find('}')?)?;
                let (name, default) = match inner.trim().split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (inner, None),
                };
                (name.trim(), default, "${".len() + inner.len() + "}".len())
            }
            None => {
                let end = behind.find(|c: char| !is_name(c)).unwrap_or(behind.len());
                let name = behind.get(..end)?;
                (name, None, "$".len() + name.len())
            }
        };
        let good = name.starts_with(|c: char| is_name(c) && !c.is_ascii_digit()) && name.chars().all(is_name);
        good.then_some(Self { name, default, length })
    }

    fn value(&self, variables: Lookup<'_>) -> Option<String> {
        variables(self.name).or_else(|| self.default.map(str::to_owned))
    }
}

/// A reference with its variables filled in.
fn filled(text: &str, variables: Lookup<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match Variable::parse(rest) {
            Some(variable) => {
                let value = variable.value(variables);
                let unset = || {
                    format!(
                        "the variable `{}` in a reference is not set; set it, or give it a default",
                        variable.name
                    )
                };
                filled.push_str(&value.ok_or_else(unset)?);
                variable.length
            }
            None => {
                filled.push(next);
                next.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(filled)
}

fn checked(reference: &str) -> Result<String, String> {
    SecretReference::parse(reference)
        .map(|_| reference.to_owned())
        // A template may be somebody else's: what it says does not steer the terminal.
        .map_err(|error| format!("`{}`: {error}", inline(reference)))
}

/// How far a bare reference goes; variables are part of it.
fn bare_length(text: &str) -> usize {
    let mut length = PREFIX.len();
    loop {
        let (before, rest) = text.split_at_checked(length).unwrap_or((text, ""));
        let Some(next) = rest.chars().next() else { return length };
        let assigned = next == '=' && (before.ends_with("?attribute") || before.ends_with("?ssh-format"));
        length += match Variable::parse(rest) {
            Some(variable) => variable.length,
            None if next.is_ascii_alphanumeric() || ['-', '?', '_', '.', '/'].contains(&next) || assigned => {
                1
            }
            None => return length,
        };
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

const PREFIX: &str = "op://";

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "VAULT" => Some("prod".to_owned()),
            "TAG" => Some("op://not/looked/at".to_owned()),
            _ => None,
        }
    }

    /// References are shown as `<…>`.
    fn check(template: &str, expected: &str) {
        let parts = parse(template, &variables).unwrap_or_else(|error| panic!("{template}: {error}"));
        let shown: String = parts
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Reference(reference) => format!("<{reference}>"),
            })
            .collect();
        assert_eq!(shown, expected, "{template}");
    }

    #[test]
    fn references_between_braces() {
        check("a: {{ op://v/i/f }}\n", "a: <op://v/i/f>\n");
        check("{{op://v/My Item/f}}", "<op://v/My Item/f>");
        check("{{ op://$VAULT/i/f }}{{ op://${ OTHER:-dev }/i/f }}", "<op://prod/i/f><op://dev/i/f>");
        check("{{ other }} {{ \"x", "{{ other }} {{ \"x");
    }

    #[test]
    fn references_that_stand_bare() {
        check("op://v/i/f", "<op://v/i/f>");
        check("x=op://v/i/s/f;y", "x=<op://v/i/s/f>;y");
        check("\"op://v/i/otp?attribute=otp\"", "\"<op://v/i/otp?attribute=otp>\"");
        check("op://${VAULT:-dev}/docker/password", "<op://prod/docker/password>");
        check("op://${OTHER:-dev}/docker/password", "<op://dev/docker/password>");
        for text in
            ["xop://v/i/f", "-op://v/i/f", "+op://v/i/f", "\\op://v/i/f", ".op://v/i/f", "op://v/i", "op://"]
        {
            check(text, text);
        }
    }

    #[test]
    fn literals() {
        check(r#"{{ "{{ test op://v/i/f }}" }}"#, "{{ test op://v/i/f }}");
        check(r#"{{ "{{ test \"test\" test }}" }}"#, "{{ test \"test\" test }}");
    }

    #[test]
    fn variables_stand_for_text() {
        check("$VAULT ${VAULT} ${ VAULT }x", "prod prod prodx");
        check("${OTHER:-a b}", "a b");
        check("$TAG", "op://not/looked/at");
        for text in ["$host", "${host}", "$2nd", "$", "${", "$-"] {
            check(text, text);
        }
    }

    #[test]
    fn faults_name_their_line() {
        let fault = |template: &str| parse(template, &variables).unwrap_err().to_string();
        assert!(fault("\n{{ op://v/i }}").starts_with("line 2: `op://v/i`: "));
        assert!(fault("{{ op://v/i/f").contains("has no `}}`"));
        assert!(fault("a\nb\nop://$NONE/i/f").starts_with("line 3: the variable `NONE`"));
    }

    #[test]
    fn one_reference_alone() {
        assert_eq!(reference("op://$VAULT/i/f", &variables), Ok(Some("op://prod/i/f".to_owned())));
        assert_eq!(reference("text", &variables), Ok(None));
        assert!(reference("op://v", &variables).is_err());
    }
}
