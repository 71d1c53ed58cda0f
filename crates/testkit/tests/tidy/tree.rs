//! The files of the project, without what is made from them.

use std::path::{Path, PathBuf};

/// A file with its path from the root, `/` between its parts.
pub(crate) struct File {
    pub(crate) path: String,
    full: PathBuf,
}

impl File {
    /// Its text; nothing if it is not text.
    pub(crate) fn text(&self) -> Option<String> {
        String::from_utf8(std::fs::read(&self.full).unwrap()).ok()
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

pub(crate) fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap().to_owned()
}

/// Every file of the project, in order.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let full = entry.unwrap().path();
            let name = full.file_name().unwrap().to_str().unwrap();
            let made = ["target", "tidegate-data", "__pycache__"].contains(&name);
            let hidden = name.starts_with('.') && ![".ci", ".gitignore"].contains(&name);
            if made || hidden {
                continue;
            }
            if full.is_dir() {
                folders.push(full);
                continue;
            }
            let path = full.strip_prefix(&root).unwrap();
            let path = path.to_str().unwrap().to_owned();
            found.push(File { path, full });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|file| file.path == "Cargo.toml"));
    found
}

/// The text of a file at the root.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
