//! `audit find-value` from outside.

use std::io::Write;

use crate::support::{Dev, Ran, exit_of, run, valetkey};

/// With all of its stdin, and its end.
fn find_value(dev: &Dev, who: &str, args: &[&str], value: &str) -> Ran {
    let args: Vec<_> = ["audit", "find-value"].iter().chain(args).copied().collect();
    let mut command =
        valetkey(&args, &[("VALETKEY_TOKEN", dev.token(who)), ("VALETKEY_ADDRESS", dev.address())]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit: exit_of(output.status), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_leaked_value_leads_to_who_redeemed_it() {
    let dev = Dev::start(&["serve", "--dev"]);
    let password = "op://Tutorial/Navan/password";
    let mut lease = dev.acquire(dev.token("agent:travel-bot"), &["--tool", "navan.book_flight", password]);
    let handle = lease.handle(password);
    let redeemed = dev.run(dev.token("tool:navan.book_flight"), &["redeem"], &format!("{handle}\n"));
    assert_eq!(redeemed.exit, 0, "{}", redeemed.stderr);
    let value = redeemed.stdout;
    let ana = "person:ana";
    let found = find_value(&dev, ana, &[], &format!("{value}\n"));
    assert_eq!((found.exit, found.stderr.as_str()), (0, ""), "{}", found.stdout);
    for part in ["tool:navan.book_flight", "travel-bot", "tutorial", "navan", "navan-login-redeem"] {
        assert!(found.stdout.contains(part), "{part} is missing in: {}", found.stdout);
    }
    let json = find_value(&dev, ana, &["--format", "json"], &value).stdout;
    assert!(json.contains("\"value_digest\": \"") && !json.contains(&value), "{json}");
    for (args, text) in [(&["--exact"][..], format!("{value}\n")), (&[], "xyzzy".to_owned())] {
        let other = find_value(&dev, ana, args, &text);
        assert_eq!(other.exit, 0, "{}", other.stderr);
        assert!(other.stderr.contains("no handle for this value was redeemed"), "{}", other.stderr);
        assert!(!other.stderr.contains(&text), "{}", other.stderr);
    }
    assert_eq!(find_value(&dev, ana, &[], "\n").exit, 64);
    assert_eq!(find_value(&dev, ana, &[], &"x".repeat(64 * 1024 + 1)).exit, 64);
    let denied = find_value(&dev, "person:omar", &[], &value);
    assert_eq!((denied.exit, denied.stdout.as_str()), (2, ""), "{}", denied.stderr);
    assert!(!denied.stderr.contains(&value), "{}", denied.stderr);
    let shown =
        dev.run(dev.token(ana), &["audit", "query", "kind:policy_load", "--format", "json"], "").stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let revision = shown[0]["policy_revision"].as_str().unwrap();
    let database = dev.policies().with_file_name("audit.db");
    let show = |revision: &str| run(&["policy", "show", revision, "--database", database.to_str().unwrap()]);
    let policies = show(revision);
    assert!(
        policies.exit == 0 && policies.stdout.contains("@id(\"navan-login-redeem\")"),
        "{}",
        policies.stderr
    );
    assert_eq!(show("0123456789abcdef").exit, 1);
    let keys = [(); 2].map(|()| run(&["audit", "new-digest-key"]).stdout);
    assert!(keys.iter().all(|key| key.starts_with("vkd_") && key.len() == 62) && keys[0] != keys[1]);
}
