//! The place of a run: its machine, and the boot of that machine.

use std::fs;

/// Most bytes of a file that says such a number.
const ID_BYTES_MAX: usize = 128;

/// A machine, and a start of it.
///
/// On Linux both are known: the kernel makes a random number at each start, and the system has one
/// of its own in a file. Elsewhere no start has a number that can be had without unsafe code, so
/// there a journal is used only if it was synced ([`Distance::Machine`](super::Distance)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The start of the machine; none if the system does not say. Within it what was written is
    /// there, synced or not.
    pub boot: Option<u128>,
    /// The machine; none if it has no number, as in many containers. Those of one host have the
    /// same start of it, and those of another host another.
    pub machine: Option<u128>,
}

impl Place {
    /// Where this process runs.
    pub fn here() -> Self {
        let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid"];
        Self {
            boot: read("/proc/sys/kernel/random/boot_id"),
            machine: machine.into_iter().find_map(read),
        }
    }
}

fn read(path: &str) -> Option<u128> {
    let text = fs::read_to_string(path).ok().filter(|text| text.len() <= ID_BYTES_MAX)?;
    parse(&text)
}

/// A number of 32 hexadecimal digits, with or without hyphens. None is zero.
fn parse(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|&digit| digit != '-').collect();
    let is_one = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    if !is_one {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().filter(|&number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_systems_write_them_and_anything_else_is_none() {
        let number = Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(parse("01234567-89ab-cdef-0123-456789abcdef\n"), number);
        assert_eq!(parse("0123456789ABCDEF0123456789abcdef\n"), number);
        for other in ["", "\n", "uninitialized\n", "0123", "+1234567-89ab-cdef-0123-456789abcdef"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse(&"0".repeat(32)), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_knows_since_when_its_machine_runs() {
        assert!(Place::here().boot.is_some());
        assert_eq!(Place::here(), Place::here());
    }
}
