//! The autoencoder on pictures that would take too much memory whole: in tiles that overlap and are blended, as diffusers'
//! `AutoencoderKL.tiled_decode` and `_tiled_encode` do it.

use tch::{Kind, Tensor};

use crate::diffusion::layers::Result;

/// The share of a tile that it has in common with its neighbour is one in this many: diffusers' `tile_overlap_factor` of 0.25.
const OVERLAP: i64 = 4;

/// The size of a tile: diffusers' `tile_latent_min_size` and, times the factor, `tile_sample_min_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) struct TileSize {
    /// Cells of latents in each direction; a multiple of [`OVERLAP`].
    cells: i64,
    /// Pixels a cell in each direction.
    factor: i64,
}

/// How tiles lie on what goes in and what comes out.
struct Grid {
    /// Of a tile that goes in.
    side: i64,
    /// From the begin of one tile to that of the next.
    stride: i64,
    /// Of what comes out: as much of a tile's begin is blended with its neighbour's end.
    blend: i64,
    /// Of what comes out: where the next tile takes over.
    kept: i64,
}

impl TileSize {
    /// Tiles of at most this many pixels in each direction, and of a size that can overlap.
    pub(in crate::diffusion) fn of_pixels(pixels: i64, factor: i64) -> Self {
        Self { cells: (pixels / factor / OVERLAP).max(1) * OVERLAP, factor }
    }

    /// Applies `decode` to the tiles of latents `[1, C, h, w]` and puts the pixels together: `[1, 3, H, W]`.
    pub(in crate::diffusion) fn decode(self, latents: &Tensor, decode: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.grid(1, self.factor).apply(latents, decode)
    }

    /// Applies `encode` to the tiles of pixels `[1, 3, H, W]` and puts the latents' moments together: `[1, 2C, h, w]`.
    pub(in crate::diffusion) fn encode(self, pixels: &Tensor, encode: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.grid(self.factor, 1).apply(pixels, encode)
    }

    /// The grid for what has `input` and `output` values a cell in each direction.
    fn grid(self, input: i64, output: i64) -> Grid {
        let overlap = self.cells / OVERLAP;
        let stride = self.cells - overlap;
        Grid { side: self.cells * input, stride: stride * input, blend: overlap * output, kept: stride * output }
    }
}

impl Grid {
    /// Row by row from the top, each tile blended with what stands above and to the left of it already.
    fn apply(&self, x: &Tensor, network: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        if height <= self.side && width <= self.side {
            return network(x);
        }
        let (mut above, mut rows): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for top in (0..height).step_by(self.stride as usize) {
            let band = x.f_narrow(2, top, self.side.min(height - top))?;
            let mut row: Vec<Tensor> = Vec::new();
            for left in (0..width).step_by(self.stride as usize) {
                let tile = network(&band.f_narrow(3, left, self.side.min(width - left))?.f_contiguous()?)?;
                if let Some(above) = above.get(row.len()) {
                    self.blend(above, &tile, 2)?;
                }
                if let Some(before) = row.last() {
                    self.blend(before, &tile, 3)?;
                }
                row.push(tile);
            }
            rows.push(Tensor::f_cat(&row.iter().map(|tile| self.keep(tile)).collect::<Result<Vec<_>>>()?, 3)?);
            above = row;
        }
        Tensor::f_cat(&rows, 2)
    }

    /// Fades the end of `before` into the begin of `tile`, which is written to; diffusers' `blend_v` (dimension 2) and `blend_h` (3).
    fn blend(&self, before: &Tensor, tile: &Tensor, dim: i64) -> Result<()> {
        let length = before.size()[dim as usize];
        let extent = self.blend.min(length).min(tile.size()[dim as usize]);
        let mut shape = [1; 4];
        shape[dim as usize] = extent;
        let weight = Tensor::f_arange(extent, (Kind::Float, tile.device()))?.f_div_scalar(extent as f64)?.f_reshape(shape)?;
        let mut begin = tile.f_narrow(dim, 0, extent)?;
        let end = before.f_narrow(dim, length - extent, extent)?;
        let blended = begin.f_mul(&weight)?.f_add(&end.f_mul(&weight.f_neg()?.f_add_scalar(1.0)?)?)?;
        begin.f_copy_(&blended)
    }

    fn keep(&self, tile: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = tile.size4()?;
        tile.f_narrow(2, 0, self.kept.min(height))?.f_narrow(3, 0, self.kept.min(width))
    }
}
