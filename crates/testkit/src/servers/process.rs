//! Finding a program, starting it in a folder of its own, and making sure that it ends.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// The user a server runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// Somebody harmless, if this process is root; nobody else otherwise.
    pub(super) fn unprivileged() -> Option<Self> {
        let process = std::fs::metadata("/proc/self").expect("procfs is mounted");
        if process.uid() != 0 {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("the list of users is readable");
        let find = |name: &str| {
            let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            let (Some(Ok(uid)), Some(Ok(gid))) = (ids.next(), ids.next()) else {
                return None;
            };
            Some(Self { uid, gid })
        };
        let user = find("postgres").or_else(|| find("nobody"));
        Some(user.expect(
            "this process is root, and there is neither `postgres` nor `nobody` to run servers as",
        ))
    }

    /// Makes the command run as this user, and outside of the terminal's process group, so that an
    /// interrupted test still ends its servers in order.
    pub(super) fn run(user: Option<Self>, command: &mut Command) {
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        command.process_group(0).current_dir("/");
    }
}

/// The path of a program.
///
/// # Panics
/// If it is nowhere; the message names the Debian package.
pub(super) fn find(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    // Debian keeps the programs of each major version apart; the newest one is taken.
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    folders.extend(versions.into_iter().rev().map(|version| version.1));
    let found = folders.into_iter().map(|folder| folder.join(program));
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("`{program}` is not installed and this test needs it: apt-get install {package}")
    })
}

/// A temporary folder that belongs to the user.
pub(super) fn folder(user: Option<User>) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("tidegate-")
        .tempdir()
        .expect("a temporary folder can be made");
    if let Some(user) = user {
        std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid))
            .expect("root may give a folder away");
    }
    folder
}

/// A port of the loopback interface that was free a moment ago.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// Calls until it is true.
///
/// # Panics
/// After half a minute, with `what` was waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "another process gives no event to wait on, and its clock cannot be stepped"
)]
pub(super) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let step = Duration::from_millis(5);
    for _ in 0..6_000 {
        if ready() {
            return;
        }
        std::thread::sleep(step);
    }
    panic!("waited half a minute for {what}");
}

/// Outlives this process for as long as it takes to end a server and to remove its folder.
pub(super) struct Reaper {
    shell: Child,
    orders: Option<ChildStdin>,
}

impl Reaper {
    /// Watches over a folder, and over the server named with [`Self::watch`].
    pub(super) fn new(folder: &Path) -> Self {
        const SCRIPT: &str = r#"
            trap '' INT TERM HUP
            pid=
            while read -r line; do pid=$line; done
            if [ -n "$pid" ]; then kill -QUIT "$pid"; sleep 0.2; kill -KILL "$pid"; fi
            rm -rf "$1"; sleep 0.5; rm -rf "$1"
        "#;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "reaper"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        let orders = shell.stdin.take();
        Self { shell, orders }
    }

    /// The server to kill at the end; nothing if it has ended already.
    pub(super) fn watch(&mut self, pid: Option<u32>) {
        let line = pid.map(|pid| pid.to_string()).unwrap_or_default();
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{line}").expect("the reaper reads until this process ends");
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // The end of the pipe is the sign. The shell is not waited for: it may take its time.
        drop(self.orders.take());
        let _ = self.shell.try_wait();
    }
}

/// Sends a signal, through the shell: there is no safe call for it in the standard library.
pub(super) fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("/bin/sh")
        .args([
            "-c",
            r#"signal=$1; shift; kill -"$signal" "$@""#,
            "signal",
            name,
        ])
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

/// The processes that this one has started and that are still there.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name of the program stands in brackets and may hold anything; the rest follows it.
            let (_, rest) = stat.rsplit_once(')')?;
            let found: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
            (found == parent).then_some(pid)
        })
        .collect()
}
