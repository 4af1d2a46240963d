//! Policies of the usual kind in any number, and requests that meet them: for tests and benches.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use valetkey_core::{
    AccessKind, AccessRequest, AgentId, Call, Credential, Facet, FieldTarget, Identity, Life, Name,
    NameError, Named, PublicId, ReferenceError, RequestId, SecretReference, Target, ToolId,
};

/// A policy set as texts.
pub struct Generated {
    /// The schema of the default policies.
    pub schema: &'static str,
    /// Names and texts of policy files, 1,000 policies in each.
    pub policies: Vec<(String, String)>,
    /// The entities.
    pub entities: String,
    /// Requests, most of which several policies concern and some policy permits.
    pub requests: Vec<AccessRequest>,
}

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A name breaks its rules.
    #[error("`{0}` is no name")]
    Name(String, #[source] NameError),
    /// A mistake of ours.
    #[error("the placeholder reference is malformed")]
    Reference(#[from] ReferenceError),
}

/// Makes `count` policies: by turns a team in a vault, one agent for one item, a team's tools redeeming
/// in a vault, and a forbid on one item. The more policies, the more teams, agents, vaults and items;
/// what concerns one request stays as it is.
///
/// # Errors
/// Never, unless this module is wrong.
pub fn generate(count: usize) -> Result<Generated, GenerateError> {
    let blocks = count.div_ceil(BLOCK).max(1);
    let texts: Vec<String> = (0..count).map(policy).collect();
    let policies = (texts.chunks(1_000).enumerate())
        .map(|(file, texts)| (format!("generated-{file:03}.cedar"), texts.concat()))
        .collect();
    let requests = (0..blocks).map(usual_requests).collect::<Result<Vec<_>, _>>()?;
    Ok(Generated {
        schema: include_str!("../../../policies/schema.cedarschema"),
        policies,
        entities: entities(blocks),
        requests: requests.into_iter().flatten().collect(),
    })
}

/// A request; what policy does not see is the same in all.
///
/// # Errors
/// [`GenerateError::Name`] where the agent or the tool has no proper name.
pub fn request(
    kind: AccessKind,
    agent: &str,
    tool: &str,
    target: Target,
) -> Result<AccessRequest, GenerateError> {
    let (agent, tool) = (AgentId(name(agent)?), ToolId(name(tool)?));
    let caller = match kind {
        AccessKind::Redeem => Identity::Tool(tool.clone()),
        AccessKind::Acquire | AccessKind::Renew | AccessKind::Check => Identity::Agent(agent.clone()),
    };
    let id = RequestId(PublicId::from_bytes([0; 10]));
    let call = Arc::new(Call {
        id,
        caller,
        key: None,
        client: "".into(),
        trace: None,
        credential: Credential::new("", None),
        claims: [].into(),
        behalf: None,
    });
    Ok(AccessRequest {
        opened_by: Arc::clone(&call),
        call,
        kind,
        agent,
        tool,
        reference: SecretReference::parse("op://vault/item/field")?,
        target: Arc::new(target),
        life: Life::Usual(Duration::from_secs(60)),
        purpose: None,
        session: None,
        destination: None,
        lease: None,
        handle: None,
    })
}

/// A field's plain value in an item whose names are its own, and whose ids are made from them.
#[must_use]
pub fn field(vault: &str, item: &str, field: &str) -> Target {
    Target::Field(FieldTarget {
        vault: named(vault),
        item: named(item),
        field_id: field.to_lowercase().into(),
        field: field.to_lowercase().into(),
        section: "".into(),
        facet: Facet::Value,
    })
}

/// A vault or an item with a name of its own, and an id made from it.
#[must_use]
pub fn named(text: &str) -> Named {
    let plain = text.bytes().filter(u8::is_ascii_alphanumeric).map(|c| char::from(c.to_ascii_lowercase()));
    let id: String = plain.chain("0".repeat(26).chars()).take(26).collect();
    Named { id: id.into(), name: text.to_lowercase().into(), name_is_unique: true }
}

fn usual_requests(block: usize) -> Result<[AccessRequest; 3], GenerateError> {
    let (vault, bot) = (format!("vault-{block}"), format!("bot-{block}-1"));
    let target = |item: usize| field(&vault, &format!("item-{item}"), "password");
    Ok([
        request(AccessKind::Acquire, &bot, &format!("tool-{block}-1"), target(1))?,
        request(AccessKind::Acquire, &bot, &format!("tool-{block}-2"), target(3))?,
        request(AccessKind::Redeem, &bot, &format!("tool-{block}-1"), target(1))?,
    ])
}

fn policy(number: usize) -> String {
    let (block, place) = (number / BLOCK, number % BLOCK);
    let (team, vault, tools) = (format!("team-{block}"), format!("vault-{block}"), format!("tools-{block}"));
    let (member, item) = (place / 4, place / 4 + 1);
    let (scope, condition) = match place % 4 {
        0 => (
            format!(
                r#"permit (principal in Team::"{team}", action == Action::"acquire", resource in Vault::"{vault}")"#
            ),
            format!(r#"when {{ context.tool in Toolset::"{tools}" && context.ttl <= {} }}"#, 300 + place),
        ),
        1 => (
            format!(
                r#"permit (principal == Agent::"bot-{block}-{member}", action in Action::"access", resource in Item::"{vault}/item-{item}")"#
            ),
            format!(
                r#"when {{ context.tool == Tool::"tool-{block}-1" && ["username", "password"].contains(resource.field) }}"#
            ),
        ),
        2 => (
            format!(
                r#"permit (principal in Toolset::"{tools}", action == Action::"redeem", resource in Vault::"{vault}")"#
            ),
            format!(r#"when {{ context.agent in Team::"{team}" && context.tool == principal }}"#),
        ),
        _ => (
            format!(
                r#"forbid (principal, action in Action::"access", resource in Item::"{vault}/item-{item}")"#
            ),
            format!(r#"unless {{ context.tool in Toolset::"{tools}" }}"#),
        ),
    };
    format!("@id(\"generated-{number}\")\n{scope}\n{condition};\n\n")
}

fn entities(blocks: usize) -> String {
    let mut text = String::new();
    let mut add = |kind: &str, id: String, parent_kind: &str, parent: String| {
        let separator = if text.is_empty() { '[' } else { ',' };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{separator}{{"uid":{{"type":"{kind}","id":"{id}"}},"attrs":{{}},"parents":[{{"type":"{parent_kind}","id":"{parent}"}}]}}"#
        );
    };
    for block in 0..blocks {
        for member in 0..MEMBERS {
            add("Agent", format!("bot-{block}-{member}"), "Team", format!("team-{block}"));
            add("Tool", format!("tool-{block}-{member}"), "Toolset", format!("tools-{block}"));
        }
    }
    text.push(']');
    text
}

fn name(text: &str) -> Result<Name, GenerateError> {
    Name::parse(text).map_err(|error| GenerateError::Name(text.to_owned(), error))
}

/// Policies that share a team, a vault and a set of tools.
const BLOCK: usize = 10;
const MEMBERS: usize = 5;
