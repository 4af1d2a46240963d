use super::*;
use valetkey_core::Bearer;

use crate::token::TOKEN_PREFIX;

fn digest() -> String {
    TokenDigest::of(&Bearer::random(TOKEN_PREFIX)).to_string()
}

fn minimal() -> String {
    format!(
        "listen = \"127.0.0.1:7447\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = \"policies\"\n\
         [vault]\nfile = \"/vault.json\"\n[[identity]]\nagent = \"bot\"\ntoken = \"{}\"\n",
        digest()
    )
}

#[test]
fn a_minimal_configuration() {
    let config = Config::parse(&minimal(), Path::new("/etc/valetkey")).unwrap();
    assert_eq!(config.audit_database, Path::new("/etc/valetkey/audit.db"));
    assert_eq!(config.vault_file, Path::new("/vault.json"));
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
    check("[vault]", "[vaults]", "`vaults` is not a known key");
    check("agent = \"bot\"", "agent = \"b t\"", "`identity[0]` `b t` must consist of");
    check("agent = \"bot\"", "", "`identity[0]` must have exactly one of");
    check("agent = \"bot\"", "agent = \"bot\"\ntool = \"t\"", "`identity[0]` must have exactly one of");
    check("token = \"vkt_", "token = \"", "`identity[0]` `token` must be a digest");
    check("[vault]", "[limits]\nttl_max_seconds = 0\n[vault]", "`limits.ttl_max_seconds` must be 1 to");
    check(
        "[vault]",
        "[limits]\nttl_usual_seconds = 999999\n[vault]",
        "`limits.ttl_usual_seconds` must be 1 to 900",
    );
    check("[audit]", "[audit", "unclosed table");
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
