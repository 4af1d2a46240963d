//! `entities.json`: checked one entity at a time, so that every fault has its place, then together.

use cedar_policy::{Entities, Entity, Schema};
use serde_json::value::RawValue;

use crate::entities::TYPES;
use crate::error::chain;
use crate::fault::{Fault, Source};
use crate::links::named_by;
use crate::spelling;

/// Reads the entities; `None` where a fault kept them from being read as a whole.
pub(crate) fn entities(
    source: &Source,
    schema: Option<&Schema>,
    faults: &mut Vec<Fault>,
) -> Option<Entities> {
    let values: Vec<&RawValue> = match serde_json::from_str(&source.text) {
        Ok(values) => values,
        Err(error) => {
            let offset = offset_of(&source.text, error.line(), error.column());
            faults.push(source.fault_at(offset, format!("not a JSON array of entities: {error}")));
            return None;
        }
    };
    let mut entities = Vec::with_capacity(values.len());
    for value in values {
        match entity(value, schema) {
            Ok(entity) => entities.push(entity),
            Err(messages) => {
                // The value is a part of the text, so the difference of their addresses is its place.
                let start = value.get().as_ptr().addr().saturating_sub(source.text.as_ptr().addr());
                faults.extend(messages.into_iter().map(|message| source.fault_at(start, message)));
            }
        }
    }
    let together = Entities::from_entities(entities, schema);
    together.map_err(|error| faults.push(source.fault_of(&error, None))).ok()
}

fn entity(value: &RawValue, schema: Option<&Schema>) -> Result<Entity, Vec<String>> {
    let json = serde_json::from_str(value.get()).map_err(|error| vec![error.to_string()])?;
    let entity = Entity::from_json_value(json, schema).map_err(|error| vec![chain(&error)])?;
    let uid = entity.uid();
    let mut faults = misspelt(&entity);
    if [&TYPES.secret, &TYPES.lease].contains(&uid.type_name()) {
        faults.push(format!("`{uid}` is made from each request and cannot stand here"));
    }
    if faults.is_empty() { Ok(entity) } else { Err(faults) }
}

/// The names in an entity that can match nothing: its own, its parents', those in its attributes and tags. A
/// secret's own name is made from each request, so what a test calls it is the test's affair.
pub(crate) fn misspelt(entity: &Entity) -> Vec<String> {
    let (uid, _, parents) = entity.clone().into_inner();
    let own = (*uid.type_name() != TYPES.secret).then_some(uid);
    let named = own.into_iter().chain(parents).chain(named_by(entity));
    named.filter_map(|uid| spelling::check_uid(&uid).err()).collect()
}

/// The byte offset of a line and column as JSON's parser counts them: from 1, in bytes.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column.saturating_sub(1)
}
