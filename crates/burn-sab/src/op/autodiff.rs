//! The op in Burn's autodiff graph: one node for the whole sequence.
//!
//! A node of Burn has one output tensor, the op has five that carry gradient. Packing them into one
//! buffer would copy it once per output in both directions. Instead the node's own output is a token, a tensor
//! whose numbers nobody reads, and each output is a port: a tiny node above it that drops its gradient into a
//! mailbox the main node empties. A gradient that never arrives costs nothing, and the main node knows it.

use std::sync::{Arc, Mutex};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::backend::{SabBackend, SabKernel, Saved};
use super::stream::{SlotMemory, StepOutputs};
use super::{
    RetrievedSlots, SabGrads, SabInputs, SabOptions, SabOutputs, ScoreInputs, StoredSlots,
    UpstreamGrads,
};

/// Burn keeps its name private; whatever the checkpoint strategy, it is this type.
type AutodiffTensor<B> = FloatTensor<Autodiff<B>>;

/// Inputs of the node: seven tensors and at most four score parameters.
const INPUTS: usize = 11;

/// Where the ports leave their gradients.
type Mailbox<B> = Arc<Mutex<UpstreamGrads<B>>>;

/// The main node.
#[derive(Debug)]
struct SabSequence;

/// What the main node keeps.
#[derive(Clone, Debug)]
struct Kept<B: Backend> {
    inputs: SabInputs<B>,
    saved: Saved<B>,
    options: SabOptions,
    mailbox: Mailbox<B>,
}

impl<B: SabKernel> Backward<B, INPUTS> for SabSequence {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Kept<B>, INPUTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let _token = grads.consume::<B>(&ops.node);
        let Kept { inputs, saved, options, mailbox } = ops.state;
        let mut mailbox = mailbox.lock().expect("no port panics");
        let upstream = std::mem::replace(&mut *mailbox, UpstreamGrads::none());
        let SabGrads { x, w_ih, w_hh, bias, h0, c0, slots, score } =
            B::sab_backward(&inputs, saved, upstream, &options, ops.parents[0].is_some());
        let values = [x, Some(w_ih), Some(w_hh), Some(bias), Some(h0), Some(c0), slots];
        let values = values.into_iter().chain(score.into_iter().map(Some));
        for (parent, grad) in ops.parents.into_iter().zip(values) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// One output of the main node.
#[derive(Clone, Copy, Debug)]
enum Port {
    Hidden,
    Last,
    Cell,
    Stored,
    Summary,
}

impl Port {
    fn open<B: Backend, C: CheckpointStrategy>(
        self,
        token: &AutodiffTensor<B>,
        mailbox: &Mailbox<B>,
        output: FloatTensor<B>,
    ) -> AutodiffTensor<B> {
        match self.prepare::<C>([token.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish((mailbox.clone(), token.primitive().clone()), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

impl<B: Backend> Backward<B, 1> for Port {
    type State = (Mailbox<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (mailbox, token) = ops.state;
        let first = {
            let mut upstream = mailbox.lock().expect("no port panics");
            let first = upstream.is_none();
            *match self {
                Port::Hidden => &mut upstream.hidden,
                Port::Last => &mut upstream.last,
                Port::Cell => &mut upstream.cell,
                Port::Stored => &mut upstream.stored,
                Port::Summary => &mut upstream.summary,
            } = Some(grad);
            first
        };
        // Burn runs a node only if a gradient of its output is registered: the token stands for it, once, as
        // a second one would be added to the first.
        if let ([Some(parent)], true) = (ops.parents, first) {
            grads.register::<B>(parent.id, token);
        }
    }
}

/// Splits inputs into primitives and, in the order of [`SabGrads`], their guards.
fn into_parts<B: Backend, C: CheckpointStrategy>(
    inputs: SabInputs<Autodiff<B, C>>,
) -> (SabInputs<B>, [NodeGuard; INPUTS]) {
    let mut guards = Vec::with_capacity(INPUTS);
    let mut part = |tensor: AutodiffTensor<B>| {
        let (primitive, guard) = tensor.into_parts();
        guards.push(guard);
        primitive
    };
    let inputs = SabInputs::<B> {
        x: part(inputs.x),
        w_ih: part(inputs.w_ih),
        w_hh: part(inputs.w_hh),
        bias: part(inputs.bias),
        h0: part(inputs.h0),
        c0: part(inputs.c0),
        slots: part(inputs.slots),
        carried: inputs.carried,
        score: match inputs.score {
            ScoreInputs::Additive { u, v } => ScoreInputs::Additive { u: part(u), v: part(v) },
            ScoreInputs::Mlp { query, query_bias, memory, v } => ScoreInputs::Mlp {
                query: part(query),
                query_bias: part(query_bias),
                memory: part(memory),
                v: part(v),
            },
            ScoreInputs::Dot { query, key } => {
                ScoreInputs::Dot { query: part(query), key: part(key) }
            }
        },
    };
    while guards.len() < INPUTS {
        guards.push(AutodiffTensor::<B>::new(inputs.bias.clone()).node());
    }
    (inputs, guards.try_into().expect("at most eleven inputs"))
}

impl<B: SabKernel, C: CheckpointStrategy> SabBackend for Autodiff<B, C> {
    fn sab_sequence(inputs: SabInputs<Self>, options: SabOptions) -> SabOutputs<Self> {
        let (inputs, guards) = into_parts(inputs);
        match SabSequence.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::UnTracked(_) => {
                let (outputs, _) = B::sab_forward(&inputs, &options, false);
                track(outputs, |_, output| AutodiffTensor::new(output))
            }
            OpsKind::Tracked(prep) => {
                let (outputs, saved) = B::sab_forward(&inputs, &options, true);
                let saved = saved.expect("a tracked forward pass keeps its steps");
                let mailbox = Arc::new(Mutex::new(UpstreamGrads::none()));
                // Any tensor that is there: making one costs a launch on a GPU.
                let token = inputs.bias.clone();
                let token =
                    prep.finish(Kept { inputs, saved, options, mailbox: mailbox.clone() }, token);
                track(outputs, |port, output| port.open::<B, C>(&token, &mailbox, output))
            }
        }
    }

    fn sab_step(
        inputs: SabInputs<Self>,
        memory: SlotMemory,
        options: SabOptions,
    ) -> StepOutputs<Self> {
        Self::sab_sequence(inputs.with_slots_of(&memory), options).into()
    }
}

/// Passes every output that may carry gradient through `open`.
fn track<B: Backend, C: CheckpointStrategy>(
    outputs: SabOutputs<B>,
    open: impl Fn(Port, FloatTensor<B>) -> AutodiffTensor<B>,
) -> SabOutputs<Autodiff<B, C>> {
    SabOutputs {
        hidden: open(Port::Hidden, outputs.hidden),
        last: open(Port::Last, outputs.last),
        cell: open(Port::Cell, outputs.cell),
        stored: match outputs.stored {
            StoredSlots::None => StoredSlots::None,
            StoredSlots::Some(slots) => StoredSlots::Some(open(Port::Stored, slots)),
        },
        reminders: match outputs.reminders {
            RetrievedSlots::None => RetrievedSlots::None,
            RetrievedSlots::Some { summary, slots, weights } => RetrievedSlots::Some {
                summary: open(Port::Summary, summary),
                slots,
                weights: AutodiffTensor::new(weights),
            },
        },
    }
}
