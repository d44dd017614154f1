//! The ways in which a network may split bytes: whole, one by one, and in pieces of lengths that follow from the bytes.

/// The longest piece: requests and frames of the corpus are cut several times.
const PIECE_BYTES_MAX: u64 = 40;

/// The same bytes in pieces, in several ways; the first way is whole.
pub fn ways(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let single = bytes.chunks(1).collect();
    vec![vec![bytes], single, uneven(bytes, 1), uneven(bytes, 2)]
}

fn uneven(bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let (mut rest, mut state, mut pieces) = (bytes, seed, Vec::new());
    while !rest.is_empty() {
        state =
            bytes.len() as u64 ^ state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = 1 + (state >> 33) % PIECE_BYTES_MAX;
        let (piece, behind) = rest.split_at(rest.len().min(length as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
