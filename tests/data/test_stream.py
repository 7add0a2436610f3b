"""Streams: one batch feeds all lanes, drawn ahead; the laws hold for them too."""

import dataclasses
import itertools
import threading
import time
import weakref

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from grain import samplers, transforms

import hpjax as hpx
from hpjax.data.stream import Part, Pass, Position, Stream
from hpjax.engine import sharding
from hpjax.sweep.running.prefetch import BlockPrefetcher
from tests.support.compare import same_bits
from tests.support.counting import compilations, ran
from tests.support.marks import slow
from tests.support.plain import SEED, train_alone
from tests.support.programs import SPACE, Net, blobs, classifier

STEPS, EPOCH, BLOCK = 24, 10, 5


class Source:
    """Batches ``{"x": (4,), "number": ()}`` of an epoch; counts what is asked of it."""

    def __init__(self, epoch=EPOCH, fail_at=None, seconds=0.0):
        self.epoch, self.fail_at, self.seconds = epoch, fail_at, seconds
        self.microsteps = self.drawn = 0

    def __call__(self):
        self.microsteps += 1
        rng = np.random.default_rng(3)
        for number in range(self.epoch):
            time.sleep(self.seconds)
            if number == self.fail_at:
                raise OSError("the disk is gone")
            self.drawn += 1
            yield {"x": rng.normal(size=4), "number": np.int64(number)}


def program(factory, block=BLOCK):
    """Noisy descent to the mean of each batch, which remembers the numbers of the batches that it saw."""

    def init(key, h):
        size = h.size if "size" in h else 2
        return {"w": jax.random.normal(key, (size,)), "seen": jnp.full(STEPS, -1), "t": jnp.int32(0)}

    def step(key, state, batch, h):
        noise = 0.1 * jax.random.normal(key, state["w"].shape)
        w = state["w"] - h.rate * (state["w"] - batch["x"].mean() + noise)
        seen = state["seen"].at[state["t"]].set(batch["number"])
        return {"w": w, "seen": seen, "t": state["t"] + 1}, {"loss": jnp.mean((w - batch["x"].mean()) ** 2)}

    def evaluate(key, state, split, h):
        return {"loss": jnp.mean((state["w"] - split.mean()) ** 2)}

    data = hpx.data.stream(factory, valid=np.zeros(3, np.float32), name="numbers", block=block)
    return hpx.Program(init, step, evaluate, data, steps=STEPS, eval_every=7)


RATES = [{"rate": rate} for rate in (0.01, 0.5, 30.0, 0.2, 0.1, 0.9)]
ONE = hpx.Space(rate=hpx.LogUniform(1e-3, 1e2))
SIZED = hpx.Space(rate=hpx.LogUniform(1e-3, 1.0), size=hpx.Choice(1, 2, 3))
SOURCE = Source()
PROGRAM = program(SOURCE)


def sweep(points=RATES, **changes):
    given = {"program": PROGRAM, "space": ONE, "sampler": hpx.Manual(points), "replicates": 2, "width": 2, "devices": 4}
    return hpx.Sweep(**(given | changes))


def halving(**changes):
    return hpx.Sweep(
        PROGRAM, SIZED, trials=8, width=2, scheduler=hpx.Halving(factor=2, min_steps=7), **({"devices": 2} | changes)
    )


def numbers(steps=STEPS, epoch=EPOCH):
    return np.arange(steps) % epoch


def assert_same(reference, other, trials=None, replicates=2):
    """Trial i of ``other`` is trial ``trials[i]`` of the reference, to the bit."""
    trials = list(range(len(reference)) if trials is None else trials)
    for metric in ("step", *reference.metrics):
        assert same_bits(reference.curves(metric)[trials], other.curves(metric)), metric
    assert (reference.lane_status[trials] == other.lane_status).all()
    assert (reference.lane_step[trials] == other.lane_step).all()
    for mine, theirs in enumerate(trials):
        for r in range(replicates):
            if other.lane_status[mine, r] != "diverged":
                for (_, a), (_, b) in zip(other.leaves(mine, r), reference.leaves(theirs, r), strict=True):
                    assert same_bits(a, b)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 5
    while any("hpjax stream" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def reference():
    return sweep().run(progress=False)


# Law 1.


class Normed(Net):
    def __call__(self, x, train=False):
        return super().__call__(x, train)


def test_a_lane_is_a_plain_loop_over_the_same_batches():
    """With batch statistics and dropout, over an epoch of five batches that begins again."""
    data, rng = blobs(), np.random.default_rng(0)
    epoch = [rng.permutation(len(data.train.y))[:8] for _ in range(5)]
    streamed = hpx.data.stream(
        lambda: [(data.train.x[i], data.train.y[i]) for i in epoch], valid=data.valid, test=data.test, block=3
    )
    points = [{"learning_rate": 0.1, "momentum": 0.5}, {"learning_rate": 0.02, "momentum": 0.9}]
    one = classifier(model=Normed(), data=streamed, batch_size=None, steps=12, eval_every=4)
    given = {"sampler": hpx.Manual(points), "replicates": 2, "seed": SEED}
    result = ran(hpx.Sweep(one, SPACE, **given))
    order = np.concatenate([epoch[t % 5] for t in range(12)])
    drawn = hpx.Data(hpx.data.Examples(data.train.x[order], data.train.y[order]), data.valid)
    for trial, replicate in ((0, 1), (1, 0)):
        optimizer = optax.sgd(points[trial]["learning_rate"], points[trial]["momentum"])
        alone = {"model": Normed(), "optimizer": optimizer, "batch_size": 8, "shuffle": False}
        params, losses = train_alone(drawn, replicate=replicate, **alone)
        np.testing.assert_allclose(result.curves("valid/loss")[trial, replicate], losses, rtol=1e-5)
        found = result[trial].restore(replicate)["params"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, params)
    assert set(result.test()) == {"test/loss", "test/accuracy"}
    assert result.best.predict(data.valid.x).shape == (2, len(data.valid.y), 3)


def test_augmentation_gets_the_batch_of_the_stream():
    pairs = [(np.full((4, 1), n, np.float64), np.zeros((4, 1))) for n in range(3)]
    one = hpx.supervised(
        model=nn.Dense(1, kernel_init=nn.initializers.ones),
        optimizer=optax.sgd(0.0),
        loss=lambda outputs, y: (outputs - y) ** 2,
        augment=lambda key, batch, h: batch._replace(x=batch.x + h.shift),
        data=hpx.data.stream(lambda: pairs, valid=pairs[0]),
        steps=3,
        eval_every=1,
    )
    result = hpx.Sweep(one, hpx.Space(shift=hpx.Choice(1.0, 5.0)), sampler=hpx.Grid()).run(progress=False)
    assert result.curves("train/loss")[:, 0].tolist() == [[1, 4, 9], [25, 36, 49]]


# Law 2, 3 and 8.


def test_all_lanes_see_the_batches_in_their_order_and_each_is_drawn_once():
    source = Source()
    one = program(source)
    assert (source.microsteps, source.drawn) == (1, 1), "a look at the first batch"
    result = ran(sweep(program=one))
    for trial, replicate in itertools.product((0, 1, 3, 4, 5), range(2)):
        assert result[trial].restore(replicate)["seen"].tolist() == numbers().tolist()
    assert result.statuses[2] == "diverged"
    assert (source.microsteps, source.drawn) == (1 + 3, 1 + STEPS), "one pass for twelve lanes, no batch too many"
    ws = [result[0].restore(r)["w"] for r in range(2)]
    assert not np.array_equal(*ws), "replicates have noise of their own"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"devices": 1}, id="1 device"),
        slow({"devices": 2}, id="2 devices"),
        slow({"segment": 1}, id="segments of 1"),
        pytest.param({"segment": 4}, id="segments of 4"),
        slow({"program": program(Source(), block=1)}, id="blocks of 1"),
        pytest.param({"program": program(Source(), block=64)}, id="blocks of 64"),
    ],
)
def test_packing_changes_no_bit(reference, changes):
    assert_same(reference, sweep(**changes).run(progress=False))


def test_neighbours_change_no_bit(reference):
    assert_same(reference, sweep(RATES[::-1]).run(progress=False), range(5, -1, -1))
    assert_same(reference, sweep(RATES[1:2], devices=1).run(progress=False), [1])


def test_each_wave_has_a_pass_of_its_own(reference, monkeypatch):
    monkeypatch.setattr(sharding, "memory", lambda: 1500)
    source = Source()
    waves = sweep(program=program(source), devices=1)
    assert len(waves.plan().arrangements[0].waves) == 3
    assert_same(reference, waves.run(progress=False))
    assert source.drawn == 1 + 3 * STEPS


@pytest.fixture(scope="module")
def halved():
    result = ran(halving())  # a padded program for the three sizes
    assert sorted(np.unique(result.statuses)) == ["complete", "stopped"]
    return result


@pytest.mark.slow
def test_a_race_of_groups_changes_no_bit(halved):
    """Each trial as if alone, from the batches that it saw."""
    alone = hpx.Sweep(PROGRAM, SIZED, sampler=hpx.Manual(halved.hparams), width=2, devices=1).run(progress=False)
    for trial in range(8):
        reached = int(halved.lane_step[trial, 0])
        seen = halved[trial].restore()["seen"]
        assert seen.tolist() == [*numbers(reached), *[-1] * (STEPS - reached)]
        for metric in halved.metrics:
            many = int((~np.isnan(halved.curves(metric)[trial, 0])).sum())
            assert many == -(-reached // 7)
            assert same_bits(halved.curves(metric)[trial, 0, :many], alone.curves(metric)[trial, 0, :many])


@pytest.mark.slow
@pytest.mark.parametrize("memory", [500, 1500])
def test_waves_that_wait_on_the_host_change_no_bit(halved, monkeypatch, memory):
    monkeypatch.setattr(sharding, "memory", lambda: memory)
    short = halving(devices=1)
    assert short.plan().offloads
    assert_same(halved, short.run(progress=False), replicates=1)


# The feed itself.


def fed(step=0, position=Position(), source=None, steps=STEPS):
    stream = Stream(source or Source(), block=BLOCK)
    return BlockPrefetcher(stream, sharding.mesh(sharding.devices(2)), step, steps, position)


def test_a_feed_gives_blocks_whole_on_each_device_and_knows_its_position():
    source = Source()
    feed = fed(source=source)
    for step in (0, 3, 7, 24 - 5, 23):  # also after steps that no lane took
        block, waited = feed.at(step)
        start = step - step % BLOCK
        expected = [*numbers(STEPS)[start : start + BLOCK]]
        assert np.asarray(block["number"])[: len(expected)].tolist() == expected
        assert len(block["x"].addressable_shards) == 2
        assert {shard.data.shape for shard in block["x"].addressable_shards} == {(BLOCK, 4)}
        assert waited >= 0
        assert feed.position(step) == Position(start)
        assert feed.position(start + BLOCK) == Position(min(start + BLOCK, STEPS))
    feed.close()
    assert source.drawn == STEPS + 1


def test_a_parked_feed_has_nothing_on_the_devices():
    feed = fed()
    held = weakref.ref(feed.at(1)[0]["x"])
    feed.offload()
    assert held() is None
    assert np.asarray(feed.at(2)[0]["number"]).tolist() == [0, 1, 2, 3, 4]
    feed.offload()
    block, _ = feed.at(5)
    assert isinstance(block["x"], jax.Array)
    assert np.asarray(block["number"]).tolist() == [5, 6, 7, 8, 9]
    feed.close()


def test_a_closed_feed_keeps_no_block():
    feed = fed()
    held = weakref.ref(feed.at(STEPS - 1)[0]["x"])
    feed.close()
    feed.close()
    assert held() is None


def test_a_feed_goes_on_from_a_position_of_other_blocks():
    for begin, step in ((7, 12), (12, 12), (10, 11)):
        feed = fed(step, Position(begin))
        assert np.asarray(feed.at(step)[0]["number"]).tolist() == [0, 1, 2, 3, 4]  # of the second epoch
        feed.close()


def test_an_iterator_may_fill_the_same_array_again_and_again():
    def batches():
        x = np.zeros(2, np.uint8)
        for number in range(STEPS):
            x[:] = number
            yield x

    feed = fed(source=batches)
    assert np.asarray(feed.at(4)[0])[:, 0].tolist() == [0, 1, 2, 3, 4]
    feed.close()


# Law 9.


def abandon(sweep, directory, after):
    for number, _ in enumerate(sweep.events(directory, checkpoint_seconds=0.0), start=1):
        if number == after:
            break


@pytest.mark.parametrize("after", [2, slow(5)])
def test_an_abandoned_run_goes_on(reference, tmp_path, after):
    abandon(sweep(), tmp_path / "run", after)
    again = Source()
    rest = sweep(program=program(again, block=4), devices=2)  # other blocks are no other sweep
    assert_same(reference, rest.run(tmp_path / "run", progress=False))
    assert again.drawn == 1 + STEPS, "a generator draws anew what it gave before"


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 14])
def test_an_abandoned_race_goes_on(halved, tmp_path, after):
    abandon(halving(), tmp_path / "run", after)
    abandon(halving(), tmp_path / "run", 1)
    assert_same(halved, halving().run(tmp_path / "run", progress=False), replicates=1)


class Records:
    """Random access to 40 records; counts those that are read."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.read += 1
        return {"x": np.float32([index, 1]), "number": np.int32(index)}

    def __repr__(self):
        return "Records()"


def tidy(batch):
    return {"x": batch["x"].reshape(-1), "number": batch["number"][0]}


def data_loader(records):
    return grain.DataLoader(
        data_source=records,
        sampler=samplers.IndexSampler(40, shuffle=True, seed=5, num_epochs=1),
        operations=[transforms.Batch(2, drop_remainder=True)],
        worker_count=0,
        read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=1),
    )


def map_dataset(records):
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return grain.MapDataset.source(records).seed(5).shuffle().batch(2).to_iter_dataset(options)


class Tidied:
    """Grain's iterator with batches as the program has them."""

    def __init__(self, loader):
        self.iterator = iter(loader)

    def __iter__(self):
        return self

    def __next__(self):
        return tidy(next(self.iterator))

    def get_state(self):
        return self.iterator.get_state()

    def set_state(self, state):
        self.iterator.set_state(state)


@pytest.mark.parametrize("build", [data_loader, slow(map_dataset)])
def test_grain_goes_on_from_its_state(tmp_path, build):
    records = Records()

    def grained():
        return sweep(RATES[:2], program=program(lambda: Tidied(build(records))), devices=1)

    expected = grained().run(progress=False)
    orders = [[int(b["number"]) for b in itertools.islice(map(tidy, build(records)), STEPS)] for _ in range(2)]
    assert orders[0] == orders[1]
    once = (orders[0] * 2)[:STEPS]
    assert expected[0].restore()["seen"].tolist() == once
    abandon(grained(), tmp_path / "run", 2 + 5)  # at step 20, the end of block 3
    one = grained()
    records.read = 0
    assert_same(expected, one.run(tmp_path / "run", progress=False))
    assert records.read <= 2 * (STEPS - 15 + BLOCK), "of 24 batches the first 15 are not read again"


@pytest.mark.slow
def test_grain_loaders_are_given_as_they_are():
    """A DataLoader and datasets of pairs, as ``supervised`` has them."""
    data = blobs()
    pairs = [(data.train.x[i], data.train.y[i]) for i in range(40)]
    loader = grain.DataLoader(
        data_source=pairs,
        sampler=samplers.IndexSampler(40, shuffle=True, seed=5),
        operations=[transforms.Batch(8)],
        worker_count=0,
    )
    dataset = grain.MapDataset.source(pairs).shuffle(seed=5).repeat().batch(8)
    for given in (loader, dataset, dataset.to_iter_dataset()):
        train = hpx.data.stream(lambda given=given: given, valid=data.valid).train
        assert (train.first.x.shape, train.first.y.dtype, train.first.x.dtype) == ((8, 5), np.int32, np.float32)
        drawing = Pass(train)
        drawing.skip(7)
        place = drawing.position()
        assert place.state is not None
        there = Pass(train, Position.unpacked(place.packed())).draw()
        assert same_bits(there.x, drawing.draw().x)
        assert not same_bits(there.x, train.first.x)


def test_a_state_that_is_not_taken_back_is_drawn_to():
    class Forgetful(Tidied):
        def set_state(self, state):
            raise ValueError("written by another version")

    def stream(kind):
        return Stream(lambda: kind(data_loader(Records())))

    drawing = Pass(stream(Tidied))
    drawing.skip(6)
    with pytest.warns(UserWarning, match=r"'stream' cannot restore its state: written by another version"):
        found = Pass(stream(Forgetful), drawing.position()).draw()
    assert found["number"] == drawing.draw()["number"]


def test_another_first_batch_is_another_sweep(tmp_path):
    run = tmp_path / "run"
    abandon(sweep(), run, 4)
    sweep().run(run, progress=False)

    def other():
        yield {"x": np.zeros(4), "number": 0}

    with pytest.raises(hpx.RunError, match=r"different sweep.*\n  data.train"):
        sweep(program=program(other)).run(run, progress=False)


# What the user sees.


def test_the_plan_shows_the_stream_and_counts_its_blocks():
    images = np.zeros((64, 28, 28, 1), np.uint8), np.zeros(64, np.int64)
    data = hpx.data.stream(lambda: [images], valid=images)
    one = hpx.supervised(
        model=lambda h: nn.Sequential([lambda x: x.reshape(len(x), -1) / 255.0, nn.Dense(3)]),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        steps=40,
        eval_every=20,
    )
    plan = hpx.Sweep(one, ONE, trials=4).plan()
    batch = 64 * 28 * 28 + 64 * 4
    assert plan.data_bytes == 2 * 16 * batch + batch
    assert "data stream of (64, 28, 28, 1) batches, 788.0 KiB a block" in str(plan)
    assert plan.segments(plan.groups[0]) == 4  # to 16, 20, 32, 40
    assert sum(e.kind == "segment" for e in hpx.Sweep(one, ONE, trials=4, width=2).events()) == 4


def test_a_slow_source_shows_as_time_waited(capsys):
    # Two of the five blocks may be drawn while programs compile: at least 14 batches are waited for, and at most 24.
    slow = sweep(RATES[:1], program=program(Source(seconds=0.08)), devices=1)
    events = list(slow.events())
    segments = [event for event in events if event.kind == "segment"]
    waited = sum(event.waited for event in segments)
    assert 1.0 < waited < sum(event.seconds for event in segments)
    slow.run()
    assert "waited 1." in capsys.readouterr().err
    sweep(RATES[:1], devices=1).run()
    assert "waited" not in capsys.readouterr().err


def test_batches_are_drawn_while_the_devices_compute():
    """While an event is looked at, the next block comes: its segment does not wait."""
    events = sweep(RATES[:1], program=program(Source(seconds=0.02)), devices=1).events()
    waits = []
    for event in events:
        if event.kind == "segment":
            waits.append(event.waited)
        time.sleep(0.25)
    assert max(waits[3:]) < 0.02


def test_nan_in_a_batch_is_no_error():
    def batches():
        for number in range(9):
            yield {"x": np.full(4, np.nan if number == 3 else 1.0), "number": number}

    result = sweep(RATES[:2], program=program(batches), devices=1).run(progress=False)
    assert (result.lane_status == "diverged").all()
    assert (result.lane_step == 4).all()


def test_precision_is_that_of_the_session():
    with jax.enable_x64(True):
        assert PROGRAM.data.train.first["x"].dtype == np.float32, "as it was when it was made"
        one = program(Source())
        assert one.data.train.first["x"].dtype == np.float64
        result = sweep(RATES[:1], program=one, devices=1).run(progress=False)
        assert result[0].restore()["w"].dtype == np.float64


# What goes wrong.

X, Y = np.ones((4, 3)), np.arange(4)
PAIR = (X, Y)


def streamed(**changes):
    data = hpx.data.stream(lambda: [PAIR], valid=PAIR)
    given = {
        "model": nn.Dense(4),
        "optimizer": optax.sgd(0.1),
        "loss": optax.softmax_cross_entropy_with_integer_labels,
        "data": data,
        "steps": 3,
    }
    return hpx.supervised(**(given | changes))


LOADER = [PAIR]
SPENT = iter([PAIR, PAIR, PAIR])
MISTAKES = {
    "no function": (
        lambda: hpx.data.stream(LOADER, valid=PAIR),
        r"stream.factory = 'list': must be a function.*lambda",
    ),
    "no iterable": (lambda: hpx.data.stream(lambda: 3, valid=PAIR), r"stream.factory = 'int': must give an iterable"),
    "no batch": (lambda: hpx.data.stream(lambda: [], valid=PAIR), r"must give at least one batch"),
    "no arrays": (lambda: hpx.data.stream(lambda: [{"x": "a"}], valid=PAIR), r"batch 0 .* = 'str': must be a pair"),
    "wide integers": (
        lambda: hpx.data.stream(lambda: [{"id": np.array([2**31])}], valid={"id": np.array([1])}),
        r"batch 0 .* = 2147483648: must lie in -2147483648 … 2147483647",
    ),
    "block": (lambda: hpx.data.stream(lambda: LOADER, valid=PAIR, block=0), r"stream.block = 0: must be a whole"),
    "lengths": (lambda: hpx.data.stream(lambda: [(X, Y[1:])], valid=PAIR), r"batch 0 .*same first axis"),
    "valid": (lambda: hpx.data.stream(lambda: LOADER, valid=(X * np.nan, Y)), r"stream.valid x\[0, 0\] = nan"),
    "another shape": (
        lambda: streamed(data=hpx.data.stream(lambda: LOADER, valid=(X[:, :2], Y))),
        r"data.valid = .*must have the shapes \[\(3,\), \(\)\] for each example",
    ),
    "batch size": (lambda: streamed(batch_size=4), r"supervised.batch_size = 4: must be left out"),
    "microbatch": (lambda: streamed(microbatch=2), r"supervised.microbatch = 2: must be left out"),
    "no batch size": (lambda: classifier(batch_size=None), r"supervised.batch_size = None: must be given"),
    "no examples": (lambda: streamed(data=PROGRAM.data), r"must be Data of Examples"),
    "luck": (lambda: sweep(randomness="independent"), r"'independent': cannot be had with a data stream"),
    "folds": (lambda: sweep(folds=2), r"Sweep.folds = 2: cannot be had with a data stream"),
    "labels": (lambda: hpx.Sweep(streamed(model=nn.Dense(2)), ONE, trials=1).plan(), r"labels must lie in 0 … 1"),
}


@pytest.mark.parametrize(("make", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_before_anything_compiles(make, message):
    with compilations() as names, pytest.raises(hpx.InputError, match=message):
        make()
    assert not any("_lanes" in name for name in names)


def short():
    for number in range(7):
        yield {"x": np.zeros(4 if number < 6 else 3), "number": number}


def typed():
    for number in range(7):
        yield {"x": np.zeros(4), "number": number if number < 2 else 0.5}


def pair():
    yield {"x": np.zeros(4), "number": 0}
    yield {"x": np.zeros(4)}


def other_each_time(seeds=itertools.count()):
    rng = np.random.default_rng(next(seeds))
    yield {"x": rng.normal(size=4), "number": 0}


ONCE = short()
RUNNING = {
    "short": (
        short,
        hpx.InputError,
        r"batch 6 of .*'numbers' = .*\[3\].*like the first batch, .*\[4\]. Drop the last batch",
    ),
    "type": (typed, hpx.InputError, r"batch 2 of .*'numbers' = .*float32\[\].*like the first batch, int32\[\]"),
    "structure": (pair, hpx.InputError, r"batch 1 of .*like the first batch"),
    "not seeded": (other_each_time, hpx.InputError, r"differs from the first batch of an earlier call.*seed"),
    "one iterator": (lambda: ONCE, hpx.InputError, r"batch 0 .*differs from the first"),
    "failing": (
        Source(fail_at=8),
        hpx.RunError,
        r"batch 8 of the data stream 'numbers' fails:\n  test_stream.py:\d+: raise OSError\(.*\n  OSError: the disk",
    ),
}


@pytest.mark.parametrize(("factory", "kind", "message"), RUNNING.values(), ids=RUNNING)
def test_a_stream_that_fails_is_named(factory, kind, message):
    with pytest.raises(kind, match=message):
        sweep(RATES[:1], program=program(factory), devices=1).run(progress=False)


def test_an_interrupt_in_the_source_ends_the_run():
    def batches():
        yield {"x": np.zeros(4), "number": 0}
        yield {"x": np.zeros(4), "number": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(RATES[:1], program=program(batches), devices=1).run(progress=False)


def test_an_abandoned_run_leaves_a_hanging_source_behind():
    gate = threading.Event()

    def batches():
        for number in range(STEPS):
            if number == 12:
                gate.wait()
            yield {"x": np.zeros(4), "number": number}

    events = sweep(RATES[:1], program=program(batches), devices=1).events()
    for event in events:
        if event.kind == "segment" and event.step == BLOCK:
            break
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 4
    gate.set()


def test_other_sweeps_are_as_they_were():
    """Dropping the stream from a program's data gives the program of arrays."""
    arrays = dataclasses.replace(PROGRAM, data=hpx.Data({"x": np.ones(4), "number": np.int32(7)}, np.zeros(3)))
    result = sweep(RATES[:1], program=arrays, devices=1).run(progress=False)
    assert set(result[0].restore()["seen"].tolist()) == {7}


def test_hosts_draw_parts_of_batches_that_their_devices_divide():
    def batches(number, total):
        yield np.zeros((12, 3))[number * 12 // total : (number + 1) * 12 // total]

    assert Stream(batches).drawn(Part(1, 2), devices=4) == Part(1, 2)
    assert Stream(batches).drawn(Part(1, 2), devices=8) == Part()
    assert Stream(lambda size=12, seed=0: iter([np.zeros((12, 3))])).drawn(Part(1, 2), devices=4) == Part()


def test_the_state_of_an_iterator_over_other_parts_is_told_and_not_used():
    """As where a run goes on with more hosts: batches are drawn anew, and are those that come next."""

    class Halves:
        def __init__(self, number, total):
            self.own, self.next = np.arange(12).reshape(total, -1)[number], 0

        def __iter__(self):
            return self

        def __next__(self):
            self.next += 1
            return self.own + 100 * self.next

        def get_state(self):
            return self.next

        def set_state(self, state):
            self.next = state

    whole = Stream(Halves)
    drawing = Pass(whole, part=Part(0, 2))
    drawing.draw()
    drawing.draw()
    place = Position.unpacked(drawing.position().packed())
    assert (place.batch, place.part) == (2, Part(0, 2))
    assert Pass(whole, place, Part(0, 2)).draw().tolist() == [*range(300, 306)]
    with pytest.warns(
        UserWarning, match="it is of another part of each batch. 2 batches are drawn and dropped instead"
    ):
        assert Pass(whole, place, Part(2, 3)).draw().tolist() == [*range(308, 312)]
