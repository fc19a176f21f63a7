//! The op in Burn's autodiff graph: one node for the whole sequence.
//!
//! A node of Burn has one output tensor; the op has five that carry gradient. Packing them into one buffer
//! would copy it once per output in both directions. Instead the node's own output is a token, a tensor
//! whose elements nobody reads, and each output is a port: a tiny node above it that drops its gradient into
//! a mailbox, which the main node empties. A gradient that never arrives costs nothing, and the main node
//! knows that it did not.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients as Graph;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::backend::SabBackend;
use super::coverage::Coverage;
use super::kernel::{Kernel, KernelBackend};
use super::options::SabOptions;
use super::primitives::Primitives;
use super::route::{self, own_plan};
use super::stream::{SlotMemory, StepOf};
use super::tensors::{
    BackendInputs, BackendOutputs, InputsOf, MOST_INPUTS, OutputsOf, Reminders, SabOutputs,
    Upstream,
};

/// Burn keeps its name private; whatever the checkpoint strategy, it is this type.
type AutodiffTensor<B> = FloatTensor<Autodiff<B>>;

/// Where the ports leave their gradients.
type Mailbox<B> = Arc<Mutex<Upstream<FloatTensor<B>>>>;

/// The main node of a call that kernel `K` runs.
#[derive(Debug)]
struct SabSequence<K>(PhantomData<K>);

/// The state of the main node.
#[derive(Clone, Debug)]
struct SequenceState<B: Backend, S> {
    inputs: BackendInputs<B>,
    saved: S,
    options: SabOptions,
    mailbox: Mailbox<B>,
}

impl<B: Backend, K: Kernel<B>> Backward<B, MOST_INPUTS> for SabSequence<K> {
    type State = SequenceState<B, K::Saved>;

    fn backward(self, ops: Ops<Self::State, MOST_INPUTS>, graph: &mut Graph, _: &mut Checkpointer) {
        let _token = graph.consume::<B>(&ops.node);
        let SequenceState { inputs, saved, options, mailbox } = ops.state;
        let mut mailbox = mailbox.lock().expect("no port panics");
        let upstream = std::mem::replace(&mut *mailbox, Upstream::none());
        let mut parents = ops.parents.iter();
        let needs = inputs.as_ref().map(|_| parents.next().is_some_and(|parent| parent.is_some()));
        let gradients = K::backward(&inputs, saved, upstream, &options, &needs);
        for (parent, gradient) in ops.parents.iter().zip(gradients.iter()) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                graph.register::<B>(parent.id, gradient.clone());
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

    fn backward(self, ops: Ops<Self::State, 1>, graph: &mut Graph, _: &mut Checkpointer) {
        let gradient = graph.consume::<B>(&ops.node);
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
            } = Some(gradient);
            first
        };
        // Burn runs a node only if a gradient of its output is registered: the token stands for it, once, as
        // a second one would be added to the first.
        if let ([Some(parent)], true) = (ops.parents, first) {
            graph.register::<B>(parent.id, token);
        }
    }
}

/// Splits inputs into primitives and, in the order of the inputs, their guards.
fn into_parts<B: Backend, C: CheckpointStrategy>(
    inputs: BackendInputs<Autodiff<B, C>>,
) -> (BackendInputs<B>, [NodeGuard; MOST_INPUTS]) {
    let mut guards = Vec::with_capacity(MOST_INPUTS);
    let inputs: BackendInputs<B> = inputs.map(|tensor: AutodiffTensor<B>| {
        let (primitive, guard) = tensor.into_parts();
        guards.push(guard);
        primitive
    });
    while guards.len() < MOST_INPUTS {
        guards.push(AutodiffTensor::<B>::new(inputs.bias.clone()).node());
    }
    (inputs, guards.try_into().expect("at most as many inputs"))
}

/// Runs the sequence on kernel `K` as one node, or without a node if no input is tracked.
fn run<B: Backend, C: CheckpointStrategy, K: Kernel<B>>(
    plan: K::Plan,
    inputs: BackendInputs<B>,
    guards: [NodeGuard; MOST_INPUTS],
    options: SabOptions,
) -> BackendOutputs<Autodiff<B, C>> {
    let node = SabSequence::<K>(PhantomData);
    match Backward::<B, MOST_INPUTS>::prepare::<C>(node, guards).compute_bound().stateful() {
        OpsKind::UnTracked(_) => {
            let (outputs, _) = K::forward(plan, &inputs, &options, false);
            track::<B, C>(outputs, |_, output| AutodiffTensor::<B>::new(output))
        }
        OpsKind::Tracked(prep) => {
            let (outputs, saved) = K::forward(plan, &inputs, &options, true);
            let saved = saved.expect("a tracked forward pass saves its activations");
            let mailbox = Arc::new(Mutex::new(Upstream::none()));
            // Any tensor that is there: making one costs a launch on a GPU.
            let token = inputs.bias.clone();
            let state = SequenceState { inputs, saved, options, mailbox: mailbox.clone() };
            let token = prep.finish(state, token);
            track::<B, C>(outputs, |port, output| port.open::<B, C>(&token, &mailbox, output))
        }
    }
}

impl<B: KernelBackend, C: CheckpointStrategy> SabBackend for Autodiff<B, C> {
    fn sab_sequence(inputs: InputsOf<Self>, options: SabOptions) -> OutputsOf<Self> {
        let (inputs, guards) = into_parts::<B, C>(inputs.0);
        OutputsOf(match own_plan::<B>(&inputs, &options, true) {
            Some(plan) => run::<B, C, B::Own>(plan, inputs, guards, options),
            None => run::<B, C, Primitives>((), inputs, guards, options),
        })
    }

    fn sab_step(inputs: InputsOf<Self>, memory: SlotMemory, options: SabOptions) -> StepOf<Self> {
        let inputs = InputsOf(memory.into_inputs::<Self>(inputs.0));
        StepOf(Self::sab_sequence(inputs, options).0.into())
    }

    fn sab_coverage(inputs: InputsOf<Self>, options: SabOptions) -> Coverage {
        route::coverage::<B>(&into_parts::<B, C>(inputs.0).0, &options, true)
    }
}

/// Passes every output that may carry gradient through `open`.
fn track<B: Backend, C: CheckpointStrategy>(
    outputs: BackendOutputs<B>,
    open: impl Fn(Port, FloatTensor<B>) -> AutodiffTensor<B>,
) -> BackendOutputs<Autodiff<B, C>> {
    SabOutputs {
        hidden: open(Port::Hidden, outputs.hidden),
        last: open(Port::Last, outputs.last),
        cell: open(Port::Cell, outputs.cell),
        stored: outputs.stored.map(|slots| open(Port::Stored, slots)),
        reminders: outputs.reminders.map(|Reminders { summary, slots, weights }| Reminders {
            summary: open(Port::Summary, summary),
            slots,
            weights: AutodiffTensor::<B>::new(weights),
        }),
    }
}
