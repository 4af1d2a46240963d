//! What a lease was opened with ends it; on whose behalf it is stays with it.

use std::sync::Arc;
use std::time::Duration;

use super::world::{A, World, agent, allow, person, tool};
use crate::audit::RecordKind;
use crate::broker::Acquire;
use crate::credential::Credential;
use crate::request::{AdminAction, AdminRequest, AdminResource, Behalf, Call};
use crate::testing;

fn shown(id: &str, seconds: Option<u64>) -> Credential {
    Credential::new(id, seconds.map(Duration::from_secs))
}

fn call(credential: Credential, behalf: Option<(&str, Credential)>) -> Arc<Call> {
    let behalf = behalf.map(|(name, credential)| Behalf { person: testing::person(name), credential });
    Arc::new(Call { credential, behalf, ..testing::call(agent("bot")).as_ref().clone() })
}

fn ask(world: &World, call: Arc<Call>) -> Acquire {
    Acquire { call, ..world.ask(&[A]) }
}

#[tokio::test]
async fn a_revoked_credential_ends_its_leases_and_no_others() {
    let world = World::new(allow);
    let (one, two) = (shown("one", None), shown("two", None));
    let mut first = world.try_acquire(ask(&world, call(one.clone(), None))).await.unwrap();
    let mut behalf =
        world.try_acquire(ask(&world, call(two.clone(), Some(("ana", one.clone()))))).await.unwrap();
    let mut other = world.try_acquire(ask(&world, call(two, None))).await.unwrap();
    let handle = first.issued()[0].expose_secret();
    behalf.read();
    other.read();
    one.revoke();
    assert_eq!(world.broker.end_opened_with(&one), 2);
    assert_eq!(first.read(), ["ended Credential", "closed"]);
    assert_eq!(behalf.read(), ["ended Credential", "closed"]);
    assert_eq!(other.read(), [""; 0]);
    assert_eq!(world.redeem_text(tool(), &handle).await, Err("inactive HANDLE_REVOKED".to_owned()));
    let refusal = world.try_acquire(ask(&world, call(one, None))).await.map(drop).unwrap_err();
    assert_eq!(world.why(&refusal), "revoked", "also where it was authenticated just before");
    assert_eq!(world.reasons(RecordKind::Acquire).last().copied(), Some("CREDENTIAL_REVOKED"));
    drop((first, behalf, other));
    world.finish().await;
}

#[tokio::test]
async fn nothing_outlives_what_it_was_opened_with() {
    let world = World::new(allow);
    let mut lease = world
        .try_acquire(ask(&world, call(shown("a", None), Some(("ana", shown("b", Some(70)))))))
        .await
        .unwrap();
    lease.read();
    world.advance(48).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"], "the new one lives to second 70 alone");
    world.advance(12).await;
    assert_eq!(lease.read(), [""; 0]);
    world.advance(10).await;
    assert_eq!(lease.read(), ["ended Credential", "closed"]);
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_EXPIRY", "END_CREDENTIAL"]);
    assert_eq!(world.reasons(RecordKind::Renew).len(), 1);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_call_does_nothing_more_once_its_credential_is_over() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let handle = lease.issued()[0].expose_secret();
    let by = |who, credential| Arc::new(Call { credential, ..testing::call(who).as_ref().clone() });

    let revoked = shown("a", None);
    revoked.revoke();
    let late = world.redeem_by(&by(tool(), revoked.clone()), &handle).await;
    assert_eq!(late, Err("denied CREDENTIAL_REVOKED".to_owned()));
    let ended = world.redeem_by(&by(tool(), shown("b", Some(1))), &handle).await;
    assert_eq!(ended, Err("denied CREDENTIAL_EXPIRED".to_owned()));
    let meanwhile = shown("c", None);
    let revoke = meanwhile.clone();
    world.log.on_next_record(move || revoke.revoke());
    let withheld = world.redeem_by(&by(tool(), meanwhile), &handle).await;
    assert_eq!(withheld, Err("inactive CREDENTIAL_REVOKED".to_owned()));

    let operator = by(person(), revoked);
    let request = AdminRequest {
        call: Arc::clone(&operator),
        action: AdminAction::CreateToken,
        resource: AdminResource::Broker,
        detail: "".into(),
    };
    let refusal = world.broker.permit(&request).await.map(drop).unwrap_err();
    assert_eq!(world.why(&refusal), "denied CREDENTIAL_REVOKED");
    let refusal = world.broker.permit_audit(&operator, &[], "").await.map(drop).unwrap_err();
    assert_eq!(world.why(&refusal), "denied CREDENTIAL_REVOKED");
    assert_eq!(
        world.redeem_text(tool(), &handle).await.as_deref(),
        Ok("canary-a"),
        "the handle is as it was"
    );
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn the_person_stays_with_the_lease() {
    let world = World::new(allow);
    let mut lease = world
        .try_acquire(ask(&world, call(shown("a", None), Some(("ana", shown("b", None))))))
        .await
        .unwrap();
    let handle = lease.issued()[0].expose_secret();
    let by_tool = |person: &str| {
        let behalf = Some(Behalf { person: testing::person(person), credential: shown("c", None) });
        Arc::new(Call { behalf, ..testing::call(tool()).as_ref().clone() })
    };
    let redeem = |call| {
        let (broker, handle) = (Arc::clone(&world.broker), handle.clone());
        async move { broker.redeem(&call, &handle, None).await.map(drop) }
    };
    let refusal = redeem(by_tool("eve")).await.unwrap_err();
    assert_eq!(world.why(&refusal), "inactive BEHALF_MISMATCH");
    assert!(redeem(testing::call(tool())).await.is_ok());
    let records = world.log.records();
    let redeemed = records.last().unwrap();
    assert_eq!(redeemed.on_behalf_of, Some(testing::person("ana")));
    assert_eq!(redeemed.credential.as_deref(), Some("test"), "the credential is the redeemer's");
    drop(lease);
    world.finish().await;
}
