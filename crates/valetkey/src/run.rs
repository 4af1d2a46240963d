//! `valetkey run`: a command with values in its environment and concealed in its output, as `op run` does it.
//!
//! The values are in the command's environment alone, and the lease ends with the command. Its signals and its exit code
//! pass through.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use valetkey_client::{LeaseEvent, SecretValue};
use zeroize::Zeroizing;

use crate::cli::shell::RunArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::shell::env_file;
use crate::shell::forms::Forms;
use crate::shell::mask::Masker;
use crate::shell::template::{self, Part};
use crate::shell::{Held, add, hold};

/// How the command ended, as a shell would say it.
pub(crate) struct Ended(u8);

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        ended.0.into()
    }
}

/// Runs it.
pub(crate) async fn run(args: RunArgs) -> Result<Ended, Failure> {
    let RunArgs { env_file, no_masking, handles, ask, command } = args;
    let variables = variables(&env_file)?;
    let mut references = Vec::new();
    for part in variables.values().flatten() {
        if let Part::Reference(reference) = part {
            add(&mut references, reference);
        }
    }
    let program = command.first().cloned().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
    let mut held = match references.is_empty() {
        true => None,
        false => Some(hold(&ask, &references, &format!("valetkey run {name}")).await?),
    };
    let mut values = BTreeMap::new();
    let mut environment = Vec::new();
    if let Some(held) = &held {
        if !handles {
            for reference in &references {
                values.insert(reference.as_str(), held.redeem(reference).await?);
            }
        }
        environment = filled(&variables, &values, held)?;
    } else {
        environment.extend(variables.iter().map(|(name, parts)| (name.clone(), plain(parts))));
    }
    let mut child = Command::new(&program);
    child.args(command.iter().skip(1)).envs(environment);
    // Who we are to the broker is not the command's business.
    NOT_FOR_THE_COMMAND.iter().for_each(|name| {
        child.env_remove(name);
    });
    let masked = !no_masking && !values.is_empty();
    let mut running = Running::start(child, masked.then_some(&values), handles, name)?;
    let status = running.wait(held.as_mut()).await;
    if let Some(held) = held {
        held.end().await;
    }
    running.drain().await;
    status.map(code)
}

/// The variables that the command gets and that have to be filled in: those of the files, and those of our own environment
/// that are a reference.
fn variables(env_files: &[std::path::PathBuf]) -> Result<BTreeMap<String, Vec<Part>>, Failure> {
    let mut variables = BTreeMap::new();
    for (name, value) in template::variables() {
        let reference = template::reference(&value, &template::environment)
            .map_err(|error| Failure::new(Exit::Usage, format!("the variable `{name}`: {error}")))?;
        if let Some(reference) = reference {
            variables.insert(name, vec![Part::Reference(reference)]);
        }
    }
    for file in env_files {
        variables.extend(env_file::read(file)?.into_iter().map(|entry| (entry.name, entry.parts)));
    }
    Ok(variables)
}

/// The variables with values, or handles where there are no values.
fn filled(
    variables: &BTreeMap<String, Vec<Part>>,
    values: &BTreeMap<&str, SecretValue>,
    held: &Held,
) -> Result<Vec<(String, OsString)>, Failure> {
    let mut environment = Vec::new();
    for (name, parts) in variables {
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::Reference(reference) => match values.get(reference.as_str()) {
                    Some(value) => bytes.extend_from_slice(value.expose_secret()),
                    None => {
                        bytes.extend_from_slice(held.issued(reference)?.handle.expose_secret().as_bytes())
                    }
                },
            }
        }
        if bytes.contains(&0) {
            let message =
                format!("the value for `{name}` has a zero byte, which no variable can have; use `read -o`");
            return Err(Failure::new(Exit::Failed, message));
        }
        environment.push((name.clone(), OsString::from_vec(bytes)));
    }
    Ok(environment)
}

fn plain(parts: &[Part]) -> OsString {
    let text = |part: &Part| match part {
        Part::Text(text) | Part::Reference(text) => text.clone(),
    };
    parts.iter().map(text).collect::<String>().into()
}

/// The command, what it prints and our signals to it.
struct Running {
    name: String,
    /// Whether it was given handles, which die while it runs.
    handles: bool,
    child: Child,
    pipes: Vec<JoinHandle<io::Result<()>>>,
    /// Dropped once the command has ended.
    alive: watch::Sender<()>,
    signals: Signals,
}

impl Running {
    fn start(
        mut command: Command,
        values: Option<&BTreeMap<&str, SecretValue>>,
        handles: bool,
        name: String,
    ) -> Result<Self, Failure> {
        // Before the start: what cannot be concealed is not begun.
        let masker = match values {
            None => None,
            Some(values) => {
                let forms = Forms::of(values.values().map(SecretValue::expose_secret));
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                Some(Masker::new(&forms)?)
            }
        };
        let signals = Signals::take()?;
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new(Exit::Failed, format!("`{name}` cannot be started: {error}")))?;
        let (alive, ended) = watch::channel(());
        let mut pipes = Vec::new();
        if let (Some(masker), Some(out), Some(err)) = (masker, child.stdout.take(), child.stderr.take()) {
            pipes.push(tokio::spawn(pass(out, masker.twin(), tokio::io::stdout(), ended.clone())));
            pipes.push(tokio::spawn(pass(err, masker, tokio::io::stderr(), ended)));
        }
        Ok(Self { name, handles, child, pipes, alive, signals })
    }

    /// Waits for its end, and passes on our signals to it.
    async fn wait(&mut self, mut held: Option<&mut Held>) -> Result<ExitStatus, Failure> {
        let Self { name, handles, child, pipes: _, alive: _, signals } = self;
        let mut told = false;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(status?),
                signal = signals.next() => {
                    let child = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                    if let Some(child) = child {
                        // A child that is gone needs no signal.
                        let _ = kill_process(child, signal);
                    }
                }
                event = next(&mut held) => match event {
                    Some(LeaseEvent::Revoked { reference, .. }) => output::note(&format!(
                        "{reference} was revoked while `{name}` runs; it keeps what it was given"
                    )),
                    Some(LeaseEvent::Renewed { .. }) if *handles && !told => {
                        told = true;
                        output::note(&format!(
                            "handles that `{name}` has are about to expire, and it gets no others; `--ttl` asks for longer ones"
                        ));
                    }
                    Some(_) => {}
                    None => {
                        held = None;
                        if *handles {
                            output::note(&format!("the lease has ended while `{name}` runs: its handles are dead"));
                        }
                    }
                },
            }
        }
    }

    /// Waits until all that it printed is passed on, or a signal says that nobody waits for the rest.
    async fn drain(self) {
        let Self { name, handles: _, child: _, pipes, alive, mut signals } = self;
        drop(alive);
        let passed = async {
            for pipe in pipes {
                if let Ok(Err(error)) = pipe.await
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    output::note(&format!("some of what `{name}` printed is lost: {error}"));
                }
            }
        };
        tokio::pin!(passed);
        // Now it is for us, wherever it comes from.
        signals.ours = true;
        tokio::select! {
            () = &mut passed => return,
            _ = signals.next() => {}
        }
        // It may be the very one that ended the command: what it printed last is worth a moment.
        let _ = timeout(OUTPUT_AFTER_END, passed).await;
    }
}

/// What happens to the lease; for ever quiet where there is none. `None` at its end.
async fn next(held: &mut Option<&mut Held>) -> Option<LeaseEvent> {
    match held {
        // A lease that is lost is one that has ended: the values are with the command already.
        Some(held) => held.lease().next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Passes on what a command prints, with values concealed. However long the reader of `to` takes, nothing is lost.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut masker: Masker,
    mut to: impl AsyncWrite + Unpin,
    mut ended: watch::Receiver<()>,
) -> io::Result<()> {
    let mut bytes = Zeroizing::new(vec![0; PIECE]);
    let mut out = Vec::new();
    loop {
        let count = tokio::select! {
            count = from.read(&mut bytes) => count?,
            () = quiet_after(&mut ended) => 0,
        };
        match bytes.get(..count) {
            Some(piece) if !piece.is_empty() => masker.take(piece, &mut out),
            _ => masker.finish(&mut out),
        }
        to.write_all(&out).await?;
        to.flush().await?;
        out.clear();
        if count == 0 {
            return Ok(());
        }
    }
}

/// Waits for the end of the command, and a moment longer: what it has left behind may hold the pipe open.
async fn quiet_after(ended: &mut watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
    sleep(OUTPUT_AFTER_END).await;
}

/// The signals that are passed on.
struct Signals {
    /// Whether they are for us: the command has ended.
    ours: bool,
    taken: Vec<(tokio::signal::unix::Signal, Signal)>,
}

impl Signals {
    fn take() -> io::Result<Self> {
        let kinds = [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ];
        let taken = kinds.into_iter().map(|(kind, number)| Ok((signal(kind)?, number)));
        Ok(Self { ours: false, taken: taken.collect::<io::Result<_>>()? })
    }

    /// The next one to be passed on. Cancel safe.
    async fn next(&mut self) -> Signal {
        let Self { ours, taken } = self;
        std::future::poll_fn(|context| {
            for (signal, number) in taken.iter_mut() {
                while signal.poll_recv(context).is_ready() {
                    let from_terminal = matches!(*number, Signal::INT | Signal::QUIT) && in_foreground();
                    if *ours || !from_terminal {
                        return std::task::Poll::Ready(*number);
                    }
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Whether the keys of a terminal go to us: then they go to the command as well, and it is not told twice.
fn in_foreground() -> bool {
    let group = std::fs::File::open("/dev/tty").and_then(|tty| Ok(tcgetpgrp(tty)?));
    group.is_ok_and(|group| group == getpgrp())
}

/// As a shell says it: a command that a signal has ended is 128 and the signal's number.
fn code(status: ExitStatus) -> Ended {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ended(u8::try_from(code).unwrap_or(1))
}

const NOT_FOR_THE_COMMAND: [&str; 6] = [
    "VALETKEY_TOKEN",
    "VALETKEY_TOKEN_FILE",
    "VALETKEY_TOOL_TOKEN",
    "VALETKEY_TOOL_TOKEN_FILE",
    "VALETKEY_CERT",
    "VALETKEY_KEY",
];
const PIECE: usize = 16 * 1024;
const OUTPUT_AFTER_END: std::time::Duration = std::time::Duration::from_secs(2);
