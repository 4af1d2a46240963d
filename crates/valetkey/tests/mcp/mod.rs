//! `mcp` as its clients speak to it: JSON-RPC lines over stdio, in the newest protocol and in the one before.

mod approval;
mod restart;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Dev, assert_no_value, eventually, valetkey};

const PASSWORD: &str = "op://Tutorial/Navan/password";
const BOOK: &str = "navan.book_flight";

struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What every request carries, in protocols without a handshake.
    meta: Value,
    /// Everything that was said.
    transcript: String,
    id: u64,
}

impl Client {
    fn start(address: &str, token: &str) -> Self {
        let env = [("VALETKEY_ADDRESS", address), ("VALETKEY_TOKEN", token)];
        let mut command = valetkey(&["mcp"], &env);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout, meta: Value::Null, transcript: String::new(), id: 0 }
    }

    /// A client of 2026-07-28: no handshake, every request says who sends it.
    fn newest(address: &str, token: &str) -> Self {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut client = Self::start(address, token);
        client.meta = meta;
        client
    }

    /// The handshake of older protocols.
    fn greet(&mut self, capabilities: &Value) -> Value {
        let client = json!({"name": "test", "version": "1"});
        let hello =
            json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": client});
        let answer = self.ask("initialize", hello);
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer
    }

    fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
        stdin.flush().unwrap();
    }

    /// Asks, without waiting for the answer.
    fn send(&mut self, method: &str, mut params: Value) -> u64 {
        self.id += 1;
        if !self.meta.is_null() {
            params["_meta"] = self.meta.clone();
        }
        self.say(&json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}));
        self.id
    }

    /// The next answer: to what, and what.
    fn next(&mut self) -> (u64, Value) {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it has gone");
        self.transcript.push_str(&line);
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
        (answer["id"].as_u64().unwrap(), answer["result"].clone())
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        loop {
            let (to, answer) = self.next();
            if to == id {
                return answer;
            }
        }
    }

    /// What a tool answers, and whether that is an error.
    fn call(&mut self, tool: &str, arguments: Value) -> (Value, bool) {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "both forms say the same");
        (result["structuredContent"].clone(), result["isError"] == true)
    }

    fn request(&mut self, reference: &str, tool: &str) -> (Value, bool) {
        self.call(
            "request_access",
            json!({"references": [reference], "tool": tool, "purpose": "book a flight"}),
        )
    }

    /// Closes stdin, as a client does that goes away.
    fn leave(mut self) -> String {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
        std::mem::take(&mut self.transcript)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Gone already, where the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn redeem(dev: &Dev, handle: &str) -> (i32, String) {
    redeem_as(dev, dev.token("tool:navan.book_flight"), handle)
}

fn redeem_as(dev: &Dev, tool: &str, handle: &str) -> (i32, String) {
    let ran = dev.run(tool, &["redeem"], &format!("{handle}\n"));
    (ran.exit, ran.stdout)
}

#[test]
fn a_model_gets_handles_and_never_values() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::newest(dev.address(), dev.token("agent:travel-bot"));
    let discovered = client.ask("server/discover", json!({}));
    assert!(
        discovered["supportedVersions"].as_array().unwrap().contains(&"2026-07-28".into()),
        "{discovered}"
    );

    let tools = client.ask("tools/list", json!({}));
    let mut names: Vec<_> =
        tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["end_lease", "explain_denial", "list_my_access", "request_access"]);

    let (granted, error) = client.request(PASSWORD, BOOK);
    assert!(!error, "{granted}");
    let handle = granted["access"][0]["handle"].as_str().unwrap().to_owned();
    assert!(handle.starts_with("vkh_"));
    assert_eq!(granted["access"][0]["redeemed_by"], "tool");
    let (listed, _) = client.call("list_my_access", json!({}));
    assert_eq!(listed["leases"][0]["lease_id"], granted["lease_id"]);
    assert_eq!(listed["leases"][0]["access"][0]["handle"], handle.as_str());
    assert_eq!(redeem(&dev, &handle), (0, "demo-navan-password-7f3a91".to_owned()));

    let (second, _) = client.request(PASSWORD, BOOK);
    let lease = second["lease_id"].clone();
    assert_eq!(
        client.call("end_lease", json!({"lease_id": lease})),
        (json!({"lease_id": lease, "ended": true}), false)
    );
    let dead = second["access"][0]["handle"].as_str().unwrap();
    assert_eq!(redeem(&dev, dead), (1, String::new()), "dead when `end_lease` has answered");
    assert!(client.call("end_lease", json!({"lease_id": lease})).1);

    let (third, _) = client.request(PASSWORD, BOOK);
    let transcript = client.leave();
    let handle = third["access"][0]["handle"].as_str().unwrap();
    assert_eq!(redeem(&dev, handle), (1, String::new()), "dead when its client has gone");
    assert_no_value(&transcript);
}

#[test]
fn a_refusal_says_what_can_be_done() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::newest(dev.address(), dev.token("agent:travel-bot"));
    let (refused, error) = client.request("op://Tutorial/Travel Card/number", "web.search");
    assert!(error);
    assert_eq!(refused["error"], "ACCESS_DENIED");
    assert!(refused["record_id"].as_str().is_some_and(|id| id.parse::<u64>().is_ok()), "{refused}");
    let explained = client.call(
        "explain_denial",
        json!({"reference": "op://Tutorial/Travel Card/number", "tool": "web.search"}),
    );
    assert_eq!((&explained.0["allowed"], explained.1), (&false.into(), false));
    assert_eq!(explained.0["next"], refused["next"], "the policy's advice");
    let allowed = client.call("explain_denial", json!({"reference": PASSWORD, "tool": BOOK}));
    assert_eq!(allowed.0["allowed"], true);

    let (invalid, error) = client.request("op://nonsense", BOOK);
    assert!(error, "{invalid}");
    let (listed, _) = client.call("list_my_access", json!({}));
    assert_eq!(listed, json!({"leases": [], "waiting_for_approval": []}));
    client.leave();
}

#[test]
fn there_are_as_many_leases_as_may_be_and_no_more() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::newest(dev.address(), dev.token("agent:travel-bot"));
    let ask = json!({"references": [PASSWORD], "tool": BOOK, "purpose": "book a flight"});
    let call = json!({"name": "request_access", "arguments": ask});
    for _ in 0..70 {
        client.send("tools/call", call.clone());
    }
    let answers: Vec<_> = (0..70).map(|_| client.next().1["structuredContent"].clone()).collect();
    assert_eq!(answers.iter().filter(|answer| answer["error"] == "TOO_MANY_LEASES").count(), 6);
    assert_eq!(answers.iter().filter(|answer| answer["error"].is_null()).count(), 64);
    let lease = answers.iter().find_map(|answer| answer["lease_id"].as_str()).unwrap();
    assert!(!client.call("end_lease", json!({"lease_id": lease})).1);
    assert!(!client.request(PASSWORD, BOOK).1, "one that has ended makes room");
    client.leave();
}

#[test]
fn what_nobody_waits_for_is_not_held() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::newest(dev.address(), dev.token("agent:travel-bot"));
    let ask = json!({"references": [PASSWORD], "tool": BOOK, "purpose": "book a flight"});
    let call = client.send("tools/call", json!({"name": "request_access", "arguments": ask}));
    let cancel = json!({"requestId": call});
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel}));
    let list = client.send("tools/call", json!({"name": "list_my_access", "arguments": {}}));
    let mut answered = false;
    loop {
        match client.next() {
            // It was faster than the cancellation.
            (to, _) if to == call => answered = true,
            (to, listed) => {
                assert_eq!(to, list);
                let held = listed["structuredContent"]["leases"].as_array().unwrap().len();
                assert!(answered || held == 0, "{listed}");
                break;
            }
        }
    }
    client.leave();
}

#[test]
fn a_signal_ends_it_while_its_client_stays() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::newest(dev.address(), dev.token("agent:travel-bot"));
    let (granted, _) = client.request(PASSWORD, BOOK);
    kill_process(Pid::from_child(&client.child), Signal::TERM).unwrap();
    let mut status = None;
    eventually(|| {
        status = client.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    let handle = granted["access"][0]["handle"].as_str().unwrap();
    assert_eq!(redeem(&dev, handle), (1, String::new()), "and its lease with it");
}

#[test]
fn clients_with_a_handshake_are_served() {
    let dev = Dev::start(&["serve", "--dev"]);
    let mut client = Client::start(dev.address(), dev.token("agent:travel-bot"));
    let answer = client.greet(&json!({}));
    assert_eq!(answer["protocolVersion"], "2025-06-18");
    assert_eq!(answer["serverInfo"]["name"], "valetkey");
    assert!(answer["instructions"].as_str().unwrap().contains("request_access"));
    assert!(!client.request(PASSWORD, BOOK).1);
    client.leave();
}
