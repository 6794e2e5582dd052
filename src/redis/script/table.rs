//! The scripts that are known: hashes, and what they mean. Collected from the libraries that are named.

use super::{ScriptHash, to_hex};
use crate::redis::unit::Unit;

/// What a script does. *Mine* is a key that has the value which the script is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Frees a key that is mine, or each of several.
    Free {
        /// Which argument the value is, from 0 on.
        value: usize,
        /// What is answered.
        answer: Answer,
    },
    /// Frees all keys if all are mine.
    FreeAll,
    /// Frees a key that is mine, and tells when it is gone.
    FreeOrGone,
    /// Frees a key that is mine, and is content when it is gone.
    FreeUnlessGone,
    /// Sets a key to end so much later from now if it is mine, or all of several if all are.
    Extend {
        /// Which argument the value is, from 0 on. The next one is the length.
        value: usize,
        /// Its unit.
        unit: Unit,
        /// What is answered.
        answer: Answer,
    },
    /// The same of one key; the length is added to what is left, or takes its place.
    ExtendBy,
    /// The same, if so much is left at least.
    ExtendInTime,
    /// Takes a key that is free, or all of several if all are.
    Take {
        /// Which argument the value is, from 0 on. The next one is the length.
        value: usize,
        /// Its unit.
        unit: Unit,
        /// What is answered.
        answer: Answer,
    },
    /// The same; each key has a value of its own.
    TakeEach,
    /// Takes a key that is free, extends one that is mine.
    TakeOrExtend {
        /// What is answered.
        answer: Answer,
    },
    /// The same, if taking is allowed by an argument.
    TakeOrExtendIfAllowed,
    /// Takes all keys that are free, or all of them if what they have begins as mine does.
    Obtain,
    /// Tells how long keys last that are mine.
    Rest(Rest),
    /// Tells value and length of a key; nothing if there is none.
    Inspect,
    /// The same; two nothings if there is none.
    Look,
}

impl Script {
    /// Whether it counts as a request, as [`Deed::is_request`](crate::redis::Deed::is_request) says.
    pub(crate) fn is_request(self) -> bool {
        match self {
            Self::Free { .. }
            | Self::FreeAll
            | Self::FreeOrGone
            | Self::FreeUnlessGone
            | Self::Extend { .. }
            | Self::ExtendBy
            | Self::ExtendInTime => false,
            Self::Take { .. }
            | Self::TakeEach
            | Self::TakeOrExtend { .. }
            | Self::TakeOrExtendIfAllowed
            | Self::Obtain
            | Self::Rest(_)
            | Self::Inspect
            | Self::Look => true,
        }
    }
}

/// What a script answers: to *yes*, and to *no*. That tells whether it goes over all of its keys, too: of others only
/// the first counts, whatever is said behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 1, or 0.
    Number,
    /// How many of all keys, or 0.
    Count,
    /// 1, or nothing: Lua's `true` and `false`.
    True,
    /// OK for all keys, or nothing.
    Ok,
    /// OK, or an error.
    OkOrError,
    /// 1, or -1.
    NumberOrMinusOne,
}

/// What is told of a key that is not mine, and in which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// 0, and of one that does not end, too.
    OrZero,
    /// -3.
    OrMinusThree,
    /// Nothing; of several keys the shortest.
    Shortest,
    /// An error; in seconds.
    OrError,
}

const FREE: Script = Script::Free { value: 0, answer: Answer::Number };
const FREE_EACH: Script = Script::Free { value: 0, answer: Answer::Count };
const FREE_SELECTED: Script = Script::Free { value: 1, answer: Answer::Count };
const FREE_TRUE: Script = Script::Free { value: 0, answer: Answer::True };
const EXTEND: Script = Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::Number };
const EXTEND_SECONDS: Script =
    Script::Extend { value: 0, unit: Unit::Seconds, answer: Answer::Number };
const EXTEND_COUNT: Script = Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::Count };
const EXTEND_SELECTED: Script =
    Script::Extend { value: 1, unit: Unit::Millis, answer: Answer::Count };
const EXTEND_TRUE: Script = Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::True };
const EXTEND_OK: Script = Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::Ok };
const TAKE: Script = Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Number };
const TAKE_SECONDS: Script = Script::Take { value: 0, unit: Unit::Seconds, answer: Answer::Number };
const TAKE_COUNT: Script = Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Count };
const TAKE_SELECTED: Script = Script::Take { value: 1, unit: Unit::Millis, answer: Answer::Count };

/// The hash of what the text of a script says, and what it does.
const TABLE: &[(&str, Script)] = &[
    // redis-py
    ("1f37489385113287b5c4277ce97ce91eee27e161", FREE),
    ("549c5774470b9ecc1a0f48a2fea86a36eb945186", Script::ExtendBy),
    ("add55a5216bb8b2ac89d381b43cab17e01074ac9", EXTEND),
    // pottery
    ("3f251da8099c0decaf32f347e407a2728de809db", Script::Rest(Rest::OrZero)),
    // pottery, ShedLock, redsync, redlock-universal, bsm/redislock before 0.9.5
    ("176c4cdf6099774baa754c4892167064ec752ab7", EXTEND),
    // pottery, redlock-py, Redlock for Ruby, ShedLock, Laravel, RedLock.net,
    // redsync before 4.9, redlock-universal, bsm/redislock before 0.9.5, and the documentation of Redis
    ("436c6eb9061c0fd6bb5eb9f0ccd80873a070bd03", FREE),
    // sherlock
    ("2828c729ba7ce354c1fd6392023a521cb8b8b23e", TAKE_SECONDS),
    ("bb7d76beeabc2c4da3f299c22ccc1244c20ae699", FREE),
    ("cf821227cb09719953965e022fab70816696d2dc", EXTEND_SECONDS),
    // aioredlock
    (
        "a97d9efb57782c766846f68cede07e2ecbb7f18e",
        Script::TakeOrExtend { answer: Answer::OkOrError },
    ),
    ("4f8d7abd41f5a7bae4e400712d324fcc7cb36019", Script::FreeUnlessGone),
    ("762b9ddbde5b597b0cff3a6045a7c97c2d867e24", Script::Rest(Rest::OrError)),
    // redlock for Node 4, 5
    ("f14c4d39c6b54ea9c8eaf1a2b46e290282b7ba79", TAKE_COUNT),
    ("fc85e1c73468e80dd838916e38400e59d4687047", FREE_EACH),
    ("436aef7398e1893f2610b38d7ecb472d92f1fdd8", EXTEND_COUNT),
    // @sesamecare-oss/redlock
    ("2d6133b25d69954d61ce29d69e4b1d43ae6e9a2d", TAKE_SELECTED),
    ("1b32c90b3761e9008d75afea6fd84eecd0c70b3d", FREE_SELECTED),
    ("9f8cc32d266f44c6ddc19dff64cc814be4b4909c", EXTEND_SELECTED),
    // redis-semaphore
    ("5da8caccece477fab11a0724f6c34a266ab65f08", FREE),
    ("14619301787c6360046a974d30b0cee055f2a811", EXTEND),
    // redlock-universal
    ("ed0fcff3426f622b8a8366673312de64fa16c108", Script::ExtendInTime),
    ("b2759190427cba541e4a43d14d110ca83e692653", Script::TakeEach),
    ("e7399ab1bc3dd2cde6f2bf73d247266cb7fa4f99", Script::Inspect),
    // redsync
    ("08e2de7fbde503fa8f7733707d5ece3d6d804efd", Script::FreeOrGone),
    ("e68009d59ef1782faa826083ed0624a7831b120c", Script::TakeOrExtend { answer: Answer::Number }),
    // bsm/redislock
    ("62639a06d9a478119d4a774078a1fbf0b3da8173", Script::Obtain),
    ("dfff54b8cfc11f692e2df2559255a5d46a0db820", Script::Rest(Rest::Shortest)),
    ("983c9e0d3f79f06d9d575378bff1a4f79eac0482", EXTEND_OK),
    ("7c228c7d9acaba8c32a66ef8575c4ee556f0eb8f", Script::FreeAll),
    // bsm/redislock before 0.9.5
    ("3a001e53d6b93a792f23b001ad718bba92a5342f", Script::Rest(Rest::OrMinusThree)),
    // RedLock.net
    (
        "787de25de14ae66cb003c20efb25a3c1e97638d5",
        Script::TakeOrExtend { answer: Answer::NumberOrMinusOne },
    ),
    // Redlock for Ruby
    ("0a6931d742e88fa0991601c8487b29765c030a98", Script::TakeOrExtendIfAllowed),
    ("31ad5e3b6cf1b7e85bf4415a7d71830c5acdabf1", Script::Look),
    // Spring Integration
    ("a7ad552197e9f20f2520561430a3464ae4600e84", Script::TakeOrExtend { answer: Answer::True }),
    ("3387f32275b828f6b623b88e1a0a6c8ba72ca352", EXTEND_TRUE),
    ("6f8380057160e342f1964ab82867258202e8a7c8", FREE_TRUE),
    // written by hand
    ("32d6fd580cdceb6f529d9a7af0fea145cea58101", FREE),
    ("cfd54fae42efe58828bd5c0d37a2d3842a32765c", FREE),
    ("6860965434801599b5e8c7f7ec6d7209c3bf0edb", FREE),
    ("fd7b8f66aaa31eb32fe68313ca25d9139b6e26eb", FREE_TRUE),
    ("560a05c1f9f3d10d6d16ec38aed24357264ab10d", FREE),
    ("5aef9a01471de2f56054490b3cf7f0681f1ca8ed", FREE),
    ("cf0131099330c762172e1a5e5ed27f87ae5f9e98", FREE),
    ("9a3454a76af5197298281414bb22eef6b1629c53", FREE),
    ("ac2b4ff8fb969471e8156667e3e90fbb65c3bcdd", FREE_TRUE),
    ("8562ab51ecc585c5198ea9ffaa506c4ca4895d8e", EXTEND),
    ("83e74534ecf6fd9457fd424c7c445237d46c91ad", EXTEND),
    ("0949885584f3b7cceaea136292a921798d4c78eb", EXTEND),
    ("8d5c9bebd5f6232ded2ce04f4dc330203dcbadc8", EXTEND_SECONDS),
    ("5d2d39138ab56145afcb3703dfad4f53bb302f6b", EXTEND_SECONDS),
    ("d9ddadf952da4f91bc76dcfcfe395db0bbbba7fb", EXTEND_SECONDS),
    ("77d65ba35e7ffd72ca60c679fb4b532962c602af", EXTEND_SECONDS),
    ("f2a8c0798cac06634d785e937671e32c0b41a5b0", TAKE),
    ("f665ac1faee2f41e921647886c257f09ff5e571d", TAKE),
    ("8bb2e08371d81a35bcf88c9226b5bc0ff429a6a1", TAKE),
    ("676cd4bdf6e5bd38b31d7de794cb0a9301c327e4", TAKE),
    ("1eb2b6b31097058a0ad81d3c3757fcda7ba25975", TAKE_SECONDS),
    ("6be2ad9921d091ed1368d346b9ed7f31f69f0f6d", TAKE_SECONDS),
    ("5b2d17d086727120d6e51ae886f5b4befced6170", TAKE_SECONDS),
    ("1db5fa89e8960f49dc74f5367929bf80e223e246", TAKE_SECONDS),
    ("6f4fd2088ac4f48dd99bf5fe33126ad72b788264", TAKE),
    ("ba4ae917f9b2169e31efabddf01f8a51dfb87385", TAKE),
    ("7f2567feac12f82d1978535fbebd5839f317d989", TAKE),
    ("afdc489217b42b2f31d6c53769a1ebf25727dbdf", TAKE_SECONDS),
    ("8d1fa1549f94a97674c4e96661cbaf4d8b9598b4", TAKE_SECONDS),
    ("f8153566eb6bf8f235f32dd6bc4c280618011601", TAKE_SECONDS),
];

/// The script with this hash.
pub(super) fn find(hash: &ScriptHash) -> Option<Script> {
    let hash = to_hex(hash);
    TABLE.iter().find(|(known, _)| *known == hash).map(|(_, script)| *script)
}

/// How many scripts are known.
#[cfg(test)]
pub(super) const KNOWN_COUNT: usize = TABLE.len();

/// Their hashes.
#[cfg(test)]
pub(super) fn hashes() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(hash, _)| *hash)
}
