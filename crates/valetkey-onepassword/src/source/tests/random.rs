//! Whatever the world and however it changes, what is given is what was asked for.

use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::*;
use crate::VaultFile;

/// Titles, labels and names that meet each other.
const WORDS: [&str; 6] = ["a", "A", "b", "notes", "field1", "iiiiiiiiiiiiiiiiiiiiiii001"];
const TYPES: [&str; 3] = ["STRING", "CONCEALED", "TOTP"];

/// A vault, a title, whether it is archived, and the fields: label, section and type.
type ItemSeed = (Pick, Pick, bool, Vec<(Pick, Option<bool>, Pick)>);

fn items() -> impl Strategy<Value = Vec<ItemSeed>> {
    let field = (any::<Pick>(), any::<Option<bool>>(), any::<Pick>());
    let fields = prop::collection::vec(field, 1..5);
    prop::collection::vec((any::<Pick>(), any::<Pick>(), prop::bool::weighted(0.1), fields), 1..6)
}

fn vault_id(n: usize) -> String {
    format!("vvvvvvvvvvvvvvvvvvvvvvv00{n}")
}

fn item_id(n: usize) -> String {
    format!("iiiiiiiiiiiiiiiiiiiiiii00{n}")
}

/// Each value says whose it is: `item.field.label.title`.
fn item(n: usize, (vault, title, is_archived, fields): &ItemSeed) -> Value {
    let title = WORDS[title.index(WORDS.len())];
    let field = |(m, (label, section, kind)): (usize, &(Pick, Option<bool>, Pick))| {
        let label = WORDS[label.index(WORDS.len())];
        let mut field = json!({"id": format!("field{m}"), "label": label, "type": TYPES[kind.index(TYPES.len())],
            "value": format!("{n}.{m}.{label}.{title}")});
        if let Some(section) = section {
            field["section"] = json!({"id": format!("sec{}", u8::from(*section))});
        }
        field
    };
    let fields: Vec<_> = fields.iter().enumerate().map(field).collect();
    let mut item = json!({"id": item_id(n), "title": title, "vault": {"id": vault_id(vault.index(2))},
        "category": "LOGIN", "fields": fields,
        "sections": [{"id": "sec0", "label": "a"}, {"id": "sec1", "label": "One"}]});
    if *is_archived {
        item["state"] = json!("ARCHIVED");
    }
    item
}

fn build(items: &[ItemSeed]) -> Value {
    let items: Vec<_> = items.iter().enumerate().map(|(n, seed)| item(n, seed)).collect();
    json!({"vaults": [{"id": vault_id(0), "name": "Main"}, {"id": vault_id(1), "name": "b"}], "items": items})
}

fn spelling() -> impl Strategy<Value = String> {
    let vault = prop_oneof![Just("main".to_owned()), Just("B".into()), (0..3_usize).prop_map(vault_id)];
    let word = || prop::sample::select(&WORDS[..]).prop_map(str::to_owned);
    let item = prop_oneof![word(), (0..6_usize).prop_map(item_id)];
    let section =
        prop_oneof![Just(String::new()), Just("a/".into()), Just("ONE/".into()), Just("sec1/".into())];
    let field = prop_oneof![word(), (0..5_usize).prop_map(|n| format!("field{n}"))];
    let query = prop_oneof![4 => Just(""), 1 => Just("?attribute=otp")];
    (vault, item, section, field, query).prop_map(|(vault, item, section, field, query)| {
        format!("op://{vault}/{item}/{section}{field}{query}")
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn serving(world: Value) -> Setup {
    over(world, |options| options.vaults = vec!["main".into(), vault_id(1).into()])
}

/// One step of a story.
#[derive(Debug, Clone)]
enum Step {
    Read(String),
    Grant(String),
    /// Resolves the oldest grant that is open.
    Resolve,
    Pass(u64),
    Change(Pick, ItemSeed),
    Fail,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seed = items().prop_map(|mut items| items.remove(0));
    let step = prop_oneof![
        4 => spelling().prop_map(Step::Read),
        3 => spelling().prop_map(Step::Grant),
        3 => Just(Step::Resolve),
        2 => prop::sample::select(vec![1, 2, 11, 70, 1_000]).prop_map(Step::Pass),
        3 => (any::<Pick>(), seed).prop_map(|(at, seed)| Step::Change(at, seed)),
        1 => Just(Step::Fail),
    ];
    prop::collection::vec(step, 1..40)
}

/// Holds what was given against what was decided on: the item, the field and its label.
fn check_given(value: &str, target: &Target) -> Result<(), TestCaseError> {
    let Target::Field(target) = target else { return Err(TestCaseError::fail("a value without a target")) };
    let parts: Vec<_> = value.split('.').collect();
    let [item, field, label, title] = parts[..] else { return Err(TestCaseError::fail(value.to_owned())) };
    prop_assert_eq!(&*target.item.id, &item_id(item.parse().unwrap()));
    prop_assert_eq!(&*target.field_id, &format!("field{field}"));
    prop_assert_eq!(&*target.field, &label.to_lowercase());
    prop_assert_eq!(&*target.item.name, &title.to_lowercase());
    Ok(())
}

proptest! {
    /// Once it has learnt, a source means what the vault file means.
    #[test]
    fn a_source_means_what_the_vault_file_means(
        items in items(),
        texts in prop::collection::vec(spelling(), 1..8),
    ) {
        let world = build(&items);
        let file = VaultFile::from_json(world.to_string().into_bytes(), Arc::new(FakeClock::default())).unwrap();
        let setup = serving(world);
        for text in texts {
            let target = runtime().block_on(setup.locate(&text));
            prop_assert_eq!(target, Ok(file.locate(&reference(&text)).target), "{}", text);
            prop_assert_eq!(setup.gap(&text), None);
        }
    }

    /// However the world changes, and whatever is old or fails: never a value other than the one decided on.
    #[test]
    fn never_a_wrong_field(items in items(), steps in steps(), cache in prop::option::of(1..60_u64)) {
        let setup = over(build(&items), |options| {
            options.vaults = vec!["main".into(), vault_id(1).into()];
            options.value_cache = cache.map(Duration::from_secs);
        });
        let runtime = runtime();
        let mut grants = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Read(text) => {
                    let Ok(target) = runtime.block_on(setup.locate(&text)) else { continue };
                    let grant = Grant::for_test(AccessRequest { target: target.into(), ..request(&text) }, RecordId(2));
                    let given = runtime.block_on(setup.resolve(&[&grant])).pop().unwrap();
                    if let (Ok(value), Facet::Value | Facet::Seed) = (given, facet(&grant)) {
                        check_given(&value, &grant.request().target)?;
                    }
                }
                Step::Grant(text) => {
                    if let Ok(target) = runtime.block_on(setup.locate(&text)) {
                        let request = AccessRequest { target: target.into(), ..request(&text) };
                        grants.push_back(Grant::for_test(request, RecordId(2)));
                    }
                }
                Step::Resolve => {
                    let Some(grant) = grants.pop_front() else { continue };
                    let given = runtime.block_on(setup.resolve(&[&grant])).pop().unwrap();
                    if let (Ok(value), Facet::Value | Facet::Seed) = (given, facet(&grant)) {
                        check_given(&value, &grant.request().target)?;
                    }
                }
                Step::Pass(seconds) => setup.pass(seconds),
                Step::Change(at, seed) => setup.script.edit(|world| {
                    let n = at.index(items.len());
                    world["items"][n] = item(n, &seed);
                }),
                Step::Fail => setup.script.fail_next(ResolveError::Unavailable),
            }
        }
    }
}

fn facet(grant: &Grant) -> Facet {
    grant.request().target.field().map_or(Facet::Otp, |field| field.facet)
}
