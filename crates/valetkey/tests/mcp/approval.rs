//! What a person has to approve first, as agents meet it: on the command line and in the MCP server.

use std::fs;

use serde_json::json;

use super::Client;
use crate::support::{Dev, Ran, run_with};
use crate::{configure, repository, token};

const RAMP: &str = "op://Tutorial/Ramp/password";
const BOOK: &str = "navan.book_flight";
const PAGE: &str = "https://approve.example/asks/";
const POLICY: &str = r#"
@id("ramp-by-approval")
@approval("operators")
@redeem_by("agent")
permit (principal, action == Action::"acquire", resource in Item::"tutorial/ramp")
when { context.tool == Tool::"navan.book_flight" };

@id("ramp-by-approval-redeem")
permit (principal, action == Action::"redeem", resource in Item::"tutorial/ramp");

@id("operators-approve")
permit (principal in Group::"operators", action == Action::"approve", resource is Lease);
"#;

/// A broker whose policies want a person.
struct Office {
    dev: Dev,
    agent: String,
    omar: String,
    folder: tempfile::TempDir,
}

impl Office {
    /// With a page to approve at, or without.
    fn open(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).unwrap();
        for name in ["schema.cedarschema", "entities.json", "people.cedar", "travel.cedar"] {
            fs::copy(repository().join("policies").join(name), policies.join(name)).unwrap();
        }
        fs::write(policies.join("approval.cedar"), POLICY).unwrap();
        let (file, agent) = configure(folder.path(), &policies);
        let omar = token(&file, "--person", "omar");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\n{more}")).unwrap();
        let dev = Dev::start(&["serve", "--config", &file, "--create-database"]);
        Self { dev, agent, omar, folder }
    }

    /// A command of the agent's.
    fn run(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let ours = [
            ("VALETKEY_ADDRESS", self.dev.address()),
            ("VALETKEY_TOKEN", &self.agent),
            ("VALETKEY_TOOL", BOOK),
        ];
        run_with(args, &[&ours, more].concat(), "")
    }

    /// The one person does what has to be done.
    fn approve(&self, id: &str) {
        let ran = self.dev.run(&self.omar, &["approval", "approve", id], "");
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
    }
}

fn paged() -> String {
    format!("[approvals]\nurl = \"{PAGE}{{id}}\"\n")
}

#[test]
fn commands_say_who_has_to_do_what_and_end_with_4() {
    let office = Office::open(&paged());
    let template = office.folder.path().join("template");
    fs::write(&template, format!("{{{{ {RAMP} }}}}")).unwrap();
    let template = template.to_str().unwrap();
    let reads = ["read", RAMP];
    let injects = ["inject", "-i", template];
    let runs = ["run", "--", "echo", "started"];
    let acquires = ["acquire", "--tool", BOOK, "--purpose", "test", RAMP];
    let mut said = String::new();
    for args in [&reads[..], &injects, &runs, &acquires] {
        let ran = office.run(args, &[("PASS", RAMP)]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (4, ""), "{args:?}: {}", ran.stderr);
        said = ran.stderr;
    }
    let id = said.split_once(PAGE).unwrap().1.split(',').next().unwrap().to_owned();
    assert!(said.contains(&format!("`valetkey approval approve {id}`")), "{said}");
    office.approve(&id);
    let ran = office.run(&["read", RAMP], &[]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
}

#[test]
fn a_client_that_can_shows_the_page_and_comes_back() {
    let office = Office::open(&paged());
    let mut client = Client::newest(office.dev.address(), &office.agent);
    client.meta["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"url": {}}});
    let explain = json!({"reference": RAMP, "tool": BOOK});
    assert_eq!(client.call("explain_denial", explain.clone()).0["approval_required"], true);

    let arguments = json!({"references": [RAMP], "tool": BOOK, "purpose": "file the expense"});
    let mut call = json!({"name": "request_access", "arguments": arguments});
    let required = client.ask("tools/call", call.clone());
    assert_eq!(required["resultType"], "input_required", "{required}");
    let asked = &required["inputRequests"]["approval"];
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&"elicitation/create".into(), &"url".into()));
    let id = asked["params"]["url"].as_str().unwrap().strip_prefix(PAGE).unwrap().to_owned();
    let (listed, _) = client.call("list_my_access", json!({}));
    assert_eq!(listed["waiting_for_approval"][0]["approval_id"], id.as_str());

    call["requestState"] = required["requestState"].clone();
    call["inputResponses"] = json!({"approval": {"action": "accept"}});
    let early = client.ask("tools/call", call.clone());
    assert_eq!((&early["resultType"], &early["isError"]), (&"complete".into(), &true.into()), "no loop");
    let early = &early["structuredContent"];
    assert_eq!(early["error"], "APPROVAL_REQUIRED", "that the client says so is no approval");

    office.approve(early["approval_id"].as_str().unwrap());
    let granted = client.ask("tools/call", call);
    assert_eq!(
        (&granted["resultType"], &granted["isError"]),
        (&"complete".into(), &false.into()),
        "{granted}"
    );
    let handle = granted["structuredContent"]["access"][0]["handle"].as_str().unwrap();
    assert!(handle.starts_with("vkh_"), "{granted}");
    let (listed, _) = client.call("list_my_access", json!({}));
    assert_eq!(
        (&listed["waiting_for_approval"], listed["leases"].as_array().unwrap().len()),
        (&json!([]), 1)
    );
    assert_eq!(client.call("explain_denial", explain).0["approval_required"], false);
    client.leave();
}

/// Whether it is asked for and granted in words alone.
fn check_words(office: &Office, client: &mut Client, page: bool) {
    let (waits, error) = client.request(RAMP, BOOK);
    assert!(error, "{waits}");
    assert_eq!((&waits["error"], waits["url"].is_string()), (&"APPROVAL_REQUIRED".into(), page));
    let id = waits["approval_id"].as_str().unwrap();
    assert!(
        waits["next"].as_str().unwrap().contains(&format!("`valetkey approval approve {id}`")),
        "{waits}"
    );
    office.approve(id);
    assert!(!client.request(RAMP, BOOK).1);
}

#[test]
fn others_are_told_in_words() {
    let office = Office::open(&paged());
    let mut plain = Client::newest(office.dev.address(), &office.agent);
    check_words(&office, &mut plain, true);
    plain.leave();

    let office = Office::open(&paged());
    let mut older = Client::start(office.dev.address(), &office.agent);
    older.greet(&json!({"elicitation": {"url": {}}}));
    check_words(&office, &mut older, true);
    older.leave();

    let office = Office::open("");
    let mut no_page = Client::newest(office.dev.address(), &office.agent);
    no_page.meta["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"url": {}}});
    check_words(&office, &mut no_page, false);
    no_page.leave();
}

#[test]
fn what_waits_of_a_partial_lease_is_listed_until_it_is_granted() {
    let office = Office::open(&paged());
    let mut client = Client::newest(office.dev.address(), &office.agent);
    let ask = |purpose: &str| {
        let references = ["op://Tutorial/Navan/password", RAMP];
        json!({"references": references, "tool": BOOK, "purpose": purpose, "partial": true})
    };
    let (granted, error) = client.call("request_access", ask("try it"));
    assert_eq!((granted["access"].as_array().unwrap().len(), error), (1, false), "{granted}");
    let (listed, _) = client.call("list_my_access", json!({}));
    let waits = &listed["waiting_for_approval"][0];
    assert_eq!(waits["reference"], RAMP, "{listed}");
    office.approve(waits["approval_id"].as_str().unwrap());
    // The purpose plays no part in an approval.
    let (granted, _) = client.call("request_access", ask("file the expense"));
    assert_eq!(granted["access"].as_array().unwrap().len(), 2, "{granted}");
    assert_eq!(client.call("list_my_access", json!({})).0["waiting_for_approval"], json!([]));
    client.leave();
}
