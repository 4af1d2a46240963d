//! Items in the `FullItem` form of 1Password Connect, read into the item model.
//!
//! Every key of the form is known; those that nothing here needs are accepted and dropped. Other keys are
//! faults of a file: they are typing errors. A server is read with [`Faults::tolerant`]: what it says beyond
//! the form is dropped, and names that no reference can say lead nowhere rather than being faults. What
//! would make a reference mean another thing, such as an id given twice, is refused of both.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use data_encoding::BASE64;
use valetkey_core::{SecretValue, scrub};
use zeroize::Zeroizing;

use crate::item::{
    FieldKind, FieldOutline, ItemOutline, ItemState, ItemValues, Section, Vault, is_id, is_sayable,
};
use crate::json::{Faults, Node, Object, Path};
use crate::upstream::ItemSummary;

/// The content of a vault file.
pub(crate) struct VaultContent {
    pub(crate) vaults: Vec<Vault>,
    pub(crate) items: Vec<(ItemOutline, ItemValues)>,
}

/// Reads a whole file. What it gives is good only where `faults` stays empty.
pub(crate) fn content(faults: &mut Faults, node: Node) -> VaultContent {
    let mut object = faults.object(Some(node), Path::Root, &["vaults", "items"]);
    let mut ids = HashSet::new();
    let above = Path::Root.key("vaults");
    let nodes = required(faults, object.take("vaults"), above);
    let nodes = faults.list(nodes, above, VAULTS_MAX).into_iter().enumerate();
    let vaults: Vec<_> =
        nodes.map(|(index, node)| vault(faults, &mut ids, node, above.index(index))).collect();
    let above = Path::Root.key("items");
    let nodes = required(faults, object.take("items"), above);
    let nodes = faults.list(nodes, above, ITEMS_MAX).into_iter().enumerate();
    let items: Vec<_> = nodes.map(|(index, node)| item(faults, &mut ids, node, above.index(index))).collect();
    let known: HashSet<_> = vaults.iter().map(|vault| &vault.id).collect();
    for (index, (outline, _)) in items.iter().enumerate() {
        if !known.contains(&outline.vault_id) {
            faults.note(above.index(index).key("vault").key("id"), "is the id of no vault of the file");
        }
    }
    VaultContent { vaults, items }
}

/// Reads a vault.
pub(crate) fn vault(faults: &mut Faults, ids: &mut HashSet<Arc<str>>, node: Node, path: Path<'_>) -> Vault {
    let mut object = faults.object(Some(node), path, VAULT_KEYS);
    let id = global_id(faults, object.take("id"), path.key("id"));
    unique(faults, ids, &id, path.key("id"));
    Vault { id, name: title(faults, object.take("name"), path.key("name")) }
}

/// Reads a server's list of vaults, with what each of them is read by.
pub(crate) fn vault_list(
    faults: &mut Faults,
    node: Node,
    read: impl FnMut(&mut Faults, Node, Path<'_>) -> Vault,
) -> Vec<Vault> {
    let nodes = faults.list(Some(node), Path::Root, VAULTS_MAX);
    let mut ids = HashSet::new();
    let vaults = faults.each(nodes, Path::Root, read).into_iter();
    let checked = vaults.map(|(index, vault)| {
        unique(faults, &mut ids, &vault.id, Path::Root.index(index).key("id"));
        vault
    });
    checked.collect()
}

/// Reads a server's list of the items of a vault, with what each of them is read by.
pub(crate) fn item_list(
    faults: &mut Faults,
    node: Node,
    read: impl FnMut(&mut Faults, Node, Path<'_>) -> ItemSummary,
) -> Vec<ItemSummary> {
    let nodes = faults.list(Some(node), Path::Root, ITEMS_MAX);
    let mut ids = HashSet::new();
    let items = faults.each(nodes, Path::Root, read).into_iter();
    let checked = items.map(|(index, item)| {
        unique(faults, &mut ids, &item.id, Path::Root.index(index).key("id"));
        item
    });
    checked.collect()
}

/// Reads an item with its values.
pub(crate) fn item(
    faults: &mut Faults,
    ids: &mut HashSet<Arc<str>>,
    node: Node,
    path: Path<'_>,
) -> (ItemOutline, ItemValues) {
    let mut object = faults.object(Some(node), path, ITEM_KEYS);
    let ItemHead { vault_id, id, title, state } = head(faults, ids, &mut object, path);
    let category = required(faults, object.take("category"), path.key("category"));
    let category = one_of(faults, category, path.key("category"), CATEGORIES);
    let version = faults.number(object.take("version"), path.key("version"));

    let sections = sections(faults, object.take("sections"), path.key("sections"));
    let mut reader = FieldReader {
        is_ssh_key: category == Some("SSH_KEY"),
        section_ids: sections.iter().map(|section| Arc::clone(&section.id)).collect(),
        ids: HashSet::new(),
        outlines: Vec::new(),
        values: HashMap::new(),
    };
    reader.fields(faults, object.take("fields"), path.key("fields"));
    reader.files(faults, object.take("files"), path.key("files"));
    let FieldReader { outlines: fields, values: by_field, .. } = reader;
    (ItemOutline { vault_id, id, title, state, sections, fields }, ItemValues { version, by_field })
}

/// What an item says of itself before its fields.
pub(crate) struct ItemHead {
    pub(crate) vault_id: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) title: Arc<str>,
    pub(crate) state: ItemState,
}

/// Reads an item of a vault's list, which has no fields.
pub(crate) fn summary(
    faults: &mut Faults,
    ids: &mut HashSet<Arc<str>>,
    node: Node,
    path: Path<'_>,
) -> ItemHead {
    let mut object = faults.object(Some(node), path, ITEM_KEYS);
    head(faults, ids, &mut object, path)
}

fn head(faults: &mut Faults, ids: &mut HashSet<Arc<str>>, object: &mut Object, path: Path<'_>) -> ItemHead {
    let id = global_id(faults, object.take("id"), path.key("id"));
    unique(faults, ids, &id, path.key("id"));
    let title = title(faults, object.take("title"), path.key("title"));
    let vault_path = path.key("vault");
    let mut vault = faults.object(object.take("vault"), vault_path, &["id"]);
    let vault_id = global_id(faults, vault.take("id"), vault_path.key("id"));
    let state = object.take("state");
    // Whatever the word is: what a server calls anything at all is not simply in use.
    let is_inactive = state.is_some();
    one_of(faults, state, path.key("state"), &["ARCHIVED", "DELETED"]);
    let is_trashed = faults.flag(object.take("trashed"), path.key("trashed"));
    let state = if is_inactive || is_trashed { ItemState::Inactive } else { ItemState::Active };
    ItemHead { vault_id, id, title, state }
}

fn sections(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Vec<Section> {
    let mut ids = HashSet::new();
    let mut sections = Vec::new();
    for (index, node) in faults.list(node, path, FIELDS_MAX).into_iter().enumerate() {
        let path = path.index(index);
        let mut object = faults.object(Some(node), path, &["id", "label"]);
        let id = local_id(faults, object.take("id"), path.key("id"));
        unique(faults, &mut ids, &id, path.key("id"));
        let label = label(faults, object.take("label"), path.key("label"));
        sections.push(Section { id, label });
    }
    sections
}

/// Reads the fields and files of one item.
struct FieldReader {
    is_ssh_key: bool,
    section_ids: HashSet<Arc<str>>,
    ids: HashSet<Arc<str>>,
    outlines: Vec<FieldOutline>,
    values: HashMap<Arc<str>, SecretValue>,
}

impl FieldReader {
    fn fields(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        for (index, node) in faults.list(node, path, FIELDS_MAX).into_iter().enumerate() {
            let path = path.index(index);
            let mut object = faults.object(Some(node), path, FIELD_KEYS);
            let id = self.id(faults, object.take("id"), path.key("id"));
            let label = label(faults, object.take("label"), path.key("label"));
            let section = self.section(faults, object.take("section"), path.key("section"));
            let kind = self.kind(faults, object.take("type"), object.take("purpose"), (&id, &label), path);
            if faults.flag(object.take("generate"), path.key("generate")) && !faults.is_tolerant() {
                faults.note(path.key("generate"), "cannot be done here: give a value");
            }
            let value = faults.text(object.take("value"), path.key("value"), VALUE_MAX);
            let value = value.map_or_else(Vec::new, |mut value| std::mem::take(&mut *value).into_bytes());
            if self.ids.contains(&id) {
                self.values.insert(Arc::clone(&id), SecretValue::new(value));
            }
            self.outlines.push(FieldOutline { id, label, section, kind });
        }
    }

    fn files(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) {
        for (index, node) in faults.list(node, path, FIELDS_MAX).into_iter().enumerate() {
            let path = path.index(index);
            let mut object = faults.object(Some(node), path, FILE_KEYS);
            let id = self.id(faults, object.take("id"), path.key("id"));
            let label = title(faults, object.take("name"), path.key("name"));
            let section = self.section(faults, object.take("section"), path.key("section"));
            if let Some(content) = content_bytes(faults, object.take("content"), path.key("content")) {
                self.values.insert(Arc::clone(&id), SecretValue::new(content));
            }
            self.outlines.push(FieldOutline { id, label, section, kind: FieldKind::File });
        }
    }

    /// One that no reference can say is no target's: its field has no value here, and counts only where its
    /// label makes another's ambiguous.
    fn id(&mut self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
        let id = local_id(faults, node, path);
        if is_sayable(&id) {
            unique(faults, &mut self.ids, &id, path);
        }
        id
    }

    fn section(&self, faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Option<Arc<str>> {
        let mut object = faults.object(Some(node?), path, &["id"]);
        let id = title(faults, object.take("id"), path.key("id"));
        if id.is_empty() && faults.is_tolerant() {
            return None;
        }
        if !id.is_empty() && !self.section_ids.contains(&id) {
            faults.note(path.key("id"), "is the id of no section of the item");
        }
        Some(id)
    }

    fn kind(
        &self,
        faults: &mut Faults,
        kind: Option<Node>,
        purpose: Option<Node>,
        (id, label): (&str, &str),
        path: Path<'_>,
    ) -> FieldKind {
        let kind = name(faults, kind, path.key("type"));
        let purpose = one_of(faults, purpose, path.key("purpose"), PURPOSES);
        let is_private_key = id == "private_key" || label.eq_ignore_ascii_case("private key");
        match purpose {
            // A seed stays a seed, whatever else somebody writes beside it.
            _ if is_one_time_password(&kind) => FieldKind::OneTimePassword,
            Some("NOTES") => FieldKind::Notes,
            _ if id == "notesPlain" => FieldKind::Notes,
            _ if self.is_ssh_key && is_private_key => FieldKind::PrivateKey,
            _ => FieldKind::Plain,
        }
    }
}

/// `TOTP` stands in the published form, `OTP` is what servers send. In any case: a seed that passes for plain
/// text could be had without the permission that seeds need. Types that are not known are plain text.
pub(crate) fn is_one_time_password(kind: &str) -> bool {
    ["OTP", "TOTP"].iter().any(|known| known.eq_ignore_ascii_case(kind))
}

/// The content of a file, where it is inside: a server keeps it for another question.
fn content_bytes(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Option<Vec<u8>> {
    let node = if faults.is_tolerant() { node } else { required(faults, node, path) };
    let base64 = faults.text(node, path, VALUE_MAX / 3 * 4 + 4)?;
    let content = BASE64.decode(base64.as_bytes()).ok();
    if content.is_none() {
        faults.note(path, "must be base64");
    }
    content
}

/// The id of a vault or an item.
pub(crate) fn global_id(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    let id = name(faults, node, path);
    if !id.is_empty() && !is_id(&id) {
        faults.note(path, "must be 26 characters of `a-z` and `0-9`");
    }
    id
}

/// The id of a section, a field or a file: whatever its label, a reference can reach it by its id. Forms of web
/// pages leave ids behind that no reference can say; from a server they are taken.
pub(crate) fn local_id(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    let id = name(faults, node, path);
    if !id.is_empty() && !is_sayable(&id) && !faults.is_tolerant() {
        faults.note(path, "must consist of letters, digits, blanks and `_` `.` `-`");
    }
    id
}

/// A text that must be there.
pub(crate) fn name(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    let node = required(faults, node, path);
    if matches!(&node, Some(Node::Text(text)) if text.is_empty()) {
        faults.note(path, "must not be empty");
    }
    label(faults, node, path)
}

/// A name that people give. A file's must be there; with a server, a thing without one is reached by its id.
fn title(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    if faults.is_tolerant() { label(faults, node, path) } else { name(faults, node, path) }
}

/// A text that may be absent or empty. It goes to logs and policies, so it has no control characters: a
/// server's are escaped, and no reference can say an escape.
pub(crate) fn label(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    let label = faults.text(node, path, NAME_MAX).unwrap_or_default();
    if label.chars().any(char::is_control) {
        if faults.is_tolerant() {
            return scrub(&label, NAME_MAX).into();
        }
        faults.note(path, "must not have control characters");
    }
    label.as_str().into()
}

pub(crate) fn required(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Option<Node> {
    if node.is_none() {
        faults.note(path, "is missing");
    }
    node
}

fn one_of<'a>(faults: &mut Faults, node: Option<Node>, path: Path<'_>, known: &[&'a str]) -> Option<&'a str> {
    let text: Zeroizing<String> = faults.text(node, path, NAME_MAX)?;
    let found = known.iter().find(|known| **known == *text);
    if found.is_none() && !faults.is_tolerant() {
        faults.note(path, "is none of the values that the form allows");
    }
    found.copied()
}

pub(crate) fn unique(faults: &mut Faults, ids: &mut HashSet<Arc<str>>, id: &Arc<str>, path: Path<'_>) {
    if !id.is_empty() && !ids.insert(Arc::clone(id)) {
        faults.note(path, "is given to more than one thing");
    }
}

pub(crate) const VAULTS_MAX: usize = 1_000;
pub(crate) const ITEMS_MAX: usize = 10_000;
pub(crate) const FIELDS_MAX: usize = 1_000;
/// In bytes.
const NAME_MAX: usize = 1_024;
/// In bytes.
pub(crate) const VALUE_MAX: usize = 1 << 20;

const VAULT_KEYS: &[&str] = &[
    "id",
    "name",
    "description",
    "attributeVersion",
    "contentVersion",
    "items",
    "type",
    "createdAt",
    "updatedAt",
];
const ITEM_KEYS: &[&str] = &[
    "id",
    "title",
    "vault",
    "category",
    "urls",
    "favorite",
    "tags",
    "version",
    "state",
    "trashed",
    "createdAt",
    "updatedAt",
    "lastEditedBy",
    "sections",
    "fields",
    "files",
];
/// `totp` is the code of the moment at which a server was asked: of no use afterwards.
const FIELD_KEYS: &[&str] =
    &["id", "section", "type", "purpose", "label", "value", "generate", "recipe", "entropy", "totp"];
const FILE_KEYS: &[&str] = &["id", "name", "size", "content_path", "section", "content"];
const PURPOSES: &[&str] = &["", "USERNAME", "PASSWORD", "NOTES"];
const CATEGORIES: &[&str] = &[
    "LOGIN",
    "PASSWORD",
    "API_CREDENTIAL",
    "SERVER",
    "DATABASE",
    "CREDIT_CARD",
    "MEMBERSHIP",
    "PASSPORT",
    "SOFTWARE_LICENSE",
    "OUTDOOR_LICENSE",
    "SECURE_NOTE",
    "WIRELESS_ROUTER",
    "BANK_ACCOUNT",
    "DRIVER_LICENSE",
    "IDENTITY",
    "REWARD_PROGRAM",
    "DOCUMENT",
    "EMAIL_ACCOUNT",
    "SOCIAL_SECURITY_NUMBER",
    "MEDICAL_RECORD",
    "SSH_KEY",
    "CUSTOM",
];
