//! Events are held against what schema 1.9.0 says of the attributes that we emit: which are required, of which at
//! least one, their types and their numbers. Written down here from the schema; an attribute that is not here fails.

use super::*;
use crate::export::tests::samples;

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// One of these numbers.
    Of(&'static [i64]),
    Texts,
    /// The object of this name.
    Object(&'static str),
    Objects(&'static str),
    /// Whatever JSON has.
    Any,
}

use Kind::{Any, Flag, Number, Object, Objects, Of, Text, Texts};

/// An object of the schema: its attributes, of which some are required, and of others one at least.
struct Shape {
    name: &'static str,
    required: &'static [&'static str],
    any_of: &'static [&'static str],
    attributes: &'static [(&'static str, Kind)],
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "api_activity",
        required: &[
            "activity_id",
            "actor",
            "api",
            "category_uid",
            "class_uid",
            "metadata",
            "severity_id",
            "src_endpoint",
            "time",
            "type_uid",
        ],
        any_of: &[],
        attributes: &[
            ("activity_id", Of(&[0, 1, 2, 3, 4, 99])),
            ("activity_name", Text),
            ("actor", Object("actor")),
            ("ai_agent", Object("ai_agent")),
            ("api", Object("api")),
            ("category_name", Text),
            ("category_uid", Of(&[6])),
            ("class_name", Text),
            ("class_uid", Of(&[6003])),
            ("dst_endpoint", Object("network_endpoint")),
            ("http_request", Object("http_request")),
            ("message", Text),
            ("metadata", Object("metadata")),
            ("resources", Objects("resource_details")),
            ("severity", Text),
            ("severity_id", Of(&[0, 1, 2, 3, 4, 5, 6, 99])),
            ("src_endpoint", Object("network_endpoint")),
            ("status", Text),
            ("status_code", Text),
            ("status_detail", Text),
            ("status_id", Of(&[0, 1, 2, 99])),
            ("time", Number),
            ("trace", Object("trace")),
            ("type_name", Text),
            ("type_uid", Of(&[600_300, 600_301, 600_302, 600_303, 600_304, 600_399])),
            ("unmapped", Any),
        ],
    },
    Shape {
        name: "actor",
        required: &[],
        any_of: &["process", "user", "iam_role", "invoked_by", "session", "app_name", "app_uid"],
        attributes: &[
            ("app_name", Text),
            ("app_uid", Text),
            ("authorizations", Objects("authorization")),
            ("session", Object("session")),
            ("user", Object("user")),
        ],
    },
    Shape {
        name: "ai_agent",
        required: &[],
        any_of: &["name", "uid"],
        attributes: &[
            ("instance_uid", Text),
            ("name", Text),
            ("type", Text),
            ("type_id", Of(&[0, 1, 2, 3, 4, 99])),
            ("uid", Text),
        ],
    },
    Shape {
        name: "api",
        required: &["operation"],
        any_of: &[],
        attributes: &[
            ("operation", Text),
            ("request", Object("request")),
            ("response", Object("response")),
            ("service", Object("service")),
        ],
    },
    Shape {
        name: "authorization",
        required: &[],
        any_of: &[],
        attributes: &[("decision", Text), ("policy", Object("policy"))],
    },
    Shape {
        name: "group",
        required: &[],
        any_of: &["name", "uid"],
        attributes: &[("name", Text), ("uid", Text)],
    },
    Shape { name: "http_request", required: &[], any_of: &[], attributes: &[("user_agent", Text)] },
    Shape {
        name: "metadata",
        required: &["product", "version"],
        any_of: &[],
        attributes: &[
            ("correlation_uid", Text),
            ("event_code", Text),
            ("log_name", Text),
            ("original_time", Text),
            ("product", Object("product")),
            ("profiles", Texts),
            ("sequence", Number),
            ("uid", Text),
            ("version", Text),
        ],
    },
    Shape {
        name: "network_endpoint",
        required: &[],
        any_of: &[
            "ip",
            "uid",
            "name",
            "hostname",
            "svc_name",
            "instance_uid",
            "interface_uid",
            "interface_name",
            "domain",
        ],
        attributes: &[("hostname", Text), ("ip", Text), ("name", Text), ("uid", Text)],
    },
    Shape {
        name: "policy",
        required: &[],
        any_of: &["name", "type", "uid"],
        attributes: &[("is_applied", Flag), ("name", Text), ("type", Text), ("uid", Text), ("version", Text)],
    },
    Shape {
        name: "product",
        required: &[],
        any_of: &["name", "uid"],
        attributes: &[("name", Text), ("vendor_name", Text), ("version", Text)],
    },
    Shape { name: "request", required: &["uid"], any_of: &[], attributes: &[("uid", Text)] },
    Shape {
        name: "resource_details",
        required: &[],
        any_of: &["name", "uid"],
        attributes: &[
            ("data", Any),
            ("group", Object("group")),
            ("name", Text),
            ("role", Text),
            ("role_id", Of(&[0, 1, 2, 3, 4, 99])),
            ("type", Text),
            ("uid", Text),
            ("version", Text),
        ],
    },
    Shape {
        name: "response",
        required: &[],
        any_of: &[],
        attributes: &[("error", Text), ("error_message", Text)],
    },
    Shape { name: "service", required: &[], any_of: &["name", "uid"], attributes: &[("name", Text)] },
    Shape { name: "session", required: &[], any_of: &[], attributes: &[("credential_uid", Text)] },
    Shape { name: "trace", required: &["uid"], any_of: &[], attributes: &[("uid", Text)] },
    Shape {
        name: "user",
        required: &[],
        any_of: &["account", "name", "uid"],
        attributes: &[("name", Text), ("type", Text), ("type_id", Of(&[0, 1, 2, 3, 4, 99])), ("uid", Text)],
    },
];

/// What is wrong with an object of this name, each with its place.
fn faults(name: &str, value: &Value, place: &str, faults: &mut Vec<String>) {
    let shape = SHAPES.iter().find(|shape| shape.name == name).unwrap();
    let Some(fields) = value.as_object() else { return faults.push(format!("{place}: is no object")) };
    for required in shape.required.iter().filter(|name| !fields.contains_key(**name)) {
        faults.push(format!("{place}: has no `{required}`"));
    }
    if !shape.any_of.is_empty() && !shape.any_of.iter().any(|name| fields.contains_key(*name)) {
        faults.push(format!("{place}: has none of {:?}", shape.any_of));
    }
    for (field, value) in fields {
        let place = format!("{place}.{field}");
        match shape.attributes.iter().find(|(name, _)| name == field) {
            None => faults.push(format!("{place}: is not in the schema")),
            Some((_, kind)) => check_kind(*kind, value, &place, faults),
        }
    }
}

fn check_kind(kind: Kind, value: &Value, place: &str, found: &mut Vec<String>) {
    let holds = match kind {
        Text => value.as_str().is_some_and(|text| !text.is_empty()),
        Number => value.is_i64() || value.is_u64(),
        Flag => value.is_boolean(),
        Of(numbers) => value.as_i64().is_some_and(|number| numbers.contains(&number)),
        Texts => value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_string)),
        Object(name) => return faults(name, value, place, found),
        Objects(name) => match value.as_array() {
            Some(all) => return all.iter().for_each(|one| faults(name, one, place, found)),
            None => false,
        },
        Any => true,
    };
    if !holds {
        found.push(format!("{place}: {value} is of another type, or no number of the schema"));
    }
}

fn faults_of(event: &Value) -> Vec<String> {
    let mut found = Vec::new();
    faults("api_activity", event, "event", &mut found);
    found
}

#[test]
fn every_event_is_of_the_schema() {
    let mut events = 0;
    for record in samples() {
        let event = event(&record);
        assert_eq!(faults_of(&event), Vec::<String>::new(), "{event:#}");
        let number = |name: &str| event[name].as_i64().unwrap();
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        assert_eq!(number("category_uid"), number("class_uid") / 1000);
        events += 1;
    }
    assert!(events > 40);
}

#[test]
fn the_check_finds_faults() {
    let good = event(&samples().remove(0));
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut event = good.clone();
        change(&mut event);
        faults_of(&event).len()
    };
    assert_eq!(broken(&|_| ()), 0);
    assert_eq!(broken(&|event| drop(event.as_object_mut().unwrap().remove("src_endpoint"))), 1);
    assert_eq!(broken(&|event| event["severity_id"] = 7.into()), 1);
    assert_eq!(broken(&|event| event["metadata"]["uid"] = 7.into()), 1);
    assert_eq!(broken(&|event| event["actor"] = json!({"authorizations": []})), 1);
    assert_eq!(broken(&|event| event["tool"] = "no place".into()), 1);
}

#[test]
fn an_allowed_acquire() {
    let record = samples().remove(0);
    let event = event(&record);
    for (pointer, expected) in [
        ("/activity_name", json!("Read")),
        ("/type_uid", json!(600_302)),
        ("/status", json!("Success")),
        ("/metadata/version", json!("1.9.0")),
        ("/metadata/profiles", json!(["ai_operation", "trace"])),
        ("/ai_agent/uid", json!("travel-bot")),
        ("/ai_agent/instance_uid", json!("run 7")),
        ("/actor/user/uid", json!("person:ana")),
        ("/actor/app_uid", json!("agent:travel-bot")),
        ("/actor/session/credential_uid", json!("vkt_0123456789abcdef")),
        ("/actor/authorizations/0/decision", json!("allowed")),
        ("/actor/authorizations/0/policy/uid", json!("one")),
        ("/actor/authorizations/1/policy/version", json!("cdcdcdcdcdcdcdcd")),
        ("/resources/0/type", json!("1Password item")),
        ("/resources/0/name", json!("navan")),
        ("/resources/0/group/name", json!("tutorial")),
        ("/resources/0/data/reference", json!("op://Tutorial/Navan/username")),
        ("/dst_endpoint/hostname", json!("api.ramp.com")),
        ("/src_endpoint/ip", json!("10.0.0.9")),
        ("/http_request/user_agent", json!("valetkey-python/1.0 grpc")),
        ("/unmapped/purpose", json!("=cmd()")),
        ("/unmapped/outcome/result", json!("issued")),
        ("/unmapped/outcome/value_digest", json!("ef".repeat(16))),
    ] {
        assert_eq!(event.pointer(pointer), Some(&expected), "{pointer} in {event:#}");
    }
}

#[test]
fn what_came_of_it() {
    use OutcomeResult::{Failed, Interrupted, Issued, Released, Withheld};
    let record = samples().remove(0);
    for (result, expected) in [
        (Issued, "Success"),
        (Released, "Success"),
        (Failed, "Failure"),
        (Withheld, "Failure"),
        (Interrupted, "Unknown"),
    ] {
        let mut record = record.clone();
        record.outcome.as_mut().unwrap().result = result;
        assert_eq!(event(&record)["status"], expected, "{result:?}");
    }
    let mut denied = samples().into_iter().find(|record| record.ruling == Ruling::Deny).unwrap();
    denied.policies.clear();
    let event = event(&denied);
    assert_eq!((&event["status"], &event["severity"]), (&json!("Failure"), &json!("Low")));
    assert_eq!(event["actor"]["authorizations"][0]["decision"], "denied");
}

#[test]
fn clients_and_places() {
    for (client, agent, place) in [
        ("grpc-python/1 10.0.0.9", Some("grpc-python/1"), json!({"ip": "10.0.0.9"})),
        ("grpc-rust ::1", Some("grpc-rust"), json!({"ip": "::1"})),
        ("10.0.0.9", None, json!({"ip": "10.0.0.9"})),
        ("x uid:1001", Some("x"), json!({"uid": "uid:1001", "name": "local process"})),
        ("x uid:", Some("x uid:"), Value::Null),
        ("no place", Some("no place"), Value::Null),
    ] {
        assert_eq!(client_and_place(Some(client)), (agent, (!place.is_null()).then_some(place)), "{client}");
    }
    assert_eq!(client_and_place(None), (None, None));
}
