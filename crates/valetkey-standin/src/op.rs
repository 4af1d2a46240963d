//! A stand-in for the `op` program: a script that answers from files, after the published documentation of
//! `op` 2. It refuses arguments it does not know, and an environment with more of `op`'s variables than the
//! service account's.
//!
//! Not here: `op`'s own rules of names. It takes ids alone.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::World;
use crate::world::text;

/// The program in a folder of its own, which goes with it.
pub struct OpProgram {
    folder: TempDir,
}

/// What the program does instead of what it was asked, until it is mended.
#[derive(Debug, Clone, Copy)]
pub enum OpFault<'a> {
    /// Ends with this code, after this text on stderr.
    Exit(u8, &'a str),
    /// Prints this instead of an answer, and ends well.
    Print(&'a str),
    /// Answers after so many seconds.
    Slow(&'a str),
    /// Never answers; a child of it holds the pipes as well.
    Hang,
    /// Closes its pipes and never ends.
    Silence,
    /// Prints without end.
    Flood,
    /// Prints on stderr without end.
    FloodErrors,
}

/// One call of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCall {
    /// Its process.
    pub process_id: u32,
    /// What it was given.
    pub arguments: Vec<String>,
    /// The names of the variables that it was given; the shell's own may be among them.
    pub environment: Vec<String>,
    /// How many calls were running when it began, with itself.
    pub running: usize,
}

impl OpProgram {
    /// Puts the program and its answers into a folder.
    ///
    /// # Errors
    /// Where the folder cannot be written, or an item of the world is broken.
    pub fn new(world: &World) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("op-").tempdir()?;
        let answers = folder.path().join("answers");
        fs::create_dir(&answers)?;
        let program = Self { folder };
        program.install()?;
        write_answers(world, &answers)?;
        Ok(program)
    }

    /// The program.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("op")
    }

    /// Breaks it for the calls to come.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn fail(&self, fault: OpFault<'_>) -> Result<()> {
        let block = "x".repeat(1 << 20);
        let (fault, text) = match fault {
            OpFault::Exit(code, text) => (format!("exit {code}"), text),
            OpFault::Print(text) => ("print".to_owned(), text),
            OpFault::Slow(seconds) => (format!("slow {seconds}"), ""),
            OpFault::Hang => ("hang".to_owned(), ""),
            OpFault::Silence => ("silence".to_owned(), ""),
            OpFault::Flood => ("flood".to_owned(), &*block),
            OpFault::FloodErrors => ("flood_errors".to_owned(), &*block),
        };
        fs::write(self.folder.path().join("fault_text"), text)?;
        fs::write(self.folder.path().join("fault"), fault + "\n")?;
        Ok(())
    }

    /// Ends the fault.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn mend(&self) -> Result<()> {
        Ok(fs::write(self.folder.path().join("fault"), "\n")?)
    }

    /// What was called so far, in the order of the beginnings.
    ///
    /// # Errors
    /// Where its log is broken.
    pub fn calls(&self) -> Result<Vec<OpCall>> {
        let Ok(log) = fs::read_to_string(self.folder.path().join("calls")) else { return Ok(Vec::new()) };
        let mut calls: Vec<OpCall> = Vec::new();
        let mut running = 0_usize;
        for line in log.lines() {
            let mut words = line.splitn(3, ' ');
            let (word, process_id) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let process_id: u32 = process_id.parse().with_context(|| format!("the line `{line}`"))?;
            let rest = words.next().unwrap_or_default();
            match word {
                "start" => {
                    running += 1;
                    let environment = rest.split_whitespace().map(str::to_owned).collect();
                    calls.push(OpCall { process_id, arguments: Vec::new(), environment, running });
                }
                "argument" => {
                    let call = calls.iter_mut().rfind(|call| call.process_id == process_id);
                    call.context("an argument before its call")?.arguments.push(rest.to_owned());
                }
                _ => running = running.saturating_sub(1),
            }
        }
        Ok(calls)
    }

    /// Writes the script through another process: where this one has it open for writing while another thread
    /// starts a program, that program has it open as well, and the system runs no file that is being written.
    fn install(&self) -> Result<()> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "cat >\"$0\" && chmod 700 \"$0\""])
            .arg(self.path())
            .stdin(Stdio::piped())
            .spawn()?;
        shell.stdin.take().context("its stdin")?.write_all(SCRIPT.as_bytes())?;
        ensure!(shell.wait()?.success(), "the program cannot be put into `{}`", self.path().display());
        Ok(())
    }
}

fn write_answers(world: &World, folder: &Path) -> Result<()> {
    let write = |name: String, answer: &Value| fs::write(folder.join(name), format!("{answer:#}\n"));
    fs::write(folder.join("version"), "2.32.1\n")?;
    write("ratelimit".to_owned(), &rate_limits())?;
    write("vaults".to_owned(), &world.vaults().iter().map(vault).collect())?;
    for vault in world.vaults() {
        let vault_id = text(vault, "/id");
        let all: Vec<_> = world.items(vault_id).map(|item| overview(item, vault)).collect();
        let active: Value = all.iter().filter(|item| item.get("state").is_none()).cloned().collect();
        write(format!("items.{vault_id}"), &active)?;
        write(format!("items.{vault_id}.all"), &Value::Array(all))?;
        for item in world.items(vault_id) {
            let id = text(item, "/id");
            if item.get("state").is_some() {
                fs::write(folder.join(format!("archived.{vault_id}.{id}")), "")?;
            }
            write(format!("item.{vault_id}.{id}"), &full(item, vault))?;
            for file in list(item, "files") {
                let content = BASE64.decode(text(file, "/content").as_bytes())?;
                fs::write(folder.join(format!("file.{vault_id}.{id}.{}", text(file, "/id"))), content)?;
            }
        }
    }
    Ok(())
}

fn vault(vault: &Value) -> Value {
    json!({"id": text(vault, "/id"), "name": text(vault, "/name"), "content_version": 7, "items": 3,
        "created_at": TIME, "updated_at": TIME})
}

/// An item as `op item list` has it.
fn overview(item: &Value, vault: &Value) -> Value {
    let vault = json!({"id": text(vault, "/id"), "name": text(vault, "/name")});
    let added = json!({"vault": vault, "last_edited_by": "EDITORXXXXXXXXXXXXXXXXXXXX", "created_at": TIME,
        "updated_at": TIME, "additional_information": "demo"});
    let known = ["id", "title", "version", "category", "state", "urls", "tags"];
    let kept = known.iter().filter_map(|key| Some(((*key).to_owned(), item.get(key)?.clone())));
    joined(Value::Object(kept.collect()), added)
}

/// An item as `op item get` has it.
fn full(item: &Value, vault: &Value) -> Value {
    let place = format!("op://{}/{}", text(vault, "/name"), text(item, "/title"));
    let fields: Vec<_> = list(item, "fields").iter().map(|it| field(it, item, &place)).collect();
    let files: Vec<_> = list(item, "files").iter().map(|it| file(it, item)).collect();
    let answer = joined(overview(item, vault), json!({"sections": list(item, "sections"), "fields": fields}));
    if files.is_empty() { answer } else { joined(answer, json!({"files": files})) }
}

fn field(field: &Value, item: &Value, place: &str) -> Value {
    let added = match text(field, "/type") {
        "TOTP" => json!({"type": "OTP", "totp": "000000"}),
        "SSHKEY" => {
            let reference = format!("{place}/private key?ssh-format=openssh");
            json!({"ssh_formats": {"openssh": {"reference": reference, "value": "demo-other-form"}}})
        }
        "CONCEALED" => json!({"entropy": 99.5, "password_details": {"entropy": 99, "generated": true,
            "strength": "FANTASTIC", "history": ["demo-older-value"]}}),
        _ => json!({}),
    };
    let reference = json!({"reference": format!("{place}/{}", text(field, "/label"))});
    joined(joined(joined(field.clone(), section_of(field, item)), reference), added)
}

fn file(file: &Value, item: &Value) -> Value {
    let id = text(file, "/id");
    let answer = json!({"id": id, "name": text(file, "/name"), "size": text(file, "/content").len() / 4 * 3,
        "content_path": format!("/v1/vaults/x/items/y/files/{id}/content")});
    joined(answer, section_of(file, item))
}

/// `op` repeats a section's label wherever the section is named.
fn section_of(thing: &Value, item: &Value) -> Value {
    let id = thing.pointer("/section/id");
    let section = list(item, "sections").iter().find(|known| id.is_some() && known.get("id") == id);
    section.map_or(json!({}), |section| json!({"section": section}))
}

/// An object with the entries of another; those win.
fn joined(object: Value, more: Value) -> Value {
    let entries = |value| if let Value::Object(entries) = value { entries } else { Map::new() };
    Value::Object(entries(object).into_iter().chain(entries(more)).collect())
}

fn rate_limits() -> Value {
    let row = |kind: &str, action: &str, limit: u64| json!({"type": kind, "action": action, "limit": limit, "used": 5, "remaining": limit - 5, "reset": 1800});
    json!([row("token", "write", 100), row("token", "read", 1_000), row("account", "read_write", 5_000)])
}

fn list<'a>(item: &'a Value, key: &str) -> &'a [Value] {
    item.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

const SCRIPT: &str = include_str!("op.sh");
const TIME: &str = "2026-01-01T00:00:00Z";
