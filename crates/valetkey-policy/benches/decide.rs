//! What a decision costs, at 10, 1,000 and 10,000 policies, beside Cedar's own walk over all of them:
//! medians of several rounds, ratios in the same run, and allocations.
//!
//! `cargo bench -p valetkey-policy`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::alloc::System;
use std::collections::HashSet;
use std::error::Error;
use std::hint::black_box;
use std::str::FromStr;
use std::time::{Duration, Instant};

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression, Schema,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use valetkey_core::{AccessRequest, Decision, PolicyEngine};
use valetkey_policy::generate::{Generated, generate};
use valetkey_policy::{Bundle, Engine};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> Result<(), Box<dyn Error>> {
    println!("warm and cold: over 100 different requests in turn, and over 1,000; times in µs");
    println!(
        "policies  Cedar alone  warm/100  warm/1,000  cold/100  allocations  slice, KiB  Cedar/warm  load, ms"
    );
    for count in [10, 1_000, 10_000] {
        let generated = generate(count)?;
        let started = Instant::now();
        let bundle = bundle(&generated)?;
        let engine = Engine::new(bundle.clone());
        let load = started.elapsed();
        let many = first(&generated.requests, 1_000);
        let few = first(many, 100);
        let cold = cold(&bundle, few);
        let slice = slice_bytes(&engine, few);
        let allocations = allocations(&engine, few);
        let (warm, warm_many) = (warm(&engine, few), warm(&engine, many));
        let alone = alone(&generated, if count > 1_000 { 5 } else { 50 })?;
        println!(
            "{count:>8} {:>12.1} {:>9.1} {:>11.1} {:>9.1} {allocations:>12} {:>11.1} {:>11.1} {:>9.0}",
            micros(alone),
            micros(warm),
            micros(warm_many),
            micros(cold),
            slice as f64 / 1024.0,
            micros(alone) / micros(warm),
            load.as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

/// The first decision on each of several requests after a reload.
fn cold(bundle: &Bundle, requests: &[AccessRequest]) -> Duration {
    median((0..ROUNDS).map(|_| {
        // Small sets have few different requests: several engines make a round long enough to measure.
        let engines: Vec<Engine> =
            (0..(30 / requests.len()).max(1)).map(|_| Engine::new(bundle.clone())).collect();
        let started = Instant::now();
        for engine in &engines {
            for request in requests {
                black_box(engine.decide(black_box(request)));
            }
        }
        per(started.elapsed(), requests.len() * engines.len())
    }))
}

/// Decisions on requests that were seen before.
fn warm(engine: &Engine, requests: &[AccessRequest]) -> Duration {
    let repeats = (4_000 / requests.len()).max(1);
    requests.iter().for_each(|request| drop(engine.decide(request)));
    median((0..ROUNDS).map(|_| {
        let started = Instant::now();
        for request in (0..repeats).flat_map(|_| requests) {
            black_box(engine.decide(black_box(request)));
        }
        per(started.elapsed(), repeats * requests.len())
    }))
}

/// What stays in memory of a first decision.
fn slice_bytes(engine: &Engine, requests: &[AccessRequest]) -> usize {
    let region = Region::new(ALLOCATOR);
    let allowed =
        requests.iter().filter(|request| matches!(engine.decide(request), Decision::Allow(_))).count();
    let change = region.change();
    assert_eq!(allowed, requests.len(), "the generated requests are permitted");
    change.bytes_allocated.saturating_sub(change.bytes_deallocated) / requests.len()
}

/// Allocations of a decision on a request that was seen before.
fn allocations(engine: &Engine, requests: &[AccessRequest]) -> usize {
    let region = Region::new(ALLOCATOR);
    requests.iter().for_each(|request| drop(black_box(engine.decide(request))));
    region.change().allocations / requests.len()
}

fn first(requests: &[AccessRequest], count: usize) -> &[AccessRequest] {
    requests.get(..count).unwrap_or(requests)
}

/// Cedar's walk over the whole set, its request built beforehand.
fn alone(generated: &Generated, decisions: usize) -> Result<Duration, Box<dyn Error>> {
    let schema = Schema::from_str(generated.schema)?;
    let text: String = generated.policies.iter().map(|(_, text)| text.as_str()).collect();
    let policies = PolicySet::from_str(&text)?;
    let id = |text: &str| EntityUid::from_str(text).map_err(Box::new);
    let secret = id(r#"Secret::"any""#)?;
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let attributes = [("field", text("password")), ("section", text("")), ("kind", text("value"))];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    let parents = HashSet::from([id(r#"Vault::"vault-0""#)?, id(r#"Item::"vault-0/item-1""#)?]);
    let entity = Entity::new(secret.clone(), attributes.into(), parents)?;
    let entities = Entities::from_json_str(&generated.entities, Some(&schema))?;
    let entities = entities.add_entities([entity], Some(&schema))?;
    let context = Context::from_pairs([
        ("tool".to_owned(), RestrictedExpression::new_entity_uid(id(r#"Tool::"tool-0-1""#)?)),
        ("agent".to_owned(), RestrictedExpression::new_entity_uid(id(r#"Agent::"bot-0-1""#)?)),
        ("ttl".to_owned(), RestrictedExpression::new_long(60)),
        ("session".to_owned(), RestrictedExpression::new_record([])?),
    ])?;
    let agent = id(r#"Agent::"bot-0-1""#)?;
    let request = Request::new(agent, id(r#"Action::"acquire""#)?, secret, context, Some(&schema))?;
    let authorizer = Authorizer::new();
    Ok(median((0..ROUNDS).map(|_| {
        let started = Instant::now();
        for _ in 0..decisions {
            black_box(authorizer.is_authorized(black_box(&request), &policies, &entities));
        }
        per(started.elapsed(), decisions)
    })))
}

fn bundle(generated: &Generated) -> Result<Bundle, Box<dyn Error>> {
    let files: Vec<(&str, &str)> =
        generated.policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Ok(Bundle::from_texts(generated.schema, &files, &generated.entities)?)
}

fn per(time: Duration, count: usize) -> Duration {
    time.div_f64(count as f64)
}

fn median(rounds: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = rounds.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

const ROUNDS: usize = 7;
