//! `weir pc settings`: every mesh-wide setting in force, and its default.

use model::Settings;
use registry::Dump;
use serde::Serialize;
use serde_json::Value;

use super::Row;

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SettingRow {
    /// As a MeshConfig spells it.
    pub setting: String,
    /// The value in force.
    pub value: String,
    /// What it is where nothing is said.
    pub default: String,
    /// Whether a service may have its own, by the annotation `weir.dev/…`.
    pub annotation: Option<String>,
}

impl Row for SettingRow {
    const COLUMNS: &'static [&'static str] = &["SETTING", "VALUE", "DEFAULT", "ANNOTATION OF A SERVICE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.setting.clone(),
            self.value.clone(),
            self.default.clone(),
            self.annotation.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// The rows, sorted by name; those that services may override first.
///
/// # Errors
/// Where settings cannot be written as JSON.
pub fn settings(dump: &Dump) -> serde_json::Result<Vec<SettingRow>> {
    let now = serde_json::to_value(&dump.settings)?;
    let default = serde_json::to_value(Settings::default())?;
    let mut rows = rows(&now["policy"], &default["policy"], true);
    rows.extend(self::rows(&now, &default, false));
    Ok(rows)
}

fn rows(now: &Value, default: &Value, of_service: bool) -> Vec<SettingRow> {
    let fields = now.as_object().into_iter().flatten();
    let plain = fields.filter(|(_, value)| !value.is_object());
    plain
        .map(|(name, value)| SettingRow {
            setting: spelt(name, |word| word[..1].to_uppercase() + &word[1..]),
            value: text(name, value),
            default: text(name, &default[name.as_str()]),
            annotation: of_service.then(|| format!("weir.dev/{}", name.replace('_', "-"))),
        })
        .collect()
}

/// `connect_timeout` in other spellings: words after the first as `later` makes them.
fn spelt(name: &str, later: impl Fn(&str) -> String) -> String {
    let mut words = name.split('_').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &later(word))
}

/// As a MeshConfig spells it: sizes in the largest unit that divides them.
fn text(name: &str, value: &Value) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    if let Some(bytes) = value
        .as_u64()
        .filter(|&bytes| bytes > 0 && name.ends_with("_bytes"))
        && let Some((unit, suffix)) = UNITS.iter().find(|(unit, _)| bytes % unit == 0)
    {
        return format!("{}{suffix}", bytes / unit);
    }
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
