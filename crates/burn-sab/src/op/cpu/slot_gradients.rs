//! Gradients of the slots that a call stores, from the step that retrieves a slot to the step that
//! stored it.

use super::float::Float;

/// Number of gradients that fit without reallocation, so that short sequences need no copy: 16 rows of
/// 128 slots. The system provides untouched memory at no cost.
const ROOM: usize = 2048;

/// Gradients by lane, row and slot. Only retrieved slots occupy memory. The memory of a slot is freed
/// when the reverse sweep reaches the step that stored it.
pub struct SlotGradients<T> {
    rows: usize,
    slots: usize,
    width: usize,
    /// Index in `data` plus one, `[lanes, rows, slots]`; 0 if there is no gradient.
    table: Vec<u32>,
    /// Number of gradients of each slot, over lanes and rows.
    pending: Vec<u32>,
    data: Vec<T>,
    free: Vec<u32>,
}

impl<T: Float> SlotGradients<T> {
    /// Creates a table for gradients of `width` elements.
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

    /// Returns the gradient of a slot, which is zero at first.
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

    /// Returns the last of the first `slots` slots that has a gradient.
    pub fn last_before(&self, slots: usize) -> Option<usize> {
        self.pending[..slots].iter().rposition(|pending| *pending > 0)
    }

    /// Removes the gradient of a slot and returns it, if there is one.
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
