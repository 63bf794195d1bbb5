//! Tables of figures: printed for people, and as JSON for those who compare runs.

use std::path::Path;

use serde_json::{Map, Value, json};

/// What one bench found out.
pub struct Report {
    bench: &'static str,
    machine: Value,
    tables: Vec<Value>,
    notes: Vec<String>,
}

/// Rows under the same columns.
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    /// An empty one.
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; a figure that doesn't exist is `None`.
    pub fn row(&mut self, name: impl Into<String>, figures: Vec<Option<f64>>) {
        assert_eq!(figures.len(), self.columns.len(), "a row has as many figures as there are columns");
        self.rows.push((name.into(), figures));
    }

    fn print(&self) {
        let names = self.rows.iter().map(|(name, _)| name.chars().count());
        let width = names.chain([self.title.chars().count()]).max().unwrap_or(0);
        let head: Vec<String> = self.columns.iter().map(|column| format!("{column:>11}")).collect();
        println!("\n{:<width$} {}", self.title, head.join(" "));
        for (name, figures) in &self.rows {
            let figures: Vec<String> = figures
                .iter()
                .map(|figure| format!("{:>11}", figure.map_or("-".to_owned(), short)))
                .collect();
            println!("{name:<width$} {}", figures.join(" "));
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, figures)| {
            let mut row = Map::from_iter([("name".to_owned(), json!(name))]);
            row.extend(
                self.columns
                    .iter()
                    .zip(figures)
                    .map(|(column, figure)| ((*column).to_owned(), json!(figure))),
            );
            Value::Object(row)
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }
}

/// Three digits that mean something.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

impl Report {
    /// Begins with the machine, as no figure means anything without it.
    pub fn new(bench: &'static str, machine: Value) -> Self {
        println!("{bench}: {}", machine["summary"].as_str().unwrap_or_default());
        Self { bench, machine, tables: Vec::new(), notes: Vec::new() }
    }

    /// Prints and keeps a table.
    pub fn table(&mut self, table: &Table) {
        table.print();
        self.tables.push(table.json());
    }

    /// Prints and keeps a sentence, such as why a row is missing.
    pub fn note(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("{sentence}");
        self.notes.push(sentence);
    }

    /// Writes the JSON where it was asked for.
    pub fn finish(self, json: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = json else { return Ok(()) };
        let whole = json!({ "bench": self.bench, "machine": self.machine, "tables": self.tables, "notes": self.notes });
        fs_err::write(path, serde_json::to_vec_pretty(&whole)?)?;
        Ok(())
    }
}
