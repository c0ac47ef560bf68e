//! Rows that are filled up to a bucket's.

use tch::Tensor;

use crate::diffusion::layers::Result;

/// New tensors of `rows` rows each; behind those that there are the last is repeated, so that whatever is computed of it is finite if they are.
pub(super) fn padded(inputs: &[Tensor], rows: i64) -> Result<Vec<Tensor>> {
    let pad = |input: &Tensor| {
        let mut size = input.size();
        size[0] = rows;
        let tensor = input.f_new_empty(&size, (input.kind(), input.device()))?;
        copy_rows(input, &tensor)?;
        Ok(tensor)
    };
    inputs.iter().map(pad).collect()
}

/// Copies rows to a tensor of at least as many, with the last repeated to its end.
pub(super) fn copy_rows(from: &Tensor, to: &Tensor) -> Result<()> {
    let (rows, room) = (from.size()[0], to.size()[0]);
    to.f_narrow(0, 0, rows)?.f_copy_(from)?;
    if room == rows {
        return Ok(());
    }
    // One row is broadcast over all that are left.
    to.f_narrow(0, rows, room - rows)?.f_copy_(&from.f_narrow(0, rows - 1, 1)?)
}
