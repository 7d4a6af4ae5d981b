//! A lab under test.

use quorate_ops::process::Process;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder for a lab, and what runs in it: nothing of it outlives this, even if an assertion fails, or if the test is
/// killed: then `up --foreground --with-parent` ends, and every node with it.
pub struct Lab {
    _dir: tempfile::TempDir,
    pub folder: PathBuf,
    guard: Option<(Child, BufReader<ChildStdout>)>,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lab");
        Self { _dir: dir, folder, guard: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-lab"));
        command.arg("--dir").arg(&self.folder).args(arguments);
        command
    }

    /// Starts a cluster that ends with this; gives what was printed until it stood.
    pub fn up(&mut self, arguments: &[&str]) -> String {
        let mut command = self.command(&["up", "--foreground", "--with-parent"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("The nodes run until") {
            if output.read_line(&mut said).unwrap() == 0 {
                let mut complaint = String::new();
                child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                panic!("up {arguments:?}: {said}{complaint}");
            }
        }
        self.guard = Some((child, output));
        said
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that has to succeed, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Runs a command that has to fail, and gives what it complained about.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    pub fn states(&self) -> Vec<String> {
        let status = self.json(&["status"]);
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["state"].as_str().unwrap().to_string()).collect()
    }

    /// What runs on this folder, by the command lines of all processes.
    pub fn processes(&self) -> Vec<Process> {
        let mut marks = vec![self.folder.join("relay.json")];
        marks.extend((1..=5).map(|number| self.folder.join(format!("n{number}")).join("node.toml")));
        marks.iter().flat_map(|mark| Process::with_argument(&mark.display().to_string()).unwrap()).collect()
    }

    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < Duration::from_secs(40), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills what would end the cluster in good order.
    pub fn kill_guard(&mut self) {
        if let Some((mut child, _output)) = self.guard.take() {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_guard();
        // Nodes, relay, and small disks.
        if self.folder.join("lab.json").exists() {
            let _ = self.run(&["destroy"]);
        }
        for process in self.processes() {
            let _ = process.kill();
        }
    }
}
