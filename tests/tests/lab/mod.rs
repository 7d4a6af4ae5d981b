//! A lab to type commands at.

#![allow(dead_code, reason = "each test file uses its part of this")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Five nodes on three racks. They end with the test, whichever way it ends: with `guard`, which ends with it.
pub struct Lab {
    pub folder: tempfile::TempDir,
    guard: Option<(Child, BufReader<ChildStdout>)>,
}

/// Cargo puts programs beside the folder of the tests. `./ops/test` builds them first.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is not there: cargo build --release --workspace --bins", path.display());
    path
}

impl Lab {
    pub fn up() -> Self {
        Self::up_with(&[])
    }

    /// With these variables in the environment of the nodes.
    pub fn up_with(variables: &[(&str, &str)]) -> Self {
        let mut lab = Self { folder: tempfile::tempdir().unwrap(), guard: None };
        let mut up = Command::new(program("quorate-lab"));
        up.arg("--dir").arg(lab.dir()).args(["up", "--foreground", "--with-parent", "--nodes", "5", "--racks", "3"]);
        up.envs(variables.iter().copied());
        let mut child = up.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("The nodes run until") {
            assert_ne!(output.read_line(&mut said).unwrap(), 0, "the nodes did not start: {said}");
        }
        lab.guard = Some((child, output));
        lab
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    pub fn lab(&self, arguments: &[&str]) -> String {
        let done = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).args(arguments).output().unwrap();
        assert!(done.status.success(), "quorate-lab {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// `quorate` with these arguments, in a folder of this lab.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("quorate"));
        let profile = self.dir().join("client.toml");
        command.current_dir(self.folder.path()).env("QUORATE_PROFILE", profile).args(arguments);
        command
    }

    pub fn quorate(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What was printed, given that the exit code is this.
    pub fn exits(&self, code: i32, arguments: &[&str]) -> String {
        let done = self.quorate(arguments);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "quorate {arguments:?}\nstdout: {out}\nstderr: {err}");
        out.into_owned() + &err
    }

    pub fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        let done = self.quorate(&arguments);
        let out = String::from_utf8_lossy(&done.stdout);
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "quorate {arguments:?}\nstdout: {out}\nstderr: {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("quorate {arguments:?} is not JSON: {e}\n{out}"))
    }

    pub fn owners(&self, key: &str) -> Vec<String> {
        self.owners_in("default", key)
    }

    pub fn owners_in(&self, bucket: &str, key: &str) -> Vec<String> {
        let located = self.json(0, &["locate", "-b", bucket, key]);
        let nodes = located["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {located}"));
        let owners = nodes.iter().filter(|node| node["role"] == "owner");
        owners.map(|owner| owner["node"].as_str().unwrap().to_string()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let destroy = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).arg("destroy").status();
        if !std::thread::panicking() {
            assert!(destroy.unwrap().success());
        }
        if let Some((mut child, _output)) = self.guard.take() {
            // There is nothing left for it to guard.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
