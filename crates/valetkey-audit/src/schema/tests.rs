use super::*;

fn fresh(path: &Path) -> Connection {
    create(path).unwrap();
    open_writer(path).unwrap()
}

#[test]
fn the_schema_is_the_golden_one() {
    let connection = in_memory();
    let mut objects = connection
        .prepare("SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")
        .unwrap();
    let objects: Vec<String> =
        objects.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let schema = format!(
        "-- The schema of a fresh database. Golden: UPDATE_GOLDEN=1 cargo test -p valetkey-audit schema\n\n{}\n",
        objects.join("\n\n")
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/schema.sql");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &schema).unwrap();
    }
    assert_eq!(schema, fs::read_to_string(&golden).unwrap(), "run again with UPDATE_GOLDEN=1 and review");
}

#[test]
fn what_cannot_be_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");

    assert!(matches!(check_place(&path), Err(OpenError::Absent(_))));
    assert!(matches!(check_place(&path.join("audit.db")), Err(OpenError::DirectoryAbsent(_))));
    assert!(matches!(open_writer(&path), Err(OpenError::Database { .. })));
    assert!(!path.exists(), "opening creates nothing");

    fs::write(&path, [b'x'; 8192]).unwrap();
    assert!(matches!(open_writer(&path), Err(OpenError::Foreign(_))));
    assert_eq!(fs::read(&path).unwrap(), [b'x'; 8192], "and it was left as it was");

    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (id)").unwrap();
    assert!(matches!(open_writer(&other), Err(OpenError::Foreign(_))));
    assert!(matches!(open_reader(&other), Err(OpenError::Foreign(_))));
}

#[test]
fn a_newer_database_is_refused_and_an_empty_one_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    fresh(&path).pragma_update(None, "user_version", 99).unwrap();
    for result in [open_writer(&path), open_reader(&path)] {
        assert!(matches!(result, Err(OpenError::Newer { has: 99, knows: 4, .. })));
    }
    let empty = directory.path().join("empty.db");
    create(&empty).unwrap();
    assert!(matches!(open_reader(&empty), Err(OpenError::Older(_))));
}

#[test]
fn the_files_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let connection = fresh(&path);
    for file in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let mode = fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(connection);
}

#[test]
fn commits_are_synchronous_and_the_log_is_not_checkpointed_by_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let connection = fresh(&directory.path().join("audit.db"));
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("synchronous"), "Integer(2)");
    assert_eq!(pragma("wal_autocheckpoint"), "Integer(0)");
    assert_eq!(pragma("trusted_schema"), "Integer(0)");
    assert_eq!(pragma("foreign_keys"), "Integer(1)");
}

/// One legal record, one outcome, and everything that must not be done to them.
#[test]
fn what_is_written_stays() {
    let connection = in_memory();
    connection
        .execute_batch(
            "INSERT INTO strings (id, text) VALUES (1, 'a'), (2, 'b');
             INSERT INTO records (seq, time_us, kind, ruling, reason, policies, revision)
                 VALUES (1, 1, 1, 1, 1, 1, 2);
             INSERT INTO records (seq, time_us, kind, ruling, reason) VALUES (2, 1, 1, 2, 2);
             INSERT INTO outcomes (seq, time_us, result) VALUES (1, 1, 1);
             UPDATE settled SET seq = 2;",
        )
        .unwrap();
    let record = "INTO records (seq, time_us, kind, ruling, reason";
    for (sql, refusal) in [
        ("UPDATE strings SET text = 'c' WHERE id = 1", "insert-only"),
        ("DELETE FROM strings", "insert-only"),
        ("REPLACE INTO strings (id, text) VALUES (1, 'c')", "insert-only"),
        ("REPLACE INTO strings (text) VALUES ('a')", "insert-only"),
        ("UPDATE records SET ruling = 2 WHERE seq = 1", "insert-only"),
        ("DELETE FROM records WHERE seq = 2", "insert-only"),
        ("UPDATE outcomes SET result = 2", "insert-only"),
        ("DELETE FROM outcomes", "insert-only"),
        ("REPLACE INTO outcomes (seq, time_us, result) VALUES (1, 1, 2)", "one outcome"),
        ("INSERT OR IGNORE INTO outcomes (seq, time_us, result) VALUES (2, 1, 1)", "only an allowed"),
        ("INSERT INTO outcomes (seq, time_us, result) VALUES (3, 1, 1)", "only an allowed"),
        ("UPDATE settled SET seq = 1", "forward"),
        (&format!("REPLACE {record}) VALUES (2, 1, 1, 2, 2)"), "without gaps"),
        (&format!("INSERT {record}) VALUES (4, 1, 1, 2, 2)"), "without gaps"),
        (&format!("INSERT {record}) VALUES (NULL, 1, 1, 2, 2)"), "without gaps"),
        (&format!("INSERT {record}) VALUES (3, 1, 1, 1, 1)"), "CHECK"),
        (&format!("INSERT {record}, policies, revision) VALUES (3, 1, 1, 1, 2, 1, 2)"), "CHECK"),
        (&format!("INSERT {record}, uses) VALUES (3, 1, 1, 2, 2, 1)"), "CHECK"),
        (&format!("INSERT {record}, item_id, item_name) VALUES (3, 1, 1, 2, 2, 1, 1)"), "CHECK"),
        (&format!("INSERT {record}, handle) VALUES (3, 1, 1, 2, 2, x'00')"), "CHECK"),
        (&format!("INSERT {record}) VALUES (3, 'now', 1, 2, 2)"), "cannot store TEXT"),
    ] {
        let error = connection.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(refusal), "{sql}: {error}");
    }
    connection.execute(&format!("INSERT {record}) VALUES (3, 1, 1, 2, 2)"), []).unwrap();
}

/// Adds a row to the schema that SQL itself would refuse.
fn hide(connection: &Connection, name: &str, sql: &str) {
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    connection.pragma_update(None, "writable_schema", true).unwrap();
    let row = "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('trigger', ?1, 'records', 0, ?2)";
    connection.execute(row, [name, sql]).unwrap();
    connection.pragma_update(None, "writable_schema", false).unwrap();
}

#[test]
fn a_writer_refuses_a_schema_that_is_not_its_own() {
    let check = |change: &dyn Fn(&Connection), expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.db");
        change(&fresh(&path));
        let Err(OpenError::Changed { object, path: _ }) = open_writer(&path) else { panic!("{expected}") };
        assert_eq!(object, expected);
    };
    let swallow = "CREATE TRIGGER sqlite_evil BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END";
    check(&|connection| hide(connection, "sqlite_evil", swallow), "trigger `sqlite_evil`");
    for (sql, expected) in [
        ("CREATE TRIGGER evil AFTER INSERT ON records BEGIN SELECT 1; END", "trigger `evil`"),
        ("DROP TRIGGER records_never_deleted", "trigger `records_never_deleted`"),
        ("CREATE INDEX mine ON records (kind)", "index `mine`"),
        ("ALTER TABLE settled ADD COLUMN mine INTEGER", "table `settled`"),
    ] {
        check(&|connection| connection.execute_batch(sql).unwrap(), expected);
    }
    // What SQLite makes by itself is no change.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    fresh(&path).execute_batch("ANALYZE").unwrap();
    open_writer(&path).unwrap();
}
