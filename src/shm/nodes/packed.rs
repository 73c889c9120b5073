//! Channels and clients as words. What is read may be anything: it is bounded here.

use super::CHANNEL_NAME_MAX;
use crate::proto::cluster::membership::standing::{
    ADDRESS_MAX, CLIENT_ADDRESS_MAX, Client, Health, Place, Standing, Super,
};

const NAME: usize = CHANNEL_NAME_MAX.div_ceil(8);
const ADDRESS: usize = ADDRESS_MAX.div_ceil(8);
const CLIENT_ADDRESS: usize = CLIENT_ADDRESS_MAX.div_ceil(8);

/// Words of a channel: what it is, the numbers, then its name and four addresses.
pub const CHANNEL_BODY: usize = 5 + NAME + 4 * ADDRESS;
/// Words of a client.
pub const CLIENT_BODY: usize = 4 + CLIENT_ADDRESS;

/// The lowest byte of a body that is in use; the second one of a client is its channel.
const USED: u64 = 1;

const PLACES: [Place; 5] =
    [Place::Root, Place::Detached, Place::Joining, Place::Joined, Place::Left];

/// Writes words one after another.
struct Packer<'b>(std::slice::IterMut<'b, u64>);

impl Packer<'_> {
    fn word(&mut self, value: u64) {
        if let Some(word) = self.0.next() {
            *word = value;
        }
    }

    fn text(&mut self, text: &str, words: usize) {
        let mut chunks = text.as_bytes().chunks(8);
        for _ in 0..words {
            let mut bytes = [0; 8];
            for (byte, from) in bytes.iter_mut().zip(chunks.next().unwrap_or_default()) {
                *byte = *from;
            }
            self.word(u64::from_le_bytes(bytes));
        }
    }
}

/// Reads them again.
struct Unpacker<'b>(std::slice::Iter<'b, u64>);

impl Unpacker<'_> {
    fn word(&mut self) -> u64 {
        self.0.next().copied().unwrap_or_default()
    }

    /// None where it is no text.
    fn text(&mut self, words: usize) -> Option<String> {
        let bytes = self.0.by_ref().take(words).flat_map(|word| word.to_le_bytes());
        let mut text: Vec<u8> = bytes.collect();
        text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        String::from_utf8(text).ok()
    }

    /// None where it is empty or no text.
    fn address(&mut self, words: usize) -> Option<String> {
        self.text(words).filter(|text| !text.is_empty())
    }
}

fn fits(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.contains('\0')
}

/// A channel's body; None where the name or an address is too long, or empty.
pub fn pack_channel(name: &str, standing: &Standing) -> Option<[u64; CHANNEL_BODY]> {
    let above = standing.above.as_ref();
    let moving = standing.moving.as_ref();
    let addresses = [
        above.map(|above| above.address.as_str()),
        standing.moved.as_deref(),
        standing.pending.as_deref(),
        moving.map(|(to, _)| to.as_str()),
    ];
    let fit = fits(name, CHANNEL_NAME_MAX)
        && addresses.iter().flatten().all(|address| fits(address, ADDRESS_MAX));
    if !fit {
        return None;
    }
    let mut body = [0; CHANNEL_BODY];
    let mut words = Packer(body.iter_mut());
    let place = PLACES.iter().position(|place| *place == standing.place).unwrap_or_default();
    words.word(USED | (place as u64) << 8);
    let index = above.and_then(|above| above.index).map_or(0, |index| u64::from(index) + 1);
    words.word(index);
    words.word(above.map_or(0, |above| above.epoch));
    words.word(standing.listed);
    words.word(moving.map_or(0, |(_, number)| *number));
    words.text(name, NAME);
    for address in addresses {
        words.text(address.unwrap_or_default(), ADDRESS);
    }
    Some(body)
}

/// The channel in a body, and its name; None where there is none.
pub fn channel(body: &[u64; CHANNEL_BODY]) -> Option<(String, Standing)> {
    let mut words = Unpacker(body.iter());
    let [used, place, ..] = words.word().to_le_bytes();
    let place = *PLACES.get(usize::from(place)).filter(|_| u64::from(used) == USED)?;
    let index = words.word().checked_sub(1).and_then(|index| u16::try_from(index).ok());
    let epoch = words.word();
    let listed = words.word();
    let number = words.word();
    let name = words.address(NAME)?;
    let [above, moved, pending, moving] = std::array::from_fn(|_| words.address(ADDRESS));
    let above = above.map(|address| Super { address, epoch, index });
    let moving = moving.map(|to| (to, number));
    Some((name, Standing { place, above, moved, listed, pending, moving }))
}

/// A client's body; None where the address is too long, or empty.
pub fn pack_client(channel: u8, client: &Client) -> Option<[u64; CLIENT_BODY]> {
    if !fits(&client.address, CLIENT_ADDRESS_MAX) {
        return None;
    }
    let mut body = [0; CLIENT_BODY];
    let mut words = Packer(body.iter_mut());
    let flags = u8::from(client.health == Health::Suspect)
        | u8::from(client.reported) << 1
        | u8::from(client.moving) << 2;
    let [a, b, c, d] = client.subtree.to_le_bytes();
    words.word(u64::from_le_bytes([USED as u8, channel, flags, 0, a, b, c, d]));
    words.word(client.epoch);
    words.word(client.sequence);
    words.word(client.heard);
    words.text(&client.address, CLIENT_ADDRESS);
    Some(body)
}

/// The channel of the client in a body; None where there is none.
pub fn channel_of(body: &[u64; CLIENT_BODY]) -> Option<u8> {
    let [used, channel, ..] = body.first()?.to_le_bytes();
    (u64::from(used) == USED).then_some(channel)
}

/// Whether two bodies are of the same client.
pub fn is_same_client(one: &[u64; CLIENT_BODY], other: &[u64; CLIENT_BODY]) -> bool {
    let channel = channel_of(one);
    channel.is_some() && channel == channel_of(other) && one.get(4..) == other.get(4..)
}

/// The client in a body; None where there is none.
pub fn client(body: &[u64; CLIENT_BODY]) -> Option<Client> {
    channel_of(body)?;
    let mut words = Unpacker(body.iter());
    let [_, _, flags, _, a, b, c, d] = words.word().to_le_bytes();
    let (epoch, sequence, heard) = (words.word(), words.word(), words.word());
    Some(Client {
        address: words.address(CLIENT_ADDRESS)?,
        epoch,
        sequence,
        heard,
        health: if flags & 1 == 0 { Health::Alive } else { Health::Suspect },
        subtree: u32::from_le_bytes([a, b, c, d]),
        reported: flags & 2 != 0,
        moving: flags & 4 != 0,
    })
}
