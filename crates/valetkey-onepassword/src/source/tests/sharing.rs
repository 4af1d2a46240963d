use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn a_thousand_requests_make_one_read() {
    for is_known in [false, true] {
        let setup = setup(|_| ());
        if is_known {
            setup.locate("op://Main/Login/password").await.unwrap();
            setup.pass(2);
        } else {
            setup.locate("op://Main/Card/number").await.unwrap();
        }
        setup.script.calls();
        setup.script.set_gate(false);
        let mut tasks = JoinSet::new();
        for _ in 0..1_000 {
            let source = Arc::clone(&setup.source);
            tasks.spawn(async move { read_from(&*source, "op://Main/Login/password").await });
        }
        settle().await;
        // However long it takes.
        setup.pass(4);
        setup.script.set_gate(true);
        while let Some(answer) = tasks.join_next().await {
            assert_eq!(answer.unwrap().as_deref(), Ok("canary-password"));
        }
        assert_eq!(setup.script.calls(), [format!("item {ITEM}")], "known: {is_known}");
        assert!(setup.source.figures().shared_reads >= 999);
    }
}

#[tokio::test]
async fn all_references_of_a_lease_in_one_item_cost_one_read() {
    let setup = setup(|_| ());
    let texts = ["password", "username", "code?attribute=otp", "code", "password"];
    let mut grants = Vec::new();
    for text in texts {
        grants.push(setup.grant(&format!("op://Main/Login/{text}")).await);
    }
    grants.insert(2, setup.grant("op://Main/Card/number").await);
    setup.pass(2);
    setup.script.calls();
    let answers = setup.resolve(&grants.iter().collect::<Vec<_>>()).await;
    let values: Vec<_> = answers.iter().map(|answer| answer.as_deref().unwrap()).collect();
    assert_eq!(values[..3], ["canary-password", "canary-user", "canary-card"]);
    assert_eq!((values[3].len(), values[4].len(), values[5]), (6, 32, "canary-password"));
    let mut calls = setup.script.calls();
    calls.sort();
    assert_eq!(calls, [format!("item {ITEM}"), format!("item {CARD}")]);
}

#[tokio::test]
async fn a_value_is_shared_for_a_moment_and_then_read_again() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    let check = async |value: &str, reads: usize| {
        assert_eq!(setup.read(text).await.as_deref(), Ok(value));
        assert_eq!(setup.script.calls().len(), reads, "{value}");
    };
    check("canary-password", 3).await;
    setup.edit_item(|item| item["fields"][1]["value"] = json!("canary-new"));
    setup.pass(1);
    check("canary-password", 0).await;
    setup.clock.advance(Duration::from_millis(1));
    check("canary-new", 1).await;
    setup.pass(2);
    settle().await;
    assert_eq!(setup.source.asking.kept(), 0, "what is due goes, although nobody comes");
    setup.locate("op://Main/Card/number").await.unwrap();
    assert_eq!(setup.source.asking.kept(), 1);
}

#[tokio::test]
async fn a_cached_value_is_kept_for_longer_but_no_one_time_password() {
    let setup = setup(|options| options.value_cache = Some(Duration::from_secs(3600)));
    let check = async |text: &str, reads: usize| {
        let grant = setup.grant(&format!("op://Main/Login/{text}")).await;
        let answer = setup.source.resolve(&[&grant]).await.pop().unwrap().ok().unwrap();
        assert_eq!(setup.script.calls().len(), reads, "{text}");
        setup.clock.now().since(answer.provenance.read_time).as_secs()
    };
    assert_eq!(check("password", 3).await, 0);
    setup.pass(60);
    assert_eq!(check("password", 0).await, 60, "the record has its age");
    setup.pass(1);
    assert_eq!(check("password", 1).await, 0, "a minute at most");
    setup.pass(2);
    assert_eq!(check("code?attribute=otp", 1).await, 0);
    setup.pass(2);
    assert_eq!(check("code", 1).await, 0);
    setup.pass(2);
    assert_eq!(check("username", 0).await, 2);
}

#[tokio::test]
async fn a_kept_value_does_not_outlive_what_was_decided_on() {
    let setup = setup(|options| options.value_cache = Some(Duration::from_secs(30)));
    let text = "op://Main/Login/password";
    setup.read(text).await.unwrap();
    setup.pass(11);
    setup.edit_item(|item| {
        item["title"] = json!("Renamed");
        item["fields"][1]["value"] = json!("canary-new");
    });
    // A look-up finds the new title; what was kept of the item is of what it was before.
    setup.locate("op://Main/Nothing/x").await.unwrap();
    assert_eq!(setup.read(text).await, Err("ITEM_NOT_FOUND"));
    setup.script.calls();
    assert_eq!(setup.read("op://Main/Renamed/password").await.as_deref(), Ok("canary-new"));
    assert_eq!(setup.script.calls(), [format!("item {ITEM}")]);
}

#[tokio::test]
async fn files_are_fetched_when_they_are_wanted_and_shared_like_the_rest() {
    let setup = setup(|_| ());
    setup.read("op://Main/Login/password").await.unwrap();
    setup.script.calls();
    for _ in 0..3 {
        assert_eq!(setup.read("op://Main/Login/KEY.txt").await.as_deref(), Ok("canary-file"));
    }
    assert_eq!(setup.script.calls(), ["file file"]);
    // By way of `op`, its id would mean the other's label.
    setup.pass(2);
    setup.edit_item(|item| item["fields"][0]["label"] = json!("FILE"));
    assert_eq!(setup.read("op://Main/Login/key.txt").await, Err("AMBIGUOUS_REFERENCE"));
    assert!(!setup.script.calls().contains(&"file file".to_owned()));
}

#[tokio::test]
async fn a_wait_ends_and_the_flight_goes_on_for_the_others() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    let grant = setup.grant(text).await;
    setup.pass(2);
    setup.script.set_gate(false);
    let read = |text: &'static str| {
        let source = Arc::clone(&setup.source);
        tokio::spawn(async move { read_from(&*source, text).await })
    };
    let early = read(text);
    settle().await;
    setup.pass(5);
    let late = read(text);
    settle().await;
    setup.pass(3);
    assert_eq!(early.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
    assert_eq!(setup.script.under_way().0, 1);
    setup.script.set_gate(true);
    assert_eq!(late.await.unwrap().as_deref(), Ok("canary-password"));

    // When nobody waits it goes on too: it is paid for, and the next one finds it.
    setup.pass(2);
    setup.script.calls();
    setup.script.set_gate(false);
    let gone = read(text);
    settle().await;
    gone.abort();
    settle().await;
    assert_eq!(setup.script.under_way().0, 1);
    let next = read(text);
    settle().await;
    setup.script.set_gate(true);
    assert_eq!(next.await.unwrap().as_deref(), Ok("canary-password"));
    assert_eq!(setup.resolve(&[&grant]).await, [Ok("canary-password".to_owned())]);
    assert_eq!(setup.script.calls().len(), 1);
    assert_eq!(setup.script.under_way().0, 0);
}

#[tokio::test]
async fn a_list_that_takes_longer_than_anybody_waits_is_there_for_the_next() {
    let setup = setup(|_| ());
    for question in ["vaults".to_owned(), format!("items {VAULT}"), format!("item {ITEM}")] {
        setup.script.set_gate(false);
        let source = Arc::clone(&setup.source);
        let asked = tokio::spawn(async move { read_from(&*source, "op://Main/Login/password").await });
        settle().await;
        setup.pass(7);
        assert_eq!(asked.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
        assert_eq!(setup.script.calls(), [question]);
        setup.script.set_gate(true);
        settle().await;
    }
    assert_eq!(setup.read("op://Main/Login/password").await.as_deref(), Ok("canary-password"));
    assert!(setup.script.calls().is_empty(), "and no failure was counted");
}

#[tokio::test]
async fn what_waits_for_its_turn_is_cancelled_when_nobody_waits_for_it() {
    let setup = setup(|options| options.concurrency_max = 1);
    setup.locate("op://Main/Login/password").await.unwrap();
    setup.pass(2);
    setup.script.calls();
    setup.script.set_gate(false);
    let read = |text: &'static str| {
        let source = Arc::clone(&setup.source);
        tokio::spawn(async move { read_from(&*source, text).await })
    };
    let (first, second) = (read("op://Main/Login/password"), read("op://Main/Card/number"));
    settle().await;
    second.abort();
    settle().await;
    setup.script.set_gate(true);
    assert!(first.await.unwrap().is_ok());
    settle().await;
    assert_eq!(setup.script.calls(), [format!("item {ITEM}")]);
}

#[tokio::test]
async fn looking_up_ends_too() {
    let setup = setup(|_| ());
    setup.script.set_gate(false);
    let source = Arc::clone(&setup.source);
    let asked = tokio::spawn(async move { read_from(&*source, "op://Main/Login/password").await });
    settle().await;
    setup.pass(5);
    assert_eq!(asked.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
    setup.pass(120);
    settle().await;
    assert_eq!(setup.script.under_way().0, 0, "nor does the question itself last for ever");
}

#[tokio::test]
async fn failures_are_shared_by_those_who_wait_and_not_kept() {
    let setup = setup(|_| ());
    let text = "op://Main/Login/password";
    setup.locate(text).await.unwrap();
    setup.pass(2);
    setup.script.calls();
    setup.script.set_gate(false);
    setup.script.fail_next(ResolveError::Unavailable);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let source = Arc::clone(&setup.source);
        tasks.spawn(async move { read_from(&*source, text).await });
    }
    settle().await;
    setup.script.set_gate(true);
    while let Some(answer) = tasks.join_next().await {
        assert_eq!(answer.unwrap(), Err("RESOLVER_UNAVAILABLE"));
    }
    assert_eq!(setup.script.calls().len(), 1);
    assert!(setup.read(text).await.is_ok());
}
