//! Tables for people: columns as wide as their widest cell, two spaces between them, the last one ragged.

use terminal_size::{Width, terminal_size_of};

/// Renders `rows` under `head`, one line each.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(line(head))
        .chain(rows.iter().map(|row| line(row.each_ref().map(String::as_str))))
        .collect()
}

/// Cuts lines that are wider than the terminal on standard output, so that a table stays one; leaves the text as
/// it is where that is no terminal.
pub fn fit_terminal(text: &str) -> String {
    match terminal_width() {
        Some(width) => cut(text, width),
        None => text.to_owned(),
    }
}

fn terminal_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(std::io::stdout())?;
    Some(usize::from(columns))
}

fn cut(text: &str, width: usize) -> String {
    let line = |line: &str| match line.char_indices().nth(width) {
        Some(_) => line
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…', '\n'])
            .collect(),
        None => line.to_owned() + "\n",
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "b".into()], ["long one".into(), "c".into()]];
        assert_eq!(
            table(["X", "Y"], &rows),
            "X         Y\na         b\nlong one  c\n"
        );
    }

    #[test]
    fn lines_wider_than_the_terminal_are_cut_with_a_mark() {
        assert_eq!(cut("12345\n123456\n", 5), "12345\n1234…\n");
    }
}
