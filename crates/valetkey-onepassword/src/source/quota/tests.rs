use std::path::Path;

use futures_util::FutureExt;
use valetkey_core::testing::{FakeClock, agent};

use super::*;

const SOURCE: &str = "main";

fn open(dir: &Path, per_hour: u32, clock: &FakeClock) -> Result<Arc<Quota>, QuotaError> {
    let limits = QuotaLimits { per_hour: Some(per_hour), per_day: Some(per_hour * 2) };
    Quota::open(limits, Some(dir), &SOURCE.into(), Arc::new(clock.clone())).map(Arc::new)
}

fn opened(dir: &Path, per_hour: u32) -> (FakeClock, Arc<Quota>) {
    let clock = FakeClock::default();
    let quota = open(dir, per_hour, &clock).unwrap();
    (clock, quota)
}

/// How many requests an agent is let have, at most `most`.
async fn spend(quota: &Arc<Quota>, name: &str, most: u32) -> u32 {
    for count in 0..most {
        match quota.claim(&agent(name), 1) {
            Ok(claim) => drop(claim.pay().await.unwrap()),
            Err(_) => return count,
        }
    }
    most
}

fn used(quota: &Quota) -> u32 {
    quota.spending()[0].used
}

#[tokio::test]
async fn shares() {
    let dir = tempfile::tempdir().unwrap();
    let (_, quota) = opened(dir.path(), 900);
    assert_eq!(spend(&quota, "first", 10_000).await, 720);
    assert_eq!(spend(&quota, "second", 10_000).await, 144);
    assert_eq!(spend(&quota, "third", 10_000).await, 28);
    assert_eq!(spend(&quota, "first", 10_000).await, 0);
    let [hour, day] = quota.spending();
    assert_eq!((hour, day.left), (Spending { used: 892, left: Some(8) }, Some(908)));
    assert_eq!(quota.spent_for(), None);
    assert!(!quota.is_ample());
}

#[tokio::test]
async fn agents_that_both_want_all_end_up_alike() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::default();
    let limits = QuotaLimits { per_hour: Some(900), per_day: None };
    let quota = Quota::open(limits, Some(dir.path()), &SOURCE.into(), Arc::new(clock.clone()));
    let quota = Arc::new(quota.unwrap());
    assert_eq!(spend(&quota, "first", 10_000).await, 720);
    let mut had = [0, 0];
    for slot in 0..60 {
        clock.advance(Duration::from_mins(5));
        for _ in 0..1_000 {
            let now = [spend(&quota, "first", 1).await, spend(&quota, "second", 1).await];
            if slot >= 20 {
                had = [had[0] + now[0], had[1] + now[1]];
            }
        }
    }
    assert!(had[0] > 800 && had[0].abs_diff(had[1]) * 20 < had[0], "{had:?}");
}

#[tokio::test]
async fn what_is_not_paid_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_, quota) = opened(dir.path(), 10);
    let claim = quota.claim(&agent("bot"), 3).ok().unwrap();
    assert_eq!(used(&quota), 3);
    drop(claim);
    assert_eq!(used(&quota), 0);
    assert!(quota.claim(&agent("bot"), 11).is_err());
    assert_eq!(spend(&quota, "bot", 100).await, 8);
}

#[tokio::test]
async fn what_was_spent_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, quota) = opened(dir.path(), 100);
    spend(&quota, "bot", 1).await;
    drop(quota);
    let quota = open(dir.path(), 100, &clock).unwrap();
    assert_eq!(used(&quota), 1, "the first request writes nothing ahead");
    spend(&quota, "bot", 40).await;
    drop(quota);
    let quota = open(dir.path(), 100, &clock).unwrap();
    assert!((41..=56).contains(&used(&quota)), "{}", used(&quota));
    clock.advance(Duration::from_secs(4_000));
    assert_eq!(used(&quota), 0);
    assert!(quota.spending()[1].used >= 41);
}

#[tokio::test]
async fn a_payment_that_is_given_up_is_in_no_other_s_way() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, quota) = opened(dir.path(), 100_000);
    let mut spent = 0;
    for _ in 0..100 {
        // Each is over what was written ahead, and the second over what the first wrote.
        let claim = |cost| quota.claim(&agent("bot"), cost).ok().unwrap();
        // Begins to write, and is dropped; where the write is fast, it is paid.
        if let Some(paid) = claim(20).pay().now_or_never() {
            paid.unwrap().settle(20);
            spent += 20;
        }
        claim(40).pay().await.unwrap().settle(40);
        spent += 40;
    }
    drop(quota);
    let quota = open(dir.path(), 100_000, &clock).unwrap();
    assert!(used(&quota) >= spent, "{}", used(&quota));
}

#[tokio::test]
async fn a_wall_clock_that_went_back_frees_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let late = FakeClock::default();
    late.advance(Duration::from_hours(100));
    let quota = open(dir.path(), 100, &late).unwrap();
    spend(&quota, "bot", 50).await;
    drop(quota);
    let early = FakeClock::default();
    let quota = open(dir.path(), 100, &early).unwrap();
    assert!(used(&quota) >= 50);
    early.advance(Duration::from_hours(2));
    assert_eq!(used(&quota), 0, "and it is not lost for ever");
}

#[tokio::test]
async fn a_state_that_is_no_state_stops_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.quota");
    let clock = FakeClock::default();
    for text in [
        "",
        "valetkey",
        "\u{0}",
        "valetkey quota v1: slots of 300 s since 1970, and what was spent in each\n1 1\n",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = open(dir.path(), 10, &clock).map(drop).unwrap_err().to_string();
        assert!(error.contains("main.quota") && error.contains("damaged"), "{error}");
    }
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(open(dir.path(), 10, &clock), Err(QuotaError::Corrupt { .. })));
    std::fs::remove_file(&path).unwrap();
    let _first = open(dir.path(), 10, &clock).unwrap();
    assert!(matches!(open(dir.path(), 10, &clock), Err(QuotaError::InUse { .. })), "one process at a time");
    assert!(matches!(open(&dir.path().join("none"), 10, &clock), Err(QuotaError::Read { .. })));
    for name in ["", "../x", "A", "a b", &"a".repeat(65)] {
        let limits = QuotaLimits::default();
        let error = Quota::open(limits, Some(dir.path()), &name.into(), Arc::new(clock.clone())).err();
        assert!(matches!(error, Some(QuotaError::Name(_))), "{name}");
    }
    let none = Quota::open(QuotaLimits::default(), None, &SOURCE.into(), Arc::new(clock.clone())).err();
    assert!(matches!(none, Some(QuotaError::NoDirectory)));
    assert!(Quota::open(QuotaLimits::NONE, None, &SOURCE.into(), Arc::new(clock)).is_ok());
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_spent() {
    let dir = tempfile::tempdir().unwrap();
    let (_, quota) = opened(dir.path(), 10);
    // The new file cannot come to be where a directory is.
    let obstacle = dir.path().join("main.quota.new");
    std::fs::create_dir(&obstacle).unwrap();
    let failure = quota.claim(&agent("bot"), 1).ok().unwrap().pay().await.err().unwrap();
    assert_eq!(failure.error, ResolveError::Unavailable);
    assert!(failure.detail.unwrap().contains("cannot write the quota's state file"));
    assert_eq!(used(&quota), 0);
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(spend(&quota, "bot", 3).await, 3);
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_the_broker_s_own() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (_, quota) = opened(dir.path(), 10);
    spend(&quota, "bot", 2).await;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn the_doctor_sees_a_damaged_state_beside_a_broker() {
    let dir = tempfile::tempdir().unwrap();
    let check = |found: &str, failed: bool| {
        let check = quota_check(dir.path(), SOURCE);
        assert!(check.found.contains(found) && check.is_failed() == failed, "{check:?}");
    };
    check("nothing was spent yet", false);
    let (_, quota) = opened(dir.path(), 10);
    spend(&quota, "bot", 2).await;
    check("stands in", false);
    std::fs::write(dir.path().join(format!("{SOURCE}.quota")), "else").unwrap();
    check("is damaged", true);
}
