//! What exists and who could use it: what reports are made of, beside the log. Ids and names alone, no values.

use crate::identity::{AgentId, ToolId};
use crate::target::Named;

/// An item that can be used, and its vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownItem {
    /// The vault.
    pub vault: Named,
    /// The item.
    pub item: Named,
}

/// What is known of all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Every item that is known and in use, each once; those of one vault stand together.
    pub items: Vec<KnownItem>,
    /// What is not known, or not freshly, in words for a reviewer. Empty where all is.
    pub gaps: Vec<String>,
}

/// Which items an agent could acquire something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessQuestion {
    /// The agent.
    pub agent: AgentId,
    /// With this tool; `None` for any.
    pub tool: Option<ToolId>,
    /// Among these, by their place in the list.
    pub among: Among,
}

/// Which of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Among {
    /// All.
    All,
    /// Those at these places.
    These(Vec<usize>),
}

/// What can be accessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The places of the items, ascending, for each question in its order.
    pub items: Vec<Vec<usize>>,
    /// Whether each was decided. Where not, the policies are too many or too intricate, and what was not decided
    /// counts as accessible.
    pub exact: bool,
}
