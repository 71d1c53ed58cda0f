//! Two things that cannot both be.

use std::fmt;

use tidegate_core::Key;

use super::operation::Operation;

/// A contradiction: an invariant, and the operations that cannot both be as they were answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant, by its number.
    pub invariant: &'static str,
    /// The key.
    pub key: Key,
    /// What is wrong, in words.
    pub what: String,
    /// The operation that went wrong, if it is one.
    pub wrong: Option<Box<Operation>>,
    /// The operation that it contradicts, if it is one.
    pub against: Option<Box<Operation>>,
}

impl Violation {
    pub(super) fn new(invariant: &'static str, key: &Key, what: impl Into<String>) -> Self {
        Self {
            invariant,
            key: key.clone(),
            what: what.into(),
            wrong: None,
            against: None,
        }
    }

    pub(super) fn of(invariant: &'static str, wrong: &Operation, what: impl Into<String>) -> Self {
        let mut violation = Self::new(invariant, &wrong.key, what);
        violation.wrong = Some(Box::new(wrong.clone()));
        violation
    }

    pub(super) fn against(mut self, other: Option<&Operation>) -> Self {
        self.against = other.map(|other| Box::new(other.clone()));
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of '{}': {}", self.invariant, self.key, self.what)?;
        if let Some(wrong) = &self.wrong {
            write!(f, ": {wrong}")?;
        }
        if let Some(against) = &self.against {
            write!(f, "; against: {against}")?;
        }
        Ok(())
    }
}
