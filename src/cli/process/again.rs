//! Commands made from others: our own program once more, a script by the shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
#[cfg(any(test, target_os = "linux", target_os = "android"))]
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rustix::io::Errno;

/// Where Linux has the program that runs, also when its file was replaced or removed since.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PROGRAM: &str = "/proc/self/exe";
/// What interprets a script that does not say what does.
const SHELL: &str = "/bin/sh";
/// As much of a file as tells a script from a program.
const HEAD_LEN: u64 = 256;
/// Where commands are if no `PATH` says so.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// Our own program, of the version that runs: an upgrade may have replaced its file meanwhile.
pub(crate) fn our_program() -> io::Result<Command> {
    let mut command = Command::new(program()?);
    command.arg0(env::args_os().next().unwrap_or_else(|| "coordinator".into()));
    Ok(command)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn program() -> io::Result<PathBuf> {
    if Path::new(PROGRAM).exists() {
        return Ok(PathBuf::from(PROGRAM));
    }
    // Its path is a guess without /proc, and so might be another program's.
    Err(io::Error::other("this program cannot find itself without /proc"))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn program() -> io::Result<PathBuf> {
    env::current_exe()
}

/// Gives `command` the environment that `other` would have.
pub(crate) fn with_environment_of(command: &mut Command, other: &Command) {
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// The way to run `command` after `error`. An executable file without an interpreter is a script
/// for the shell, as execvp(3), shells and so cron have it. None if that is not why, or if the file
/// is a program for another machine.
pub(crate) fn by_the_shell(command: &Command, error: &io::Error) -> Option<Command> {
    if error.raw_os_error() != Some(Errno::NOEXEC.raw_os_error()) {
        return None;
    }
    let file = find(command.get_program(), env::var_os("PATH"))?;
    let mut head = Vec::new();
    File::open(&file).ok()?.take(HEAD_LEN).read_to_end(&mut head).ok()?;
    if head.contains(&0) {
        return None;
    }
    let mut script = Command::new(SHELL);
    script.arg(file).args(command.get_args());
    with_environment_of(&mut script, command);
    Some(script)
}

/// The file that is run as `program`.
fn find(program: &OsStr, path: Option<OsString>) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = path.unwrap_or_else(|| PATH_DEFAULT.into());
    let is_executable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&path).map(|directory| directory.join(program)).find(is_executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_executable() -> io::Error {
        Errno::NOEXEC.into()
    }

    fn executable(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_script_that_names_no_interpreter_is_the_shells() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job");
        executable(&file, b"echo ran\n");
        let mut command = Command::new(&file);
        command.arg("one").env("A", "b");
        let script = by_the_shell(&command, &not_executable()).unwrap();
        assert_eq!(script.get_program(), SHELL);
        assert_eq!(script.get_args().collect::<Vec<_>>(), [file.as_os_str(), OsStr::new("one")]);
        assert_eq!(script.get_envs().count(), 1);
        assert!(by_the_shell(&command, &io::ErrorKind::PermissionDenied.into()).is_none());
    }

    #[test]
    fn a_program_for_another_machine_is_no_script() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job");
        executable(&file, b"\x7fELF\x02\x01\x01\x00\x00");
        assert!(by_the_shell(&Command::new(&file), &not_executable()).is_none());
    }

    #[test]
    fn a_script_is_looked_for_where_commands_are() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
        }
        fs::write(first.join("job"), "not executable").unwrap();
        executable(&second.join("job"), b"true\n");
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(find("job".as_ref(), Some(path)), Some(second.join("job")));
        assert_eq!(find("a/job".as_ref(), None), Some(PathBuf::from("a/job")));
    }
}
