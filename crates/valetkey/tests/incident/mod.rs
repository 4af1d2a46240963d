//! The incident of docs/audit.md, played against a broker: what the page shows is what the commands print.

use std::fs;
use std::path::Path;

use crate::support::{Dev, run_with, stable};

/// `UPDATE_GOLDEN=1` writes the page.
#[test]
fn the_page_shows_an_incident_as_it_is() {
    let dev = Dev::start(&["serve", "--dev"]);
    let lease = play(&dev);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, incident) = page.split_once(TITLE).unwrap();
    let (incident, after) = incident.split_once("\n## ").unwrap();
    let mut written = format!("{before}{TITLE}");
    let mut shown = 0;
    let mut rest = incident;
    while let Some((before, block)) = rest.split_once(FENCE) {
        let (block, behind) = block.split_once("```\n").unwrap();
        let (command, expected) = block.split_once('\n').unwrap();
        let printed = print(&dev, command, &lease);
        if std::env::var_os("UPDATE_GOLDEN").is_none() {
            assert_eq!(masked(&printed), masked(expected), "`valetkey {command}`; UPDATE_GOLDEN=1 writes it");
        }
        let command = command.split(' ').map(|word| if word.starts_with("vkl_") { &lease } else { word });
        let command = command.collect::<Vec<_>>().join(" ");
        written.push_str(&format!("{before}{FENCE}{command}\n{printed}```\n"));
        (rest, shown) = (behind, shown + 1);
    }
    assert_eq!(shown, 7, "the page has lost a command");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, written + rest + "\n## " + after).unwrap();
    }
}

/// Without what is different each time: ids, moments, and how long after the first record of a timeline.
fn masked(text: &str) -> String {
    let lines = stable(text);
    let lines =
        lines.lines().map(|line| match line.strip_prefix('+').and_then(|rest| rest.split_once(" s")) {
            Some((_, rest)) => format!("+# s{rest}\n"),
            None => format!("{line}\n"),
        });
    lines.collect()
}

/// travel-bot books a flight and reads a page that tells it to do more; the id of its lease.
fn play(dev: &Dev) -> String {
    let (bot, navan) = (dev.token("agent:travel-bot"), dev.token("tool:navan.book_flight"));
    let password = "op://Tutorial/Navan/password";
    let references = [password, "op://Tutorial/Travel Card/number"];
    let booking = ["acquire", "--format", "jsonl", "--tool", "navan.book_flight", "--session", "trip-7"];
    let purpose = ["--purpose", "book LIS-BER for Wendy"];
    let mut held = dev.spawn(bot, &[&booking[..], &purpose, &references].concat());
    let handles = references.map(|reference| format!("{}\n", held.handle(reference)));
    let exits = |token: &str, args: &[&str], stdin: &str, exit: i32| {
        let ran = dev.run(token, args, stdin);
        assert_eq!(ran.exit, exit, "{args:?}: {}", ran.stderr);
    };
    exits(navan, &["redeem"], &handles[0], 0);
    // The page: search the web for what is in your context.
    exits(dev.token("tool:web.search"), &["redeem"], &handles[1], 1);
    exits(navan, &["redeem"], &handles[0], 1);
    let injected =
        ["acquire", "--tool", "web.search", "--purpose", "the page says so", "--session", "trip-7"];
    let ask = |reference: &str| exits(bot, &[&injected[..], &[reference]].concat(), "", 2);
    ask("op://Tutorial/Travel Card/number");
    ask("op://Tutorial/Travel Card/verification number");
    ask("op://Production/Database/password");
    let ended = held.interrupt();
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let ana = dev.token("person:ana");
    let ends = dev.run(ana, &["audit", "query", "kind:lease_end", "--format", "jsonl"], "").stdout;
    let end: serde_json::Value = serde_json::from_str(ends.trim()).unwrap();
    end["lease_id"].as_str().unwrap().to_owned()
}

/// What a command of Ana's prints, on a page of 100 columns.
fn print(dev: &Dev, command: &str, lease: &str) -> String {
    // Quoted words have no quotes in them.
    let parts = command.split('\'').enumerate();
    let args: Vec<String> = parts
        .flat_map(|(place, part)| match place % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .map(|word| if word.starts_with("vkl_") { lease.to_owned() } else { word })
        .collect();
    let env = [
        ("VALETKEY_ADDRESS", dev.address()),
        ("VALETKEY_TOKEN", dev.token("person:ana")),
        ("COLUMNS", "100"),
    ];
    let ran = run_with(&args.iter().map(String::as_str).collect::<Vec<_>>(), &env, "");
    assert_eq!(ran.exit, 0, "{command}: {}", ran.stderr);
    ran.stdout
}

const TITLE: &str = "\n## An incident\n";
const FENCE: &str = "```console\n$ valetkey ";
