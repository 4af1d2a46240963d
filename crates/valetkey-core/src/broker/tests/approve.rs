//! Approvals: what waits, who may decide, what a decision opens and what it does not.

use std::sync::Arc;
use std::time::Duration;

use super::world::{A, B, C, Lease, UNKNOWN, World, agent, allow, is, person};
use crate::approval::{ApprovalLimits, Ask, Choice};
use crate::audit::{AuditRecord, RecordKind, Ruling};
use crate::broker::{Acquire, Check, CheckAnswer, Refusal};
use crate::credential::Credential;
use crate::decision::Obligations;
use crate::identity::Identity;
use crate::lease::LeaseId;
use crate::request::{AccessRequest, AdminResource, Behalf, Call, Claim, Life};
use crate::testing;
use crate::text::{Destination, Purpose};

/// What a person of `security` has to approve.
fn guarded(what: impl Fn(&AccessRequest) -> bool) -> impl Fn(&AccessRequest) -> Option<Obligations> {
    move |request| {
        let approval = what(request).then(|| [testing::group("security")].into());
        Some(Obligations { approval, ..Obligations::default() })
    }
}

fn all(_: &AccessRequest) -> bool {
    true
}

/// A world in which olga and otto are of `security`, and eve is a person.
fn world(what: impl Fn(&AccessRequest) -> bool + Send + 'static) -> World {
    admitting(World::new(guarded(what)), &["olga", "otto"])
}

fn admitting(world: World, security: &'static [&'static str]) -> World {
    world.admit(security);
    world
}
fn by(name: &str) -> Arc<Call> {
    testing::call(Identity::Person(testing::person(name)))
}

/// The id under which an ask waits.
fn waits(refused: Result<Lease, Refusal>) -> LeaseId {
    match refused.err() {
        Some(Refusal::ApprovalRequired { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

impl World {
    /// Has these decide what `security` is asked for.
    fn admit(&self, security: &'static [&'static str]) {
        self.policy.administer(move |request| match (&request.call.caller, &request.resource) {
            (Identity::Person(person), AdminResource::Ask { groups, .. }) => {
                groups.is_empty() || security.contains(&person.0.as_str())
            }
            _ => false,
        });
    }

    async fn wait_for(&self, references: &[&str]) -> LeaseId {
        waits(self.try_acquire(self.ask(references)).await)
    }

    async fn choose(&self, call: &Arc<Call>, choice: Choice, id: LeaseId) -> Result<Arc<Ask>, String> {
        self.broker.choose(call, choice, id).await.map(|it| it.ask).map_err(|refusal| self.why(&refusal))
    }

    async fn approve(&self, id: LeaseId) {
        self.choose(&by("olga"), Choice::Approve, id).await.unwrap();
    }

    async fn why_not(&self, ask: Acquire) -> String {
        self.why(&self.try_acquire(ask).await.err().expect("refused"))
    }

    /// What waits, as a caller sees it.
    async fn listed(&self, call: &Arc<Call>) -> Result<Vec<LeaseId>, String> {
        let page = self.broker.asks(call, 0, 1000).await.map_err(|refusal| self.why(&refusal))?;
        Ok(page.asks.iter().map(|ask| ask.id).collect())
    }

    fn about(&self, id: LeaseId) -> Vec<AuditRecord> {
        self.log.records().into_iter().filter(|record| record.lease == Some(id)).collect()
    }
}

#[tokio::test]
async fn what_is_approved_is_granted_for_a_while() {
    let world = world(all);
    let id = world.wait_for(&[A, C]).await;
    assert_eq!(world.vault.reads(), [], "nothing was fetched");
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![id]));
    world.approve(id).await;
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]));
    let mut lease = world.acquire(&[C, A]).await;
    assert_eq!(world.redeem(&lease.issued()[0]).await.as_deref(), Ok("canary-c"));
    // A part of what was approved is approved.
    drop(world.acquire(&[A]).await);
    drop(lease);
    world.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(world.why_not(world.ask(&[A])).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn the_log_tells_the_whole_story() {
    let world = world(all);
    let id = world.wait_for(&[A, C]).await;
    world.approve(id).await;
    drop(world.acquire(&[A]).await);
    let line = |it: &AuditRecord| format!("{} {:?} {}", it.kind.as_str(), it.ruling, it.reason.as_str());
    let story: Vec<_> = world.about(id).iter().map(line).collect();
    let (refused, approved) = ("acquire Deny APPROVAL_REQUIRED", "approve Allow POLICY_PERMIT");
    assert_eq!(story, [refused, refused, approved, approved]);
    let approval = &world.about(id)[3];
    assert_eq!(approval.caller, Some(person()));
    assert_eq!(approval.agent, Some(testing::agent("bot")));
    assert_eq!(approval.reference.as_deref(), Some(C));
    assert_eq!(approval.detail.as_deref(), Some("asked in record 2; for 900 s"));
    let granted = world.log.records().pop().unwrap();
    assert_eq!(granted.ruling, Ruling::Allow);
    assert_eq!(granted.detail, Some(format!("approved by person:olga in record 3 ({id})").into()));
    world.finish().await;
}

#[tokio::test]
async fn an_approval_is_for_what_was_asked_and_nothing_else() {
    let world = world(all);
    let ask = || Acquire {
        destination: Some(Destination::parse("api.example.com").unwrap()),
        call: with_claim("repository", "acme/app"),
        ..world.ask(&[A])
    };
    let id = waits(world.try_acquire(ask()).await);
    world.approve(id).await;
    let waiting = "waits APPROVAL_REQUIRED";
    let check = async |what: &str, ask: Acquire| assert_eq!(world.why_not(ask).await, waiting, "{what}");
    let references = |text| world.ask(&[text]).references;
    check("another reference", Acquire { references: references(B), ..ask() }).await;
    check("another tool", Acquire { tool: testing::tool("other"), ..ask() }).await;
    check("another destination", Acquire { destination: None, ..ask() }).await;
    check("other claims", Acquire { call: with_claim("repository", "acme/other"), ..ask() }).await;
    let other = testing::call(agent("other"));
    let other = Arc::new(Call { claims: ask().call.claims.clone(), ..other.as_ref().clone() });
    check("another agent", Acquire { agent: testing::agent("other"), call: other, ..ask() }).await;
    check("for a person", Acquire { call: for_person(&ask().call, "ana"), ..ask() }).await;
    // Nor more than it; nothing of it is granted then.
    check("more", Acquire { references: world.ask(&[A, B]).references, ..ask() }).await;
    // These are the agent's to choose, and policy's to look at.
    let purpose = Purpose::parse("another").unwrap();
    drop(world.try_acquire(Acquire { purpose, ..ask() }).await.unwrap());
    drop(world.try_acquire(ask()).await.unwrap());
    world.finish().await;
}

fn with_claim(name: &str, value: &str) -> Arc<Call> {
    let claims = [Claim::new(name, value).unwrap()].into();
    Arc::new(Call { claims, ..testing::call(agent("bot")).as_ref().clone() })
}

fn for_person(call: &Call, name: &str) -> Arc<Call> {
    let behalf = Behalf { person: testing::person(name), credential: Credential::new("theirs", None) };
    Arc::new(Call { behalf: Some(behalf), ..call.clone() })
}

#[tokio::test]
async fn only_others_of_the_groups_decide() {
    let world = world(all);
    // An identity provider may write somebody's name in other letters than a token does.
    let call = for_person(&testing::call(agent("bot")), "Otto");
    let ask = || Acquire { call: Arc::clone(&call), ..world.ask(&[A]) };
    let id = waits(world.try_acquire(ask()).await);
    for choice in [Choice::Approve, Choice::Reject] {
        let check = async |who: &Arc<Call>, why: &str| {
            assert_eq!(world.choose(who, choice, id).await.err().as_deref(), Some(why), "{who:?}");
        };
        check(&by("eve"), "denied POLICY_NO_PERMIT").await;
        check(&by("otto"), "denied APPROVER_OWN").await;
        check(&call, "denied CALLER_KIND").await;
        check(&testing::call(Identity::Tool(testing::tool("tool"))), "denied CALLER_KIND").await;
        let revoked = by("olga");
        let revoked =
            Arc::new(Call { credential: Credential::new("gone", None), ..revoked.as_ref().clone() });
        revoked.credential.revoke();
        check(&revoked, "denied CREDENTIAL_REVOKED").await;
    }
    // Whom policy lets through in spite of what they are is refused all the same.
    world.policy.administer(|_| true);
    assert_eq!(world.choose(&call, Choice::Approve, id).await.err().as_deref(), Some("denied CALLER_KIND"));
    assert_eq!(world.listed(&call).await.err().as_deref(), Some("denied CALLER_KIND"));
    assert_eq!(world.listed(&by("otto")).await, Ok(vec![]));
    assert_eq!(world.why_not(ask()).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn what_does_not_wait_is_not_found_and_nobody_else_learns_it() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    let unknown = LeaseId(crate::PublicId::from_bytes([9; 10]));
    let choose = async |who: &str, id| world.choose(&by(who), Choice::Approve, id).await.err();
    assert_eq!(choose("olga", unknown).await.as_deref(), Some("no ask POLICY_PERMIT"));
    world.policy.administer(|_| false);
    let why = choose("eve", unknown).await;
    assert_eq!((why.as_deref(), choose("eve", id).await), (Some("denied POLICY_NO_PERMIT"), why.clone()));
    assert_eq!(world.listed(&by("eve")).await, Err("denied POLICY_NO_PERMIT".to_owned()));
    world.admit(&["olga"]);
    world.approve(id).await;
    assert_eq!(choose("olga", id).await.as_deref(), Some("no ask POLICY_PERMIT"));
    let id = world.wait_for(&[B]).await;
    world.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(choose("olga", id).await.as_deref(), Some("no ask POLICY_PERMIT"));
    let failed: Vec<_> =
        world.reasons(RecordKind::Approve).into_iter().filter(|it| *it == "FAILED").collect();
    assert_eq!(failed.len(), 3);
    world.finish().await;
}

#[tokio::test]
async fn what_is_rejected_is_refused_for_a_while() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    world.choose(&by("olga"), Choice::Reject, id).await.unwrap();
    assert_eq!(world.why_not(world.ask(&[A])).await, "denied APPROVAL_REJECTED");
    assert_eq!(world.why_not(world.ask(&[B, A])).await, "denied APPROVAL_REJECTED");
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]), "nobody is asked again");
    assert_eq!(world.reasons(RecordKind::Reject), ["POLICY_PERMIT"]);
    world.clock.advance(Duration::from_secs(15 * 60));
    assert_ne!(world.wait_for(&[A]).await, id);
    world.finish().await;
}

#[tokio::test]
async fn the_same_ask_waits_once() {
    let world = world(all);
    let id = world.wait_for(&[A, C]).await;
    world.clock.advance(Duration::from_secs(60));
    let purpose = Purpose::parse("something nicer").unwrap();
    let again = Acquire { purpose, ..world.ask(&[C, A]) };
    assert_eq!(waits(world.try_acquire(again).await), id);
    let page = world.broker.asks(&by("olga"), 0, 10).await.ok().unwrap();
    assert_eq!(page.asks.len(), 1);
    assert_eq!(page.asks[0].purpose.as_ref().map(Purpose::as_str), Some("a test"), "as it was asked first");
    assert_ne!(world.wait_for(&[A]).await, id);
    // Its time is that of the first.
    world.clock.advance(Duration::from_secs(14 * 60));
    assert_ne!(world.wait_for(&[A, C]).await, id);
    world.finish().await;
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let limits = ApprovalLimits { asks_max: 3, asks_per_agent_max: 2, ..ApprovalLimits::default() };
    let world = admitting(World::approving(limits, guarded(all)), &["olga"]);
    let first = world.wait_for(&[A]).await;
    world.wait_for(&[B]).await;
    assert_eq!(world.why_not(world.ask(&[C])).await, "asks_per_agent APPROVAL_REQUIRED");
    assert_eq!(world.wait_for(&[A]).await, first, "the same is no more");
    let ask = |name: &str| Acquire {
        agent: testing::agent(name),
        call: testing::call(agent(name)),
        ..world.ask(&[A])
    };
    waits(world.try_acquire(ask("two")).await);
    assert_eq!(world.why_not(ask("three")).await, "asks APPROVAL_REQUIRED");
    world.approve(first).await;
    for name in ["three", "four"] {
        let id = waits(world.try_acquire(ask(name)).await);
        world.approve(id).await;
    }
    let id = waits(world.try_acquire(ask("five")).await);
    let refused = world.choose(&by("olga"), Choice::Approve, id).await.err();
    assert_eq!(refused.as_deref(), Some("decisions POLICY_PERMIT"));
    world.finish().await;
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended() {
    let world = world(all);
    let ids = [world.wait_for(&[A]).await, world.wait_for(&[B]).await, world.wait_for(&[C]).await];
    let mut seen = Vec::new();
    let mut after = 0;
    for _ in 0..ids.len() {
        let page = world.broker.asks(&by("olga"), after, 1).await.ok().unwrap();
        seen.extend(page.asks.iter().map(|ask| ask.id));
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!(seen, ids);
    world.finish().await;
}

#[tokio::test]
async fn where_something_else_is_refused_nobody_is_asked() {
    let world = World::new(|request| guarded(is(A))(request).filter(|_| !is(C)(request)));
    let world = admitting(world, &["olga"]);
    assert_eq!(world.why_not(world.ask(&[A, C])).await, "denied POLICY_NO_PERMIT");
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]));
    // What needs no approval is not shown, and not granted alone.
    let id = world.wait_for(&[B, A]).await;
    let ask = world.choose(&by("olga"), Choice::Approve, id).await.unwrap();
    assert_eq!(ask.wants.iter().map(|want| &*want.reference).collect::<Vec<_>>(), [A]);
    world.finish().await;
}

#[tokio::test]
async fn a_part_is_issued_and_the_rest_waits() {
    let world = World::new(|request| guarded(is(A))(request).filter(|_| !is(C)(request)));
    let world = admitting(world, &["olga"]);
    let mut lease = world.acquire_partial(&[A, B, C]).await;
    let mut events = lease.read();
    events.sort();
    let refused = ["refused op://v/one/a APPROVAL_REQUIRED", "refused op://v/two/c ACCESS_DENIED"];
    assert_eq!(events, [&["issued op://v/one/b", "opened 3"], refused.as_slice()].concat());
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![lease.events.lease()]));
    drop(lease);
    let ask = Acquire { partial: true, ..world.ask(&[A]) };
    waits(world.try_acquire(ask).await);
    world.finish().await;
}

#[tokio::test]
async fn what_names_nothing_waits_like_everything_else() {
    let world = world(all);
    let id = world.wait_for(&[UNKNOWN]).await;
    world.approve(id).await;
    assert_eq!(world.why_not(world.ask(&[UNKNOWN])).await, "unresolved ITEM_NOT_FOUND");
    // What it comes to mean later is another thing.
    world.vault.set(UNKNOWN, "canary-x");
    assert_eq!(world.why_not(world.ask(&[UNKNOWN])).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn what_waits_does_not_tell_what_exists() {
    let world = world(all);
    // Two names of nothing mean the same, two of something do not: they wait alike, and are decided alike.
    let (one, other) = (world.wait_for(&["op://v/none/x"]).await, world.wait_for(&["op://v/none/y"]).await);
    assert_ne!(one, other);
    assert_eq!(world.wait_for(&["op://v/none/x"]).await, one);
    let (one, other) = (world.wait_for(&[A]).await, world.wait_for(&[B]).await);
    assert_ne!(one, other);
    assert_eq!(world.wait_for(&[A]).await, one);
    let id = world.wait_for(&[UNKNOWN]).await;
    world.approve(id).await;
    assert_eq!(world.why_not(world.ask(&["op://v/none/y"])).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn policy_is_asked_again_each_time() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    world.approve(id).await;
    let mut lease = world.acquire(&[A]).await;
    assert_eq!(world.change(guarded(all)), 0, "what is approved lives on");
    assert_eq!(world.change(|_| None), 1);
    assert_eq!(world.why_not(world.ask(&[A])).await, "denied POLICY_NO_PERMIT");
    assert_eq!(lease.read()[2], "revoked op://v/one/a Policy");
    world.change(guarded(all));
    drop(world.acquire(&[A]).await);
    // The groups that count are those of the policies in force.
    let sterner = |_: &AccessRequest| {
        let approval = Some([testing::group("board")].into());
        Some(Obligations { approval, ..Obligations::default() })
    };
    world.policy.administer(|request| match &request.resource {
        AdminResource::Ask { groups, .. } => !groups.contains(&testing::group("board")),
        _ => false,
    });
    world.change(sterner);
    assert_eq!(world.why_not(world.ask(&[A])).await, "waits APPROVAL_REQUIRED");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn an_approval_ends_with_its_approver() {
    let world = world(all);
    let call = by("olga");
    let call = Arc::new(Call { credential: Credential::new("hers", None), ..call.as_ref().clone() });
    let id = world.wait_for(&[A]).await;
    world.choose(&call, Choice::Approve, id).await.unwrap();
    drop(world.acquire(&[A]).await);
    world.admit(&["otto"]);
    assert_eq!(world.why_not(world.ask(&[A])).await, "waits APPROVAL_REQUIRED");
    world.admit(&["olga"]);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    call.credential.revoke();
    assert_eq!(world.broker.end_opened_with(&call.credential), 0);
    assert_eq!(lease.read()[0], "revoked op://v/one/a Policy", "and so do the handles that it gave");
    drop(lease);
    assert_eq!(world.why_not(world.ask(&[A])).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn an_approval_that_comes_to_be_asked_for_revokes_what_lives_without() {
    let world = admitting(World::new(allow), &["olga"]);
    let mut lease = world.acquire(&[A, C]).await;
    lease.read();
    assert_eq!(world.change(guarded(is(A))), 1);
    assert_eq!(lease.read(), ["revoked op://v/one/a Policy"]);
    let revoked = world.log.records().pop();
    world.keep().await;
    assert!(revoked.is_some());
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn nothing_is_renewed_after_the_approval() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    world.approve(id).await;
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    let mut renewed = 0;
    for _ in 0..16 {
        world.advance(59).await;
        renewed += lease.read().iter().filter(|line| line.starts_with("renewed")).count();
    }
    assert!((10..=15).contains(&renewed), "{renewed}");
    world.advance(120).await;
    assert_eq!(lease.read().last().map(String::as_str), Some("closed"));
    assert_eq!(world.reasons(RecordKind::Renew).last(), Some(&"APPROVAL_REQUIRED"));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn nothing_counts_that_is_not_written_down() {
    let world = world(all);
    world.log.set_broken(true);
    assert_eq!(world.why_not(world.ask(&[A])).await, "no log");
    world.log.set_broken(false);
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]));
    let id = world.wait_for(&[A]).await;
    world.log.set_broken(true);
    for choice in [Choice::Approve, Choice::Reject] {
        assert_eq!(world.choose(&by("olga"), choice, id).await.err().as_deref(), Some("no log"));
    }
    assert_eq!(world.listed(&by("olga")).await.err().as_deref(), Some("no log"));
    world.log.set_broken(false);
    assert_eq!(world.wait_for(&[A]).await, id);
    world.finish().await;
}

#[tokio::test]
async fn of_two_decisions_at_once_one_counts() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    let (olga, otto) = (by("olga"), by("otto"));
    let both =
        tokio::join!(world.choose(&olga, Choice::Approve, id), world.choose(&otto, Choice::Approve, id));
    assert!(
        matches!(&both, (Ok(_), Err(why)) | (Err(why), Ok(_)) if why == "no ask POLICY_PERMIT"),
        "{both:?}"
    );
    // Whoever is first: a rejection takes an approval back, and an approval no rejection.
    let id = world.wait_for(&[B]).await;
    let (_, rejected) =
        tokio::join!(world.choose(&olga, Choice::Approve, id), world.choose(&otto, Choice::Reject, id));
    assert!(rejected.is_ok(), "{rejected:?}");
    assert_eq!(world.why_not(world.ask(&[B])).await, "denied APPROVAL_REJECTED");
    world.finish().await;
}

#[tokio::test]
async fn an_approval_can_be_taken_back() {
    let world = world(all);
    let id = world.wait_for(&[A]).await;
    world.approve(id).await;
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    assert_eq!(world.choose(&by("eve"), Choice::Reject, id).await.unwrap_err(), "denied POLICY_NO_PERMIT");
    assert_eq!(lease.read(), [""; 0]);
    world.choose(&by("otto"), Choice::Reject, id).await.unwrap();
    assert_eq!(lease.read(), ["revoked op://v/one/a Policy", "ended Policy", "closed"]);
    assert_eq!(world.why_not(world.ask(&[A])).await, "denied APPROVAL_REJECTED");
    for choice in [Choice::Approve, Choice::Reject] {
        assert_eq!(world.choose(&by("olga"), choice, id).await.unwrap_err(), "no ask POLICY_PERMIT");
    }
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_rejection_is_not_got_around() {
    let world = world(all);
    let (both, id) = (world.wait_for(&[B, A]).await, world.wait_for(&[A]).await);
    let other = world.wait_for(&[C]).await;
    let call = Arc::new(Call { credential: Credential::new("his", None), ..by("otto").as_ref().clone() });
    world.choose(&call, Choice::Reject, id).await.unwrap();
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![other]), "nobody is asked for what includes it");
    assert_eq!(world.choose(&by("olga"), Choice::Approve, both).await.unwrap_err(), "no ask POLICY_PERMIT");
    let elsewhere = || Acquire { destination: Destination::parse("api.example.com").ok(), ..world.ask(&[A]) };
    assert_eq!(world.why_not(elsewhere()).await, "denied APPROVAL_REJECTED");
    // What was decided with a revoked credential is not decided.
    call.credential.revoke();
    assert_eq!(world.why_not(elsewhere()).await, "waits APPROVAL_REQUIRED");
    world.finish().await;
}

#[tokio::test]
async fn a_check_says_that_an_approval_is_missing_and_asks_for_none() {
    let world = world(all);
    let check = async || {
        let Acquire { call, agent, tool, references, life, session, destination, .. } = world.ask(&[A]);
        let reference = references.into_iter().next().unwrap();
        let check = Check { call, agent, tool, reference, life, session, destination };
        match world.broker.check(check).await {
            Ok(CheckAnswer::Allow { needs_approval, .. }) => needs_approval,
            _ => panic!("not allowed"),
        }
    };
    assert!(check().await);
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]));
    let record = world.log.records().remove(0);
    assert_eq!((record.ruling, record.reason.as_str()), (Ruling::Allow, "POLICY_PERMIT"));
    assert_eq!(record.detail.as_deref(), Some("a person in `security` has to approve it"));
    let id = world.wait_for(&[A]).await;
    world.approve(id).await;
    assert!(!check().await);
    world.finish().await;
}

#[tokio::test]
async fn what_is_refused_anyway_asks_nobody() {
    let minute = Duration::from_secs(60);
    let rule = move |request: &AccessRequest| {
        let obligations = guarded(all)(request)?;
        Some(Obligations { ttl_max: Some(minute), ..obligations })
    };
    let world = admitting(World::new(rule), &["olga"]);
    let ask = Acquire { life: Life::Asked(minute * 2), ..world.ask(&[A]) };
    assert_eq!(world.why_not(ask).await, "denied POLICY_TTL");
    assert_eq!(world.listed(&by("olga")).await, Ok(vec![]));
    world.finish().await;
}
