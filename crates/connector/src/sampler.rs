//! The building block of the aggregator: queries that look at windows of several feature grids.
//!
//! Cambrian-1, section 3.2. A [`Sampler`] is a short stack of layers. In a joint layer every query
//! attends to the concatenation of its windows on all grids with a single softmax, so encoders
//! compete for its attention. In a separate layer each encoder is aggregated by itself and a small
//! network predicts how to mix them.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::activation::softmax;
use opabinia_nn::attention::{AttentionMask, attention};
use opabinia_nn::{Activation, LayerNorm, Linear, Mlp, Trace};

use crate::LayerType;
use crate::layout::indices;

/// Attention heads of every layer, whatever its width.
pub const HEADS: usize = 16;
/// Of every layer norm in a sampler.
const NORM_EPS: f64 = 1e-5;

/// What a sampler looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Width of the queries: that of the connector, or of the language model for in-LLM layers.
    pub query_width: usize,
    /// Width of the global context.
    pub context_width: usize,
    /// Width of the latents, and inside the sampler.
    pub width: usize,
    /// Side of each encoder's window.
    pub window_sides: Vec<usize>,
    /// Number of layers.
    pub depth: usize,
    /// How a layer combines encoders.
    pub layer_type: LayerType,
}

/// What each query of a sampler looks at; `n` queries, `k_i` features in a window.
#[derive(Clone, Debug)]
pub struct Windows {
    /// One per encoder, `[n, k_i, d]`.
    pub latents: Vec<Tensor<3>>,
    /// One per encoder, `[n, k_i]`, true where a feature may be looked at; `None` if all may.
    pub visible: Option<Vec<Tensor<2, Bool>>>,
}

/// The global context of each picture, and which queries belong to which.
#[derive(Clone, Debug)]
pub struct GlobalContext {
    /// `[p, c]`.
    pictures: Tensor<2>,
    /// The picture of each query; `None` if the queries of a picture stand together, the pictures
    /// in their order and equally many for each.
    owners: Option<Tensor<1, Int>>,
}

impl GlobalContext {
    /// Equally many queries for each of the `p` pictures of `[p, c]`, which stand together.
    #[must_use]
    pub fn even(pictures: Tensor<2>) -> Self {
        Self {
            pictures,
            owners: None,
        }
    }

    /// Query `i` belongs to picture `owners[i]` of `[p, c]`.
    #[must_use]
    pub fn owned(pictures: Tensor<2>, owners: &[usize]) -> Self {
        let each = owners.len() / pictures.dims()[0].max(1);
        let even = owners
            .iter()
            .enumerate()
            .all(|(query, owner)| query.checked_div(each) == Some(*owner));
        let owners = (!even).then(|| indices(owners, &pictures.device()));
        Self { pictures, owners }
    }

    /// The contexts themselves, `[p, c]`.
    pub(crate) fn pictures(&self) -> Tensor<2> {
        self.pictures.clone()
    }

    /// A function of the contexts, `[p, d]`, for each of `n` queries, `[n, d]`.
    pub(crate) fn spread(&self, of_pictures: Tensor<2>, n: usize) -> Tensor<2> {
        if let Some(owners) = &self.owners {
            return of_pictures.select(0, owners.clone());
        }
        let [p, d] = of_pictures.dims();
        let each = of_pictures.unsqueeze_dim::<3>(1).expand([p, n / p, d]);
        each.reshape([n, d])
    }
}

/// A stack of layers that refine the same queries.
#[derive(Module, Debug)]
pub struct Sampler {
    /// The layers, in order.
    pub layers: Vec<SamplerLayer>,
}

impl Sampler {
    /// A sampler with random weights.
    #[must_use]
    pub fn new(config: &SamplerConfig, device: &Device) -> Self {
        Self {
            layers: (0..config.depth)
                .map(|_| SamplerLayer::new(config, device))
                .collect(),
        }
    }

    /// A sampler that adds nothing to its queries until it is trained: the last weight of each layer is
    /// zero. A residual of random weights in between would drown what a decoder reads in its visual tokens.
    #[must_use]
    pub fn at_rest(config: &SamplerConfig, device: &Device) -> Self {
        let mut sampler = Self::new(config, device);
        for layer in &mut sampler.layers {
            let last = &mut layer.proj_out.fc2.weight;
            *last = last.clone().map(|weight| weight.zeros_like());
        }
        sampler
    }

    /// Lets every query look at its windows.
    ///
    /// # Shapes
    /// - `queries`: `[n, q]`
    /// - output: `[n, q]`
    pub fn forward(
        &self,
        mut queries: Tensor<2>,
        context: &GlobalContext,
        windows: &Windows,
        trace: &mut Trace,
    ) -> Tensor<2> {
        for (i, layer) in self.layers.iter().enumerate() {
            queries = layer.change(queries.clone(), context, windows) + queries;
            trace.record(format_args!("layer{i}"), || {
                queries.clone().unsqueeze_dim::<3>(1)
            });
        }
        queries
    }

    /// What [`forward`](Self::forward) adds to the queries, for a caller that has them already.
    ///
    /// # Shapes
    /// - `queries`: `[n, q]`
    /// - output: `[n, q]`
    #[must_use]
    pub fn change(
        &self,
        queries: Tensor<2>,
        context: &GlobalContext,
        windows: &Windows,
    ) -> Tensor<2> {
        if let [only] = &self.layers[..] {
            return only.change(queries, context, windows);
        }
        self.forward(queries.clone(), context, windows, &mut Trace::off()) - queries
    }
}

/// One layer: look, then update the queries by a residual.
#[derive(Module, Debug)]
pub struct SamplerLayer {
    /// The global context, before it joins the queries.
    pub proj_context: Linear,
    /// `[queries, context]` → the layer's width.
    pub proj_in: Linear,
    /// Added to each encoder's window; `[k_i, d]`, absent where a window is one feature.
    pub pos_embed: Vec<Option<Param<Tensor<2>>>>,
    /// How the windows are looked at.
    pub aggregation: Aggregation,
    /// Over the sum of query and what it saw.
    pub norm: LayerNorm,
    /// Back to the width of the queries.
    pub proj_out: Mlp,
}

/// The two ways to look at several windows.
#[derive(Module, Debug)]
pub enum Aggregation {
    /// One softmax over all encoders.
    Joint(JointAttention),
    /// Each encoder alone, mixed by predicted weights.
    Separate(SeparateAggregation),
}

impl SamplerLayer {
    fn new(config: &SamplerConfig, device: &Device) -> Self {
        let SamplerConfig {
            query_width,
            context_width,
            width,
            ref window_sides,
            ..
        } = *config;
        let pos_embed = |&side: &usize| {
            let normal = Initializer::Normal {
                mean: 0.0,
                std: 0.02,
            };
            (side > 1).then(|| normal.init([side * side, width], device))
        };
        let aggregation = match config.layer_type {
            LayerType::Joint => {
                Aggregation::Joint(JointAttention::new(width, window_sides.len(), device))
            }
            LayerType::Separate => Aggregation::Separate(SeparateAggregation::new(config, device)),
        };
        Self {
            proj_context: Linear::new(context_width, width, false, device),
            proj_in: Linear::new(query_width + width, width, false, device),
            pos_embed: window_sides.iter().map(pos_embed).collect(),
            aggregation,
            norm: LayerNorm::new(width, NORM_EPS, device),
            proj_out: mlp(width, width, query_width, device),
        }
    }

    /// What the layer adds to its queries.
    fn change(&self, queries: Tensor<2>, context: &GlobalContext, windows: &Windows) -> Tensor<2> {
        let n = queries.dims()[0];
        // Once per picture, then the same for each of its queries.
        let projected = self.proj_context.forward(context.pictures());
        let joined = Tensor::cat(vec![queries, context.spread(projected, n)], 1);
        let x = self.proj_in.forward(joined.clone());
        let latents = windows
            .latents
            .iter()
            .zip(&self.pos_embed)
            .map(|(latents, pos)| match pos {
                Some(pos) => latents.clone() + pos.val().unsqueeze(),
                None => latents.clone(),
            });
        let latents: Vec<_> = latents.collect();
        let visible = windows.visible.as_deref();
        let seen = match &self.aggregation {
            Aggregation::Joint(net) => net.forward(x.clone(), &latents, visible),
            Aggregation::Separate(net) => net.forward(x.clone(), joined, &latents, visible),
        };
        self.proj_out.forward(self.norm.forward(x + seen))
    }
}

/// A norm followed by a linear layer without bias, as every query, key and value gets.
#[derive(Module, Debug)]
pub struct NormedLinear {
    /// Over the input.
    pub norm: LayerNorm,
    /// Without bias.
    pub linear: Linear,
}

impl NormedLinear {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(width, NORM_EPS, device),
            linear: Linear::new(width, width, false, device),
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.linear.forward(self.norm.forward(x))
    }
}

/// Keys and values of one encoder.
#[derive(Module, Debug)]
pub struct KeyValue {
    /// What a query compares itself with.
    pub key: NormedLinear,
    /// What it takes away.
    pub value: NormedLinear,
}

impl KeyValue {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            key: NormedLinear::new(width, device),
            value: NormedLinear::new(width, device),
        }
    }
}

/// Multi-head attention of one query over the windows of all encoders together.
#[derive(Module, Debug)]
pub struct JointAttention {
    /// Of the queries.
    pub query: NormedLinear,
    /// One per encoder.
    pub encoders: Vec<KeyValue>,
    /// Joins the heads.
    pub out: Linear,
}

impl JointAttention {
    fn new(width: usize, encoders: usize, device: &Device) -> Self {
        Self {
            query: NormedLinear::new(width, device),
            encoders: (0..encoders)
                .map(|_| KeyValue::new(width, device))
                .collect(),
            out: Linear::new(width, width, false, device),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        latents: &[Tensor<3>],
        visible: Option<&[Tensor<2, Bool>]>,
    ) -> Tensor<2> {
        let both = self.encoders.iter().zip(latents);
        let keys = both
            .clone()
            .map(|(net, x)| net.key.forward(x.clone()))
            .collect();
        let values = both.map(|(net, x)| net.value.forward(x.clone())).collect();
        let visible = visible.map(|masks| Tensor::cat(masks.to_vec(), 1));
        let q = self.query.forward(x);
        self.out.forward(look(
            q,
            Tensor::cat(keys, 1),
            Tensor::cat(values, 1),
            visible,
        ))
    }
}

/// Multi-head attention of `n` queries, each over its own `k` keys.
///
/// # Shapes
/// - `q`: `[n, d]`; `k`, `v`: `[n, k, d]`; `visible`: `[n, k]`
/// - output: `[n, d]`
fn look(q: Tensor<2>, k: Tensor<3>, v: Tensor<3>, visible: Option<Tensor<2, Bool>>) -> Tensor<2> {
    let [n, keys, d] = k.dims();
    let heads = |x: Tensor<3>, t| x.reshape([n, t, HEADS, d / HEADS]).swap_dims(1, 2);
    let mask = match visible {
        Some(visible) => AttentionMask::Hidden(visible.bool_not().reshape([n, 1, 1, keys])),
        None => AttentionMask::None,
    };
    let q = heads(q.unsqueeze_dim(1), 1);
    attention(q, heads(k, keys), heads(v, keys), &mask).reshape([n, d])
}

/// Each encoder alone, then a weighted mix.
#[derive(Module, Debug)]
pub struct SeparateAggregation {
    /// One per encoder.
    pub encoders: Vec<SoloAggregation>,
    /// `[queries, context]` → one weight per encoder, before the softmax.
    pub weights: Mlp,
}

/// What becomes of one encoder's window.
#[derive(Module, Debug)]
pub enum SoloAggregation {
    /// Several features: attention.
    Attention(SoloAttention),
    /// A single feature: the query has nothing to choose.
    Feature(Mlp),
}

/// Attention over one encoder's window.
#[derive(Module, Debug)]
pub struct SoloAttention {
    /// Of the queries.
    pub query: NormedLinear,
    /// Of the window.
    pub window: KeyValue,
    /// Joins the heads.
    pub out: Linear,
}

impl SeparateAggregation {
    fn new(config: &SamplerConfig, device: &Device) -> Self {
        let width = config.width;
        let solo = |&side: &usize| {
            if side > 1 {
                SoloAggregation::Attention(SoloAttention {
                    query: NormedLinear::new(width, device),
                    window: KeyValue::new(width, device),
                    out: Linear::new(width, width, false, device),
                })
            } else {
                SoloAggregation::Feature(mlp(width, width, width, device))
            }
        };
        let encoders = config.window_sides.len();
        Self {
            encoders: config.window_sides.iter().map(solo).collect(),
            weights: mlp(config.query_width + width, width, encoders, device),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        joined: Tensor<2>,
        latents: &[Tensor<3>],
        visible: Option<&[Tensor<2, Bool>]>,
    ) -> Tensor<2> {
        let [n, d] = x.dims();
        let aggregate = |(i, net): (usize, &SoloAggregation)| match net {
            SoloAggregation::Feature(mlp) => mlp.forward(latents[i].clone().reshape([n, d])),
            SoloAggregation::Attention(net) => {
                let visible = visible.map(|masks| masks[i].clone());
                let key = net.window.key.forward(latents[i].clone());
                let value = net.window.value.forward(latents[i].clone());
                net.out
                    .forward(look(net.query.forward(x.clone()), key, value, visible))
            }
        };
        let seen: Vec<_> = self.encoders.iter().enumerate().map(aggregate).collect();
        let weights = softmax(self.weights.forward(joined), 1); // [n, encoders]
        let seen = Tensor::stack::<3>(seen, 1); // [n, encoders, d]
        (seen * weights.unsqueeze_dim(2)).sum_dim(1).reshape([n, d])
    }
}

/// Two layers without bias and GELU between, the shape of every MLP in a sampler.
fn mlp(d_in: usize, hidden: usize, d_out: usize, device: &Device) -> Mlp {
    Mlp::with_bias(d_in, hidden, d_out, Activation::Gelu, false, device)
}
