//! The program from outside: what it prints, how it exits, and what it never prints.
//!
//! Goldens are in `tests/golden`; `UPDATE_GOLDEN=1` writes them.

#![cfg(test)]

mod certificates;
mod evidence;
mod find_value;
mod incident;
mod mcp;
mod shell;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Dev, Running, assert_no_value, exit_of, golden, run, run_with, stable, valetkey};

#[test]
fn help_is_as_reviewed() {
    let commands = [
        "",
        "demo",
        "serve",
        "acquire",
        "redeem",
        "read",
        "inject",
        "run",
        "mcp",
        "check",
        "audit",
        "audit query",
        "audit show",
        "audit watch",
        "audit report",
        "audit refusals",
        "audit first-uses",
        "audit unused",
        "audit timeline",
        "audit item",
        "audit export",
        "audit verify",
        "audit prove",
        "audit checkpoint",
        "audit find-value",
        "audit new-digest-key",
        "policy",
        "policy check",
        "policy test",
        "policy show",
        "policy matrix",
        "token",
        "token create",
        "token list",
        "token revoke",
        "approval",
        "approval list",
        "approval approve",
        "approval reject",
        "backup",
        "dev-ca",
        "config",
        "config check",
        "doctor",
        "onepassword",
        "onepassword install",
    ];
    let mut all = String::new();
    for command in commands {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let ran = run(&args);
        assert_eq!(ran.exit, 0, "{command}");
        assert!(ran.stderr.is_empty(), "{command}: {}", ran.stderr);
        all.push_str(&format!("$ valetkey {}\n{}\n", args.join(" "), ran.stdout));
    }
    golden("help.txt", &all);
}

#[test]
fn exit_codes() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let file = empty.path().join("valetkey.toml");
    fs::write(&file, "listen = \"0.0.0.0:1\"\nnonsense = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, exit) in [
        (&["--version"][..], 0),
        (&[], 64),
        (&["nonsense"], 64),
        (&["acquire", "--tool", "t"], 64),
        (&["serve"], 64),
        (&["serve", "--dev", "--config", "x"], 64),
        (&["serve", "--dev", "--create-database"], 64),
        (&["serve", "--dev", "--listen", "0.0.0.0:0"], 64),
        (&["serve", "--config", file], 3),
        (&["config", "check", file], 3),
        (&["config", "check", "missing.toml"], 3),
        (&["policy", "check", folder], 3),
        (&["policy", "test", folder], 3),
        (&["policy", "matrix", folder], 3),
        (&["token", "create"], 64),
        (&["token", "create", "--agent", "a", "--tool", "b"], 64),
        (&["token", "create", "--agent", "a b"], 64),
        (&["token", "create", "--events", "--agent", "a"], 64),
        (&["token", "create", "--events", "--person", "a", "--features", "all"], 64),
        (&["token", "create", "--events", "--person", "a", "--config", "valetkey.toml"], 64),
        (&["token", "create", "--person", "a", "--features", "itemusages"], 64),
        // Nobody, and nobody there.
        (&["redeem", "vkh_x"], 64),
        (&["audit", "query", "--token-file", "missing"], 64),
        (&["audit", "verify"], 64),
        (&["audit", "verify", "--proof", "missing"], 64),
        (&["audit", "verify", "--database", "missing"], 64),
        (&["audit", "prove", "1", "--database", "missing"], 1),
    ] {
        let ran = run(args);
        assert_eq!(ran.exit, exit, "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout.is_empty(), exit != 0, "{args:?}: data belongs to stdout: {}", ran.stdout);
        assert_eq!(ran.stderr.is_empty(), exit == 0, "{args:?}: messages belong to stderr");
    }
    let nobody = [("VALETKEY_TOKEN", "vkt_x"), ("VALETKEY_ADDRESS", "http://127.0.0.1:1")];
    assert_eq!(run_with(&["redeem", "vkh_x"], &nobody, "").exit, 69);
    let far = [("VALETKEY_TOKEN", "vkt_x"), ("VALETKEY_ADDRESS", "http://192.0.2.1:1")];
    assert_eq!(run_with(&["redeem", "vkh_x"], &far, "").exit, 64);
}

#[test]
fn all_faults_of_a_configuration_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("valetkey.toml");
    fs::write(&file, "listen = \"0.0.0.0:1\"\nnonsense = 1\n").unwrap();
    let ran = run(&["config", "check", file.to_str().unwrap()]);
    for fault in ["nonsense", "loopback", "identity", "audit", "source", "policies"] {
        assert!(ran.stderr.contains(fault), "{fault} is missing in: {}", ran.stderr);
    }
}

#[test]
fn a_missing_database_is_made_only_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = configure(folder.path(), &repository().join("policies"));
    let checked = run(&["config", "check", &file]);
    assert_eq!(checked.exit, 0, "{}", checked.stderr);
    assert!(checked.stderr.starts_with("warning: there is no audit database"), "{}", checked.stderr);
    let refused = run(&["serve", "--config", &file]);
    assert_eq!(refused.exit, 3, "{}", refused.stderr);
    assert!(!folder.path().join("audit.db").exists());
    let dev = Dev::start(&["serve", "--config", &file, "--create-database"]);
    assert!(folder.path().join("audit.db").exists());
    assert_eq!(run(&["config", "check", &file]).stderr, "");
    assert_eq!(dev.stop().exit, 0);
}

#[test]
fn faults_of_a_vault_file_come_one_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = configure(folder.path(), &repository().join("policies"));
    let vault = folder.path().join("vault.json");
    fs::write(&vault, r#"{"vaults": 1, "items": 2}"#).unwrap();
    for args in [&["config", "check", &file][..], &["serve", "--config", &file, "--create-database"]] {
        let ran = run(args);
        assert_eq!((ran.exit, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
        let lines: Vec<_> = ran.stderr.lines().collect();
        let [head, vaults, items] = lines[..] else { panic!("{}", ran.stderr) };
        assert!(head.contains(vault.to_str().unwrap()) && head.ends_with("has faults:"), "{head}");
        assert!(vaults.starts_with("`vaults`") && items.starts_with("`items`"), "{}", ran.stderr);
    }
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o644)).unwrap();
    let open = run(&["config", "check", &file]);
    assert_eq!((open.exit, open.stderr.matches("vault file").count()), (3, 1), "{}", open.stderr);
}

#[test]
fn faults_of_policies_come_one_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = configure(folder.path(), folder.path());
    let ran = run(&["serve", "--config", &file, "--create-database"]);
    assert_eq!(ran.exit, 3);
    assert_eq!(ran.stderr.matches("fault").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.lines().count() > 1, "{}", ran.stderr);
}

#[test]
fn policies() {
    let directory = repository().join("policies");
    let directory = directory.to_str().unwrap();
    let checked = run(&["policy", "check", directory]);
    assert_eq!(checked.exit, 0, "{}", checked.stderr);
    let tested = run(&["policy", "test", directory]);
    assert_eq!(tested.exit, 0, "{}{}", tested.stdout, tested.stderr);
    assert!(tested.stdout.starts_with("RESULT  FILE"), "{}", tested.stdout);
    let matrix = run(&["policy", "matrix", directory]);
    assert_eq!(matrix.stdout, fs::read_to_string(repository().join("policies/matrix.txt")).unwrap());
}

#[test]
fn a_token_is_shown_once_and_its_digest_is_what_the_configuration_gets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("valetkey.toml");
    let create = ["token", "create", "--config", file.to_str().unwrap(), "--tool", "navan.book_flight"];
    let ran = run(&create);
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "a missing configuration is not begun");
    fs::write(&file, "listen = \"127.0.0.1:0\"\n").unwrap();
    let ran = run(&create);
    let token = ran.stdout.trim_end();
    assert!(token.starts_with("vkt_") && token.len() == 61, "{token}");
    let configuration = fs::read_to_string(&file).unwrap();
    assert!(configuration.contains("tool = \"navan.book_flight\"\ntoken = \"vkt_"), "{configuration}");
    assert!(configuration.contains("\nexpires = 2"), "{configuration}");
    let secret = token.get(21..).unwrap();
    assert!(!configuration.contains(secret) && !ran.stderr.contains(secret), "the token stands nowhere else");
    assert_eq!(run(&[&create[..], &["--ttl", "366d"]].concat()).exit, 64);
}

#[test]
fn tokens_are_made_and_revoked_through_the_broker() {
    let dev = Dev::start(&["serve", "--dev"]);
    let omar = dev.token("person:omar").to_owned();
    let made =
        dev.run(&omar, &["token", "create", "--agent", "travel-bot", "--ttl", "1d", "--format", "json"], "");
    assert_eq!(made.exit, 0, "{}", made.stderr);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let (token, id) = (made["token"].as_str().unwrap(), made["token_id"].as_str().unwrap());
    let check = ["check", "--tool", "navan.book_flight", "op://Tutorial/Navan/password"];
    assert_eq!(dev.run(token, &check, "").exit, 0);
    let listed = dev.run(&omar, &["token", "list", "--format", "csv"], "");
    assert!(listed.stdout.contains(&format!("{id},agent:travel-bot,active,")), "{}", listed.stdout);
    assert!(!listed.stdout.contains(&token[21..]));
    let revoked = dev.run(&omar, &["token", "revoke", id], "");
    assert_eq!((revoked.exit, revoked.stderr.contains("0 leases ended")), (0, true), "{}", revoked.stderr);
    assert_eq!(dev.run(token, &check, "").exit, 1);
    assert_eq!(dev.run(&omar, &["token", "revoke", id], "").exit, 1);
    assert_eq!(dev.run(dev.token("person:ana"), &["token", "list"], "").exit, 2);
}

#[test]
fn the_demo_tells_the_story_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run_with(&["demo"], &[("TMPDIR", folder.path().to_str().unwrap())], "");
    assert_eq!(ran.exit, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stderr, "");
    assert_no_value(&ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "a pipe gets no colour");
    for (place, _) in ran.stdout.match_indices("vkh_") {
        let rest = &ran.stdout[place + 20..];
        assert!(!rest.starts_with('_') || rest.starts_with("_••••"), "a handle is shown: {rest:.50}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the demo leaves something behind");
    let story = ran.stdout.split_inclusive("newest first\n").next().unwrap();
    golden("demo.txt", &stable(story));
}

#[test]
fn an_agent_acquires_and_a_tool_redeems() {
    let dev = Dev::start(&["serve", "--dev"]);
    let navan = dev.token("tool:navan.book_flight");
    let password = "op://Tutorial/Navan/password";
    let mut lease = dev.acquire(dev.token("agent:travel-bot"), &["--tool", "navan.book_flight", password]);
    let handle = lease.handle(password);

    let redeem = |token: &str| dev.run(token, &["redeem"], &format!("{handle}\nnot read\n"));
    let wrong = redeem(dev.token("tool:web.search"));
    assert_eq!((wrong.exit, wrong.stdout.as_str()), (1, ""));
    let redeemed = redeem(navan);
    assert_eq!((redeemed.exit, redeemed.stdout.as_str()), (0, "demo-navan-password-7f3a91"));
    let again = redeem(navan);
    assert_eq!((again.exit, again.stdout.as_str()), (1, ""));
    assert!(!again.stderr.contains(&handle) && !wrong.stderr.contains(&handle));

    let ended = lease.interrupt();
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let ana = dev.token("person:ana");
    let audit = dev.run(ana, &["audit", "query", "kind:redeem", "--format", "csv"], "");
    assert_eq!(audit.exit, 0, "{}", audit.stderr);
    for reason in ["HANDLE_REDEEMER", "HANDLE_SPENT", "POLICY_PERMIT"] {
        assert!(audit.stdout.contains(reason), "{reason} is missing in: {}", audit.stdout);
    }
    assert!(!audit.stdout.contains(&handle));
    let ends = dev.run(ana, &["audit", "query", "kind:lease_end"], "");
    assert!(ends.stdout.contains("(agent:travel-bot)"), "{}", ends.stdout);
    let stopped = dev.stop();
    assert_eq!(stopped.exit, 0, "{}", stopped.stderr);
    assert_no_value(&stopped.stderr);
    assert!(!stopped.stderr.contains(&handle), "the log shows a handle");
}

#[test]
fn what_policy_refuses_exits_2_and_says_what_to_do() {
    let dev = Dev::start(&["serve", "--dev"]);
    let agent = dev.token("agent:travel-bot");
    let card = "op://Tutorial/Travel Card/number";
    let acquire = ["acquire", "--tool", "web.search", "--purpose", "test", card];
    let denied = dev.run(agent, &acquire, "");
    assert_eq!((denied.exit, denied.stdout.as_str()), (2, ""));
    assert!(denied.stderr.contains("ask for it with tool navan.book_flight"), "{}", denied.stderr);
    let check = |tool: &str| dev.run(agent, &["check", "--tool", tool, card], "");
    assert_eq!(check("web.search").exit, 2);
    let allowed = check("navan.book_flight");
    assert_eq!(allowed.exit, 0, "{}", allowed.stderr);
    golden("check.txt", &stable(&allowed.stdout));
    let forbidden = dev.run(agent, &["audit", "query"], "");
    assert_eq!((forbidden.exit, forbidden.stdout.as_str()), (2, ""));
    let nobody = dev.run("vkt_nobody", &["audit", "query"], "");
    assert_eq!((nobody.exit, nobody.stdout.as_str()), (1, ""));

    let ana = dev.token("person:ana");
    let shown = dev.run(ana, &["audit", "show", "4"], "");
    golden("audit-show.txt", &stable(&shown.stdout));
    let listed = dev.run(ana, &["audit", "query", "-kind:read_audit", "--limit", "6"], "");
    golden("audit-query.txt", &stable(&listed.stdout));
    let words = ["audit", "query", "-kind:check", "decision:deny", "tool:web.search", "--format", "jsonl"];
    let found = dev.run(ana, &words, "");
    assert_eq!((found.exit, found.stdout.lines().count()), (0, 1), "{}{}", found.stdout, found.stderr);
    let missing = dev.run(ana, &["audit", "show", "4711"], "");
    assert_eq!((missing.exit, missing.stderr.as_str()), (1, "error: there is no record `4711`\n"));
    let wrong = dev.run(ana, &["audit", "query", "nonsense:x"], "");
    assert_eq!(wrong.exit, 1);
    assert!(wrong.stderr.contains("nonsense"), "{}", wrong.stderr);
}

#[test]
fn what_goes_on_is_shown_as_it_comes() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut watch = dev.spawn(dev.token("person:ana"), &["audit", "watch", "--after", "0", "kind:acquire"]);
    let (password, card) = ("op://Tutorial/Navan/password", "op://Tutorial/Travel Card/number");
    let acquire = ["acquire", "--tool", "navan.book_flight", "--purpose", "test", "--partial"];
    let references = [password, card, "op://Production/Database/password"];
    let mut lease = dev.spawn(dev.token("agent:travel-bot"), &[&acquire[..], &references].concat());
    let mut shown: Vec<_> = references.iter().filter_map(|_| lease.line()).collect();
    shown.sort();
    golden("acquire.txt", &stable(&shown.join("\n")));
    let heads = watch.line().unwrap();
    assert!(heads.starts_with("RECORD  TIME") && heads.ends_with("REFERENCE"), "{heads}");
    for reference in references {
        let line = watch.line().unwrap();
        assert!(line.contains("acquire") && line.contains(reference), "{line}");
    }
    assert_eq!(watch.interrupt().exit, 0);
    assert_eq!(lease.interrupt().exit, 0);
}

#[test]
fn a_changed_policy_revokes() {
    let dev = Dev::start(&["serve", "--dev"]);
    let card = "op://Tutorial/Travel Card/number";
    let mut lease = dev.acquire(dev.token("agent:travel-bot"), &["--tool", "navan.book_flight", card]);
    lease.handle(card);
    let lock = "@id(\"lock\") forbid (principal, action in Action::\"access\", resource);";
    fs::write(dev.policies().join("lock.cedar"), lock).unwrap();
    let events = lease.wait(Duration::from_secs(10));
    assert_eq!(events.exit, 2, "{}{}", events.stdout, events.stderr);
    assert!(events.stdout.contains("\"event\":\"revoked\""), "{}", events.stdout);
    assert!(events.stdout.contains("\"cause\":\"policy\""), "{}", events.stdout);
}

/// The watch of files does not see that a link points elsewhere: only the signal tells.
#[test]
fn hangup_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let (policies, next) = (folder.path().join("policies"), folder.path().join("next"));
    symlink(repository().join("policies"), &policies).unwrap();
    let (file, token) = configure(folder.path(), &policies);
    let dev = Dev::start(&["serve", "--config", &file, "--create-database"]);
    let password = "op://Tutorial/Navan/password";
    let mut lease = dev.acquire(&token, &["--tool", "navan.book_flight", password]);
    lease.handle(password);

    fs::create_dir(&next).unwrap();
    for name in ["schema.cedarschema", "entities.json", "people.cedar"] {
        fs::copy(repository().join("policies").join(name), next.join(name)).unwrap();
    }
    fs::remove_file(&policies).unwrap();
    symlink(&next, &policies).unwrap();
    dev.signal("HUP");
    let events = lease.wait(Duration::from_secs(10));
    assert_eq!(events.exit, 2, "{}{}", events.stdout, events.stderr);
}

#[test]
fn a_throw_away_broker_leaves_nothing() {
    let dev = Dev::start(&["serve", "--dev"]);
    let folder = dev.policies().parent().unwrap().to_owned();
    assert!(folder.exists());
    let lease = dev.acquire(
        dev.token("agent:travel-bot"),
        &["--tool", "navan.book_flight", "op://Tutorial/Navan/username"],
    );
    assert_eq!(dev.stop().exit, 0);
    assert!(!folder.exists());
    assert_eq!(lease.wait(Duration::from_secs(10)).exit, 69);
}

#[test]
fn operators_see_what_goes_on() {
    let dev = Dev::start(&["serve", "--dev"]);
    let omar = dev.run(dev.token("person:omar"), &["status"], "");
    assert_eq!(omar.exit, 0, "{}", omar.stderr);
    for word in ["leases    0, with 0 live handles", "log       written", "vault files alone"] {
        assert!(omar.stdout.contains(word), "{}", omar.stdout);
    }
    let json = dev.run(dev.token("person:omar"), &["status", "--format", "json"], "");
    let status: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(status["audit_available"], true);
    assert_eq!(dev.run(dev.token("person:ana"), &["status"], "").exit, 2, "a reviewer is no operator");
}

#[test]
fn metrics_are_served_where_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = configure(folder.path(), &repository().join("policies"));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}[metrics]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let mut broker = Running::start(&["serve", "--config", &file, "--create-database"], &[]);
    let mut line = || broker.line().unwrap();
    assert!(line().contains("listens on"));
    let line = line();
    let address = line.split("http://").nth(1).and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nvaletkey_leases 0\n"), "{answer}");
    assert!(ask("/").starts_with("HTTP/1.1 404"));
    assert_eq!(broker.interrupt().exit, 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_to_report() {
    let mut child = valetkey(&["policy", "matrix", repository().join("policies").to_str().unwrap()], &[]);
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(matches!(exit_of(output.status), 0 | 1));
}

/// A configuration with one agent, `travel-bot`: its file and the agent's token.
fn configure(folder: &Path, policies: &Path) -> (String, String) {
    let vault = folder.join("vault.json");
    fs::copy(repository().join("examples/travel/vault.json"), &vault).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = {policies:?}\n\
         [[source]]\nname = \"embedded\"\nkind = \"file\"\nfile = \"vault.json\"\n"
    );
    let file = folder.join("valetkey.toml");
    fs::write(&file, text).unwrap();
    let config = file.to_str().unwrap();
    (config.to_owned(), token(config, "--agent", "travel-bot"))
}

/// Makes one more identity, in the configuration.
fn token(config: &str, kind: &str, name: &str) -> String {
    let ran = run(&["token", "create", "--config", config, kind, name, "--format", "json"]);
    let token: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    token["token"].as_str().unwrap().to_owned()
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_doctor_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("valetkey.toml");
    let digest = "vkt_0123456789abcdef:".to_owned() + &"0".repeat(64);
    let write = |sources: &str| {
        let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");
        let text = format!(
            "listen = \"127.0.0.1:0\"\naudit.database = \"audit.db\"\npolicies.directory = \"{policies}\"\n{sources}\n\
             [[identity]]\nagent = \"a\"\ntoken = \"{digest}\"\n"
        );
        fs::write(&file, text).unwrap();
        run(&["doctor", "--config", file.to_str().unwrap()])
    };
    let vault = folder.path().join("vault.json");
    fs::write(&vault, "{\"vaults\": [], \"items\": []}").unwrap();
    let with_file = "[[source]]\nname = \"try\"\nkind = \"file\"\nfile = \"vault.json\"\n";
    let mode = |mode| fs::set_permissions(&vault, fs::Permissions::from_mode(mode)).unwrap();

    mode(0o600);
    let ran = write(with_file);
    assert_eq!(ran.exit, 0, "{}", ran.stdout);
    assert!(ran.stdout.contains("warn") && ran.stdout.contains("--create-database"), "{}", ran.stdout);
    mode(0o644);
    let ran = write(with_file);
    assert_eq!(ran.exit, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("fail  source try: vault file: "), "{}", ran.stdout);

    let token = folder.path().join("token");
    fs::write(&token, "ops_canary").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let ran = write(
        "[[source]]\nname = \"cli\"\nkind = \"op\"\nprogram = \"/bin/cat\"\nvaults = [\"V\"]\ntoken_file = \"token\"\n",
    );
    assert_eq!(ran.exit, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("fail  source cli: token: "), "{}", ran.stdout);
    assert!(!(ran.stdout + &ran.stderr).contains("canary"), "a part of the token is shown");
    assert_eq!(write("nonsense = 1").exit, 3);
}

/// Each row: what is broken, as what the doctor and `config check` say of it.
#[test]
fn what_a_broker_proves_and_believes_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    assert_eq!(run(&["dev-ca", made.to_str().unwrap()]).exit, 0);
    let file = made.join("valetkey.toml");
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");
    let plain = fs::read_to_string(&file).unwrap().replace("\"policies\"", &format!("\"{policies}\""));
    fs::write(made.join("vault.json"), "{\"vaults\": [], \"items\": []}").unwrap();
    fs::set_permissions(made.join("vault.json"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(made.join("web.json"), "<html>").unwrap();
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{}"}}]}}"#, "A".repeat(43));
    fs::write(made.join("keys.json"), jwks).unwrap();
    let issuer = |keys: &str| {
        format!(
            "{plain}\n[[issuer]]\nissuer = \"i\"\naudience = \"a\"\njwks_file = \"{keys}\"\n\
             rules = [{{ when = {{ sub = \"s\" }}, agent = \"bot\" }}]\n"
        )
    };
    let check = |command: &[&str], text: &str, exit: i32, says: &str| {
        fs::write(&file, text).unwrap();
        let args: Vec<_> = command.iter().copied().chain([file.to_str().unwrap()]).collect();
        let ran = run(&args);
        let said = ran.stdout + &ran.stderr;
        assert!(ran.exit == exit && said.contains(says), "{command:?} exits {}: {said}", ran.exit);
    };
    let (doctor, config) = (&["doctor", "--config"][..], &["config", "check"][..]);
    check(doctor, &issuer("keys.json"), 0, "issuers: 1 issuer");
    check(config, &issuer("keys.json"), 0, ", 1 issuer");
    check(doctor, &issuer("web.json"), 1, "it is not the JSON of a JWK set");
    check(config, &issuer("web.json"), 3, "it is not the JSON of a JWK set");
    check(doctor, &issuer("none.json"), 1, "the file cannot be read: No such file");
    check(config, &issuer("none.json"), 3, "the file cannot be read: No such file");
    check(doctor, &plain.replace("broker.key", "agent.key"), 1, "tls: the certificates cannot be used");
    check(doctor, &plain.replace("broker.pem", "none.pem"), 1, "cannot be read: No such file");
    let socket = format!("{plain}\n[unix]\npath = \"none/broker.sock\"\n");
    check(doctor, &socket, 1, "unix socket folder: ");
    fs::set_permissions(made.join("broker.key"), fs::Permissions::from_mode(0o644)).unwrap();
    check(doctor, &plain, 1, "is open to others");
}

#[test]
fn nothing_is_installed_that_is_not_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    let wheel = folder.path().join("fake.whl");
    let made = std::process::Command::new("python3")
        .args(["-c", FAKE_WHEEL])
        .arg(&wheel)
        .arg(valetkey_server::sdk_pins().iter().find(|pin| pin.is_for_this_platform()).unwrap().member)
        .status();
    assert!(made.expect("python3, which the command itself needs").success());
    let install =
        |args: &[&str]| run(&[&["onepassword", "install", "--to", to.to_str().unwrap()], args].concat());
    let check = |args: &[&str], fault: &str| {
        let ran = install(args);
        assert_eq!(ran.exit, 1, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(fault) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
        assert!(!to.exists(), "{args:?}: something was installed");
    };
    check(&["--offline-wheel", wheel.to_str().unwrap()], "nothing was installed");
    check(&["--offline-wheel", "/nonexistent.whl"], "is no wheel of onepassword-sdk");
    check(&["--version", "0.0.1"], "is not known for");
}

const FAKE_WHEEL: &str = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('x.data/purelib/' + sys.argv[2], 'no library')";
