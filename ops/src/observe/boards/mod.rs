//! The dashboards. The files of `grafana/dashboards` are made of them: `quorate-lab dashboards grafana/dashboards`.

mod node;
mod overview;
mod replication;
mod requests;

use super::board::Board;

/// All of them, in the order in which one looks at them.
pub fn all() -> [Board; 4] {
    [overview::board(), requests::board(), replication::board(), node::board()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_files_are_what_the_code_makes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana/dashboards");
        let mut expected = BTreeSet::new();
        for board in all() {
            let name = format!("{}.json", board.uid);
            let text = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(text == board.text(), "{name} is not up to date: quorate-lab dashboards grafana/dashboards");
            expected.insert(name);
        }
        let there = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(there.collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn each_panel_says_what_it_shows_and_fits() {
        for board in all() {
            assert!(board.description.ends_with('.'), "{}", board.title);
            let titles: Vec<&str> = board.panels().map(|panel| panel.title).collect();
            assert_eq!(titles.iter().collect::<BTreeSet<_>>().len(), titles.len(), "{}: {titles:?}", board.title);
            for panel in board.panels() {
                let name = format!("{}: {}", board.title, panel.title);
                assert!(panel.description.ends_with('.') && panel.description.len() > 30, "{name} has no description");
                assert!(!panel.queries.is_empty() && panel.queries.len() <= 26 && panel.width <= 24, "{name}");
                for query in &panel.queries {
                    assert!(query.expression.contains("cluster=\"$cluster\""), "{name} is of all clusters");
                    assert!(!query.legend.is_empty(), "{name}: a series without a name");
                }
            }
        }
    }
}
