//! From a micro-batch to the gradients of every parameter that trains.
//!
//! Two ways to the same numbers. The plain one keeps everything that the way back needs. With
//! *gradient checkpointing* (Chen et al., arXiv 1604.06174) only the input of each decoder layer is
//! kept: the layers run without a graph, the head with one, and then each layer, last to first, runs
//! again with its input as the leaf of a graph of its own. In-LLM layers belong to the decoder layer
//! that they follow. What they look at, and the embeddings that went in, are the only tensors whose
//! gradients are summed over layers; at the end they are pushed through connector, embedding table
//! and encoders in one go.
//!
//! A graph is started from a given gradient `g` of its result `y` by going back from `Σ y·g`.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::Gradients;
use opabinia_connector::PictureContext;
use opabinia_llm::{KvCache, LayerHook};
use opabinia_nn::{Trace, dropout};

use crate::forward::trains;
use crate::load::Network;
use crate::loss::{LossOptions, Targets, TrainingRow, pack_training, training_loss};
use crate::pack::Packed;
use crate::{ModelConfig, ModelError};

/// The gradients of a micro-batch.
#[derive(Debug)]
pub struct TrainingGradients {
    /// Cross entropy summed over the trained tokens, not scaled.
    pub sum: f64,
    /// Number of trained tokens.
    pub terms: usize,
    /// Of `scale` times that sum, for each parameter that trains and that the batch has touched.
    pub gradients: GradientsParams,
}

/// Gradients of `scale` times the summed loss of a micro-batch, with or without checkpointing.
///
/// # Errors
/// As [`training_loss`].
pub fn training_gradients(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    rows: &[TrainingRow<'_>],
    options: &LossOptions,
    scale: f64,
) -> Result<TrainingGradients, ModelError> {
    if options.checkpointing {
        return checkpointed(network, config, device, rows, options, scale);
    }
    let loss = training_loss(network, config, device, rows, options)?;
    let mut collected = Collected::default();
    go_back(loss.sum.clone() * scale, &mut collected, network);
    Ok(TrainingGradients {
        sum: value(loss.sum),
        terms: loss.terms,
        gradients: collected.gradients,
    })
}

fn checkpointed(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    rows: &[TrainingRow<'_>],
    options: &LossOptions,
    scale: f64,
) -> Result<TrainingGradients, ModelError> {
    let packed = pack_training(network, config, device, rows)?;
    let targets = Targets::of(rows, &packed)?;
    let mut run = Checkpointed::new(network, config, options, &packed);
    let last = run.forward()?;
    let loss = run.head(last, &targets, scale);
    run.backward()?;
    run.finish();
    Ok(TrainingGradients {
        sum: loss,
        terms: targets.terms(),
        gradients: run.collected.gradients,
    })
}

/// A forward and backward pass with checkpoints.
struct Checkpointed<'a> {
    network: &'a Network,
    config: &'a ModelConfig,
    options: &'a LossOptions,
    packed: &'a Packed,
    /// What goes into the first layer, with its graph.
    embedded: Tensor<3>,
    /// The layers that are still ahead on the way back.
    checkpoints: Vec<Checkpoint>,
    /// Gradient of the output of the layer that is next on the way back.
    gradient: Option<Tensor<3>>,
    /// Gradients of what in-LLM layers look at, in the order of [`seen`].
    of_context: Vec<Option<Tensor<3>>>,
    collected: Collected,
}

/// What it takes to run a layer again.
struct Checkpoint {
    /// Its input, without graph.
    input: Tensor<3>,
    /// Of its dropout masks, where there are some.
    masks: Option<u64>,
}

impl<'a> Checkpointed<'a> {
    fn new(
        network: &'a Network,
        config: &'a ModelConfig,
        options: &'a LossOptions,
        packed: &'a Packed,
    ) -> Self {
        let step = packed.read_once();
        let (embedded, _) = network.decoder.begin(step, &mut KvCache::new());
        let count = packed.context.iter().flat_map(seen).count();
        Self {
            network,
            config,
            options,
            packed,
            embedded,
            checkpoints: Vec::new(),
            gradient: None,
            of_context: vec![None; count],
            collected: Collected::default(),
        }
    }

    /// Runs all layers without a graph and keeps their inputs; returns the last output.
    fn forward(&mut self) -> Result<Tensor<3>, ModelError> {
        let plain = self.network.valid();
        let mut inner = self.packed.clone();
        inner.embeddings = inner.embeddings.inner();
        inner.context = inner.context.map(|x| with_seen(&x, Tensor::inner));
        let mut slots = KvCache::new();
        let step = inner.read_once();
        let (mut x, pass) = plain.decoder.begin(step, &mut slots);
        let (rule, mut trace) = (self.options.image_position, Trace::off());
        let mut hook = plain.hook(self.config, &inner, rule, &mut trace)?;
        for index in 0..plain.decoder.layers.len() {
            let masks = dropout::seed();
            self.checkpoints.push(Checkpoint {
                input: x.clone(),
                masks,
            });
            x = with_masks(masks, || {
                // A copy of the slots, so that nobody keeps keys and values.
                let x = plain.decoder.layer(index, x, &pass, &mut slots.clone());
                hook.after_layer(index, pass.first_slot, x)
            });
        }
        Ok(x)
    }

    /// The loss with the graph of norm and head alone; leaves the gradient of the last layer.
    fn head(&mut self, last: Tensor<3>, targets: &Targets, scale: f64) -> f64 {
        let decoder = &self.network.decoder;
        let last = last.autodiff().require_grad();
        let loss = targets.loss(decoder, decoder.norm.forward(last.clone()));
        let mut gradients = (loss.sum.clone() * scale).backward();
        self.gradient = last.grad_remove(&mut gradients);
        self.collected.add(&mut gradients, &decoder.norm);
        match &decoder.lm_head {
            Some(head) => self.collected.add(&mut gradients, head),
            None => self.collected.add(&mut gradients, &decoder.embed_tokens),
        }
        value(loss.sum)
    }

    /// Each layer again, last to first, as far down as something trains.
    fn backward(&mut self) -> Result<(), ModelError> {
        let decoder = &self.network.decoder;
        let mut slots = KvCache::new();
        let step = self.packed.read_once();
        let (_, pass) = decoder.begin(step, &mut slots);
        let (rule, mut trace) = (self.options.image_position, Trace::off());
        let lowest = self.lowest_that_trains();
        for index in (lowest..decoder.layers.len()).rev() {
            let (Some(Checkpoint { input, masks }), Some(gradient)) =
                (self.checkpoints.pop(), self.gradient.take())
            else {
                break;
            };
            let input = input.autodiff().require_grad();
            // Going back uses a graph up, so each layer has leaves and a hook of its own.
            let (batch, leaves) = self.with_leaves();
            let mut hook = self.network.hook(self.config, &batch, rule, &mut trace)?;
            let output = with_masks(masks, || {
                let output = decoder.layer(index, input.clone(), &pass, &mut slots.clone());
                hook.after_layer(index, pass.first_slot, output)
            });
            let mut gradients = seeded(output, gradient).sum().backward();
            self.gradient = input.grad_remove(&mut gradients);
            self.collected.add(&mut gradients, &decoder.layers[index]);
            self.collect_in_llm(index, &leaves, &mut gradients);
        }
        Ok(())
    }

    /// The batch with leaves in place of what in-LLM layers look at, and these leaves.
    fn with_leaves(&self) -> (Packed, Vec<Tensor<3>>) {
        let mut leaves = Vec::new();
        let mut batch = self.packed.clone();
        batch.context = batch.context.map(|context| {
            with_seen(&context, |made| {
                let tracked = made.is_tracked();
                leaves.push(made.inner().autodiff().set_require_grad(tracked));
                leaves[leaves.len() - 1].clone()
            })
        });
        (batch, leaves)
    }

    /// The first layer at or below which anything trains; the number of layers if nothing does.
    fn lowest_that_trains(&self) -> usize {
        let layers = &self.network.decoder.layers;
        if self.embedded.is_tracked() {
            return 0;
        }
        let mut looked_at = self.packed.context.iter().flat_map(seen);
        let looked_at = looked_at.any(|made| made.is_tracked());
        let in_llm = |index: usize| {
            let layer = self.in_llm_layer(index);
            layer.is_some_and(|layer| looked_at || trains(layer))
        };
        (0..layers.len())
            .find(|&index| trains(&layers[index]) || in_llm(index))
            .unwrap_or(layers.len())
    }

    /// The in-LLM layer that follows a decoder layer, if the batch has pictures.
    fn in_llm_layer(&self, index: usize) -> Option<&'a opabinia_connector::Sampler> {
        self.packed.context.as_ref()?;
        let sva = self.network.connector.as_ref()?.sva()?;
        Some(&sva.in_llm[sva.layer_after(index)?])
    }

    /// What a decoder layer's graph says of the in-LLM layer behind it and of what that looks at.
    fn collect_in_llm(&mut self, index: usize, leaves: &[Tensor<3>], gradients: &mut Gradients) {
        let Some(layer) = self.in_llm_layer(index) else {
            return;
        };
        self.collected.add(gradients, layer);
        for (sum, leaf) in self.of_context.iter_mut().zip(leaves) {
            let more = leaf.grad_remove(gradients);
            *sum = match (sum.take(), more) {
                (Some(sum), Some(more)) => Some(sum + more),
                (sum, more) => sum.or(more),
            };
        }
    }

    /// Pushes what has arrived at the embeddings and at the contexts through what made them.
    fn finish(&mut self) {
        let contexts = self.packed.context.iter().flat_map(seen);
        let contexts = contexts.zip(std::mem::take(&mut self.of_context));
        let embedded = (self.embedded.clone(), self.gradient.take());
        let ends: Vec<Tensor<1>> = contexts
            .chain([embedded])
            .filter(|(made, _)| made.is_tracked())
            .filter_map(|(made, gradient)| Some(seeded(made, gradient?).sum()))
            .collect();
        if let Some(all) = ends.into_iter().reduce(|a, b| a + b) {
            go_back(all, &mut self.collected, self.network);
        }
    }
}

/// Runs `f` with the dropout masks of a seed, where there is one.
fn with_masks<R>(seed: Option<u64>, f: impl FnOnce() -> R) -> R {
    match seed {
        Some(seed) => dropout::with_seed(seed, f),
        None => f(),
    }
}

/// `y·g`, whose sum has the gradient `g` with respect to `y`.
fn seeded(y: Tensor<3>, gradient: Tensor<3>) -> Tensor<3> {
    y * gradient.autodiff()
}

/// Goes back from a sum, if it has a graph, and collects what a module's parameters got.
fn go_back<M: Module>(sum: Tensor<1>, collected: &mut Collected, module: &M) {
    if sum.is_tracked() {
        collected.add(&mut sum.backward(), module);
    }
}

fn value(x: Tensor<1>) -> f64 {
    f64::from(x.inner().into_scalar::<f32>())
}

/// The tensors of a context that came out of the connector: its windows and its global features.
fn seen(context: &PictureContext) -> Vec<Tensor<3>> {
    let latents = context.windows.latents.iter().cloned();
    latents
        .chain([context.context.clone().unsqueeze_dim(1)])
        .collect()
}

/// A context with these tensors, in that order, replaced by a function of them.
fn with_seen(
    context: &PictureContext,
    mut f: impl FnMut(Tensor<3>) -> Tensor<3>,
) -> PictureContext {
    let mut replaced = context.clone();
    for latents in &mut replaced.windows.latents {
        *latents = f(latents.clone());
    }
    let context = f(context.context.clone().unsqueeze_dim(1));
    replaced.context = context.squeeze_dim(1);
    replaced
}

/// Gradients of parameters, summed where several graphs have some.
#[derive(Default)]
struct Collected {
    gradients: GradientsParams,
}

impl Collected {
    /// Takes what a graph says of the parameters of a module.
    fn add<M: Module>(&mut self, gradients: &mut Gradients, module: &M) {
        let mut new = GradientsParams::from_module(gradients, module);
        module.visit(&mut Merge {
            sum: &mut self.gradients,
            new: &mut new,
        });
    }
}

struct Merge<'a> {
    sum: &'a mut GradientsParams,
    new: &'a mut GradientsParams,
}

impl ModuleVisitor for Merge<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let id: ParamId = param.id;
        if let Some(new) = self.new.remove::<D>(id) {
            let sum = match self.sum.remove::<D>(id) {
                Some(sum) => sum + new,
                None => new,
            };
            self.sum.register(id, sum);
        }
    }
}
