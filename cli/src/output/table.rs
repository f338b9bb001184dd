//! Aligned columns, as docker's: three spaces apart, at least as wide as their title.

/// Lays out rows; the last column is not padded.
pub fn layout(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if c + 1 < row.len() {
                let pad = widths[c] + 3 - cell.chars().count();
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let rows = [["ID", "NAME"], ["é", "longer"], ["abc", ""]].map(|r| r.map(String::from).to_vec());
        assert_eq!(layout(&rows), "ID    NAME\né     longer\nabc   \n");
        assert_eq!(layout(&[]), "");
    }
}
