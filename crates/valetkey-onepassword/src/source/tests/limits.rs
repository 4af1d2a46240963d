use std::path::Path;

use super::*;

/// A world of so many items, `i0` and on.
fn many(count: usize) -> Value {
    let item = |n: usize| {
        json!({"id": format!("i{n:025}"), "title": format!("i{n}"), "vault": {"id": VAULT}, "category": "LOGIN",
            "fields": [{"id": "f", "type": "STRING", "label": "f", "value": "canary"}]})
    };
    json!({"vaults": [{"id": VAULT, "name": "Main"}], "items": (0..count).map(item).collect::<Vec<_>>()})
}

fn limited(dir: &Path, per_hour: u32) -> impl FnOnce(&mut SourceOptions) {
    let dir = dir.to_owned();
    move |options| {
        options.quota = QuotaLimits { per_hour: Some(per_hour), per_day: None };
        options.state_dir = Some(dir);
    }
}

async fn read_as(setup: &Setup, name: &str, text: &str) -> Result<String, ResolveError> {
    let request = AccessRequest { agent: agent(name), ..request(text) };
    let answer = conformance::read_as(&*setup.source, request).await;
    answer.map(|it| String::from_utf8(it.value.expose_secret().into()).unwrap()).map_err(|it| it.error)
}

#[tokio::test]
async fn a_greedy_agent_starves_nobody() {
    for (what, wrong) in [("right", false), ("wrong", true)] {
        let dir = tempfile::tempdir().unwrap();
        let setup = over(many(2_000), limited(dir.path(), 100));
        let mut refused = 0;
        for n in 0..10_000 {
            let item = if wrong { format!("i{:025}", n % 2_000) } else { format!("i{}", n % 2_000) };
            let field = if wrong { "nothing" } else { "f" };
            let answer = read_as(&setup, "greedy", &format!("op://Main/{item}/{field}")).await;
            refused += u32::from(matches!(answer, Err(ResolveError::BudgetSpent { .. })));
        }
        assert!(refused > 5_000, "{what}: {refused}");
        let calls = setup.script.calls().len();
        assert!((70..=80).contains(&calls), "{what}: {calls}");
        for n in 0..10 {
            let text = format!("op://Main/i{}/f", 1_999 - n);
            assert_eq!(read_as(&setup, "modest", &text).await.as_deref(), Ok("canary"), "{what}");
        }
        // And a third.
        assert_eq!(read_as(&setup, "late", "op://Main/i1500/f").await.as_deref(), Ok("canary"));
        // In an hour the greedy one is served again.
        setup.pass(3_900);
        assert_eq!(read_as(&setup, "greedy", "op://Main/i3/f").await.as_deref(), Ok("canary"));
    }
}

#[tokio::test]
async fn a_greedy_agent_stands_in_nobody_s_way() {
    let setup = over(many(600), |_| ());
    setup.locate("op://Main/i0/f").await.unwrap();
    setup.script.set_gate(false);
    let mut tasks = Vec::new();
    for n in 1..500 {
        let source = Arc::clone(&setup.source);
        let request = AccessRequest { agent: agent("greedy"), ..request(&format!("op://Main/i{n}/f")) };
        tasks.push(tokio::spawn(async move { conformance::read_as(&*source, request).await.map(drop) }));
    }
    settle().await;
    assert_eq!(setup.script.under_way(), (6, 6), "three quarters of eight");
    let source = Arc::clone(&setup.source);
    let request = AccessRequest { agent: agent("modest"), ..request("op://Main/i599/f") };
    let modest = tokio::spawn(async move { shown(conformance::read_as(&*source, request).await) });
    settle().await;
    assert_eq!(setup.script.under_way().0, 7);
    setup.script.set_gate(true);
    assert_eq!(modest.await.unwrap().as_deref(), Ok("canary"));
    let mut refused = 0;
    for task in tasks {
        refused += usize::from(task.await.unwrap().is_err());
    }
    assert!((200..300).contains(&refused), "{refused}: the line is bounded");
    assert!(setup.script.under_way().1 <= 8);
}

#[tokio::test]
async fn nobody_waits_in_another_s_line() {
    let setup = over(many(100), |_| ());
    setup.locate("op://Main/i0/f").await.unwrap();
    setup.script.calls();
    setup.script.set_gate(false);
    let read = |name: &str, n: u32| {
        let source = Arc::clone(&setup.source);
        let request = AccessRequest { agent: agent(name), ..request(&format!("op://Main/i{n}/f")) };
        tokio::spawn(async move { shown(conformance::read_as(&*source, request).await) })
    };
    let greedy: Vec<_> = (1..50).map(|n| read("greedy", n)).collect();
    settle().await;
    let last = format!("item i{:025}", 49);
    assert!(!setup.script.calls().contains(&last), "it waits");
    let modest = read("modest", 49);
    settle().await;
    assert_eq!(setup.script.calls(), [&*last]);
    setup.script.set_gate(true);
    assert_eq!(modest.await.unwrap().as_deref(), Ok("canary"));
    for task in greedy {
        assert_eq!(task.await.unwrap().as_deref(), Ok("canary"));
    }
    assert!(!setup.script.calls().contains(&last), "once is enough for both");
}

#[tokio::test]
async fn a_spent_budget_says_when_to_ask_again() {
    let dir = tempfile::tempdir().unwrap();
    let setup = over(many(50), limited(dir.path(), 10));
    let mut last = Ok(String::new());
    for n in 0..20 {
        last = read_as(&setup, "bot", &format!("op://Main/i{n}/f")).await;
    }
    let Err(ResolveError::BudgetSpent { retry_after }) = last else { panic!("{last:?}") };
    assert!((3_600..=3_900).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert!(setup.script.calls().len() <= 10);
    setup.clock.advance(retry_after);
    assert!(read_as(&setup, "bot", "op://Main/i30/f").await.is_ok());
}

#[tokio::test]
async fn a_crash_loop_burns_what_it_spends_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::default();
    let mut asked = 0;
    for _ in 0..40 {
        let mut options = options();
        limited(dir.path(), 30)(&mut options);
        let script = Script::new(many(1));
        let source =
            Source::over(Box::new(script.clone()), "scripted", options, Arc::new(clock.clone())).unwrap();
        // The locked file is let go, as by the end of a process; nothing else is written.
        let _ = read_from(&source, "op://Main/i0/f").await;
        asked += script.calls().len();
    }
    assert!((25..=30).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_missing_name_is_not_looked_for_where_the_budget_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let setup = over(many(50), limited(dir.path(), 20));
    for n in 0..9 {
        read_as(&setup, "bot", &format!("op://Main/i{n}/f")).await.unwrap();
    }
    setup.script.calls();
    setup.pass(11);
    assert_eq!(setup.gap("op://Main/nothing/f"), Some(Gap::Items));
    assert_eq!(setup.read("op://Main/nothing/f").await, Err("ITEM_NOT_FOUND"));
    assert!(setup.script.calls().is_empty());
    assert_eq!(setup.gap("op://Main/nothing/f"), None);
}

#[tokio::test]
async fn a_source_that_never_answers_is_left_alone() {
    let setup = setup(|_| ());
    setup.script.set_gate(false);
    for _ in 0..3 {
        let source = Arc::clone(&setup.source);
        let asked = tokio::spawn(async move { read_from(&*source, "op://Main/Login/password").await });
        settle().await;
        setup.pass(5);
        assert_eq!(asked.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
        setup.pass(115);
        settle().await;
    }
    assert_eq!(setup.script.calls().len(), 3);
    assert_eq!(setup.read("op://Main/Login/password").await, Err("RESOLVER_UNAVAILABLE"));
    assert!(setup.script.calls().is_empty(), "answered at once, without a question");
    setup.script.set_gate(true);
    setup.pass(2);
    assert_eq!(setup.read("op://Main/Login/password").await.as_deref(), Ok("canary-password"));
}

#[tokio::test]
async fn a_source_that_refuses_is_left_alone_and_comes_back_by_itself() {
    let text = "op://Main/Login/password";
    let limited = ResolveError::RateLimited { retry_after: Duration::from_secs(60) };
    for (error, code, pause) in [
        (ResolveError::CredentialsRefused, "RESOLVER_CREDENTIALS_REFUSED", 10),
        (limited, "RESOLVER_RATE_LIMITED", 60),
        (ResolveError::Unavailable, "RESOLVER_UNAVAILABLE", 2),
    ] {
        let setup = setup(|_| ());
        setup.read(text).await.unwrap();
        setup.script.calls();
        setup.script.set_down(Some(error));
        setup.pass(2);
        for _ in 0..100 {
            assert_eq!(setup.read(text).await, Err(code));
        }
        let calls = setup.script.calls().len();
        assert!(calls <= 3, "{code}: {calls}");
        setup.script.set_down(None);
        setup.pass(pause);
        assert_eq!(setup.read(text).await.as_deref(), Ok("canary-password"), "{code}");
    }
}

#[tokio::test]
async fn what_was_sent_is_counted_and_nothing_else() {
    let text = "op://Main/Login/password";
    let check = async |what: &str, change: &dyn Fn(&Script), spent: u32| {
        let dir = tempfile::tempdir().unwrap();
        let setup = over(world(), limited(dir.path(), 100));
        setup.read(text).await.unwrap();
        let before = setup.source.figures().hour.used;
        change(&setup.script);
        for _ in 0..20 {
            setup.pass(2);
            let _ = setup.read(text).await;
        }
        assert_eq!(setup.source.figures().hour.used - before, spent, "{what}");
    };
    check("answers", &|_| (), 20).await;
    check("never sent", &Script::cut_off, 0).await;
    // Left alone for 2, 4, 8 and 16 seconds after the third.
    let down = |script: &Script| script.set_down(Some(ResolveError::Unavailable));
    check("may have been sent", &down, 7).await;
    check("a sign-in besides", &|script| script.sign_in(6), 26).await;
    let lost = |script: &Script| (script.cut_off(), script.sign_in(6)).0;
    check("a sign-in that failed", &lost, 6).await;
}

#[tokio::test]
async fn a_question_that_is_given_up_stays_counted() {
    let dir = tempfile::tempdir().unwrap();
    let setup = over(world(), limited(dir.path(), 100));
    setup.script.set_gate(false);
    let source = Arc::clone(&setup.source);
    let asked = tokio::spawn(async move { read_from(&*source, "op://Main/Login/password").await });
    while setup.script.under_way().0 == 0 {
        tokio::task::yield_now().await;
    }
    setup.pass(6);
    assert_eq!(asked.await.unwrap(), Err("RESOLVER_UNAVAILABLE"));
    // It goes on by itself, until it is over for good.
    setup.pass(120);
    while setup.source.figures().last_failure.is_none() {
        tokio::task::yield_now().await;
    }
    let figures = setup.source.figures();
    assert_eq!(figures.hour.used, 1);
    assert_eq!(figures.state, SourceState::Failing { error: ResolveError::Unavailable });
    assert_eq!(figures.last_failure.map(|(_, error)| error), Some(ResolveError::Unavailable));
}

#[tokio::test]
async fn a_source_is_failing_until_it_answers() {
    let setup = setup(|_| ());
    let check = async |error: Option<ResolveError>, failing: bool| {
        setup.script.set_down(error);
        setup.pass(2);
        let _ = setup.read("op://Main/Login/password").await;
        let state = setup.source.figures().state;
        assert_eq!(state == SourceState::Failing { error: ResolveError::Unavailable }, failing, "{state:?}");
    };
    check(None, false).await;
    check(Some(ResolveError::Unavailable), true).await;
    check(None, false).await;
    check(Some(ResolveError::Unavailable), true).await;
    check(Some(ResolveError::ItemNotFound), false).await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_no_sign_of_an_outage() {
    let mut world = many(10_001);
    world["vaults"] = json!([{"id": VAULT, "name": "Main"}, {"id": OTHER, "name": "Other"}]);
    let setup = over(world, |options| options.vaults.push(OTHER.into()));
    for _ in 0..5 {
        assert_eq!(
            setup.read("op://Main/i1/f").await,
            Err("RESOLVER_UNAVAILABLE"),
            "the list is over its bound"
        );
        assert!(!matches!(setup.source.figures().state, SourceState::Paused { .. }));
    }
    assert_eq!(setup.read(&format!("op://{OTHER}/i1/f")).await, Err("ITEM_NOT_FOUND"));
}
