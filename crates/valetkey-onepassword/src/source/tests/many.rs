use super::*;
use crate::VaultFile;

/// A vault of one name, with one item.
fn small(vault: char, name: &str, value: &str) -> Value {
    let id = |c: char| String::from(c).repeat(26);
    json!({
        "vaults": [{"id": id(vault), "name": name}],
        "items": [{"id": id('i'), "title": "Item", "vault": {"id": id(vault)}, "category": "LOGIN",
            "fields": [{"id": "f", "type": "STRING", "label": "f", "value": value}]}],
    })
}

fn remote(script: &Script, vaults: &[&str], clock: &FakeClock) -> Member {
    let options = SourceOptions { vaults: vaults.iter().map(|it| Arc::from(*it)).collect(), ..options() };
    Member::Remote(
        Source::over(Box::new(script.clone()), "scripted", options, Arc::new(clock.clone())).unwrap(),
    )
}

fn embedded(world: &Value, clock: &FakeClock) -> Member {
    Member::Embedded(VaultFile::from_json(world.to_string().into_bytes(), Arc::new(clock.clone())).unwrap())
}

fn sources(members: Vec<Member>, clock: &FakeClock) -> Sources {
    Sources::new(members, Arc::new(clock.clone()))
}

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbb";

#[tokio::test]
async fn each_vault_is_asked_of_the_source_that_serves_it() {
    let clock = FakeClock::default();
    let (one, two) = (Script::new(small('a', "One", "canary-1")), Script::new(small('b', "Two", "canary-2")));
    let members = vec![
        remote(&one, &["one"], &clock),
        remote(&two, &["two"], &clock),
        embedded(&small('c', "Three", "canary-3"), &clock),
    ];
    let sources = sources(members, &clock);
    let check = async |text: &str, value: Result<&str, &'static str>| {
        assert_eq!(read_from(&sources, text).await.as_deref(), value.as_ref().map(|it| *it), "{text}");
    };
    check("op://ONE/Item/f", Ok("canary-1")).await;
    assert!(two.calls().is_empty(), "the other one is left alone");
    check("op://Two/Item/f", Ok("canary-2")).await;
    check("op://three/Item/f", Ok("canary-3")).await;
    check(&format!("op://{B}/Item/f"), Ok("canary-2")).await;
    one.calls();
    two.calls();
    check("op://Four/Item/f", Err("VAULT_NOT_FOUND")).await;
    assert!(one.calls().is_empty() && two.calls().is_empty(), "no source serves it: nothing is asked");
    assert_eq!(sources.figures().len(), 2);
}

#[tokio::test]
async fn answers_keep_the_order_of_the_grants() {
    let clock = FakeClock::default();
    let (one, two) = (Script::new(small('a', "One", "canary-1")), Script::new(small('b', "Two", "canary-2")));
    let sources = sources(vec![remote(&one, &["one"], &clock), remote(&two, &["two"], &clock)], &clock);
    let mut grants = Vec::new();
    for text in ["op://two/item/f", "op://none/item/f", "op://one/item/f", "op://two/item/f"] {
        let target = conformance::locate(&sources, &request(text)).await.unwrap().into();
        grants.push(Grant::for_test(AccessRequest { target, ..request(text) }, RecordId(2)));
    }
    let answers = sources.resolve(&grants.iter().collect::<Vec<_>>()).await.into_iter().map(shown);
    let expected = [
        Ok("canary-2".to_owned()),
        Err("VAULT_NOT_FOUND"),
        Ok("canary-1".to_owned()),
        Ok("canary-2".to_owned()),
    ];
    assert_eq!(answers.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_name_of_two_sources_means_neither_and_permits_nothing() {
    let clock = FakeClock::default();
    let (one, two) =
        (Script::new(small('a', "Same", "canary-1")), Script::new(small('b', "SAME", "canary-2")));
    let sources = sources(vec![remote(&one, &["same"], &clock), remote(&two, &["same"], &clock)], &clock);
    assert_eq!(read_from(&sources, "op://same/Item/f").await, Err("AMBIGUOUS_REFERENCE"));
    for (id, value) in [(A, "canary-1"), (B, "canary-2")] {
        let text = format!("op://{id}/Item/f");
        assert_eq!(read_from(&sources, &text).await.as_deref(), Ok(value));
        let target = sources.locate(&reference(&text)).target;
        assert!(!target.vault().unwrap().name_is_unique);
    }
}

#[tokio::test]
async fn a_name_that_another_source_may_have_permits_nothing_until_that_is_known() {
    let clock = FakeClock::default();
    let (one, two) =
        (Script::new(small('a', "Main", "canary-1")), Script::new(small('b', "Other", "canary-2")));
    two.set_down(Some(ResolveError::Unavailable));
    let sources = sources(vec![remote(&one, &["main"], &clock), remote(&two, &[B], &clock)], &clock);
    let unique = || sources.locate(&reference("op://main/Item/f")).target.vault().map(|it| it.name_is_unique);
    assert_eq!(read_from(&sources, "op://main/Item/f").await.as_deref(), Ok("canary-1"));
    assert_eq!(unique(), Some(false));
    // It is not asked at each request while it does not say.
    two.calls();
    assert_eq!(read_from(&sources, "op://main/Item/f").await.as_deref(), Ok("canary-1"));
    assert!(two.calls().is_empty());
    two.set_down(None);
    clock.advance(Duration::from_secs(10));
    let located = sources.locate(&reference("op://main/Item/f"));
    assert!(located.gap == Some(Gap::Vaults) && located.target.vault().is_none(), "policy is to wait for it");
    assert_eq!(read_from(&sources, "op://main/Item/f").await.as_deref(), Ok("canary-1"));
    assert_eq!((unique(), two.calls().len()), (Some(true), 1));
}

#[tokio::test]
async fn a_source_that_nobody_uses_takes_no_name_away() {
    let clock = FakeClock::default();
    for word in ["Main", A] {
        let text = format!("op://{word}/Item/f");
        let (one, two) =
            (Script::new(small('a', "Main", "canary-1")), Script::new(small('b', "Other", "canary-2")));
        let by_file = embedded(&small('a', "Main", "canary-1"), &clock);
        for first in [remote(&one, &["main"], &clock), by_file] {
            let sources = sources(vec![first, remote(&two, &[B], &clock)], &clock);
            assert_eq!(read_from(&sources, &text).await.as_deref(), Ok("canary-1"));
            let located = sources.locate(&reference(&text));
            assert!(located.target.vault().unwrap().name_is_unique && located.gap.is_none(), "{text}");
            assert_eq!(two.calls(), ["vaults"]);
        }
    }
}

#[tokio::test]
async fn a_source_that_is_slow_is_known_when_its_answer_comes() {
    let clock = FakeClock::default();
    let (one, two) =
        (Script::new(small('a', "Main", "canary-1")), Script::new(small('b', "Other", "canary-2")));
    two.set_gate(false);
    let sources =
        Arc::new(sources(vec![remote(&one, &["main"], &clock), remote(&two, &[B], &clock)], &clock));
    let asked = Arc::clone(&sources);
    let asked = tokio::spawn(async move { read_from(&*asked, "op://main/Item/f").await });
    settle().await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(asked.await.unwrap().as_deref(), Ok("canary-1"));
    let unique = || sources.locate(&reference("op://main/Item/f")).target.vault().map(|it| it.name_is_unique);
    assert_eq!(unique(), Some(false));
    two.set_gate(true);
    settle().await;
    assert_eq!((unique(), two.calls()), (Some(true), vec!["vaults".to_owned()]));
}

#[tokio::test]
async fn a_source_that_is_down_does_not_delay_the_others() {
    let clock = FakeClock::default();
    let (one, two) =
        (Script::new(small('a', "Main", "canary-1")), Script::new(small('b', "Other", "canary-2")));
    two.set_gate(false);
    // The second could have a vault of that name, so it is asked.
    let sources =
        Arc::new(sources(vec![remote(&one, &["main"], &clock), remote(&two, &[B], &clock)], &clock));
    let asked = Arc::clone(&sources);
    let asked = tokio::spawn(async move { read_from(&*asked, "op://main/Item/f").await });
    settle().await;
    assert_eq!(two.calls(), ["vaults"]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(asked.await.unwrap().as_deref(), Ok("canary-1"));
    // Both in one lease: the one that answers has done so by the time the other gives up.
    let other = format!("op://{B}/Item/f");
    let asked = Arc::clone(&sources);
    let asked = tokio::spawn(async move { read_from(&*asked, &other).await });
    settle().await;
    clock.advance(Duration::from_secs(5));
    assert_eq!(asked.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
}

#[tokio::test]
async fn one_vault_of_two_sources_is_the_first_one_s() {
    let clock = FakeClock::default();
    let (one, two) =
        (Script::new(small('a', "Main", "canary-1")), Script::new(small('a', "Main", "canary-2")));
    let sources = sources(vec![remote(&one, &["main"], &clock), remote(&two, &["main"], &clock)], &clock);
    assert_eq!(read_from(&sources, "op://main/Item/f").await.as_deref(), Ok("canary-1"));
    let target = sources.locate(&reference("op://main/Item/f")).target;
    assert!(target.vault().unwrap().name_is_unique);
}

/// Each vault by the source that serves it, and a name that two have stands for neither.
#[tokio::test]
async fn an_inventory_has_each_vault_once() {
    let clock = FakeClock::default();
    let one = Script::new(small('a', "Same", "canary-1"));
    let members = vec![
        remote(&one, &["same"], &clock),
        embedded(&small('b', "Same", "canary-2"), &clock),
        embedded(&small('b', "Former", "canary-3"), &clock),
    ];
    let sources = sources(members, &clock);
    let stock = || {
        let Inventory { items, gaps } = sources.inventory();
        let vaults = items.into_iter().map(|KnownItem { vault, item: _ }| vault);
        let mut vaults: Vec<_> =
            vaults.map(|it| (it.id.to_string(), it.name.to_string(), it.name_is_unique)).collect();
        vaults.sort();
        (vaults, gaps.len())
    };
    let embedded = (B.to_owned(), "same".to_owned(), false);
    assert_eq!(stock(), (vec![embedded.clone()], 1), "the other may have one of that name");
    conformance::locate(&sources, &request(&format!("op://{A}/Item/f"))).await.unwrap();
    assert_eq!(stock(), (vec![(A.to_owned(), "same".to_owned(), false), embedded], 0));
}
