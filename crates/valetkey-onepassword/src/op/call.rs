//! One run of the program: bounded in time, in output and in number, and gone when it is over.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use valetkey_core::ResolveError;
use zeroize::Zeroizing;

use super::home::Home;
use super::program::{self, OpProgramError};
use super::{OpOptions, failure};
use crate::token::{Hosts, ServiceAccountToken, TokenSource, masked};
use crate::upstream::UpstreamError;

/// Runs the program.
pub(super) struct Caller {
    program: PathBuf,
    token: TokenSource,
    hosts: Hosts,
    timeout: Duration,
    turns: Semaphore,
    /// Whether the last run could not connect. Then it is tried without a run, which may cost requests.
    is_unreachable: AtomicBool,
    home: Home,
}

impl Caller {
    pub(super) fn open(options: OpOptions) -> Result<Self, OpProgramError> {
        let OpOptions { program, token, allow_loopback, timeout, processes_max } = options;
        let program = program::checked(&program)?;
        let home = Home::new()
            .map_err(|source| OpProgramError::Inaccessible { path: std::env::temp_dir(), source })?;
        let hosts = Hosts::of(allow_loopback);
        let turns = Semaphore::new(processes_max.max(1));
        Ok(Self { program, token, hosts, timeout, turns, is_unreachable: AtomicBool::new(false), home })
    }

    /// What the program prints, or why it failed. Takes at most twice the timeout: to get a turn, and to run.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Zeroizing<Vec<u8>>, UpstreamError> {
        let turn = timeout(self.timeout, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| unsent("`op` is busy: no turn came in time"))?;
        // Read for each run: a new token is found without a restart.
        let token = self
            .token
            .read(self.hosts)
            .map_err(|error| UpstreamError::unsent(ResolveError::CredentialsRefused, &error.to_string()))?;
        if self.is_unreachable.load(Ordering::Relaxed) {
            let knocked = token.knock().await;
            knocked.map_err(|error| unsent(&format!("1Password cannot be reached: {error}")))?;
        }
        let mut run =
            self.start(arguments, &token).map_err(|error| unsent(&format!("cannot start `op`: {error}")))?;
        let ended = timeout(self.timeout, run.output()).await;
        if !matches!(ended, Ok(Ok(_))) {
            run.end().await;
        }
        let is_unreachable = matches!(&ended, Ok(Ok(output)) if says(output, "dial tcp"));
        self.is_unreachable.store(is_unreachable, Ordering::Relaxed);
        match ended {
            Ok(Ok(output)) if output.status.success() => Ok(output.stdout),
            Ok(Ok(output)) => Err(failed(&output, &token)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(UpstreamError::unusable(&error.to_string()))
            }
            Ok(Err(error)) => Err(unavailable(&format!("`op` was ended: {error}"))),
            Err(_) => Err(unavailable(&format!(
                "`op` did not answer within {} ms, and was ended",
                self.timeout.as_millis()
            ))),
        }
    }

    fn start(&self, arguments: &[&str], token: &ServiceAccountToken) -> io::Result<Run> {
        let home = &self.home.path()?;
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            // Nothing is inherited: the variables of a Connect server or of a session would win over the token.
            .env_clear()
            .env("OP_SERVICE_ACCOUNT_TOKEN", token.expose_secret())
            // Its cache is a process that outlives it and answers with what was once true.
            .env("OP_CACHE", "false")
            .env("OP_BIOMETRIC_UNLOCK_ENABLED", "false")
            .env("OP_CONFIG_DIR", home)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true);
        Ok(Run(command.spawn()?))
    }
}

/// Whether a run failed with such words.
fn says(output: &Output, words: &str) -> bool {
    !output.status.success() && output.stderr.windows(words.len()).any(|part| part == words.as_bytes())
}

fn failed(output: &Output, token: &ServiceAccountToken) -> UpstreamError {
    let text = Zeroizing::new(String::from_utf8_lossy(&output.stderr).into_owned());
    let text = masked(&text, token.expose_secret().as_bytes());
    match output.status.code() {
        Some(_) => failure::from_text(&text),
        None => unavailable("`op` was ended from outside"),
    }
}

/// A run that is not over. Dropping it ends it, and all it started.
struct Run(Child);

struct Output {
    status: ExitStatus,
    stdout: Zeroizing<Vec<u8>>,
    stderr: Zeroizing<Vec<u8>>,
}

impl Run {
    /// All it prints, to its end.
    async fn output(&mut self) -> io::Result<Output> {
        let stdout = self.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stderr = self.0.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (stdout, stderr) = tokio::try_join!(read(stdout, STDOUT_MAX), read(stderr, STDERR_MAX))?;
        Ok(Output { status: self.0.wait().await?, stdout, stderr })
    }

    /// Ends it and waits until it is gone, so that it leaves no entry in the table of processes.
    async fn end(&mut self) {
        self.kill();
        // Where the system takes longer, the runtime waits for it behind our back.
        let _ = timeout(REAP_MAX, self.0.wait()).await;
    }

    fn kill(&self) {
        // There is an id only as long as nobody has waited for the end: until then it is nobody else's.
        let group = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            // The group may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads to the end, into memory that is wiped.
async fn read(mut pipe: impl AsyncRead + Unpin, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
    loop {
        // A vector that grows by itself leaves copies behind.
        if bytes.len() == bytes.capacity() {
            let mut wider = Zeroizing::new(Vec::with_capacity(bytes.capacity().saturating_mul(2)));
            wider.extend_from_slice(&bytes);
            bytes = wider;
        }
        if pipe.read_buf(&mut *bytes).await? == 0 {
            return Ok(bytes);
        }
        if bytes.len() > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("`op` printed more than {max} bytes"),
            ));
        }
    }
}

fn unsent(detail: &str) -> UpstreamError {
    UpstreamError::unsent(ResolveError::Unavailable, detail)
}

fn unavailable(detail: &str) -> UpstreamError {
    UpstreamError::new(ResolveError::Unavailable, detail)
}

const STDOUT_MAX: usize = 8 << 20;
const STDERR_MAX: usize = 64 << 10;
/// Enough for most answers.
const ROOM: usize = 64 << 10;
const REAP_MAX: Duration = Duration::from_secs(1);
