//! Who may do what: the policies' answers as tables that anybody can read.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use valetkey_core::{
    AccessKind, AccessRequest, AdminAction, AdminRequest, AdminResource, AgentId, Binding, Call, Credential,
    Decision, Deny, Facet, FieldTarget, Identity, LeaseId, Life, Name, Named, PersonId, PolicyEngine,
    PublicId, Reason, Redeemer, ReferenceError, RequestId, SecretReference, Target, ToolId,
};

use crate::bundle::Bundle;
use crate::engine::Engine;

/// Whom and what a matrix is about: the contents of `matrix.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cast {
    /// Names of agents.
    pub agents: Vec<String>,
    /// Names of tools.
    pub tools: Vec<String>,
    /// Names of people.
    pub people: Vec<String>,
    /// The items, with the fields to ask for.
    pub items: Vec<CastItem>,
}

/// One item of a [`Cast`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CastItem {
    /// The vault's name.
    pub vault: String,
    /// The vault's id; must be set if a policy names the vault by it.
    #[serde(default = "no_id")]
    pub vault_id: String,
    /// The item's name.
    pub item: String,
    /// The item's id; must be set if a policy names the item by it.
    #[serde(default = "no_id")]
    pub item_id: String,
    /// Labels of fields, with `?otp`, `?seed` or `?openssh` where not the plain value is meant.
    pub fields: Vec<String>,
}

/// Why a text is no [`Cast`].
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    /// Not the JSON of a cast.
    #[error("not the JSON of a matrix: {0}")]
    Json(#[from] serde_json::Error),
    /// A name that no caller can have.
    #[error("`{0}` is no name of an agent, a tool or a person")]
    Name(String),
    /// A mistake of ours.
    #[error("the placeholder reference is malformed")]
    Reference(#[from] ReferenceError),
}

impl Cast {
    /// Parses a cast.
    ///
    /// # Errors
    /// [`CastError::Json`] where the text has another form.
    pub fn from_json(text: &str) -> Result<Self, CastError> {
        Ok(serde_json::from_str(text)?)
    }
}

/// Asks an engine with these policies about everybody and everything in the cast.
///
/// # Errors
/// [`CastError`] where the cast has names that no caller can have.
pub fn matrix(bundle: &Bundle, cast: &Cast) -> Result<String, CastError> {
    let matrix = Matrix {
        engine: Engine::new(bundle.clone()),
        agents: names(&cast.agents, AgentId)?,
        tools: names(&cast.tools, ToolId)?,
        people: names(&cast.people, PersonId)?,
        targets: cast.items.iter().flat_map(targets).collect(),
        reference: SecretReference::parse("op://matrix/matrix/matrix")?,
    };
    let mut text = String::from(LEGEND);
    for agent in &matrix.agents {
        text.push_str(&matrix.of_agent(agent));
    }
    text.push_str(&matrix.of_administration());
    Ok(text)
}

struct Matrix {
    engine: Engine,
    agents: Vec<AgentId>,
    tools: Vec<ToolId>,
    people: Vec<PersonId>,
    targets: Vec<(String, Arc<Target>)>,
    /// Policy does not see it.
    reference: SecretReference,
}

/// A table: a title, the columns' heads, and rows of a label and cells.
struct Table {
    title: String,
    heads: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Matrix {
    fn of_agent(&self, agent: &AgentId) -> String {
        let mut text = format!("\n== agent {agent} ==\n");
        let asks = [
            ("asks for a handle, for the tool", AccessKind::Acquire, Redeemer::Agent),
            ("leased it: the tool redeems", AccessKind::Redeem, Redeemer::Tool),
            ("leased it: the agent itself redeems, for the tool", AccessKind::Redeem, Redeemer::Agent),
        ];
        for (title, kind, caller) in asks {
            let row = |(label, target): &(String, Arc<Target>)| {
                let cell = |tool| self.access(kind, caller, agent, tool, target);
                (label.clone(), self.tools.iter().map(cell).collect())
            };
            let heads = self.tools.iter().map(ToString::to_string).collect();
            let rows = self.targets.iter().map(row).collect();
            text.push_str(&Table { title: title.to_owned(), heads, rows }.render());
        }
        text
    }

    fn of_administration(&self) -> String {
        let people = self.people.iter().cloned().map(Identity::Person);
        let agents = self.agents.iter().cloned().map(Identity::Agent);
        let lease = |agent: &AgentId| AdminResource::Lease {
            id: LeaseId(PublicId::from_bytes([0; 10])),
            holder: Some(agent.clone()),
        };
        let mut columns = vec![
            ("read the log".to_owned(), AdminAction::ReadAudit, AdminResource::AuditLog),
            ("find a value".to_owned(), AdminAction::FindValue, AdminResource::AuditLog),
            ("operate".to_owned(), AdminAction::Operate, AdminResource::Broker),
            ("manage tokens".to_owned(), AdminAction::CreateToken, AdminResource::Broker),
        ];
        columns.extend(
            self.agents
                .iter()
                .map(|agent| (format!("end a lease of {agent}"), AdminAction::Revoke, lease(agent))),
        );
        let row = |caller: Identity| {
            let cell = |(_, action, resource): &(String, AdminAction, AdminResource)| {
                self.admin(&caller, *action, resource.clone())
            };
            let vaults = self.vaults().into_iter().map(|vault| self.review(&caller, vault));
            (caller.to_string(), columns.iter().map(cell).chain(vaults).collect())
        };
        let rows = people.chain(agents).map(row).collect();
        let vaults = self.vaults().into_iter().map(|vault| format!("read of {}", vault.name));
        let heads = columns.iter().map(|(head, _, _)| head.clone()).chain(vaults).collect();
        format!("\n== administration ==\n{}", Table { title: "may".to_owned(), heads, rows }.render())
    }

    /// Each once, in the order of the cast.
    fn vaults(&self) -> Vec<&Named> {
        let mut vaults: Vec<&Named> = self.targets.iter().filter_map(|(_, target)| target.vault()).collect();
        let mut seen = HashSet::new();
        vaults.retain(|vault| seen.insert(*vault));
        vaults
    }

    /// Whether a caller may read what the log has about a vault.
    fn review(&self, caller: &Identity, vault: &Named) -> String {
        answer(&self.engine.decide_audit(caller, std::slice::from_ref(vault)).0)
    }

    fn access(
        &self,
        kind: AccessKind,
        caller: Redeemer,
        agent: &AgentId,
        tool: &ToolId,
        target: &Arc<Target>,
    ) -> String {
        let caller = match caller {
            Redeemer::Tool => Identity::Tool(tool.clone()),
            Redeemer::Agent => Identity::Agent(agent.clone()),
        };
        let call = call(caller);
        answer(&self.engine.decide(&AccessRequest {
            opened_by: Arc::clone(&call),
            call,
            kind,
            agent: agent.clone(),
            tool: tool.clone(),
            reference: self.reference.clone(),
            target: Arc::clone(target),
            life: Life::Usual(LIFE),
            purpose: None,
            session: None,
            destination: None,
            lease: None,
            handle: None,
        }))
    }

    fn admin(&self, caller: &Identity, action: AdminAction, resource: AdminResource) -> String {
        let call = call(caller.clone());
        answer(&self.engine.decide_admin(&AdminRequest { call, action, resource, detail: "".into() }))
    }
}

impl Table {
    fn render(&self) -> String {
        let mut text = format!("\n{}\n", self.title);
        if self.rows.iter().flat_map(|(_, cells)| cells).all(|cell| cell == NO) {
            text.push_str("    nothing\n");
            return text;
        }
        let label_width = self.rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (self.heads.iter().enumerate())
            .map(|(column, head)| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column)).map(String::len);
                cells.chain([head.len()]).max().unwrap_or(0)
            })
            .collect();
        let empty = String::new();
        let heads = std::iter::once((&empty, &self.heads));
        for (label, cells) in heads.chain(self.rows.iter().map(|(label, cells)| (label, cells))) {
            let mut line = format!("    {label:label_width$}");
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(line, "  {cell:width$}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn answer(decision: &Decision) -> String {
    let allow = match decision {
        Decision::Allow(allow) => allow,
        Decision::Deny(Deny { reason: Reason::PolicyForbid, .. }) => return "NEVER".to_owned(),
        Decision::Deny(Deny { reason: Reason::PolicyError, .. }) => return "ERROR".to_owned(),
        Decision::Deny(_) => return NO.to_owned(),
    };
    let mut text = "yes".to_owned();
    if let Some(max) = allow.obligations.ttl_max {
        text.push_str(&format!(", {} s", max.as_secs()));
    }
    if allow.obligations.uses != 1 {
        text.push_str(&format!(", {} uses", allow.obligations.uses));
    }
    if allow.obligations.redeemer == Redeemer::Agent {
        text.push_str(", agent redeems");
    }
    if allow.obligations.binding == Binding::Certificate {
        text.push_str(", bound to a certificate");
    }
    if let Some(groups) = &allow.obligations.approval {
        let names: Vec<_> = groups.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", approved in {}", names.join(" and ")));
    }
    text
}

fn targets(item: &CastItem) -> Vec<(String, Arc<Target>)> {
    let CastItem { vault, vault_id, item, item_id, fields } = item;
    let named = |id: &str, name: &str| Named {
        id: id.into(),
        name: name.to_lowercase().into(),
        name_is_unique: true,
    };
    let target = |field: &String| {
        let (label, facet) = facet(field);
        let label: Arc<str> = label.to_lowercase().into();
        let target = FieldTarget {
            vault: named(vault_id, vault),
            item: named(item_id, item),
            field_id: Arc::clone(&label),
            field: label,
            section: "".into(),
            facet,
        };
        (format!("{vault}/{item}/{field}"), Arc::new(Target::Field(target)))
    };
    fields.iter().map(target).collect()
}

fn facet(field: &str) -> (&str, Facet) {
    let facets = [("?otp", Facet::Otp), ("?seed", Facet::Seed), ("?openssh", Facet::OpensshKey)];
    let named = facets.into_iter().find_map(|(end, facet)| Some((field.strip_suffix(end)?, facet)));
    named.unwrap_or((field, Facet::Value))
}

fn names<T>(texts: &[String], make: fn(Name) -> T) -> Result<Vec<T>, CastError> {
    texts.iter().map(|text| Name::parse(text).map(make).map_err(|_| CastError::Name(text.clone()))).collect()
}

fn call(caller: Identity) -> Arc<Call> {
    Arc::new(Call {
        id: RequestId::random(),
        caller,
        key: None,
        client: "".into(),
        trace: None,
        credential: Credential::new("", None),
        claims: [].into(),
        behalf: None,
    })
}

fn no_id() -> String {
    "0".repeat(26)
}

const NO: &str = "no";
/// The broker's own default.
const LIFE: Duration = Duration::from_secs(60);
const LEGEND: &str = "\
Who may do what, by the policies in this directory. Generated; not edited.

yes      allowed, with the longest life of a handle, and its uses where they are not one
no       no policy permits it
NEVER    a policy forbids it, whatever others permit
";
