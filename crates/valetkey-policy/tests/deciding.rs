//! What the engine answers where policies, names and requests are odd.

#![expect(clippy::unwrap_used, clippy::panic, reason = "where a helper fails, the test fails")]

use std::sync::Arc;
use std::time::Duration;

use valetkey_core::{
    AccessKind, AccessRequest, AdminAction, AdminRequest, AdminResource, AgentId, Allow, AuditScope,
    Decision, Deny, Destination, Facet, FieldTarget, GroupId, Identity, LeaseId, Life, Name, Named, PersonId,
    PolicyEngine, PublicId, Purpose, Reason, Redeemer, ResolveError, SecretReference, Session, Target,
    ToolId,
};
use valetkey_policy::generate::{field, named, request};
use valetkey_policy::{Bundle, Engine};

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");
const ENTITIES: &str = r#"[
    {"uid": {"type": "Agent", "id": "bot"}, "attrs": {}, "parents": [{"type": "Team", "id": "one"}]},
    {"uid": {"type": "Team", "id": "one"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Tool", "id": "tool"}, "attrs": {}, "parents": [{"type": "Toolset", "id": "kit"}]},
    {"uid": {"type": "Person", "id": "ana"}, "attrs": {}, "parents": [{"type": "Group", "id": "reviewers"}, {"type": "Group", "id": "board"}]}
]"#;

/// An engine with policies `p0`, `p1`, …
fn engine(policies: &[&str]) -> Engine {
    let texts: Vec<String> =
        policies.iter().enumerate().map(|(number, text)| format!("@id(\"p{number}\") {text};")).collect();
    Engine::new(Bundle::from_texts(SCHEMA, &[("a.cedar", &texts.concat())], ENTITIES).unwrap())
}

/// `bot` asks for this, for `tool`.
fn ask(target: Target) -> AccessRequest {
    request(AccessKind::Acquire, "bot", "tool", target).unwrap()
}

fn password() -> Target {
    field("Prod", "Db", "password")
}

/// `allow p0`, `PolicyForbid p1`
fn answer(decision: Decision) -> String {
    let (word, policies) = match decision {
        Decision::Allow(Allow { policies, .. }) => ("allow".to_owned(), policies),
        Decision::Deny(Deny { reason, policies, .. }) => (format!("{reason:?}"), policies),
    };
    policies.iter().fold(word, |text, id| format!("{text} {id}"))
}

fn check(policies: &[&str], target: Target, expected: &str) {
    assert_eq!(answer(engine(policies).decide(&ask(target))), expected, "{policies:#?}");
}

fn deny(decision: Decision) -> Deny {
    match decision {
        Decision::Deny(deny) => deny,
        Decision::Allow(allow) => panic!("allowed: {allow:?}"),
    }
}

const ALL: &str = "permit (principal, action, resource)";
const BY_VAULT: &str = r#"permit (principal, action, resource in Vault::"prod")"#;
const BY_ITEM: &str = r#"permit (principal, action, resource in Item::"prod/db")"#;
const NOT_VAULT: &str = r#"forbid (principal, action, resource in Vault::"prod")"#;
const NOT_ITEM: &str = r#"forbid (principal, action, resource in Item::"prod/db")"#;

#[test]
fn no_policies_deny_everything() {
    check(&[], password(), "PolicyNoPermit");
}

#[test]
fn names_and_ids_stand_for_vaults_and_items() {
    check(&[BY_VAULT], password(), "allow p0");
    check(&[BY_ITEM], password(), "allow p0");
    check(
        &[r#"permit (principal, action, resource in Vault::"prod0000000000000000000000")"#],
        password(),
        "allow p0",
    );
    check(
        &[r#"permit (principal, action, resource in Item::"db000000000000000000000000")"#],
        password(),
        "allow p0",
    );
    check(
        &[r#"permit (principal, action in Action::"access", resource) when { resource in Item::"prod/db" }"#],
        password(),
        "allow p0",
    );
    check(&[BY_ITEM], field("Prod", "Other", "password"), "PolicyNoPermit");
    check(&[BY_ITEM], field("Other", "Db", "password"), "PolicyNoPermit");
    check(&[BY_ITEM, NOT_VAULT], password(), "PolicyForbid p1");
    let secret = r#"Secret::"prod0000000000000000000000/db000000000000000000000000/password""#;
    check(&[&format!("permit (principal, action, resource == {secret})")], password(), "allow p0");
}

#[test]
fn a_shared_name_forbids_and_does_not_permit() {
    let target = |vault_is_unique: bool, item_is_unique: bool| {
        let Target::Field(target) = password() else { panic!("a field") };
        Target::Field(FieldTarget {
            vault: Named { name_is_unique: vault_is_unique, ..named("Prod") },
            item: Named { name_is_unique: item_is_unique, ..named("Db") },
            ..target
        })
    };
    let (twin_vault, twin_item, twins) = (target(false, true), target(true, false), target(false, false));
    for shared in [&twin_vault, &twin_item, &twins] {
        check(&[BY_ITEM], shared.clone(), "PolicyNoPermit");
        check(&[ALL, NOT_ITEM], shared.clone(), "PolicyForbid p1");
        check(&[ALL, NOT_VAULT], shared.clone(), "PolicyForbid p1");
        check(&[ALL], shared.clone(), "allow p0");
        check(
            &[r#"permit (principal, action, resource in Item::"db000000000000000000000000")"#],
            shared.clone(),
            "allow p0",
        );
        // Neither by way of an exception from a forbid, nor by saying what it is not.
        let unless = r#"forbid (principal, action, resource) unless { resource in Item::"prod/db" }"#;
        check(&[ALL, unless], shared.clone(), "PolicyForbid p1");
        check(
            &[r#"permit (principal, action, resource) unless { resource in Item::"prod/db" }"#],
            shared.clone(),
            "PolicyNoPermit",
        );
    }
    // The vault's name still stands for the vault where only the item's is shared.
    check(&[BY_VAULT], twin_item.clone(), "allow p0");
    check(&[BY_VAULT], twin_vault, "PolicyNoPermit");
    check(&[BY_VAULT], twins, "PolicyNoPermit");
    let detail = deny(engine(&[BY_ITEM]).decide(&ask(twin_item))).detail.unwrap();
    assert!(detail.starts_with("permitted only by a name that more than one"), "{detail}");
}

#[test]
fn what_leads_nowhere_is_decided_on_what_is_known() {
    let unresolved = |vault: Option<&str>, item: Option<&str>| Target::Unresolved {
        vault: vault.map(named),
        item: item.map(named),
        error: ResolveError::FieldNotFound,
    };
    let (nothing, vault, item) =
        (unresolved(None, None), unresolved(Some("Prod"), None), unresolved(Some("Prod"), Some("Db")));
    // Whoever may use the whole vault may learn what is not in it; others get an ordinary refusal.
    check(&[BY_VAULT], vault.clone(), "allow p0");
    check(&[BY_VAULT], item.clone(), "allow p0");
    check(&[BY_VAULT], nothing.clone(), "PolicyNoPermit");
    check(&[BY_ITEM], item.clone(), "allow p0");
    check(&[BY_ITEM], vault.clone(), "PolicyNoPermit");
    check(&[ALL], nothing.clone(), "allow p0");
    check(&[ALL, NOT_VAULT], item.clone(), "PolicyForbid p1");
    for target in [nothing, vault, item] {
        let by_field = r#"permit (principal, action in Action::"access", resource) when { ["password", "pin"].contains(resource.field) }"#;
        check(&[by_field], target.clone(), "PolicyNoPermit");
        let kind = r#"permit (principal, action in Action::"access", resource) when { resource.kind == "unresolved" && resource.field == "" && resource.section == "" }"#;
        check(&[kind], target.clone(), "allow p0");
        let known = deny(engine(&[]).decide(&ask(target)));
        assert_eq!((known.advice, known.detail), (None, None));
    }
}

#[test]
fn an_evaluation_error_refuses() {
    let overflow = r#"forbid (principal, action in Action::"access", resource) when { 9223372036854775807 + context.ttl > 0 }"#;
    check(&[ALL, overflow], password(), "PolicyError p1");
    let permit = r#"permit (principal, action in Action::"access", resource) when { 9223372036854775807 + context.ttl > 0 }"#;
    check(&[ALL, permit], password(), "PolicyError p1");
    check(&[permit], password(), "PolicyError p0");
    check(&[permit, NOT_VAULT], password(), "PolicyError p0 p1");
    let decision = deny(engine(&[ALL, overflow]).decide(&ask(password())));
    assert_eq!(decision.detail.as_deref(), Some("policy `p1` could not be evaluated: integer overflow"));
    let host = r#"permit (principal, action in Action::"access", resource) when { context has destination && decimal("1.0").lessThan(decimal("2.0")) && ip("127.0.0.1").isLoopback() }"#;
    let asked = AccessRequest {
        destination: Some(Destination::parse("api.example.com").unwrap()),
        ..ask(password())
    };
    assert_eq!(answer(engine(&[host]).decide(&asked)), "allow p0");
}

#[test]
fn an_ask_is_decided_by_who_is_in_every_group() {
    let approvers = r#"permit (principal is Person, action == Action::"approve", resource) when { resource has holder && resource.holder == Agent::"bot" }"#;
    let check = |caller: Identity, groups: &[&str], holder: Option<&str>, expected: &str| {
        let name = |text: &str| Name::parse(text).unwrap();
        let resource = AdminResource::Ask {
            id: LeaseId(PublicId::from_bytes([7; 10])),
            holder: holder.map(|holder| AgentId(name(holder))),
            groups: groups.iter().map(|group| GroupId(name(group))).collect(),
        };
        let call = valetkey_core::testing::call(caller.clone());
        for action in [AdminAction::Approve, AdminAction::Reject, AdminAction::ListApprovals] {
            let (call, resource) = (Arc::clone(&call), resource.clone());
            let asked = AdminRequest { call, action, resource, detail: "".into() };
            assert_eq!(answer(engine(&[approvers]).decide_admin(&asked)), expected, "{caller} {groups:?}");
        }
    };
    let person = |name: &str| Identity::Person(PersonId(Name::parse(name).unwrap()));
    check(person("ana"), &["reviewers"], Some("bot"), "allow p0");
    check(person("ana"), &["board", "reviewers"], Some("bot"), "allow p0");
    check(person("ana"), &["reviewers", "nobody"], Some("bot"), "ApproverGroup p0");
    check(person("eve"), &["reviewers"], Some("bot"), "ApproverGroup p0");
    check(person("ana"), &["reviewers"], Some("other"), "PolicyNoPermit");
    check(person("ana"), &["reviewers"], None, "PolicyNoPermit");
    check(Identity::Agent(AgentId(Name::parse("bot").unwrap())), &[], Some("bot"), "PolicyNoPermit");
}

#[test]
fn obligations_of_all_that_permit_hold() {
    let terms = |policies: &[&str]| {
        let Decision::Allow(allow) = engine(policies).decide(&ask(password())) else { panic!("denied") };
        (
            allow.obligations.ttl_max.map(|max| max.as_secs()),
            allow.obligations.uses,
            allow.obligations.redeemer,
        )
    };
    let loose = r#"@max_ttl("5m") @uses("9") @redeem_by("agent") permit (principal, action, resource)"#;
    let short =
        r#"@max_ttl("120s") @uses("20") @redeem_by("agent") permit (principal is Agent, action, resource)"#;
    assert_eq!(terms(&[ALL]), (None, 1, Redeemer::Tool));
    assert_eq!(terms(&[loose]), (Some(300), 9, Redeemer::Agent));
    assert_eq!(terms(&[loose, short]), (Some(120), 9, Redeemer::Agent));
    assert_eq!(terms(&[loose, short, ALL]), (Some(120), 1, Redeemer::Tool));
    // Whoever approves is in the groups of all of them.
    let groups = |policies: &[&str]| {
        let Decision::Allow(allow) = engine(policies).decide(&ask(password())) else { panic!("denied") };
        allow.obligations.approval.map(|groups| groups.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let by = |group: &str| {
        format!(r#"@approval("{group}") permit (principal, action == Action::"acquire", resource)"#)
    };
    assert_eq!(groups(&[ALL]), None);
    let both = Some(vec!["board".to_owned(), "reviewers".to_owned()]);
    assert_eq!(groups(&[&by("reviewers"), ALL, &by("board"), &by("reviewers")]), both);
    // One that permits nothing here asks nothing.
    let elsewhere = r#"@max_ttl("1s") permit (principal, action, resource in Vault::"other")"#;
    assert_eq!(terms(&[loose, elsewhere]), (Some(300), 9, Redeemer::Agent));
}

#[test]
fn advice_is_for_the_refused_and_reasons_are_for_reviewers() {
    let one = r#"@advice("ask for less") @reason("too much") forbid (principal, action, resource)"#;
    let two =
        r#"@advice("ask for less") @reason("far too much") forbid (principal is Agent, action, resource)"#;
    let elsewhere = r#"@advice("not this") forbid (principal, action, resource in Vault::"other")"#;
    let decision = deny(engine(&[ALL, one, two, elsewhere]).decide(&ask(password())));
    assert_eq!(decision.advice.as_deref(), Some("ask for less"));
    assert_eq!(decision.detail.as_deref(), Some("too much; far too much"));
}

#[test]
fn what_conditions_see() {
    let check = |condition: &str, asked: &AccessRequest, expected: bool| {
        let policy =
            format!(r#"permit (principal, action in Action::"access", resource) when {{ {condition} }}"#);
        let allowed = matches!(engine(&[&policy]).decide(asked), Decision::Allow(_));
        assert_eq!(allowed, expected, "{condition}");
    };
    let plain = ask(password());
    check("context has destination", &plain, false);
    check("context.session has id", &plain, false);
    check(r#"context.tool == Tool::"tool" && context.tool in Toolset::"kit""#, &plain, true);
    check(
        r#"context.agent == Agent::"bot" && context.agent in Team::"one" && principal in Team::"one""#,
        &plain,
        true,
    );
    check(r#"Agent::"bot" in Team::"one""#, &plain, true);
    check(
        r#"resource.field == "password" && resource.section == "" && resource.kind == "value""#,
        &plain,
        true,
    );
    let full = AccessRequest {
        session: Some(Session::parse("run 7").unwrap()),
        destination: Some(Destination::parse("API.example.com").unwrap()),
        life: Life::Asked(Duration::from_millis(60_001)),
        ..plain
    };
    check(r#"context has destination && context.destination == "api.example.com""#, &full, true);
    check(r#"context.session has id && context.session.id == "run 7""#, &full, true);
    check("context.ttl == 61", &full, true);
    check("context.ttl <= 60", &full, false);
}

#[test]
fn facets_are_different_secrets() {
    let target = |facet| {
        let Target::Field(target) = password() else { panic!("a field") };
        Target::Field(FieldTarget { facet, ..target })
    };
    let acquire = r#"permit (principal, action == Action::"acquire", resource)"#;
    let seed = r#"permit (principal, action == Action::"acquireSeed", resource)"#;
    for facet in [Facet::Value, Facet::Otp, Facet::OpensshKey] {
        check(&[acquire, seed], target(facet), "allow p0");
        let kind = format!(
            r#"permit (principal, action in Action::"access", resource) when {{ resource.kind == "{}" }}"#,
            facet.as_str()
        );
        check(&[&kind], target(facet), "allow p0");
    }
    check(&[acquire, seed], target(Facet::Seed), "allow p1");
    check(&[r#"permit (principal, action in Action::"access", resource)"#], target(Facet::Seed), "allow p0");
    let otp = r#"permit (principal, action, resource == Secret::"prod0000000000000000000000/db000000000000000000000000/password?otp")"#;
    check(&[otp], target(Facet::Otp), "allow p0");
    check(&[otp], target(Facet::Value), "PolicyNoPermit");
    // A field whose id looks like another's facet is not that facet.
    let Target::Field(plain) = password() else { panic!("a field") };
    check(&[otp], Target::Field(FieldTarget { field_id: "password?otp".into(), ..plain }), "PolicyNoPermit");
}

#[test]
fn neither_spelling_nor_purpose_matter() {
    let engine = engine(&[BY_ITEM]);
    let plain = ask(password());
    let spelled = AccessRequest {
        reference: SecretReference::parse("op://other/other/other").unwrap(),
        purpose: Some(Purpose::parse("I am root").unwrap()),
        ..plain.clone()
    };
    assert_eq!(engine.decide(&plain), engine.decide(&spelled));
}

#[test]
fn redeeming_is_decided_on_the_tool_and_the_lease() {
    let policy = r#"permit (principal == Tool::"tool", action == Action::"redeem", resource) when { context.agent in Team::"one" && context.tool == principal }"#;
    let engine = engine(&[policy]);
    let redeem = |agent: &str, tool: &str| {
        answer(engine.decide(&request(AccessKind::Redeem, agent, tool, password()).unwrap()))
    };
    assert_eq!(redeem("bot", "tool"), "allow p0");
    assert_eq!(redeem("bot", "other"), "PolicyNoPermit");
    assert_eq!(redeem("stranger", "tool"), "PolicyNoPermit");
    assert_eq!(answer(engine.decide(&ask(password()))), "PolicyNoPermit");
}

#[test]
fn administration() {
    let engine = engine(&[
        r#"permit (principal in Group::"reviewers", action == Action::"readAudit", resource)"#,
        r#"permit (principal is Agent, action == Action::"revoke", resource) when { resource has holder && resource.holder == principal }"#,
    ]);
    let name = |text: &str| Name::parse(text).unwrap();
    let (bot, other) = (AgentId(name("bot")), AgentId(name("other")));
    let person = |text: &str| Identity::Person(PersonId(name(text)));
    let check = |caller: Identity, action: AdminAction, resource: AdminResource, expected: &str| {
        let call = valetkey_core::testing::call(caller);
        let decision = engine.decide_admin(&AdminRequest { call, action, resource, detail: "".into() });
        assert_eq!(answer(decision), expected);
    };
    let lease = |holder: Option<&AgentId>| AdminResource::Lease {
        id: LeaseId(PublicId::from_bytes([1; 10])),
        holder: holder.cloned(),
    };
    check(person("ana"), AdminAction::ReadAudit, AdminResource::AuditLog, "allow p0");
    check(person("eve"), AdminAction::ReadAudit, AdminResource::AuditLog, "PolicyNoPermit");
    check(person("ana"), AdminAction::Operate, AdminResource::Broker, "PolicyNoPermit");
    check(person("ana"), AdminAction::RevokeToken, AdminResource::Broker, "PolicyNoPermit");
    let agent = || Identity::Agent(bot.clone());
    check(agent(), AdminAction::Revoke, lease(Some(&bot)), "allow p1");
    check(agent(), AdminAction::Revoke, lease(Some(&other)), "PolicyNoPermit");
    check(agent(), AdminAction::Revoke, lease(None), "PolicyNoPermit");
    // The schema has no such request: refused, not failed.
    check(agent(), AdminAction::ReadAudit, AdminResource::AuditLog, "PolicyNoPermit");
    check(agent(), AdminAction::Operate, AdminResource::AuditLog, "PolicyNoPermit");
}

/// What `ana` may read of a log about `payments` and `travel`; of `travel` there are two.
fn reads(policies: &[&str]) -> String {
    let vault =
        |id: &str, name: &str, name_is_unique| Named { id: id.into(), name: name.into(), name_is_unique };
    let vaults = [
        vault("v1", "payments", true),
        vault("v2", "travel", false),
        vault("v3", "travel", false),
        vault("v4", "archive", true),
    ];
    let ana = Identity::Person(PersonId(Name::parse("ana").unwrap()));
    let (decision, scope) = engine(policies).decide_audit(&ana, &vaults);
    let scope = match scope {
        AuditScope::Whole => "whole".to_owned(),
        AuditScope::Vaults(vaults) => vaults.iter().map(|vault| &*vault.id).collect::<Vec<_>>().join(" "),
    };
    format!("{}: {scope}", answer(decision))
}

#[test]
fn a_reviewer_of_some_vaults() {
    let check = |policies: &[&str], expected: &str| assert_eq!(reads(policies), expected, "{policies:#?}");
    const READ: &str = r#"principal == Person::"ana", action == Action::"readAudit", resource"#;
    let permit = |end: &str| format!("permit ({READ}{end}");
    let forbid = |end: &str| format!("forbid ({READ}{end}");
    check(&[], "PolicyNoPermit: ");
    check(&[&permit(" is AuditLog)")], "allow p0: whole");
    check(&[&permit(")")], "allow p0: whole");
    // By name and by id.
    let payments = permit(r#" in Vault::"payments")"#);
    check(&[&payments], "allow p0: v1");
    check(&[&permit(r#" in Vault::"v1")"#)], "allow p0: v1");
    check(&[&payments, &permit(r#" in Vault::"v4")"#)], "allow p0 p1: v1 v4");
    check(&[&permit(" is Vault)")], "allow p0: v1 v2 v3 v4");
    check(&[&permit(r#") when { resource in Vault::"archive" }"#)], "allow p0: v4");
    // A name that two have permits nothing, and forbids.
    check(&[&permit(r#" in Vault::"travel")"#)], "PolicyNoPermit: ");
    check(&[&permit(" is Vault)"), &forbid(r#" in Vault::"travel")"#)], "allow p0: v1 v4");
    check(&[&permit(r#" in Vault::"v2")"#)], "allow p0: v2");
    // What a name or an id forbids is forbidden, however it is written.
    let all = permit(" is Vault)");
    check(&[&all, &forbid(r#") when { resource == Vault::"payments" }"#)], "allow p0: v2 v3 v4");
    check(&[&all, &forbid(r#") when { resource == Vault::"v1" }"#)], "allow p0: v2 v3 v4");
    check(&[&permit(r#" is Vault) unless { resource in Vault::"payments" }"#)], "allow p0: v2 v3 v4");
    check(&[&permit(r#" is Vault) unless { resource == Vault::"v1" }"#)], "allow p0: v2 v3 v4");
    check(&[&all, &forbid(r#") unless { resource in Vault::"payments" }"#)], "allow p0: v1");
    // Permitting by `==` would be by one of its names alone.
    check(&[&permit(r#") when { resource == Vault::"payments" }"#)], "PolicyNoPermit: ");
    // The log as a whole may be forbidden, and one vault not.
    check(&[&all, &forbid(" is AuditLog)")], "allow p0: v1 v2 v3 v4");
    check(&[&all, &forbid(" is Vault)")], "PolicyNoPermit: ");
    // A policy that cannot be evaluated denies where it stands.
    let overflow = forbid(r#" in Vault::"payments") when { 9223372036854775807 + 1 > 0 }"#);
    check(&[&all, &overflow], "allow p0: v2 v3 v4");
}

#[test]
fn only_people_review() {
    let engine = engine(&[ALL]);
    let vault = Named { id: "v1".into(), name: "payments".into(), name_is_unique: true };
    for caller in [
        Identity::Agent(AgentId(Name::parse("bot").unwrap())),
        Identity::Tool(ToolId(Name::parse("tool").unwrap())),
    ] {
        let (decision, scope) = engine.decide_audit(&caller, std::slice::from_ref(&vault));
        assert_eq!((answer(decision).as_str(), scope), ("PolicyNoPermit", AuditScope::Vaults([].into())));
    }
}

#[test]
fn a_reload_is_one_step_and_counts() {
    let bundle = |policy: &str| {
        Bundle::from_texts(SCHEMA, &[("a.cedar", &format!("@id(\"p\") {policy};"))], ENTITIES).unwrap()
    };
    let engine = Engine::new(bundle(ALL));
    let first = engine.revision();
    assert_eq!((first.generation, first.digest_text()), (1, bundle(ALL).digest_text()));
    assert_eq!(answer(engine.decide(&ask(password()))), "allow p");
    let (second, _) = engine.install(bundle(NOT_VAULT));
    assert_eq!((second.generation, engine.revision()), (2, second));
    assert_ne!(second.digest, first.digest);
    let decision = deny(engine.decide(&ask(password())));
    assert_eq!((decision.reason, decision.revision), (Reason::PolicyForbid, second));
    assert_eq!(engine.install(bundle(ALL)).0.digest, first.digest);
}

#[test]
fn many_threads_and_many_targets_get_the_right_answers() {
    let engine =
        Arc::new(engine(&[BY_VAULT, r#"forbid (principal, action, resource in Item::"prod/item-7")"#]));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = Arc::clone(&engine);
            scope.spawn(move || {
                for number in 0..600 {
                    let item = format!("item-{}", (number * 7 + thread) % 50);
                    let expected = if item == "item-7" { "PolicyForbid p1" } else { "allow p0" };
                    assert_eq!(answer(engine.decide(&ask(field("Prod", &item, "password")))), expected);
                }
            });
        }
    });
}
