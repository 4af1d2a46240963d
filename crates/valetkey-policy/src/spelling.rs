//! Names stand in policies in lower case, and nothing else is accepted.
//!
//! Vaults, items and labels have case-insensitive names, and the broker asks policy in lower case. A name
//! with a capital would match nothing: on a forbid, that is an open door. So the loader refuses every
//! spelling that no request can have.

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, PatternElem, Var};
use cedar_policy::{EntityUid, Policy};

use crate::entities::TYPES;

/// What is wrong with the way a policy or an entity names a vault, an item or a secret.
pub(crate) fn check_uid(uid: &EntityUid) -> Result<(), String> {
    let (type_name, id) = (uid.type_name(), uid.id().unescaped());
    let fault = if *type_name == TYPES.vault {
        vault_fault(id)
    } else if *type_name == TYPES.item {
        item_fault(id)
    } else if *type_name == TYPES.secret {
        secret_fault(id)
    } else {
        None
    };
    fault.map_or(Ok(()), |fault| Err(format!("`{uid}` can match nothing: {fault}")))
}

/// The texts that a policy compares with something that is always in lower case, and that are not.
pub(crate) fn capitals(policy: &Policy) -> Vec<String> {
    // Reading the syntax tree means parsing again; most policies have nothing to look for.
    let text = policy.to_cedar().unwrap_or_default();
    if !LOWER_ATTRIBUTES.iter().any(|(_, attribute)| text.contains(attribute)) {
        return Vec::new();
    }
    let Ok(tree) = policy.to_pst() else {
        return vec!["the policy's conditions could not be read".to_owned()];
    };
    let mut found = Vec::new();
    for clause in tree.body().clauses() {
        let (Clause::When(condition) | Clause::Unless(condition)) = clause;
        walk(condition, &mut found);
    }
    found
}

fn vault_fault(id: &str) -> Option<&'static str> {
    if id.contains('/') {
        return Some("a vault is named by its id, or by its name where that has no `/`");
    }
    name_fault(id)
}

fn item_fault(id: &str) -> Option<&'static str> {
    let Some((vault, item)) = id.split_once('/') else {
        return (!is_id(id)).then_some("an item is named by its id, or as `<vault name>/<item name>`");
    };
    if is_id(vault) || is_id(item) {
        return Some("an item is named by its id alone, or as `<vault name>/<item name>`");
    }
    name_fault(vault).or_else(|| name_fault(item))
}

fn secret_fault(id: &str) -> Option<&'static str> {
    let mut parts = id.splitn(3, '/');
    let ids = parts.next().is_some_and(is_id) && parts.next().is_some_and(is_id);
    let field = parts.next().is_some_and(|field| !field.is_empty());
    (!ids || !field).then_some("a secret is named as `<vault id>/<item id>/<field id>`")
}

fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.trim() != name {
        return Some("a name is not empty and neither begins nor ends with a blank");
    }
    (!is_lower(name)).then_some("names are written in lower case")
}

/// 26 characters of `a-z 0-9`: the form of 1Password's ids.
fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_lower(text: &str) -> bool {
    text.to_lowercase() == text
}

fn walk(expr: &Expr, found: &mut Vec<String>) {
    match expr {
        Expr::BinaryOp { op, left, right }
            if !matches!(op, BinaryOp::And | BinaryOp::Or) && (mentions(left) || mentions(right)) =>
        {
            texts(left, found);
            texts(right, found);
        }
        Expr::Like { expr, pattern } if mentions(expr) => {
            let literal = |part: &PatternElem| match part {
                PatternElem::Char(c) => *c,
                PatternElem::Wildcard => '*',
            };
            refuse_capitals(&pattern.iter().map(literal).collect::<String>(), found);
        }
        _ => children(expr).into_iter().for_each(|child| walk(child, found)),
    }
}

/// Whether something that is always in lower case plays a part.
fn mentions(expr: &Expr) -> bool {
    if let Expr::GetAttr { expr, attr } = expr
        && let Expr::Var(var) = &**expr
        && LOWER_ATTRIBUTES.iter().any(|lower| *lower == (var.clone(), &**attr))
    {
        return true;
    }
    children(expr).into_iter().any(mentions)
}

fn texts(expr: &Expr, found: &mut Vec<String>) {
    if let Expr::Literal(Literal::String(text)) = expr {
        refuse_capitals(text, found);
    }
    children(expr).into_iter().for_each(|child| texts(child, found));
}

fn refuse_capitals(text: &str, found: &mut Vec<String>) {
    if !is_lower(text) {
        found.push(format!(
            "`{}` can match nothing: labels, kinds and hosts are written in lower case",
            text.escape_debug()
        ));
    }
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::UnaryOp { expr, .. }
        | Expr::GetAttr { expr, .. }
        | Expr::HasAttr { expr, .. }
        | Expr::Like { expr, .. } => vec![expr],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Is { expr, in_expr, .. } => std::iter::once(&**expr).chain(in_expr.as_deref()).collect(),
        Expr::IfThenElse { cond, then_expr, else_expr } => vec![cond, then_expr, else_expr],
        Expr::Set(members) => members.iter().map(|member| &**member).collect(),
        Expr::Record(members) => members.values().map(|member| &**member).collect(),
        _ => Vec::new(),
    }
}

const LOWER_ATTRIBUTES: [(Var, &str); 4] = [
    (Var::Resource, "field"),
    (Var::Resource, "section"),
    (Var::Resource, "kind"),
    (Var::Context, "destination"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn only_spellings_that_can_match() {
        const ID: &str = "abcdefghijklmnopqrstuvwxyz";
        let check = |text: &str, good: bool| {
            let uid = EntityUid::from_str(text).unwrap();
            assert_eq!(check_uid(&uid).is_ok(), good, "{text}: {:?}", check_uid(&uid));
        };
        check(r#"Vault::"tutorial""#, true);
        check(r#"Vault::"käse 2""#, true);
        check(&format!(r#"Vault::"{ID}""#), true);
        check(r#"Item::"tutorial/travel card""#, true);
        check(&format!(r#"Item::"{ID}""#), true);
        check(&format!(r#"Secret::"{ID}/{ID}/password""#), true);
        check(&format!(r#"Secret::"{ID}/{ID}/TOTP_1?otp""#), true);
        check(r#"Agent::"Any-Case""#, true);

        check(r#"Vault::"Tutorial""#, false);
        check(r#"Vault::"KÄSE""#, false);
        check(r#"Vault::"tutorial/navan""#, false);
        check(r#"Vault::" tutorial""#, false);
        check(r#"Vault::"""#, false);
        check(r#"Item::"navan""#, false);
        check(r#"Item::"tutorial/Navan""#, false);
        check(r#"Item::"tutorial/""#, false);
        check(r#"Item::"/navan""#, false);
        check(&format!(r#"Item::"tutorial/{ID}""#), false);
        check(&format!(r#"Item::"{ID}/navan""#), false);
        check(&format!(r#"Item::"{}""#, ID.to_uppercase()), false);
        check(r#"Secret::"tutorial/navan/password""#, false);
        check(&format!(r#"Secret::"{ID}/{ID}""#), false);
    }

    #[test]
    fn texts_in_conditions() {
        let check = |condition: &str, count: usize| {
            let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
            let policy = Policy::from_str(&text).unwrap();
            assert_eq!(capitals(&policy).len(), count, "{condition}");
        };
        check(r#"resource.field == "password""#, 0);
        check(r#"resource.field == "Password""#, 1);
        check(r#"resource["field"] != "Password""#, 1);
        check(r#""Password" == resource.field"#, 1);
        check(r#"["pin", "CVV", "Number"].contains(resource.field)"#, 2);
        check(r#"resource.section like "*Card*""#, 1);
        check(r#"true && (context.ttl < 5 || !(resource.kind == "OTP"))"#, 1);
        check(r#"(if context.ttl < 5 then resource.field else "") == "PIN""#, 1);
        check(r#"context has destination && context.destination == "API.example.com""#, 1);
        check(r#"context.session.id == "Run-7""#, 0);
        check(r#"resource.field == "pin" && context.session.id == "Run-7""#, 0);
    }
}
