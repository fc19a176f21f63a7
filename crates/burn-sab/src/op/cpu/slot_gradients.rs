//! Gradients of the slots that a call stores, while the reverse sweep is on its way to them.

use super::float::Float;

/// Gradients that have room from the start, so that short sequences need not copy them into larger
/// memory: what 16 rows need for 128 slots. Memory that is not touched costs nothing.
const ROOM: usize = 2048;

/// Gradients by lane, row and slot. Only slots that something was retrieved from take memory, and
/// they give it back when the sweep reaches the step that stored them.
pub struct SlotGradients<T> {
    rows: usize,
    slots: usize,
    width: usize,
    /// Place in `data` plus one; 0: no gradient. `[lanes, rows, slots]`.
    table: Vec<u32>,
    /// Gradients of each slot, over lanes and rows.
    pending: Vec<u32>,
    data: Vec<T>,
    free: Vec<u32>,
}

impl<T: Float> SlotGradients<T> {
    /// For gradients of `width` numbers.
    pub fn new(lanes: usize, rows: usize, slots: usize, width: usize) -> Self {
        Self {
            rows,
            slots,
            width,
            table: vec![0; lanes * rows * slots],
            pending: vec![0; slots],
            data: Vec::with_capacity((lanes * rows * slots).min(ROOM) * width),
            free: Vec::new(),
        }
    }

    /// The gradient of a slot, zero at first.
    #[inline(always)]
    pub fn entry(&mut self, lane: usize, row: usize, slot: usize) -> &mut [T] {
        let index = (lane * self.rows + row) * self.slots + slot;
        if self.table[index] == 0 {
            self.pending[slot] += 1;
            self.table[index] = match self.free.pop() {
                Some(place) => {
                    self.data[place as usize * self.width..][..self.width].fill(T::ZERO);
                    place + 1
                }
                None => {
                    let place = self.data.len() / self.width;
                    self.data.resize(self.data.len() + self.width, T::ZERO);
                    u32::try_from(place + 1)
                        .expect("fewer than 2^32 slots receive gradient at a time")
                }
            };
        }
        let place = self.table[index] as usize - 1;
        &mut self.data[place * self.width..][..self.width]
    }

    /// The last of the first `slots` slots that has gradient.
    pub fn last_before(&self, slots: usize) -> Option<usize> {
        self.pending[..slots].iter().rposition(|pending| *pending > 0)
    }

    /// Ends a slot's gradient and returns it, if there is one.
    #[inline(always)]
    pub fn take(&mut self, lane: usize, row: usize, slot: usize) -> Option<&[T]> {
        let place = std::mem::take(&mut self.table[(lane * self.rows + row) * self.slots + slot])
            .checked_sub(1)?;
        self.pending[slot] -= 1;
        self.free.push(place);
        Some(&self.data[place as usize * self.width..][..self.width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_reused_and_clean() {
        let mut gradients = SlotGradients::<f32>::new(2, 3, 4, 2);
        assert!(gradients.take(1, 2, 3).is_none());
        gradients.entry(1, 2, 3)[1] += 5.0;
        gradients.entry(0, 0, 0)[0] += 1.0;
        assert_eq!((gradients.last_before(4), gradients.last_before(3)), (Some(3), Some(0)));
        assert_eq!(gradients.entry(1, 2, 3), [0.0, 5.0]);
        assert_eq!(gradients.take(1, 2, 3), Some(&[0.0, 5.0][..]));
        assert!(gradients.take(1, 2, 3).is_none());
        assert_eq!(gradients.entry(0, 1, 0), [0.0, 0.0]);
        assert_eq!(gradients.data.len(), 4);
    }
}
