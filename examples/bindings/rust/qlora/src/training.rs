use crate::{sys, Buffer, Result, Weight};

/// LoRA on a frozen weight: `y = x W^T + scale * (x A^T) B^T`, with B zero at first, trained by AdamW.
pub struct Adapter<'a, 'w> {
    weight: &'w Weight<'a>,
    rank: u64,
    scale: f32,
    steps: u64,
    a: Trained<'a>,
    b: Trained<'a>,
}

/// A trained tensor with its gradient and the two moments of AdamW.
struct Trained<'a> {
    value: Buffer<'a>,
    gradient: Buffer<'a>,
    moments: [Buffer<'a>; 2],
}

impl<'a> Trained<'a> {
    fn new(weight: &Weight<'a>, values: &[f32]) -> Result<Self> {
        let context = weight.context();
        let zeros = || context.zeros(values.len());
        Ok(Trained { value: context.buffer(values)?, gradient: zeros()?, moments: [zeros()?, zeros()?] })
    }

    fn parameter(&self) -> sys::qlora_parameter {
        sys::qlora_parameter {
            count: self.value.count(),
            value: self.value.span(),
            gradient: self.gradient.span(),
            state1: self.moments[0].span(),
            state2: self.moments[1].span(),
            ..Default::default()
        }
    }
}

impl<'a, 'w> Adapter<'a, 'w> {
    /// `a` is `A[rank][cols]`.
    pub fn new(weight: &'w Weight<'a>, rank: u64, scale: f32, a: &[f32]) -> Result<Self> {
        let zeros = vec![0.0; (weight.rows() * rank) as usize];
        Ok(Adapter { weight, rank, scale, steps: 0, a: Trained::new(weight, a)?, b: Trained::new(weight, &zeros)? })
    }

    pub fn forward(&self, x: &Buffer, tokens: u64, y: &mut Buffer) -> Result<()> {
        let (context, rows, cols) = (self.weight.context(), self.weight.rows(), self.weight.cols());
        let xa = context.zeros((tokens * self.rank) as usize)?;
        let mut args = sys::qlora_linear_args {
            weight: self.weight.raw(),
            x: x.tensor(tokens, cols),
            y: y.tensor(tokens, rows),
            a: self.a.value.tensor(self.rank, cols),
            b: self.b.value.tensor(rows, self.rank),
            xa: xa.span(),
            scale: self.scale,
            ..Default::default()
        };
        args.scratch = context.scratch(sys::QLORA_OP_LINEAR, &args)?;
        context.check(unsafe { sys::qlora_linear_forward(context.raw(), &args) })
    }

    /// The gradients of A and B, kept for [`Adapter::step`].
    pub fn backward(&mut self, x: &Buffer, tokens: u64, dy: &Buffer) -> Result<()> {
        let (context, rows, cols) = (self.weight.context(), self.weight.rows(), self.weight.cols());
        let mut args = sys::qlora_linear_grad_args {
            weight: self.weight.raw(),
            x: x.tensor(tokens, cols),
            dy: dy.tensor(tokens, rows),
            a: self.a.value.tensor(self.rank, cols),
            b: self.b.value.tensor(rows, self.rank),
            da: self.a.gradient.tensor(self.rank, cols),
            db: self.b.gradient.tensor(rows, self.rank),
            scale: self.scale,
            ..Default::default()
        };
        args.scratch = context.scratch(sys::QLORA_OP_LINEAR_GRAD, &args)?;
        context.check(unsafe { sys::qlora_linear_grad(context.raw(), &args) })
    }

    pub fn step(&mut self, learning_rate: f32) -> Result<()> {
        let context = self.weight.context();
        self.steps += 1;
        let parameters = [self.a.parameter(), self.b.parameter()];
        let mut args = sys::qlora_optimizer_args {
            parameters: parameters.as_ptr(),
            parameter_count: parameters.len() as u32,
            algorithm: sys::QLORA_OPTIMIZER_ADAMW,
            step: self.steps,
            learning_rate,
            ..Default::default()
        };
        args.scratch = context.scratch(sys::QLORA_OP_OPTIMIZER_STEP, &args)?;
        context.check(unsafe { sys::qlora_optimizer_step(context.raw(), &args) })
    }
}
