//! What agents could use now: the policies in force against what is known of the sources.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::Status;
use valetkey_audit::{LastUse, Thing};
use valetkey_core::{
    Access, AccessQuestion, AgentId, Among, AuditScope, Directory, Inventory, KnownItem, Name, Named,
    PolicyEngine, PolicyId, Timestamp, ToolId,
};
use valetkey_proto::v1;

use super::ask::{About, Period};
use super::count::Used;
use crate::status;
use crate::token::Tokens;

/// What it is worked out from. Clones share the bound of how many do so at once.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) engine: Arc<dyn PolicyEngine>,
    pub(crate) directory: Arc<dyn Directory>,
    /// The agents of the configuration.
    pub(crate) members: Arc<[AgentId]>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) turns: Arc<Semaphore>,
}

/// An item that an agent could use and has not.
pub(super) struct Unused {
    pub(super) agent: String,
    pub(super) vault: Thing,
    pub(super) item: Thing,
    /// Before the period.
    pub(super) last_used: Option<Timestamp>,
}

/// What some agents could use of some items.
struct Reached {
    agents: Vec<AgentId>,
    items: Vec<KnownItem>,
    /// Places of items, for each agent.
    access: Vec<Vec<usize>>,
    gaps: Vec<String>,
    /// Whether these are the items of some vaults alone.
    limited: bool,
}

impl Reach {
    /// The bound of those who work something out at once.
    pub(crate) const TURNS: usize = 2;

    /// The policies in force.
    pub(super) fn policies(&self) -> Vec<PolicyId> {
        self.engine.policies()
    }

    /// What can be accessed of what a report is about, and of each of its rows.
    pub(super) async fn of_usage(
        &self,
        about: About,
        scope: AuditScope,
        rows: Vec<Used>,
    ) -> Result<(v1::ReportAccess, Vec<(Used, bool)>), Status> {
        self.run(move |reach| {
            let agents = match &about {
                About::Agent(agent) => vec![agent.clone()],
                About::Everybody | About::Vault(_) | About::Item { .. } | About::Tool(_) => {
                    reach.agents(&rows)
                }
            };
            let (tool, is_one) = match &about {
                About::Tool(tool) => (Some(tool.clone()), false),
                About::Agent(_) => (None, true),
                About::Everybody | About::Vault(_) | About::Item { .. } => (None, false),
            };
            let limited = is_limited(&scope);
            let mut inventory = reach.inventory(&scope);
            let known = inventory.items.clone();
            inventory.items.retain(|item| about.covers(item));
            let reached = Reached { limited, ..reach.reached(agents, tool, inventory) };
            (reached.print(is_one), reach.still(rows, &known))
        })
        .await
    }

    /// What could be accessed and was not used since the period began.
    pub(super) async fn unused(
        &self,
        agent: Option<AgentId>,
        scope: AuditScope,
        uses: Vec<LastUse>,
        period: Period,
    ) -> Result<(v1::ReportAccess, Vec<Unused>), Status> {
        self.run(move |reach| {
            let is_one = agent.is_some();
            let of_log = uses.iter().filter_map(|last| agent_of(&last.agent));
            let agents = agent.map_or_else(|| reach.agents_and(of_log), |agent| vec![agent]);
            let inventory = reach.inventory(&scope);
            let reached = Reached { limited: is_limited(&scope), ..reach.reached(agents, None, inventory) };
            let since = Timestamp::from_micros(period.start_us());
            (reached.print(is_one), reached.unused(&uses, since))
        })
        .await
    }

    /// Works something out where it may block, when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = tokio::time::timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(status::query_limit("too many reports are being made; ask again"));
        };
        let reach = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&reach);
            drop(turn);
            done
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a report could not be made");
            status::internal("")
        })
    }

    /// Everybody who may be an agent: by policy, by configuration, by token, and by what was done.
    fn agents(&self, rows: &[Used]) -> Vec<AgentId> {
        self.agents_and(rows.iter().filter_map(|row| agent_of(row.agent.as_deref()?)))
    }

    fn agents_and(&self, of_log: impl Iterator<Item = AgentId>) -> Vec<AgentId> {
        let members = self.members.iter().cloned().chain(self.tokens.agents());
        let all: BTreeSet<_> = self.engine.agents().into_iter().chain(members).chain(of_log).collect();
        all.into_iter().collect()
    }

    /// The items that somebody with this scope may know of, by name.
    fn inventory(&self, scope: &AuditScope) -> Inventory {
        let Inventory { mut items, mut gaps } = self.directory.inventory();
        if let AuditScope::Vaults(vaults) = scope {
            let allowed: HashSet<_> = vaults.iter().map(|vault| (&*vault.id, &*vault.name)).collect();
            items.retain(|known| allowed.contains(&(&*known.vault.id, &*known.vault.name)));
            // Whatever it is, it may be about other vaults.
            gaps = gaps
                .first()
                .map(|_| "the vaults are not known whole, or not freshly".to_owned())
                .into_iter()
                .collect();
        }
        items.sort_by(|one, two| order(one).cmp(&order(two)));
        Inventory { items, gaps }
    }

    fn reached(&self, mut agents: Vec<AgentId>, tool: Option<ToolId>, inventory: Inventory) -> Reached {
        let Inventory { items, mut gaps } = inventory;
        let agents_max = PAIRS_MAX.checked_div(items.len()).unwrap_or(usize::MAX);
        if agents.len() > agents_max {
            gaps.push("there are too many agents to try them all: some are left out".to_owned());
            agents.truncate(agents_max);
        }
        let question =
            |agent: &AgentId| AccessQuestion { agent: agent.clone(), tool: tool.clone(), among: Among::All };
        let questions: Vec<_> = agents.iter().map(question).collect();
        let Access { items: access, exact } = self.engine.access(&items, &questions);
        if !exact {
            gaps.push("the policies are too many to be tried whole; what is in doubt counts".to_owned());
        }
        Reached { agents, items, access, gaps, limited: false }
    }

    /// Whether each row's agent could still use the item with the tool. What the sources no longer know goes by the
    /// name that it had.
    fn still(&self, rows: Vec<Used>, known: &[KnownItem]) -> Vec<(Used, bool)> {
        let known: HashMap<_, _> = known.iter().map(|it| ((&*it.vault.id, &*it.item.id), it)).collect();
        let mut items: Vec<KnownItem> = Vec::new();
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        let mut wanted: BTreeMap<(AgentId, ToolId), Vec<usize>> = BTreeMap::new();
        let mut asked: Vec<Option<((AgentId, ToolId), usize)>> = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some((who, vault, item)) = identified(row) else {
                asked.push(None);
                continue;
            };
            let place = *places.entry((vault.id.clone(), item.id.clone())).or_insert_with(|| {
                let current = known.get(&(vault.id.as_str(), item.id.as_str()));
                items.push(current.map_or_else(
                    || KnownItem { vault: formerly(vault), item: formerly(item) },
                    |current| (*current).clone(),
                ));
                items.len() - 1
            });
            wanted.entry(who.clone()).or_default().push(place);
            asked.push(Some((who, place)));
        }
        let question = |((agent, tool), places): (&(AgentId, ToolId), &Vec<usize>)| AccessQuestion {
            agent: agent.clone(),
            tool: Some(tool.clone()),
            among: Among::These(places.clone()),
        };
        let questions: Vec<_> = wanted.iter().map(question).collect();
        let answers = self.engine.access(&items, &questions).items;
        let allowed: HashMap<_, HashSet<usize>> =
            wanted.into_keys().zip(answers.into_iter().map(HashSet::from_iter)).collect();
        let is_allowed = |asked: Option<((AgentId, ToolId), usize)>| {
            asked.is_some_and(|(who, place)| allowed.get(&who).is_some_and(|it| it.contains(&place)))
        };
        rows.into_iter().zip(asked.into_iter().map(is_allowed)).collect()
    }
}

impl Reached {
    fn print(&self, is_one: bool) -> v1::ReportAccess {
        let Self { agents, items, access, gaps, limited } = self;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let places: HashSet<usize> = access.iter().flatten().copied().collect();
        let vaults: HashSet<_> =
            places.iter().filter_map(|place| Some(&items.get(*place)?.vault.id)).collect();
        let mut able: Vec<String> = Vec::new();
        if !is_one {
            let some = agents.iter().zip(access).filter(|(_, access)| !access.is_empty());
            able.extend(some.map(|(agent, _)| agent.to_string()));
        }
        v1::ReportAccess {
            vaults: count(vaults.len()),
            items: count(places.len()),
            agents: count(able.len()),
            complete: gaps.is_empty(),
            incomplete_reason: gaps.join("; "),
            agent_names: able.into_iter().take(AGENTS_NAMED_MAX).collect(),
            limited: *limited,
        }
    }

    /// What was not used since then; one more than fits, at most.
    fn unused(self, uses: &[LastUse], since: Timestamp) -> Vec<Unused> {
        let Self { agents, items, access, gaps: _, limited: _ } = self;
        let last: HashMap<_, _> =
            uses.iter().map(|it| ((&*it.agent, &*it.vault.id, &*it.item.id), it.time)).collect();
        let mut unused = Vec::new();
        for (agent, places) in agents.iter().zip(access) {
            for KnownItem { vault, item } in places.into_iter().filter_map(|place| items.get(place)) {
                let last_used = last.get(&(agent.0.as_str(), &*vault.id, &*item.id)).copied();
                if last_used.is_some_and(|time| time >= since) {
                    continue;
                }
                if unused.len() > super::USAGES_MAX {
                    return unused;
                }
                let agent = agent.to_string();
                unused.push(Unused { agent, vault: thing(vault), item: thing(item), last_used });
            }
        }
        unused
    }
}

/// Who used what, where all of that is known.
fn identified(row: &Used) -> Option<((AgentId, ToolId), &Thing, &Thing)> {
    let tool = Name::parse(row.tool.as_deref()?).ok().map(ToolId)?;
    Some(((agent_of(row.agent.as_deref()?)?, tool), row.vault.as_ref()?, row.item.as_ref()?))
}

fn is_limited(scope: &AuditScope) -> bool {
    matches!(scope, AuditScope::Vaults(_))
}

fn agent_of(text: &str) -> Option<AgentId> {
    Name::parse(text).ok().map(AgentId)
}

fn formerly(thing: &Thing) -> Named {
    let Thing { id, name } = thing;
    Named { id: id.as_str().into(), name: name.as_str().into(), name_is_unique: true }
}

fn thing(named: &Named) -> Thing {
    Thing { id: named.id.to_string(), name: named.name.to_string() }
}

fn order(known: &KnownItem) -> [&str; 4] {
    let KnownItem { vault, item } = known;
    [&vault.name, &vault.id, &item.name, &item.id]
}

const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Agents times items.
const PAIRS_MAX: usize = 20_000_000;
const AGENTS_NAMED_MAX: usize = 1_000;
