//! `dev-ca` and `doctor`: from one command to a redeemed handle, as docs/identity-spiffe.md tells it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Dev, Ran, Running, run, run_with};

/// The folder that `dev-ca` made, and its broker on a free port.
struct TryOut {
    folder: PathBuf,
    dev: Dev,
    _home: tempfile::TempDir,
}

impl TryOut {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("try-out");
        let made = run(&["dev-ca", folder.to_str().unwrap()]);
        assert_eq!(made.exit, 0, "{}", made.stderr);
        assert!(made.stdout.contains("export VALETKEY_CERT="), "{}", made.stdout);
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let is_key = entry.path().extension().is_some_and(|it| it == "key");
            assert_eq!(mode, if is_key { 0o600 } else { 0o644 }, "{:?}", entry.path());
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::create_dir(folder.join("policies")).unwrap();
        for name in ["schema.cedarschema", "entities.json", "people.cedar", "travel.cedar"] {
            fs::copy(repository.join("policies").join(name), folder.join("policies").join(name)).unwrap();
        }
        let vault = folder.join("vault.json");
        fs::copy(repository.join("examples/travel/vault.json"), &vault).unwrap();
        fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
        let file = folder.join("valetkey.toml");
        let text = fs::read_to_string(&file).unwrap().replace("127.0.0.1:7447", "127.0.0.1:0");
        fs::write(&file, text).unwrap();
        let dev = Dev::start(&["serve", "--config", file.to_str().unwrap(), "--create-database"]);
        Self { folder, dev, _home: home }
    }

    /// What `dev-ca` says to set, to be one of the callers.
    fn env(&self, who: &str) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.folder.join(name).to_str().unwrap().to_owned();
        vec![
            ("VALETKEY_ADDRESS", self.dev.address().to_owned()),
            ("VALETKEY_CA", file("ca.pem")),
            ("VALETKEY_CERT", file(&format!("{who}.pem"))),
            ("VALETKEY_KEY", file(&format!("{who}.key"))),
        ]
    }

    fn run(&self, env: &[(&'static str, String)], args: &[&str], stdin: &str) -> Ran {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run_with(args, &env, stdin)
    }

    fn doctor(&self, env: &[(&'static str, String)]) -> Ran {
        self.run(env, &["doctor", "--connect", self.dev.address()], "")
    }
}

#[test]
fn from_one_command_to_a_redeemed_handle() {
    let try_out = TryOut::start();
    assert!(try_out.dev.address().starts_with("https://"));
    let agent = try_out.env("agent");
    let env: Vec<_> = agent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let password = "op://Tutorial/Navan/password";
    let acquire =
        ["acquire", "--format", "jsonl", "--purpose", "test", "--tool", "navan.book_flight", password];
    let mut lease = Running::start(&acquire, &env);
    lease.line();
    let handle = lease.handle(password);
    let redeemed = try_out.run(&try_out.env("tool"), &["redeem"], &format!("{handle}\n"));
    assert_eq!(redeemed.exit, 0, "{}", redeemed.stderr);
    assert!(!redeemed.stdout.is_empty());
    let log = try_out.run(&try_out.env("person"), &["audit", "query", "kind:redeem"], "");
    assert!(log.stdout.contains("tool:navan.book_flight"), "{}{}", log.stdout, log.stderr);
    assert_eq!(lease.interrupt().exit, 0);
}

/// Each row: who asks and with what, the step that fails, and what is said to do.
#[test]
fn the_doctor_names_the_step() {
    let try_out = TryOut::start();
    let other = try_out.folder.join("other");
    assert_eq!(run(&["dev-ca", other.to_str().unwrap()]).exit, 0);
    let good = try_out.env("agent");
    let ran = try_out.doctor(&good);
    assert_eq!(ran.exit, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("spiffe://valetkey.test/agent/travel-bot"), "{}", ran.stdout);
    assert!(ran.stdout.contains("the broker knows the caller"), "{}", ran.stdout);

    let with = |name: &str, value: &str| {
        let mut env = good.clone();
        env.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, it)| *it = value.to_owned());
        env
    };
    let without =
        |names: &[&str]| good.iter().filter(|(name, _)| !names.contains(name)).cloned().collect::<Vec<_>>();
    let file = |name: &str| other.join(name).to_str().unwrap().to_owned();
    let mut strange = with("VALETKEY_CERT", &file("agent.pem"));
    strange.retain(|(name, _)| *name != "VALETKEY_KEY");
    strange.push(("VALETKEY_KEY", file("agent.key")));
    let check =
        |what: &str, env: &[(&'static str, String)], address: Option<&str>, step: &str, says: &str| {
            let address = address.unwrap_or(try_out.dev.address());
            let ran = try_out.run(env, &["doctor", "--connect", address], "");
            assert_eq!(ran.exit, 1, "{what}: {}{}", ran.stdout, ran.stderr);
            let failed: Vec<_> = ran.stdout.lines().skip_while(|line| !line.starts_with("fail")).collect();
            assert!(
                failed.first().is_some_and(|line| line.starts_with(&format!("fail {step}"))),
                "{what}: {}",
                ran.stdout
            );
            assert!(failed.join(" ").contains(says), "{what}: {}", ran.stdout);
        };
    check("no address", &good, Some("broker.example.org"), "address", "is no address");
    check("no name", &good, Some("https://no-such-name.invalid:1"), "resolve", "check the name");
    let clear = try_out.dev.address().replace("https://", "http://");
    let unproven = without(&["VALETKEY_CERT", "VALETKEY_KEY"]);
    check("clear text", &unproven, Some(&clear), "identity", "use its `https://` address");
    check("nobody there", &good, Some("https://127.0.0.1:1"), "connect", "is the broker running");
    check(
        "no socket",
        &without(&["VALETKEY_CERT", "VALETKEY_KEY"]),
        Some("unix:/no/such.sock"),
        "connect",
        "no such file",
    );
    check("no authority", &without(&["VALETKEY_CA"]), None, "tls", "VALETKEY_CA");
    check(
        "another authority",
        &with("VALETKEY_CA", &file("ca.pem")),
        None,
        "tls",
        "we do not trust the broker",
    );
    check("another's key", &with("VALETKEY_KEY", &file("agent.key")), None, "certificate", "VALETKEY_KEY");
    check(
        "a broker's certificate",
        &try_out.env("broker"),
        None,
        "tls",
        "does not accept the client certificate",
    );
    check("of another authority", &strange, None, "tls", "does not accept the client certificate");
    check("no certificate", &without(&["VALETKEY_CERT", "VALETKEY_KEY"]), None, "tls", "requires");
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("mine"), "mine").unwrap();
    let ran = run(&["dev-ca", home.path().to_str().unwrap()]);
    assert_eq!(ran.exit, 64);
    assert!(ran.stderr.contains("is not empty"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}
