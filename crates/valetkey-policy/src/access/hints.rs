//! What a policy can tell requests apart by: the words and numbers in its conditions, and the attributes it looks at.

use std::collections::BTreeSet;

use cedar_policy::{EvalResult, Policy};
use serde_json::{Map, Value};

/// What stands in the conditions of policies.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// Texts that something is compared with; of a pattern, two that match it.
    pub(super) texts: BTreeSet<String>,
    pub(super) numbers: BTreeSet<i64>,
    /// Attributes that are looked at, of whatever.
    pub(super) attributes: BTreeSet<String>,
}

impl Hints {
    /// What stands in a policy. `None` where that cannot be seen.
    pub(super) fn read(policy: &Policy) -> Option<Self> {
        let json = policy.to_json().ok()?;
        let mut hints = Self::default();
        json.get("conditions").into_iter().for_each(|conditions| hints.walk(conditions));
        Some(hints)
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Self { texts, numbers, attributes } = other;
        self.texts.extend(texts.iter().cloned());
        self.numbers.extend(numbers);
        self.attributes.extend(attributes.iter().cloned());
    }

    /// Adds the texts and numbers that stand in an attribute of an entity.
    pub(super) fn add_value(&mut self, value: &EvalResult) {
        match value {
            EvalResult::String(text) => _ = self.texts.insert(text.clone()),
            EvalResult::Long(number) => _ = self.numbers.insert(*number),
            EvalResult::Set(set) => set.iter().for_each(|member| self.add_value(member)),
            EvalResult::Record(record) => record.iter().for_each(|(_, member)| self.add_value(member)),
            EvalResult::Bool(_) | EvalResult::EntityUid(_) | EvalResult::ExtensionValue(_) => {}
        }
    }

    pub(super) fn looks_at(&self, attribute: &str) -> bool {
        self.attributes.contains(attribute)
    }

    fn walk(&mut self, node: &Value) {
        match node {
            Value::Object(map) => self.walk_object(map),
            Value::Array(nodes) => nodes.iter().for_each(|node| self.walk(node)),
            Value::String(text) => _ = self.texts.insert(text.clone()),
            Value::Number(number) => self.numbers.extend(number.as_i64()),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Takes the names of attributes, variables and operators for no texts.
    fn walk_object(&mut self, map: &Map<String, Value>) {
        for (key, node) in map {
            match key.as_str() {
                "attr" => self.take_attributes(node),
                "pattern" => self.take_pattern(node),
                // Entities are the policy's literals, and known otherwise.
                "Var" | "Slot" | "kind" | "entity_type" | "__entity" => {}
                _ => self.walk(node),
            }
        }
    }

    fn take_attributes(&mut self, node: &Value) {
        match node {
            Value::String(name) => _ = self.attributes.insert(name.clone()),
            Value::Array(names) => names.iter().for_each(|name| self.take_attributes(name)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
    }

    fn take_pattern(&mut self, node: &Value) {
        for filling in ["", "x"] {
            let parts = node.as_array().into_iter().flatten();
            let text = parts.map(|part| part.get("Literal").and_then(Value::as_str).unwrap_or(filling));
            self.texts.insert(text.collect());
        }
    }
}
