//! One thing wrong with a configuration: where, which key, why.

use std::fmt;

/// A key that cannot be taken as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// The line in the file, from 1; 0 if the value came from the command line or is a default.
    pub(crate) line: usize,
    /// The key with the path to it, such as `server.listen` or `class[1].ttl`; empty where the file is no TOML.
    pub(crate) key: String,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong with a configuration, in the order of the lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problems {
    /// The file, or what stands for it.
    pub(crate) source: String,
    /// At least one.
    pub(crate) list: Vec<Problem>,
}

/// One line for each problem, `FILE:LINE: key: message`, as compilers print and editors jump to.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.list.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match problem.line {
                0 => write!(f, "{}: {problem}", self.source)?,
                line => write!(f, "{}:{line}: {problem}", self.source)?,
            }
        }
        Ok(())
    }
}
