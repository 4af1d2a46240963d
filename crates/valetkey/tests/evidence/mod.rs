//! `audit verify`, `prove` and `checkpoint`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Dev, Ran, run};
use crate::{configure, repository};

const NAVAN: &str = "op://Tutorial/Navan/username";

/// A broker that was used, and stopped; its database, and its public key.
fn used(folder: &Path) -> (String, String) {
    let (file, token) = configure(folder, &repository().join("policies"));
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace("[audit]", "[audit]\ncheckpoint_file = \"checkpoints\"")).unwrap();
    let dev = Dev::start(&["serve", "--config", &file, "--create-database"]);
    let ran = dev.run(&token, &["check", "--tool", "navan.book_flight", NAVAN], "");
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert_eq!(dev.stop().exit, 0);
    let key = fs::read_to_string(folder.join("audit.db-key.pub")).unwrap();
    (folder.join("audit.db").to_str().unwrap().to_owned(), key.trim_end().to_owned())
}

fn verify(database: &str, more: &[&str]) -> Ran {
    run(&[&["audit", "verify", "--database", database], more].concat())
}

#[test]
fn a_stopped_log_is_whole_to_its_end_and_a_changed_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (database, key) = used(folder.path());
    let checkpoints = folder.path().join("checkpoints");
    let checkpoints = checkpoints.to_str().unwrap();
    let ran = verify(&database, &["--key", &key, "--checkpoints", checkpoints]);
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("whole") && ran.stdout.contains("proven up to record"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("proven by no checkpoint"), "{}", ran.stdout);
    let beside = verify(&database, &[]);
    assert!(beside.exit == 0 && beside.stderr.starts_with("note: the key is"), "{}", beside.stderr);

    let bytes = fs::read(&database).unwrap();
    let place = bytes.windows(NAVAN.len()).position(|window| window == NAVAN.as_bytes()).unwrap();
    let mut changed = bytes.clone();
    changed[place + 5] ^= 1;
    fs::write(&database, changed).unwrap();
    let ran = verify(&database, &["--key", &key, "--format", "json"]);
    assert_eq!(ran.exit, 1, "{}", ran.stderr);
    let verdict: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(verdict["whole"], false);
    assert_eq!(verdict["findings"][0]["kind"], "changed", "{verdict}");
    fs::write(&database, bytes).unwrap();

    // Another log's key, and a file with it.
    let other = tempfile::tempdir().unwrap();
    let (_, of_other) = used(other.path());
    assert_eq!(verify(&database, &["--key", &of_other]).exit, 1);
    let file = other.path().join("audit.db-key.pub");
    assert_eq!(verify(&database, &["--key", file.to_str().unwrap()]).exit, 1);
}

#[test]
fn a_proof_is_checked_without_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (database, key) = used(folder.path());
    let proof = run(&["audit", "prove", "1", "--database", &database]);
    assert_eq!(proof.exit, 0, "{}", proof.stderr);
    let file = folder.path().join("1.tlog-proof");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        run(&["audit", "verify", "--proof", file.to_str().unwrap(), "--key", &key])
    };
    let ran = check(&proof.stdout);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("proven by the checkpoint over"), "{}", ran.stderr);
    let record: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&record["record_id"], &record["kind"]), (&"1".into(), &"start".into()));
    let ran = check(&proof.stdout.replacen("index 0", "index 1", 1));
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    let none = run(&["audit", "prove", "99", "--database", &database]);
    assert_eq!((none.exit, none.stdout.as_str()), (1, ""), "{}", none.stderr);
    assert!(none.stderr.contains("there is no record `99`"), "{}", none.stderr);
}

#[test]
fn a_running_broker_gives_checkpoints_and_proofs() {
    let dev = Dev::start(&["serve", "--dev"]);
    let ana = dev.token("person:ana");
    let end = Instant::now() + Duration::from_secs(60);
    // One is made within a second or so.
    let checkpoint = loop {
        let ran = dev.run(ana, &["audit", "checkpoint"], "");
        if ran.exit == 0 {
            break ran.stdout;
        }
        assert!(ran.stderr.contains("no checkpoint") && Instant::now() < end, "{}", ran.stderr);
    };
    assert!(checkpoint.starts_with("valetkey/") && checkpoint.ends_with("\n\n"), "{checkpoint}");
    let key = dev.run(ana, &["audit", "checkpoint", "--public-key"], "").stdout;
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    fs::write(&checkpoints, checkpoint).unwrap();
    let database = dev.policies().with_file_name("audit.db");
    let of_file = ["--key", key.trim_end(), "--checkpoints", checkpoints.to_str().unwrap()];
    let ran = verify(database.to_str().unwrap(), &of_file);
    assert_eq!(ran.exit, 0, "beside the broker: {}{}", ran.stdout, ran.stderr);

    let proof = dev.run(ana, &["audit", "prove", "1"], "");
    assert_eq!(proof.exit, 0, "{}", proof.stderr);
    let file = folder.path().join("proof");
    fs::write(&file, proof.stdout).unwrap();
    let ran = run(&["audit", "verify", "--proof", file.to_str().unwrap(), "--key", key.trim_end()]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let bot = dev.token("agent:travel-bot");
    assert_eq!(dev.run(bot, &["audit", "prove", "1"], "").exit, 2, "agents read no log");
    assert_eq!(dev.run(bot, &["audit", "checkpoint"], "").exit, 2);
}
