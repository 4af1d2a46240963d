//! `valetkey audit verify`, `prove` and `checkpoint`: is the log what was signed?

use std::io::{IsTerminal, Read};
use std::path::Path;

use serde_json::{Value, json};
use valetkey_audit::{
    Against, AuditReader, Finding, LogFile, Proof, ProofError, Proven, ProvenRecord, Signing, Verdict,
    VerifierKey, check_proof,
};
use valetkey_client::CallError;
use valetkey_core::{AuditScope, RecordId};

use crate::cli::{AuditCheckpointArgs, AuditProveArgs, AuditVerifyArgs, OneFormat};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, GOOD};

/// Verifies a database, an export or a proof. What cannot be verified at all has another exit code than what is not
/// whole.
pub(super) fn verify(args: AuditVerifyArgs) -> Result<Exit, Failure> {
    let AuditVerifyArgs { file, key, checkpoints, format } = args;
    if let Some(proof) = file.proof {
        return verify_proof(&proof, &known_key(key.as_deref(), None)?, format);
    }
    let key = known_key(key.as_deref(), file.database.as_deref())?;
    let against = Against { key, checkpoints };
    let (log, path) = match (&file.database, &file.export) {
        (Some(database), _) => (LogFile::Database(database), database),
        (None, Some(export)) => (LogFile::Export(export), export),
        (None, None) => return Err(Failure::new(Exit::Usage, "name a database, an export or a proof")),
    };
    let mut progress = Progress { shown: std::io::stderr().is_terminal(), any: false };
    let verdict = valetkey_audit::verify(log, &against, &mut |done, of| progress.tell(done, of));
    progress.end();
    let verdict = verdict.map_err(|error| Failure::chain(Exit::Usage, &error))?;
    match format {
        OneFormat::Table => print(path, &verdict)?,
        OneFormat::Json => output::line(&format!("{:#}", json_of(&verdict)))?,
    }
    Ok(if verdict.is_whole() && !verdict.is_unproven() { Exit::Done } else { Exit::Failed })
}

/// Checks a proof, and prints the record that it proves.
fn verify_proof(path: &Path, key: &VerifierKey, format: OneFormat) -> Result<Exit, Failure> {
    let text = read(path)?;
    let proven = check_proof(&text, key);
    let ProvenRecord { line, checkpoint } = proven.map_err(|error| {
        let exit = if error == ProofError::Malformed { Exit::Usage } else { Exit::Failed };
        Failure::new(exit, format!("`{}` proves nothing: {error}", path.display()))
    })?;
    match format {
        OneFormat::Table => {
            let record: Value =
                serde_json::from_str(&line).map_err(|error| Failure::new(Exit::Failed, error))?;
            output::note(&format!(
                "{GOOD}proven{GOOD:#} by the checkpoint over {} records of {}",
                checkpoint.size, checkpoint.origin
            ));
            output::line(&format!("{record:#}"))?;
        }
        OneFormat::Json => output::line(&line)?,
    }
    Ok(Exit::Done)
}

/// Prints the proof of a record.
pub(super) async fn prove(args: AuditProveArgs) -> Result<Exit, Failure> {
    let AuditProveArgs { record_id, database, connection } = args;
    let failed = |why: &str| Failure::new(Exit::Failed, format!("{why} `{record_id}`"));
    let changed = || {
        let why = format!("record `{record_id}` is not what was signed, and cannot be proved");
        Failure::new(Exit::Failed, format!("{why}: run `valetkey audit verify`"))
    };
    let (none, not_signed) = ("there is no record", "no checkpoint covers the record yet:");
    let text = match database {
        Some(database) => {
            let chain = |error: &dyn std::error::Error| Failure::chain(Exit::Failed, error);
            let id = record_id.parse().map(RecordId).map_err(|_| failed(none))?;
            let reader = AuditReader::open(&database).map_err(|error| chain(&error))?;
            match reader.prove(&AuditScope::Whole, id).await.map_err(|error| chain(&error))? {
                Proof::NoRecord => return Err(failed(none)),
                Proof::NotSigned => return Err(failed(not_signed)),
                Proof::Changed => return Err(changed()),
                Proof::Text(text) => text,
            }
        }
        None => {
            let proof = connect(&connection).await?.audit_proof(&record_id).await;
            proof.map_err(|error: CallError| match error.reason() {
                "RECORD_NOT_FOUND" => failed(none),
                "RECORD_NOT_SIGNED" => failed(not_signed),
                "RECORD_CHANGED" => changed(),
                _ => error.into(),
            })?
        }
    };
    output::text(&text)?;
    Ok(Exit::Done)
}

/// Prints the newest checkpoint, or the key.
pub(super) async fn checkpoint(args: AuditCheckpointArgs) -> Result<Exit, Failure> {
    let AuditCheckpointArgs { public_key, connection } = args;
    let newest = connect(&connection).await?.audit_checkpoint().await?;
    match public_key {
        true => output::line(&newest.verifier_key)?,
        // With a blank line after it, so that it can be appended to a file of them.
        false => output::line(&newest.checkpoint)?,
    }
    Ok(Exit::Done)
}

/// The key that was named, or the one beside the database.
fn known_key(key: Option<&str>, database: Option<&Path>) -> Result<VerifierKey, Failure> {
    if let Some(key) = key.and_then(|key| VerifierKey::parse(key).ok()) {
        return Ok(key);
    }
    let file = match (key, database) {
        (Some(file), _) => file.into(),
        (None, Some(database)) => {
            let file = Signing::default().public_key_place(database);
            output::note(&format!(
                "note: the key is `{}`: whoever could change the log could change it too; `--key` names your own copy",
                file.display()
            ));
            file
        }
        (None, None) => {
            return Err(Failure::new(
                Exit::Usage,
                "`--key` must name the log's public key, or a file with it",
            ));
        }
    };
    let text = read(&file)?;
    let none = |error| Failure::new(Exit::Usage, format!("`{}` {error}", file.display()));
    VerifierKey::parse(&text).map_err(none)
}

/// A small file.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::new(Exit::Usage, format!("cannot read `{}`: {error}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn print(path: &Path, verdict: &Verdict) -> Result<(), Failure> {
    let Verdict { first, last, proven, checkpoints, checkpoints_passed_over, beyond, findings, more } =
        verdict;
    let path = path.display();
    match verdict.is_whole() {
        true if verdict.is_unproven() => output::line(&format!(
            "{BAD}not proven{BAD:#}  {path}: no checkpoint covers these records, {first} to {last}"
        ))?,
        true => output::line(&format!("{GOOD}whole{GOOD:#}  {path}: records {first} to {last}"))?,
        false => output::line(&format!("{BAD}NOT WHOLE{BAD:#}  {path}"))?,
    }
    for finding in findings {
        output::line(&format!("  {}", output::inline(&finding.text)))?;
    }
    if *more {
        output::line("  and more")?;
    }
    if let Some(Proven { size, time, place }) = proven {
        let of = time.map(|time| format!(" of {time}")).unwrap_or_default();
        output::line(&format!("proven up to record {size} by the checkpoint{of} in `{}`", place.display()))?;
    }
    if let Some(known) = beyond {
        output::line(&format!("the checkpoints know of {known} records; the export ends at {last}"))?;
    }
    match verdict.unsigned() {
        unsigned if unsigned > 0 && verdict.is_whole() => {
            let records = output::count(usize::try_from(unsigned).unwrap_or(usize::MAX), "record", "records");
            output::line(&format!("{records} at the end: proven by no checkpoint"))?;
        }
        _ => {}
    }
    let good =
        output::count(usize::try_from(*checkpoints).unwrap_or(usize::MAX), "checkpoint", "checkpoints");
    let passed_over = match checkpoints_passed_over {
        0 => String::new(),
        count => format!(", {count} passed over because their records are retired"),
    };
    output::line(&format!("{good} good{passed_over}"))?;
    Ok(())
}

fn json_of(verdict: &Verdict) -> Value {
    let Verdict { first, last, proven, checkpoints, checkpoints_passed_over, beyond, findings, more } =
        verdict;
    let finding = |Finding { kind, records, text }: &Finding| {
        json!({
            "kind": kind.as_str(),
            "first_record": records.map(|(first, _)| first),
            "last_record": records.map(|(_, last)| last),
            "text": text,
        })
    };
    json!({
        "whole": verdict.is_whole(),
        "proven": !verdict.is_unproven(),
        "first_record": first,
        "last_record": last,
        "proven_record": proven.as_ref().map(|proven| proven.size),
        "proven_time": proven.as_ref().and_then(|proven| proven.time).map(|time| time.to_string()),
        "unsigned": verdict.unsigned(),
        "checkpoints": checkpoints,
        "checkpoints_passed_over": checkpoints_passed_over,
        "checkpoints_know": beyond,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "more": more,
    })
}

/// How far it has come, for a person who waits.
struct Progress {
    shown: bool,
    any: bool,
}

impl Progress {
    fn tell(&mut self, done: u64, of: u64) {
        if self.shown && done > 0 && done.is_multiple_of(PROGRESS_STEP) {
            self.any = true;
            let of = if of > 0 { format!(" of {of}") } else { String::new() };
            output::progress(&format!("{done}{of} records"));
        }
    }

    fn end(&self) {
        if self.any {
            output::progress("");
        }
    }
}

const PROGRESS_STEP: u64 = 25_600;
const FILE_BYTES_MAX: u64 = 1 << 20;
