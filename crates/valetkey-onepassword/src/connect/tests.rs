use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use valetkey_core::ResolveFailure;
use valetkey_standin::{ConnectFault, ConnectServer, World};

use super::*;
use crate::item::{FieldKind, ItemState};
use crate::json::{Faults, Node};

mod odd_items;
mod reach;

const TOKEN: &str = ConnectServer::TOKEN;
const VAULT: &str = "confmainxxxxxxxxxxxxxxxxxx";
const ITEM: &str = "confgithubxxxxxxxxxxxxxxxx";
const PAPERS: &str = "confpapersxxxxxxxxxxxxxxxx";
const TEXT_FILE: &str = "confiletextxxxxxxxxxxxxxxx";

async fn server() -> ConnectServer {
    ConnectServer::start(World::conformance().unwrap()).await.unwrap()
}

fn options(host: String) -> ConnectOptions {
    ConnectOptions::new(host, ConnectTokenSource::Here(ConnectToken::parse(TOKEN.into()).unwrap()))
}

fn client(server: &ConnectServer) -> Connect {
    Connect::new(options(server.host())).unwrap()
}

/// The code and the detail of a failure; neither may have the token in it.
fn failure<T>(result: Result<T, UpstreamError>) -> (ResolveError, String) {
    let error = result.err().expect("a failure");
    let debug = format!("{error:?}");
    let ResolveFailure { error, detail } = error.into();
    let detail = detail.unwrap().to_string();
    assert!(!detail.contains(TOKEN) && !debug.contains(TOKEN), "{debug}");
    (error, detail)
}

fn plain(status: u16, body: &str) -> ConnectFault {
    ConnectFault::Plain(status, body.into())
}

/// One question of each kind, in the words of a test.
async fn ask(connect: &Connect, question: Question) -> Result<(), UpstreamError> {
    match question {
        Question::Vaults => connect.vaults().await.map(drop),
        Question::Items => connect.items(VAULT).await.map(drop),
        Question::Item => connect.item(VAULT, ITEM).await.map(drop),
        Question::File => connect.file(VAULT, PAPERS, TEXT_FILE).await.map(drop),
    }
}

const QUESTIONS: [Question; 4] = [Question::Vaults, Question::Items, Question::Item, Question::File];

/// All that an item says, in a form that can be compared.
fn told(outline: &ItemOutline, values: &ItemValues) -> Value {
    let sections: Vec<_> = outline.sections.iter().map(|section| (&*section.id, &*section.label)).collect();
    let fields: Vec<_> = outline.fields.iter().map(|field| format!("{field:?}")).collect();
    let by_field: BTreeMap<_, _> =
        values.by_field.iter().map(|(id, value)| (id.to_string(), value.expose_secret().to_vec())).collect();
    let is_active = outline.state == ItemState::Active;
    json!([
        &*outline.vault_id,
        &*outline.id,
        &*outline.title,
        is_active,
        sections,
        fields,
        by_field,
        values.version
    ])
}

async fn check_world(text: &str) {
    let node: Node = serde_json::from_str(text).unwrap();
    let file = crate::full_item::content(&mut Faults::default(), node);
    let server = ConnectServer::start(World::from_json(text).unwrap()).await.unwrap();
    let connect = client(&server);
    let named = |vaults: &[Vault]| {
        vaults.iter().map(|vault| (vault.id.to_string(), vault.name.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(named(&connect.vaults().await.unwrap()), named(&file.vaults));
    for vault in &file.vaults {
        let items = connect.items(&vault.id).await.unwrap();
        let items: Vec<_> = items.iter().map(|item| (&*item.id, &*item.title, item.state)).collect();
        let inside = file.items.iter().filter(|(outline, _)| outline.vault_id == vault.id);
        let expected: Vec<_> = inside.map(|(item, _)| (&*item.id, &*item.title, item.state)).collect();
        assert_eq!(items, expected);
    }
    for (outline, values) in &file.items {
        let (seen, mut seen_values) = connect.item(&outline.vault_id, &outline.id).await.unwrap();
        for field in seen.fields.iter().filter(|field| field.kind == FieldKind::File) {
            assert!(!seen_values.by_field.contains_key(&field.id), "files are asked for one by one");
            let content = connect.file(&outline.vault_id, &outline.id, &field.id).await.unwrap();
            seen_values.by_field.insert(field.id.clone(), content);
        }
        assert_eq!(told(&seen, &seen_values), told(outline, values));
    }
    assert!(server.requests().iter().all(|path| !path.contains('?')), "no names in questions");
}

#[tokio::test]
async fn a_server_says_what_the_vault_file_says() {
    check_world(include_str!("../../../valetkey-standin/src/conformance.json")).await;
    check_world(include_str!("../../../../examples/travel/vault.json")).await;
}

#[tokio::test]
async fn refusals_by_status() {
    let server = server().await;
    let connect = client(&server);
    let check = async |question, fault: ConnectFault, error: ResolveError, detail: &str| {
        server.fail("/v1", fault);
        let (found, text) = failure(ask(&connect, question).await);
        assert!(found == error && text.contains(detail), "{question:?}: {found:?}: {text}");
        server.mend();
    };
    use ConnectFault::{EchoToken, RateLimit, Redirect, Status};
    use Question::{File, Item, Items, Vaults};
    use ResolveError as E;
    for question in QUESTIONS {
        check(question, Status(401, "Invalid token signature"), E::CredentialsRefused, "Invalid token").await;
        check(question, plain(401, ""), E::CredentialsRefused, "status 401").await;
        check(question, EchoToken(401), E::CredentialsRefused, "…").await;
        check(question, Status(500, "oops\n"), E::Unavailable, "status 500: oops\\u{a}").await;
        check(question, plain(502, "<p>canary"), E::Unavailable, "status 502 without").await;
        check(question, plain(204, ""), E::Unavailable, "status 204").await;
        check(question, plain(403, "<p>"), E::Unavailable, "status 403 without").await;
        check(question, plain(404, "<p>"), E::Unavailable, "status 404 without").await;
        check(question, Status(404, "page not found"), E::Unavailable, "page not found").await;
        check(question, Redirect("/v1/vaults".into()), E::Unavailable, "status 302").await;
        let rate = |seconds| E::RateLimited { retry_after: Duration::from_secs(seconds) };
        check(question, RateLimit(None), rate(30), "too many requests").await;
        check(question, RateLimit(Some("7")), rate(7), "").await;
        check(question, RateLimit(Some("0")), rate(1), "").await;
        check(question, RateLimit(Some("99999999")), rate(3_600), "").await;
        check(question, RateLimit(Some("Wed, 21 Oct 2015 07:28:00 GMT")), rate(30), "").await;
    }
    let scope = || Status(403, "vault x is not in scope");
    check(Vaults, scope(), E::CredentialsRefused, "not in scope").await;
    check(Items, scope(), E::VaultNotFound, "not in scope").await;
    check(Item, scope(), E::VaultNotFound, "not in scope").await;
    check(File, scope(), E::VaultNotFound, "not in scope").await;
    check(Items, Status(404, "vault x not found"), E::VaultNotFound, "").await;
    check(Item, Status(404, "vault x not found"), E::VaultNotFound, "").await;
    check(Item, Status(404, "item x not found"), E::ItemNotFound, "").await;
    check(Item, Status(400, "Invalid Item UUID"), E::ItemNotFound, "").await;
    check(File, Status(404, "item x not found"), E::ItemNotFound, "").await;
    check(File, Status(404, "file x not found"), E::FieldNotFound, "").await;
    check(File, Status(413, "File is too large"), E::UnsupportedFileFormat, "too large").await;
    check(Item, Status(413, "File is too large"), E::Unavailable, "too large").await;
    ask(&connect, Vaults).await.expect("and is well again");
}

#[tokio::test]
async fn broken_answers() {
    let server = server().await;
    let patient = client(&server);
    let hasty = ConnectOptions { timeout: Duration::from_millis(200), ..options(server.host()) };
    let hasty = Connect::new(hasty).unwrap();
    let check = async |connect: &Connect, question, fault, detail: &str| {
        server.fail("/v1", fault);
        let (error, text) = failure(ask(connect, question).await);
        assert!(
            error == ResolveError::Unavailable && text.contains(detail),
            "{question:?}: {error:?}: {text}"
        );
        assert!(!text.contains("canary"), "{text}");
        server.mend();
    };
    use ConnectFault::{Cut, Endless, Hang, Stall};
    for question in QUESTIONS {
        check(&hasty, question, Hang, "no answer within 200ms").await;
        check(&hasty, question, Stall, "no answer within 200ms").await;
        check(&patient, question, Cut, "").await;
    }
    for question in [Question::Vaults, Question::Items, Question::Item] {
        check(&patient, question, Endless, "over its bound").await;
        check(&patient, question, plain(200, ""), "no JSON").await;
        check(&patient, question, plain(200, "canary"), "no JSON: see line 1").await;
        check(&patient, question, plain(200, "\"canary\""), "malformed: `` must be").await;
        check(&patient, question, plain(200, "[{\"canary\":1}]"), "malformed").await;
    }
    server.fail("/v1", Endless);
    assert_eq!(failure(ask(&patient, Question::File).await).0, ResolveError::UnsupportedFileFormat);
}

#[tokio::test]
async fn bounds_are_exact() {
    let server = server().await;
    let connect = client(&server);
    let check = async |question, body: String, fits: bool| {
        server.fail("/v1", plain(200, &body));
        let text = ask(&connect, question).await.err().map(|error| failure::<()>(Err(error)).1);
        let is_over = text.is_some_and(|text| text.contains("bound") || text.contains("more than"));
        assert_eq!(is_over, !fits, "{question:?} of {}", body.len());
        server.mend();
    };
    check(Question::File, "x".repeat(VALUE_MAX), true).await;
    check(Question::File, "x".repeat(VALUE_MAX + 1), false).await;
    check(Question::Item, " ".repeat(ITEM_MAX), true).await;
    check(Question::Item, " ".repeat(ITEM_MAX + 1), false).await;
    check(Question::Items, " ".repeat(LIST_MAX), true).await;
    check(Question::Items, " ".repeat(LIST_MAX + 1), false).await;

    let long = json!({"status": 500, "message": "canary", "more": "x".repeat(16 << 10)}).to_string();
    server.fail("/v1", plain(500, &long));
    assert!(failure(ask(&connect, Question::Item).await).1.contains("status 500 without"));
}

#[tokio::test]
async fn a_server_that_is_gone_and_a_token_that_is_revoked() {
    let server = server().await;
    let connect = client(&server);
    ask(&connect, Question::Item).await.ok().unwrap();
    server.take_token("another");
    assert_eq!(failure(ask(&connect, Question::Item).await).0, ResolveError::CredentialsRefused);
    server.take_token(TOKEN);
    ask(&connect, Question::Item).await.expect("without a restart");
    drop(server);
    assert_eq!(failure(ask(&connect, Question::Item).await).0, ResolveError::Unavailable);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let server = server().await;
    let connect = client(&server);
    let other = "otherxxxxxxxxxxxxxxxxxxxxx";
    let error = |result| failure(result).0;
    assert_eq!(error(connect.items(other).await.map(drop)), ResolveError::VaultNotFound);
    assert_eq!(error(connect.item(other, ITEM).await.map(drop)), ResolveError::VaultNotFound);
    assert_eq!(error(connect.item(VAULT, other).await.map(drop)), ResolveError::ItemNotFound);
    assert_eq!(error(connect.file(VAULT, PAPERS, other).await.map(drop)), ResolveError::FieldNotFound);
}

#[tokio::test]
async fn nothing_but_ids_goes_into_a_path() {
    let server = server().await;
    let connect = client(&server);
    let error = |result| failure(result).0;
    for bad in ["", "..", "Main", "confmainxxxxxxxxxxxxxxxxx/", "CONFMAINXXXXXXXXXXXXXXXXXX", "a?b#c%2f"] {
        assert_eq!(error(connect.items(bad).await.map(drop)), ResolveError::VaultNotFound, "{bad}");
        assert_eq!(error(connect.item(VAULT, bad).await.map(drop)), ResolveError::ItemNotFound, "{bad}");
    }
    for bad in ["", "..", "a/b", "a?b", "a%2f", "ä", " ", &"a".repeat(65)] {
        assert_eq!(
            error(connect.file(VAULT, ITEM, bad).await.map(drop)),
            ResolveError::FieldNotFound,
            "{bad}"
        );
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn no_redirect_takes_the_token_elsewhere() {
    let (server, elsewhere) = (server().await, server().await);
    let connect = client(&server);
    server.fail("/v1/vaults", ConnectFault::Redirect(format!("{}/v1/vaults", elsewhere.host())));
    for question in QUESTIONS {
        assert_eq!(failure(ask(&connect, question).await).0, ResolveError::Unavailable);
    }
    let cost: u32 = QUESTIONS.map(|question| connect.cost(question)).iter().sum();
    assert_eq!((server.count("/"), elsewhere.count("/")), (cost as usize, 0));
}

#[tokio::test]
async fn a_name_of_this_machine_is_this_machine() {
    let server = server().await;
    let connect = Connect::new(options(format!("http://localhost:{}/", server.port()))).unwrap();
    ask(&connect, Question::Vaults).await.ok().unwrap();
}

#[tokio::test]
async fn only_so_many_questions_at_a_time() {
    let server = server().await;
    server.fail("/v1", ConnectFault::Hang);
    let connect = std::sync::Arc::new(client(&server));
    let mut questions = JoinSet::new();
    for _ in 0..40 {
        let connect = std::sync::Arc::clone(&connect);
        questions.spawn(async move { ask(&connect, Question::Item).await });
    }
    let arrived = async {
        while server.count("/") < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), arrived).await.expect("sixteen arrive");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.count("/"), 16);
}
