//! The genuine core against a stand-in for the service: with real cryptography, and on this machine alone.

use serde_json::json;
use valetkey_core::{Facet, Timestamp};
use valetkey_standin::{Service, World};

use super::*;
use crate::item::{FieldKind, ItemState};

const VAULT: &str = "tutorialxxxxxxxxxxxxxxxxxx";
const NAVAN: &str = "navanxxxxxxxxxxxxxxxxxxxxx";
const PAPERS: &str = "papersxxxxxxxxxxxxxxxxxxxx";
const RETIRED: &str = "retiredxxxxxxxxxxxxxxxxxxx";
const KEY: &str = "deploykeyxxxxxxxxxxxxxxxxx";
const NOBODY: &str = "nobodyxxxxxxxxxxxxxxxxxxxx";

/// The stand-in and a source that signs in to it; or a line that says that `test` is skipped.
async fn signed_in(test: &str) -> Option<(Service, SdkSource)> {
    let library = genuine(test)?;
    let service = Service::start(World::travel().unwrap()).await.unwrap();
    let vault = json!({ "id": VAULT });
    service.put_item(json!({
        "id": PAPERS, "title": "Papers", "vault": vault, "category": "SECURE_NOTE", "version": 5,
        "fields": [], "files": [{ "id": "filexxxxxxxxxxxxxxxxxxxxxx", "name": "a.bin", "size": 5, "content": "//79AAE=" }],
    }));
    service.put_item(json!({
        "id": RETIRED, "title": "Retired", "vault": vault, "category": "LOGIN", "version": 1, "state": "ARCHIVED",
        "fields": [],
    }));
    service.put_item(json!({
        "id": KEY, "title": "Deploy Key", "vault": vault, "category": "SSH_KEY", "version": 1,
        "fields": [{
            "id": "private_key", "type": "SSHKEY", "label": "private key",
            "value": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                      -----END PRIVATE KEY-----\n",
        }],
    }));
    let source = open(library, None, &service.token(), TIMEOUT);
    Some((service, source))
}

/// The error of a question for an item.
async fn refused(source: &SdkSource, vault_id: &str, item_id: &str) -> ResolveError {
    error_of(source.item(vault_id, item_id).await).error
}

async fn is_given(source: &SdkSource) -> bool {
    source.item(VAULT, NAVAN).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_found_and_read() {
    let Some((service, source)) = signed_in("what_is_there_is_found_and_read").await else { return };
    let mut names: Vec<_> = source.vaults().await.unwrap().into_iter().map(|vault| vault.name).collect();
    names.sort();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["Production", "Tutorial"]);
    let items = source.items(VAULT).await.unwrap();
    let state = |title: &str| items.iter().find(|item| &*item.title == title).map(|item| item.state);
    assert_eq!(state("Navan"), Some(ItemState::Active));
    assert_eq!(state("Retired"), Some(ItemState::Inactive));

    let (outline, values) = source.item(VAULT, NAVAN).await.unwrap();
    assert_eq!((&*outline.title, values.version), ("Navan", Some(3)));
    let now = Timestamp::from_micros(59_000_000);
    let give = |label: &str, facet| {
        let field = outline.fields.iter().find(|field| &*field.label == label).unwrap();
        let value = values.give(field, facet, now).unwrap();
        String::from_utf8(value.expose_secret().to_vec()).unwrap()
    };
    assert_eq!(give("password", Facet::Value), "demo-navan-password-7f3a91");
    assert_eq!(give("notesPlain", Facet::Value), "demo-navan-notes: book economy only");
    assert!(give("one-time password", Facet::Seed).starts_with("otpauth://totp/Navan:demo?secret="));
    assert_eq!(give("one-time password", Facet::Otp).len(), 6);
    assert_eq!(
        outline.section_label(outline.fields.iter().find(|f| &*f.label == "one-time password").unwrap()),
        "Security"
    );

    let (outline, values) = source.item(VAULT, KEY).await.unwrap();
    let key = outline.fields.iter().find(|field| field.kind == FieldKind::PrivateKey).unwrap();
    let openssh = values.give(key, Facet::OpensshKey, now).unwrap();
    assert!(openssh.expose_secret().starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(outline.fields.iter().any(|field| &*field.label == "public key"));

    let (outline, values) = source.item(VAULT, PAPERS).await.unwrap();
    let file = outline.fields.iter().find(|field| field.kind == FieldKind::File).unwrap();
    assert!(&*file.label == "a.bin" && !values.by_field.contains_key(&file.id));
    let content = source.file(VAULT, PAPERS, &file.id).await.unwrap();
    assert_eq!(content.expose_secret(), b"\xff\xfe\xfd\0\x01");

    assert_eq!(refused(&source, VAULT, RETIRED).await, ResolveError::ItemNotActive);
    assert_eq!(refused(&source, VAULT, NOBODY).await, ResolveError::ItemNotFound);
    assert_eq!(error_of(source.items(NOBODY).await).error, ResolveError::VaultNotFound);
    assert_eq!(error_of(source.file(VAULT, PAPERS, NOBODY).await).error, ResolveError::FieldNotFound);
    // One sign-in for all of it.
    let signed_in = service.requests().iter().filter(|(_, path)| path.ends_with("/auth/complete")).count();
    assert_eq!(signed_in, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_costs_what_it_says() {
    let Some((service, source)) = signed_in("a_question_costs_what_it_says").await else { return };
    let mut before = 0;
    let mut check = |question: &str, cost: u32| {
        let requests = service.requests();
        let asked = requests.len() - before;
        before = requests.len();
        assert!(asked <= cost as usize, "{question} took {asked} requests, not {cost}: {requests:?}");
    };
    let cost = source.cost(Question::Item) + source.sign_in_cost();
    source.item(VAULT, NAVAN).await.unwrap();
    check("the first item", cost);
    assert_eq!((source.take_sign_in_spending(), source.sign_in_cost()), (cost - 1, 0));
    assert_eq!(source.take_sign_in_spending(), 0);
    let cost = source.cost(Question::Item);
    source.item(VAULT, NAVAN).await.unwrap();
    check("an item", cost);
    let cost = source.cost(Question::Vaults);
    source.vaults().await.unwrap();
    check("the vaults", cost);
    let cost = source.cost(Question::Items);
    source.items(VAULT).await.unwrap();
    check("the items", cost);
    let cost = source.cost(Question::File);
    source.file(VAULT, PAPERS, "filexxxxxxxxxxxxxxxxxxxxxx").await.unwrap();
    check("a file", cost);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_one_sign_in() {
    let Some((service, source)) = signed_in("many_at_once_share_one_sign_in").await else { return };
    let source = Arc::new(source);
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let source = Arc::clone(&source);
            tokio::spawn(async move { is_given(&source).await })
        })
        .collect();
    for asked in asked {
        assert!(asked.await.unwrap());
    }
    let count = |end: &str| service.requests().iter().filter(|(_, path)| path.ends_with(end)).count();
    assert_eq!((count("/auth/start"), count(NAVAN)), (1, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_renewed_by_the_core() {
    let Some((service, source)) = signed_in("an_expired_session_is_renewed_by_the_core").await else {
        return;
    };
    assert!(is_given(&source).await);
    service.expire_session();
    assert!(is_given(&source).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_answers_has_its_kind() {
    let Some((service, source)) = signed_in("what_the_service_answers_has_its_kind").await else { return };
    assert!(is_given(&source).await);
    let check = async |status: u16, item: ResolveError, vaults: ResolveError| {
        service.fail(Some(status));
        assert_eq!(refused(&source, VAULT, NAVAN).await, item, "{status}");
        assert_eq!(error_of(source.vaults().await).error, vaults, "{status}");
        service.fail(None);
        assert!(is_given(&source).await, "{status} is over");
    };
    use ResolveError::{CredentialsRefused, ItemNotFound, RateLimited, Unavailable, VaultNotFound};
    let limited = || RateLimited { retry_after: Duration::from_secs(60) };
    check(403, VaultNotFound, CredentialsRefused).await;
    check(404, ItemNotFound, Unavailable).await;
    check(409, Unavailable, Unavailable).await;
    check(429, limited(), limited()).await;
    check(500, Unavailable, Unavailable).await;
    check(503, Unavailable, Unavailable).await;
}

/// Revoked, the token is asked for again after a pause; a new one in the same place is found without a restart.
#[tokio::test]
async fn a_revoked_token_pauses_and_a_new_one_is_found() {
    let name = "a_revoked_token_pauses_and_a_new_one_is_found";
    let Some((service, signed_in)) = signed_in(name).await else { return };
    drop(signed_in);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, service.token()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let token = TokenSource::file(file.clone());
    let options = SdkOptions { allow_loopback: true, ..SdkOptions::new(genuine(name).unwrap(), token) };
    let source = SdkSource::open(options).unwrap();
    assert!(is_given(&source).await);

    service.revoke();
    assert_eq!(refused(&source, VAULT, NAVAN).await, ResolveError::CredentialsRefused);
    let requests = service.requests().len();
    for _ in 0..10 {
        assert_eq!(refused(&source, VAULT, NAVAN).await, ResolveError::CredentialsRefused);
    }
    assert_eq!(service.requests().len(), requests, "nothing is asked in the pause");

    let other = Service::start(World::travel().unwrap()).await.unwrap();
    fs::write(&file, other.token()).unwrap();
    source.session.end_pause();
    assert!(is_given(&source).await);
    assert!(!other.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stalls_and_recovers() {
    let name = "a_service_that_stalls_and_recovers";
    let Some((service, signed_in)) = signed_in(name).await else { return };
    drop(signed_in);
    let source = open(genuine(name).unwrap(), None, &service.token(), Duration::from_secs(5));
    assert!(is_given(&source).await);
    service.stall(true);
    assert_eq!(refused(&source, VAULT, NAVAN).await, ResolveError::Unavailable);
    service.stall(false);
    assert!(is_given(&source).await);
}
