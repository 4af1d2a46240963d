//! Running the program, and comparing what it prints.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What a run left.
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A broker in a process of its own. Dropping it kills it.
pub(crate) struct Dev {
    running: Running,
    address: String,
    policies: PathBuf,
    tokens: HashMap<String, String>,
    /// What a killed broker leaves goes with this.
    _home: tempfile::TempDir,
}

/// A process whose output is read as it comes. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    seen: String,
    /// Read on a thread of its own: a log that nobody reads would stop the process.
    stderr: Option<JoinHandle<String>>,
}

/// The command, in an environment without settings of ours or the machine's.
pub(crate) fn valetkey(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_valetkey"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in [
        "ADDRESS",
        "TOKEN",
        "TOKEN_FILE",
        "TOOL",
        "TOOL_TOKEN",
        "TOOL_TOKEN_FILE",
        "PURPOSE",
        "CA",
        "CERT",
        "KEY",
        "LOG",
    ] {
        command.env_remove(format!("VALETKEY_{name}"));
    }
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.envs(env.iter().copied());
    command
}

pub(crate) fn run(args: &[&str]) -> Ran {
    run_with(args, &[], "")
}

pub(crate) fn run_with(args: &[&str], env: &[(&str, &str)], stdin: &str) -> Ran {
    let mut command = valetkey(args, env);
    let mut running = Running::spawn(command.stdin(Stdio::piped()));
    // Stays open to the end: no command may wait for the end of its input.
    let mut pipe = running.child.stdin.take().unwrap();
    // A command that does not read it may be gone already.
    let _ = pipe.write_all(stdin.as_bytes());
    let ran = running.wait(RUN_MAX);
    drop(pipe);
    ran
}

pub(crate) fn exit_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

impl Running {
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(&mut valetkey(args, env))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, stdout, seen: String::new(), stderr: Some(stderr) }
    }

    /// The next line; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.seen.push_str(&line);
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    /// The handle of a reference, from the lines of `acquire --format jsonl`.
    pub(crate) fn handle(&mut self, reference: &str) -> String {
        loop {
            let Some(line) = self.line() else {
                panic!("no handle came: {}", self.stderr.take().unwrap().join().unwrap());
            };
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "issued" && event["reference"] == reference {
                return event["handle"].as_str().unwrap().to_owned();
            }
        }
    }

    pub(crate) fn interrupt(self) -> Ran {
        self.signal("INT");
        self.wait(Duration::from_secs(10))
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for the end by itself, and not for ever. The output is read meanwhile: a pipe that is full
    /// would stop the process.
    pub(crate) fn wait(mut self, limit: Duration) -> Ran {
        let (done, ended) = mpsc::channel();
        let id = self.child.id().to_string();
        let watch = std::thread::spawn(move || {
            let late = ended.recv_timeout(limit).is_err();
            late && Command::new("kill").args(["-s", "KILL", &id]).status().is_ok()
        });
        while self.line().is_some() {}
        let status = self.child.wait().unwrap();
        // Gone, where it came too late.
        let _ = done.send(());
        assert!(!watch.join().unwrap(), "the process does not end: {}", self.seen);
        let stderr = self.stderr.take().unwrap().join().unwrap();
        Ran { exit: exit_of(status), stdout: std::mem::take(&mut self.seen), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, where the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    /// Starts a broker and waits until it has said all that it says.
    pub(crate) fn start(args: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let env = [("VALETKEY_LOG", "debug"), ("TMPDIR", home.path().to_str().unwrap())];
        let mut running = Running::start(args, &env);
        let (mut address, mut policies, mut tokens) = (String::new(), PathBuf::new(), HashMap::new());
        let mut who = String::new();
        // A configured broker says one line, a throw-away one ends with the token of its last identity.
        while let Some(line) = running.line() {
            if let Some(there) = line.strip_prefix("valetkey listens on ") {
                address = there.to_owned();
                break;
            } else if let Some(there) = line.strip_prefix("export VALETKEY_ADDRESS=") {
                address = there.to_owned();
            } else if let Some(there) = line.strip_prefix("# policies: ") {
                policies = there.into();
            } else if let Some(token) = line.strip_prefix("export VALETKEY_TOKEN=") {
                tokens.insert(who.clone(), token.to_owned());
                if who == "person:omar" {
                    break;
                }
            } else if let Some(name) = line.strip_prefix("# ") {
                who = name.to_owned();
            }
        }
        assert!(!address.is_empty(), "no broker: {}", running.wait(Duration::from_secs(5)).stderr);
        Self { running, address, policies, tokens, _home: home }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn token(&self, who: &str) -> &str {
        &self.tokens[who]
    }

    pub(crate) fn policies(&self) -> &Path {
        &self.policies
    }

    pub(crate) fn run(&self, token: &str, args: &[&str], stdin: &str) -> Ran {
        run_with(args, &[("VALETKEY_ADDRESS", &self.address), ("VALETKEY_TOKEN", token)], stdin)
    }

    /// Starts a command that goes on.
    pub(crate) fn spawn(&self, token: &str, args: &[&str]) -> Running {
        Running::start(args, &[("VALETKEY_ADDRESS", &self.address), ("VALETKEY_TOKEN", token)])
    }

    /// Holds a lease.
    pub(crate) fn acquire(&self, token: &str, args: &[&str]) -> Running {
        let all = [&["acquire", "--format", "jsonl", "--purpose", "test"], args].concat();
        let mut lease = self.spawn(token, &all);
        let opened = lease.line().unwrap_or_default();
        assert!(opened.contains("\"event\":\"opened\""), "{opened}");
        lease
    }

    pub(crate) fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    pub(crate) fn stop(self) -> Ran {
        self.running.signal("TERM");
        self.running.wait(Duration::from_secs(20))
    }
}

/// No value of the embedded vault stands in `text`.
pub(crate) fn assert_no_value(text: &str) {
    let vault: serde_json::Value =
        serde_json::from_str(include_str!("../../../../examples/travel/vault.json")).unwrap();
    let mut values = 0;
    for item in vault["items"].as_array().unwrap() {
        for field in item["fields"].as_array().unwrap() {
            let value = field["value"].as_str().unwrap();
            assert!(!text.contains(value), "the value of {} is shown", field["label"]);
            values += 1;
        }
    }
    assert!(values > 10, "the vault has lost its values");
}

/// What changes from run to run becomes `#`: ids, times, ports, numbers of records.
pub(crate) fn stable(text: &str) -> String {
    text.lines().map(|line| stable_line(line) + "\n").collect()
}

fn stable_line(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(stable_word).collect();
    // A record's number stands behind its name, or first in a line of a table.
    let mut before = "record";
    for word in line.split(' ').zip(&mut words) {
        let (word, stable) = word;
        let digits = word.trim_end_matches([',', ')']);
        let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
        if is_number && before.trim_start_matches('(').starts_with("record") {
            *stable = format!("#{}", word.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        if !word.is_empty() {
            before = word;
        }
    }
    words.join(" ")
}

fn stable_word(word: &str) -> String {
    for prefix in ["vkh_", "vkl_", "vkr_", "vkt_"] {
        if let Some(rest) = word.strip_prefix(prefix).and_then(|rest| rest.get(16..)) {
            // A handle is random to its end.
            let rest = if rest.len() == 41 { "_#" } else { rest };
            return format!("{prefix}#{rest}");
        }
    }
    if let Some(rest) = word.strip_prefix("http://127.0.0.1:") {
        return format!("http://127.0.0.1:#{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    let day = word.trim_end_matches(',');
    let is_day = day.len() == 10 && day.starts_with("20") && day.matches('-').count() == 2;
    let is_minute = word.len() == 5 && word.as_bytes()[2] == b':';
    if is_day || is_minute {
        return word.replace(|c: char| c.is_ascii_digit(), "#");
    }
    let is_moment = word.starts_with("20") && word.contains('T') && word.contains('Z');
    let is_clock = word.len() == 9 && word.matches(':').count() == 2 && word.ends_with('Z');
    let is_revision = word.len() == 16 && word.bytes().all(|c| c.is_ascii_hexdigit());
    if is_moment || is_clock || is_revision { "#".repeat(word.len()) } else { word.into() }
}

/// Far longer than any command takes.
const RUN_MAX: Duration = Duration::from_secs(30);

/// Waits until it is so, and not for ever.
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < RUN_MAX, "it does not come to be so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Compares with a file of `tests/golden`, or writes it where `UPDATE_GOLDEN` is set.
pub(crate) fn golden(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        return fs::write(&file, text).unwrap();
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    assert!(known == text, "tests/golden/{name} says otherwise; UPDATE_GOLDEN=1 writes it:\n{text}");
}
