//! Brokers and clients in processes of their own: what can be killed, starved and weighed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use valetkey_core::Bearer;
use valetkey_server::{TOKEN_PREFIX, TokenDigest};

/// A process that says what it does, a line at a time. Killed when dropped.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// An identity of a configuration: `agent`, `tool` or `person`, its name, and its token.
pub type Member<'a> = (&'a str, &'a str, &'a str);

impl Process {
    /// Starts `program`, which is the path of this package's `stand-in`, in a role.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(program: &str, role: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start `{program}`"))?;
        let input = child.stdin.take().context("it has no input")?;
        let output = child.stdout.take().context("it has no output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    /// Starts a broker in `home`, with what the role takes beyond that. The process and its address.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn broker(program: &str, home: &Path, more: &[&str]) -> Result<(Self, String)> {
        let home = home.to_str().context("the path is not UTF-8")?;
        let mut process = Self::start(program, &[&["broker", home], more].concat())?;
        let address = process.hear("listening").await?;
        Ok((process, format!("http://{address}")))
    }

    /// Waits for the line that begins with `word`; the rest of it.
    ///
    /// # Errors
    /// Where the process ends, or says nothing of the kind for half a minute.
    pub async fn hear(&mut self, word: &str) -> Result<String> {
        let hear = async {
            while let Some(line) = self.output.next_line().await? {
                if let Some(rest) = line.strip_prefix(word) {
                    return Ok(rest.trim_start().to_owned());
                }
            }
            bail!("the process ended before it said `{word}`")
        };
        tokio::time::timeout(HEAR_MAX, hear).await.with_context(|| format!("nobody says `{word}`"))?
    }

    /// Tells it to do something.
    ///
    /// # Errors
    /// Where it is gone.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// Where it had ended already.
    pub async fn kill(mut self) -> Result<()> {
        self.child.start_kill()?;
        let status = self.child.wait().await?;
        if status.code().is_some() {
            bail!("the process had ended by itself: {status}");
        }
        Ok(())
    }

    /// Freezes it, as a machine does that is out of memory, or lets it go on.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(id.context("the process has ended")?, signal)?)
    }

    /// How long it has been computing, on all cores together; to 10 ms.
    ///
    /// # Errors
    /// Where the system does not say it.
    pub fn cpu_time(&self) -> Result<Duration> {
        let id = self.child.id().context("the process has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name before it, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("no stat")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
    }

    /// What it holds in memory, in bytes.
    ///
    /// # Errors
    /// Where the system does not say it.
    pub fn resident(&self) -> Result<u64> {
        let id = self.child.id().context("the process has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024)
    }
}

/// Writes the configuration of a broker whose files are all in `home`. `limits` are lines of that section.
///
/// # Errors
/// Where it cannot be written.
pub fn write_config<'a>(
    home: &Path,
    limits: &str,
    members: impl IntoIterator<Item = Member<'a>>,
) -> Result<()> {
    let mut text = format!(
        "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = \"policies\"\n\
         [[source]]\nname = \"embedded\"\nkind = \"file\"\nfile = \"vault.json\"\n[limits]\n{limits}\n"
    );
    for (kind, name, token) in members {
        let token = TokenDigest::of(&Bearer::parse(TOKEN_PREFIX, token)?);
        writeln!(text, "[[identity]]\n{kind} = \"{name}\"\ntoken = \"{token}\"")?;
    }
    Ok(std::fs::write(home.join(CONFIG_FILE), text)?)
}

/// The name of the configuration in a broker's home.
pub const CONFIG_FILE: &str = "valetkey.toml";
const HEAR_MAX: Duration = Duration::from_secs(30);
