//! `valetkey audit export` and `valetkey backup` from outside.

#![cfg(test)]

#[expect(dead_code, reason = "shared with the other tests of the program, which use the rest")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::{Dev, run};

const FORMATS: [&str; 3] = ["jsonl", "csv", "ocsf"];

/// A broker with a few records, and somewhere to put files.
fn broker() -> (Dev, tempfile::TempDir) {
    let dev = Dev::start(&["serve", "--dev"]);
    for purpose in ["=HYPERLINK(\"http://x\")", "a, \"b\"", "ä"] {
        let bot = dev.token("agent:travel-bot");
        let mut lease = dev.spawn(
            bot,
            &["acquire", "--format", "jsonl", "--purpose", purpose, "--tool", "navan.book_flight", NAVAN],
        );
        lease.handle(NAVAN);
        assert_eq!(lease.interrupt().exit, 0);
        check(&dev);
    }
    (dev, tempfile::tempdir().unwrap())
}

/// One record more.
fn check(dev: &Dev) {
    let bot = dev.token("agent:travel-bot");
    assert_eq!(dev.run(bot, &["check", "--tool", "web.search", NAVAN], "").exit, 2);
}

fn export(dev: &Dev, args: &[&str]) -> support::Ran {
    dev.run(dev.token("person:ana"), &[&["audit", "export"], args].concat(), "")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_csv_export_is_what_a_query_prints() {
    let (dev, _) = broker();
    let filter = "-kind:read_audit";
    let exported = export(&dev, &["--format", "csv", filter]);
    assert_eq!((exported.exit, exported.stderr.as_str()), (0, ""));
    let ana = dev.token("person:ana");
    let queried = dev.run(ana, &["audit", "query", filter, "--format", "csv", "--limit", "1000"], "");
    let (head, rows) = queried.stdout.split_once('\n').unwrap();
    let oldest_first: Vec<_> = std::iter::once(head).chain(rows.lines().rev()).collect();
    assert_eq!(exported.stdout.lines().collect::<Vec<_>>(), oldest_first);
    assert!(exported.stdout.contains("\"'=HYPERLINK(\"\"http://x\"\")\""), "{}", exported.stdout);
}

#[test]
fn a_file_is_resumed_wherever_it_broke_off() {
    let (dev, folder) = broker();
    for format in FORMATS {
        let path = folder.path().join(format);
        let file = path.to_str().unwrap();
        let args = ["--format", format, "--to", file];
        let ran = export(&dev, &args);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("added, up to record"), "{}", ran.stderr);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // It is not written over.
        let first = text(&path);
        let refused = export(&dev, &args);
        assert_eq!(refused.exit, 1);
        assert!(refused.stderr.contains("--resume"), "{}", refused.stderr);
        assert_eq!(text(&path), first);

        // Cut within the last line, and a new record since.
        check(&dev);
        fs::write(&path, first.as_bytes().get(..first.len() - 40).unwrap()).unwrap();
        let resumed = export(&dev, &[&args[..], &["--resume"]].concat());
        assert_eq!(resumed.exit, 0, "{}", resumed.stderr);
        let whole = text(&path);
        assert!(whole.starts_with(&first) && whole.len() > first.len(), "{format}");
        let again = export(&dev, &["--format", format]).stdout;
        assert!(again.starts_with(&whole), "{format}: resumed is what is exported at once");
        // Another format's file is left alone.
        let other = FORMATS.into_iter().find(|other| *other != format).unwrap();
        let refused = export(&dev, &["--format", other, "--to", file, "--resume"]);
        assert_eq!(refused.exit, 1);
        assert_eq!(text(&path), whole);
    }
}

/// A stopped broker has signed all of its log: an export of its database is whole, and has its proof beside it.
#[test]
fn a_whole_export_has_its_proof_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = configure(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (database, out, part) = (path("audit.db"), path("audit.jsonl"), path("part.jsonl"));
    for (run_no, create) in [(1, &["--create-database"][..]), (2, &[])] {
        let dev = Dev::start(&[&["serve", "--config", &file], create].concat());
        assert_eq!(dev.run(&token, &["check", "--tool", "web.search", NAVAN], "").exit, 2);
        assert_eq!(dev.stop().exit, 0);
        let ran = run(&["audit", "export", "--database", &database, "--to", &out, "--resume"]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        let lines = text(Path::new(&out)).lines().count();
        let proof = text(Path::new(&format!("{out}.proof")));
        assert!(proof.contains(&format!("\nrecords 1 {lines}\n")), "{run_no}: {lines} lines, and {proof}");
    }
    // What is a part of the log alone proves nothing of its own.
    for more in [&["decision:deny"][..], &["--format", "csv"], &["--format", "ocsf"]] {
        let ran = run(&[&["audit", "export", "--database", &database, "--to", &part], more].concat());
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        assert!(!Path::new(&format!("{part}.proof")).exists(), "{more:?}");
        fs::remove_file(&part).unwrap();
    }
    // An export that has more than the log: the log was rolled back, or is another.
    fs::write(&part, "{\"record_id\":\"4711\"}\n").unwrap();
    let refused = run(&["audit", "export", "--database", &database, "--to", &part, "--resume"]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("another log, or an older copy"), "{}", refused.stderr);
}

/// The number of the last record is not enough: a log that was restored uses it again.
#[test]
fn a_file_is_gone_on_with_from_its_own_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (config, token) = configure(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (database, copy) = (path("audit.db"), path("copy.db"));
    let serve = |more: &[&str], checks: usize| {
        let dev = Dev::start(&[&["serve", "--config", &config], more].concat());
        for _ in 0..checks {
            assert_eq!(dev.run(&token, &["check", "--tool", "web.search", NAVAN], "").exit, 2);
        }
        assert_eq!(dev.stop().exit, 0);
    };
    let export = |to: &str, more: &[&str]| {
        run(&[&["audit", "export", "--database", &database, "--to", to], more].concat())
    };
    serve(&["--create-database"], 1);
    fs::copy(&database, &copy).unwrap();
    serve(&[], 1);
    for format in FORMATS {
        let (whole, part) = (path(format), path(&format!("{format}-part")));
        assert_eq!(export(&whole, &["--format", format]).exit, 0);
        let ran = export(&part, &["--format", format, "kind:start"]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        // Under another filter the log does not give the record that the file ends with.
        let before = text(Path::new(&part));
        let refused = export(&part, &["--format", format, "kind:stop", "--resume"]);
        assert_eq!(refused.exit, 1, "{format}");
        assert!(refused.stderr.contains("does not match the filter"), "{}", refused.stderr);
        assert_eq!(text(Path::new(&part)), before);
        let ran = export(&part, &["--format", format, "kind:start", "--resume"]);
        assert_eq!((ran.exit, text(Path::new(&part))), (0, before), "{}", ran.stderr);
    }
    // Restored, and grown beyond what the files have.
    for name in ["audit.db", "audit.db-wal", "audit.db-shm", "audit.db-index"] {
        let _ = fs::remove_file(path(name));
    }
    fs::copy(&copy, &database).unwrap();
    serve(&[], 3);
    for format in FORMATS {
        let before = text(Path::new(&path(format)));
        let refused = export(&path(format), &["--format", format, "--resume"]);
        assert_eq!(refused.exit, 1, "{format}");
        assert!(refused.stderr.contains("before it was restored"), "{}", refused.stderr);
        assert_eq!(text(Path::new(&path(format))), before, "{format}: it is left alone");
    }
}

#[test]
fn nothing_is_made_where_nothing_may_be_read() {
    let (dev, folder) = broker();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    let omar = dev.run(dev.token("person:omar"), &["audit", "export", "--to", file], "");
    assert_eq!((omar.exit, omar.stdout.as_str()), (2, ""), "{}", omar.stderr);
    assert_eq!(export(&dev, &["--to", file, "nonsense:x"]).exit, 1);
    assert_eq!(run(&["audit", "export", "--database", "missing.db", "--to", file]).exit, 1);
    assert_eq!(run(&["audit", "export", "--resume"]).exit, 64);
    assert!(!path.exists());
}

#[test]
fn a_backup_is_taken_while_the_broker_serves_and_is_served_from() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = configure(folder.path());
    let dev = Dev::start(&["serve", "--config", &file, "--create-database"]);
    let ask = |dev: &Dev| dev.run(&token, &["check", "--tool", "web.search", NAVAN], "").exit;
    assert_eq!(ask(&dev), 2);

    let copy = folder.path().join("copies");
    fs::create_dir(&copy).unwrap();
    let copy = copy.join("copy.db");
    let to = copy.to_str().unwrap();
    let ran = run(&["backup", "--config", &file, "--to", to]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    for word in ["records      1 (2", "tokens       0", "checkpoints  "] {
        assert!(ran.stdout.contains(word), "{word} is missing in: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("keep apart") && ran.stderr.contains("vault.json"), "{}", ran.stderr);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(copy.parent().unwrap()).unwrap().count(),
        1,
        "one file, and nothing left beside it"
    );
    let bytes = fs::read(&copy).unwrap();
    let refused = run(&["backup", "--config", &file, "--to", to]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("is not overwritten"), "{}", refused.stderr);
    assert_eq!(fs::read(&copy).unwrap(), bytes);

    // A copy is exported without a broker, and is what the broker had.
    let offline = run(&["audit", "export", "--database", to]);
    assert_eq!(offline.exit, 0, "{}", offline.stderr);
    let live = run(&["audit", "export", "--database", folder.path().join("audit.db").to_str().unwrap()]);
    assert!(live.stdout.starts_with(&offline.stdout) && offline.stdout.contains("\"kind\":\"check\""));
    assert_eq!(fs::read(&copy).unwrap(), bytes, "reading changes nothing");

    // Lost, and restored: the broker goes on from there.
    assert_eq!(dev.stop().exit, 0);
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    fs::copy(&copy, folder.path().join("audit.db")).unwrap();
    let dev = Dev::start(&["serve", "--config", &file]);
    assert_eq!(ask(&dev), 2);
    assert_eq!(dev.stop().exit, 0);
    let after = run(&["audit", "export", "--database", folder.path().join("audit.db").to_str().unwrap()]);
    assert!(after.stdout.starts_with(&offline.stdout) && after.stdout.len() > offline.stdout.len());
}

#[test]
fn what_cannot_be_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");
    let to = to.to_str().unwrap();
    for (args, exit) in [
        (&["backup", "--to", to][..], 64),
        (&["backup", "--database", "x", "--config", "y", "--to", to], 64),
        (&["backup", "--database", "missing.db", "--to", to], 1),
        (&["backup", "--config", "missing.toml", "--to", to], 3),
        (&["backup", "--database", "missing.db", "--to", "/nowhere/copy.db"], 1),
    ] {
        let ran = run(args);
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, ""), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a failure leaves nothing");
}

/// The configuration of a broker in `folder`, and the token of its agent.
fn configure(folder: &Path) -> (String, String) {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (vault, policies) = (folder.join("vault.json"), repository.join("policies"));
    fs::copy(repository.join("examples/travel/vault.json"), &vault).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
    let file = folder.join("valetkey.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = {policies:?}\n\
         [[source]]\nname = \"embedded\"\nkind = \"file\"\nfile = \"vault.json\"\n"
    );
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let ran = run(&["token", "create", "--config", &file, "--agent", "travel-bot", "--format", "json"]);
    let token: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    (file, token["token"].as_str().unwrap().to_owned())
}

const NAVAN: &str = "op://Tutorial/Navan/username";
