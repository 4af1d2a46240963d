//! The index against the whole: over any policies and requests, Cedar's answer on the slice is its answer
//! on everything, diagnostics included.

use std::collections::BTreeSet;

use cedar_policy::{Decision, Response};
use proptest::prelude::*;
use valetkey_core::{
    AccessKind, AccessRequest, Destination, Facet, FieldTarget, Gap, Named, ResolveError, Target,
};

use crate::bundle::Bundle;
use crate::entities::{self, Action, Names, Resource};
use crate::generate::{field, generate, named, request};
use crate::ruling::Permits;
use crate::snapshot::Snapshot;

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

/// Attributes, tags and deeper hierarchies than the default schema has: the slice must hold all that a
/// policy can reach.
pub(crate) fn schema() -> String {
    SCHEMA
        .replace("entity Team;", "entity Team in [Team] = { owner?: Person } tags Tool;")
        .replace(
            "entity Vault in [Vault];",
            "entity Zone; entity Vault in [Vault, Zone] = { keeper?: Team };",
        )
        .replace("entity Agent in [Team];", "entity Agent in [Team] = { vault?: Vault };")
}

pub(crate) const ENTITIES: &str = r#"[
    {"uid": {"type": "Agent", "id": "a0"}, "attrs": {"vault": {"__entity": {"type": "Vault", "id": "v0"}}}, "parents": [{"type": "Team", "id": "t0"}]},
    {"uid": {"type": "Agent", "id": "a1"}, "attrs": {}, "parents": [{"type": "Team", "id": "t1"}]},
    {"uid": {"type": "Team", "id": "t0"}, "attrs": {"owner": {"__entity": {"type": "Person", "id": "p0"}}}, "parents": [{"type": "Team", "id": "top"}], "tags": {"main": {"__entity": {"type": "Tool", "id": "k1"}}}},
    {"uid": {"type": "Tool", "id": "k0"}, "attrs": {}, "parents": [{"type": "Toolset", "id": "s0"}]},
    {"uid": {"type": "Tool", "id": "k1"}, "attrs": {}, "parents": [{"type": "Toolset", "id": "s1"}]},
    {"uid": {"type": "Vault", "id": "v0"}, "attrs": {"keeper": {"__entity": {"type": "Team", "id": "t0"}}}, "parents": [{"type": "Zone", "id": "z0"}]},
    {"uid": {"type": "Person", "id": "p0"}, "attrs": {}, "parents": [{"type": "Group", "id": "g0"}]}
]"#;

fn scopes(any: &'static str, rest: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(any), 3 => prop::sample::select(rest)]
}

fn principal() -> impl Strategy<Value = &'static str> {
    scopes(
        "principal",
        &[
            "principal is Agent",
            "principal is Tool",
            r#"principal == Agent::"a0""#,
            r#"principal == Agent::"stranger""#,
            r#"principal in Agent::"a1""#,
            r#"principal in Team::"t0""#,
            r#"principal in Team::"top""#,
            r#"principal is Agent in Team::"t1""#,
            r#"principal is Tool in Toolset::"s0""#,
            r#"principal in Toolset::"s1""#,
        ],
    )
}

fn action() -> impl Strategy<Value = &'static str> {
    scopes(
        r#"action in Action::"access""#,
        &[
            r#"action == Action::"acquire""#,
            r#"action == Action::"redeem""#,
            r#"action in [Action::"acquire", Action::"acquireSeed"]"#,
            r#"action in [Action::"redeem"]"#,
        ],
    )
}

fn resource() -> impl Strategy<Value = &'static str> {
    scopes(
        "resource",
        &[
            "resource is Secret",
            r#"resource in Vault::"v0""#,
            r#"resource in Vault::"v1""#,
            r#"resource in Vault::"v0000000000000000000000000""#,
            r#"resource in Zone::"z0""#,
            r#"resource in Item::"v0/i0""#,
            r#"resource in Item::"v1/i1""#,
            r#"resource is Secret in Item::"i1000000000000000000000000""#,
            r#"resource == Secret::"v0000000000000000000000000/i0000000000000000000000000/pin""#,
        ],
    )
}

fn condition() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "true",
        r#"context.tool == Tool::"k0""#,
        r#"context.tool in Toolset::"s1""#,
        r#"context.agent in Team::"top""#,
        r#"resource.field == "pin""#,
        r#"["pin", "key"].contains(resource.field)"#,
        r#"resource in Item::"v0/i0""#,
        r#"resource in [Vault::"v1", Vault::"v0000000000000000000000000"]"#,
        r#"resource in Zone::"z0""#,
        "context has destination",
        "9223372036854775807 + context.ttl > 0",
        "context.ttl <= 60",
        r#"Agent::"a0" in Team::"top""#,
        r#"Team::"t0" has owner && Team::"t0".owner in Group::"g0""#,
        r#"Team::"t0".hasTag("main") && Team::"t0".getTag("main") in Toolset::"s1""#,
        r#"context.agent has vault && context.agent.vault in Zone::"z0""#,
        r#"context.agent has vault && context.agent.vault has keeper && context.agent.vault.keeper in Team::"top""#,
    ]);
    let clause = (prop::bool::ANY, prop::collection::vec(atom, 1..3)).prop_map(|(when, atoms)| {
        format!("{} {{ {} }}", if when { "when" } else { "unless" }, atoms.join(" && "))
    });
    prop::collection::vec(clause, 0..2).prop_map(|clauses| clauses.join(" "))
}

pub(crate) fn policy() -> impl Strategy<Value = String> {
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, principal(), action(), resource(), condition()).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    let place = |name: &'static str| {
        prop::bool::ANY.prop_map(move |name_is_unique| Named { name_is_unique, ..named(name) })
    };
    let vault = || prop_oneof![place("v0"), place("v1"), place("v2")];
    let item = || prop_oneof![place("i0"), place("i1")];
    let facet = prop::sample::select(vec![Facet::Value, Facet::Value, Facet::Otp, Facet::Seed]);
    let label = prop::sample::select(vec!["pin", "key", "note"]);
    let known = (vault(), item(), label, facet).prop_map(|(vault, item, label, facet)| {
        let Target::Field(plain) = field("v", "i", label) else { unreachable!("a field") };
        Target::Field(FieldTarget { vault, item, facet, ..plain })
    });
    let unknown = (prop::option::of(vault()), prop::option::of(item())).prop_map(|(vault, item)| {
        let item = item.filter(|_| vault.is_some());
        Target::Unresolved { vault, item, error: ResolveError::FieldNotFound }
    });
    prop_oneof![4 => known, 1 => unknown]
}

fn asked() -> impl Strategy<Value = AccessRequest> {
    let kind = prop::sample::select(vec![AccessKind::Acquire, AccessKind::Redeem]);
    let agent = prop::sample::select(vec!["a0", "a1", "stranger"]);
    let tool = prop::sample::select(vec!["k0", "k1", "other"]);
    (kind, agent, tool, target(), prop::bool::ANY).prop_map(|(kind, agent, tool, target, sent)| {
        AccessRequest {
            destination: sent.then(|| Destination::parse("api.example.com").unwrap()),
            ..request(kind, agent, tool, target).unwrap()
        }
    })
}

type Answer = (bool, BTreeSet<String>, BTreeSet<String>);

fn answer(response: &Response) -> Answer {
    (
        response.decision() == Decision::Allow,
        response.diagnostics().reason().map(ToString::to_string).collect(),
        response.diagnostics().errors().map(ToString::to_string).collect(),
    )
}

/// Cedar's answers on the slices, beside those on all policies and entities, one for each reading.
fn both(bundle: &Bundle, snapshot: &Snapshot, asked: &AccessRequest) -> Vec<(Answer, Answer)> {
    let sliced = snapshot.responses(asked).unwrap();
    let readings = Names::readings(&asked.target);
    assert_eq!(sliced.len(), readings.len());
    let whole = readings.into_iter().map(|names| {
        let secret = Resource::secret(&asked.target, names).entity().unwrap();
        let entities = bundle.entities.clone().add_entities([secret], Some(&bundle.schema)).unwrap();
        let policies = bundle.policies.iter().map(|loaded| loaded.policy.clone());
        let policies = cedar_policy::PolicySet::from_policies(policies).unwrap();
        let request = cedar_policy::Request::new(
            entities::caller(&asked.call.caller),
            Action::of(asked).uid(),
            entities::secret(&asked.target),
            snapshot.context(asked).unwrap(),
            Some(&bundle.schema),
        );
        answer(&cedar_policy::Authorizer::new().is_authorized(&request.unwrap(), &policies, &entities))
    });
    sliced.iter().map(answer).zip(whole).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_slice_and_the_whole_agree(
        policies in prop::collection::vec(policy(), 0..12),
        requests in prop::collection::vec(asked(), 8),
    ) {
        let text: String = policies.iter().enumerate().map(|(n, text)| format!("@id(\"p{n}\") {text}")).collect();
        let bundle = Bundle::from_texts(&schema(), &[("a.cedar", &text)], ENTITIES);
        let bundle = bundle.map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        let snapshot = Snapshot::new(bundle.clone(), 1);
        for asked in &requests {
            let answers = both(&bundle, &snapshot, asked);
            for (sliced, whole) in &answers {
                prop_assert_eq!(sliced, whole, "{}\n{:#?}", text, asked);
            }
            // What is warm answers as what is cold did, and the ruling is Cedar's, errors refused.
            let allows = answers.iter().all(|(_, (allows, _, errors))| *allows && errors.is_empty());
            for _ in 0..2 {
                prop_assert_eq!(snapshot.rule(asked).is_ok(), allows, "{}\n{:#?}", text, asked);
            }
        }
    }
}

/// What a target looks like before what is beyond each gap is known, and when that was renamed meanwhile.
fn less_known(target: &Target) -> Vec<(Target, Gap)> {
    let unresolved = |vault: Option<&Named>, item: Option<&Named>| Target::Unresolved {
        vault: vault.cloned(),
        item: item.cloned(),
        error: ResolveError::FieldNotFound,
    };
    let formerly = |named: Option<&Named>| named.map(|it| Named { name: "formerly".into(), ..it.clone() });
    let (vault, item) = (target.vault(), target.item());
    vec![
        (unresolved(None, None), Gap::Vaults),
        (unresolved(formerly(vault).as_ref(), formerly(item).as_ref()), Gap::Vaults),
        (unresolved(vault, None), Gap::Items),
        (unresolved(vault, formerly(item).as_ref()), Gap::Items),
        (unresolved(vault, item), Gap::Fields),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What is allowed once it is known may be looked up while it is not.
    #[test]
    fn what_may_not_be_looked_up_is_never_allowed(
        policies in prop::collection::vec(policy(), 0..12),
        requests in prop::collection::vec(asked(), 8),
    ) {
        let text: String = policies.iter().enumerate().map(|(n, text)| format!("@id(\"p{n}\") {text}")).collect();
        let bundle = Bundle::from_texts(&schema(), &[("a.cedar", &text)], ENTITIES);
        let bundle = bundle.map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        let snapshot = Snapshot::new(bundle, 1);
        for asked in requests.iter().filter(|asked| snapshot.rule(asked).is_ok()) {
            for (target, gap) in less_known(&asked.target) {
                let early = AccessRequest { target: target.into(), ..asked.clone() };
                prop_assert!(snapshot.may_allow(&early, gap), "{}\n{:?} {:#?}", text, gap, early);
            }
        }
    }
}

/// A source is not asked in vain: not about a vault that is nobody's to use, nor for one who is shut out.
#[test]
fn what_no_policy_reaches_is_not_looked_up() {
    const POLICIES: &str = r#"
        @id("item") permit (principal == Agent::"a0", action == Action::"acquire", resource in Item::"v0/i0");
        @id("vault") permit (principal == Agent::"a1", action == Action::"acquire", resource in Vault::"v0");
        @id("out") forbid (principal == Agent::"out", action in Action::"access", resource);
        @id("in") permit (principal == Agent::"out", action in Action::"access", resource) when { context.ttl < 9 };
        @id("redeem") permit (principal, action == Action::"redeem", resource);
    "#;
    let bundle = Bundle::from_texts(SCHEMA, &[("a.cedar", POLICIES)], "[]").unwrap();
    let snapshot = Snapshot::new(bundle, 1);
    let known =
        |name: &str| Named { id: format!("id-{name}").into(), name: name.into(), name_is_unique: true };
    let check = |agent: &str, vault: Option<&str>, item: Option<&str>, gap: Gap, expected: bool| {
        let error = ResolveError::FieldNotFound;
        let target = Target::Unresolved { vault: vault.map(known), item: item.map(known), error };
        let asked = request(AccessKind::Acquire, agent, "k0", target).unwrap();
        assert_eq!(snapshot.may_allow(&asked, gap), expected, "{agent} {vault:?} {item:?} {gap:?}");
    };
    check("a0", None, None, Gap::Vaults, true);
    check("a0", Some("v0"), None, Gap::Items, true);
    check("a0", Some("v0"), Some("i0"), Gap::Fields, true);
    check("a0", Some("v0"), Some("i1"), Gap::Fields, false);
    check("a0", Some("v1"), None, Gap::Items, false);
    check("a1", Some("v0"), Some("i1"), Gap::Fields, true);
    check("a1", Some("v1"), None, Gap::Items, false);
    check("stranger", None, None, Gap::Vaults, false);
    check("out", None, None, Gap::Vaults, false);
    check("out", Some("v0"), Some("i0"), Gap::Fields, false);
}

#[test]
fn usual_policies_concern_few_and_agree_with_the_whole() {
    let generated = generate(200).unwrap();
    let files: Vec<(&str, &str)> =
        generated.policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let bundle = Bundle::from_texts(generated.schema, &files, &generated.entities).unwrap();
    let snapshot = Snapshot::new(bundle.clone(), 1);
    let mut allowed = 0;
    for asked in &generated.requests {
        let candidates = snapshot.candidate_count(asked).unwrap();
        assert!((1..=8).contains(&candidates), "{candidates}");
        for (sliced, whole) in both(&bundle, &snapshot, asked) {
            assert_eq!(sliced, whole);
            allowed += usize::from(sliced.0);
        }
    }
    assert!(allowed * 2 > generated.requests.len(), "{allowed} of {}", generated.requests.len());
    assert_eq!(Permits::default(), Permits::default().and(Permits::default()));
}
