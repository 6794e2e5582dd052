//! The access file, parsed: all its mistakes, each with its line and what to do.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{
    Access, CertificateName, Digest, Names, Principal, PrincipalName, Quotas, Rule, Rules, Verb,
    Verbs,
};

/// Most credentials of a principal: the old one and the new one, of two places, while they change.
pub(super) const CREDENTIALS_MAX: usize = 4;
/// What begins like this is a credential, and no digest of one.
const CREDENTIAL_PREFIX: &str = "coord_";

/// A mistake in an access file, or what may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub remedy: Option<String>,
}

/// As in `12: principals have no "credential"; did you mean credentials?`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

/// An access file that was read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub access: Access,
    /// What is no mistake, and probably not meant either.
    pub doubts: Vec<Mistake>,
}

/// Parses an access file.
///
/// # Errors
///
/// All mistakes in it, in the order of their lines. A file with a mistake says nothing: half of its rules
/// would be something that nobody wrote.
pub fn parse(text: &str) -> Result<Parsed, Vec<Mistake>> {
    let mut reader = Reader::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or_default();
        reader.mistake(at, error.message().to_owned(), None);
    }
    // What is no TOML is read as far as it can be, and most of that would be no mistake of its author.
    if errors.is_empty() {
        reader.document(document.get_ref());
        if reader.access.names_nobody() {
            reader.doubt(&(0..0), "it names nobody, so nobody may do anything".to_owned());
        }
    }
    let Reader { access, mut mistakes, doubts, .. } = reader;
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(Parsed { access, doubts }) } else { Err(mistakes) }
}

/// Reads a file, and takes note of all that is wrong.
struct Reader {
    /// Where its lines end.
    ends: Vec<usize>,
    /// What it says so far.
    access: Access,
    /// What is wrong.
    mistakes: Vec<Mistake>,
    /// What may be.
    doubts: Vec<Mistake>,
    /// The lines of names of principals, to tell of those that come twice.
    names: HashMap<PrincipalName, usize>,
    /// The same for credentials.
    credentials: HashMap<Digest, usize>,
    /// The same for certificates.
    certificates: HashMap<CertificateName, usize>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            ends: ends.map(|(at, _)| at).collect(),
            access: Access::closed(),
            mistakes: Vec::new(),
            doubts: Vec::new(),
            names: HashMap::new(),
            credentials: HashMap::new(),
            certificates: HashMap::new(),
        }
    }

    fn line(&self, at: &Range<usize>) -> usize {
        self.ends.partition_point(|end| *end < at.start) + 1
    }

    fn mistake(&mut self, at: Range<usize>, what: impl Into<String>, remedy: Option<&str>) {
        let mistake =
            Mistake { line: self.line(&at), what: what.into(), remedy: remedy.map(str::to_owned) };
        self.mistakes.push(mistake);
    }

    fn document(&mut self, document: &DeTable<'_>) {
        self.check_keys("an access file has", document, &["principal", "anyone"]);
        let principals = self.list_in(document, "principal", "write [[principal]]");
        for principal in principals.into_iter().flatten() {
            match principal.get_ref() {
                DeValue::Table(table) => self.principal(table, principal.span()),
                _ => self.mistake(
                    principal.span(),
                    "a principal is a table",
                    Some("write [[principal]]"),
                ),
            }
        }
        if let Some(anyone) = document.get("anyone") {
            match anyone.get_ref() {
                DeValue::Table(table) => {
                    self.check_keys("anyone has", table, &["may"]);
                    let rules = self.rules(table);
                    self.doubt_anyone(&rules, &anyone.span());
                    self.access.set_anyone(rules);
                }
                _ => self.mistake(anyone.span(), "anyone is a table", Some("write [anyone]")),
            }
        }
    }

    /// What anyone may take from others, everybody loses.
    fn doubt_anyone(&mut self, rules: &Rules, at: &Range<usize>) {
        for verb in [Verb::Break, Verb::Admin] {
            if rules.written().iter().any(|rule| rule.verbs.contains(verb)) {
                self.doubt(at, format!("anyone who reaches it may {verb}, and proves nothing"));
            }
        }
    }

    /// Refuses keys that nothing has, and names the one that was meant.
    fn check_keys(&mut self, whose: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let text = key.get_ref();
            if known.contains(&text.as_ref()) {
                continue;
            }
            let near = known.iter().min_by_key(|known| strsim::osa_distance(known, text));
            let remedy = match near {
                Some(near) if strsim::osa_distance(near, text) <= 2 => {
                    format!("did you mean {near}?")
                }
                _ => format!("there is {}", known.join(", ")),
            };
            self.mistake(key.span(), format!("{whose} no {text:?}"), Some(&remedy));
        }
    }

    /// The list of this key, if it is there and one.
    fn list_in<'t, 'i>(
        &mut self,
        table: &'t DeTable<'i>,
        key: &str,
        remedy: &str,
    ) -> Option<&'t DeArray<'i>> {
        let value = table.get(key)?;
        let list = value.get_ref().as_array();
        if list.is_none() {
            self.mistake(value.span(), format!("{key} is a list"), Some(remedy));
        }
        list
    }

    /// The texts of a list, each where it stands.
    fn texts<'t>(
        &mut self,
        table: &'t DeTable<'_>,
        key: &str,
        remedy: &str,
    ) -> Vec<(&'t str, Range<usize>)> {
        let mut texts = Vec::new();
        for value in self.list_in(table, key, remedy).into_iter().flatten() {
            match value.get_ref().as_str() {
                Some(text) => texts.push((text, value.span())),
                None => self.mistake(value.span(), format!("{key} are texts"), Some(remedy)),
            }
        }
        texts
    }

    fn principal(&mut self, table: &DeTable<'_>, at: Range<usize>) {
        self.check_keys(
            "a principal has",
            table,
            &[
                "name",
                "credentials",
                "certificates",
                "may",
                "sessions-max",
                "connections-max",
                "requests-per-second",
            ],
        );
        let name = self.name(table, &at);
        let credentials = self.credentials(table);
        let certificates = self.certificates(table);
        let rules = self.rules(table);
        let quotas = Quotas {
            sessions_max: self.quota(table, "sessions-max"),
            connections_max: self.quota(table, "connections-max"),
            requests_per_second: self.quota(table, "requests-per-second"),
        };
        let Some(name) = name else { return };
        if credentials.is_empty() && certificates.is_empty() {
            self.doubt(&at, format!("{name} has no proof, so nobody is {name}"));
        }
        if rules.written().is_empty() {
            self.doubt(&at, format!("{name} may do nothing"));
        }
        self.access.add(Principal { name, rules, quotas }, credentials, certificates);
    }

    fn doubt(&mut self, at: &Range<usize>, what: String) {
        let line = self.line(at);
        self.doubts.push(Mistake { line, what, remedy: None });
    }

    fn name(&mut self, table: &DeTable<'_>, at: &Range<usize>) -> Option<PrincipalName> {
        let Some(value) = table.get("name") else {
            self.mistake(at.clone(), "a principal has no name", Some("write name = \"…\""));
            return None;
        };
        let name = value.get_ref().as_str().map(PrincipalName::new);
        let Some(Ok(name)) = name else {
            let why = super::PrincipalNameError.to_string();
            self.mistake(value.span(), why, None);
            return None;
        };
        if name.is_anyone() {
            let remedy = "write [anyone] for those who show nothing, or choose another name";
            self.mistake(value.span(), "no principal is called anyone", Some(remedy));
            return None;
        }
        let line = self.line(&value.span());
        self.note_once(value.span(), &name.clone(), |this| &mut this.names, line);
        Some(name)
    }

    /// Takes note of what may come once; says whether it did not come before.
    fn note_once<T: Clone + Eq + Hash + fmt::Display>(
        &mut self,
        at: Range<usize>,
        what: &T,
        noted: impl Fn(&mut Self) -> &mut HashMap<T, usize>,
        line: usize,
    ) -> bool {
        match noted(self).insert(what.clone(), line) {
            None => true,
            Some(first) => {
                noted(self).insert(what.clone(), first);
                let told = format!("{what} is in line {first} already");
                self.mistake(at, told, Some("leave one of them out"));
                false
            }
        }
    }

    fn credentials(&mut self, table: &DeTable<'_>) -> Vec<Digest> {
        let remedy =
            "write credentials = [\"sha256:…\"], as `coordinator access new-credential` prints it";
        let mut digests = Vec::new();
        for (text, at) in self.texts(table, "credentials", remedy) {
            if digests.len() == CREDENTIALS_MAX {
                let told = format!("a principal has {CREDENTIALS_MAX} credentials at most");
                self.mistake(at, told, Some("leave those out that are not in use"));
                break;
            }
            match text.parse::<Digest>() {
                Ok(digest) => {
                    let line = self.line(&at);
                    if self.note_once(at, &digest, |this| &mut this.credentials, line) {
                        digests.push(digest);
                    }
                }
                // Not shown: whoever reads the error should not learn it, too.
                Err(_) if text.starts_with(CREDENTIAL_PREFIX) => {
                    let remedy = "make another, for whoever reads this file knows it; the file has its sha256:…";
                    self.mistake(at, "this is the credential itself", Some(remedy));
                }
                Err(why) => self.mistake(at, why.to_string(), Some(remedy)),
            }
        }
        digests
    }

    fn certificates(&mut self, table: &DeTable<'_>) -> Vec<CertificateName> {
        let remedy =
            "write certificates = [\"uri:spiffe://prod/billing\", \"dns:billing.internal\"]";
        let mut names = Vec::new();
        for (text, at) in self.texts(table, "certificates", remedy) {
            match CertificateName::new(text) {
                Ok(name) => {
                    let line = self.line(&at);
                    if self.note_once(at, &name, |this| &mut this.certificates, line) {
                        names.push(name);
                    }
                }
                Err(why) => self.mistake(at, format!("{text:?}: {why}"), Some(remedy)),
            }
        }
        names
    }

    fn quota(&mut self, table: &DeTable<'_>, key: &str) -> Option<u32> {
        let value = table.get(key)?;
        let number = value.get_ref().as_integer().and_then(|number| {
            u32::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
        });
        if number.is_none_or(|number| number == 0) {
            self.mistake(value.span(), format!("{key} is a whole number from 1 on"), None);
        }
        number
    }

    fn rules(&mut self, table: &DeTable<'_>) -> Rules {
        let remedy = "write may = [ { do = [\"lock\"], names = [\"billing/*\"] } ]";
        let mut rules = Rules::default();
        for value in self.list_in(table, "may", remedy).into_iter().flatten() {
            match value.get_ref() {
                DeValue::Table(table) => self.rule(table, value, remedy, &mut rules),
                _ => self.mistake(value.span(), "a rule is a table", Some(remedy)),
            }
        }
        rules
    }

    fn rule(&mut self, table: &DeTable<'_>, value: &Value<'_>, remedy: &str, rules: &mut Rules) {
        self.check_keys("a rule has", table, &["do", "names"]);
        let at = value.span();
        let verbs = self.verbs(table, remedy);
        let patterns = self.texts(table, "names", remedy);
        let line = self.line(&at);
        let names = self.names(patterns);
        let Some(verbs) = verbs else { return };
        if verbs.is_empty() {
            return self.mistake(at, "a rule says nothing that may be done", Some(remedy));
        }
        if verbs.contains(Verb::Admin) {
            let is_alone = verbs.iter().count() == 1 && table.get("names").is_none();
            if !is_alone {
                let remedy = "write it in a rule of its own, without names: { do = [\"admin\"] }";
                return self.mistake(at, "admin is about no lock", Some(remedy));
            }
            return rules.add(Rule { verbs, names: Names::All, line });
        }
        match names {
            None => self.mistake(at, "a rule names no locks", Some(remedy)),
            Some(names) => {
                for (names, line) in names {
                    rules.add(Rule { verbs, names, line });
                }
            }
        }
    }

    /// The patterns that are some, each with its line; none if nothing was written.
    fn names(&mut self, patterns: Vec<(&str, Range<usize>)>) -> Option<Vec<(Names, usize)>> {
        if patterns.is_empty() {
            return None;
        }
        let mut names = Vec::new();
        for (text, at) in patterns {
            match Names::new(text) {
                Ok(pattern) => names.push((pattern, self.line(&at))),
                Err(why) => {
                    let remedy = "write a name, PREFIX/* for all below it, or * for all";
                    self.mistake(at, format!("{text:?}: {why}"), Some(remedy));
                }
            }
        }
        Some(names)
    }

    /// None if they are none.
    fn verbs(&mut self, table: &DeTable<'_>, remedy: &str) -> Option<Verbs> {
        let before = self.mistakes.len();
        let mut verbs = Verbs::default();
        for (text, at) in self.texts(table, "do", remedy) {
            if let Some(verb) = Verb::from_text(text) {
                verbs.insert(verb);
            } else {
                let all = Verb::ALL.map(Verb::as_str).join(", ");
                let told = format!("there is no {text:?} to be allowed");
                self.mistake(at, told, Some(&format!("there is {all}")));
            }
        }
        (self.mistakes.len() == before).then_some(verbs)
    }
}
