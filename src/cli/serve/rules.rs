//! The access file of a server that runs: read at the start, and again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator::access::{Access, Parsed};

use crate::cli::access;
use crate::cli::text::errors::Failure;

/// What is said where there is no access file.
pub(super) const ANYBODY: &str = "open to anyone who reaches it";

/// An access file, and what it said last without a mistake.
pub(super) struct Rules {
    /// Where it is.
    file: PathBuf,
    /// What it said.
    in_force: Arc<Access>,
}

impl Rules {
    /// Reads the file.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let in_force = Arc::new(parsed(file)?);
        Ok(Self { file: file.to_owned(), in_force })
    }

    /// What holds.
    pub(super) fn in_force(&self) -> Arc<Access> {
        Arc::clone(&self.in_force)
    }

    /// Reads the file again. With a mistake in it, nothing has changed.
    pub(super) fn read_again(&mut self) -> Result<(), Failure> {
        self.in_force = Arc::new(parsed(&self.file)?);
        Ok(())
    }

    /// In a few words, for the log.
    pub(super) fn told(&self) -> String {
        let names: BTreeSet<&str> =
            self.in_force.principals().iter().map(|it| it.name.as_str()).collect();
        let anyone = match self.in_force.named("anyone") {
            Some(_) => "",
            None => ", nobody else",
        };
        format!("open to {} principals{anyone}", names.len())
    }
}

fn parsed(file: &Path) -> Result<Access, Failure> {
    let Parsed { access, doubts } = access::read(file)?;
    for doubt in doubts {
        log::warn!("{}:{doubt}", file.display());
    }
    Ok(access)
}
