//! The scripts: one for each transition of the port. A server is told their text once and then knows them by hash.
//!
//! Each is the text of what it needs to know (numbers, the shard's generation, the entry) and its own. All keys it
//! touches are declared, and in one shard. All is looked at before the first write, since nothing is undone. Those that
//! store what a caller brings are refused before they begin where Redis has no room. None is let run by a replica.

/// The text of a script, and its hash.
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().to_owned(),
        }
    }
}

/// Those that must also run where there is no room: what they do makes room, ends something or is small.
macro_rules! always {
    ($($file:literal),+) => {
        concat!("#!lua flags=allow-oom\n", include_str!("lua/numbers.lua"), $(include_str!(concat!("lua/", $file))),+)
    };
}

macro_rules! with_room {
    ($($file:literal),+) => {
        concat!("#!lua\n", include_str!("lua/numbers.lua"), $(include_str!(concat!("lua/", $file))),+)
    };
}

/// All scripts, with the hashes of their texts.
pub(super) struct Scripts {
    pub(super) ask: Script,
    pub(super) fill: Script,
    pub(super) mark: Script,
    pub(super) release: Script,
    pub(super) sweep: Script,
    pub(super) invalidate: Script,
    pub(super) evict: Script,
    pub(super) leftovers: Script,
    pub(super) void: Script,
    pub(super) open_generation: Script,
    pub(super) open: Script,
    pub(super) put: Script,
    pub(super) due: Script,
    pub(super) claim: Script,
    pub(super) settle: Script,
    pub(super) parked: Script,
    pub(super) look: Script,
    pub(super) unpark: Script,
    pub(super) replay: Script,
    pub(super) figures: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = Script::new;
        Self {
            ask: script(always!("meta.lua", "entry.lua", "ask.lua")),
            fill: script(with_room!("meta.lua", "entry.lua", "fill.lua")),
            mark: script(with_room!(
                "meta.lua",
                "entry.lua",
                "quarantine.lua",
                "mark.lua"
            )),
            release: script(always!(
                "meta.lua",
                "entry.lua",
                "quarantine.lua",
                "release.lua"
            )),
            sweep: script(always!(
                "meta.lua",
                "entry.lua",
                "quarantine.lua",
                "sweep.lua"
            )),
            invalidate: script(always!(
                "meta.lua",
                "entry.lua",
                "outdate.lua",
                "invalidate.lua"
            )),
            evict: script(always!("meta.lua", "entry.lua", "evict.lua")),
            leftovers: script(always!("meta.lua", "leftovers.lua")),
            void: script(always!("meta.lua", "entry.lua", "void.lua")),
            open_generation: script(always!("open_generation.lua")),
            open: script(always!("meta.lua", "open.lua")),
            put: script(with_room!("meta.lua", "entry.lua", "dirty.lua", "put.lua")),
            due: script(always!("meta.lua", "due.lua")),
            claim: script(always!("meta.lua", "entry.lua", "dirty.lua", "claim.lua")),
            settle: script(always!(
                "meta.lua",
                "entry.lua",
                "outdate.lua",
                "dirty.lua",
                "settle.lua"
            )),
            parked: script(always!("meta.lua", "parked.lua")),
            look: script(always!("meta.lua", "entry.lua", "look.lua")),
            unpark: script(always!("meta.lua", "entry.lua", "dirty.lua", "unpark.lua")),
            replay: script(with_room!(
                "meta.lua",
                "entry.lua",
                "dirty.lua",
                "replay.lua"
            )),
            figures: script(always!("meta.lua", "figures.lua")),
        }
    }
}
