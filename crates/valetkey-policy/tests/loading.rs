//! What the loader refuses, where it says so, and what it takes.

use std::fs;

use valetkey_policy::{Bundle, LoadError};

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

fn load(policies: &str) -> Result<Bundle, LoadError> {
    Bundle::from_texts(SCHEMA, &[("a.cedar", policies)], "[]")
}

fn faults(result: Result<Bundle, LoadError>) -> Vec<String> {
    result.err().map_or_else(Vec::new, |error| error.faults().iter().map(ToString::to_string).collect())
}

/// A policy with these lines before its scope, on line 2.
fn annotated(lines: &str) -> String {
    format!("\n{lines}\npermit (principal, action == Action::\"acquire\", resource);")
}

#[test]
fn every_fault_of_a_policy() {
    let id = r#"@id("a")"#;
    let check = |text: String, expected: &str| {
        let found = faults(load(&text));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{text}\nexpected {expected}\nfound {found:#?}"
        );
    };
    // Syntax.
    check("permit (principal action, resource);".into(), "a.cedar:1:19: unexpected token `action`");
    // Annotations.
    check(annotated(r#"@reason("x")"#), "a.cedar:2:1: the policy has no `@id`");
    check(annotated(r#"@id("A b")"#), "a.cedar:2:1: `@id` must have 1 to 64 characters");
    check(annotated("@id"), "a.cedar:2:1: `@id` must have 1 to 64 characters");
    check(
        annotated(&format!(r#"{id} @max_tll("5s")"#)),
        "a.cedar:2:1: unknown annotation `@max_tll`: known are",
    );
    check(
        annotated(&format!(r#"{id} @max_ttl("0s")"#)),
        "a.cedar:2:1: `@max_ttl` must be from `1s` to `24h`",
    );
    check(annotated(&format!(r#"{id} @uses("0")"#)), "a.cedar:2:1: `@uses` must be from `1` to `1000`");
    check(
        annotated(&format!(r#"{id} @redeem_by("me")"#)),
        "a.cedar:2:1: `@redeem_by` must be `tool` or `agent`",
    );
    check(annotated(&format!(r#"{id} @bind("key")"#)), "a.cedar:2:1: `@bind` must be `certificate`");
    check(
        annotated(&format!(r#"{id} @approval("x")"#)),
        r#"a.cedar:2:1: `@approval("x")`: by entities.json, there is no `Group::"x"`, so nobody could approve"#,
    );
    check(
        annotated(&format!(r#"{id} @approval("two words")"#)),
        "a.cedar:2:1: `@approval` must name a group",
    );
    check(annotated(&format!("{id} @approval")), "a.cedar:2:1: `@approval` must name a group");
    let redeem = format!(r#"{id} @approval("x") permit (principal, action == Action::"redeem", resource);"#);
    check(redeem, "a.cedar:1:1: `@approval` has no effect on a policy that does not permit acquire");
    let operate =
        format!(r#"{id} @approval("x") permit (principal, action == Action::"operate", resource);"#);
    check(operate, "a.cedar:1:1: `@approval` has no effect on a policy that does not permit acquire");
    let forbid = format!(r#"{id} @approval("x") forbid (principal, action, resource);"#);
    check(forbid, "a.cedar:1:1: `@approval` on a forbid has no effect");
    check(
        annotated(&format!(r#"{id} @hosts("x")"#)),
        "a.cedar:2:1: `@hosts` is not supported by this version",
    );
    check(annotated(&format!(r#"{id} @advice("x")"#)), "a.cedar:2:1: `@advice` is for those who are refused");
    check(annotated(&format!(r#"{id} @reason("x\ny")"#)), "a.cedar:2:1: `@reason` must be one line");
    for obligation in
        [r#"@max_ttl("5s")"#, r#"@uses("2")"#, r#"@redeem_by("tool")"#, r#"@bind("certificate")"#]
    {
        let forbid = format!("{id} {obligation} forbid (principal, action, resource);");
        let word = obligation.split('(').next().unwrap();
        check(forbid, &format!("a.cedar:1:1: `{word}` on a forbid has no effect"));
        let admin =
            format!(r#"{id} {obligation} permit (principal, action == Action::"operate", resource);"#);
        check(admin, &format!("a.cedar:1:1: `{word}` has no effect on a policy that permits neither"));
    }
    // Templates.
    let template = format!("{id} permit (principal == ?principal, action, resource);");
    check(template, "a.cedar:1:1: templates are not supported");
    // The schema, strictly.
    let scope = |scope: &str| format!("{id}\npermit ({scope});");
    check(
        scope(r#"principal in Taem::"x", action, resource"#),
        "a.cedar:2:22: for policy `a`, unrecognized entity type `Taem`",
    );
    check(
        scope(r#"principal, action == Action::"aquire", resource"#),
        "a.cedar:2:30: for policy `a`, unrecognized action `Action::\"aquire\"` (did you mean `Action::\"acquire\"`",
    );
    check(
        format!(r#"{id} @max_ttl("5s") permit (principal, action == Action::"aquire", resource);"#),
        "a.cedar:1:54: for policy `a`, unrecognized action",
    );
    let when = |when: &str| {
        format!("{id}\npermit (principal, action == Action::\"acquire\", resource)\nwhen {{ {when} }};")
    };
    check(when("context.purpose == \"x\""), "a.cedar:3:8: for policy `a`, attribute `purpose`");
    check(when("context.destination == \"x\""), "a.cedar:3:8: for policy `a`, unable to guarantee safety");
    check(when("context.ttl == \"x\""), "a.cedar:3:8: the types Long and String are not compatible");
    // Names that could match nothing.
    check(
        scope(r#"principal, action, resource in Vault::"Tutorial""#),
        r#"a.cedar:2:40: `Vault::"Tutorial"` can match nothing"#,
    );
    check(
        scope(r#"principal, action == Action::"readAudit", resource == Vault::"v""#),
        r#"a.cedar:2:63: `resource == Vault::"v"` permits nothing: a vault goes by its id and by its name"#,
    );
    check(
        scope(r#"principal, action, resource in Item::"navan""#),
        r#"a.cedar:2:40: `Item::"navan"` can match nothing"#,
    );
    check(
        when(r#"resource in Item::"tutorial/Navan""#),
        r#"a.cedar:3:20: `Item::"tutorial/Navan"` can match nothing"#,
    );
    check(when(r#"resource.field == "Password""#), "a.cedar:1:1: `Password` can match nothing");
}

#[test]
fn every_fault_of_the_entities() {
    let check = |entities: &str, expected: &str| {
        let found = faults(Bundle::from_texts(SCHEMA, &[], entities));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{entities}\nexpected {expected}\nfound {found:#?}"
        );
    };
    let entity = |uid: &str, parent: &str| {
        let json = |text: &str| {
            let (kind, id) = text.split_once(' ').unwrap();
            format!(r#"{{"type": "{kind}", "id": "{id}"}}"#)
        };
        let parents = if parent.is_empty() { String::new() } else { json(parent) };
        format!(r#"{{"uid": {}, "attrs": {{}}, "parents": [{parents}]}}"#, json(uid))
    };
    check("", "entities.json:1:1: not a JSON array of entities");
    check("[\n  {]", "entities.json:2:4: not a JSON array of entities");
    check("{}", "entities.json:1:1: not a JSON array of entities");
    check("[\n  {}]", "entities.json:2:3: ");
    let misspelt = format!("[\n {},\n  {}]", entity("Agent a", "Team t"), entity("Agnt b", ""));
    check(&misspelt, "entities.json:3:3: ");
    check(&format!("[{}]", entity("Agent a", "Toolset t")), "entities.json:1:2: ");
    check(
        &format!("[{}]", entity("Vault Tutorial", "")),
        r#"entities.json:1:2: `Vault::"Tutorial"` can match nothing"#,
    );
    check(
        &format!("[{}]", entity("Item tutorial/navan", "Vault Tutorial")),
        r#"entities.json:1:2: `Vault::"Tutorial"`"#,
    );
    check(
        &format!("[{}]", entity("Lease vkl_1", "")),
        r#"entities.json:1:2: `Lease::"vkl_1"` is made from each request"#,
    );
    let twice = format!("[{}, {}]", entity("Agent a", "Team t"), entity("Agent a", "Team u"));
    check(&twice, "entities.json: duplicate entity entry");
}

#[test]
fn every_fault_of_the_schema() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(SCHEMA.contains(from), "{from}");
        let found = faults(Bundle::from_texts(&SCHEMA.replace(from, to), &[], "[]"));
        assert!(
            found.iter().any(|fault| fault.starts_with(expected)),
            "{to}\nexpected {expected}\nfound {found:#?}"
        );
    };
    check(
        "entity Team;",
        "entity Team",
        "schema.cedarschema:5:1: error parsing schema: unexpected token `entity`",
    );
    check("[Team]", "[Taem]", "schema.cedarschema:5:18: failed to resolve type");
    check("    ttl: Long,", "", "schema.cedarschema: the schema does not take `acquire` by `Agent`");
    check("    destination?: String,", "", "schema.cedarschema: the schema does not take `redeem` by `Tool`");
    check("    kind: String,", "", "schema.cedarschema: the schema does not take `acquire` by `Agent`");
    check("    holder?: Agent,", "", "schema.cedarschema: the schema does not take `revoke` by `Agent`");
    check(
        "action operate",
        "action run",
        "schema.cedarschema: the schema does not take `operate` by `Person`",
    );
    check(
        "principal: [Tool, Agent]",
        "principal: [Agent]",
        "schema.cedarschema: the schema does not take `redeem` by `Tool`",
    );
}

#[test]
fn all_faults_at_once_each_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("schema.cedarschema", SCHEMA);
    write(
        "a.cedar",
        "@id(\"one\")\npermit (principal in Taem::\"x\", action, resource);\n\npermit (principal, action, resource);\n",
    );
    write("b.cedar", "\n@id(\"one\")\nforbid (principal, action, resource);\n");
    write("c.cedar", "permit;");
    write("entities.json", "[{}, {}]");
    write("notes.txt", "left alone");
    let found = faults(Bundle::load(directory.path()));
    let name = |file: &str| directory.path().join(file).display().to_string();
    let expected = [
        format!("{}:2:22: for policy `one`, unrecognized entity type `Taem`", name("a.cedar")),
        format!("{}:4:1: the policy has no `@id`", name("a.cedar")),
        format!("{}:2:1: `@id` `one` is taken by the policy at {}:1:1", name("b.cedar"), name("a.cedar")),
        format!("{}:1:7: ", name("c.cedar")),
        format!("{}:1:2: ", name("entities.json")),
        format!("{}:1:6: ", name("entities.json")),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(&expected), "expected {expected}\nfound {found}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("big.cedar", &vec![b' '; (4 << 20) + 1]);
    write("latin.cedar", b"// caf\xe9");
    fs::create_dir(directory.path().join("sub.cedar")).unwrap();
    let found = faults(Bundle::load(directory.path())).join("\n");
    for expected in [
        "big.cedar: the file is over 4 MiB",
        "latin.cedar: the file is no UTF-8 text",
        "sub.cedar: the file cannot be read",
        "schema.cedarschema: the file cannot be read",
        "entities.json: the file cannot be read",
    ] {
        assert!(found.contains(expected), "{expected}\n{found}");
    }
    let missing = faults(Bundle::load(&directory.path().join("none")));
    assert!(missing.iter().any(|fault| fault.contains("the directory cannot be read")), "{missing:?}");

    for number in 0..=1_000 {
        write(&format!("{number}.cedar"), b"");
    }
    assert!(
        faults(Bundle::load(directory.path())).iter().any(|fault| fault.contains("more than 1000 files"))
    );
}

#[test]
#[cfg(unix)]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // A file that never ends stands for a pipe that never begins.
    for name in ["endless.cedar", "schema.cedarschema"] {
        std::os::unix::fs::symlink("/dev/zero", path(name)).unwrap();
    }
    fs::write(path("real"), "[]").unwrap();
    std::os::unix::fs::symlink(path("real"), path("entities.json")).unwrap();
    let found = faults(Bundle::load(directory.path()));
    let refused =
        |name: &str| format!("{}: the file cannot be read: it is no regular file", path(name).display());
    assert_eq!(found, [refused("endless.cedar"), refused("schema.cedarschema")]);
}

#[test]
fn too_many_policies() {
    let text: String =
        (0..=50_000).map(|n| format!("@id(\"p{n}\")permit(principal,action,resource);\n")).collect();
    let found = faults(load(&text));
    assert!(found.iter().any(|fault| fault.contains(":50001:1: more than 50000 policies")), "{found:?}");
}

#[test]
fn warnings_are_no_faults() {
    let bundle = load("@id(\"a\")\npermit (principal in Team::\"travle\", action, resource);").unwrap();
    let warnings: Vec<String> = bundle.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, [r#"a.cedar:2:22: by entities.json, nothing is in `Team::"travle"`"#]);
    let impossible = "@id(\"a\")\npermit (principal is Tool, action == Action::\"acquire\", resource);";
    let impossible = load(impossible).unwrap();
    assert!(
        impossible
            .warnings()
            .iter()
            .all(|fault| fault.to_string().starts_with("a.cedar:1:1: for policy `a`"))
    );
    assert!(!impossible.warnings().is_empty());
}

#[test]
fn the_digest_is_of_names_and_contents() {
    let one = r#"@id("a") permit (principal, action, resource);"#;
    let two = r#"@id("b") forbid (principal, action, resource);"#;
    let digest = |files: &[(&str, &str)]| Bundle::from_texts(SCHEMA, files, "[]").unwrap().digest_text();
    let both = digest(&[("a.cedar", one), ("b.cedar", two)]);
    assert_eq!(both.len(), 16);
    assert_eq!(both, digest(&[("b.cedar", two), ("a.cedar", one)]));
    assert_ne!(both, digest(&[("a.cedar", one), ("c.cedar", two)]));
    assert_ne!(both, digest(&[("a.cedar", one)]));
    assert_ne!(digest(&[]), Bundle::from_texts(SCHEMA, &[], "[ ]").unwrap().digest_text());
}
