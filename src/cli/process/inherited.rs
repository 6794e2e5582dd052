//! What a process of ours that outlives its parent is not to keep open.

use std::fs;

/// Closes files that were open where we were started: somebody may wait for their end.
pub(crate) fn close_inherited() {
    let Ok(open) = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")) else {
        return;
    };
    let named = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let inherited: Vec<i32> = named.filter(|number| *number > 2).collect();
    for number in inherited {
        // One of them is that of the directory, which is closed by now.
        let _closed = nix::unistd::close(number);
    }
}
