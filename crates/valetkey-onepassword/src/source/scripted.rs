//! An upstream in memory that does as it is told: faults in a queue, a gate that holds questions back, a list
//! of what it was asked.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;
use valetkey_core::{ResolveError, SecretValue};

use crate::full_item;
use crate::item::{FieldKind, ItemOutline, ItemState, ItemValues, Vault};
use crate::json::{Faults, Node};
use crate::upstream::{ItemSummary, Question, Upstream, UpstreamError};

/// The upstream, and the one that tells it what to do. Clones are one.
#[derive(Clone)]
pub(crate) struct Script(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    gate: watch::Sender<bool>,
}

struct State {
    world: Value,
    calls: Vec<String>,
    faults: VecDeque<ResolveError>,
    down: Option<ResolveError>,
    /// Whether its failures are of questions that were not sent; and what a sign-in has cost.
    is_cut_off: bool,
    sign_in: u32,
    under_way: usize,
    under_way_max: usize,
}

impl Script {
    /// Serves the vaults and items of a vault file.
    pub(crate) fn new(world: Value) -> Self {
        let state = State {
            world,
            calls: Vec::new(),
            faults: VecDeque::new(),
            down: None,
            is_cut_off: false,
            sign_in: 0,
            under_way: 0,
            under_way_max: 0,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), gate: watch::Sender::new(true) }))
    }

    /// What it was asked so far; and forgets it.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Changes the world.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.lock().world);
    }

    /// Fails the next question.
    pub(crate) fn fail_next(&self, error: ResolveError) {
        self.lock().faults.push_back(error);
    }

    /// Fails all questions, or answers again.
    pub(crate) fn set_down(&self, error: Option<ResolveError>) {
        self.lock().down = error;
    }

    /// Fails, from now on, before anything is sent.
    pub(crate) fn cut_off(&self) {
        let mut state = self.lock();
        (state.down, state.is_cut_off) = (Some(ResolveError::Unavailable), true);
    }

    /// Has signed in, for so many requests.
    pub(crate) fn sign_in(&self, requests: u32) {
        self.lock().sign_in += requests;
    }

    /// Holds questions back, or lets them go.
    pub(crate) fn set_gate(&self, open: bool) {
        self.0.gate.send_replace(open);
    }

    /// How many questions are under way, and how many were at once.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        let state = self.lock();
        (state.under_way, state.under_way_max)
    }

    async fn ask(&self, call: String) -> Result<(), UpstreamError> {
        let _under_way = {
            let mut state = self.lock();
            state.calls.push(call);
            state.under_way += 1;
            state.under_way_max = state.under_way_max.max(state.under_way);
            UnderWay(self)
        };
        let _ = self.0.gate.subscribe().wait_for(|open| *open).await;
        let mut state = self.lock();
        match state.faults.pop_front().or(state.down.clone()) {
            Some(error) if state.is_cut_off => Err(UpstreamError::unsent(error, "as it was told")),
            Some(error) => Err(UpstreamError::new(error, "as it was told")),
            None => Ok(()),
        }
    }

    fn parsed(&self, item_id: &str) -> Option<(ItemOutline, ItemValues)> {
        let state = self.lock();
        let item = list(&state.world, "items").iter().find(|item| item["id"] == item_id)?;
        let one = json!({"vaults": state.world["vaults"], "items": [item]});
        let node: Node = serde_json::from_value(one).unwrap();
        let mut faults = Faults::default();
        let content = full_item::content(&mut faults, node);
        assert!(faults.is_empty(), "{:?}", faults.into_vec());
        content.items.into_iter().next()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a question until it is over, also where it is cancelled.
struct UnderWay<'a>(&'a Script);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

#[async_trait]
impl Upstream for Script {
    async fn vaults(&self) -> Result<Vec<Vault>, UpstreamError> {
        self.ask("vaults".to_owned()).await?;
        let state = self.lock();
        let vault = |vault: &Value| Vault { id: text(&vault["id"]), name: text(&vault["name"]) };
        Ok(list(&state.world, "vaults").iter().map(vault).collect())
    }

    async fn items(&self, vault_id: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
        self.ask(format!("items {vault_id}")).await?;
        let state = self.lock();
        let of_vault = list(&state.world, "items").iter().filter(|item| item["vault"]["id"] == vault_id);
        let summary = |item: &Value| ItemSummary {
            id: text(&item["id"]),
            title: text(&item["title"]),
            state: if item.get("state").is_some() { ItemState::Inactive } else { ItemState::Active },
        };
        Ok(of_vault.map(summary).collect())
    }

    async fn item(&self, vault_id: &str, item_id: &str) -> Result<(ItemOutline, ItemValues), UpstreamError> {
        self.ask(format!("item {item_id}")).await?;
        let not_found = || UpstreamError::new(ResolveError::ItemNotFound, "no such item");
        let (outline, mut values) = self.parsed(item_id).ok_or_else(not_found)?;
        if *outline.vault_id != *vault_id {
            return Err(not_found());
        }
        let files = outline.fields.iter().filter(|field| field.kind == FieldKind::File);
        let files: HashSet<_> = files.map(|file| Arc::clone(&file.id)).collect();
        values.by_field.retain(|id, _| !files.contains(id));
        Ok((outline, values))
    }

    async fn file(&self, _: &str, item_id: &str, file_id: &str) -> Result<SecretValue, UpstreamError> {
        self.ask(format!("file {file_id}")).await?;
        let (_, mut values) = self.parsed(item_id).unwrap();
        Ok(values.by_field.remove(file_id).unwrap())
    }

    fn cost(&self, _: Question) -> u32 {
        1
    }

    fn take_sign_in_spending(&self) -> u32 {
        std::mem::take(&mut self.lock().sign_in)
    }
}

fn list<'a>(world: &'a Value, key: &str) -> &'a [Value] {
    world[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Arc<str> {
    value.as_str().unwrap().into()
}
