//! Callers on the same machine, known by their user.

use anyhow::{Result, ensure};
use valetkey_client::{Broker, CallError, CheckAccess, Credentials, Token};
use valetkey_core::{Reason, RecordKind};
use valetkey_server::{IdentityKind, Member, Proof, UnixSettings};
use valetkey_tests::{Setup, TestBroker};

async fn broker(uid: u32) -> Result<(TestBroker, String)> {
    let setup = Setup::new()?;
    let path = setup.dir().join("broker.sock");
    let address = format!("unix:{}", path.display());
    let identity = IdentityKind::Agent.named("travel-bot")?;
    let setup = setup.configure(move |config| {
        config.unix = Some(UnixSettings { path, mode: 0o600 });
        config.members.push(Member { identity, shows: Proof::User(uid) });
    });
    Ok((setup.start().await?, address))
}

fn check() -> CheckAccess {
    let (tool, reference) = ("navan.book_flight".into(), "op://Tutorial/Navan/username".into());
    CheckAccess { tool, reference, ttl: None, session: None, destination: None }
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[tokio::test]
async fn the_kernel_says_who_calls() -> Result<()> {
    let (broker, address) = broker(own_uid()).await?;
    let mark = broker.mark();
    let bot = Broker::connect(&address, Credentials::default()).await?;
    ensure!(bot.check(check()).await?.allowed);
    let log = broker.since(mark).await?;
    let [record] = log.as_slice() else { anyhow::bail!("{log:?}") };
    assert_eq!(record.caller.as_deref(), Some("agent:travel-bot"));
    let uid = format!("uid:{}", own_uid());
    ensure!(record.client.as_deref().is_some_and(|client| client.ends_with(&uid)), "{record:?}");

    // A token for the same one is fine, for another one not.
    let token = |name: &str| anyhow::Ok(Credentials::from(Token::parse(broker.token(name)?)?));
    Broker::connect(&address, token("travel-bot")?).await?.check(check()).await?;
    let mark = broker.mark();
    let other = Broker::connect(&address, token("mail-bot")?).await?.check(check()).await;
    ensure!(matches!(other, Err(CallError::Unauthenticated)), "{other:?}");
    let log = broker.since(mark).await?;
    assert_eq!(
        log.first().map(|it| (it.kind, it.reason)),
        Some((RecordKind::Unauthenticated, Reason::IdentityConflict))
    );

    let path = address.trim_start_matches("unix:").to_owned();
    broker.stop().await?;
    ensure!(!std::path::Path::new(&path).exists(), "the socket's file is left behind");
    Ok(())
}

#[tokio::test]
async fn another_user_is_nobody() -> Result<()> {
    let (broker, address) = broker(own_uid() + 1).await?;
    let mark = broker.mark();
    let called = Broker::connect(&address, Credentials::default()).await?.check(check()).await;
    ensure!(matches!(called, Err(CallError::Unauthenticated)), "{called:?}");
    let log = broker.since(mark).await?;
    assert_eq!(log.iter().map(|it| it.reason).collect::<Vec<_>>(), [Reason::UserUnknown]);
    Ok(())
}
