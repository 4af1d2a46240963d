//! Against brute force: over any policies of a small world, an agent can access an item exactly where one of all
//! requests that can be made there is allowed.

use std::time::Duration;

use proptest::prelude::*;
use valetkey_core::{AccessKind, AccessRequest, Destination, Facet, FieldTarget, Life, Named};

use super::*;
use crate::agreement::{ENTITIES, policy, schema};
use crate::bundle::Bundle;
use crate::generate::{generate, named, request};

/// Every request of the small world that `agreement` writes policies about.
fn requests(agent: &str, tool: Option<&str>, known: &KnownItem) -> Vec<AccessRequest> {
    let tools = ["k0", "k1", "other"].into_iter().filter(|name| tool.is_none_or(|tool| tool == *name));
    let mut all = Vec::new();
    for tool in tools {
        for facet in [Facet::Value, Facet::Otp, Facet::Seed] {
            for field in ["pin", "key", "note"] {
                let KnownItem { vault, item } = known.clone();
                let (field_id, field, section) = (field.into(), field.into(), "".into());
                let target = FieldTarget { vault, item, field_id, field, section, facet };
                let plain = request(AccessKind::Acquire, agent, tool, Target::Field(target)).unwrap();
                // Beyond what the policies of that world compare with.
                let longer = AccessRequest { life: Life::Asked(Duration::from_secs(61)), ..plain.clone() };
                for request in [plain, longer] {
                    let destination = Destination::parse("api.example.com").ok();
                    all.extend([AccessRequest { destination, ..request.clone() }, request]);
                }
            }
        }
    }
    all
}

fn known(vault: &str, item: &str, unique: (bool, bool)) -> KnownItem {
    KnownItem {
        vault: Named { name_is_unique: unique.0, ..named(vault) },
        item: Named { name_is_unique: unique.1, ..named(item) },
    }
}

fn question(agent: &str, tool: Option<&str>) -> AccessQuestion {
    let name = |text: &str| Name::parse(text).unwrap();
    AccessQuestion {
        agent: AgentId(name(agent)),
        tool: tool.map(|tool| ToolId(name(tool))),
        among: Among::All,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn access_is_what_some_request_gets(
        policies in prop::collection::vec(policy(), 0..10),
        unique in prop::collection::vec((prop::bool::weighted(0.8), prop::bool::weighted(0.8)), 4),
    ) {
        let text: String = policies.iter().enumerate().map(|(n, text)| format!("@id(\"p{n}\") {text}")).collect();
        let bundle = Bundle::from_texts(&schema(), &[("a.cedar", &text)], ENTITIES);
        let bundle = bundle.map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        let snapshot = Snapshot::new(bundle, 1);
        let places = ["v0", "v1"].into_iter().flat_map(|vault| ["i0", "i1"].map(|item| (vault, item)));
        let items: Vec<_> = places.zip(&unique).map(|((vault, item), unique)| known(vault, item, *unique)).collect();
        let questions = [("a0", None), ("a1", None), ("stranger", None), ("a0", Some("k0")), ("a1", Some("other"))];
        let asked = questions.map(|(agent, tool)| question(agent, tool));
        let Access { items: found, exact } = snapshot.access(&items, &asked);
        prop_assert!(exact);
        for ((agent, tool), found) in questions.into_iter().zip(found) {
            let can = |item: &KnownItem| requests(agent, tool, item).iter().any(|asked| snapshot.rule(asked).is_ok());
            let expected: Vec<_> = (0..items.len()).filter(|place| can(&items[*place])).collect();
            prop_assert_eq!(found, expected, "{} {:?}\n{}\n{:?}", agent, tool, text, items);
        }
    }
}

/// The items that `agent` can access, of `v0/i0`, `v0/i1` and `v1/i0`, whose names are their own.
fn check(policies: &str, agent: &str, tool: Option<&str>, expected: &[&str]) {
    let bundle = Bundle::from_texts(&schema(), &[("a.cedar", policies)], ENTITIES).unwrap();
    let snapshot = Snapshot::new(bundle, 1);
    let places = [("v0", "i0"), ("v0", "i1"), ("v1", "i0")];
    let items = places.map(|(vault, item)| known(vault, item, (true, true)));
    let Access { items: found, exact } = snapshot.access(&items, &[question(agent, tool)]);
    let found: Vec<_> = found[0]
        .iter()
        .map(|place| format!("{}/{}", items[*place].vault.name, items[*place].item.name))
        .collect();
    assert_eq!((found, exact), (expected.iter().map(|it| (*it).to_owned()).collect(), true), "{policies}");
}

#[test]
fn conditions_that_some_request_meets_count() {
    let permit = |condition: &str| {
        format!(
            r#"@id("p") permit (principal == Agent::"a0", action == Action::"acquire", resource in Item::"v0/i0") when {{ {condition} }};"#
        )
    };
    for condition in [
        r#"context.tool == Tool::"unknown""#,
        r#"context.tool in Toolset::"s1""#,
        r#"["a", "b"].contains(resource.field) && resource.kind == "otp""#,
        r#"resource.section == "" && resource.field == "a""#,
        r#"resource.section like "sec*" "#,
        "context.ttl > 90 && context.ttl < 92",
        r#"context.session has id && context.session.id == "nightly""#,
        r#"context.session has claims && context.session.claims.containsAll(["a=b", "c=d"])"#,
        r#"context.session has on_behalf_of && context.session.on_behalf_of in Group::"g0""#,
        r#"context has destination && context.destination like "*.example.com""#,
        "!(context has destination)",
        r#"resource == Secret::"v0000000000000000000000000/i0000000000000000000000000/pin?otp""#,
    ] {
        check(&permit(condition), "a0", None, &["v0/i0"]);
        check(&permit(condition), "a1", None, &[]);
    }
    for condition in [
        "context.ttl < 1",
        "9223372036854775807 + context.ttl > 0",
        r#"context.tool == Tool::"k0" && context.tool in Toolset::"s1""#,
    ] {
        check(&permit(condition), "a0", None, &[]);
    }
}

#[test]
fn a_forbid_takes_away_what_it_leaves_no_way_around() {
    let with = |forbid: &str| {
        format!(
            r#"@id("p") permit (principal, action == Action::"acquire", resource in Vault::"v0")
                 when {{ context.tool in Toolset::"s0" }};
               @id("f") forbid (principal, action in Action::"access", resource in Item::"v0/i0") {forbid};"#
        )
    };
    check(&with(""), "a0", None, &["v0/i1"]);
    check(&with(r#"unless { context.tool in Toolset::"s1" }"#), "a0", None, &["v0/i1"]);
    check(&with(r#"unless { context.tool in Toolset::"s0" }"#), "a0", None, &["v0/i0", "v0/i1"]);
    check(&with(r#"when { resource.field == "pin" }"#), "a0", None, &["v0/i0", "v0/i1"]);
    // An error in a forbid refuses whatever it concerns.
    check(&with("when { 9223372036854775807 + context.ttl > 0 }"), "a0", None, &["v0/i1"]);
    check(&with(""), "a0", Some("k0"), &["v0/i1"]);
    check(&with(""), "a0", Some("k1"), &[]);
}

#[test]
fn a_seed_is_access_too() {
    let seed = r#"@id("p") permit (principal, action == Action::"acquireSeed", resource in Item::"v1/i0");"#;
    check(seed, "a0", None, &["v1/i0"]);
    let redeem = r#"@id("p") permit (principal, action == Action::"redeem", resource in Item::"v1/i0");"#;
    check(redeem, "a0", None, &[]);
}

#[test]
fn agents_are_those_that_are_named() {
    let policies = r#"@id("p") permit (principal == Agent::"named", action == Action::"acquire", resource)
        when { principal != Agent::"in a condition" };"#;
    let bundle = Bundle::from_texts(&schema(), &[("a.cedar", policies)], ENTITIES).unwrap();
    let agents: Vec<_> = Snapshot::new(bundle, 1).agents().iter().map(ToString::to_string).collect();
    assert_eq!(agents, ["a0", "a1", "named"]);
}

/// What policies too many to try leave open counts as access, and says so.
#[test]
fn what_is_not_decided_counts_and_is_told() {
    let texts: Vec<_> = (0..60).map(|n| format!("\"t{n}\"")).collect();
    let all = texts.join(", ");
    let policies = format!(
        r#"@id("p") permit (principal, action == Action::"acquire", resource in Vault::"v0") when {{
            [{all}].contains(resource.field) && [{all}].contains(resource.section) &&
            context.session has id && [{all}].contains(context.session.id) }};"#
    );
    let bundle = Bundle::from_texts(&schema(), &[("a.cedar", &policies)], ENTITIES).unwrap();
    let items = [known("v0", "i0", (true, true)), known("v1", "i0", (true, true))];
    let access = Snapshot::new(bundle, 1).access(&items, &[question("a0", None)]);
    assert_eq!(access, Access { items: vec![vec![0]], exact: false });
}

/// Alike agents and items are decided once: four in a hundred pairs of a team with many policies.
#[test]
fn many_agents_and_items_take_few_trials() {
    let generated = generate(300).unwrap();
    let files: Vec<(&str, &str)> =
        generated.policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let bundle = Bundle::from_texts(generated.schema, &files, &generated.entities).unwrap();
    let snapshot = Snapshot::new(bundle, 1);
    let places = (0..30).flat_map(|vault| (0..20).map(move |item| (vault, item)));
    let items: Vec<_> = places
        .map(|(vault, item)| known(&format!("vault-{vault}"), &format!("item-{item}"), (true, true)))
        .collect();
    let mut surveyor = Surveyor::new(&snapshot, &items);
    let agents = snapshot.agents();
    let pairs = agents.len() * items.len();
    let found: usize = agents
        .into_iter()
        .map(|agent| surveyor.answer(&AccessQuestion { agent, tool: None, among: Among::All }).len())
        .sum();
    let tried = TRIALS_MAX - surveyor.trials_left;
    assert_eq!((pairs, found, surveyor.exact), (150 * 600, 150 * 20, true));
    assert!(tried < pairs * 4 / 100, "{tried}");
}
