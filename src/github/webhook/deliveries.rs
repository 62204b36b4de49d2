//! The deliveries that were heard, so that none counts twice.

use std::collections::{BTreeSet, VecDeque};

use super::signature::Tag;

/// How many are remembered. A busy organization makes some per second.
const MOST: usize = 4096;

/// The latest deliveries, by id and by signature. The id is not signed: whoever repeats a delivery could give it another,
/// but not another body. GitHub keeps both when it delivers again.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    ids: BTreeSet<String>,
    tags: BTreeSet<Tag>,
    order: VecDeque<(String, Tag)>,
}

impl Deliveries {
    /// Remembers a delivery; false when it is known.
    pub(super) fn note(&mut self, id: &str, tag: Tag) -> bool {
        if self.ids.contains(id) || self.tags.contains(&tag) {
            return false;
        }
        self.ids.insert(id.to_owned());
        self.tags.insert(tag);
        self.order.push_back((id.to_owned(), tag));
        if self.order.len() > MOST
            && let Some((id, tag)) = self.order.pop_front()
        {
            self.ids.remove(&id);
            self.tags.remove(&tag);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: usize) -> Tag {
        let mut tag = Tag::default();
        tag[..8].copy_from_slice(&number.to_le_bytes());
        tag
    }

    #[test]
    fn one_that_comes_again_is_known_by_its_id_and_by_its_signature() {
        let mut heard = Deliveries::default();
        assert!(heard.note("a", tag(1)));
        assert!(!heard.note("a", tag(1)));
        assert!(!heard.note("b", tag(1)), "the id is not signed");
        assert!(!heard.note("a", tag(2)));
        assert!(heard.note("b", tag(2)));
    }

    #[test]
    fn the_oldest_are_forgotten_so_that_memory_is_bounded() {
        let mut heard = Deliveries::default();
        for number in 0..MOST + 10 {
            assert!(heard.note(&number.to_string(), tag(number)));
        }
        let sizes = [heard.ids.len(), heard.tags.len(), heard.order.len()];
        assert_eq!(sizes, [MOST; 3]);
        assert!(!heard.note(&(MOST + 9).to_string(), tag(MOST + 9)));
        assert!(heard.note("0", tag(0)));
    }
}
