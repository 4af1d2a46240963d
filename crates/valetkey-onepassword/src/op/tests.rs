use std::sync::Arc;

use rustix::process::{Pid, test_kill_process};
use valetkey_core::testing::{FakeClock, reference};
use valetkey_core::{Clock as _, Directory as _, ResolveFailure, Target};
use valetkey_standin::{OpCall, OpFault, OpProgram, World};

use super::*;
use crate::catalogue::Catalogue;
use crate::vault_file::VaultFile;

const WORLD: &str = include_str!("../../../valetkey-standin/src/conformance.json");
const MAIN: &str = "confmainxxxxxxxxxxxxxxxxxx";
const GITHUB: &str = "confgithubxxxxxxxxxxxxxxxx";
const TOKEN: &str = "ops_eyJzaWduSW5BZGRyZXNzIjoibXkuMXBhc3N3b3JkLmNvbSIsImNhbmFyeSI6InRoZSB0b2tlbiJ9";

fn program() -> OpProgram {
    OpProgram::new(&World::from_json(WORLD).unwrap()).unwrap()
}

fn options(program: &OpProgram, timeout: Duration, processes_max: usize) -> OpOptions {
    let environment = |name: &str| (name == "OP_SERVICE_ACCOUNT_TOKEN").then(|| TOKEN.into());
    let token = TokenSource::find(&environment, crate::TokenNames::default()).unwrap();
    OpOptions { program: program.path(), token, allow_loopback: false, timeout, processes_max }
}

fn op_within(program: &OpProgram, timeout: Duration, processes_max: usize) -> Op {
    Op::open(options(program, timeout, processes_max)).unwrap()
}

/// With the patience of a machine that has much else to do.
fn op(program: &OpProgram) -> Op {
    op_within(program, Duration::from_secs(60), OpOptions::PROCESSES_MAX)
}

/// The kind of a failure, and its detail.
fn failed<T>(answer: Result<T, UpstreamError>) -> (ResolveError, String) {
    let failure = ResolveFailure::from(answer.err().expect("a failure"));
    let detail = failure.detail.unwrap_or_default().to_string();
    assert!(!detail.contains("canary") && !detail.contains("eyJ"), "{detail}");
    (failure.error, detail)
}

/// Whether nothing is left of a call: no entry of its process, and nothing alive of what that had started.
fn is_gone(call: &OpCall) -> bool {
    let id = Pid::from_raw(call.process_id.try_into().unwrap()).unwrap();
    test_kill_process(id).is_err() && !is_group_alive(call.process_id)
}

/// Orphans that are dead but not yet buried by the system count as dead. Without `/proc` nothing is seen.
fn is_group_alive(group: u32) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.any(|stat| {
        // The name in parentheses may hold anything.
        let mut words = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, group_of) = (words.next(), words.nth(1));
        group_of == Some(&group.to_string()) && state != Some("Z")
    })
}

async fn assert_gone(program: &OpProgram) {
    let calls = program.calls().unwrap();
    assert!(!calls.is_empty());
    for _ in 0..1_000 {
        if calls.iter().all(is_gone) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still there: {calls:?}");
}

#[tokio::test]
async fn it_means_and_gives_what_the_vault_file_does() {
    let clock = FakeClock::default();
    let (program, file) = (program(), VaultFile::from_json(WORLD.into(), Arc::new(clock.clone())).unwrap());
    let op = op(&program);
    let vaults = op.vaults().await.unwrap();
    let (mut outlines, mut values) = (Vec::new(), Vec::new());
    for vault in &vaults {
        for summary in op.items(&vault.id).await.unwrap() {
            let (outline, item) = op.item(&vault.id, &summary.id).await.unwrap();
            assert!(outline.state == summary.state && outline.title == summary.title);
            values.push((outline.id.clone(), item));
            outlines.push(outline);
        }
    }
    let catalogue = Catalogue::new(&vaults, outlines);
    let mut check = async |text: &str, expected: Result<&str, ResolveError>| {
        let target = catalogue.locate(&reference(text));
        assert_eq!(target, file.locate(&reference(text)).target, "{text}");
        let given = match &target {
            Target::Field(target) => {
                let field = catalogue.field(target).unwrap();
                let (_, item) = values.iter_mut().find(|(id, _)| *id == target.item.id).unwrap();
                if field.kind == crate::item::FieldKind::File {
                    let content = op.file(&target.vault.id, &target.item.id, &field.id).await.unwrap();
                    item.by_field.insert(field.id.clone(), content);
                }
                item.give(field, target.facet, clock.now())
            }
            Target::Unresolved { vault: _, item: _, error } => Err(error.clone()),
            Target::Unknown { .. } => panic!("{text}: a catalogue knows all"),
        };
        let given = given.map(|value| String::from_utf8(value.expose_secret().into()).unwrap());
        assert_eq!(given.as_deref().map_err(Clone::clone), expected, "{text}");
    };
    use ResolveError::*;
    check("op://Main/GitHub/password", Ok("  conf-github-password with blanks  ")).await;
    check("op://main/github/ADMIN/token", Ok("conf-github-token")).await;
    check("op://main/github/admin/twin", Err(TooManyMatchingFields)).await;
    check("op://main/github/secb/twin", Ok("conf-github-twin-b")).await;
    check("op://main/github/notes", Ok("conf-github-notes\nsecond line")).await;
    check("op://main/github/blank", Ok("")).await;
    check("op://main/github/absent", Ok("")).await;
    check("op://main/github/special", Ok("conf-github-special")).await;
    check("op://main/github/deep", Ok("conf-github-deep-d")).await;
    check("op://main/github/none/deep", Err(NoMatchingSections)).await;
    check("op://main/github/none", Err(FieldNotFound)).await;
    check("op://main/authenticator/one-time password?attribute=otp", Ok("717660")).await;
    check("op://main/authenticator/security/broken?attribute=otp", Err(UnableToGenerateTotpCode)).await;
    check("op://main/github/password?attribute=otp", Err(IncompatibleTotpQueryParameterField)).await;
    check("op://main/deploy key/public key?ssh-format=openssh", Err(IncompatibleSshKeyQueryParameterField))
        .await;
    check("op://main/papers/attached/read me.txt", Ok("conf-papers-text file\n")).await;
    check("op://main/papers/image.bin", Err(UnsupportedFileFormat)).await;
    check("op://main/retired/password", Err(ItemNotFound)).await;
    check("op://main/confarchivedxxxxxxxxxxxxxx/password", Err(ItemNotActive)).await;
    check("op://main/renewed/password", Ok("conf-renewed-new")).await;
    check("op://main/pair/password", Err(TooManyItems)).await;
    check("op://twin/thing/password", Err(TooManyVaults)).await;
    check("op://conftwinbxxxxxxxxxxxxxxxxx/thing/password", Ok("conf-twin-b")).await;
    check("op://none/thing/password", Err(VaultNotFound)).await;
    check("op://confspecialxxxxxxxxxxxxxxx/plain/password", Ok("conf-special-password")).await;
}

#[tokio::test]
async fn keys_are_told_apart_and_versions_are_kept() {
    let program = program();
    let (outline, values) = op(&program).item(MAIN, "confsshxxxxxxxxxxxxxxxxxxx").await.unwrap();
    let kinds: Vec<_> = outline.fields.iter().map(|field| (&*field.id, field.kind)).collect();
    use crate::item::FieldKind::{Plain, PrivateKey};
    assert_eq!(kinds, [("private_key", PrivateKey), ("public_key", Plain)]);
    assert_eq!(values.version, Some(1));
    let key = values.give(&outline.fields[0], valetkey_core::Facet::OpensshKey, FakeClock::default().now());
    assert!(key.unwrap().expose_secret().starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----"));
}

#[tokio::test]
async fn each_question_is_one_run_with_ids_alone() {
    let program = program();
    let op = op(&program);
    op.vaults().await.unwrap();
    op.items(MAIN).await.unwrap();
    op.item(MAIN, GITHUB).await.unwrap();
    op.file(MAIN, "confpapersxxxxxxxxxxxxxxxx", "confiletextxxxxxxxxxxxxxxx").await.unwrap();
    assert_eq!(op.version().await.unwrap(), "2.32.1");
    let limits = op.rate_limits().await.unwrap();
    let read = OpRateLimit {
        scope: "token".into(),
        action: "read".into(),
        limit: 1_000,
        remaining: 995,
        reset_seconds: 1_800,
    };
    assert_eq!(limits[1], read);
    let calls = program.calls().unwrap();
    let asked: Vec<_> = calls.iter().map(|call| call.arguments.join(" ")).collect();
    let expected = [
        "vault list --format json",
        "item list --vault confmainxxxxxxxxxxxxxxxxxx --include-archive --format json",
        "item get confgithubxxxxxxxxxxxxxxxx --vault confmainxxxxxxxxxxxxxxxxxx --include-archive --format json",
        "read --no-newline op://confmainxxxxxxxxxxxxxxxxxx/confpapersxxxxxxxxxxxxxxxx/confiletextxxxxxxxxxxxxxxx",
        "--version",
        "service-account ratelimit --format json",
    ];
    assert_eq!(asked, expected);
    // PATH would be here if anything were inherited; the rest is the shell's own.
    let own = ["PWD", "OLDPWD", "SHLVL", "_"];
    let expected = [
        "HOME",
        "OP_BIOMETRIC_UNLOCK_ENABLED",
        "OP_CACHE",
        "OP_CONFIG_DIR",
        "OP_SERVICE_ACCOUNT_TOKEN",
        "XDG_CONFIG_HOME",
    ];
    for call in &calls {
        let mut names: Vec<_> =
            call.environment.iter().map(String::as_str).filter(|name| !own.contains(name)).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
    }
    assert_gone(&program).await;
}

#[tokio::test]
async fn what_is_no_id_becomes_no_argument() {
    let program = program();
    let op = op(&program);
    let hostile = ["", "--account", "Main", "CONFMAINXXXXXXXXXXXXXXXXXX", "confmainxxxxxxxxxxxxxxxxx/"];
    for id in hostile {
        assert_eq!(failed(op.items(id).await).0, ResolveError::VaultNotFound, "{id}");
        assert_eq!(failed(op.item(id, GITHUB).await).0, ResolveError::VaultNotFound, "{id}");
        assert_eq!(failed(op.item(MAIN, id).await).0, ResolveError::ItemNotFound, "{id}");
        assert_eq!(failed(op.file(MAIN, id, "f").await).0, ResolveError::ItemNotFound, "{id}");
    }
    for id in ["", "a/b", "$HOME", "a?attribute=otp", "..", "a\nb"] {
        assert_eq!(failed(op.file(MAIN, GITHUB, id).await).0, ResolveError::FieldNotFound, "{id}");
    }
    assert!(program.calls().unwrap().is_empty());
}

#[tokio::test]
async fn missing_things_are_told_apart() {
    let program = program();
    let op = op(&program);
    let none = "nonexxxxxxxxxxxxxxxxxxxxxx";
    assert_eq!(failed(op.items(none).await).0, ResolveError::VaultNotFound);
    assert_eq!(failed(op.item(none, GITHUB).await).0, ResolveError::VaultNotFound);
    assert_eq!(failed(op.item(MAIN, none).await).0, ResolveError::ItemNotFound);
    assert_eq!(failed(op.file(MAIN, GITHUB, "none").await).0, ResolveError::FieldNotFound);
}

#[tokio::test]
async fn what_it_says_is_put_into_our_words() {
    let program = program();
    let op = op(&program);
    let check = async |text: &str, error: ResolveError, detail: &str| {
        program.fail(OpFault::Exit(1, text)).unwrap();
        assert_eq!(failed(op.item(MAIN, GITHUB).await), (error, detail.to_owned()), "{text}");
    };
    use ResolveError::*;
    let limited = |seconds| RateLimited { retry_after: Duration::from_secs(seconds) };
    check(
        "[ERROR] 2026/02/04 10:00:00 \"x\" isn't a vault in this account.\nMore.",
        VaultNotFound,
        "\"x\" isn't a vault in this account.",
    )
    .await;
    check(
        "\n[ERROR] 2026/02/04 10:00:00 \"i\" isn't an item in the \"v\" vault.",
        ItemNotFound,
        "\"i\" isn't an item in the \"v\" vault.",
    )
    .await;
    check("item 'v/i' does not have a field 'f'", FieldNotFound, "item 'v/i' does not have a field 'f'")
        .await;
    check(
        "(401) Unauthorized: invalid bearer token",
        CredentialsRefused,
        "(401) Unauthorized: invalid bearer token",
    )
    .await;
    check(
        "[ERROR] 2026/02/04 10:00:00 error initializing client: Validation: (failed to session.DecodeSACredentials), Server: (failed to DecodeSACredentials), illegal base64 data at input byte 12",
        CredentialsRefused,
        "error initializing client: Validation: (failed to session.DecodeSACredentials), Server: (failed to DecodeSACredentials), illegal base64 data at input byte 12",
    ).await;
    check(
        "[ERROR] 2026/02/04 10:00:00 Too many requests. Try again in 42 seconds.",
        limited(42),
        "Too many requests. Try again in 42 seconds.",
    )
    .await;
    check(
        "(429) Too Many Requests: try again in 5 minutes",
        limited(300),
        "(429) Too Many Requests: try again in 5 minutes",
    )
    .await;
    check("Too many requests", limited(60), "Too many requests").await;
    check(
        "rate limit exceeded, try again in 0 seconds",
        limited(1),
        "rate limit exceeded, try again in 0 seconds",
    )
    .await;
    check(
        "rate limit exceeded, try again in 99999999999999999999 hours",
        limited(60),
        "rate limit exceeded, try again in 99999999999999999999 hours",
    )
    .await;
    check(
        "rate limit exceeded, try again in 999999999 hours",
        limited(86_400),
        "rate limit exceeded, try again in 999999999 hours",
    )
    .await;
    check("More than one item matches \"x\".", TooManyItems, "More than one item matches \"x\".").await;
    check("More than one vault matches \"x\".", TooManyVaults, "More than one vault matches \"x\".").await;
    // What is not known is passed on without what it quotes, and without long words.
    check("[ERROR] 2026/02/04 10:00:00 cannot open \"canary\" now", Unavailable, "cannot open \"…\" now")
        .await;
    check("odd canary-canary-canary-canary-canary-canary end", Unavailable, "odd … end").await;
    check("", Unavailable, "`op` failed and said nothing").await;
    check("\u{1b}[31mred", Unavailable, "\\u{1b}[31mred").await;
    check(&format!("(401) the token {TOKEN} is bad"), CredentialsRefused, "(401) the token … is bad").await;
    program.mend().unwrap();
    assert!(op.item(MAIN, GITHUB).await.is_ok(), "it recovers by itself");
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let program = program();
    let op = op(&program);
    let check = async |text: &str, detail: &str| {
        program.fail(OpFault::Print(text)).unwrap();
        assert_eq!(
            failed(op.item(MAIN, GITHUB).await),
            (ResolveError::Unavailable, detail.to_owned()),
            "{text}"
        );
    };
    let form = |fault: &str| format!("what `op` printed is of another form: {fault}");
    let item = |vault: &str, item: &str, more: &str| {
        format!(r#"{{"id":"{item}","title":"t","vault":{{"id":"{vault}"}},"category":"LOGIN"{more}}}"#)
    };
    check("", "what `op` printed is no JSON: see line 1, column 0").await;
    check("canary", "what `op` printed is no JSON: see line 1, column 1").await;
    check(&item(MAIN, GITHUB, "").replace('}', ""), "what `op` printed is no JSON: see line 1, column 108")
        .await;
    check("[\"canary\"]", &form("`` must be an object")).await;
    check("{}", &form("`id` is missing")).await;
    check(&item(MAIN, "canary", ""), &form("`id` must be 26 characters of `a-z` and `0-9`")).await;
    check(&item(MAIN, MAIN, ""), "`op` gave another item than it was asked for").await;
    check(&item(GITHUB, GITHUB, ""), "`op` gave another item than it was asked for").await;
    check(
        &item(MAIN, GITHUB, r#","fields":[{"id":"f","value":"canary"}]"#),
        &form("`fields[0].type` is missing"),
    )
    .await;
    program.fail(OpFault::Print(&format!("[{}]", item(GITHUB, GITHUB, "")))).unwrap();
    assert_eq!(failed(op.items(MAIN).await).1, "`op` listed an item of another vault than it was asked for");
    program.fail(OpFault::Print("[]")).unwrap();
    assert!(op.vaults().await.unwrap().is_empty());
    program.fail(OpFault::Print("canary")).unwrap();
    assert_eq!(failed(op.version().await).1, "`op --version` printed no version");
}

#[tokio::test]
async fn a_run_that_hangs_is_ended_with_all_it_started() {
    for fault in [OpFault::Hang, OpFault::Silence] {
        let program = program();
        let op = op_within(&program, Duration::from_millis(500), 1);
        program.fail(fault).unwrap();
        let expected = "`op` did not answer within 500 ms, and was ended".to_owned();
        assert_eq!(failed(op.vaults().await), (ResolveError::Unavailable, expected), "{fault:?}");
        assert_gone(&program).await;
    }
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_ended() {
    let program = program();
    let op = op(&program);
    program.fail(OpFault::Hang).unwrap();
    tokio::select! {
        _ = op.vaults() => panic!("it hangs"),
        () = async {
            while program.calls().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
    assert_gone(&program).await;
    program.mend().unwrap();
    assert!(op.vaults().await.is_ok(), "its turn came back");
}

#[tokio::test]
async fn a_run_that_prints_without_end_is_ended() {
    for (fault, max) in [(OpFault::Flood, 8 << 20), (OpFault::FloodErrors, 64 << 10)] {
        let program = program();
        program.fail(fault).unwrap();
        let expected = format!("`op` printed more than {max} bytes");
        assert_eq!(failed(op(&program).vaults().await), (ResolveError::Unavailable, expected));
        assert_gone(&program).await;
    }
}

#[tokio::test]
async fn runs_wait_for_their_turn_and_not_for_ever() {
    let program = program();
    let two = op_within(&program, Duration::from_secs(60), 2);
    program.fail(OpFault::Slow("0.1")).unwrap();
    let asked = (0..6).map(|_| two.vaults());
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(Result::is_ok));
    let calls = program.calls().unwrap();
    assert_eq!((calls.len(), calls.iter().map(|call| call.running).max()), (6, Some(2)));

    let one = op_within(&program, Duration::from_millis(500), 1);
    program.fail(OpFault::Hang).unwrap();
    let (first, second) = tokio::join!(one.vaults(), one.vaults());
    assert_eq!(failed(first).0, ResolveError::Unavailable);
    assert_eq!(failed(second).1, "`op` is busy: no turn came in time");
}

#[tokio::test]
async fn a_program_that_is_gone_is_said_so() {
    let program = program();
    let op = op(&program);
    std::fs::remove_file(program.path()).unwrap();
    let (error, detail) = failed(op.vaults().await);
    assert!(error == ResolveError::Unavailable && detail.starts_with("cannot start `op`: "), "{detail}");
}

#[tokio::test]
async fn the_doctor_is_told_what_is_wrong_and_what_to_do() {
    use crate::Verdict::{Fail, Ok, Warn};
    let program = program();
    let look = async |vaults: &[&str]| {
        let options = options(&program, Duration::from_secs(60), 1);
        let vaults: Vec<_> = vaults.iter().map(|name| (*name).to_owned()).collect();
        let checks = op_checks(options, &vaults).await;
        assert!(!format!("{checks:?}").contains("eyJ"), "{checks:?}");
        checks.into_iter().map(|check| (check.name, check.verdict, check.found)).collect::<Vec<_>>()
    };
    let shown = program.path().canonicalize().unwrap().display().to_string();
    let found = look(&["main", "None", "twin", "conftwinaxxxxxxxxxxxxxxxxx"]).await;
    let vault = |verdict, found: &str| ("vault", verdict, found.to_owned());
    let quota = "token write: 95 of 100 left, all again in 1800 s; token read: 995 of 1000 left, all again in 1800 s; account read_write: 4995 of 5000 left, all again in 1800 s";
    let expected = [
        ("op program", Ok, format!("`{shown}`, version 2.32.1")),
        ("sign-in", Ok, "1Password takes the token".to_owned()),
        ("quota", Ok, quota.to_owned()),
        vault(Ok, "`main` is there"),
        vault(Fail, "`None` is not there"),
        vault(Fail, "there are several `twin`"),
        vault(Ok, "`conftwinaxxxxxxxxxxxxxxxxx` is there"),
    ];
    assert_eq!(found, expected);

    program.fail(OpFault::Exit(1, "(401) Unauthorized: invalid bearer token")).unwrap();
    let found = look(&["main"]).await;
    assert_eq!(found.len(), 1, "the rest depends on it: {found:?}");
    program.fail(OpFault::Print("2.0.0")).unwrap();
    let found = look(&["main"]).await;
    assert_eq!((found.len(), found[1].0, found[1].1), (2, "sign-in", Fail), "{found:?}");
    let few = OpRateLimit {
        scope: "token".into(),
        action: "read".into(),
        limit: 1_000,
        remaining: 99,
        reset_seconds: 60,
    };
    assert_eq!(check::quota(std::slice::from_ref(&few)).verdict, Warn);
    assert_eq!(check::quota(&[OpRateLimit { action: "write".into(), ..few }]).verdict, Ok);
    std::fs::remove_file(program.path()).unwrap();
    let found = look(&[]).await;
    assert_eq!((found.len(), found[0].0, found[0].1), (1, "op program", Fail), "{found:?}");
}
