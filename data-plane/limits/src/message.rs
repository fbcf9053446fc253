//! What nodes say to each other of limits, and its bytes.
//!
//! Always holds: reading is total, takes no more memory than a small multiple of what it reads, and refuses what it does
//! not know as a whole; what is written reads as it was. Who speaks is not in the bytes: the connection says it, so nobody
//! can speak for another.

mod bytes;

use self::bytes::{Reader, write_limit, write_number};
use crate::limit::Limit;
use crate::{Key, Moment};

/// Longest packet: with QUIC's own bytes it fits what every path carries.
pub const PACKET_BYTES_MAX: usize = 1_150;
/// The form of these packets. Another is not read.
const VERSION: u8 = 1;
/// Most former members of a pulse.
pub(crate) const LEFT_MAX: usize = 16;
/// Most parts of a hand-over: nearly two million keys.
const PARTS_MAX: u32 = 65_536;
/// Most keys of one hand-over: 37 bytes each at most, so that one fits a packet.
pub(crate) const HANDED_MAX: usize = 28;

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A holder to the owner.
    Ask(Ask),
    /// The owner to a holder.
    Answer(Answer),
    /// Each to each.
    Pulse(Pulse),
    /// Who owned keys to who owns them now. Goes by what is reliable.
    Hand(Hand),
}

/// What a holder has, and wants. Of two the later is in force, by `seq`; all counts are totals of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Of what.
    pub key: Key,
    /// The limit, which the key says too.
    pub limit: Limit,
    /// The holder's ledger; a later one says that nothing of those before will be applied any more.
    pub generation: u32,
    /// Later is greater, within a ledger.
    pub seq: u32,
    /// Tokens that it was given, as far as it knows.
    pub applied: u32,
    /// Of these, those that are gone.
    pub used: u32,
    /// Of these, those that it gave back.
    pub returned: u32,
    /// Calls that it has in a second.
    pub demand: u32,
    /// Tokens that it wants now.
    pub want: u32,
    /// Calls that wait for these, and will spend them as they come.
    pub waiting: u32,
}

/// What the owner says to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Of what.
    pub key: Key,
    /// The ledger.
    pub generation: u32,
    /// The ask.
    pub seq: u32,
    /// Tokens given, in total.
    pub granted: u32,
    /// After how long more may be asked for; 0: all that was wanted is granted.
    pub retry_us: u64,
}

/// That a node is there, and whom it stands by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The moment of sending on the sender's clock, to be echoed.
    pub stamp: Moment,
    /// The latest stamp that the receiver sent; 0: none.
    pub echo: Moment,
    /// The sender's members.
    pub digest: u64,
    /// By which members it stood lately besides, so that somebody may still count on it.
    pub left: Vec<u64>,
    /// How far the sender is.
    pub stage: Stage,
}

/// How far a node is with its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It never agreed with others on who they are.
    Begins,
    /// It did, and others came or went since.
    Unsettled,
    /// All agree.
    Settled,
}

/// Buckets that move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    /// The members of whom the receiver owns them.
    pub digest: u64,
    /// Which of the sender's hand-overs; later is greater.
    pub number: u32,
    /// Which part of it.
    pub index: u32,
    /// Of how many.
    pub total: u32,
    /// What is true of keys that are not named.
    pub ground: Ground,
    /// Whether the sender goes away.
    pub is_leaving: bool,
    /// The keys.
    pub keys: Vec<Handed>,
}

/// What a node that hands over says of keys that it does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Nothing is known.
    Unsound,
    /// Where it owned them, nothing of them is spent.
    Sound,
    /// It begins, and owned none.
    New,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handed {
    /// Of what.
    pub key: Key,
    /// Its limit.
    pub limit: Limit,
    /// Tokens in it, which the sender does not have any more.
    pub tokens: u32,
}

/// Why a packet is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Item {
    /// Appends its bytes to a packet, which is begun when it is empty. `false`: it does not fit, and nothing was done.
    pub fn write(&self, packet: &mut Vec<u8>) -> bool {
        let before = packet.len();
        if packet.is_empty() {
            packet.push(VERSION);
        }
        match self {
            Item::Ask(ask) => ask.write(packet),
            Item::Answer(answer) => answer.write(packet),
            Item::Pulse(pulse) => pulse.write(packet),
            Item::Hand(hand) => hand.write(packet),
        }
        let fits = packet.len() <= PACKET_BYTES_MAX;
        if !fits {
            packet.truncate(before);
        }
        fits
    }
}

/// Whether bytes are meant for [`read`], where others come the same way: no text begins like a packet.
pub fn is_packet(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

/// Reads a packet.
pub fn read(packet: &[u8]) -> Result<Vec<Item>, Unreadable> {
    let mut reader = Reader::new(packet);
    if packet.len() > PACKET_BYTES_MAX || reader.byte()? != VERSION {
        return Err(Unreadable);
    }
    let mut items = Vec::new();
    while !reader.is_at_end() {
        items.push(match reader.byte()? {
            1 => Item::Ask(Ask::read(&mut reader)?),
            2 => Item::Answer(Answer::read(&mut reader)?),
            3 => Item::Pulse(Pulse::read(&mut reader)?),
            4 => Item::Hand(Hand::read(&mut reader)?),
            _ => return Err(Unreadable),
        });
    }
    Ok(items)
}

impl Ask {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend(self.key.0);
        write_limit(out, self.limit);
        let counts = [self.applied, self.used, self.returned, self.demand, self.want, self.waiting];
        for number in [self.generation, self.seq].into_iter().chain(counts) {
            write_number(out, number.into());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Ask, Unreadable> {
        let ask = Ask {
            key: reader.key()?,
            limit: reader.limit()?,
            generation: reader.small()?,
            seq: reader.small()?,
            applied: reader.small()?,
            used: reader.small()?,
            returned: reader.small()?,
            demand: reader.small()?,
            want: reader.small()?,
            waiting: reader.small()?,
        };
        // Nobody can have spent what it did not have.
        let gone = ask.used.checked_add(ask.returned).ok_or(Unreadable)?;
        (gone <= ask.applied).then_some(ask).ok_or(Unreadable)
    }
}

impl Answer {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(2);
        out.extend(self.key.0);
        for number in [self.generation, self.seq, self.granted] {
            write_number(out, number.into());
        }
        write_number(out, self.retry_us);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Answer, Unreadable> {
        Ok(Answer {
            key: reader.key()?,
            generation: reader.small()?,
            seq: reader.small()?,
            granted: reader.small()?,
            retry_us: reader.number()?,
        })
    }
}

impl Pulse {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(3);
        write_number(out, self.stamp.0);
        write_number(out, self.echo.0);
        out.extend(self.digest.to_le_bytes());
        out.push(match self.stage {
            Stage::Begins => 0,
            Stage::Unsettled => 1,
            Stage::Settled => 2,
        });
        out.push(self.left.len() as u8);
        for left in &self.left {
            out.extend(left.to_le_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Pulse, Unreadable> {
        let (stamp, echo) = (Moment(reader.number()?), Moment(reader.number()?));
        let digest = reader.fixed()?;
        let stage = match reader.byte()? {
            0 => Stage::Begins,
            1 => Stage::Unsettled,
            2 => Stage::Settled,
            _ => return Err(Unreadable),
        };
        let count = usize::from(reader.byte()?);
        if count > LEFT_MAX {
            return Err(Unreadable);
        }
        let left = (0..count).map(|_| reader.fixed()).collect::<Result<_, _>>()?;
        Ok(Pulse { stamp, echo, digest, left, stage })
    }
}

impl Hand {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(4);
        out.extend(self.digest.to_le_bytes());
        for number in [self.number, self.index, self.total] {
            write_number(out, number.into());
        }
        out.push(match self.ground {
            Ground::Unsound => 0,
            Ground::Sound => 1,
            Ground::New => 2,
        });
        out.push(self.is_leaving.into());
        write_number(out, self.keys.len() as u64);
        for handed in &self.keys {
            out.extend(handed.key.0);
            write_limit(out, handed.limit);
            write_number(out, handed.tokens.into());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Hand, Unreadable> {
        let (digest, number) = (reader.fixed()?, reader.small()?);
        let (index, total) = (reader.small()?, reader.small()?);
        let ground = match reader.byte()? {
            0 => Ground::Unsound,
            1 => Ground::Sound,
            2 => Ground::New,
            _ => return Err(Unreadable),
        };
        let (is_leaving, count) = (reader.flag()?, reader.small()? as usize);
        if index >= total || total > PARTS_MAX || count > HANDED_MAX {
            return Err(Unreadable);
        }
        let one = |_| Ok(Handed { key: reader.key()?, limit: reader.limit()?, tokens: reader.small()? });
        let keys = (0..count).map(one).collect::<Result<_, Unreadable>>()?;
        Ok(Hand { digest, number, index, total, ground, is_leaving, keys })
    }
}

/// What must hold of every packet that a peer may send: the reading is total, and what was read is written as it was. Called
/// by the fuzzer (`tests/fuzz`) and, with what is kept of its inputs, by the test below.
#[doc(hidden)]
pub fn property(packet: &[u8]) {
    let Ok(items) = read(packet) else { return };
    let mut written = Vec::new();
    assert!(items.iter().all(|item| item.write(&mut written)), "what was read fits");
    // An empty packet is begun by its first item.
    assert!(items.is_empty() || written == packet, "one form of each packet");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::OnOwnerLoss;

    fn limit() -> Limit {
        Limit::new(1_000, 60, 100, OnOwnerLoss::Deny).expect("legal")
    }

    fn items() -> Vec<Item> {
        let key = Key([7; 16]);
        let limit = limit();
        vec![
            Item::Ask(Ask {
                key,
                limit,
                generation: 1,
                seq: 300,
                applied: 70_000,
                used: 60_000,
                returned: 10_000,
                demand: u32::MAX,
                want: 1,
                waiting: 0,
            }),
            Item::Answer(Answer { key, generation: 1, seq: 300, granted: 70_001, retry_us: u64::MAX }),
            Item::Pulse(Pulse {
                stamp: Moment(u64::MAX),
                echo: Moment(0),
                digest: 9,
                left: vec![1, 2],
                stage: Stage::Unsettled,
            }),
            Item::Hand(Hand {
                digest: 9,
                number: 1,
                index: 0,
                total: 1,
                ground: Ground::New,
                is_leaving: true,
                keys: vec![Handed { key, limit, tokens: 5 }; HANDED_MAX],
            }),
        ]
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        for item in items() {
            let mut packet = Vec::new();
            assert!(item.write(&mut packet));
            assert_eq!(read(&packet), Ok(vec![item]));
            property(&packet);
        }
        let longest = Handed {
            key: Key([255; 16]),
            limit: Limit::new(u32::MAX, u32::MAX, u32::MAX, OnOwnerLoss::Allow).expect("legal"),
            tokens: u32::MAX,
        };
        let (digest, number, total) = (u64::MAX, u32::MAX, PARTS_MAX);
        let (ground, is_leaving, keys) = (Ground::New, true, vec![longest; HANDED_MAX]);
        let hand = Hand { digest, number, index: total - 1, total, ground, is_leaving, keys };
        assert!(Item::Hand(hand).write(&mut Vec::new()), "the longest fits");
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_is_something_else() {
        for item in items() {
            let mut packet = Vec::new();
            item.write(&mut packet);
            for length in 0..packet.len() {
                assert!(length == 1 || read(&packet[..length]) == Err(Unreadable), "{length}");
            }
            for (at, bit) in (0..packet.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut changed = packet.clone();
                changed[at] ^= 1 << bit;
                property(&changed);
                assert_ne!(read(&changed), Ok(vec![item.clone()]), "{at} {bit}");
            }
        }
    }

    #[test]
    fn nobody_says_that_it_spent_more_than_it_had() {
        let Some(Item::Ask(ask)) = items().into_iter().next() else { panic!("an ask") };
        let mut packet = Vec::new();
        Item::Ask(Ask { applied: 69_999, ..ask }).write(&mut packet);
        assert_eq!(read(&packet), Err(Unreadable));
    }

    #[test]
    fn every_packet_that_is_kept_is_read_as_it_is_written() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/limits");
        let entries = std::fs::read_dir(folder).expect("the corpus is there");
        let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        assert!(!files.is_empty());
        for file in files {
            property(&std::fs::read(&file).expect("an input"));
        }
    }
}
