//! `valetkey audit export`: the log as a file, from a broker or straight from a database.

mod file;
mod join;

use std::time::{Duration, Instant};

use valetkey_audit::{AuditReader, Export, ExportFormat, Filter, OpenError, Part};
use valetkey_client::{AuditExport, Broker, ExportAuditRecordsResponse};
use valetkey_core::{AuditScope, RecordId};

use self::file::{Begin, ExportFile, Place};
use self::join::Join;
use crate::cli::{self, ExportArgs};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::Interrupts;

/// Runs it.
pub(crate) async fn run(args: ExportArgs) -> Result<Exit, Failure> {
    let ExportArgs { filter, format, to, resume, database, connection } = args;
    let (format, filter) = (ExportFormat::from(format), filter.text());
    let begin = match &to {
        Some(path) => Some(Begin::look(path, resume, format)?),
        None => None,
    };
    let place = begin.as_ref().map_or_else(Place::default, Begin::place);
    let origin = match &database {
        Some(path) => Origin::Database(AuditReader::open(path).map_err(unusable)?),
        None => Origin::Broker(Box::new(connect(&connection).await?)),
    };
    let mut join = Join::new(begin.as_ref().and_then(Begin::last_line), format);
    let mut source = origin.export(&filter, format, join.begin(place)).await?;
    let mut out = Out { begin, file: None };
    let copied = copy(&mut source, &mut out, (&origin, &mut join), format).await;
    output::progress("");
    // What came is whole lines, and worth keeping.
    out.finish()?;
    let hint = if to.is_some() { "; `--resume` goes on with the file" } else { "" };
    let Copied { lines, seen, last, proof } = copied.map_err(|Failure { exit, message }| {
        Failure::new(exit, format!("{message}{}", if message.is_empty() { "" } else { hint }))
    })?;
    if seen < last {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("the export broke off after record {seen} of {last}{hint}"),
        ));
    }
    if let Some(path) = to {
        // What has a gap is not proven as one.
        if let Some(proof) = proof.filter(|_| !join.has_gap()) {
            file::write_proof(&path, &proof)?;
        }
        let count = output::count(lines, "record", "records");
        output::note(&format!("{}: {count} added, up to record {}", path.display(), last.max(seen)));
    }
    Ok(Exit::Done)
}

/// How far an export came.
#[derive(Default)]
struct Copied {
    /// Records that were written.
    lines: usize,
    seen: RecordId,
    last: RecordId,
    proof: Option<String>,
}

async fn copy(
    source: &mut Source,
    out: &mut Out,
    (origin, join): (&Origin, &mut Join),
    format: ExportFormat,
) -> Result<Copied, Failure> {
    let mut interrupts = Interrupts::take()?;
    let mut copied = Copied::default();
    let mut shown: Option<Instant> = None;
    loop {
        let part = tokio::select! {
            part = source.next() => part?,
            () = interrupts.next() => return Err(Failure::new(Exit::Failed, "interrupted")),
        };
        let Some(Part { lines, seen, last, proof }) = part else { return Ok(copied) };
        // Nothing is written before it is known to be of the same log.
        (copied.seen, copied.last) = (seen, last);
        let Some(lines) = join.check(origin, lines, seen >= last, last).await? else { continue };
        let written = lines.lines().count() - usize::from(Some(&lines) == format.header().as_ref());
        out.write(lines.as_bytes())?;
        copied = Copied { lines: copied.lines + written, seen, last, proof };
        if shown.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
            shown = Some(Instant::now());
            output::progress(&format!("{seen} of {last} records looked at, {} written", copied.lines));
        }
    }
}

/// Where the records are.
enum Origin {
    Broker(Box<Broker>),
    Database(AuditReader),
}

/// Where the records come from, one part after the other.
enum Source {
    Broker(Box<AuditExport>),
    Database(Box<Export>),
}

impl Origin {
    async fn export(
        &self,
        filter: &str,
        format: ExportFormat,
        Place { first, after }: Place,
    ) -> Result<Source, Failure> {
        match self {
            Self::Broker(broker) => {
                let format = match format {
                    ExportFormat::Jsonl => valetkey_client::ExportFormat::Jsonl,
                    ExportFormat::Csv => valetkey_client::ExportFormat::Csv,
                    ExportFormat::Ocsf => valetkey_client::ExportFormat::Ocsf,
                };
                let id = |record: Option<RecordId>| record.map(|it| it.to_string()).unwrap_or_default();
                let export = broker.export_audit_records(filter, format, &id(after), &id(first)).await?;
                Ok(Source::Broker(Box::new(export)))
            }
            Self::Database(reader) => {
                let filter = Filter::parse(filter)
                    .map_err(|error| Failure::new(Exit::Failed, format!("`filter` {error}")))?;
                let export = Export::begin(reader.clone(), filter, format, after, first).await;
                let export = export.map_err(|error| Failure::chain(Exit::Failed, &error))?;
                Ok(Source::Database(Box::new(export)))
            }
        }
    }
}

impl Source {
    /// The next part. Cancel safe, as far as nothing goes on after that.
    async fn next(&mut self) -> Result<Option<Part>, Failure> {
        match self {
            Self::Broker(export) => Ok(export.next().await?.map(read).transpose()?),
            // Whoever has the file may read it: no policy stands between.
            Self::Database(export) => export
                .part(&AuditScope::Whole, RecordId(u64::MAX))
                .await
                .map_err(|error| Failure::chain(Exit::Failed, &error)),
        }
    }
}

/// What a broker sent; the file is gone on with by its lines, so they are looked at.
fn read(message: ExportAuditRecordsResponse) -> Result<Part, Failure> {
    let ExportAuditRecordsResponse { lines, seen_record_id, last_record_id, proof } = message;
    let wrong = || Failure::new(Exit::Failed, "the broker answered with something else than lines");
    let lines = String::from_utf8(lines).map_err(|_| wrong())?;
    if !lines.is_empty() && !lines.ends_with('\n') {
        return Err(wrong());
    }
    let record = |id: &str| id.parse().map(RecordId).map_err(|_| wrong());
    let proof = (!proof.is_empty()).then_some(proof);
    Ok(Part { lines, seen: record(&seen_record_id)?, last: record(&last_record_id)?, proof })
}

/// Where they go: a file, made when the first part is there, or stdout.
struct Out {
    begin: Option<Begin>,
    file: Option<ExportFile>,
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(begin) = self.begin.take() {
            self.file = Some(begin.open()?);
        }
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Ok(output::bytes(bytes)?),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        self.file.map_or(Ok(()), ExportFile::finish)
    }
}

/// Why a database cannot be read.
pub(crate) fn unusable(error: OpenError) -> Failure {
    Failure::chain(Exit::Failed, &error)
}

impl From<cli::ExportFormat> for ExportFormat {
    fn from(format: cli::ExportFormat) -> Self {
        match format {
            cli::ExportFormat::Jsonl => Self::Jsonl,
            cli::ExportFormat::Csv => Self::Csv,
            cli::ExportFormat::Ocsf => Self::Ocsf,
        }
    }
}

const SHOW_EVERY: Duration = Duration::from_millis(200);
