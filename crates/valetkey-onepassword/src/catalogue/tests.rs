use proptest::prelude::*;
use proptest::sample::Index as Pick;
use valetkey_core::testing::reference;
use valetkey_core::{Attribute, Facet};

use super::*;
use crate::item::{FieldKind, Section, is_sayable};

fn id(letter: char, number: usize) -> Arc<str> {
    format!("{}{number:04}", String::from(letter).repeat(22)).into()
}

fn vault(number: usize, name: &str) -> Vault {
    Vault { id: id('v', number), name: name.into() }
}

fn item(vault: usize, number: usize, title: &str) -> ItemOutline {
    ItemOutline {
        vault_id: id('v', vault),
        id: id('i', number),
        title: title.into(),
        state: ItemState::Active,
        sections: vec![Section { id: "sec1".into(), label: "Admin".into() }],
        fields: vec![
            FieldOutline {
                id: "tok1".into(),
                label: "Token".into(),
                section: Some("sec1".into()),
                kind: FieldKind::Plain,
            },
            FieldOutline {
                id: "otp1".into(),
                label: "code".into(),
                section: None,
                kind: FieldKind::OneTimePassword,
            },
            FieldOutline { id: "anon1".into(), label: "".into(), section: None, kind: FieldKind::Plain },
        ],
    }
}

fn catalogue(vaults: &[Vault], items: Vec<ItemOutline>) -> Catalogue {
    Catalogue::new(vaults, items)
}

#[test]
fn all_spellings_of_a_field_are_one_target() {
    let catalogue =
        catalogue(&[vault(1, "Agents"), vault(2, "Other")], vec![item(1, 1, "GitHub"), item(2, 2, "GitHub")]);
    let (v, i) = (id('v', 1), id('i', 1));
    let expected = catalogue.locate(&reference(&format!("op://{v}/{i}/sec1/tok1")));
    let Target::Field(field) = &expected else { panic!("{expected:?}") };
    assert_eq!((&*field.field, &*field.section, &*field.item.name), ("token", "admin", "github"));
    assert!(field.vault.name_is_unique && field.item.name_is_unique);
    for spelling in [
        "op://agents/github/Admin/token".to_owned(),
        "op://AGENTS/GITHUB/ADMIN/TOKEN".into(),
        "op://agents/github/sec1/tok1".into(),
        "op://agents/github/Admin/tok1".into(),
        "op://agents/github/token".into(),
        format!("op://{v}/github/token"),
        format!("op://agents/{i}/tok1"),
    ] {
        assert_eq!(catalogue.locate(&reference(&spelling)), expected, "{spelling}");
    }
}

#[test]
fn facets_are_targets_of_their_own() {
    let catalogue = catalogue(&[vault(1, "v")], vec![item(1, 1, "i")]);
    let facet = |text: &str| match catalogue.locate(&reference(text)) {
        Target::Field(target) => Ok(target.facet),
        Target::Unresolved { error, .. } => Err(error),
        Target::Unknown { failure, .. } => Err(failure.error),
    };
    assert_eq!(facet("op://v/i/code"), Ok(Facet::Seed));
    assert_eq!(facet("op://v/i/code?attribute=otp"), Ok(Facet::Otp));
    assert_eq!(facet("op://v/i/code?attribute=totp"), Ok(Facet::Otp));
    assert_eq!(facet("op://v/i/token"), Ok(Facet::Value));
    assert_eq!(facet("op://v/i/token?attribute=otp"), Err(ResolveError::IncompatibleTotpQueryParameterField));
    assert_eq!(
        facet("op://v/i/token?ssh-format=openssh"),
        Err(ResolveError::IncompatibleSshKeyQueryParameterField)
    );
}

#[test]
fn a_dead_end_says_how_far_it_is_clear() {
    let archived = ItemOutline { state: ItemState::Inactive, ..item(1, 9, "Old") };
    let items = vec![item(1, 1, "Twin"), item(1, 2, "twin"), item(1, 3, "One"), archived];
    let catalogue = catalogue(&[vault(1, "Main"), vault(2, "Dup"), vault(3, "dup")], items);
    let check = |text: &str, clear: (Option<&str>, Option<&str>), expected: ResolveError| {
        let Target::Unresolved { vault, item, error } = catalogue.locate(&reference(text)) else {
            panic!("{text}")
        };
        assert_eq!(error, expected, "{text}");
        let names = (vault.as_ref().map(|it| &*it.name), item.as_ref().map(|it| &*it.name));
        assert_eq!(names, clear, "{text}");
    };
    use ResolveError::*;
    check("op://none/one/token", (None, None), VaultNotFound);
    check(&format!("op://{}/one/token", id('v', 1).to_uppercase()), (None, None), VaultNotFound);
    check("op://DUP/one/token", (None, None), TooManyVaults);
    check("op://main/none/token", (Some("main"), None), ItemNotFound);
    check("op://main/TWIN/token", (Some("main"), None), TooManyItems);
    check(&format!("op://{}/one/token", id('v', 2)), (Some("dup"), None), ItemNotFound);
    check("op://main/one/none/token", (Some("main"), Some("one")), NoMatchingSections);
    check("op://main/one/none", (Some("main"), Some("one")), FieldNotFound);
    check("op://main/old/token", (Some("main"), None), ItemNotFound);
    check(&format!("op://main/{}/token", id('i', 9)), (Some("main"), Some("old")), ItemNotActive);
}

#[test]
fn an_id_beats_a_name_that_equals_it() {
    let imposter = item(1, 2, &id('i', 1));
    let catalogue = catalogue(&[vault(1, "v"), vault(2, &id('v', 1))], vec![item(1, 1, "real"), imposter]);
    let target = catalogue.locate(&reference(&format!("op://{}/{}/token", id('v', 1), id('i', 1))));
    assert_eq!(target.item().map(|item| (&*item.name, item.name_is_unique)), Some(("real", true)));
    let imposter = catalogue.locate(&reference(&format!("op://v/{}/token", id('i', 2))));
    assert_eq!(imposter.item().map(|item| item.name_is_unique), Some(false));
}

#[test]
fn a_name_is_unique_only_where_it_can_mean_nothing_else() {
    let check = |names: &[&str], unique: &[bool]| {
        let vaults: Vec<_> = names.iter().enumerate().map(|(number, name)| vault(number, name)).collect();
        let items: Vec<_> = names.iter().enumerate().map(|(number, name)| item(0, number, name)).collect();
        let catalogue = catalogue(&vaults, items);
        let (v, i): (Vec<_>, Vec<_>) = (0..names.len())
            .map(|number| {
                let vault = catalogue.locate(&reference(&format!("op://{}/x/y", id('v', number))));
                let item =
                    catalogue.locate(&reference(&format!("op://{}/{}/y", id('v', 0), id('i', number))));
                (vault.vault().unwrap().name_is_unique, item.item().unwrap().name_is_unique)
            })
            .unzip();
        assert_eq!((&*v, &*i), (unique, unique), "{names:?}");
    };
    check(&["One", "Two"], &[true, true]);
    check(&["Same", "sAME", "Two"], &[false, false, true]);
    check(&["Münze", "MÜNZE"], &[false, false]);
    check(&["Münze", "a/b", "a ", ".", "a?b"], &[false; 5]);
    check(
        &["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXY0", "a-bcdefghijklmnopqrstuvwxy"],
        &[false, false, true],
    );
    // The Kelvin sign in lower case is a plain `k`.
    check(&["\u{212a}ey", "key"], &[false, false]);
}

#[test]
fn a_foreign_letter_is_reached_by_no_ascii_spelling() {
    let catalogue = catalogue(&[vault(1, "\u{212a}ey")], vec![item(1, 1, "i")]);
    assert_eq!(catalogue.locate(&reference("op://key/i/token")).vault(), None);
}

#[test]
fn an_archived_namesake_does_not_shadow_the_item_in_use() {
    let archived = ItemOutline { state: ItemState::Inactive, ..item(1, 1, "Key") };
    let catalogue = catalogue(&[vault(1, "v")], vec![archived, item(1, 2, "key")]);
    let target = catalogue.locate(&reference("op://v/key/token"));
    assert_eq!(target.item().map(|item| (&*item.id, item.name_is_unique)), Some((&*id('i', 2), true)));
    let archived = catalogue.locate(&reference(&format!("op://v/{}/token", id('i', 1))));
    assert_eq!(archived.item().map(|item| item.name_is_unique), Some(false));
}

#[test]
fn a_field_is_found_again_by_its_ids_alone() {
    let archived = ItemOutline { state: ItemState::Inactive, ..item(1, 2, "old") };
    let catalogue = catalogue(&[vault(1, "v"), vault(2, "w")], vec![item(1, 1, "i"), archived]);
    let target = catalogue.locate(&reference("op://v/i/anon1"));
    let target = target.field().unwrap();
    assert_eq!(&*target.field, "anon1", "a field without a label goes by its id");
    assert_eq!(catalogue.field(target).map(|field| &*field.id), Ok("anon1"));
    let named = |id: Arc<str>| Named { id, name: "i".into(), name_is_unique: true };
    let elsewhere = FieldTarget { vault: named(id('v', 2)), ..target.clone() };
    assert_eq!(catalogue.field(&elsewhere).map(|_| ()), Err(ResolveError::ItemNotFound));
    let inactive = FieldTarget { item: named(id('i', 2)), ..target.clone() };
    assert_eq!(catalogue.field(&inactive).map(|_| ()), Err(ResolveError::ItemNotActive));
    let other = FieldTarget { field_id: "ANON1".into(), ..target.clone() };
    assert_eq!(catalogue.field(&other).map(|_| ()), Err(ResolveError::FieldNotFound));
}

/// Names that meet each other: in case, as each other's ids, as aliases.
const HOSTILE: [&str; 12] = [
    "a",
    "A",
    "b",
    "notes",
    "notesPlain",
    "tok1",
    "sec1",
    "",
    "vvvvvvvvvvvvvvvvvvvvvv0000",
    "iiiiiiiiiiiiiiiiiiiiii0001",
    "\u{212a}",
    "k",
];

/// One vault, item, section or field for each number of each list: a small world full of namesakes.
#[derive(Debug, Clone)]
struct World {
    vaults: Vec<usize>,
    items: Vec<(Pick, usize, bool)>,
    sections: Vec<usize>,
    fields: Vec<(usize, Option<Pick>, FieldKind)>,
}

fn worlds() -> impl Strategy<Value = World> {
    let name = 0..HOSTILE.len();
    let kind = prop_oneof![
        4 => Just(FieldKind::Plain),
        1 => Just(FieldKind::Notes),
        1 => Just(FieldKind::OneTimePassword),
        1 => Just(FieldKind::PrivateKey),
        1 => Just(FieldKind::File),
    ];
    (
        prop::collection::vec(name.clone(), 1..4),
        prop::collection::vec((any::<Pick>(), name.clone(), prop::bool::weighted(0.9)), 1..6),
        prop::collection::vec(name.clone(), 0..4),
        prop::collection::vec((name, prop::option::of(any::<Pick>()), kind), 1..8),
    )
        .prop_map(|(vaults, items, sections, fields)| World { vaults, items, sections, fields })
}

impl World {
    /// The world with a suffix to each name; an empty one leaves namesakes, `#` and a number parts them.
    fn build(&self, name: impl Fn(&str, usize) -> String) -> (Vec<Vault>, Vec<ItemOutline>) {
        let named = |number: usize, name_at: usize| name(HOSTILE[name_at], number);
        let vaults = self.vaults.iter().enumerate().map(|(number, at)| vault(number, &named(number, *at)));
        let vaults: Vec<_> = vaults.collect();
        let items = self.items.iter().enumerate().map(|(number, (vault_at, at, active))| ItemOutline {
            state: if *active { ItemState::Active } else { ItemState::Inactive },
            sections: self.sections(&named),
            fields: self.fields(&named),
            ..item(vault_at.index(vaults.len()), number, &named(number, *at))
        });
        let items = items.collect();
        (vaults, items)
    }

    fn sections(&self, named: &impl Fn(usize, usize) -> String) -> Vec<Section> {
        let sections = self.sections.iter().enumerate();
        sections
            .map(|(n, at)| Section { id: format!("sec{n}").into(), label: named(n, *at).into() })
            .collect()
    }

    fn fields(&self, named: &impl Fn(usize, usize) -> String) -> Vec<FieldOutline> {
        let fields = self.fields.iter().enumerate().map(|(n, (at, section, kind))| FieldOutline {
            id: format!("tok{n}").into(),
            label: named(n, *at).into(),
            section: section
                .filter(|_| !self.sections.is_empty())
                .map(|section| format!("sec{}", section.index(self.sections.len())).into()),
            kind: *kind,
        });
        fields.collect()
    }
}

fn recased(text: &str, bits: u64) -> String {
    let flip = |(n, c): (usize, char)| {
        if bits >> (n % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
    };
    text.chars().enumerate().map(flip).collect()
}

/// Whether `text` is the id or, in any case, the name.
fn says(text: &str, id: &str, name: &str) -> bool {
    text == id || text.eq_ignore_ascii_case(name)
}

proptest! {
    /// Where names are apart, each spelling means what the ids mean.
    #[test]
    fn every_spelling_means_what_the_ids_mean(
        world in worlds(),
        (item_at, field_at) in any::<(Pick, Pick)>(),
        ids in any::<[bool; 4]>(),
        with_section in any::<bool>(),
        bits in any::<u64>(),
        otp in any::<bool>(),
    ) {
        let (vaults, items) = world.build(|name, number| {
            let plain: String = name.chars().filter(char::is_ascii).take(20).collect();
            format!("{plain}.{number}")
        });
        let item = &items[item_at.index(items.len())];
        let field = &item.fields[field_at.index(item.fields.len())];
        let vault = vaults.iter().find(|vault| vault.id == item.vault_id).unwrap();
        let section = field.section.as_ref().and_then(|id| item.sections.iter().find(|section| section.id == *id));

        let spell = |by_id: bool, id: &str, name: &str| if by_id { id.to_owned() } else { recased(name, bits) };
        let query = if otp { "?attribute=otp" } else { "" };
        let field_part = format!("{}{query}", spell(ids[3], &field.id, &field.label));
        let section_part = section.map(|section| format!("{}/", spell(ids[2], &section.id, &section.label)));
        let section_part = section_part.filter(|_| with_section).unwrap_or_default();
        let vault_part = spell(ids[0], &vault.id, &vault.name);
        // A title leads nowhere once its item is archived; then the id must do.
        let by_id = ids[1] || item.state == ItemState::Inactive;
        let item_part = spell(by_id, &item.id, &item.title);
        let spelling = reference(&format!("op://{vault_part}/{item_part}/{section_part}{field_part}"));
        let section_id = section.map(|section| format!("{}/", section.id)).unwrap_or_default();
        let canonical = reference(&format!("op://{}/{}/{section_id}{}{query}", vault.id, item.id, field.id));

        let is_active = item.state == ItemState::Active;
        let is_facet_right = !otp || field.kind == FieldKind::OneTimePassword;
        let catalogue = Catalogue::new(&vaults, items.iter().map(copy).collect());
        let target = catalogue.locate(&spelling);
        prop_assert_eq!(&target, &catalogue.locate(&canonical));
        prop_assert_eq!(target.field().is_some(), is_active && is_facet_right, "{:?}", target);
        if let Some(target) = target.field() {
            prop_assert_eq!(&target.field_id, &field.id);
            prop_assert!(target.vault.name_is_unique && target.item.name_is_unique);
        }
    }

    /// Among namesakes a reference means a field that it says, and no other field that it says as well.
    #[test]
    fn a_spelling_means_only_what_it_says(
        world in worlds(),
        (item_at, field_at) in any::<(Pick, Pick)>(),
        ids in any::<[bool; 4]>(),
        (with_section, otp, bits) in any::<(bool, bool, u64)>(),
    ) {
        let (vaults, items) = world.build(|name, _| name.to_owned());
        let item = &items[item_at.index(items.len())];
        let field = &item.fields[field_at.index(item.fields.len())];
        let vault = vaults.iter().find(|vault| vault.id == item.vault_id).unwrap();
        let section = item.sections.first().filter(|_| with_section);
        let word = |by_id: bool, id: &str, name: &str| match by_id || !is_sayable(name) {
            true => id.to_owned(),
            false => recased(name, bits),
        };
        let (vault_word, item_word) = (word(ids[0], &vault.id, &vault.name), word(ids[1], &item.id, &item.title));
        let section = section.map(|section| word(ids[2], &section.id, &section.label) + "/").unwrap_or_default();
        let query = if otp { "?attribute=totp" } else { "" };
        let field_word = word(ids[3], &field.id, &field.label);
        let asked = reference(&format!("op://{vault_word}/{item_word}/{section}{field_word}{query}"));
        let catalogue = Catalogue::new(&vaults, items.iter().map(copy).collect());
        let Target::Field(target) = catalogue.locate(&asked) else { return Ok(()) };

        let vault = vaults.iter().find(|vault| vault.id == target.vault.id).unwrap();
        let item = items.iter().find(|item| item.id == target.item.id).unwrap();
        let field = item.fields.iter().find(|field| field.id == target.field_id).unwrap();
        prop_assert!(item.vault_id == vault.id && item.state == ItemState::Active);
        prop_assert!(says(&vault_word, &vault.id, &vault.name));
        prop_assert!(says(&item_word, &item.id, &item.title));
        // Whatever else the words say must be beaten by an id.
        let rivals = vaults.iter().filter(|rival| says(&vault_word, &rival.id, &rival.name)).count();
        prop_assert!(rivals == 1 || *vault.id == *vault_word);
        let in_vault = items.iter().filter(|rival| rival.vault_id == vault.id && rival.state == ItemState::Active);
        let rivals = in_vault.filter(|rival| says(&item_word, &rival.id, &rival.title)).count();
        prop_assert!(rivals == 1 || *item.id == *item_word);

        let is_said = |field: &FieldOutline| {
            let is_notes = field.kind == FieldKind::Notes && (says(asked.field(), "notes", "notesPlain") || says(asked.field(), "", "notes"));
            let sections = item.sections.iter().filter(|section| Some(&section.id) == field.section.as_ref());
            let is_inside = match asked.section() {
                None => true,
                Some(word) => sections.clone().any(|section| says(word, &section.id, &section.label)),
            };
            (says(asked.field(), &field.id, &field.label) || is_notes) && is_inside
        };
        prop_assert!(is_said(field));
        let rivals: Vec<_> = item.fields.iter().filter(|rival| is_said(rival) && rival.id != field.id).collect();
        let is_titled = |field: &FieldOutline| !item.section_label(field).is_empty();
        prop_assert!(asked.section().is_none() && !is_titled(field) && rivals.iter().all(|rival| is_titled(rival)) || rivals.is_empty());
        prop_assert_eq!(target.facet == Facet::Otp, asked.attribute() == Some(Attribute::Otp));
    }
}

/// Outlines are not `Clone`: nothing but a test needs two.
fn copy(item: &ItemOutline) -> ItemOutline {
    ItemOutline {
        vault_id: Arc::clone(&item.vault_id),
        id: Arc::clone(&item.id),
        title: Arc::clone(&item.title),
        state: item.state,
        sections: item
            .sections
            .iter()
            .map(|it| Section { id: Arc::clone(&it.id), label: Arc::clone(&it.label) })
            .collect(),
        fields: item
            .fields
            .iter()
            .map(|it| FieldOutline {
                id: Arc::clone(&it.id),
                label: Arc::clone(&it.label),
                section: it.section.clone(),
                kind: it.kind,
            })
            .collect(),
    }
}

#[test]
fn an_outline_that_is_older_than_the_list_changes_no_name() {
    let check = |listed: &str, seconds: u64, title: &str| {
        let mut catalogue = catalogue(&[vault(1, "Agents")], Vec::new());
        let mut names = Names::default();
        names.insert(&id('i', 1), listed, true);
        catalogue.put_items(&id('v', 1), names, Duration::from_secs(5));
        catalogue.put_outline(item(1, 1, "Old").into(), Duration::from_secs(seconds));
        catalogue.put_outline(item(1, 2, "Gone").into(), Duration::from_secs(4));
        let name = catalogue.named(&id('v', 1), &id('i', 1)).ok().unwrap().1.name;
        assert_eq!(&*name, title, "{seconds}");
        assert!(catalogue.named(&id('v', 1), &id('i', 2)).is_err());
    };
    check("New", 4, "new");
    check("New", 5, "old");
}
