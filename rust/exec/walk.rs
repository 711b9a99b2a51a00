//! The walk of one thread through all stages of a step, with a barrier after each stage.

use super::program::{RowOp, Stage, Work};
use super::step::Step;

impl Step<'_> {
    /// Executes all stages as thread `worker`.
    pub fn walk(&self, worker: usize) {
        let mut workspace = self.workspaces[worker].lock().unwrap_or_else(|e| e.into_inner());
        let stages = self.stages;
        for (index, stage) in self.program.stages[..stages].iter().enumerate() {
            let n = if stage.taken { self.taken.len() } else { self.tokens.len() };
            if n == 0 || self.idle(stage) {
                continue;
            }
            let claims = &self.claims[index];
            let sums = self.collector.and_then(|collector| collector.stage(index));
            match &stage.work {
                Work::Rows(ops) => self.each_row(claims, n, |row| {
                    for op in ops {
                        self.row(op, row, stage.taken);
                    }
                }),
                Work::Take { x, out } => self.each_row(claims, n, |row| {
                    // SAFETY: both rows are allocated and this thread's.
                    unsafe {
                        let source = self.at(*x, self.taken[row]);
                        std::ptr::copy_nonoverlapping(source, self.at(*out, row), x.width);
                    }
                }),
                Work::Linear { x, jobs } => {
                    if let Some(sums) = sums {
                        self.observe(sums, *x, n, stage.taken, worker);
                    }
                    // A walk that ends here is for the sums alone.
                    if sums.is_none() || index + 1 < stages || self.complete() {
                        self.products(claims, *x, jobs, n, &mut workspace.linear)
                    }
                }
                Work::Experts(work) => {
                    let sums = sums.map(|sums| (sums, stage.taken, worker));
                    self.experts(claims, work, n, &mut workspace, sums)
                }
                Work::Attend(attend) => self.attend(claims, attend, &mut workspace.scores),
                Work::ShortConv(conv) => self.short_conv(claims, conv),
                Work::DeltaRule(delta) => self.delta_rule(claims, delta, &mut workspace.scores),
            }
            if index + 1 < stages {
                self.barrier.wait();
            }
        }
    }

    /// True if the step makes logits.
    fn complete(&self) -> bool {
        self.stages == self.program.stages.len()
    }

    /// True if the stage only rounds activations, in a step that leaves them f32.
    fn idle(&self, stage: &Stage) -> bool {
        let Work::Rows(ops) = &stage.work else { return false };
        !self.int8 && ops.iter().all(|op| matches!(op, RowOp::Quantize { .. }))
    }
}
