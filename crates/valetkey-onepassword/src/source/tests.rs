use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use valetkey_core::testing::{FakeClock, agent, reference, request};
use valetkey_core::{
    AccessRequest, Directory, Facet, Gap, Grant, Inventory, KnownItem, RecordId, ResolveError, Resolver,
    Survey, Target,
};

use super::scripted::Script;
use super::*;
use crate::conformance;

mod knowing;
mod limits;
mod many;
mod random;
mod sharing;

const VAULT: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
const OTHER: &str = "wwwwwwwwwwwwwwwwwwwwwwwwww";
const ITEM: &str = "iiiiiiiiiiiiiiiiiiiiiiiiii";
const CARD: &str = "jjjjjjjjjjjjjjjjjjjjjjjjjj";

/// A source over a script, and what moves them.
struct Setup {
    script: Script,
    clock: FakeClock,
    source: Arc<Source>,
}

fn options() -> SourceOptions {
    SourceOptions { quota: QuotaLimits::NONE, ..SourceOptions::new("test".into(), vec!["main".into()]) }
}

fn setup(change: impl FnOnce(&mut SourceOptions)) -> Setup {
    over(world(), change)
}

fn over(world: Value, change: impl FnOnce(&mut SourceOptions)) -> Setup {
    let (script, clock) = (Script::new(world), FakeClock::default());
    let mut options = options();
    change(&mut options);
    let source =
        Source::over(Box::new(script.clone()), "scripted", options, Arc::new(clock.clone())).unwrap();
    Setup { script, clock, source: Arc::new(source) }
}

/// Two vaults, of which one is served; a login and a card in it.
fn world() -> Value {
    json!({
        "vaults": [{"id": VAULT, "name": "Main"}, {"id": OTHER, "name": "Other"}],
        "items": [
            {"id": ITEM, "title": "Login", "vault": {"id": VAULT}, "category": "LOGIN", "version": 3,
             "fields": [
                {"id": "username", "type": "STRING", "label": "username", "value": "canary-user"},
                {"id": "password", "type": "CONCEALED", "label": "password", "value": "canary-password"},
                {"id": "totp", "type": "TOTP", "label": "code", "value": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"},
             ],
             "files": [{"id": "file", "name": "key.txt", "content": "Y2FuYXJ5LWZpbGU="}]},
            {"id": CARD, "title": "Card", "vault": {"id": VAULT}, "category": "CREDIT_CARD",
             "fields": [{"id": "number", "type": "STRING", "label": "number", "value": "canary-card"}]},
            {"id": "xxxxxxxxxxxxxxxxxxxxxxxxxx", "title": "Login", "vault": {"id": OTHER}, "category": "LOGIN",
             "fields": [{"id": "password", "type": "CONCEALED", "label": "password", "value": "canary-other"}]},
        ],
    })
}

impl Setup {
    /// What a reference gives: the value, or the error's code.
    async fn read(&self, text: &str) -> Result<String, &'static str> {
        read_from(&*self.source, text).await
    }

    async fn locate(&self, text: &str) -> Result<Target, &'static str> {
        let located = conformance::locate(&*self.source, &request(text)).await;
        located.map_err(|failure| failure.error.code())
    }

    async fn grant(&self, text: &str) -> Grant {
        let target = self.locate(text).await.unwrap().into();
        Grant::for_test(AccessRequest { target, ..request(text) }, RecordId(2))
    }

    /// What resolving these gives.
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<String, &'static str>> {
        self.source.resolve(grants).await.into_iter().map(shown).collect()
    }

    fn gap(&self, text: &str) -> Option<Gap> {
        self.source.locate(&reference(text)).gap
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn edit_item(&self, change: impl FnOnce(&mut Value)) {
        self.script.edit(|world| change(&mut world["items"][0]));
    }
}

async fn read_from<S: Directory + Resolver>(source: &S, text: &str) -> Result<String, &'static str> {
    shown(conformance::read(source, text).await)
}

fn shown(answer: Result<Resolved, ResolveFailure>) -> Result<String, &'static str> {
    answer
        .map(|it| String::from_utf8(it.value.expose_secret().into()).unwrap())
        .map_err(|failure| failure.error.code())
}

/// Lets what was spawned go on as far as it can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_conforms() {
    let vaults = conformance::VAULTS.map(Arc::from).to_vec();
    let setup = over(conformance::world(), |options| options.vaults = vaults);
    conformance::check(&*setup.source, &setup.clock).await;
    // The same again, from what is known, and once more after it is too old.
    conformance::check(&*setup.source, &setup.clock).await;
    setup.pass(3600);
    conformance::check(&*setup.source, &setup.clock).await;
}

#[tokio::test]
async fn the_first_read_costs_one_question_a_level() {
    let setup = setup(|_| ());
    assert_eq!(setup.read("op://Main/Login/password").await.as_deref(), Ok("canary-password"));
    assert_eq!(setup.script.calls(), ["vaults", &format!("items {VAULT}"), &format!("item {ITEM}")]);
    setup.pass(60);
    assert_eq!(setup.read("op://Main/Login/username").await.as_deref(), Ok("canary-user"));
    assert_eq!(setup.script.calls(), [format!("item {ITEM}")]);
}

#[tokio::test]
async fn figures_tell_what_was_done() {
    let setup = setup(|_| ());
    let figures = setup.source.figures();
    assert_eq!((figures.state, figures.reads, figures.last_success), (SourceState::Ready, 0, None));
    setup.read("op://Main/Login/password").await.unwrap();
    let figures = setup.source.figures();
    assert_eq!((&*figures.name, figures.kind), ("test", "scripted"));
    assert_eq!((figures.reads, figures.shared_reads, figures.cache_hits), (3, 0, 1));
    assert_eq!((figures.hour, figures.day.left), (Spending { used: 3, left: None }, None));
    assert!(figures.last_success.is_some() && figures.last_failure.is_none());
    setup.pass(2);
    setup.script.fail_next(ResolveError::CredentialsRefused);
    assert_eq!(setup.read("op://Main/Login/password").await, Err("RESOLVER_CREDENTIALS_REFUSED"));
    let figures = setup.source.figures();
    let remaining = Duration::from_secs(10);
    assert_eq!(figures.state, SourceState::Paused { error: ResolveError::CredentialsRefused, remaining });
    assert_eq!(figures.last_failure.map(|(_, error)| error), Some(ResolveError::CredentialsRefused));
}
