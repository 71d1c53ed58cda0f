//! Finding the class of a key, on every request, without an allocation.

use super::{Class, DEFAULT_CLASS};
use crate::error::{Error, Result};

/// All classes of a gate, `default` among them.
pub(crate) struct ClassSet {
    /// Most specific pattern first, so that the first match is the right one.
    classes: Vec<Class>,
    /// For each first byte of a key: the first class that could match it. With few classes this ends most
    /// searches at their first step.
    first: Box<[u16; 256]>,
}

impl ClassSet {
    /// Orders `classes`, adding `default` if it is not among them.
    pub(crate) fn new(mut classes: Vec<Class>) -> Result<Self> {
        for (i, class) in classes.iter().enumerate() {
            class.validate()?;
            if classes[..i].iter().any(|other| other.name == class.name) {
                return Err(Error::configuration(format_args!(
                    "class '{}' is defined twice",
                    class.name
                )));
            }
            if let Some(other) = classes[..i].iter().find(|o| o.keys == class.keys) {
                return Err(Error::configuration(format_args!(
                    "classes '{}' and '{}' have the same keys '{}'",
                    other.name, class.name, class.keys
                )));
            }
        }
        match classes.iter().find(|class| class.name == DEFAULT_CLASS) {
            None if classes.iter().any(|class| class.keys.as_str() == "*") => {
                return Err(Error::configuration(format_args!(
                    "only the class '{DEFAULT_CLASS}' may have the keys '*'"
                )));
            }
            None => classes.push(Class::default_class()),
            Some(class) if class.keys.as_str() != "*" => {
                return Err(Error::configuration(format_args!(
                    "class '{DEFAULT_CLASS}': keys must be '*', it has every key that no other class names"
                )));
            }
            Some(_) => {}
        }
        if classes.len() > usize::from(u16::MAX) {
            return Err(Error::configuration("more than 65535 classes"));
        }
        classes.sort_by_key(|class| std::cmp::Reverse(class.keys.rank()));
        let mut first = Box::new([0; 256]);
        for (byte, slot) in (0..=u8::MAX).zip(first.iter_mut()) {
            let at = classes
                .iter()
                .position(|class| class.keys.may_start_with(byte));
            *slot = at.and_then(|at| u16::try_from(at).ok()).unwrap_or(0);
        }
        Ok(Self { classes, first })
    }

    /// The index of the class of `key`.
    pub(crate) fn find(&self, key: &[u8]) -> usize {
        let from = key
            .first()
            .map_or(0, |byte| usize::from(self.first[usize::from(*byte)]));
        let last = self.classes.len() - 1;
        self.classes[from..last]
            .iter()
            .position(|class| class.keys.matches(key))
            .map_or(last, |at| from + at)
    }

    /// The classes, most specific first, `default` last.
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(set: &ClassSet, key: &str) -> String {
        set.classes()[set.find(key.as_bytes())].name.clone()
    }

    #[test]
    fn the_longest_literal_prefix_wins_and_default_has_the_rest() {
        let set = ClassSet::new(vec![
            Class::new("user", "user:*"),
            Class::new("cart", "user:*:cart"),
            Class::new("admin", "user:admin:*"),
            Class::new("root", "user:admin:root"),
            Class::new("tail", "*:tail"),
        ])
        .unwrap();
        assert_eq!(find(&set, "user:1"), "user");
        assert_eq!(find(&set, "user:1:cart"), "cart");
        assert_eq!(find(&set, "user:admin:x"), "admin");
        assert_eq!(find(&set, "user:admin:root"), "root");
        assert_eq!(find(&set, "x:tail"), "tail");
        assert_eq!(find(&set, "use"), "default");
        assert_eq!(find(&set, ""), "default");
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let refused = |classes| {
            ClassSet::new(classes)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        assert!(refused(vec![Class::new("a", "x*"), Class::new("a", "y*")]).contains("'a'"));
        assert!(refused(vec![Class::new("a", "x*"), Class::new("b", "x*")]).contains("'x*'"));
        assert!(refused(vec![Class::new("a", "*")]).contains("default"));
        assert!(refused(vec![Class::new("default", "x*")]).contains("keys"));
        assert!(refused(vec![Class::new("no good", "x*")]).contains("name"));
    }
}
