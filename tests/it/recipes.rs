//! docs/recipes.md, tried as it stands there: what is to be run is run, and what it runs is told of.
//!
//! The commands of the recipes (`rollout`, `migrate`, …) are here one script that writes down what it was
//! called and under which lock.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Server, run, start};

const RECIPES: &str = include_str!("../../docs/recipes.md");
/// Commands that recipes run under a lock.
const COMMANDS: [&str; 9] = [
    "backup",
    "make-reports",
    "clean-up",
    "migrate",
    "rollout",
    "upload",
    "search",
    "reindex",
    "psql",
];
/// Where recipes say that the coordinator is.
const PLACE: &str = "locks.example:5625";
/// What CI systems tell their jobs.
const OF_CI: [(&str, &str); 7] = [
    ("GITHUB_REPOSITORY", "team/shop"),
    ("GITHUB_RUN_ID", "77"),
    ("GITHUB_SHA", "0123abc"),
    ("CI_PROJECT_PATH", "team/shop"),
    ("CI_JOB_ID", "78"),
    ("JOB_NAME", "shop"),
    ("BUILD_NUMBER", "79"),
];

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in RECIPES.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info == language, String::new())),
            (Some((is_meant, text)), Some(_)) => {
                if *is_meant {
                    blocks.push(std::mem::take(text));
                }
                open = None;
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// A coordinator, and the commands of the recipes.
struct Kitchen {
    server: Server,
    path: String,
}

impl Kitchen {
    fn new() -> Self {
        let server = Server::start();
        let (home, program) = (&server.home, env!("CARGO_BIN_EXE_coordinator"));
        for name in COMMANDS {
            let diary = home.path("diary").display().to_string();
            let text =
                format!("#!/bin/sh\necho \"[${{COORDINATOR_LOCK-}}] {name} $*\" >> {diary}\n");
            home.script(name, &text);
        }
        let ours = std::path::Path::new(program).parent().unwrap().display();
        let path = format!("{}:{ours}:/usr/bin:/bin", home.path("").display());
        Self { server, path }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.server.home.command(program);
        command.env("PATH", &self.path).env("COORDINATOR_SERVER", &self.server.address);
        command.envs(OF_CI).current_dir(self.server.home.path(""));
        command
    }

    /// What steps of a job of GitHub have written down for those that follow.
    fn with_variables_of_steps_before(&self, command: &mut Command) {
        let file = self.server.home.path("github-env");
        let variables = fs::read_to_string(&file).unwrap_or_default();
        command.envs(variables.lines().filter_map(|line| line.split_once('=')));
        command.env("GITHUB_ENV", file);
        command.env("CI_PROJECT_DIR", self.server.home.path("project"));
    }

    /// Runs a script of a recipe, and says what it ran, under which lock.
    fn script(&self, text: &str, shell: &str) -> String {
        let script = self.server.home.script("recipe", &self.placed(text));
        let mut command = self.command(shell);
        command.arg(script);
        self.told(command, text)
    }

    fn told(&self, command: Command, what: &str) -> String {
        let diary = self.server.home.path("diary");
        let _none_yet = fs::remove_file(&diary);
        let done = run(command);
        assert_eq!(done.code(), Some(0), "{what}: {done:?}");
        let told = fs::read_to_string(&diary).unwrap_or_default();
        assert!(!told.is_empty(), "nothing was run by {what}: {done:?}");
        told
    }

    /// With the coordinator of this test.
    fn placed(&self, text: &str) -> String {
        text.replace(PLACE, &self.server.address).replace("/usr/local/bin/", "")
    }
}

/// All was run under a lock.
fn assert_locked(told: &str, what: &str) {
    assert!(told.lines().all(|line| !line.starts_with("[]")), "{what}: {told}");
}

#[test]
fn shell_recipes_do_what_they_say() {
    let kitchen = Kitchen::new();
    for block in blocks("sh") {
        let told = kitchen.script(&block, "bash");
        let after_it = |line: &str| line.contains("smoke-test");
        let locked: Vec<&str> = told.lines().filter(|line| !after_it(line)).collect();
        assert_locked(&locked.join("\n"), &block);
    }
}

#[test]
fn a_script_does_not_take_variables_that_have_outlived_their_lock_for_the_lock() {
    let kitchen = Kitchen::new();
    let _holder = start(kitchen.server.client(&["lock", "deploy", "--", "sleep", "60"]));
    kitchen.server.held("deploy");
    let block = blocks("sh").into_iter().find(|it| it.contains("UNDER_LOCK")).unwrap();
    let script = kitchen.server.home.script("recipe", &block.replace("-w 10m", "-n"));
    let mut command = kitchen.command("bash");
    command.arg(script).env("COORDINATOR_LOCK", "deploy");
    assert_eq!(run(command).code(), Some(75));
}

#[test]
fn lines_of_crontabs_run_in_the_shell_of_cron() {
    let kitchen = Kitchen::new();
    for block in blocks("crontab") {
        let jobs = block.lines().filter(|line| line.starts_with(['*', '@', '0']));
        let mut count = 0;
        for job in jobs {
            let fields = if job.starts_with('@') { 1 } else { 5 };
            let mut rest = job;
            for _ in 0..fields {
                rest = rest.split_once(' ').unwrap().1.trim_start();
            }
            assert_locked(&kitchen.script(rest, "sh"), job);
            count += 1;
        }
        assert!(count > 1, "{block}");
    }
}

#[test]
fn jobs_of_ci_systems_and_clusters_run_under_their_locks() {
    let kitchen = Kitchen::new();
    for block in blocks("yaml") {
        let mut steps = Vec::new();
        collect_steps(&from_yaml(&block), &mut steps);
        assert!(!steps.is_empty(), "{block}");
        let diary = kitchen.server.home.path("diary");
        let _none_yet = fs::remove_file(&diary);
        for step in steps {
            let mut command = match step {
                Step::Shell(text) => {
                    let script = kitchen.server.home.script("recipe", &kitchen.placed(&text));
                    let mut command = kitchen.command("bash");
                    command.args(["-e", &script]);
                    command
                }
                Step::Words(words) => {
                    let mut command = kitchen.command(&words[0]);
                    command.args(&words[1..]);
                    command
                }
            };
            kitchen.with_variables_of_steps_before(&mut command);
            let done = run(command);
            assert_eq!(done.code(), Some(0), "{block}: {done:?}");
        }
        let told = fs::read_to_string(&diary).unwrap();
        // What a keeper holds is in the environment only where steps share one.
        if !block.contains("--keeper") {
            assert_locked(&told, &block);
        }
        let status = run(kitchen.server.client(&["status"])).out;
        assert!(status.contains("nothing is locked"), "{block}: {status}");
    }
}

#[test]
fn the_pipeline_of_jenkins_runs_under_its_lock() {
    let kitchen = Kitchen::new();
    for block in blocks("groovy") {
        let steps = block.lines().filter_map(|line| line.trim().strip_prefix("sh '"));
        let steps: Vec<&str> = steps.map(|step| step.strip_suffix('\'').unwrap()).collect();
        assert!(!steps.is_empty());
        for step in steps {
            assert_locked(&kitchen.script(step, "sh"), step);
        }
    }
}

#[test]
fn the_makefile_takes_the_lock_once_for_all_steps() {
    let kitchen = Kitchen::new();
    for block in blocks("make") {
        fs::write(kitchen.server.home.path("Makefile"), &block).unwrap();
        let mut make = kitchen.command("make");
        make.arg("deploy");
        let told = kitchen.told(make, &block);
        assert_eq!(told, "[deploy] migrate up\n[deploy] rollout production\n");
    }
}

#[test]
fn units_of_systemd_run_what_they_say() {
    let kitchen = Kitchen::new();
    let mut jobs = 0;
    for block in blocks("ini") {
        let lines = block.lines().filter_map(|line| line.strip_prefix("ExecStart="));
        for line in lines {
            assert!(line.starts_with("/usr/local/bin/coordinator "), "{line}");
            if line.contains(" lock ") {
                assert_locked(&kitchen.script(line, "sh"), line);
                jobs += 1;
            } else {
                // That it starts is what all other tests are about; this, that its words are understood.
                let words: Vec<&str> = line.split(' ').skip(1).chain(["--help"]).collect();
                let done = run(kitchen.server.home.coordinator(&words));
                assert_eq!(done.code(), Some(0), "{line}: {done:?}");
            }
        }
    }
    assert_eq!(jobs, 1);
}

/// What a step of a job runs.
enum Step {
    /// By a shell.
    Shell(String),
    /// As it is.
    Words(Vec<String>),
}

/// Python knows YAML, and is needed for other tests anyway.
fn from_yaml(text: &str) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.argv[1]), sys.stdout, default=str, skipkeys=True)";
    let mut python = Command::new("python3");
    python.args(["-c", program, text]);
    let done = run(python);
    assert_eq!(done.code(), Some(0), "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

/// All that is run in a document: GitHub's `run`, GitLab's `script`, Kubernetes' `command`.
fn collect_steps(value: &Value, steps: &mut Vec<Step>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("run", Value::String(text)) => steps.push(Step::Shell(text.clone())),
                    // In the order in which they are run.
                    ("script", Value::Array(lines)) => {
                        steps.push(one_shell(lines));
                        if let Some(Value::Array(lines)) = fields.get("after_script") {
                            steps.push(one_shell(lines));
                        }
                    }
                    ("command", Value::Array(words)) => {
                        let words = words.iter().map(|word| word.as_str().unwrap().to_owned());
                        steps.push(Step::Words(words.collect()));
                    }
                    _ => collect_steps(value, steps),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_steps(value, steps)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lines that one shell runs.
fn one_shell(lines: &[Value]) -> Step {
    let lines: Vec<&str> = lines.iter().map(|line| line.as_str().unwrap()).collect();
    Step::Shell(lines.join("\n"))
}
