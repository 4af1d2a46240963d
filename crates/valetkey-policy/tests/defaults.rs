//! The policies in `policies/`: they load without a word, their tests pass, and who may do what is what
//! was reviewed.

use std::fs;
use std::path::PathBuf;

use valetkey_policy::{Bundle, Cast, check, matrix, run_tests};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

#[test]
fn they_load_without_a_warning() {
    let checked = check(&directory()).unwrap();
    assert_eq!(checked.warnings, []);
    assert!(checked.policy_count >= 12);
}

#[test]
fn what_is_built_in_is_what_is_there() {
    assert_eq!(Bundle::built_in().unwrap().digest_text(), check(&directory()).unwrap().digest);
}

#[test]
fn their_tests_pass() {
    let report = run_tests(&directory()).unwrap();
    let failures: Vec<_> = report.cases.iter().filter(|case| case.failure.is_some()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(report.passed() >= 15);
}

/// `UPDATE_GOLDEN=1 cargo test -p valetkey-policy` writes it anew.
#[test]
fn the_matrix_is_what_was_reviewed() {
    let cast = Cast::from_json(&fs::read_to_string(directory().join("matrix.json")).unwrap()).unwrap();
    let actual = matrix(&Bundle::load(&directory()).unwrap(), &cast).unwrap();
    let golden = directory().join("matrix.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|flag| flag == "1") {
        fs::write(&golden, &actual).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(actual == expected, "the matrix changed; with UPDATE_GOLDEN=1 it is written anew:\n{actual}");
}

/// What newcomers copy first.
#[test]
fn the_examples_of_the_readme_work() {
    let readme = fs::read_to_string(directory().join("README.md")).unwrap();
    let block = |language: &str| {
        let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let copy = tempfile::tempdir().unwrap();
    for name in ["schema.cedarschema", "entities.json"] {
        fs::copy(directory().join(name), copy.path().join(name)).unwrap();
    }
    fs::write(copy.path().join("example.cedar"), block("cedar")).unwrap();
    fs::create_dir(copy.path().join("tests")).unwrap();
    fs::write(copy.path().join("tests/card.json"), block("json")).unwrap();
    assert_eq!(check(copy.path()).unwrap().warnings, []);
    let report = run_tests(copy.path()).unwrap();
    assert_eq!((report.passed(), report.failed()), (1, 0), "{report:#?}");
}

#[test]
fn a_test_that_expects_something_else_fails() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
    {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let tests = copy.path().join("tests");
    assert!(run_tests(copy.path()).unwrap().is_empty());
    fs::create_dir(&tests).unwrap();
    assert!(run_tests(copy.path()).unwrap().is_empty());
    let failure = |change: (&str, &str)| {
        assert!(PASSING.contains(change.0));
        fs::write(tests.join("one.json"), PASSING.replace(change.0, change.1)).unwrap();
        run_tests(copy.path()).map(|report| report.cases.first().unwrap().failure.clone().unwrap_or_default())
    };
    assert_eq!(failure(("", "")).unwrap(), "");
    assert_eq!(
        failure(("\"allow\"", "\"deny\"")).unwrap(),
        "expected Deny, got Allow: by `reviewers-read-audit`"
    );
    assert_eq!(
        failure(("\"reviewers-read-audit\"", "\"other\"")).unwrap(),
        "policy `other` does not determine the decision"
    );
    assert_eq!(failure(("errors\": 0", "errors\": 1")).unwrap(), "expected 1 errors, got 0: ");
    assert!(
        failure(("Person::", "Tool::")).unwrap().contains("not valid for"),
        "{:?}",
        failure(("Person::", "Tool::"))
    );
    // Entities of a test stand in place of the directory's.
    let expelled = r#"[{"uid": {"type": "Person", "id": "ana"}, "attrs": {}, "parents": []}]"#;
    assert_eq!(failure(("[]", expelled)).unwrap(), "expected Allow, got Deny: no policy permits it");
    // A name that no request has, as in the directory's own entities.
    let shouted = r#"[{"uid": {"type": "Secret", "id": "s"}, "attrs": {"field": "f", "section": "", "kind": "value"},
        "parents": [{"type": "Vault", "id": "Tutorial"}, {"type": "Item", "id": "tutorial/Navan"}]}]"#;
    let found = failure(("[]", shouted)).unwrap();
    for name in [r#"`Vault::"Tutorial"` can match nothing"#, r#"`Item::"tutorial/Navan"` can match nothing"#]
    {
        assert!(found.contains(name), "{found}");
    }
    assert_eq!(
        failure((
            "[]",
            &shouted
                .to_lowercase()
                .replace("secret", "Secret")
                .replace("vault", "Vault")
                .replace("item", "Item")
        ))
        .unwrap(),
        ""
    );
    assert!(
        failure(("\"decision\"", "\"decison\"")).unwrap_err().to_string().contains("unknown field `decison`")
    );
}

const PASSING: &str = r#"[{
    "name": "reviewers read the log",
    "request": {
        "principal": "Person::\"ana\"",
        "action": "Action::\"readAudit\"",
        "resource": "AuditLog::\"audit-log\"",
        "context": {}
    },
    "entities": [],
    "decision": "allow",
    "reason": ["reviewers-read-audit"],
    "num_errors": 0
}]"#;
