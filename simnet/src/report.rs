//! What a scenario has to say: a table, remarks, and plots.

use std::fmt;

/// The result of a scenario.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    plots: Vec<(String, String)>,
}

impl Report {
    /// An empty table under these headings.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
            plots: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a remark below the table.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds a plot: its name, and SVG.
    pub fn plot(&mut self, name: &str, svg: String) {
        self.plots.push((name.to_owned(), svg));
    }

    /// The plots, by name.
    pub fn plots(&self) -> &[(String, String)] {
        &self.plots
    }
}

/// A table that reads well on a terminal and is Markdown too.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        let width = |column: usize| {
            self.rows
                .iter()
                .chain([&self.columns])
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:>width$} ")?;
            }
            writeln!(f, "|")
        };
        line(f, &self.columns)?;
        for width in &widths {
            write!(f, "|{}:", "-".repeat(width + 1))?;
        }
        writeln!(f, "|")?;
        for row in &self.rows {
            line(f, row)?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let mut report = Report::new("Title", &["a", "longer"]);
        report.row(["100".to_owned(), "x".to_owned()]);
        report.note("Remark.".to_owned());
        assert_eq!(
            report.to_string(),
            "### Title\n\n|   a | longer |\n|----:|-------:|\n| 100 |      x |\n\nRemark.\n"
        );
    }
}
