use super::*;
use valetkey_core::Bearer;

use crate::token::TOKEN_PREFIX;

fn digest() -> String {
    TokenDigest::of(&Bearer::random(TOKEN_PREFIX)).to_string()
}

fn minimal() -> String {
    format!(
        "listen = \"127.0.0.1:7447\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = \"policies\"\n\
         [[source]]\nname = \"try\"\nkind = \"file\"\nfile = \"vault.json\"\n[[identity]]\nagent = \"bot\"\ntoken = \"{}\"\n",
        digest()
    )
}

#[test]
fn a_minimal_configuration() {
    let config = Config::parse(&minimal(), Path::new("/etc/valetkey")).unwrap();
    assert_eq!(config.audit_database, Path::new("/etc/valetkey/audit.db"));
    let file = |kind: &SourceKind| match kind {
        SourceKind::File { file, open_to_others } => Some((file.clone(), *open_to_others)),
        _ => None,
    };
    assert_eq!(file(&config.sources[0].kind), Some(("/etc/valetkey/vault.json".into(), false)));
    assert!(!config.audit_create);
    assert_eq!(config.identities[0].1.to_string(), "agent:bot");
    assert_eq!(config.limits.ttl_usual, Duration::from_secs(60));
}

/// Each row: what is put in place of what, and what the fault says.
#[test]
fn faults_are_named() {
    let check = |from: &str, to: &str, fault: &str| {
        let text = minimal().replacen(from, to, 1);
        let faults = Config::parse(&text, Path::new("/")).err().unwrap_or_default();
        assert!(faults.iter().any(|it| it.contains(fault)), "{to}: {faults:?}");
    };
    check("listen = \"127.0.0.1:7447\"", "", "`listen` is missing");
    check("127.0.0.1:7447", "0.0.0.0:7447", "needs TLS");
    check("127.0.0.1:7447", "localhost", "`listen`: invalid socket address");
    check("database = ", "databse = ", "`audit`: unknown field `databse`");
    check("[audit]", "[metrics]\nlisten = \"0.0.0.0:9447\"\n[audit]", "`metrics.listen` must be a loopback");
    check("[audit]", "[[audits]]", "`audits` is not a known key");
    check("agent = \"bot\"", "agent = \"b t\"", "`identity[0]` `b t` must consist of");
    check("agent = \"bot\"", "", "`identity[0]` must have exactly one of");
    check("agent = \"bot\"", "agent = \"bot\"\ntool = \"t\"", "`identity[0]` must have exactly one of");
    check("token = \"vkt_", "token = \"", "`identity[0]` `token` must be a digest");
    check("[audit]", "[limits]\nttl_max_seconds = 0\n[audit]", "`limits.ttl_max_seconds` must be 1 to");
    check(
        "[audit]",
        "[limits]\nttl_usual_seconds = 999999\n[audit]",
        "`limits.ttl_usual_seconds` must be 1 to 900",
    );
    check("[audit]", "[audit", "unclosed table");
}

#[test]
fn faults_of_sources_are_named() {
    let check = |entry: &str, fault: &str| {
        let text = format!("{}[[source]]\n{entry}\n", minimal());
        let faults = Config::parse(&text, Path::new("/")).err().unwrap_or_default();
        assert!(faults.iter().any(|it| it.contains(fault)), "{entry}: {faults:?}");
    };
    let sdk = "name = \"team\"\nkind = \"sdk\"\nvaults = [\"A\"]\n";
    check("name = \"try\"\nkind = \"file\"\nfile = \"b.json\"", "`source[1].name` is the name of an entry");
    check("name = \"a b\"\nkind = \"file\"\nfile = \"b.json\"", "`source[1].name` `a b` must consist of");
    check("kind = \"file\"\nfile = \"b.json\"", "`source[1]`: missing field `name`");
    check("name = \"x\"\nkind = \"keychain\"", "unknown variant `keychain`");
    check("name = \"x\"\nfile = \"b.json\"", "missing field `kind`");
    check("name = \"x\"\nkind = \"connect\"", "`source[1].vaults` is missing");
    check(
        &format!("{sdk}library = \"core.so\""),
        "`source[1].library` must be an absolute path, is `core.so`",
    );
    check(&format!("{sdk}library = \"/core.so\"\ntoken = \"ops_\""), "unknown field `token`");
    check(&format!("{sdk}library = \"/core.so\"\nvalue_cache_seconds = 61"), "must be 0 to 60, is 61");
    check(&format!("{sdk}library = \"/core.so\"\nrequests_per_hour = 0"), "must be 1 to 1000000, is 0");
}

/// What `[limits]` makes of it, or the faults.
fn limits(entries: &str) -> Result<Limits, Vec<String>> {
    let text = format!("{}[limits]\n{entries}\n", minimal());
    Config::parse(&text, Path::new("/")).map(|config| config.limits)
}

#[test]
fn shares_follow_the_connections() {
    let places = |entries: &str| {
        let PlaceLimits { connections_max, unknown_max, unknown_per_address_max } =
            limits(entries).unwrap().places;
        (connections_max, unknown_max, unknown_per_address_max)
    };
    assert_eq!(places(""), (1_024, 512, 256));
    assert_eq!(places("connections_max = 100"), (100, 50, 25));
    assert_eq!(places("connections_max = 1"), (1, 1, 1));
    assert_eq!(places("unknown_connections_max = 7\nunknown_connections_per_address_max = 3"), (1_024, 7, 3));
}

#[test]
fn limits_have_limits() {
    for (key, value) in [
        ("handles_per_agent_max", 0),
        ("requests_per_second", 0),
        ("requests_burst", 0),
        ("connections_per_identity_max", 0),
        ("message_bytes_per_identity_max", 1_048_576),
        ("unknown_connections_max", 1_025),
        ("unknown_connections_per_address_max", 0),
        ("refusals_written_max", 0),
        ("refusals_written_per_source_max", 10_000_001),
    ] {
        let faults = limits(&format!("{key} = {value}")).err().unwrap_or_default();
        let [fault] = &faults[..] else { panic!("{key}: {faults:?}") };
        assert!(fault.starts_with(&format!("`limits.{key}` must be ")), "{fault}");
    }
}

#[test]
fn all_faults_come_at_once() {
    let text = "listen = \"0.0.0.0:1\"\nunknown = 1\n[audit]\n[[identity]]\nagent = \"\"\ntoken = \"x\"\n";
    let faults = Config::parse(text, Path::new("/")).err().unwrap_or_default();
    assert_eq!(faults.len(), 6, "{faults:#?}");
}

#[test]
fn one_token_is_one_identity() {
    let twice = digest();
    let text = format!(
        "{}[[identity]]\ntool = \"t\"\ntoken = \"{twice}\"\n[[identity]]\ntool = \"u\"\ntoken = \"{twice}\"\n",
        minimal()
    );
    let faults = Config::parse(&text, Path::new("/")).err().unwrap_or_default();
    assert_eq!(faults, ["`identity[2].token` is the token of an entry before it"]);
}
