use super::*;

#[tokio::test]
async fn a_survey_asks_one_question_of_its_own_level() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    let learn = async |gap: Gap| {
        let target = setup.source.locate(&reference(text)).target.into();
        let survey = Survey::for_test(AccessRequest { target, ..request(text) }, gap, RecordId(1));
        setup.source.learn(&[&survey]).await.pop().unwrap().unwrap();
        setup.script.calls()
    };
    let nothing: Vec<String> = Vec::new();
    assert_eq!(learn(Gap::Items).await, nothing, "what is not the gap is not asked");
    assert_eq!(learn(Gap::Vaults).await, ["vaults"]);
    assert_eq!(learn(Gap::Vaults).await, nothing);
    assert_eq!(learn(Gap::Items).await, [format!("items {VAULT}")]);
    assert_eq!(learn(Gap::Fields).await, [format!("item {ITEM}")]);
    assert_eq!(setup.gap(text), None);
}

#[tokio::test]
async fn a_survey_asks_about_what_stands_in_it_alone() {
    let setup = setup(|options| options.vaults = vec!["main".into(), "other".into()]);
    for text in ["op://Main/x/y", "op://Other/x/y"] {
        setup.locate(text).await.unwrap();
    }
    setup.script.calls();
    // About another item, and another vault, than the reference means by now.
    for elsewhere in ["op://Other/Login/password", "op://Main/Card/password", "op://None/x/y"] {
        assert_eq!(setup.gap("op://Main/Login/password"), Some(Gap::Fields));
        let target = setup.source.locate(&reference(elsewhere)).target.into();
        let survey = AccessRequest { target, ..request("op://Main/Login/password") };
        let survey = Survey::for_test(survey, Gap::Fields, RecordId(1));
        setup.source.learn(&[&survey]).await.pop().unwrap().unwrap();
        assert!(setup.script.calls().is_empty());
    }
}

#[tokio::test]
async fn vaults_that_are_not_configured_do_not_exist() {
    let setup = setup(|_| ());
    assert_eq!(setup.gap("op://Other/Login/password"), None, "refused before anything is asked");
    assert_eq!(setup.read("op://Other/Login/password").await, Err("VAULT_NOT_FOUND"));
    assert!(setup.script.calls().is_empty());
    // An id may be that of a vault that is configured by its name: that costs one question, once.
    let by_id = format!("op://{OTHER}/Login/password");
    assert_eq!(setup.read(&by_id).await, Err("VAULT_NOT_FOUND"));
    assert_eq!(setup.script.calls(), ["vaults"]);
    setup.pass(60);
    assert_eq!(setup.read(&by_id).await, Err("VAULT_NOT_FOUND"));
    assert!(setup.script.calls().is_empty(), "every configured vault is there, so it is none of them");
    // Nor can it be fetched with a grant that names it.
    let mut target = setup.locate("op://Main/Login/password").await.unwrap();
    let Target::Field(field) = &mut target else { panic!() };
    field.vault.id = OTHER.into();
    setup.script.calls();
    let grant = Grant::for_test(
        AccessRequest { target: target.into(), ..request("op://Main/Login/password") },
        RecordId(2),
    );
    assert_eq!(setup.resolve(&[&grant]).await, [Err("VAULT_NOT_FOUND")]);
    assert!(setup.script.calls().is_empty());
}

#[tokio::test]
async fn what_is_known_grows_old() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    setup.read(text).await.unwrap();
    setup.pass(15 * 60);
    assert_eq!(setup.gap(text), None);
    setup.pass(1);
    assert_eq!(setup.gap(text), Some(Gap::Vaults));
    setup.script.calls();
    setup.read(text).await.unwrap();
    assert_eq!(setup.script.calls().len(), 3);
}

#[tokio::test]
async fn a_name_that_is_missing_is_looked_for_again_but_seldom() {
    let setup = setup(|_| ());
    let text = "op://Main/New/password";
    assert_eq!(setup.read(text).await, Err("ITEM_NOT_FOUND"));
    setup.edit_item(|item| item["title"] = json!("New"));
    setup.script.calls();
    setup.pass(10);
    assert_eq!(setup.read(text).await, Err("ITEM_NOT_FOUND"));
    assert!(setup.script.calls().is_empty());
    setup.pass(1);
    assert_eq!(setup.read(text).await.as_deref(), Ok("canary-password"));
    assert_eq!(setup.script.calls(), [format!("items {VAULT}"), format!("item {ITEM}")]);
}

#[tokio::test]
async fn a_field_that_is_missing_is_looked_for_again_but_seldom() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/new";
    assert_eq!(setup.read(text).await, Err("FIELD_NOT_FOUND"));
    setup.edit_item(|item| item["fields"][0]["label"] = json!("new"));
    setup.script.calls();
    assert_eq!(setup.read(text).await, Err("FIELD_NOT_FOUND"));
    setup.pass(11);
    assert_eq!(setup.read(text).await.as_deref(), Ok("canary-user"));
    assert_eq!(setup.script.calls(), [format!("item {ITEM}")]);
}

#[tokio::test]
async fn what_the_source_denies_is_not_asked_for_again_at_once() {
    let setup = setup(|_| ());
    setup.locate("op://Main/Card/number").await.unwrap();
    setup.script.calls();
    for (error, code) in
        [(ResolveError::ItemNotFound, "ITEM_NOT_FOUND"), (ResolveError::ItemNotActive, "ITEM_NOT_ACTIVE")]
    {
        let text = format!("op://Main/{ITEM}/password");
        setup.script.fail_next(error);
        assert_eq!(setup.read(&text).await, Err(code));
        assert_eq!(setup.read(&text).await, Err(code));
        assert_eq!(setup.script.calls(), [format!("item {ITEM}")], "{code}");
        setup.pass(11);
        assert!(setup.read(&text).await.is_ok());
        assert!(!setup.script.calls().is_empty());
        setup.pass(20 * 60);
        setup.locate("op://Main/Card/number").await.unwrap();
        setup.script.calls();
    }
}

/// A grant is made, the item is changed, and the grant is resolved: `code`. Asked anew: `then`.
async fn check_changed(
    change: impl FnOnce(&mut Value),
    code: &'static str,
    then: Result<&str, &'static str>,
) {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    let grant = setup.grant(text).await;
    setup.pass(2);
    setup.edit_item(change);
    assert_eq!(setup.resolve(&[&grant]).await, [Err(code)]);
    setup.script.calls();
    assert_eq!(setup.source.locate(&reference(text)).gap, None, "what it means now is known");
    assert_eq!(setup.read(text).await.as_deref(), then.as_ref().map(|it| *it));
}

#[tokio::test]
async fn a_target_that_means_something_else_by_now_gives_nothing() {
    check_changed(|item| item["title"] = json!("Renamed"), "REFERENCE_CHANGED", Err("ITEM_NOT_FOUND")).await;
}

#[tokio::test]
async fn changes_of_a_field() {
    let relabel = |item: &mut Value| item["fields"][1]["label"] = json!("former");
    check_changed(relabel, "REFERENCE_CHANGED", Ok("canary-password")).await;
    let into_seed = |item: &mut Value| item["fields"][1]["type"] = json!("TOTP");
    check_changed(into_seed, "REFERENCE_CHANGED", Ok("canary-password")).await;
    let into_section = |item: &mut Value| {
        item["sections"] = json!([{"id": "sec", "label": "Secret"}]);
        item["fields"][1]["section"] = json!({"id": "sec"});
    };
    check_changed(into_section, "REFERENCE_CHANGED", Ok("canary-password")).await;
    let remove = |item: &mut Value| drop(item["fields"].as_array_mut().unwrap().remove(1));
    check_changed(remove, "FIELD_NOT_FOUND", Err("FIELD_NOT_FOUND")).await;
    let archive = |item: &mut Value| item["state"] = json!("ARCHIVED");
    check_changed(archive, "ITEM_NOT_ACTIVE", Err("ITEM_NOT_FOUND")).await;
    let moved = |item: &mut Value| item["vault"] = json!({"id": OTHER});
    check_changed(moved, "ITEM_NOT_FOUND", Err("ITEM_NOT_FOUND")).await;
}

#[tokio::test]
async fn a_name_that_is_unique_no_more_is_a_change() {
    let setup = setup(|_| ());
    let grant = setup.grant("op://Main/Login/password").await;
    setup.script.edit(|world| world["items"][1]["title"] = json!("login"));
    // Somebody else's look-up finds it out.
    setup.pass(11);
    setup.locate("op://Main/Nothing/x").await.unwrap();
    assert_eq!(setup.resolve(&[&grant]).await, [Err("REFERENCE_CHANGED")]);
    assert_eq!(setup.read("op://Main/Login/password").await, Err("AMBIGUOUS_REFERENCE"));
    let by_id = format!("op://Main/{ITEM}/password");
    assert_eq!(setup.read(&by_id).await.as_deref(), Ok("canary-password"));
}

#[tokio::test]
async fn bounds_of_the_directory() {
    let item = |n: usize| json!({"id": format!("i{n:025}"), "title": "t", "vault": {"id": VAULT}, "category": "LOGIN"});
    let check = async |count: usize, code: &'static str| {
        let world = json!({"vaults": [{"id": VAULT, "name": "Main"}], "items": (0..count).map(item).collect::<Vec<_>>()});
        assert_eq!(over(world, |_| ()).read("op://Main/x/y").await, Err(code), "{count}");
    };
    check(10_000, "ITEM_NOT_FOUND").await;
    check(10_001, "RESOLVER_UNAVAILABLE").await;
}

/// What the inventory has: `vault/item`, sorted, and the gaps.
fn stock(source: &dyn Directory) -> (Vec<String>, Vec<String>) {
    let Inventory { items, gaps } = source.inventory();
    let mut names: Vec<_> = items.iter().map(|it| format!("{}/{}", it.vault.name, it.item.name)).collect();
    names.sort();
    (names, gaps)
}

#[tokio::test]
async fn an_inventory_asks_nothing_and_says_what_it_lacks() {
    let setup = setup(|_| ());
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let check = |items: &[&str], gaps: &[&str]| {
        assert_eq!(stock(&*setup.source), (owned(items), owned(gaps)));
    };
    check(&[], &["source `test`: its vaults were not listed in the last 15 min"]);
    let target = setup.source.locate(&reference("op://Main/Login/password")).target.into();
    let survey = AccessRequest { target, ..request("op://Main/Login/password") };
    let survey = Survey::for_test(survey, Gap::Vaults, RecordId(1));
    setup.source.learn(&[&survey]).await.pop().unwrap().unwrap();
    check(&[], &["source `test`: the items of 1 of its 1 vaults were not listed in the last 15 min"]);
    setup.locate("op://Main/Login/password").await.unwrap();
    check(&["main/card", "main/login"], &[]);
    setup.script.calls();
    setup.pass(3600);
    check(&["main/card", "main/login"], &["source `test`: its vaults were not listed in the last 15 min"]);
    setup.script.fail_next(ResolveError::CredentialsRefused);
    assert!(setup.locate("op://Main/Login/password").await.is_err());
    check(
        &["main/card", "main/login"],
        &[
            "source `test`: its vaults were not listed in the last 15 min; the source does not accept the broker's credentials",
        ],
    );
    assert_eq!(setup.script.calls(), ["vaults"], "the failed question alone");
}

#[tokio::test]
async fn an_archived_item_is_not_in_the_inventory() {
    let setup = setup(|_| ());
    setup.edit_item(|item| item["state"] = "ARCHIVED".into());
    let _ = setup.locate("op://Main/Card/number").await;
    assert_eq!(stock(&*setup.source).0, ["main/card"]);
}
