//! The rules of a principal, indexed by the names that they are about.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{Names, Verb, Verbs};
use crate::types::LockName;

/// What a principal may do.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// As they were written, in that order.
    written: Vec<Rule>,
    /// Those about every name, as indices.
    of_all: Vec<usize>,
    /// Those about one name.
    of_one: Index,
    /// Those about all names below a prefix.
    of_below: Index,
    /// How long the prefixes are, in bytes: all of which are asked for, and no other.
    prefix_lens: BTreeSet<usize>,
}

type Index = HashMap<LockName, Vec<usize>, RandomState>;

/// One rule: verbs, and the names they are allowed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it allows.
    pub verbs: Verbs,
    /// For which locks.
    pub names: Names,
    /// The line of the access file where it stands, from 1; 0 if it stands in no file.
    pub line: usize,
}

impl Rules {
    /// Rules by which everything is allowed.
    pub fn open() -> Self {
        let mut open = Self::default();
        open.add(Rule { verbs: Verbs::ALL, names: Names::All, line: 0 });
        open
    }

    /// Allows what `rule` says, beside what is allowed already.
    pub fn add(&mut self, rule: Rule) {
        let index = self.written.len();
        match &rule.names {
            Names::All => self.of_all.push(index),
            Names::One(name) => self.of_one.entry(name.clone()).or_default().push(index),
            Names::Below(prefix) => {
                self.prefix_lens.insert(prefix.as_str().len());
                self.of_below.entry(prefix.clone()).or_default().push(index);
            }
        }
        self.written.push(rule);
    }

    /// The rule that allows `verb` for the lock `name`; none if it is denied.
    ///
    /// Takes a look at the name, and one at each of its prefixes that is as long as one in a rule.
    pub fn may(&self, verb: Verb, name: &LockName) -> Option<&Rule> {
        let allows = |index: &&usize| self.written[**index].verbs.allows(verb);
        let of_all = self.of_all.iter();
        let of_one = self.of_one.get(name).into_iter().flatten();
        let of_below = self.prefixes(name.as_str()).flatten();
        of_all.chain(of_one).chain(of_below).find(allows).map(|index| &self.written[*index])
    }

    /// The rules of each prefix of a name, the longest first.
    fn prefixes(&self, name: &str) -> impl Iterator<Item = &Vec<usize>> {
        // Behind the prefix comes a slash, and behind that something.
        let lens = self
            .prefix_lens
            .iter()
            .rev()
            .filter(move |len| name.len() > **len + 1 && name.as_bytes()[**len] == b'/');
        lens.filter_map(move |len| self.of_below.get(&name[..*len]))
    }

    /// The rule that allows `verb` for every name there can be.
    pub fn may_with_all(&self, verb: Verb) -> Option<&Rule> {
        let allows = |index: &&usize| self.written[**index].verbs.allows(verb);
        self.of_all.iter().find(allows).map(|index| &self.written[*index])
    }

    /// The rule that allows to administer the coordinator.
    pub fn may_administer(&self) -> Option<&Rule> {
        self.written.iter().find(|rule| rule.verbs.contains(Verb::Admin))
    }

    /// Whether `verb` is allowed for any name at all.
    pub fn may_somewhere(&self, verb: Verb) -> bool {
        self.written.iter().any(|rule| rule.verbs.allows(verb))
    }

    /// The rules, as they were written.
    pub fn written(&self) -> &[Rule] {
        &self.written
    }
}
