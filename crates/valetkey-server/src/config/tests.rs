use super::*;
use crate::tls::CertificateSource;
use valetkey_core::Bearer;

use crate::identity::known::Proof;
use crate::token::{TOKEN_PREFIX, TokenDigest};

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
    assert_eq!(config.members[0].identity.to_string(), "agent:bot");
    assert_eq!(config.limits.ttl_usual, Duration::from_secs(60));
}

#[test]
fn how_the_log_is_signed_and_kept() {
    let text = minimal().replacen(
        "[audit]",
        "[audit]\nsigning_key = \"k/sign\"\ncheckpoint_seconds = 5\ncheckpoint_file = \"/far/away\"\nkeep_days = 2\nkeep_megabytes = 100",
        1,
    );
    let config = Config::parse(&text, Path::new("/etc/valetkey")).unwrap();
    assert_eq!(config.audit_signing.key.as_deref(), Some(Path::new("/etc/valetkey/k/sign")));
    assert_eq!(config.audit_signing.checkpoint_file.as_deref(), Some(Path::new("/far/away")));
    assert_eq!(config.audit_signing.checkpoint_every, Duration::from_secs(5));
    assert_eq!(config.audit_retention.keep_for, Some(Duration::from_secs(2 * 24 * 3600)));
    assert_eq!(config.audit_retention.keep_bytes, Some(100 << 20));
    let plain = Config::parse(&minimal(), Path::new("/")).unwrap();
    assert_eq!((plain.audit_signing.key, plain.audit_retention.keep_for), (None, None));
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
    check(
        "[audit]",
        "[audit]\ncheckpoint_seconds = 0",
        "`audit.checkpoint_seconds` must be between 1 and 3600",
    );
    check("[audit]", "[audit]\nkeep_days = 0", "`audit.keep_days` must be between 1");
    check("[audit]", "[audit]\nkeep_megabytes = 1", "`audit.keep_megabytes` must be between 16");
    check("[audit]", "[audit]\nsigning_key = \"audit.db\"", "`audit` names one file twice");
    check("database = ", "databse = ", "`audit`: unknown field `databse`");
    check("[audit]", "[metrics]\nlisten = \"0.0.0.0:9447\"\n[audit]", "`metrics.listen` must be a loopback");
    check(
        "[audit]",
        "[metrics]\nlisten = \"127.0.0.1:7447\"\n[audit]",
        "must be another address than `listen`",
    );
    check("[audit]", "[[audits]]", "`audits` is not a known key");
    check("agent = \"bot\"", "agent = \"b t\"", "`identity[0]` `b t` must consist of");
    check("agent = \"bot\"", "", "`identity[0]` must have exactly one of");
    check("agent = \"bot\"", "agent = \"bot\"\ntool = \"t\"", "`identity[0]` must have exactly one of");
    check("token = \"vkt_", "token = \"", "`identity[0]` `token` must be a digest");
    check("token = \"vkt_", "spiffe = \"vkt_", "`identity[0]` `spiffe` must begin with `spiffe://`");
    check(
        "agent = \"bot\"",
        "agent = \"bot\"\nuid = 1\nuser = \"root\"",
        "must not have both `uid` and `user`",
    );
    check(
        "agent = \"bot\"",
        "agent = \"bot\"\nuser = \"no such user\"",
        "`no such user` is not in /etc/passwd",
    );
    let rule = |pattern: &str, agent: &str| {
        format!("[[spiffe_rule]]\npattern = \"{pattern}\"\nagent = \"{agent}\"\n[[identity]]")
    };
    check(
        "[[identity]]",
        &rule("spiffe://d/{name}", "bot"),
        "`spiffe_rule[0]` `bot` must have `{name}` exactly once",
    );
    check(
        "[[identity]]",
        &rule("spiffe://d/x", "{name}"),
        "`spiffe_rule[0]` `pattern` must have `{name}` exactly once",
    );
    check("[[identity]]", &rule("spiffe://d/{name}", "{name} x"), "`{name} x` must consist of");
    check("[audit]", "[limits]\nttl_max_seconds = 0\n[audit]", "`limits.ttl_max_seconds` must be 1 to");
    check(
        "[audit]",
        "[limits]\nttl_usual_seconds = 999999\n[audit]",
        "`limits.ttl_usual_seconds` must be 1 to 900",
    );
    check("[audit]", "[audit", "line 2, column ");
    check("[audit]", "[audit", "unclosed table");
}

#[test]
fn the_events_api() {
    let parse = |section: &str| {
        let text = minimal().replacen("[audit]", &format!("{section}\n[audit]"), 1);
        Config::parse(&text, Path::new("/etc/valetkey"))
    };
    let tls = "[tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\nversions = [\"1.2\", \"1.3\"]\n";
    let events = "[events]\nlisten = \"127.0.0.1:8443\"\nhost = \"events.example.com:8443\"\nsigning_key = \"e.key\"\n";
    let whole = parse(&format!("{tls}{events}")).unwrap().events.unwrap();
    assert_eq!(whole.signing_key, Path::new("/etc/valetkey/e.key"));
    assert_eq!((whole.rate.per_minute_max, whole.rate.per_hour_max), (600, 30_000));
    let certificate = |tls: &TlsSettings| match &tls.source {
        CertificateSource::Files { certificate, .. } => certificate.clone(),
        CertificateSource::Workload(_) => PathBuf::new(),
    };
    assert_eq!(certificate(&whole.tls), Path::new("/etc/valetkey/a.pem"), "that of [tls]");
    assert!(whole.tls.tls12 && whole.tls.clients.is_none());
    let own = format!("{tls}{events}certificate = \"b.pem\"\nkey = \"b.key\"\n");
    assert_eq!(certificate(&parse(&own).unwrap().events.unwrap().tls), Path::new("/etc/valetkey/b.pem"));

    let check = |section: &str, fault: &str| {
        let faults = parse(section).err().unwrap_or_default();
        assert!(faults.iter().any(|it| it.contains(fault)), "{section}: {faults:?}");
    };
    check(events, "there is none in `[tls]`, and never plain HTTP");
    check(
        &format!("{events}certificate = \"b.pem\"\n"),
        "must have both `certificate` and `key`, or neither",
    );
    check(&format!("{tls}{events}requests_per_minute = 0\n"), "must allow at least 1");
    check(&format!("{tls}{}", events.replace("8443\"\nhost", "7447\"\nhost")), "must be another address");
    check(&format!("{tls}{events}signin_key = \"x\"\n"), "unknown field `signin_key`");
    for host in
        ["", "https://a.b", "a.b/c", "A.b", "a..b", "-a.b", "a.b:", "a.b:0", "a.b:08", "a.b:99999", "a b"]
    {
        check(
            &format!("{tls}{}", events.replace("events.example.com:8443", host)),
            "`events.host` must be what",
        );
    }
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
    check("name = \"try\"\nkind = \"connect\"\nhots = \"h\"", "`source[1].name` is the name of an entry");
    check("name = \"try\"\nkind = \"connect\"\nhots = \"h\"", "`source[1].vaults` is missing");
    check("name = \"try\"\nkind = \"connect\"\nhots = \"h\"", "unknown field `hots`");
    check("name = \"x\"\nkind = \"connect\"\nvaults = [\"\"]", "`source[1].vaults` has an empty name");
    check("name = \"x\"\nkind = \"connect\"\nvaults = [\"A\", \"a\"]", "`source[1].vaults` has `a` twice");
    let other = format!(
        "{sdk}library = \"/c.so\"\n[[source]]\nname = \"x\"\nkind = \"connect\"\nvaults = [\"B\", \"a\"]"
    );
    check(&other, "`source[2].vaults` has `a`, which is served twice: by `team` and by `x`");
    let file = "name = \"x\"\nkind = \"file\"\nfile = \"b.json\"\nvaults = [\"A\"]";
    check(file, "`source[1].vaults` is for other kinds");
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

#[test]
fn one_entry_may_be_known_by_several_things() {
    let text = minimal().replace("token =", "spiffe = \"spiffe://d/agent/bot\"\nuser = \"root\"\ntoken =");
    let listeners = "[unix]\npath = \"s\"\n[tls]\nworkload_api = \"unix:/a\"\ntrust_domain = \"d\"\n[audit]";
    let text = text.replacen("[audit]", listeners, 1);
    let config = Config::parse(&text, Path::new("/")).unwrap();
    assert_eq!(config.members.len(), 3);
    assert!(config.members.iter().all(|member| member.identity.to_string() == "agent:bot"));
    assert!(matches!(config.members[2].shows, Proof::User(0)));
    let text = minimal().lines().filter(|line| !line.starts_with("token")).collect::<Vec<_>>().join("\n");
    let faults = Config::parse(&text, Path::new("/")).err().unwrap_or_default();
    assert_eq!(faults, ["`identity[0]` must have at least one of `token`, `spiffe`, `uid` and `user`"]);
}

/// Each row: the sections that are added, and the fault, or none.
#[test]
fn tls_and_sockets() {
    let check = |sections: &str, fault: Option<&str>| {
        let text = minimal().replacen("[audit]", &format!("{sections}\n[audit]"), 1);
        let faults = Config::parse(&text, Path::new("/etc")).err().unwrap_or_default();
        match fault {
            None => assert_eq!(faults, [""; 0], "{sections}"),
            Some(fault) => assert!(faults.iter().any(|it| it.contains(fault)), "{sections}: {faults:?}"),
        }
    };
    let files = "[tls]\ncertificate = \"c\"\nkey = \"k\"";
    let api = "[tls]\nworkload_api = \"unix:/run/agent.sock\"\ntrust_domain = \"d\"";
    check(files, None);
    check(api, None);
    check(&format!("{files}\nclient_ca = \"ca\"\ntrust_domain = \"d\"\nversions = [\"1.2\", \"1.3\"]"), None);
    check(&format!("{files}\nclient_ca = \"ca\""), Some("must have a `trust_domain`"));
    check(&format!("{files}\ntrust_domain = \"d\""), Some("`trust_domain` has no effect"));
    check(&format!("{files}\nclient_certificates = \"required\""), Some("needs `client_ca`"));
    check(&format!("{files}\nclient_certificates = \"maybe\""), Some("`tls`: unknown variant `maybe`"));
    check(&format!("{files}\nclient_ca = \"ca\"\ntrust_domain = \"D\""), Some("`trust_domain` must have"));
    check(&format!("{files}\nversions = [\"1.2\"]"), Some("`versions` must be"));
    check(&format!("{files}\nversions = [\"1.1\"]"), Some("unknown variant `1.1`"));
    check("[tls]\ncertificate = \"c\"", Some("either `certificate` and `key`, or `workload_api`"));
    check(&format!("{api}\nkey = \"k\""), Some("either `certificate` and `key`, or `workload_api`"));
    check(&api.replace("unix:/run", "tcp://run"), Some("`workload_api` must be a socket"));
    check("[unix]\npath = \"s\"", None);
    check("[unix]\npath = \"s\"\nmode = \"0999\"", Some("`unix.mode`"));
    let entry = |proof: &str| format!("{files}\n[[identity]]\nagent = \"a\"\n{proof}");
    check(&entry("spiffe = \"spiffe://d/a\""), Some("`spiffe` needs `tls.client_ca`"));
    check(&entry("uid = 7"), Some("need `[unix]`"));
}

#[test]
fn beyond_loopback_there_is_tls_or_nothing() {
    let open = minimal().replace("127.0.0.1:7447", "0.0.0.0:7447");
    assert!(Config::parse(&open, Path::new("/")).is_err());
    let tls = open.replacen("[audit]", "[tls]\ncertificate = \"c\"\nkey = \"k\"\n[audit]", 1);
    assert!(Config::parse(&tls, Path::new("/")).unwrap().tls.is_some());
    let alone = minimal().replace("listen = \"127.0.0.1:7447\"", "[unix]\npath = \"s\"");
    let config = Config::parse(&alone, Path::new("/run")).unwrap();
    assert_eq!((config.listen, config.unix.unwrap().path), (None, "/run/s".into()));
}
