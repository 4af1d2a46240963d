//! The published form of the Events API, to hold answers against.

use serde_json::Value;

/// Holds a value against a thing of that name in version 1 or 2: no field that is not published, each of its type, and
/// no other words than the published ones.
///
/// # Errors
/// The path of what is not so.
pub fn hold(version: u8, name: &str, value: &Value) -> Result<(), String> {
    let contract = if version == 1 { V1 } else { V2 };
    thing(contract, name, value).map_err(|fault| format!("{name}{fault}: {value}"))
}

fn thing(contract: &str, name: &str, value: &Value) -> Result<(), String> {
    let fields: Vec<(&str, &str)> = contract
        .lines()
        .skip_while(|line| *line != name)
        .skip(1)
        .map_while(|line| line.strip_prefix("  ")?.split_once(' '))
        .collect();
    if fields.is_empty() {
        return Err(" is not published".to_owned());
    }
    let object = value.as_object().ok_or(" is no object")?;
    for (field, value) in object {
        let sort = fields.iter().find(|(known, _)| known == field).map(|(_, sort)| *sort);
        let sort = sort.ok_or_else(|| format!(".{field} is not published"))?;
        of_sort(contract, sort, value).map_err(|fault| format!(".{field}{fault}"))?;
    }
    Ok(())
}

fn of_sort(contract: &str, sort: &str, value: &Value) -> Result<(), String> {
    let holds = match sort {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "time" => value.as_str().is_some_and(|text| {
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).is_ok()
        }),
        _ => match sort.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(each) => {
                let items = value.as_array().ok_or(" is no array")?;
                return items.iter().try_for_each(|item| of_sort(contract, each, item));
            }
            None if sort.contains('|') => {
                value.as_str().is_some_and(|text| sort.split('|').any(|word| word == text))
            }
            None => return thing(contract, sort, value),
        },
    };
    if holds { Ok(()) } else { Err(format!(" is no {sort}")) }
}

const V1: &str = include_str!("../testdata/events-v1.txt");
const V2: &str = include_str!("../testdata/events-v2.txt");
