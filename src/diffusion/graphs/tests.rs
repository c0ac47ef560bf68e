use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tch::{Device, TchError};

use super::*;

/// What a recorder was asked for.
type Done = Rc<RefCell<Vec<&'static str>>>;
/// How many recordings there are.
type Alive = Rc<Cell<usize>>;

/// Records on the CPU: a replay runs everything again and writes to the same output. Counts what it is asked for.
#[derive(Default)]
pub(in crate::diffusion) struct Again {
    refuses: Option<&'static str>,
    bytes: u64,
    pub(in crate::diffusion) done: Done,
    alive: Alive,
}

/// Counted while it lives.
pub(in crate::diffusion) struct Counted(Alive);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Recorder for Again {
    type Graph = Counted;

    fn rehearse(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        self.done.borrow_mut().push("rehearse");
        run()
    }

    fn record(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Recording<Counted>> {
        self.done.borrow_mut().push("record");
        if let Some(problem) = self.refuses.take() {
            return Err(TchError::Torch(problem.to_owned()));
        }
        self.alive.set(self.alive.get() + 1);
        // As of a graph: the output has a place, and nothing in it yet.
        let output = run()?.f_full_like(f64::NAN)?;
        Ok(Recording { graph: Counted(Rc::clone(&self.alive)), output, bytes: self.bytes })
    }

    fn replay(&mut self, recording: &Recording<Counted>, run: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        self.done.borrow_mut().push("replay");
        recording.output.shallow_clone().f_copy_(&run()?)
    }
}

fn randn(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

fn inputs(rows: i64, side: i64) -> Vec<Tensor> {
    vec![randn(&[rows, 4, side, side]), randn(&[rows])]
}

/// Each row by itself: what its picture's values come to, times its number.
fn network(inputs: &[Tensor]) -> Result<Tensor> {
    inputs[0].f_mul(&inputs[1].f_reshape([-1, 1, 1, 1])?)?.f_cumsum(3, Kind::Float)
}

fn graphs(recorder: Again, most_bytes: u64) -> (Graphs<Again>, Done, Alive) {
    let (done, alive) = (Rc::clone(&recorder.done), Rc::clone(&recorder.alive));
    (Graphs::new(recorder, most_bytes), done, alive)
}

#[test]
fn what_is_replayed_is_what_would_have_been_run() {
    let (mut graphs, done, _) = graphs(Again::default(), u64::MAX);
    let mut kept = Vec::new();
    for rows in [2, 2, 2, 1, 3, 4, 3, 2] {
        let inputs = inputs(rows, 5);
        let output = graphs.call(&inputs, &network).unwrap();
        kept.push((output, network(&inputs).unwrap()));
    }
    // Also those before: a later replay writes over no answer.
    for (place, (output, expected)) in kept.into_iter().enumerate() {
        assert_eq!(output, expected, "call {place}");
    }
    // Rows 3 and 4 share a bucket, which is rehearsed with the first of them and recorded with the second.
    let expected = ["rehearse", "record", "replay", "replay", "rehearse", "rehearse", "record", "replay", "replay", "replay"];
    assert_eq!(*done.borrow(), expected);
}

#[test]
fn rows_between_two_buckets_are_filled_with_the_last_and_only_theirs_come_back() {
    let seen = RefCell::new(Vec::new());
    let run = |inputs: &[Tensor]| {
        seen.borrow_mut().push(inputs[1].shallow_clone());
        network(inputs)
    };
    let (mut graphs, ..) = graphs(Again::default(), u64::MAX);
    let input = vec![randn(&[5, 4, 3, 3]), Tensor::from_slice(&[1_f32, 2.0, 3.0, 4.0, 5.0])];
    let output = graphs.call(&input, &run).unwrap();
    assert_eq!(output.size()[0], 5);
    assert_eq!(seen.borrow()[0], Tensor::from_slice(&[1_f32, 2.0, 3.0, 4.0, 5.0, 5.0]));
}

#[test]
fn every_shape_has_its_own_recording() {
    let (mut graphs, done, alive) = graphs(Again::default(), u64::MAX);
    for side in [3, 4, 3, 4, 3] {
        let input = inputs(2, side);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    }
    assert_eq!((alive.get(), done.borrow().iter().filter(|what| **what == "record").count()), (2, 2));
    let double: Vec<Tensor> = inputs(2, 3).iter().map(|input| input.to_kind(Kind::Double)).collect();
    let run = |inputs: &[Tensor]| inputs[0].f_mul_scalar(2.0);
    assert_eq!(graphs.call(&double, &run).unwrap().kind(), Kind::Double);
    assert_eq!(done.borrow().last(), Some(&"rehearse"));
}

#[test]
fn more_rows_than_graphs_are_good_for_run_as_they_are() {
    let (mut graphs, done, _) = graphs(Again::default(), u64::MAX);
    for _ in 0..3 {
        let input = inputs(17, 2);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    }
    assert!(done.borrow().is_empty());
}

#[test]
fn all_recordings_leave_when_they_take_too_much_for_they_share_their_memory() {
    let (mut graphs, done, alive) = graphs(Again { bytes: 1000, ..Again::default() }, 5000);
    // Each of some more than 1,000 bytes: four fit.
    for side in [1, 2, 3, 4] {
        for _ in 0..2 {
            drop(graphs.call(&inputs(1, side), &network).unwrap());
        }
    }
    assert_eq!(alive.get(), 4);
    for _ in 0..2 {
        let input = inputs(1, 5);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    }
    assert_eq!(alive.get(), 0);
    done.borrow_mut().clear();
    drop(graphs.call(&inputs(1, 1), &network).unwrap());
    assert_eq!(*done.borrow(), ["record", "replay"], "what is asked for is recorded anew");
    drop(graphs.call(&inputs(1, 5), &network).unwrap());
    assert_eq!(done.borrow().last(), Some(&"rehearse"), "but not at once what was too much");
}

#[test]
fn a_recording_that_takes_more_than_there_is_for_all_leaves_and_is_not_made_again_at_once() {
    let (mut graphs, done, alive) = graphs(Again { bytes: 1000, ..Again::default() }, 10);
    for _ in 0..5 {
        let input = inputs(2, 3);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
        assert_eq!(alive.get(), 0);
    }
    assert_eq!(*done.borrow(), ["rehearse", "record", "replay", "rehearse", "rehearse", "rehearse"]);
}

#[test]
fn recordings_are_the_first_to_leave_when_a_call_finds_no_memory() {
    for rows in [1, 17] {
        let (mut graphs, _, alive) = graphs(Again::default(), u64::MAX);
        (0..2).for_each(|_| drop(graphs.call(&inputs(2, 3), &network).unwrap()));
        let there = Rc::clone(&alive);
        let run = |inputs: &[Tensor]| match there.get() {
            0 => network(inputs),
            _ => Err(TchError::Torch("CUDA out of memory. Tried to allocate 20.00 MiB".to_owned())),
        };
        let input = inputs(rows, 4);
        assert_eq!(graphs.call(&input, &run).unwrap(), network(&input).unwrap(), "{rows} rows");
        assert_eq!(alive.get(), 0);
        let never = |_: &[Tensor]| Err(TchError::Torch("CUDA out of memory".to_owned()));
        assert!(graphs.call(&input, &never).is_err(), "nothing is left that could leave");
    }
}

#[test]
fn what_cannot_be_recorded_runs_as_it_is_for_ever() {
    let refuses = Some("operation not permitted when stream is capturing\nand a C++ stack");
    let (mut graphs, done, _) = graphs(Again { refuses, ..Again::default() }, u64::MAX);
    for side in [3, 3, 3, 4, 4] {
        let input = inputs(3, side);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    }
    assert_eq!(*done.borrow(), ["rehearse", "record"]);
}

#[test]
fn what_could_not_be_recorded_for_want_of_memory_is_recorded_after_a_while() {
    let (mut graphs, done, alive) = graphs(Again::default(), u64::MAX);
    (0..2).for_each(|_| drop(graphs.call(&inputs(1, 3), &network).unwrap()));
    graphs.recorder.refuses = Some("CUDA out of memory. Tried to allocate 20.00 MiB");
    let call = |graphs: &mut Graphs<Again>| {
        let input = inputs(2, 3);
        assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    };
    (0..2).for_each(|_| call(&mut graphs));
    assert_eq!(alive.get(), 0, "the other has left as well");
    (0..2).for_each(|_| drop(graphs.call(&inputs(1, 3), &network).unwrap()));
    (0..CALLS_WITHOUT_MEMORY).for_each(|_| call(&mut graphs));
    assert_eq!(alive.get(), 1, "and is recorded anew when it is asked for");
    call(&mut graphs);
    assert_eq!((alive.get(), done.borrow().iter().filter(|what| **what == "record").count()), (2, 4));
}

#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    let (mut graphs, _, alive) = graphs(Again::default(), u64::MAX);
    let input = inputs(2, 3);
    drop(graphs.call(&input, &network).unwrap());
    drop(graphs.call(&input, &network).unwrap());
    let fails = |_: &[Tensor]| Err(TchError::Torch("CUDA out of memory".to_owned()));
    assert!(graphs.call(&input, &fails).is_err());
    assert_eq!(alive.get(), 0);
    assert_eq!(graphs.call(&input, &network).unwrap(), network(&input).unwrap());
    assert!(graphs.call(&[randn(&[2, 3]), randn(&[3])], &network).is_err(), "inputs of different rows");
    assert!(graphs.call(&[], &network).is_err(), "no inputs");
}

#[test]
fn recordings_go_with_their_network() {
    let (mut graphs, _, alive) = graphs(Again::default(), u64::MAX);
    for _ in 0..2 {
        drop(graphs.call(&inputs(2, 3), &network).unwrap());
    }
    assert_eq!(alive.get(), 1);
    drop(graphs);
    assert_eq!(alive.get(), 0);
}
