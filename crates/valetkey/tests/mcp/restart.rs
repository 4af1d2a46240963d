//! A broker that dies and comes back, as the MCP server sees it.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{BOOK, Client, PASSWORD, redeem_as};
use crate::support::Dev;
use crate::{configure, repository, token};

#[test]
fn what_a_broker_forgot_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let (file, agent) = configure(folder.path(), &repository().join("policies"));
    let tool = token(&file, "--tool", BOOK);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[unix]\npath = \"b.sock\"\n")).unwrap();
    let serve = ["serve", "--config", &file];
    let dev = Dev::start(&[&serve[..], &["--create-database"]].concat());
    let address = format!("unix:{}", folder.path().join("b.sock").display());
    let mut client = Client::newest(&address, &agent);
    let (granted, _) = client.request(PASSWORD, BOOK);
    let before = granted["access"][0]["handle"].clone();
    assert!(before.is_string(), "{granted}");

    dev.signal("KILL");
    drop(dev);
    let dev = Dev::start(&serve);
    let start = Instant::now();
    let fresh = loop {
        let (listed, _) = client.call("list_my_access", json!({}));
        let leases = listed["leases"].as_array().unwrap();
        assert_eq!(leases.len(), 1, "it is held all the time");
        match leases[0]["access"][0]["handle"].as_str() {
            Some(handle) if before != handle => break handle.to_owned(),
            _ => assert!(start.elapsed() < Duration::from_secs(30), "{listed}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(redeem_as(&dev, &tool, &fresh), (0, "demo-navan-password-7f3a91".to_owned()));
    assert_eq!(redeem_as(&dev, &tool, before.as_str().unwrap()), (1, String::new()));
    // The model knows it by the id that it had first.
    assert!(!client.call("end_lease", json!({"lease_id": granted["lease_id"]})).1);
    client.leave();
}
