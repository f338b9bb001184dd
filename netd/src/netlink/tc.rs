//! Limits of what leaves an interface: a token bucket filter (tc-tbf(8), linux/pkt_sched.h).
//!
//! A bucket of `burst` bytes fills at `rate`; a packet takes its size out of it, and waits in a queue while there is too
//! little. A packet that finds the queue full is dropped, by which TCP learns its rate.

use super::message::{Batch, Flags, attributes};
use super::socket::{NetlinkError, Socket};
use super::view::{dump, number, text};

const NEWQDISC: u16 = 36;
const GETQDISC: u16 = 38;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// `1:`
const HANDLE: u32 = 0x0001_0000;
/// `TC_LINKLAYER_ETHERNET`: sizes are as they are, and no table of them is needed.
const ETHERNET: u8 = 1;

/// Below this not one full packet a second would pass, in bits a second.
pub const LEAST_RATE: u64 = 8_000;
/// What a packet has before what the MTU counts: Ethernet's header, and a VLAN's.
pub const HEADERS: u64 = 14 + 4;
/// A burst is what comes in this part of a second unless a person chose.
const BURST_PARTS: u64 = 50;
/// No burst is smaller: a few full packets must pass at once, or the rate is not reached.
const LEAST_BURST: u64 = 16 << 10;
/// How long a packet may wait, as a part of a second: 50 ms keep TCP busy and are bearable.
const QUEUE_PARTS: u64 = 20;
/// The queue holds a segmented send of TCP at least (64 KiB and headers).
const LEAST_QUEUE: u64 = 128 << 10;

/// A limit: a rate in bits a second, and bytes that may pass at once (0: chosen from the rate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bits a second.
    pub rate: u64,
    /// Bytes.
    pub burst: u64,
}

impl Limit {
    /// Bytes a second.
    pub fn bytes(self) -> u64 {
        (self.rate / 8).max(1)
    }

    /// The bucket, in bytes.
    fn bucket(self) -> u32 {
        let chosen = if self.burst > 0 { self.burst } else { (self.bytes() / BURST_PARTS).max(LEAST_BURST) };
        u32::try_from(chosen).unwrap_or(u32::MAX)
    }

    /// The bucket and the queue, in bytes.
    fn queue(self) -> u32 {
        let waiting = (self.bytes() / QUEUE_PARTS).max(LEAST_QUEUE);
        u32::try_from(waiting.saturating_add(self.bucket().into())).unwrap_or(u32::MAX)
    }
}

/// A limit as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Of which interface.
    pub index: u32,
    /// Bytes a second.
    pub rate: u64,
    /// How long the bucket takes to fill, in ticks of the kernel (64 ns).
    pub fills: u32,
    /// The bucket and the queue, in bytes.
    pub queue: u32,
}

impl Bucket {
    /// What differs from a limit, if anything does.
    pub fn differs_from(&self, wanted: Limit) -> Option<String> {
        let (rate, bucket) = (wanted.bytes(), u64::from(wanted.bucket()));
        if self.rate != rate {
            let (is, should) = (self.rate * 8, rate * 8);
            return Some(format!("it is limited to {is} bit/s, and should be to {should} bit/s"));
        }
        // The kernel counts in time and rounds; more than it can count to is not compared.
        let ticks = u128::from(bucket) * 1_000_000_000 / u128::from(rate) / 64;
        let fills = u128::from(self.fills);
        if u32::try_from(ticks).is_ok() && ticks.abs_diff(fills) > ticks / 100 + 2 {
            let is = fills * 64 * u128::from(rate) / 1_000_000_000;
            return Some(format!("its limit lets {is} bytes pass at once, and should let {bucket}"));
        }
        let queue = wanted.queue();
        (self.queue != queue)
            .then(|| format!("its limit has {} bytes wait, and should have {queue}", self.queue))
    }
}

/// The token bucket filters that sit on interfaces.
pub fn limits(socket: &Socket) -> Result<Vec<Bucket>, NetlinkError> {
    Ok(dump(socket, "list limits", GETQDISC, &[0; 20], NEWQDISC)?.iter().filter_map(|p| parse(p)).collect())
}

fn parse(payload: &[u8]) -> Option<Bucket> {
    let head = payload.get(..20)?;
    let find = |bytes: &[u8], wanted| attributes(bytes).find(|(k, _)| *k == wanted).map(|(_, v)| v.to_vec());
    if find(&payload[20..], TCA_KIND).is_none_or(|kind| text(&kind) != "tbf") {
        return None;
    }
    let options = find(&payload[20..], TCA_OPTIONS)?;
    let parms = find(&options, TCA_TBF_PARMS)?;
    // TCA_TBF_RATE64 is there only when the rate needs it; else struct tc_tbf_qopt has it.
    let large = find(&options, TCA_TBF_RATE64).and_then(|v| v.try_into().ok()).map(u64::from_ne_bytes);
    let at = |from: usize| parms.get(from..from + 4).map(number);
    Some(Bucket {
        index: number(&head[4..8]),
        rate: large.or(at(8).map(u64::from))?,
        fills: at(28)?,
        queue: at(24)?,
    })
}

/// Limits what leaves the interface with this index, in place of an earlier limit.
pub fn limit(batch: &mut Batch, name: &str, index: u32, limit: Limit) {
    let mut head = [0; 20];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&HANDLE.to_ne_bytes());
    head[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    let rate = limit.bytes();
    // struct tc_tbf_qopt: two struct tc_ratespec, limit, buffer, mtu. The last two follow from TCA_TBF_BURST.
    let mut options = [0; 36];
    options[1] = ETHERNET;
    options[8..12].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    options[24..28].copy_from_slice(&limit.queue().to_ne_bytes());
    batch.push(format!("limit what leaves {name}"), NEWQDISC, Flags::REPLACE, &head, |a| {
        a.text(TCA_KIND, "tbf");
        a.nested(TCA_OPTIONS, |a| {
            a.bytes(TCA_TBF_PARMS, &options);
            a.number(TCA_TBF_BURST, limit.bucket());
            if u32::try_from(rate).is_err() {
                a.bytes(TCA_TBF_RATE64, &rate.to_ne_bytes());
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_limit_byte_for_byte() {
        let mut batch = Batch::new();
        // 100 Mbit/s: 12,500,000 bytes a second, a fiftieth of which at once, and a twentieth more in the queue.
        limit(&mut batch, "eth0", 7, Limit { rate: 100_000_000, burst: 0 });
        let expected = [
            96, 0, 0, 0, 36, 0, 5, 5, 1, 0, 0, 0, 0, 0, 0, 0,               // RTM_NEWQDISC, ack + create + replace
            0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 255, 255, 255, 255, 0, 0, 0, 0,
            8, 0, 1, 0, b't', b'b', b'f', 0,
            52, 0, 2, 0x80,
            40, 0, 1, 0,
            0, 1, 0, 0, 0, 0, 0, 0, 0x20, 0xbc, 0xbe, 0,                     // rate
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                              // peakrate
            0xf8, 0x59, 0x0d, 0,                                             // limit: 875,000
            0, 0, 0, 0, 0, 0, 0, 0,
            8, 0, 6, 0, 0x90, 0xd0, 3, 0,                                    // burst: 250,000
        ];
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn bursts_and_queues_follow_from_the_rate() {
        let slow = Limit { rate: 64_000, burst: 0 };
        assert_eq!((slow.bucket(), slow.queue()), (16 << 10, (16 << 10) + (128 << 10)));
        let chosen = Limit { rate: 64_000, burst: 5000 };
        assert_eq!(chosen.bucket(), 5000);
        let huge = Limit { rate: u64::MAX, burst: 0 };
        assert_eq!((huge.bucket(), huge.queue()), (u32::MAX, u32::MAX));
    }

    #[test]
    fn a_rate_of_more_than_32_bits_is_told_in_64() {
        let mut batch = Batch::new();
        limit(&mut batch, "eth0", 7, Limit { rate: 80_000_000_000, burst: 1 << 20 });
        let tail = &batch.bytes()[batch.bytes().len() - 12..];
        assert_eq!(tail, [[12, 0, 4, 0].to_vec(), 10_000_000_000u64.to_ne_bytes().to_vec()].concat());
    }

    #[test]
    fn a_limit_of_the_same_rate_may_differ() {
        let wanted = Limit { rate: 80_000_000, burst: 0 };
        // 200,000 bytes at 10 MB/s take 20 ms.
        let same = Bucket { index: 1, rate: 10_000_000, fills: 20_000_000 / 64, queue: 700_000 };
        assert_eq!(same.differs_from(wanted), None);
        let told = |bucket: Bucket| bucket.differs_from(wanted).unwrap_or_default();
        assert!(told(Bucket { rate: 1, ..same }).contains("8 bit/s"));
        assert!(told(Bucket { fills: 3000, ..same }).contains("1920 bytes pass at once"));
        assert!(told(Bucket { queue: 3000, ..same }).contains("3000 bytes wait"));
    }
}
