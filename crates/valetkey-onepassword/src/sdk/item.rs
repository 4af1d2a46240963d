//! The core's items, read into the item model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use valetkey_core::SecretValue;

use super::answer::{list, title};
use crate::full_item::{VALUE_MAX, global_id, is_one_time_password, label, local_id, name, required, unique};
use crate::item::{FieldKind, FieldOutline, ItemOutline, ItemState, ItemValues, Section, is_sayable};
use crate::json::{Faults, Node, Object, Path};

/// Reads the answer to the question for an item. What it gives is good only where `faults` stays empty.
pub(super) fn item(faults: &mut Faults, node: Node) -> (ItemOutline, ItemValues) {
    let path = Path::Root;
    let mut object = faults.open_object(Some(node), path);
    let id = global_id(faults, object.take("id"), path.key("id"));
    let title = title(faults, object.take("title"), path.key("title"));
    let vault_id = global_id(faults, object.take("vaultId"), path.key("vaultId"));
    let version = faults.number(object.take("version"), path.key("version"));
    let sections = sections(faults, object.take("sections"), path.key("sections"));
    let mut reader = ItemReader {
        section_ids: sections.iter().map(|section| Arc::clone(&section.id)).collect(),
        ids: HashSet::new(),
        outlines: Vec::new(),
        values: HashMap::new(),
    };
    reader.fields(faults, object.take("fields"), path.key("fields"));
    reader.notes(faults, object.take("notes"), path.key("notes"));
    reader.files(faults, object.take("files"), path.key("files"));
    reader.document(faults, object.take("document"), path.key("document"));
    let ItemReader { section_ids: _, ids: _, outlines: fields, values: by_field } = reader;
    // The core gives none that is archived or deleted.
    let state = ItemState::Active;
    let outline = ItemOutline { vault_id, id, title, state, sections, fields };
    (outline, ItemValues { version, by_field })
}

fn sections(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Vec<Section> {
    let mut ids = HashSet::new();
    let mut sections = Vec::new();
    for (index, node) in list(faults, node, path).into_iter().enumerate() {
        let path = path.index(index);
        let mut object = faults.open_object(Some(node), path);
        // Fields outside of sections are in one without an id, where the core lists it at all.
        let id = object.take("id").filter(|id| !matches!(id, Node::Text(id) if id.is_empty()));
        let label = label(faults, object.take("title"), path.key("title"));
        if id.is_none() && label.is_empty() {
            continue;
        }
        let id = local_id(faults, id, path.key("id"));
        unique(faults, &mut ids, &id, path.key("id"));
        sections.push(Section { id, label });
    }
    sections
}

/// Reads the fields and files of one item.
struct ItemReader {
    section_ids: HashSet<Arc<str>>,
    ids: HashSet<Arc<str>>,
    outlines: Vec<FieldOutline>,
    values: HashMap<Arc<str>, SecretValue>,
}

impl ItemReader {
    fn fields(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        let mut keys = Vec::new();
        for (index, node) in list(faults, node, path).into_iter().enumerate() {
            let path = path.index(index);
            let mut object = faults.open_object(Some(node), path);
            let id = local_id(faults, object.take("id"), path.key("id"));
            let label = label(faults, object.take("title"), path.key("title"));
            let section = self.section(faults, &mut object, path);
            let mut details = faults.open_object(object.take("details"), path.key("details"));
            let kind = kind(faults, &id, object.take("fieldType"), &mut details, path);
            let value = faults.text(object.take("value"), path.key("value"), VALUE_MAX);
            let value = value.map_or_else(Vec::new, |mut value| std::mem::take(&mut *value).into_bytes());
            if kind == FieldKind::PrivateKey {
                keys.push((index, section.clone(), details.take("content")));
            }
            self.add(faults, FieldOutline { id, label, section, kind }, value, path.key("id"));
        }
        for (index, section, node) in keys {
            self.public_key(faults, section, node, path.index(index).key("details").key("content"));
        }
    }

    /// What the core tells about a private key beside its value: fields of their own everywhere else.
    fn public_key(
        &mut self,
        faults: &mut Faults,
        section: Option<Arc<str>>,
        node: Option<Node>,
        path: Path<'_>,
    ) {
        let mut content = faults.open_object(node, path);
        for (told, id, label) in PUBLIC_KEY {
            let text = faults.text(content.take(told), path.key(told), VALUE_MAX);
            let Some(text) = text.filter(|_| !self.ids.contains(id)) else { continue };
            let section = section.clone();
            let field = FieldOutline { id: id.into(), label: label.into(), section, kind: FieldKind::Plain };
            self.add(faults, field, text.as_bytes().to_vec(), path.key(told));
        }
    }

    fn notes(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        let text = faults.text(node, path, VALUE_MAX).unwrap_or_default();
        // Every item has notes, if only empty ones: so the core resolves them.
        if self.ids.contains("notesPlain") {
            return;
        }
        let (id, label): (Arc<str>, _) = ("notesPlain".into(), "notesPlain".into());
        let field = FieldOutline { id, label, section: None, kind: FieldKind::Notes };
        self.add(faults, field, text.as_bytes().to_vec(), path);
    }

    fn files(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        for (index, node) in list(faults, node, path).into_iter().enumerate() {
            let path = path.index(index);
            let mut object = faults.open_object(Some(node), path);
            let section = self.section(faults, &mut object, path);
            self.file(faults, object.take("attributes"), section, path.key("attributes"));
        }
    }

    fn document(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        if node.is_some() {
            self.file(faults, node, None, path);
        }
    }

    fn file(&mut self, faults: &mut Faults, node: Option<Node>, section: Option<Arc<str>>, path: Path<'_>) {
        let node = required(faults, node, path);
        let mut object = faults.open_object(node, path);
        let id = local_id(faults, object.take("id"), path.key("id"));
        let label = name(faults, object.take("name"), path.key("name"));
        if is_sayable(&id) {
            unique(faults, &mut self.ids, &id, path.key("id"));
        }
        self.outlines.push(FieldOutline { id, label, section, kind: FieldKind::File });
    }

    fn section(&self, faults: &mut Faults, object: &mut Object, path: Path<'_>) -> Option<Arc<str>> {
        let id = label(faults, object.take("sectionId"), path.key("sectionId"));
        if id.is_empty() {
            return None;
        }
        if !self.section_ids.contains(&id) {
            faults.note(path.key("sectionId"), "is the id of no section of the item");
        }
        Some(id)
    }

    fn add(&mut self, faults: &mut Faults, field: FieldOutline, value: Vec<u8>, path: Path<'_>) {
        let value = SecretValue::new(value);
        // No target can name the others: they count only where their label makes another's ambiguous.
        if is_sayable(&field.id) {
            unique(faults, &mut self.ids, &field.id, path);
            self.values.insert(Arc::clone(&field.id), value);
        }
        self.outlines.push(field);
    }
}

/// What kind of field it is. Either of type and details makes a seed: one that passes for plain text could be
/// had without the permission that seeds need.
fn kind(
    faults: &mut Faults,
    id: &str,
    node: Option<Node>,
    details: &mut Object,
    path: Path<'_>,
) -> FieldKind {
    let kind = name(faults, node, path.key("fieldType"));
    let details = label(faults, details.take("type"), path.key("details").key("type"));
    if is_one_time_password(&kind) || is_one_time_password(&details) {
        FieldKind::OneTimePassword
    } else if id == "notesPlain" {
        FieldKind::Notes
    } else if &*kind == "SshKey" || &*details == "SshKey" {
        FieldKind::PrivateKey
    } else {
        FieldKind::Plain
    }
}

/// What the core calls it, and the id and label it has elsewhere.
const PUBLIC_KEY: [(&str, &str, &str); 3] = [
    ("publicKey", "public_key", "public key"),
    ("fingerprint", "fingerprint", "fingerprint"),
    ("keyType", "key_type", "key type"),
];
