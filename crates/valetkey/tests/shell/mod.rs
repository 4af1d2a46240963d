//! `read`, `inject` and `run` against a broker.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Dev, Ran, Running, eventually, run_with, valetkey};

const PASSWORD: &str = "op://Tutorial/Navan/password";
const USERNAME: &str = "op://Tutorial/Navan/username";
const VALUE: &str = "demo-navan-password-7f3a91";
const BASE64: &str = "ZGVtby1uYXZhbi1wYXNzd29yZC03ZjNhOTE";

struct Shell {
    dev: Dev,
    home: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        Self { dev: Dev::start(&["serve", "--dev"]), home: tempfile::tempdir().unwrap() }
    }

    fn env<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let ours = [
            ("VALETKEY_ADDRESS", self.dev.address()),
            ("VALETKEY_TOKEN", self.dev.token("agent:travel-bot")),
            ("VALETKEY_TOOL_TOKEN", self.dev.token("tool:navan.book_flight")),
            ("VALETKEY_TOOL", "navan.book_flight"),
        ];
        ours.iter().chain(more).copied().collect()
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Ran {
        run_with(args, &self.env(env), stdin)
    }

    /// A script, run by `sh` under `valetkey run`.
    fn script(&self, options: &[&str], env: &[(&str, &str)], script: &str) -> Ran {
        self.run(&[&["run"], options, &["--", "sh", "-c", script]].concat(), env, "")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.home.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// How many leases there were, and that all have ended.
    fn leases(&self) -> usize {
        let query = ["audit", "query", "kind:lease_end", "--format", "jsonl"];
        let ana = self.dev.token("person:ana");
        self.dev.run(ana, &query, "").stdout.lines().count()
    }
}

/// Both streams, with the exit code.
fn all(ran: &Ran) -> (i32, &str, &str) {
    (ran.exit, &ran.stdout, &ran.stderr)
}

#[test]
fn read_prints_a_value_and_ends_its_lease() {
    let shell = Shell::start();
    let line = format!("{VALUE}\n");
    assert_eq!(all(&shell.run(&["read", PASSWORD], &[], "")), (0, line.as_str(), ""));
    assert_eq!(all(&shell.run(&["read", "-n", PASSWORD], &[], "")), (0, VALUE, ""));
    let vault = [("VAULT", "Tutorial")];
    assert_eq!(shell.run(&["read", "-n", "op://$VAULT/Navan/password"], &vault, "").stdout, VALUE);
    assert_eq!(shell.leases(), 3);

    let file = shell.home.path().join("out");
    let out = file.to_str().unwrap();
    assert_eq!(all(&shell.run(&["read", "-o", out, PASSWORD], &[], "")), (0, "", ""));
    assert_eq!(fs::read_to_string(&file).unwrap(), VALUE);
    assert_eq!(mode(&file), 0o600);
    let again = shell.run(&["read", "-o", out, PASSWORD], &[], "");
    assert_eq!((again.exit, again.stderr.contains("--force")), (64, true), "{}", again.stderr);
    assert_eq!(shell.run(&["read", "-f", "-o", out, "--file-mode", "640", PASSWORD], &[], "").exit, 0);
    assert_eq!(mode(&file), 0o640);
}

#[test]
fn what_is_no_file_is_not_written_over() {
    let shell = Shell::start();
    let there = shell.file("there", "there");
    let (link, pipe) = (shell.home.path().join("link"), shell.home.path().join("pipe"));
    std::os::unix::fs::symlink(&there, &link).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&link, &pipe] {
        let before = fs::symlink_metadata(path).unwrap().file_type();
        let ran = shell.run(&["read", "-f", "-o", path.to_str().unwrap(), PASSWORD], &[], "");
        assert_eq!((ran.exit, ran.stderr.contains("is a link or no file")), (64, true), "{}", ran.stderr);
        assert_eq!(fs::symlink_metadata(path).unwrap().file_type(), before);
    }
    assert_eq!(fs::read_to_string(&there).unwrap(), "there");
    assert_eq!(shell.leases(), 0, "nothing was asked for");
}

#[test]
fn what_is_refused_prints_nothing() {
    let shell = Shell::start();
    let other = shell.run(&["read", PASSWORD, "--tool", "web.search"], &[], "");
    assert_eq!((other.exit, other.stdout.as_str()), (2, ""), "{}", other.stderr);
    let malformed = shell.run(&["read", "op://Tutorial/Navan"], &[], "");
    assert_eq!((malformed.exit, malformed.stdout.as_str()), (64, ""));
    let nobody = shell.run(&["read", PASSWORD], &[("VALETKEY_TOOL_TOKEN", "vkt_nobody")], "");
    assert_eq!((nobody.exit, nobody.stdout.as_str()), (1, ""), "{}", nobody.stderr);

    // One that is refused takes the others with it: nothing runs.
    let ran =
        shell.script(&[], &[("A", PASSWORD), ("B", "op://Production/Database/password")], "echo started");
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
}

#[test]
fn inject_fills_a_template() {
    let shell = Shell::start();
    let template = format!(
        "user: {USERNAME}\npass: {{{{ {PASSWORD} }}}}\nsame: {USERNAME}\nraw: {{{{ \"{{{{x}}}}\" }}}}\n"
    );
    let file = shell.file("config.tpl", &template);
    let injected = shell.run(&["inject", "-i", &file], &[], "");
    let user = injected.stdout.lines().next().unwrap().strip_prefix("user: ").unwrap().to_owned();
    let expected = format!("user: {user}\npass: {VALUE}\nsame: {user}\nraw: {{{{x}}}}\n");
    assert_eq!(all(&injected), (0, expected.as_str(), ""));
    assert!(!user.contains("op://"), "{user}");
    assert_eq!(shell.leases(), 1, "one lease for all references");

    let out = shell.home.path().join("config");
    let bad = shell.file("bad.tpl", "x\n{{ op://v/i }}\n");
    let refused = shell.run(&["inject", "-i", &bad, "-o", out.to_str().unwrap()], &[], "");
    assert_eq!(refused.exit, 64);
    assert!(refused.stderr.contains("bad.tpl: line 2: "), "{}", refused.stderr);
    assert!(!out.exists());
}

#[test]
fn run_gives_values_to_the_command_and_conceals_them_in_its_output() {
    let shell = Shell::start();
    let env = [("PASS", PASSWORD), ("USER_NAME", USERNAME)];
    let ran = shell.script(
        &[],
        &env,
        "[ \"$PASS\" = \"demo-navan-password-$SUFFIX\" ] && echo right; echo \"$USER_NAME\"",
    );
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("right"), "SUFFIX is not set");

    let seven = [("PASS", PASSWORD), ("SUFFIX", "7f3a91")];
    let script = "[ \"$PASS\" = \"demo-navan-password-$SUFFIX\" ] && echo right; echo \"a $PASS b\" >&2; \
                  printf '%s' \"$PASS\" | head -c 9; sleep 0.2; printf '%s' \"$PASS\" | tail -c +10; printf 'u:%s' \"$PASS\" | base64";
    let ran = shell.script(&[], &seven, script);
    assert_eq!(ran.stderr, "a <concealed by valetkey> b\n");
    assert!(ran.stdout.starts_with("right\n<concealed by valetkey>"), "{}", ran.stdout);
    assert!(!ran.stdout.contains(VALUE) && !ran.stdout.contains(&BASE64[4..24]), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("<concealed by valetkey>").count(), 2, "{}", ran.stdout);

    let plain = shell.script(&["--no-masking"], &[("PASS", PASSWORD)], "echo \"$PASS\"");
    assert_eq!(plain.stdout, format!("{VALUE}\n"));
    assert_eq!(shell.leases(), 3, "and each lease has ended");
}

#[test]
fn run_reads_files_of_variables() {
    let shell = Shell::start();
    let file =
        shell.file(".env", &format!("# comment\nURL=https://u:{{{{ {PASSWORD} }}}}@host\nPLAIN='$x'\n"));
    let over = shell.file("over.env", "PLAIN=later\n");
    let ran = shell.script(&["--env-file", &file, "--env-file", &over], &[], "echo \"$URL $PLAIN\"");
    assert_eq!(all(&ran), (0, "https://u:<concealed by valetkey>@host later\n", ""));
    let missing = shell.script(&["--env-file", "missing.env"], &[], "echo started");
    assert_eq!((missing.exit, missing.stdout.as_str()), (64, ""));
    // Nothing to ask for: no broker is needed.
    let alone = run_with(&["run", "--tool", "t", "--", "sh", "-c", "exit 5"], &[], "");
    assert_eq!(all(&alone), (5, "", ""));
}

#[test]
fn what_is_no_text_in_the_environment_passes_through() {
    let mut command = valetkey(&["run", "--tool", "t", "--", "sh", "-c", "printf %s \"$RAW\""], &[]);
    let output = command.env("RAW", std::ffi::OsStr::from_bytes(b"a\xffb")).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"a\xffb"[..]));
}

#[test]
fn run_passes_exit_codes_and_signals_and_keeps_our_tokens() {
    let shell = Shell::start();
    let env = [("PASS", PASSWORD)];
    for code in [0, 1, 7, 255] {
        assert_eq!(shell.script(&[], &env, &format!("exit {code}")).exit, code);
    }
    assert_eq!(shell.script(&[], &env, "kill -TERM $$").exit, 128 + 15);
    let tokens = shell.script(&[], &env, "env | grep -c '^VALETKEY_.*TOKEN'");
    assert_eq!(tokens.stdout, "0\n");
    let missing = shell.run(&["run", "--", "no-such-program"], &env, "");
    assert_eq!(missing.exit, 1);
    assert!(missing.stderr.contains("`no-such-program` cannot be started"), "{}", missing.stderr);

    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let args = ["run", "--", "sh", "-c", script];
    let mut running = Running::start(&args, &shell.env(&env));
    assert_eq!(running.line().as_deref(), Some("ready"));
    running.signal("TERM");
    let ran = running.wait(Duration::from_secs(10));
    assert_eq!((ran.exit, ran.stdout.as_str()), (3, "ready\ntold\n"), "{}", ran.stderr);
}

#[test]
fn signals_pass_while_nobody_reads_the_output() {
    let shell = Shell::start();
    let told = shell.home.path().join("told");
    let script = format!(
        "yes out & out=$!; yes err >&2 & err=$!; trap 'kill $out $err; echo > {}; exit 3' TERM; wait",
        told.display()
    );
    let env = shell.env(&[("PASS", PASSWORD)]);
    let mut child = valetkey(&["run", "--", "sh", "-c", &script], &env).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    // A pipe has 64 KiB.
    eventually(|| [out.as_fd(), err.as_fd()].iter().all(|pipe| ioctl_fionread(pipe).unwrap() >= 60_000));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    eventually(|| told.exists());
    drop((out, err));
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn run_gives_handles_where_it_is_told_to() {
    let shell = Shell::start();
    let ran = shell.script(&["--handles"], &[("PASS", PASSWORD)], "printf '%s' \"$PASS\"; sleep 0.1");
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("vkh_"), "{}", ran.stdout);
    // The command has ended, and its handle with it.
    let navan = shell.dev.token("tool:navan.book_flight");
    let redeemed = shell.dev.run(navan, &["redeem"], &format!("{}\n", ran.stdout));
    assert_eq!((redeemed.exit, redeemed.stdout.as_str()), (1, ""));
}

#[test]
fn run_says_when_the_handles_that_it_gave_grow_old() {
    let shell = Shell::start();
    let env = shell.env(&[("PASS", PASSWORD)]);
    let args = ["run", "--handles", "--ttl", "2s", "--", "sleep", "600"];
    let mut child = valetkey(&args, &env).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("about to expire"), "{said}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}
